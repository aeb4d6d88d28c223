"""Copies of members in the folder of a fusion, and what they replace there."""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from sercli.classifiers.members import list_inside
from sercli.errors import ModelError, OutputError
from sercli.registry.description import MODEL_FILE, TOLD_FILES, read_description


def check_room(folder: Path, members: Mapping[str, Path]) -> None:
    """Raise if something is in the way of members that are to be copied into a model folder.

    Parameters
    ----------
    folder
        The model folder, which need not exist yet.
    members
        Folders of the members, by their names. Those of the fusion in the model folder may stay, or
        be replaced.

    Raises
    ------
    OutputError
        If anything else is in the place of a member, even the member itself: it would be taken for
        a copy, and removed with the next model of the folder.
    """
    own = _list_inside(folder)
    for name, source in members.items():
        place = folder / name
        if not os.path.lexists(place) or (name in own and _is_there(place, source)):
            continue
        if name not in own or place.is_symlink():
            raise OutputError(
                f"{place}: is in the way of the copy of the member {name}, and no member of a "
                f"fusion in {folder}; move it away, or name another folder for the model"
            )


def is_replaced(folder: Path, model: Path) -> bool:
    """Return whether a model is removed by saving another one in a folder.

    Parameters
    ----------
    folder
        Folder of the new model, which need not exist yet.
    model
        Folder of the model, which may be a member of the fusion in `folder`.
    """
    members = {(folder / name).resolve() for name in _list_inside(folder)}
    place = model.resolve()
    return not members.isdisjoint((place, *place.parents))


def read_copies(folder: Path, members: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the files of members that are to be copied, by their paths in the model folder.

    Parameters
    ----------
    folder, members
        As for `check_room`.
    """
    return {
        os.path.join(name, file): path.read_bytes()
        for name, source in members.items()
        if not _is_there(folder / name, source)
        for file, path in _list_files(source).items()
    }


def list_left(folder: Path, members: Mapping[str, Path], kept: Collection[str]) -> list[Path]:
    """Return the files of an earlier fusion's copies of members that the new model does not have.

    Parameters
    ----------
    folder, members
        As for `check_room`.
    kept
        Files of the new model, by their paths in the model folder.
    """
    stay = {name for name, source in members.items() if _is_there(folder / name, source)}
    left = list[Path]()
    for place in (folder / name for name in _list_inside(folder) - stay):
        # What a link leads to is not ours, and neither are files that no copy has.
        with suppress(ModelError):
            left += [place] if place.is_symlink() else _list_files(place).values()
    return [path for path in left if os.path.relpath(path, folder) not in kept]


def remove_left(folder: Path, left: Iterable[Path]) -> None:
    """Remove files below a model folder, and the folders in it that are empty then.

    Parameters
    ----------
    folder
        The model folder.
    left
        The files, which need not exist.
    """
    for path in left:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in that folder
            for parent in path.relative_to(folder).parents[:-1]:
                (folder / parent).rmdir()


def _is_there(place: Path, source: Path) -> bool:
    return place.resolve() == source.resolve()


def _list_inside(folder: Path) -> set[str]:
    """Return the names of the members inside the folder of a fusion; none of other folders."""
    try:
        return set(list_inside(read_description(folder)["settings"]))
    except ModelError:  # there is no model, or one that nobody can load
        return set()


def _list_files(folder: Path) -> dict[str, Path]:
    """Return what belongs to a model, but its plots and reports, by the paths in its folder."""
    files = [MODEL_FILE, *read_description(folder)["weights"]]
    files += [file for file in TOLD_FILES if (folder / file).is_file()]
    found = {file: folder / file for file in files}
    for name in _list_inside(folder):
        inside = _list_files(folder / name)
        found |= {os.path.join(name, file): path for file, path in inside.items()}
    return found
