"""Corpora of the user: a table of files, or a folder for each class."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from reprlib import repr as shorten

from sercli.config import SPLITS
from sercli.datasets.clip import Clip, group_by_place, stretch_name
from sercli.datasets.corpus import Corpus
from sercli.datasets.matching import NAMESPACE
from sercli.datasets.media import MISSING, MediaFolder, pick_copies
from sercli.delimited import parse_count, parse_seconds, read_table
from sercli.errors import DatasetError
from sercli.listed import find_listed, tidy_listed
from sercli.schema import MIX
from sercli.text import compose

LICENCE = "not stated"
# Columns of a manifest with a meaning; any other column is a trait.
NEEDED = ("file", "emotion")
COLUMNS = (*NEEDED, "speaker", "start", "end", "split", "channel")

SPLIT_WORDS: Mapping[str, str] = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("validation", "val", "development", "devel"), "dev"),
}


def read_folders(folder: MediaFolder) -> Corpus:
    """Read a folder with a sub-folder for each class, or with those in a sub-folder for each split.

    Parameters
    ----------
    folder
        Folder whose sub-folders are named after the labels, with files at any depth.

    Returns
    -------
    Corpus
        Clips of unknown speakers; the corpus is named after the folder.
    """
    name = folder.root.resolve().name
    paths = {folder.name(path): path for path in folder.media}
    depth = find_class_depth(paths)
    deep = {key: path for key, path in paths.items() if key.count("/") > depth}
    inside = [(str(PurePath(key).with_suffix("")), path) for key, path in deep.items()]
    chosen, skipped = pick_copies(folder, inside)
    skipped |= dict.fromkeys(
        (key for key in paths if key not in deep), "not in a sub-folder of a class"
    )
    clips = tuple(
        Clip(
            path,
            PurePath(key).parts[depth],
            name=folder.name(path),
            split=SPLIT_WORDS[key.split("/")[0].casefold()] if depth else None,
            corpus=name,
            namespace=NAMESPACE,  # or a folder of that name would be taken for a published corpus
        )
        for key, path in chosen.items()
    )
    return Corpus(name, LICENCE, clips, skipped)


def find_class_depth(names: Iterable[str]) -> int:
    """Return 1 if all files are in sub-folders for splits, in which those of the classes are; or 0.

    Parameters
    ----------
    names
        Paths of the files below the folder, with ``/`` between their parts.
    """
    folders = {name.split("/")[0].casefold() for name in names if "/" in name}
    return int(bool(folders) and folders <= SPLIT_WORDS.keys())


def read_manifest(path: Path, columns: Mapping[str, str]) -> Corpus:
    """Read a table of files and their emotions.

    Parameters
    ----------
    path
        Path of a table with the columns ``file``, ``emotion`` and, if known, ``speaker``, ``start``
        and ``end`` in seconds, ``split``, ``channel``; any other column is a trait. Paths of files
        are relative to the table's folder or, if nothing is there, to the working directory.
    columns
        Names of the columns in the table, by the names above.

    Returns
    -------
    Corpus
        Clips with the table's own words as labels. The corpus is named after the table, without
        suffix; a speaker's name stands for the same speaker in all tables.

    Raises
    ------
    DatasetError
        If the table cannot be read, lacks a column, or has a cell that is not valid.
    """
    clips: list[Clip] = []
    skipped: dict[str, str] = {}
    missing: list[str] = []
    table = read_table(path, DatasetError)
    names = _rename(path, table.columns, columns)
    files = next(theirs for theirs, ours in names.items() if ours == "file")
    for where, row in table.rows:
        cells = {ours: row[theirs].strip() for theirs, ours in names.items()}
        if not cells["file"]:
            raise DatasetError(f"{where}: names no file; expected one, relative to the table")
        cells["file"] = tidy_listed(path.parent, row[files])
        clip = make_clip(path.parent, path.stem, where, cells)
        if not clip.emotion:
            skipped[clip.name] = "no emotion given"
        elif not os.path.isfile(clip.path):  # does not fail on a name that is too long
            missing.append(clip.name)
        else:
            clips.append(clip)
    if missing:
        # One reason for all, so that they are counted together; as reports have it, without folders
        # that are nobody else's business.
        reason = (
            f"{MISSING}, such as {missing[0]}, which is neither in the table's folder nor in the "
            "working directory"
        )
        skipped |= dict.fromkeys(missing, reason)
    return Corpus(path.stem, LICENCE, tuple(clips), skipped)


def join_rows(corpus: Corpus) -> Corpus:
    """Return a manifest's clips without duplicates and without those with contradictory rows.

    Rows are of one clip if they name the same stretch of the same file, however its path is
    spelt.

    Parameters
    ----------
    corpus
        Corpus of `read_manifest` with its final labels: different words for the same label do not
        contradict each other.
    """
    clips = []
    skipped = dict(corpus.skipped)
    for rows in group_by_place(corpus.clips):
        name = rows[0].name
        told = {
            "labelled": {clip.emotion for clip in rows},
            "of the split": {clip.split or "none" for clip in rows},
            "by the speaker": {clip.speaker or "unknown" for clip in rows},
        }
        doubts = [f"{what} {' and '.join(sorted(of))}" for what, of in told.items() if len(of) > 1]
        if doubts:
            reason = f"in several rows: {', '.join(doubts)}"
            skipped |= dict.fromkeys((clip.name for clip in rows), reason)
        else:
            clips.append(rows[0])
            skipped |= {f"{name} (copy {n})": "a duplicate row" for n in range(2, len(rows) + 1)}
    return replace(corpus, clips=tuple(clips), skipped=skipped)


def parse_split(word: str, where: str) -> str | None:
    """Return the split that a word stands for; None for an empty word.

    Parameters
    ----------
    word
        Name of a split, in any case; ``validation``, ``val``, ``development`` and ``devel`` stand
        for ``dev``.
    where
        Place of the word, with which an error message begins.

    Raises
    ------
    DatasetError
        If it stands for no split.
    """
    if word and word.casefold() not in SPLIT_WORDS:
        raise DatasetError(f"{where}: split is {word!r}; expected train, dev or test, or nothing")
    return SPLIT_WORDS.get(word.casefold())


def _rename(path: Path, header: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the standard name of each column of the table."""
    ours = {compose(theirs): name for name, theirs in columns.items()}
    # A column with a standard name that the user gives to another column must not be taken for it.
    renamed = {
        name: ours.get(name, f"their {name}" if name in columns else name)
        for name in filter(None, header)
    }
    absent = [
        columns.get(name, name)
        for name in {**dict.fromkeys(NEEDED), **columns}
        if name not in renamed.values()
    ]
    if absent:
        raise DatasetError(
            f"{path}: has the columns {', '.join(renamed) or 'without names'}; expected "
            f"{', '.join(absent)}; name them with --columns file=THEIRS,..."
        )
    return renamed


def make_clip(folder: Path, corpus: str, where: str, cells: Mapping[str, str]) -> Clip:
    """Return the clip that a row describes.

    Parameters
    ----------
    folder
        Folder that paths of files are relative to.
    corpus
        Name of the corpus.
    where
        Place of the row, with which error messages begin.
    cells
        Texts by the names of `read_manifest`; all but ``file`` and ``emotion`` may be missing.

    Raises
    ------
    DatasetError
        If a cell is not valid.
    """
    start, end = (
        parse_seconds(cells[name], f"{where}: {name}", DatasetError) if cells.get(name) else None
        for name in ("start", "end")
    )
    if end is not None and end <= (start or 0.0):
        raise DatasetError(
            f"{where}: ends at {end:g} s and starts at {start or 0.0:g} s; expected an end after "
            "the start"
        )
    file = PurePath(os.path.normpath(cells["file"]))
    channel = _parse_channel(where, cells.get("channel", ""))
    return Clip(
        find_listed(folder, str(file)) or folder / file,
        cells["emotion"],
        _parse_speaker(cells.get("speaker", "")),
        name=stretch_name(file.as_posix(), start or 0.0, end, channel),
        corpus=corpus,
        start=start or 0.0,
        end=end,
        split=parse_split(cells.get("split", ""), where),
        channel=channel,
        namespace=NAMESPACE,
        traits={key: text for key, text in cells.items() if key not in COLUMNS and text},
    )


def _parse_speaker(text: str) -> str | None:
    """Return the name of a speaker, or None for an empty text or ``unknown`` (MSP-Podcast)."""
    return None if text.casefold() in ("", "unknown") else compose(text)


def _parse_channel(where: str, text: str) -> int | None:
    """Return the index of a channel, as `ser annotate` writes it, or None for the mean of all."""
    if text in ("", MIX):
        return None
    channel = parse_count(text)
    if channel is None:
        raise DatasetError(
            f"{where}: channel is {shorten(text)}; expected its index, from 0, or {MIX}, the mean "
            "of all; rename the column if it means something else"
        )
    return channel
