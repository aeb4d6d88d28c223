"""Which row of a table is of which clip: by names, the most exact first."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from pathlib import PurePath

from sercli.datasets.base import Clip
from sercli.errors import DatasetError
from sercli.text import compose


def clip_names(clip: Clip) -> tuple[str, ...]:
    """Return what a table may call a clip, the most exact first.

    Its name, its path, its name without suffix, the name of its file, and that without suffix.

    Parameters
    ----------
    clip
        The clip.
    """
    name = PurePath(clip.name)
    bare = name.with_suffix("").as_posix() if name.name else clip.name
    return clip.name, str(clip.path), bare, clip.path.name, clip.path.stem, name.stem


def match_rows(
    names: Iterable[Sequence[str]], rows: Collection[str], things: Sequence[Hashable], where: str
) -> list[str | None]:
    """Return the row of each clip, by the first of its names that is one; None if none is.

    Parameters
    ----------
    names
        Of each clip, the most exact first.
    rows
        Names of the rows of a table. The form of Unicode does not matter.
    things
        What a row is to tell something of: for each clip, itself, its file or its speaker.
    where
        What has the rows, for errors.

    Raises
    ------
    DatasetError
        If a row is that of two things: which is meant, it does not tell.
    """
    by_form = {compose(row): row for row in rows}
    found: list[str | None] = []
    thing_of: dict[str, Hashable] = {}
    for own, thing in zip(names, things, strict=True):
        key = next((form for form in map(compose, own) if form in by_form), None)
        row = None if key is None else by_form[key]
        if row is not None and thing_of.setdefault(row, thing) != thing:
            raise DatasetError(
                f"{where}: {row} is of {thing_of[row]} and of {thing}; expected names that tell "
                "them apart, such as paths"
            )
        found.append(row)
    return found
