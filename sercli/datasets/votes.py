"""Votes of listeners: counts per clip and label.

A table of votes is CSV: the header ``clip,LABEL,LABEL,...``, then a row of counts for each clip.
CREMA-D's own ``processedResults/tabulatedVotes.csv`` is read, too. Only its rows for the voice
alone are used, which are numbered from 100001 on; 2xxxxx are for the face, 3xxxxx for both.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shorten

from sercli.datasets.clip import Clip
from sercli.datasets.labelling import COMMON, canonical_label, common_label, fold, translate_words
from sercli.datasets.matching import clip_names, match_rows
from sercli.delimited import parse_count, read_table
from sercli.errors import DatasetError
from sercli.text import compose

# Codes of the corpus by the columns of its table.
CREMAD_COLUMNS = {"A": "ANG", "D": "DIS", "F": "FEA", "H": "HAP", "N": "NEU", "S": "SAD"}
CREMAD_CLIP = "fileName"
# Rows for each kind of stimulus are numbered from a multiple of this; the voice alone is first.
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
        Clips, of which some may have no votes.

    Returns
    -------
    list of mappings
        Counts by label for each clip; empty for clips without votes.

    Raises
    ------
    DatasetError
        If a name matches two clips.
    """
    things = [clip.place for clip in clips]
    rows = match_rows([*map(clip_names, clips)], votes, things, "the table of votes")
    return [{} if row is None else votes[row] for row in rows]


def suggest_name(clips: Sequence[Clip]) -> str:
    """Return the shortest name that a table of votes may have for the first of some clips.

    It has folders, and a suffix, only where other clips have the same name without.
    """
    first, *others = map(clip_names, clips)
    shorter = (name for name in (first[-1], first[2]) if all(name not in one for one in others))
    return next(shorter, first[0])


def find_unknown(votes: Votes, known: Collection[str]) -> list[str]:
    """Return the labels of a table of votes that are unknown, and may be misspelt.

    Parameters
    ----------
    votes
        Counts by label, by name of the clip.
    known
        Labels of clips and models; English words for emotions always count as known.
    """
    labels = {label for row in votes.values() for label in row}
    return sorted(one for one in labels.difference(known) if common_label(one) is None)


def read_votes(path: Path, mapping: Mapping[str, str] = {}) -> dict[str, dict[str, int]]:
    """Read a table of listeners' votes.

    Parameters
    ----------
    path
        Path of a CSV file of either kind.
    mapping
        The user's labels, as for `sercli.datasets.labelling.translate`; columns that become one
        label are added up.

    Returns
    -------
    dict
        Counts, from 0, by canonical label, by name of the clip; clips in the order of the table.

    Raises
    ------
    DatasetError
        If the file cannot be read, is of neither kind, has no votes, names a clip or a label twice,
        or has a row that names no clip or a cell that is no count.
    """
    columns, rows = read_table(path, DatasetError)
    clip_column, labels = _read_header(path, columns, mapping)
    votes: dict[str, dict[str, int]] = {}
    for where, cells in rows:
        if clip_column == CREMAD_CLIP:
            number = _parse_count(where, "number of the row", cells[columns[0]])
            if number // CREMAD_BLOCK != VOICE:
                continue
        name = compose(cells[clip_column].strip())
        if not name:
            raise DatasetError(f"{where}: names no clip; expected the name of one")
        if name in votes:
            raise DatasetError(f"{where}: names the clip {name} again; expected each clip once")
        counts = dict.fromkeys(labels.values(), 0)
        for column, label in labels.items():
            counts[label] += _parse_count(where, column, cells[column])
        votes[name] = counts
    if not votes:
        raise DatasetError(f"{path}: has no row of votes; expected one for each clip")
    return votes


def _read_header(
    path: Path, header: Sequence[str], mapping: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Return the column of the clips' names and the label of each column of counts."""
    if {CREMAD_CLIP, *CREMAD_COLUMNS} <= set(header):
        label_of, _ = translate_words(CREMAD_COLUMNS.values(), "cremad", mapping)
        return CREMAD_CLIP, {
            column: label_of[code] or code for column, code in CREMAD_COLUMNS.items()
        }
    if len(header) < 2 or header[0] != "clip" or not all(header):
        raise DatasetError(
            f"{path}: begins with {','.join(header)!r}; expected the header clip,LABEL,LABEL,... "
            "or that of CREMA-D's tabulatedVotes.csv"
        )
    label_of, _ = translate_words(header[1:], COMMON, mapping)
    labels = {word: label_of[word] or word for word in header[1:]}
    # Columns may only become one label if the user wants it.
    keys = {*map(fold, mapping)}
    plain = {word: canonical_label(word) or word for word in header[1:]}
    own = [label for word, label in plain.items() if not keys & {fold(word), fold(label)}]
    if twice := [label for label, n in Counter(own).items() if n > 1]:
        raise DatasetError(f"{path}: has two columns for {twice[0]}; expected each label once")
    return header[0], labels


def _parse_count(where: str, column: str, cell: str) -> int:
    count = parse_count(cell.strip())
    if count is None:
        raise DatasetError(f"{where}: {column} is {shorten(cell)}; expected a count, from 0")
    return count
