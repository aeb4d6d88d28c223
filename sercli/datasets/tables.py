"""Corpora of one's own: a table that names the files, or a folder for each class."""

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath

from sercli.datasets.base import Clip, Corpus
from sercli.datasets.labelling import compose
from sercli.datasets.media import MISSING, MediaFolder, pick_copies
from sercli.errors import DatasetError
from sercli.schema import MIX

LICENCE = "not stated"
# One name in several tables is one speaker: who trains by one and measures by another is told.
NAMESPACE = "table"
# Names of a manifest's columns that mean something; any further column is a trait.
NEEDED = ("file", "emotion")
COLUMNS = (*NEEDED, "speaker", "start", "end", "split", "channel")
DELIMITERS = ",\t;"

SPLITS: Mapping[str, str] = {
    **{split: split for split in ("train", "dev", "test")},
    **dict.fromkeys(("validation", "val", "devel"), "dev"),
}


def read_folders(folder: MediaFolder) -> Corpus:
    """Read a folder with a sub-folder for each class.

    Parameters
    ----------
    folder
        Its sub-folders' names are the labels; files lie in them at any depth.

    Returns
    -------
    Corpus
        Of that folder's name, its speakers unknown.
    """
    name = folder.root.resolve().name
    paths = {folder.name(path): path for path in folder.media}
    inside = [
        (str(PurePath(key).with_suffix("")), path) for key, path in paths.items() if "/" in key
    ]
    chosen, skipped = pick_copies(folder, inside)
    skipped |= dict.fromkeys(
        (key for key in paths if "/" not in key), "in no sub-folder of a class"
    )
    clips = tuple(
        Clip(path, PurePath(key).parts[0], name=folder.name(path), corpus=name)
        for key, path in chosen.items()
    )
    return Corpus(name, LICENCE, clips, skipped)


def read_manifest(path: Path, columns: Mapping[str, str]) -> Corpus:
    """Read a table that names files and their emotions.

    Parameters
    ----------
    path
        CSV or TSV with a header: ``file,emotion`` and, if known, ``speaker``, ``start`` and
        ``end`` in seconds, ``split``, ``channel``; any further column is a trait. Files are
        relative to the table's folder.
    columns
        The table's names of columns, by ours.

    Returns
    -------
    Corpus
        Of the table's name without suffix; a speaker is who has that name in any table.

    Raises
    ------
    DatasetError
        If the table cannot be read, or a row is not what its header promises.
    """
    clips: list[Clip] = []
    skipped: dict[str, str] = {}
    for line, cells in _read_rows(path, columns):
        where = f"{path}, line {line}"
        if not cells["file"]:
            raise DatasetError(f"{where}: names no file; expected one, relative to the manifest")
        clip = _manifest_clip(path, where, cells)
        if not clip.emotion:
            skipped[clip.name] = "no emotion given"
        elif not clip.path.is_file():
            skipped[clip.name] = MISSING
        else:
            clips.append(clip)
    return Corpus(path.stem, LICENCE, tuple(clips), skipped)


def join_rows(corpus: Corpus) -> Corpus:
    """Return a manifest's clips once each, without those whose rows contradict each other.

    Parameters
    ----------
    corpus
        Of `read_manifest`, with the labels that its clips are to have: words that become one label
        do not contradict each other.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in corpus.clips:
        groups.setdefault(clip.name, []).append(clip)
    clips = []
    skipped = dict(corpus.skipped)
    for name, rows in groups.items():
        told = {
            "labelled": {clip.emotion for clip in rows},
            "of the split": {clip.split or "none" for clip in rows},
            "by the speaker": {clip.speaker or "unknown" for clip in rows},
        }
        doubts = [f"{what} {' and '.join(sorted(of))}" for what, of in told.items() if len(of) > 1]
        if doubts:
            skipped[name] = f"in several rows: {', '.join(doubts)}"
        else:
            clips.append(rows[0])
            skipped |= {f"{name} (row {n})": "a duplicate row" for n in range(2, len(rows) + 1)}
    return replace(corpus, clips=tuple(clips), skipped=skipped)


def parse_split(word: str, where: str) -> str | None:
    """Return the split that a word names; None for no word.

    Raises
    ------
    DatasetError
        If it names none; the message begins with `where`.
    """
    if word and word.casefold() not in SPLITS:
        raise DatasetError(f"{where}: split is {word!r}; expected train, dev or test, or nothing")
    return SPLITS.get(word.casefold())


def stretch_name(file: str, start: float, end: float | None, channel: int | None = None) -> str:
    """Return the name of a clip: its file's, ``#START-END`` in seconds, and ``@CHANNEL``."""
    own = "" if channel is None else f"@{channel}"
    if start == 0.0 and end is None:
        return f"{file}{own}"
    return f"{file}#{start:.10g}-{'' if end is None else f'{end:.10g}'}{own}"


def _read_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and cells of each row, by our names of columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as a manifest ({error}); expected CSV or TSV in UTF-8"
        ) from error
    rows = csv.reader(io.StringIO(text), delimiter=_find_delimiter(path, text.split("\n")[0]))
    header = _rename(path, [cell.strip() for cell in next(rows, [])], columns)
    for cells in rows:
        if not cells:
            continue
        if len(cells) != len(header):
            raise DatasetError(
                f"{path}, line {rows.line_num}: has {len(cells)} cells; expected {len(header)}, "
                "as in the header"
            )
        yield rows.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _find_delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    return max(DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def _rename(path: Path, header: list[str], columns: Mapping[str, str]) -> list[str]:
    """Return a header in our names."""
    ours = {theirs: name for name, theirs in columns.items()}
    # A column that has our name, but is not the one the user means, is not to be taken for it.
    renamed = [ours.get(name, f"their {name}" if name in columns else name) for name in header]
    absent = [
        columns.get(name, name)
        for name in {**dict.fromkeys(NEEDED), **columns}
        if name not in renamed
    ]
    if absent:
        raise DatasetError(
            f"{path}: has the columns {', '.join(filter(None, header)) or 'of an empty file'}; "
            f"expected {', '.join(absent)}; say which is which by --columns file=THEIRS,..."
        )
    double = sorted({name for name in renamed if renamed.count(name) > 1})
    if double:
        raise DatasetError(f"{path}: has two columns {double[0]!r}; expected each once")
    return renamed


def _manifest_clip(path: Path, where: str, cells: Mapping[str, str]) -> Clip:
    start = _parse_time(where, "start", cells.get("start", ""))
    end = _parse_time(where, "end", cells.get("end", ""))
    if end is not None and end <= (start or 0.0):
        raise DatasetError(
            f"{where}: ends at {end:g} s and starts at {start or 0.0:g} s; expected an end after "
            "the start"
        )
    file = PurePath(os.path.normpath(cells["file"]))
    channel = _parse_channel(where, cells.get("channel", ""))
    return Clip(
        path.parent / file,
        cells["emotion"],
        compose(cells.get("speaker", "")) or None,
        name=stretch_name(file.as_posix(), start or 0.0, end, channel),
        corpus=path.stem,
        start=start or 0.0,
        end=end,
        split=parse_split(cells.get("split", ""), where),
        channel=channel,
        namespace=NAMESPACE,
        traits={key: text for key, text in cells.items() if key not in COLUMNS and text},
    )


def _parse_channel(where: str, text: str) -> int | None:
    """Return the index that `ser annotate` names a channel by; None for the mean of all."""
    if text in ("", MIX):
        return None
    if not (text.isascii() and text.isdigit()):
        raise DatasetError(
            f"{where}: channel is {text!r}; expected its index, from 0, or {MIX}, the mean of all; "
            "give a column that tells something else another name"
        )
    return int(text)


def _parse_time(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:  # also false for NaN
        raise DatasetError(f"{where}: {name} is {text!r}; expected seconds, from 0")
    return seconds
