"""Corpora of labelled recordings: which clips, whose voice, which emotion, which split.

CREMA-D is found by its file names, ``1001_DFA_ANG_XX`` with any audio suffix: actor, sentence,
emotion, level of intensity. Its splits are speaker-disjoint lists that come with the package.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from sercli.config import Split
from sercli.discovery import MEDIA_SUFFIXES
from sercli.errors import DatasetError
from sercli.labels import CREMAD_CODES
from sercli.text import format_count

# More files than this that are left out for one reason are counted instead of named.
MAX_NAMED = 3
# A release holds the same clip in several folders and formats: the first of these is read.
PREFERRED_SUFFIXES = (".wav", ".flac")

_CREMAD_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)")


@dataclass(frozen=True)
class Clip:
    """A labelled recording.

    Parameters
    ----------
    path
        The audio file.
    emotion
        A canonical label.
    speaker
        The speaker's name in the corpus.
    """

    path: Path
    emotion: str
    speaker: str


@dataclass(frozen=True)
class Corpus:
    """The clips of a corpus, and what was left out.

    Parameters
    ----------
    name, licence
        Of the corpus.
    clips
        Sorted by file name.
    partition
        Speakers of ``train``, ``dev`` and ``test``.
    skipped
        Reason of each file that was left out, by file name.
    """

    name: str
    licence: str
    clips: tuple[Clip, ...]
    partition: dict[str, frozenset[str]]
    skipped: dict[str, str] = field(default_factory=dict)

    def select(self, split: Split) -> tuple[Clip, ...]:
        """Return the clips of one split's speakers.

        Raises
        ------
        DatasetError
            If there are none.
        """
        if split == "all":
            return self.clips
        clips = tuple(clip for clip in self.clips if clip.speaker in self.partition[split])
        if not clips:
            raise DatasetError(f"{self.name}: no clips of the speakers of split {split!r} found")
        return clips

    def describe(self) -> str:
        """Return in a line what was read and what was left out."""
        speakers = {clip.speaker for clip in self.clips}
        text = (
            f"{self.name}: {format_count(len(self.clips), 'clip')} of "
            f"{format_count(len(speakers), 'speaker')}"
        )
        if self.skipped:
            groups: dict[str, list[str]] = {}
            for name, reason in sorted(self.skipped.items()):
                groups.setdefault(reason, []).append(name)
            reasons = (
                f"{', '.join(names) if len(names) <= MAX_NAMED else len(names)}: {reason}"
                for reason, names in groups.items()
            )
            text += f"; {format_count(len(self.skipped), 'file')} left out ({'; '.join(reasons)})"
        return text


def read_corpus(folder: Path) -> Corpus:
    """Read a folder of CREMA-D.

    Parameters
    ----------
    folder
        Holds the clips, at any depth.

    Raises
    ------
    DatasetError
        If there is no such folder, or no clip in it is named as CREMA-D names them.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is not a folder; expected a folder with a corpus")
    facts = _load_facts("cremad")
    clips: dict[str, Clip] = {}
    skipped: dict[str, str] = {}
    for path in sorted(folder.rglob("*"), key=_preference):
        match = _CREMAD_NAME.fullmatch(path.stem)
        if path.suffix.lower() not in MEDIA_SUFFIXES or match is None:
            continue
        speaker, _, code, _ = match.groups()
        if path.stem in facts["faults"]:
            skipped[path.stem] = facts["faults"][path.stem]
        elif code not in CREMAD_CODES:
            skipped[path.stem] = f"unknown emotion {code}"
        elif path.stem in clips:
            skipped[str(path.relative_to(folder))] = "another copy of a clip"
        else:
            clips[path.stem] = Clip(path, CREMAD_CODES[code], speaker)
    if not clips:
        raise DatasetError(
            f"{folder}: found no audio file named like CREMA-D's 1001_DFA_ANG_XX.wav; "
            "expected the folder of that corpus"
        )
    partition = {split: frozenset(facts["partition"][split]) for split in ("train", "dev", "test")}
    return Corpus(facts["name"], facts["licence"], tuple(clips.values()), partition, skipped)


def class_indices(clips: Sequence[Clip], labels: Sequence[str]) -> list[int]:
    """Return the index of each clip's label.

    Raises
    ------
    DatasetError
        If a clip has a label that is not among them.
    """
    order = {label: index for index, label in enumerate(labels)}
    unknown = sorted({clip.emotion for clip in clips} - set(order))
    if unknown:
        raise DatasetError(f"labels {unknown} of the corpus are none of the model's {list(labels)}")
    return [order[clip.emotion] for clip in clips]


def _preference(path: Path) -> tuple[str, int, str]:
    suffix = path.suffix.lower()
    known = suffix in PREFERRED_SUFFIXES
    rank = PREFERRED_SUFFIXES.index(suffix) if known else len(PREFERRED_SUFFIXES)
    return path.stem, rank, str(path)


def _load_facts(name: str) -> dict[str, Any]:
    text = (files("sercli") / "data" / f"{name}.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts
