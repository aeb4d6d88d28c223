"""Background talkers of babble: other scored clips, by other speakers as far as these are known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import ClipError, decode_clip, order_by_source
from sercli.datasets.matching import join_voices

# They are held in memory: at most this many clips, and seconds of each.
MAX_TALKERS: Final = 1_200
TALK_S: Final = 6.0


def draw_talkers(clips: Sequence[Clip], seed: int) -> Sequence[Clip]:
    """Return the clips that serve as background talkers.

    Parameters
    ----------
    clips
        All scored clips; if there are more than `MAX_TALKERS`, as many are drawn.
    seed
        Seed of the draw.
    """
    if len(clips) <= MAX_TALKERS:
        return clips
    chosen = np.random.default_rng(seed).choice(len(clips), MAX_TALKERS, replace=False)
    return [clips[index] for index in sorted(chosen)]


def name_people(clips: Sequence[Clip]) -> dict[str | None, str | None]:
    """Return the speaker of each voice, the same for voices that may be one; see `join_voices`."""
    return dict(zip((clip.voice for clip in clips), join_voices(clips), strict=True))


def find_other_speakers(person: str | None, people: Iterable[str | None]) -> list[str]:
    """Return the speakers who are known to differ from that of a clip.

    Parameters
    ----------
    person
        Speaker of the clip, from `name_people`; if unknown, the result is empty.
    people
        Speakers of all talkers; None if unknown.
    """
    return [one for one in people if person and one not in (None, person)]


class Pool:
    """Background talkers, decoded once for all clips.

    Parameters
    ----------
    clips, seed
        As for `draw_talkers`.
    people
        Speakers of all clips that are mixed with the talkers, from `name_people`; by default, those
        of `clips`.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seed: int,
        people: Mapping[str | None, str | None] | None = None,
    ) -> None:
        self._people = name_people(clips) if people is None else people
        clips = draw_talkers(clips, seed)
        self._by_person: dict[str | None, list[int]] = {}
        for index, clip in enumerate(clips):
            self._by_person.setdefault(self._people[clip.voice], []).append(index)
        self._names = [clip.name for clip in clips]
        order = order_by_source(clips)
        talks = [_decode_talk(clips[index]) for index in order]
        # One array, which is sent to worker processes once and not with every few clips.
        self._samples = np.concatenate(talks)
        starts = np.cumsum([0, *map(len, talks)])
        self._spans = {index: slice(*starts[i : i + 2].tolist()) for i, index in enumerate(order)}

    def find_talkers(self, clip: Clip) -> list[FloatArray]:
        """Return waveforms of other speakers; if none is known, of other clips, else of all."""
        strangers = find_other_speakers(self._people[clip.voice], self._by_person)
        chosen = [index for person in strangers for index in self._by_person[person]]
        if not chosen:
            everybody = [index for indices in self._by_person.values() for index in indices]
            others = [index for index in everybody if self._names[index] != clip.name]
            chosen = others or everybody
        return [self._samples[self._spans[index]] for index in chosen]


def _decode_talk(clip: Clip) -> FloatArray:
    """Return the beginning of a talker's clip; silence if it cannot be decoded.

    A defective clip is an error where it is classified itself, not where it is heard behind others.
    """
    try:
        return decode_clip(clip).waveform[: int(TALK_S * SAMPLE_RATE)]
    except ClipError:
        return np.zeros(SAMPLE_RATE, np.float32)
