"""Media files of a folder, and the choice between several copies of a clip."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sercli.discovery import find_inputs
from sercli.errors import DatasetError
from sercli.listed import find_file

# A release may have a clip in several folders and formats: these are preferred, in this order.
PREFERRED_SUFFIXES = (".wav", ".flac")

COPY = "another copy of a clip"
MISSING = "annotated, but the file is missing"
NOT_ANNOTATED = "not annotated"


@dataclass(frozen=True)
class MediaFolder:
    """A folder that was searched for media files.

    Parameters
    ----------
    root
        Path of the folder.
    media
        Media files in it at any depth, without hidden ones.
    problems
        Errors of sub-folders that could not be searched, by their names.
    """

    root: Path
    media: tuple[Path, ...]
    problems: Mapping[str, str]

    def name(self, path: Path) -> str:
        """Return a path relative to the folder, with ``/`` between its parts."""
        return Path(os.path.relpath(path, self.root)).as_posix()


def scan_folder(root: Path) -> MediaFolder:
    """Search a folder for media files.

    Parameters
    ----------
    root
        Path of the folder; links are followed once.

    Raises
    ------
    DatasetError
        If it is not a folder or has no media file.
    """
    if not root.exists():
        raise DatasetError(f"{root}: does not exist; expected a folder with a corpus, or a table")
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder; expected a folder with a corpus")
    folder = list_media(root)
    if not folder.media:
        told = f" ({'; '.join(f'{name}: {why}' for name, why in folder.problems.items())})"
        raise DatasetError(
            f"{root}: found no audio or video files{told if folder.problems else ''}; "
            "expected a folder with a corpus"
        )
    return folder


def list_media(root: Path, *names: str) -> MediaFolder:
    """Return the media files in a folder; there may be none.

    Parameters
    ----------
    root
        Path of the folder; links are followed once.
    names
        Names of the sub-folders to search, without those below them; by default, the folder is
        searched at any depth.
    """
    places = [find_file(root, name) for name in names] if names else [root]
    folders = [place for place in places if place is not None and place.is_dir()]
    found = list(find_inputs(folders, recursive=not names))
    media = tuple(Path(item.path) for item in found if item.error is None)
    folder = MediaFolder(root, media, {})
    problems = {folder.name(Path(item.path)): item.error for item in found if item.error}
    return MediaFolder(root, media, problems)


def suffix_rank(path: Path) -> int:
    """Return the rank of a file among its copies, of which the lowest is read."""
    suffix = path.suffix.lower()
    known = suffix in PREFERRED_SUFFIXES
    return PREFERRED_SUFFIXES.index(suffix) if known else len(PREFERRED_SUFFIXES)


def pick_copies(
    folder: MediaFolder,
    named: Iterable[tuple[str, Path]],
    rank: Callable[[Path], Any] = suffix_rank,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Pick one file for each name.

    Parameters
    ----------
    folder
        Folder of the files.
    named
        Pairs of a name and a file, one for each copy.
    rank
        Function that returns the rank of a file: the copy of the lowest rank is picked, of equal
        ranks the first by its path.

    Returns
    -------
    chosen
        File of each name, in the order of the names.
    skipped
        Reason for leaving out each other file.
    """
    chosen: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    for name, path in sorted(named, key=lambda item: (item[0], rank(item[1]), str(item[1]))):
        if name in chosen:
            skipped[folder.name(path)] = COPY
        else:
            chosen[name] = path
    return chosen, skipped
