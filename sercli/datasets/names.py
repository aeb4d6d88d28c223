"""Corpora whose file names encode speaker, emotion, sentence and the rest."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sercli.config import SPLITS
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.facts import load_facts, person_traits
from sercli.datasets.media import MediaFolder, pick_copies, suffix_rank
from sercli.datasets.schemes import SCHEMES
from sercli.delimited import read_table
from sercli.errors import DatasetError

DEMOGRAPHICS = "VideoDemographics.csv"
# Parts of a name that become traits; a code is replaced by its meaning in the corpus's facts.
TRAITS = ("sentence", "intensity", "channel")

VIDEO_ONLY = "02"
SONG = "02"


def read_named(folder: MediaFolder, kind: str, *, song: bool = False) -> Corpus:
    """Read a corpus whose file names encode all annotations.

    Parameters
    ----------
    folder
        Folder with the clips, at any depth.
    kind
        Name of the corpus.
    song
        Whether to read sung clips.

    Returns
    -------
    Corpus
        Clips with the corpus's own codes for emotions.

    Raises
    ------
    DatasetError
        If no file has a name of the corpus.
    """
    facts, scheme = load_facts(kind), SCHEMES[kind]
    matches = {path: match for path in folder.media if (match := scheme.match(path))}
    if not matches:
        raise no_such_names(folder, kind)
    names = {path: scheme.clip_name(path, match) for path, match in matches.items()}
    others = {p for p in names if not scheme.others.isdisjoint(Path(folder.name(p)).parts)}
    named = [
        (_copies_key(name, matches[path]), path)
        for path, name in names.items()
        if path not in others
    ]
    chosen, skipped = pick_copies(folder, named, lambda path: _rank(path, matches[path]))
    people = {**facts.get("speakers", {}), **_demographics(folder.root, kind)}
    clips = []
    for path in chosen.values():
        groups, name = matches[path].groupdict(), names[path]
        reason = facts.get("faults", {}).get(name) or _refusal(groups, song)
        if reason:
            skipped[name] = reason
        else:
            clips.append(_clip(path, name, groups, facts, people))
    skipped |= dict.fromkeys(map(folder.name, others), "no speech, but another signal")
    skipped |= unnamed(folder, matches, kind)
    return Corpus(kind, facts["licence"], tuple(clips), skipped)


def no_such_names(folder: MediaFolder, kind: str) -> DatasetError:
    """Return the error for a folder without any file that is named like those of a corpus."""
    return DatasetError(
        f"{folder.root}: found no audio file named like {load_facts(kind)['title']}'s "
        f"{SCHEMES[kind].example}; expected the folder of that corpus"
    )


def unnamed(folder: MediaFolder, known: Mapping[Path, Any], kind: str) -> dict[str, str]:
    """Return the reason for leaving out each file that is not named like those of a corpus."""
    reason = f"not named like {SCHEMES[kind].example}"
    return {folder.name(path): reason for path in folder.media if path not in known}


def _copies_key(name: str, match: re.Match[str]) -> str:
    # A video and an audio file of the same clip are copies; a video without sound is not.
    modality = match.groupdict().get("modality", VIDEO_ONLY)
    return name if modality == VIDEO_ONLY else name.removeprefix(f"{modality}-")


def _rank(path: Path, match: re.Match[str]) -> tuple[int, bool, int]:
    groups = match.groupdict()
    return -int(groups.get("modality") or 0), groups.get("split") is None, suffix_rank(path)


def _refusal(groups: Mapping[str, str], song: bool) -> str | None:
    if groups.get("modality") == VIDEO_ONLY:
        return "video without sound"
    return "song; --song reads it" if groups.get("channel") == SONG and not song else None


def _clip(
    path: Path,
    name: str,
    groups: Mapping[str, str | None],
    facts: Mapping[str, Any],
    people: Mapping[str, Mapping[str, Any]],
) -> Clip:
    spelling = str(groups["speaker"])
    speaker = facts.get("aliases", {}).get(spelling, spelling)
    # Facts at the top level hold for all speakers.
    traits = person_traits({**facts, **people.get(speaker, {})})
    for key in TRAITS:
        if code := groups.get(key):
            traits[key] = facts.get(key, {}).get(code, code)
    return Clip(
        path,
        str(groups["emotion"]),
        speaker,
        name=name,
        corpus=facts["name"],
        split=_split(speaker, groups.get("split"), facts),
        traits=traits,
    )


def _split(speaker: str, code: str | None, facts: Mapping[str, Any]) -> str | None:
    if code is not None:
        return str(facts["split"][code])
    partition = facts.get("partition", {})
    return next((split for split in SPLITS if speaker in partition.get(split, ())), None)


def _demographics(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the sex and age of CREMA-D's speakers if their table is in or beside the folder."""
    path = next(
        (p for p in (root / DEMOGRAPHICS, root.absolute().parent / DEMOGRAPHICS) if p.is_file()),
        None,
    )
    if kind != "cremad" or path is None:
        return {}
    people = {}
    for where, cells in read_table(path, DatasetError).rows:
        try:
            age = float(cells["Age"])
            people[cells["ActorID"]] = {"age": age, "sex": cells["Sex"].lower()}
        except (KeyError, ValueError):
            age = math.nan
        if not 0 <= age < math.inf:
            raise DatasetError(
                f"{where}: found no speaker's age and sex; expected the columns ActorID, Age, Sex "
                "of CREMA-D's own table, or no such file"
            )
    return people
