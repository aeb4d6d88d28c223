"""Versions of unlabelled clips with another prosody and voice, kept in the cache of audio.

A teacher labels calm speech as calm, whoever speaks. A network that learns from its labels of such
speech alone would learn that a studio means calm. Its labels of the same speech with random pitch,
tempo and voice quality vary, and so tie the emotion to the voice.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np

from sercli.audio import SAMPLE_RATE
from sercli.audio.prosody import Prosody, Voice, import_vocoder
from sercli.datasets.decoding import DecodedClip, hash_audio
from sercli.datasets.extraction import run_tasks
from sercli.training.cache import CachedClips, Entry, find_place, read_entry, write_entry

# Version of the method: what other versions have made is not found, and made again.
METHOD: Final = 1
# Longer clips are cut into equal pieces; a sentence of an acted corpus lasts 2 to 3.6 s.
LONGEST_S: Final = 3.6


def vary_clips(
    cached: CachedClips,
    folder: Path,
    n_versions: int,
    seed: int,
    *,
    jobs: int = -1,
    report: Callable[[int, int], None] = lambda *_: None,
) -> CachedClips:
    """Return versions of clips with random prosodies, made unless they are in the cache.

    A version of a clip depends on its audio, its number and the seed only. Versions of a long clip
    are made of its pieces of at most `LONGEST_S`, in turn.

    Parameters
    ----------
    cached
        The clips.
    folder
        Folder of the cache, which exists.
    n_versions
        Number of versions of each clip.
    seed
        Seed of the prosodies.
    jobs
        Number of processes; -1 for one per core.
    report
        Called with the number of clips that are done, and of all clips.

    Returns
    -------
    CachedClips
        All versions of the first clip, then those of the second and so on.

    Raises
    ------
    ConfigError
        If the package pyworld is not installed.
    OutputError
        If the cache cannot be written.
    """
    import_vocoder()
    entries: list[Entry] = []
    make = partial(_vary, folder=folder, n_versions=n_versions, seed=seed)
    for made in run_tasks(make, cached.entries, jobs):
        entries += chain.from_iterable(made)
        report(len(entries) // n_versions, len(cached))
    clips = [
        replace(clip, name=f"{clip.name}~{number}")
        for clip in cached.clips
        for number in range(1, n_versions + 1)
    ]
    return CachedClips(tuple(clips), tuple(entries), {})


def _vary(entry: Entry, folder: Path, n_versions: int, seed: int) -> list[Entry]:
    """Return the metadata of all versions of a clip, which are made if they are not there."""

    @cache
    def find_voices() -> list[Voice]:
        # Each is analysed once, for all versions of it.
        waveform = entry.load().waveform
        n_pieces = ceil(len(waveform) / (LONGEST_S * SAMPLE_RATE))
        return [Voice(piece) for piece in np.array_split(waveform, n_pieces)]

    def make(number: int) -> DecodedClip:
        voices = find_voices()
        rng = np.random.default_rng([seed, number, int(entry.audio_hash, 16)])
        prosody = Prosody.draw(rng)
        made = voices[(number - 1) % len(voices)].resynthesise(prosody, rng)
        return DecodedClip(made, hash_audio(made))

    found = []
    for number in range(1, n_versions + 1):
        facts = ["prosody", METHOD, entry.audio_hash, entry.n_samples, seed, number]
        path = find_place(facts, folder)
        found.append(read_entry(path) or write_entry(make(number), path))
    return found
