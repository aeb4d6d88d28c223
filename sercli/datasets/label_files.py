"""Corpora in files of audio editors: TextGrids of Praat, and label tracks of Audacity.

Each file is named after its recording, as `sercli.export_labels` writes them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from reprlib import repr as shorten

from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.labelling import common_label, fold
from sercli.datasets.media import NOT_ANNOTATED, MediaFolder, list_media
from sercli.datasets.tables import LICENCE, make_clip
from sercli.delimited import Row
from sercli.errors import DatasetError
from sercli.schema import printable_path
from sercli.speech.grids import EXPORTED, SUFFIX, list_below, parse_voice, read_intervals
from sercli.speech.matching import match_turns
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns
from sercli.text import compose

# Readers, by the names of the formats of `sercli.export_labels`.
TEXTGRID, AUDACITY = LABEL_FILES = ("textgrid", "audacity")
TRACK_SUFFIX = ".txt"
# First line of a label track. Other texts have the same suffix, also tables, some of numbers only.
TRACK = re.compile(rb"-?\d+(?:[.,]\d+)?\t-?\d+(?:[.,]\d+)?\t(?![-+.,\deE\t ]+\s*$)[^\t]*")
# Text of a label that was exported, or corrected: a voice, an emotion, a confidence.
CAPTION = re.compile(r"(?:(?P<voice>.+): )?(?P<emotion>.+?)(?: [01]\.\d\d)?")
# Words quoted of a tier without emotions.
MOST_TOLD = 3

# A label: where it is if that may hold something else than emotions, and its cells as in a table.
Label = tuple[str | None, Row]


def find_label_files(path: Path) -> dict[str, list[Path]]:
    """Return the label files at a path or below it, by the names of their readers.

    Parameters
    ----------
    path
        Path of a file or a folder.
    """
    files = list_below(path) if path.is_dir() else [path]
    found: dict[str, list[Path]] = {}
    for file in files:
        suffix = file.suffix.lower()
        if suffix == SUFFIX and file.is_file():
            found.setdefault(TEXTGRID, []).append(file)
        elif suffix == TRACK_SUFFIX and _is_track(file):
            found.setdefault(AUDACITY, []).append(file)
    return found


def name_emotions(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the readers whose files name emotions, not words or phones as alignments do.

    Parameters
    ----------
    files
        Label files of `find_label_files`.
    """
    return [kind for kind, some in files.items() if any(map(_names_emotions, some))]


def read_label_files(
    path: Path, kind: str, folder: MediaFolder, columns: Mapping[str, str], mapped: Collection[str]
) -> Corpus:
    """Read label files.

    Parameters
    ----------
    path
        Path of a file, or of a folder with files at any depth.
    kind
        Name of the reader, one of `LABEL_FILES`.
    folder
        Media files in the folder, or beside the file. Recordings that are not among them are
        looked for in the working directory, in the same sub-folders as the files.
    columns
        Name of the tier of emotions, as ``emotion``. Without it, tiers that are named as
        `sercli.export_labels` names them are read, or else the only interval tier.
    mapped
        Words that the user maps to labels.

    Returns
    -------
    Corpus
        Clips with the files' own words as labels; a label without text is no clip. The corpus is
        named after the path; a speaker's name stands for the same speaker in all tables.

    Raises
    ------
    ConfigError
        If a recording matches several files.
    DatasetError
        If a file cannot be read, has no recording or several, or has times that are not valid, or a
        tier has no known label.
    """
    labels = _read_tracks(path) if kind == AUDACITY else _read_tiers(path, columns.get("emotion"))
    _refuse_unknown(path, labels.values(), mapped)
    found = _find_recordings(path, folder, labels)
    corpus = path.resolve().name if path.is_dir() else path.stem
    used = {root / file for root, file in found.values()}
    rest = [one for one in folder.media if path.is_dir() and one not in used]
    skipped = {folder.name(one): NOT_ANNOTATED for one in rest}
    clips: list[Clip] = []
    for name, (root, file) in found.items():
        for _, row in labels[name]:
            if _is_note(row, mapped):
                skipped[Path(row.where).name] = "a note at a point in time"
            else:
                cells = {**row.cells, "file": printable_path(file)}
                clips.append(make_clip(root, corpus, row.where, cells))
    return Corpus(corpus, LICENCE, tuple(clips), skipped)


def _is_note(row: Row, mapped: Collection[str]) -> bool:
    """Return whether a label without duration, as Audacity has them, is not of an emotion."""
    return row.cells["start"] == row.cells["end"] and not _is_known(row.cells["emotion"], mapped)


def _is_known(word: str, mapped: Collection[str]) -> bool:
    return common_label(word) is not None or fold(word) in map(fold, mapped)


def _folder_of(name: str) -> str:
    return Path(name).parent.as_posix()


def _names_emotions(path: Path) -> bool:
    try:
        if path.suffix.lower() == SUFFIX:
            return b'"emotion' in path.read_bytes().replace(b"\0", b"")  # also in UTF-16
        return any(common_label(row.cells["emotion"]) for row in _read_track(path))
    except (OSError, DatasetError):
        return False


def _is_track(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return TRACK.fullmatch(file.readline(1_000).removeprefix(b"\xef\xbb\xbf")) is not None
    except OSError:  # a folder, or nothing that can be read
        return False


def _read_tiers(path: Path, tier: str | None) -> dict[str, list[Label]]:
    try:
        grids, _ = read_intervals(path, [tier] if tier else [], emotions=True)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    return {
        name: [
            (
                None if tier or EXPORTED.fullmatch(one.tier) else f"the tier {one.tier}",
                Row(
                    f"{path}: {name}, tier {one.tier}, at {one.start:g} s",
                    {
                        "emotion": one.text,
                        "start": str(one.start),
                        "end": str(one.end),
                        "speaker": one.speaker or "",
                        "channel": one.channel or "",
                    },
                ),
            )
            for one in intervals
        ]
        for name, intervals in grids.items()
    }


def _read_tracks(path: Path) -> dict[str, list[Label]]:
    root = path if path.is_dir() else path.parent
    files = find_label_files(path).get(AUDACITY, [])
    if not files:
        raise DatasetError(f"{path}: holds no label track; expected lines START<tab>END<tab>LABEL")
    found: dict[str, list[Label]] = {}
    for file in files:
        name = compose(file.relative_to(root).with_suffix("").as_posix())
        if name in found:
            raise DatasetError(f"{path}: holds two label tracks named {name}; expected one")
        found[name] = [("the label track", row) for row in _read_track(file)]
    return found


def _read_track(path: Path) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; expected UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.startswith("\\"):  # the frequencies of the label before
            continue
        start, end, text = [*line.split("\t", 2), "", "", ""][:3]
        if caption := CAPTION.fullmatch(text.strip()):
            speaker, channel = parse_voice(caption["voice"] or "")
            cells = {"speaker": speaker or "", "channel": channel or ""}
            cells |= {"start": start, "end": end, "emotion": caption["emotion"]}
            yield Row(f"{path}, line {number}", cells)


def _refuse_unknown(path: Path, labels: Iterable[Sequence[Label]], mapped: Collection[str]) -> None:
    """Raise if a tier has no known label in any file: it may hold words or notes."""
    words: dict[str, list[str]] = {}
    for tier, row in chain.from_iterable(labels):
        if tier is not None:
            words.setdefault(tier, []).append(row.cells["emotion"])
    for tier, found in words.items():
        if not any(_is_known(one, mapped) for one in {*found}):
            told = ", ".join(sorted({*found})[:MOST_TOLD])
            raise DatasetError(
                f"{path}: {tier} holds no known label, but {shorten(told)}; expected emotions, "
                "such as anger; say what they stand for by --map THEIRS=OURS, which may be "
                "the same, or which tier of TextGrids is meant by --columns emotion=TIER"
            )


def _find_recordings(
    path: Path, folder: MediaFolder, labels: Mapping[str, Sequence[Label]]
) -> dict[str, tuple[Path, str]]:
    """Return the recording of each file that has labels, as a folder and a name within."""
    needed = {name for name, rows in labels.items() if rows}
    found = _match(path, labels, folder, needed)
    missing = needed - found.keys()
    # In the working directory, only at the same places: elsewhere, the name may be another's.
    for place in sorted({_folder_of(name) for name in missing}):
        here = [name for name in labels if _folder_of(name) == place]
        found |= _match(path, here, list_media(Path(), place), missing)
    if missing := needed - found.keys():
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(
            f"{path}: found no recording of {min(missing)}{others}, neither in {folder.root} nor, "
            "in the same sub-folders, in the working directory; expected one of that name, with a "
            "suffix of audio or video; run this in the folder that all recordings share, or put "
            "the files there"
        )
    return found


def _match(
    path: Path, names: Iterable[str], folder: MediaFolder, needed: Collection[str]
) -> dict[str, tuple[Path, str]]:
    """Return the recording in a folder of each needed file that has one, as `_find_recordings`."""
    # Each file is a turn of its recording, so that they are matched as by `ser annotate`.
    turns = Turns(path, {name: (Turn(speaker=name),) for name in names}, local=True)
    match = match_turns(turns, map(str, folder.media))
    found: dict[str, Path] = {}
    for recording in folder.media:
        for turn in match.find(str(recording)):
            name = turn.speaker or ""
            if name in needed and found.setdefault(name, recording) != recording:
                raise DatasetError(
                    f"{path}: {name} may be of {found[name]} and of {recording}; expected "
                    "one recording for each file; put the suffix into its name, such as "
                    f"{name}{recording.suffix}, if there are others of that name"
                )
    return {name: (folder.root, folder.name(one)) for name, one in found.items()}
