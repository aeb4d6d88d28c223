"""Augmentation of training clips: crops and joins, voice, room, microphone, noise, telephone.

A classifier that is trained on clips of one studio takes its microphone, its room and the length of
its sentences for signs of emotion. Each call of `vary` makes a clip sound like one of another
recording. All waveforms are mono, at 16 kHz.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.filters import telephone_band

# Probabilities, drawn independently; but a clip is joined or cropped or neither, and then it is
# used whole or reduced to its speech (WHOLE_PROBABILITY).
JOIN_PROBABILITY: Final = 0.25
CROP_PROBABILITY: Final = 0.2
WHOLE_PROBABILITY: Final = 0.5
VOICE_PROBABILITY: Final = 0.7
EQUALISER_PROBABILITY: Final = 0.5
ROOM_PROBABILITY: Final = 0.25
NOISE_PROBABILITY: Final = 0.5
TELEPHONE_PROBABILITY: Final = 1 / 3

CROP_S: Final = (1.0, 2.5)
PAUSE_S: Final = (0.1, 0.4)
MAX_JOINED_S: Final = 6.0

VOICE_OCTAVES: Final = 0.25  # up or down: how much the voices of two people differ

TILT_DB: Final = 6.0  # per octave, up or down
TILT_CENTRE_HZ: Final = 1000.0
MAX_TILT_DB: Final = 15.0
BEND_DB: Final = 6.0  # up or down, for each point of the bent line added to the tilt
BEND_POINTS: Final = (3, 5)  # least and most of these points
BEND_HZ: Final = (60.0, 8000.0)

REVERBERATION_S: Final = (0.15, 0.6)  # until the tail has lost 60 dB
DIRECT_DB: Final = (0.0, 15.0)  # level of the direct sound relative to the tail

SNR_DB: Final = (5.0, 40.0)
COLOURS: Final = (0.0, 1.0, 2.0)  # white, pink, brown: power falls with this power of frequency
COLOUR_LOW_HZ: Final = 50.0  # below it noise is white, or brown noise would be all rumble
TALKERS: Final = 4  # voices of babble noise
ACTIVE_DB: Final = -25.0  # frames at or above this level, relative to the loudest, are speech
FRAME: Final = 320  # samples: 20 ms


class Utterance(NamedTuple):
    """A clip and the place of the speech in it.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    start, end
        First sample of the speech, and the one after its last.
    """

    waveform: FloatArray
    start: int
    end: int


def vary(
    utterance: Utterance,
    find_partner: Callable[[], Utterance],
    talkers: Sequence[FloatArray],
    rng: np.random.Generator,
) -> FloatArray:
    """Return an utterance under random conditions of another recording.

    Parameters
    ----------
    utterance
        Utterance to augment.
    find_partner
        Function that returns another utterance of the same voice and emotion; called when needed.
    talkers
        Waveforms of people in the background, at 16 kHz; indexed when needed.
    rng
        Random number generator.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Waveform at 16 kHz. Its length is that of the part of the utterance that was drawn, changed
        with the speed of the voice.
    """
    waveform = draw_part(utterance, find_partner, rng)
    if rng.random() < VOICE_PROBABILITY:
        waveform = draw_voice(waveform, rng)
    return record(waveform, talkers, rng)


def record(
    waveform: FloatArray, talkers: Sequence[FloatArray], rng: np.random.Generator
) -> FloatArray:
    """Return a waveform with a random room, microphone, background noise and telephone line.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    talkers, rng
        As for `vary`.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Changed waveform, aligned with the input.
    """
    if rng.random() < ROOM_PROBABILITY:
        waveform = reverberate(
            waveform, rng.uniform(*REVERBERATION_S), rng.uniform(*DIRECT_DB), rng
        )
    if rng.random() < EQUALISER_PROBABILITY:
        waveform = equalise(waveform, rng)
    if rng.random() < NOISE_PROBABILITY:
        kind = int(rng.integers(len(COLOURS) + 1))
        if kind < len(COLOURS):
            noise = coloured_noise(len(waveform), COLOURS[kind], rng)
        else:
            noise = babble(talkers, len(waveform), rng)
        waveform = mix(waveform, noise, rng.uniform(*SNR_DB))
    if rng.random() < TELEPHONE_PROBABILITY:
        waveform = telephone_band(waveform)
    return waveform


def draw_voice(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return a waveform in a random other voice, which changes its length."""
    return change_voice(waveform, 2 ** rng.uniform(-VOICE_OCTAVES, VOICE_OCTAVES))


def draw_part(
    utterance: Utterance, find_partner: Callable[[], Utterance], rng: np.random.Generator
) -> FloatArray:
    """Return the clip, its speech, a crop of its speech, or its speech joined with a partner's."""
    speech = utterance.waveform[utterance.start : utterance.end]
    draw = rng.random()
    if draw < JOIN_PROBABILITY:
        return join(utterance, find_partner(), rng.uniform(*PAUSE_S))
    if draw < JOIN_PROBABILITY + CROP_PROBABILITY:
        return crop(speech, rng.uniform(*CROP_S), rng)
    return utterance.waveform if rng.random() < WHOLE_PROBABILITY else speech


def join(first: Utterance, second: Utterance, pause: float) -> FloatArray:
    """Return the speech of two clips, separated by the background that follows it in the first.

    Parameters
    ----------
    first, second
        Clips to join.
    pause
        Length of the pause in seconds; it is shorter if the first clip ends before.
    """
    opening = first.waveform[first.start : first.end + int(pause * SAMPLE_RATE)]
    joined = np.concatenate((opening, second.waveform[second.start : second.end]))
    return joined[: int(MAX_JOINED_S * SAMPLE_RATE)]


def crop(waveform: FloatArray, duration: float, rng: np.random.Generator) -> FloatArray:
    """Return a random stretch of `duration` seconds, or all if there is less."""
    n_samples = int(duration * SAMPLE_RATE)
    start = int(rng.integers(max(0, len(waveform) - n_samples) + 1))
    return waveform[start : start + n_samples]


def change_voice(waveform: FloatArray, factor: float) -> FloatArray:
    """Change speed and pitch together, as for another speaker (Ko et al. 2015).

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    factor
        Factor of the speed and of all frequencies.

    Returns
    -------
    ndarray of float32, shape (n_samples / factor,)
    """
    changed: FloatArray = soxr.resample(waveform, round(SAMPLE_RATE * factor), SAMPLE_RATE)
    return changed


def equalise(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Simulate another microphone by a random spectral tilt and bent line over log frequency."""
    tilt = rng.uniform(-TILT_DB, TILT_DB)
    n_points = int(rng.integers(BEND_POINTS[0], BEND_POINTS[1] + 1))
    bends = rng.uniform(-BEND_DB, BEND_DB, n_points)
    size = _fft_size(len(waveform))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0) / TILT_CENTRE_HZ)
    lowest, highest = np.log2(np.array(BEND_HZ) / TILT_CENTRE_HZ)
    places = np.linspace(lowest, highest, n_points)
    gain_db = np.clip(tilt * octaves, -MAX_TILT_DB, MAX_TILT_DB) + np.interp(octaves, places, bends)
    gains = (10 ** (gain_db / 20)).astype(np.float32)
    return _inverse(np.fft.rfft(waveform, size) * gains, size, len(waveform))


def reverberate(
    waveform: FloatArray, duration: float, direct: float, rng: np.random.Generator
) -> FloatArray:
    """Add the reverberation of a room, with exponentially decaying noise as its tail.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    duration
        Reverberation time in seconds, until the tail has lost 60 dB.
    direct
        Level of the direct sound relative to the tail, in dB.
    rng
        Random number generator for the tail.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
    """
    n_tail = int(duration * SAMPLE_RATE)
    decay = 10 ** (-3 * np.arange(n_tail, dtype=np.float32) / n_tail)
    response = rng.standard_normal(n_tail, dtype=np.float32) * decay
    response *= 10 ** (-direct / 20) / np.linalg.norm(response)
    response[0] = 1
    size = _fft_size(len(waveform) + n_tail)
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    return _inverse(spectrum, size, len(waveform))


def coloured_noise(n_samples: int, colour: float, rng: np.random.Generator) -> FloatArray:
    """Return noise whose power falls with frequency to the power of `colour`."""
    size = _fft_size(n_samples)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), COLOUR_LOW_HZ)
    return _inverse(spectrum * frequency ** (-colour / 2), size, n_samples)


def babble(talkers: Sequence[FloatArray], n_samples: int, rng: np.random.Generator) -> FloatArray:
    """Return the sum of `TALKERS` waveforms drawn from `talkers`, each repeated to the length."""
    chosen = rng.integers(len(talkers), size=TALKERS)
    # One after the other, as indexing may decode a file.
    waveforms = (talkers[one] for one in chosen)
    voices = [np.resize(waveform / _level(waveform), n_samples) for waveform in waveforms]
    total: FloatArray = np.stack(voices).sum(axis=0).astype(np.float32)
    return total


def mix(waveform: FloatArray, noise: FloatArray, snr: float) -> FloatArray:
    """Add noise, `snr` dB below the level of the speech."""
    gain = _level(waveform) / _level(noise) * 10 ** (-snr / 20)
    return waveform + np.float32(gain) * noise


def _level(waveform: FloatArray) -> float:
    """Return the root mean square of the frames within `ACTIVE_DB` of the loudest; never 0."""
    whole = max(FRAME, len(waveform) // FRAME * FRAME)
    frames = np.resize(waveform, whole).reshape(-1, FRAME).astype(np.float64)
    power = np.mean(frames**2, axis=1)
    active = power >= power.max() * 10 ** (ACTIVE_DB / 10)
    return float(np.sqrt(power[active].mean())) + 1e-9


def _fft_size(n_samples: int) -> int:
    return 1 << (n_samples - 1).bit_length()


def _inverse(
    spectrum: NDArray[np.complexfloating[Any, Any]], size: int, n_samples: int
) -> FloatArray:
    return np.fft.irfft(spectrum, size)[:n_samples].astype(np.float32, copy=False)
