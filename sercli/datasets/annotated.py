"""Corpora with annotations in files of their own: IEMOCAP and MELD."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.facts import load_facts, person_traits
from sercli.datasets.labelling import DISAGREED, NO_AGREEMENT
from sercli.datasets.media import COPY, MISSING, NOT_ANNOTATED, MediaFolder, pick_copies
from sercli.datasets.names import no_such_names, unnamed
from sercli.datasets.schemes import SCHEMES
from sercli.datasets.tables import SPLIT_WORDS
from sercli.delimited import read_table
from sercli.errors import DatasetError

_EVALUATION = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(\w+)\t(\w+)\t\[")
_DIALOGUE = re.compile(r"Ses\d{2}[FM]_(?:impro|script)\w+")

SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_WORDS)})(?=set|split|[^a-z]|$)")
MELD_COLUMNS = ("Dialogue_ID", "Utterance_ID", "Speaker", "Emotion")
# Names of copies that some utterances of the test split have.
MELD_COPY = re.compile(r"final_videos_testdia\d+_utt\d+")


def read_iemocap(folder: MediaFolder) -> Corpus:
    """Read IEMOCAP.

    Parameters
    ----------
    folder
        Folder of the release, of one of its sessions, or of utterances in a session.

    Returns
    -------
    Corpus
        Clips with IEMOCAP's own codes for emotions, named after the utterances.

    Raises
    ------
    DatasetError
        If there are no utterances or no annotations.
    """
    facts, scheme = load_facts("iemocap"), SCHEMES["iemocap"]
    matches = {path: match for path in folder.media if (match := scheme.match(path))}
    if not matches:
        raise no_such_names(folder, "iemocap")
    chosen, skipped = pick_copies(folder, ((path.stem, path) for path in matches))
    codes = _read_evaluations(folder, matches)
    clips = []
    for name, path in chosen.items():
        if name not in codes:
            skipped[name] = NOT_ANNOTATED
        elif codes[name] in NO_AGREEMENT:
            skipped[name] = DISAGREED
        else:
            groups = matches[path].groupdict()
            # A dialogue is named after one of its two speakers; the letter is that of the speaker.
            speaker = f"{groups['session']}{groups['letter']}"
            traits = person_traits({**facts, **facts["speakers"].get(speaker, {})})
            traits["type"] = facts["type"][groups["type"]]
            clips.append(
                Clip(path, codes[name], speaker, name=name, corpus="iemocap", traits=traits)
            )
    skipped |= dict.fromkeys(sorted(codes.keys() - chosen.keys()), MISSING)
    for name, reason in unnamed(folder, matches, "iemocap").items():
        whole = _DIALOGUE.fullmatch(Path(name).stem)
        skipped[name] = "a whole dialogue" if whole else reason
    return Corpus("iemocap", facts["licence"], tuple(clips), skipped)


def _read_evaluations(folder: MediaFolder, utterances: Iterable[Path]) -> dict[str, str]:
    """Return the code of each utterance that is annotated in the sessions found."""
    # An utterance is in SESSION/sentences/wav/DIALOGUE, its annotation in SESSION/dialog.
    sessions = {
        path.absolute().parents[3] for path in utterances if len(path.absolute().parents) > 3
    }
    places = {session / "dialog" / "EmoEvaluation" for session in sessions}
    places |= {path.absolute() for path in folder.root.rglob("EmoEvaluation")}
    files = [path for place in sorted(places) for path in sorted(place.glob("[!.]*.txt"))]
    codes: dict[str, str] = {}
    for path in files:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _EVALUATION.match(line):
                codes[match[1]] = match[2]
    if not codes:
        raise DatasetError(
            f"{folder.root}: found {len(files)} files of annotations with no line such as "
            "'[6.2901 - 8.2357] Ses01F_impro01_F000 neu [...]'; expected IEMOCAP's "
            "SessionN/dialog/EmoEvaluation/*.txt beside SessionN/sentences"
        )
    return codes


def read_meld(folder: MediaFolder) -> Corpus:
    """Read MELD.

    Parameters
    ----------
    folder
        Folder of the release or of one of its splits.

    Returns
    -------
    Corpus
        Clips with MELD's own words for emotions, and names such as ``train/dia0_utt0``.

    Raises
    ------
    DatasetError
        If there are no utterances or no annotations, or a table is not MELD's.
    """
    facts, scheme = load_facts("meld"), SCHEMES["meld"]
    named: list[tuple[str, Path]] = []
    for path in folder.media:
        match = scheme.match(path)
        split = match and _split_of_folder(match["inner"], match["outer"])
        if match and split:
            named.append((f"{split}/{match['stem']}", path))
    if not named:
        raise no_such_names(folder, "meld")
    chosen, skipped = pick_copies(folder, named)
    splits = sorted({name.split("/")[0] for name in chosen})
    rows = dict(_meld_rows(folder, splits))
    clips = []
    for name, path in chosen.items():
        if name in facts["faults"]:
            skipped[name] = facts["faults"][name]
        elif name in rows and rows[name]["Speaker"] in facts["groups"]:
            skipped[name] = "several speakers"
        elif name in rows:
            clips.append(_meld_clip(path, name, rows[name], facts))
        else:
            skipped[name] = NOT_ANNOTATED
    skipped |= dict.fromkeys(sorted(rows.keys() - chosen.keys()), MISSING)
    for name, reason in unnamed(folder, {path: None for _, path in named}, "meld").items():
        skipped[name] = COPY if MELD_COPY.fullmatch(Path(name).stem) else reason
    return Corpus("meld", facts["licence"], tuple(clips), skipped)


def _meld_clip(path: Path, name: str, row: Mapping[str, str], facts: Mapping[str, Any]) -> Clip:
    return Clip(
        path,
        row["Emotion"],
        row["Speaker"],
        name=name,
        corpus="meld",
        split=name.split("/")[0],
        traits=person_traits({**facts, **facts["speakers"].get(row["Speaker"], {})}),
    )


def _split_of_folder(*names: str | None) -> str | None:
    """Return the split in the first folder name that has one, or None.

    It begins a word that ends there, or goes on as in ``testset`` and ``TestSplits``.
    """
    found = (SPLIT_WORD.search(name.lower()) for name in names if name)
    return next((SPLIT_WORDS[one[1]] for one in found if one), None)


def _meld_rows(
    folder: MediaFolder, splits: Iterable[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the name and the row of each utterance in the tables of some splits."""
    tables = {split: _find_table(folder.root, f"{split}_sent_emo.csv") for split in splits}
    if not any(tables.values()):
        expected = " and ".join(f"{split}_sent_emo.csv" for split in tables)
        raise DatasetError(
            f"{folder.root}: found utterances of MELD, but no table of annotations; expected "
            f"{expected} in it or in one of the two folders around it"
        )
    for split, path in tables.items():
        if path is None:
            continue
        columns, rows = read_table(path, DatasetError, undecodable="replace", may_be_empty=True)
        missing = [column for column in MELD_COLUMNS if column not in columns]
        if missing:
            raise DatasetError(
                f"{path}: has the columns {', '.join(columns)}; expected MELD's, among them "
                f"{', '.join(missing)}"
            )
        for _, row in rows:
            yield f"{split}/dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}", row


def _find_table(root: Path, name: str) -> Path | None:
    inside = sorted(root.rglob(name), key=lambda path: (len(path.parts), str(path)))
    around = (parent / name for parent in root.absolute().parents[:2])
    return next((path for path in (*inside, *around) if path.is_file()), None)
