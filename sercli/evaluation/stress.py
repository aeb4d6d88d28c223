"""Recording conditions by name, to measure how much each degrades a classifier.

They use the augmentations of training (`sercli.audio.augment`, `sercli.audio.filters`) and codecs,
but each alone and at a fixed strength. All waveforms are mono, at 16 kHz.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import augment
from sercli.audio.codecs import codec_available, transmit
from sercli.errors import ConfigError

DEFAULT_CONDITIONS: Final = (
    "clean",
    "phone",
    "noise20",
    "noise10",
    "babble10",
    "reverb",
    "mp3",
    "clip",
    "gain-20",
)

# Codec of each condition that needs one.
CODEC_OF: Final = {"phone": "mulaw", "gsm": "gsm", "amr": "amr", "mp3": "mp3", "opus": "opus"}

# A speaker across a reverberant office: the tail is as loud as the direct sound.
REVERBERATION_S: Final = 0.5
DIRECT_DB: Final = 0.0
CLIP_DB: Final = 12.0  # below the peak

SNR_RANGE_DB: Final = (-20.0, 60.0)
GAIN_RANGE_DB: Final = (-80.0, 40.0)

_PLAIN: Final = ("clean", "phone", "gsm", "amr", "reverb", "mp3", "opus", "clip")
_RANGES: Final = {
    "noise": SNR_RANGE_DB,
    "pink": SNR_RANGE_DB,
    "babble": SNR_RANGE_DB,
    "gain": GAIN_RANGE_DB,
}
_GRADED: Final = re.compile(rf"({'|'.join(_RANGES)})([+-]?[0-9]+(?:\.[0-9][0-9]?)?)")


class _Condition(NamedTuple):
    """A condition's kind and, for some kinds, its level in dB."""

    kind: str
    level: float | None

    @property
    def name(self) -> str:
        """The canonical name, the same for all spellings of a level."""
        if self.level is None:
            return self.kind
        return f"{self.kind}{self.level:{'+g' if self.kind == 'gain' else 'g'}}"


def known_conditions() -> tuple[str, ...]:
    """Return the conditions that the installed libraries support; ``<dB>`` stands for a number."""
    graded = (f"{kind}<dB>" for kind in _RANGES)
    return (*(name for name in _PLAIN if _has_codec(name)), *graded)


def parse_conditions(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of conditions.

    Parameters
    ----------
    text
        Names of `known_conditions`, such as ``"clean,noise10,gain-20"``, with a signal-to-noise
        ratio (-20 to 60) or a gain (-80 to 40) in place of ``<dB>``.

    Returns
    -------
    tuple of str
        Canonical names, in the order given, without duplicates.

    Raises
    ------
    ConfigError
        If a condition is unknown, needs a codec that is not available, or its level is out of
        range.
    """
    return tuple(dict.fromkeys(check_condition(part.strip()) for part in text.split(",")))


def check_condition(text: str) -> str:
    """Return the canonical name of a condition; raise as `parse_conditions`."""
    name = _parse(text).name
    if not _has_codec(name):
        raise ConfigError(
            f"condition {name!r} needs a codec that is in none of the installed libraries; "
            f"there are {', '.join(known_conditions())}"
        )
    return name


def condition_rng(seed: int, condition: str, name: str) -> np.random.Generator:
    """Return a clip's random generator, which does not depend on order, process or other clips.

    Parameters
    ----------
    seed
        Seed, 0 or more.
    condition
        Name of the condition, as in `parse_conditions`.
    name
        Name of the clip.

    Raises
    ------
    ConfigError
        If there is no such condition.
    """
    parts = (_parse(condition).name, name)
    return np.random.default_rng(
        [seed, *(crc32(part.encode(errors="backslashreplace")) for part in parts)]
    )


def needs_talkers(condition: str) -> bool:
    """Return whether a condition adds background talkers.

    Raises
    ------
    ConfigError
        If there is no such condition.
    """
    return _parse(condition).kind == "babble"


def apply_condition(
    waveform: FloatArray,
    condition: str,
    rng: np.random.Generator,
    talkers: Sequence[FloatArray],
) -> FloatArray:
    """Return a waveform under a condition.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    condition
        ``clean``
            Unchanged.
        ``phone``, ``gsm``, ``amr``
            A telephone's band of 300 to 3,400 Hz, then its codec at 8 kHz: µ-law, GSM 06.10, AMR.
        ``mp3``, ``opus``
            A file or a call over the internet at a low bit rate, see `codecs.encode_decode`.
        ``noise<dB>``, ``pink<dB>``, ``babble<dB>``
            White noise, pink noise or four talkers at this signal-to-noise ratio, relative to the
            level of the active frames, see `augment.mix`. Silence stays silence.
        ``reverb``
            A room of T60 0.5 s whose tail has the energy of the direct sound. The direct sound
            keeps its level, so the sum is about 3 dB louder. The details of the tail are drawn.
        ``clip``
            Hard clipping at 12 dB below the peak; the level is not restored.
        ``gain<dB>``
            Louder or softer, without clipping or rounding.
    rng
        Source of all draws, see `condition_rng`.
    talkers
        Waveforms of background talkers, at 16 kHz; needed for babble only.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        A new array, never the input itself.

    Raises
    ------
    ConfigError
        If there is no such condition, its codec is not available, or babble has no talkers.
    """
    kind, level = _parse(condition)
    if not len(waveform):
        return waveform.copy()
    if level is None:
        return _apply_plain(waveform, kind, rng)
    if kind == "gain":
        return waveform * np.float32(10 ** (level / 20))
    if kind == "babble":
        if not talkers:
            raise ConfigError(
                f"condition {condition!r} needs speech of other clips for babble; found none"
            )
        noise = augment.babble(talkers, len(waveform), rng)
    else:
        noise = augment.coloured_noise(len(waveform), 1.0 if kind == "pink" else 0.0, rng)
    return augment.mix(waveform, noise, level)


def _parse(text: str) -> _Condition:
    if text in _PLAIN:
        return _Condition(text, None)
    match = _GRADED.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"unknown condition {text!r}; there are {', '.join(known_conditions())} "
            "(such as noise10 or gain-20)"
        )
    kind, level = match[1], float(match[2]) + 0.0  # no negative zero
    low, high = _RANGES[kind]
    if not low <= level <= high:
        raise ConfigError(f"condition {text!r}: found {level:g} dB; expected {low:g} to {high:g}")
    return _Condition(kind, level)


def _has_codec(name: str) -> bool:
    return name not in CODEC_OF or codec_available(CODEC_OF[name])


def _apply_plain(waveform: FloatArray, kind: str, rng: np.random.Generator) -> FloatArray:
    if kind in CODEC_OF:
        return transmit(waveform, CODEC_OF[kind])
    if kind == "reverb":
        return augment.reverberate(waveform, REVERBERATION_S, DIRECT_DB, rng)
    if kind == "clip":
        limit = np.abs(waveform).max() * np.float32(10 ** (-CLIP_DB / 20))
        return np.clip(waveform, -limit, limit)
    return waveform.copy()
