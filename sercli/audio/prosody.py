"""Resynthesis of speech with another prosody and voice, by the vocoder WORLD.

WORLD splits speech into its pitch, its spectral envelope and the share of noise in it, and puts it
together again: M. Morise, F. Yokomori, K. Ozawa, "WORLD: A Vocoder-Based High-Quality Speech
Synthesis System for Real-Time Applications", IEICE Transactions on Information and Systems
E99-D(7), 2016. Between the two steps, each of the three can be changed by itself.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import exp, log
from types import ModuleType
from typing import Final, Self

import numpy as np

from sercli.arrays import DoubleArray, FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.errors import ConfigError

# Time between two frames of the analysis, in seconds.
FRAME_S: Final = 0.005
# Range of the pitch of resynthesised speech, in Hz.
PITCH_HZ: Final = (40.0, 900.0)
# The spectral tilt begins here, so that it leaves the fundamental as it is.
TILT_FROM_HZ: Final = 400.0
# The energy contour refers to this percentile of the frames' levels, and ends this many nepers of
# power (52 dB) below it, so that pauses do not become louder than speech.
LOUD_PERCENTILE: Final = 95
FLOOR_NP: Final = 12.0

# Ranges of random prosodies, most of which are uniform in their logarithm; see `draw`.
SHIFT: Final = (0.8, 2.2)
SPAN: Final = (0.3, 2.5)
WARP: Final = (0.9, 1.25)
TEMPO: Final = (0.7, 1.4)
TILT_DB: Final = (-6.0, 8.0)
DYNAMICS: Final = (0.4, 1.6)
SLOPE: Final = (-0.6, 0.6)
TREMOLO_HZ: Final = (4.0, 8.0)
# Maxima of what half of the random prosodies have none of.
BREATH: Final = 0.6
JITTER: Final = 0.08
ROUGHNESS: Final = 0.25
TREMOLO: Final = 0.5


@dataclass(frozen=True)
class Prosody:
    """Changes of prosody and voice; by default none.

    Parameters
    ----------
    shift
        Factor of the pitch.
    span
        Exponent of the pitch relative to its geometric mean, which widens the range above 1.
    slope
        Change of the logarithm of the pitch from the start to the end, around its middle.
    jitter, roughness
        Standard deviations of Gaussian noise in the logarithm of the pitch, drawn for each frame of
        5 ms: that of the jitter is averaged over three frames, that of the roughness is not.
    tempo
        Factor of the tempo: the length is divided by it.
    tilt
        Change of the spectrum in dB per octave above `TILT_FROM_HZ`; nothing changes below.
    warp
        Factor of the frequencies of the spectral envelope, and so of the formants.
    breath
        Share in ``[0, 1]`` by which the aperiodicity in each band moves to that of noise.
    dynamics
        Exponent of the energy contour relative to its loud frames: pauses and weak syllables
        become weaker above 1, and stronger below.
    tremolo, tremolo_rate
        Depth of an amplitude modulation, in ``[0, 1)``, and its frequency in Hz.
    """

    shift: float = 1.0
    span: float = 1.0
    slope: float = 0.0
    jitter: float = 0.0
    roughness: float = 0.0
    tempo: float = 1.0
    tilt: float = 0.0
    warp: float = 1.0
    breath: float = 0.0
    dynamics: float = 1.0
    tremolo: float = 0.0
    tremolo_rate: float = 5.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Return random changes, from calm to extreme ones.

        Parameters
        ----------
        rng
            Random number generator.
        """

        def factor(bounds: tuple[float, float]) -> float:
            return exp(rng.uniform(log(bounds[0]), log(bounds[1])))

        def maybe(maximum: float) -> float:
            return rng.uniform(0, maximum) if rng.random() < 0.5 else 0.0

        return cls(
            shift=factor(SHIFT),
            span=factor(SPAN),
            slope=rng.uniform(*SLOPE),
            jitter=maybe(JITTER),
            roughness=maybe(ROUGHNESS),
            tempo=rng.uniform(*TEMPO),
            tilt=rng.uniform(*TILT_DB),
            warp=factor(WARP),
            breath=maybe(BREATH),
            dynamics=rng.uniform(*DYNAMICS),
            tremolo=maybe(TREMOLO),
            tremolo_rate=rng.uniform(*TREMOLO_HZ),
        )


@dataclass(frozen=True, eq=False)
class Voice:
    """Analysis of a stretch of speech, from which it can be resynthesised in several ways.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,); it may be of any length, or silent.

    Raises
    ------
    ConfigError
        If the package pyworld is not installed.
    """

    waveform: FloatArray

    def __post_init__(self) -> None:
        """Raise if the vocoder is missing."""
        import_vocoder()

    def resynthesise(self, prosody: Prosody, rng: np.random.Generator) -> FloatArray:
        """Return the speech with another prosody and voice, as loud as before.

        Parameters
        ----------
        prosody
            The changes.
        rng
            Random number generator of jitter and roughness.

        Returns
        -------
        ndarray of float32, shape (n_samples / tempo,)
            Waveform with the root mean square of the input.
        """
        pitch, log_power, aperiodicity = self._parts
        made = import_vocoder().synthesize(
            _change_pitch(pitch, prosody, rng),
            _change_power(log_power, prosody),
            1 - (1 - aperiodicity) * (1 - prosody.breath),
            SAMPLE_RATE,
            1000 * FRAME_S / prosody.tempo,
        )
        # The vocoder fills the last frame.
        made = made[: round(len(self.waveform) / prosody.tempo)]
        level = _level(made)
        scaled: FloatArray = (made * (_level(self.waveform) / level if level else 0.0)).astype("f4")
        return scaled

    @cached_property
    def _parts(self) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Pitch in Hz or 0, logarithm of the power spectrum, and aperiodicity, of each frame."""
        world = import_vocoder()
        samples = self.waveform.astype(np.float64)
        # Harvest finds the pitch a little better, but takes four times as long as all the rest.
        rough, times = world.dio(samples, SAMPLE_RATE, frame_period=1000 * FRAME_S)
        pitch = world.stonemask(samples, rough, times, SAMPLE_RATE)
        power = world.cheaptrick(samples, pitch, times, SAMPLE_RATE)
        return pitch, np.log(power), world.d4c(samples, pitch, times, SAMPLE_RATE)


def import_vocoder() -> ModuleType:
    """Return the vocoder.

    Raises
    ------
    ConfigError
        If the package pyworld cannot be imported.
    """
    try:
        return import_module("pyworld")
    except ImportError as error:
        raise ConfigError(
            "versions with another prosody need the package pyworld, which cannot be imported "
            f"({error}); run: pip install 'sercli[prosody]', or leave them out with --prosodies 0"
        ) from error


def _change_pitch(pitch: DoubleArray, prosody: Prosody, rng: np.random.Generator) -> DoubleArray:
    """Return the changed pitch of each frame; 0 in unvoiced frames."""
    n_frames, voiced = len(pitch), pitch > 0
    # Drawn for all frames, so that the draws do not depend on which are voiced.
    jitter = np.convolve(rng.standard_normal(n_frames + 2), np.ones(3) / 3, "valid")
    noise = prosody.jitter * jitter + prosody.roughness * rng.standard_normal(n_frames)
    if not voiced.any():
        return pitch
    logs = np.log(pitch[voiced])
    mean = logs.mean()
    line = np.linspace(-0.5, 0.5, n_frames)[voiced]
    logs = mean + log(prosody.shift) + prosody.span * (logs - mean) + prosody.slope * line
    changed = np.zeros(n_frames)
    changed[voiced] = np.clip(np.exp(logs + noise[voiced]), *PITCH_HZ)
    return changed


def _change_power(log_power: DoubleArray, prosody: Prosody) -> DoubleArray:
    """Return the changed power spectrum of each frame."""
    n_frames, n_bins = log_power.shape
    frequencies = np.linspace(0, SAMPLE_RATE / 2, n_bins)
    # Power of a frequency is that of a lower one before, if formants rise.
    source = np.minimum(np.arange(n_bins) / prosody.warp, n_bins - 1)
    lower = np.minimum(source.astype(int), n_bins - 2)
    weight = source - lower
    # `take` keeps the frames contiguous, as the vocoder needs them.
    below, above = log_power.take(lower, axis=1), log_power.take(lower + 1, axis=1)
    changed = below + (above - below) * weight
    octaves = np.log2(np.maximum(frequencies, TILT_FROM_HZ) / TILT_FROM_HZ)
    power: DoubleArray = np.exp(changed + log(10) / 10 * prosody.tilt * octaves)
    energy = np.log(power.mean(axis=1))
    loud = np.percentile(energy, LOUD_PERCENTILE)
    gains = (prosody.dynamics - 1) * (np.maximum(energy, loud - FLOOR_NP) - loud)
    times = np.arange(n_frames) * FRAME_S / prosody.tempo
    wave = 1 + prosody.tremolo * np.sin(2 * np.pi * prosody.tremolo_rate * times)
    power *= (np.exp(gains) * wave**2)[:, None]
    return power


def _level(waveform: FloatArray | DoubleArray) -> float:
    """Return the root mean square of a waveform; 0 if it is empty."""
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2))) if len(waveform) else 0.0
