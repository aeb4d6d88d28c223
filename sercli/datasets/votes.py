"""What listeners heard: counts of votes per clip and label.

A table of votes is CSV: the header ``clip,LABEL,LABEL,...``, then a row of counts for each clip.
CREMA-D's own ``processedResults/tabulatedVotes.csv`` is read too: of its rows those of the voice
alone, whose numbers are 100001 and following; 2xxxxx are of the face, 3xxxxx of both.
"""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from sercli.datasets.base import Clip
from sercli.datasets.labelling import canonical_label, common_label
from sercli.datasets.matching import clip_names, match_rows
from sercli.errors import DatasetError

CREMAD_COLUMNS = {
    "A": "anger",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
}
CREMAD_CLIP = "fileName"
# Rows of one kind of stimulus are numbered from a multiple of this; the first is the voice alone.
CREMAD_BLOCK = 100_000
VOICE = 1


Votes = Mapping[str, Mapping[str, int]]


def match_votes(votes: Votes, clips: Sequence[Clip]) -> list[Mapping[str, int]]:
    """Return the votes on each clip, by its names; see `sercli.datasets.matching.clip_names`.

    Parameters
    ----------
    votes
        Counts by label, by name of the clip.
    clips
        The clips; on some there may be none.

    Raises
    ------
    DatasetError
        If a name is that of two clips.
    """
    things = [clip.place for clip in clips]
    rows = match_rows(map(clip_names, clips), votes, things, "the table of votes")
    return [{} if row is None else votes[row] for row in rows]


def find_unknown(votes: Votes, known: Collection[str]) -> list[str]:
    """Return the labels of a table of votes that are nobody's, of which some may be misspelt.

    Parameters
    ----------
    votes
        Counts by label, by name of the clip.
    known
        Labels of clips and models; English words for emotions are known in any case.
    """
    labels = {label for row in votes.values() for label in row}
    return sorted(one for one in labels.difference(known) if common_label(one) is None)


def read_votes(path: Path) -> dict[str, dict[str, int]]:
    """Read a table of listeners' votes.

    Parameters
    ----------
    path
        A CSV file of one of the two kinds.

    Returns
    -------
    dict
        Counts, from 0, by canonical label, by name of the clip; clips in the order of the table.

    Raises
    ------
    DatasetError
        If the file cannot be read, is of neither kind, names a clip or a label twice, or has a
        cell that is no count.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path}: cannot be read as a table of votes ({error}); expected CSV in UTF-8"
        ) from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    clip_column, labels = _read_header(path, header)
    votes: dict[str, dict[str, int]] = {}
    for line, cells in _rows_of_voice(path, header, rows):
        name = cells[clip_column]
        if name in votes:
            raise DatasetError(
                f"{path}, line {line}: names the clip {name} again; expected it once"
            )
        votes[name] = {
            label: _parse_count(f"{path}, line {line}", header[column], cells[column])
            for column, label in labels.items()
        }
    if not votes:
        raise DatasetError(f"{path}: has no row of votes; expected one for each clip")
    return votes


def _read_header(path: Path, header: list[str]) -> tuple[int, dict[int, str]]:
    """Return the column of the clips' names, and the label of each column of counts."""
    if _is_cremad(header):
        return header.index(CREMAD_CLIP), {
            header.index(key): CREMAD_COLUMNS[key] for key in CREMAD_COLUMNS
        }
    if len(header) < 2 or header[0] != "clip" or not all(header):
        raise DatasetError(
            f"{path}: begins with {','.join(header) or 'nothing'!r}; expected the header "
            "clip,LABEL,LABEL,... or that of CREMA-D's tabulatedVotes.csv"
        )
    labels = {column: canonical_label(word) or word for column, word in enumerate(header) if column}
    double = sorted({label for label in labels.values() if list(labels.values()).count(label) > 1})
    if double:
        raise DatasetError(f"{path}: has two columns for {double[0]}; expected each label once")
    return 0, labels


def _is_cremad(header: list[str]) -> bool:
    return header[:1] != ["clip"] and {CREMAD_CLIP, *CREMAD_COLUMNS} <= set(header)


def _rows_of_voice(
    path: Path, header: list[str], rows: list[list[str]]
) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row that counts votes on the voice alone."""
    for line, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise DatasetError(
                f"{path}, line {line}: has {len(cells)} cells; expected {len(header)}, as in the "
                "header"
            )
        if _is_cremad(header):
            number = _parse_count(f"{path}, line {line}", "number of the row", cells[0])
            if number // CREMAD_BLOCK != VOICE:
                continue
        yield line, cells


def _parse_count(where: str, column: str, cell: str) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdigit()):
        raise DatasetError(f"{where}: {column} is {cell!r}; expected a count, from 0")
    return int(text)
