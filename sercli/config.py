"""Settings as frozen dataclasses, with their defaults and ranges.

The command line reads the defaults from here, and every result records the settings it came from.
"""

import os
from dataclasses import dataclass, fields, is_dataclass
from math import ceil
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as shorten
from typing import Literal, get_args

from sercli.errors import ConfigError

# Which part of a corpus.
Split = Literal["train", "dev", "test", "all"]
SPLITS = ("train", "dev", "test")
# Whether the speakers that a model is measured on are those that it was trained on.
APART = "speakers apart"
SHARED = "speakers shared"
UNKNOWN = "speakers unknown"
SegmentMode = Literal["speech", "window", "file"]
OnError = Literal["continue", "stop"]
# The emotion that a speaker wants to express, or that listeners perceive.
Target = Literal["intended", "perceived"]
# The group whose segments share a baseline.
Adaptation = Literal["none", "recording", "channel", "speaker", "corpus", "auto"]
# With these, a group may have segments in several files.
ACROSS_FILES = ("speaker", "corpus")
# Number type in which networks compute.
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
# Label names of a Hugging Face classifier: those of this package, or the model's own.
LabelScheme = Literal["ours", "model"]

# Shorter pauses are closures within words; the detector needs this much to end a speech region.
MIN_GAP_S = 0.1
# Shorter pieces are neither trained on nor labelled.
SHORTEST_SEGMENT_S = 0.1
# The longest piece of audio that is held in memory and scored at once.
LONGEST_SEGMENT_S = 30.0
# The largest seed that all libraries take.
MAX_SEED = 2**32 - 1
# Upper limits of threads or processes, of which the larger holds: on any machine, and per core.
AT_ONCE, AT_ONCE_PER_CORE = 64, 4
# Files with the CPU quota of a container on Linux, by version 2 and 1 of cgroups: microseconds of
# CPU time per period, the period.
CGROUP = Path("/sys/fs/cgroup")
CPU_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


@dataclass(frozen=True)
class SegmentConfig:
    """Settings of how a recording is cut into the segments that get a label.

    Parameters
    ----------
    mode
        ``"speech"``: regions of detected speech; ``"window"``: fixed windows that contain speech;
        ``"file"``: one label for the whole recording.
    max_segment
        Longest segment in seconds, for ``mode="speech"``: at most 30 and at least twice
        `min_segment`; longer speech is cut at its quietest point.
    min_segment
        Speech shorter than this, in seconds, joins a close neighbour; with ``mode="window"``, a
        remainder at the end is left out if it is shorter, unless it is all there is.
    max_gap
        Pauses shorter than this, in seconds, are bridged, for ``mode="speech"``; 0.1 to 30.
    window, hop
        Length of a window, 0.1 to 30, and hop length between windows, 0.01 to 86,400, in seconds,
        for ``mode="window"``; without ``hop``, windows follow each other without overlap.
    vad_threshold
        Probability from which a frame counts as speech, 0.01 to 0.99.

    Raises
    ------
    ConfigError
        If a value is out of range or two values exclude each other.
    """

    mode: SegmentMode = "speech"
    max_segment: float = 6.0
    min_segment: float = 0.5
    max_gap: float = 0.3
    window: float = 3.0
    hop: float | None = None
    vad_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check every value against its range."""
        settle(self)
        if self.mode not in get_args(SegmentMode):
            modes = ", ".join(get_args(SegmentMode))
            raise ConfigError(f"segment mode is {self.mode!r}; expected one of {modes}")
        check_range("min_segment", self.min_segment, SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S / 2)
        check_range("max_segment", self.max_segment, 2 * SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S)
        if self.mode == "speech" and self.max_segment < (least := 2 * self.min_segment):
            raise ConfigError(
                f"max_segment is {self.max_segment:g} and min_segment {self.min_segment:g}; "
                f"expected a max_segment of {least:g} to {LONGEST_SEGMENT_S:g}, twice the other or "
                "more"
            )
        check_range("max_gap", self.max_gap, MIN_GAP_S, LONGEST_SEGMENT_S)
        check_range("window", self.window, SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S)
        if self.hop is not None:
            check_range("hop", self.hop, 0.01, 86_400.0)
        check_range("vad_threshold", self.vad_threshold, 0.01, 0.99)


@dataclass(frozen=True)
class Effort:
    """Settings of how many cores are used, and how much memory.

    Parameters
    ----------
    threads
        Number of cores that may compute at once; None: all that this process may use.
    workers
        Number of worker threads, each of which reads one file or scores one batch at a time;
        None: as many as `threads`. Fewer workers need less memory, and each of them computes with
        several threads.
    batch_seconds
        Size of a batch in seconds of audio, padding included; None: a size that suits the model
        and its device.

    Raises
    ------
    ConfigError
        If a value is out of range, or there are more workers than threads.
    """

    threads: int | None = None
    workers: int | None = None
    batch_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check every value against its range."""
        settle(self)
        if self.threads is not None:
            check_count("threads", self.threads, 1, most_at_once())
        if self.workers is not None:
            check_whole("workers", self.workers)
        if not 1 <= self.n_workers <= self.n_threads:
            raise ConfigError(
                f"workers is {self.workers}; expected 1 to the number of threads, {self.n_threads}"
            )
        if self.batch_seconds is not None:
            check_range("batch_seconds", self.batch_seconds, 1.0, 3600.0)

    @property
    def n_threads(self) -> int:
        """Number of cores that may compute at once."""
        return self.threads or count_cores()

    @property
    def n_workers(self) -> int:
        """Number of worker threads."""
        return self.n_threads if self.workers is None else self.workers

    @property
    def threads_each(self) -> int:
        """Number of threads with which each worker computes."""
        return self.n_threads // self.n_workers


def count_cores() -> int:
    """Return the number of cores that this process may use, within the quota of its container."""
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    for names in CPU_QUOTAS:
        try:
            told = " ".join((CGROUP / name).read_text(encoding="ascii") for name in names)
            quota, period = map(int, told.split())
        except (OSError, ValueError):  # no such file, or no quota: "max"
            continue
        if quota > 0 and period > 0:  # without a quota, version 1 has -1
            n_cores = max(1, min(n_cores, ceil(quota / period)))
    return n_cores


def most_at_once() -> int:
    """Return the largest allowed number of threads or processes; more would only take memory."""
    return max(AT_ONCE, AT_ONCE_PER_CORE * count_cores())


@dataclass(frozen=True)
class EvalConfig:
    """Settings of an evaluation: which output is measured, and which extra measurements are made.

    Parameters
    ----------
    stress
        Conditions, such as noise, under which the clips are also evaluated; see
        `sercli.evaluation.stress`. A single one need not be in a tuple; this holds for
        `precisions`, too.
    target_precision
        Precision, 0.01 to 1, for which a confidence threshold is looked for, or None.
    baselines
        Whether to add the figures of the most frequent label and of random labels.
    strict
        Whether to raise if the model was trained on clips or speakers that it is measured on.
    seed
        Seed of the stress conditions, the resampling and the random baseline.
    jobs
        Number of processes; -1 for one per core.
    target
        The output of the model that is measured: ``"intended"`` or ``"perceived"`` emotions.
    adapt
        The group whose clips share a baseline: the ``"recording"``, the ``"channel"`` of a
        recording, the ``"speaker"``, the whole ``"corpus"``, or ``"none"``. ``"auto"``: the
        speaker if all are known, else the channel if any clip is a single channel, else the
        recording; none for perceived emotions and for models without a safe adapter.
    mixes
        Whether to measure how much baselines help or hurt in groups of various sizes and mixes of
        emotions.
    precisions
        Number types in which the model is also run, to measure how far its labels depend on them.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    stress: tuple[str, ...] = ()
    target_precision: float | None = None
    baselines: bool = False
    strict: bool = False
    seed: int = 0
    jobs: int = -1
    target: Target = "intended"
    adapt: Adaptation = "none"
    mixes: bool = False
    precisions: tuple[Precision, ...] = ()

    def __post_init__(self) -> None:
        """Check every value against its range."""
        settle(self, "stress", "precisions")
        given = (("target", self.target, Target), ("adapt", self.adapt, Adaptation))
        types = (("precision", one, Precision) for one in self.precisions)
        for name, value, known in (*given, *types):
            if value not in get_args(known):
                raise ConfigError(
                    f"{name} is {value!r}; expected one of {', '.join(get_args(known))}"
                )
        if self.target_precision is not None:
            check_range("target precision", self.target_precision, 0.01, 1.0)
        check_seed_and_jobs(self.seed, self.jobs)


def settle(config: object, *sequences: str) -> None:
    """Replace values of a frozen dataclass by equal ones of Python's own types.

    Numbers of other libraries become integers and floats, as JSON has them. Iterables become
    tuples, as some could be read only once.

    Parameters
    ----------
    config
        Instance of the dataclass.
    sequences
        Names of the fields that hold several values; a single one need not be in a tuple.

    Raises
    ------
    ConfigError
        If such a field is neither a value nor an iterable, or a field that is true or false has
        another value.
    """
    assert is_dataclass(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in sequences and not (value is None and field.default is None):
            one = isinstance(value, str | bytes | os.PathLike)
            try:
                settled: object = tuple(map(_settle, (value,) if one else value))
            except TypeError as error:
                raise ConfigError(
                    f"{field.name} is {shorten(value)}; expected a sequence of values"
                ) from error
        else:
            settled = _settle(value)
        if field.type is bool and not isinstance(settled, bool):
            raise ConfigError(f"{field.name} is {shorten(settled)}; expected True or False")
        if settled is not value:
            object.__setattr__(config, field.name, settled)


def _settle(value: object) -> object:
    if getattr(value, "ndim", None) == 0:  # of an array library
        value = value.item()  # type: ignore[attr-defined]
    if _is_kind(value, Integral):
        return int(value)  # type: ignore[call-overload]
    return float(value) if _is_kind(value, Real) else value  # type: ignore[arg-type]


def check_seed_and_jobs(seed: int, jobs: int) -> None:
    """Raise if a seed or a number of processes is out of its range.

    Parameters
    ----------
    seed
        Random seed.
    jobs
        Number of processes, or -1 for one per core.

    Raises
    ------
    ConfigError
        If one of them is out of its range.
    """
    check_count("seed", seed, 0, MAX_SEED)
    check_whole("jobs", jobs)
    if jobs != -1 and not 1 <= jobs <= most_at_once():
        raise ConfigError(
            f"jobs is {shorten(jobs)}; expected 1 to {most_at_once()}, or -1 for one per core"
        )


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise if a number is out of its range.

    Parameters
    ----------
    name
        Name of the setting, for the error message.
    value
        The number.
    low, high
        The smallest and the largest allowed value.

    Raises
    ------
    ConfigError
        If it is out of the range, or not a number.
    """
    if not _is_kind(value, Real):
        raise ConfigError(f"{name} is {shorten(value)}; expected a number from {low:g} to {high:g}")
    if not low <= value <= high:  # also false for NaN
        # An integer may be too large for a float.
        found = shorten(value) if isinstance(value, int) else f"{value:g}"
        lowest, highest = (str(one) if isinstance(one, int) else f"{one:g}" for one in (low, high))
        raise ConfigError(f"{name} is {found}; expected {lowest} to {highest}")


def check_count(name: str, value: int, low: int, high: int) -> None:
    """Raise if a whole number is out of its range.

    Parameters
    ----------
    name, value, low, high
        As for `check_range`.

    Raises
    ------
    ConfigError
        If it is out of the range, or not a whole number.
    """
    check_whole(name, value)
    check_range(name, value, low, high)


def check_whole(name: str, value: int) -> None:
    """Raise if a value is not a whole number.

    Parameters
    ----------
    name
        Name of the setting, for the error message.
    value
        The value, of any type.

    Raises
    ------
    ConfigError
        If it is not a whole number.
    """
    if not _is_kind(value, Integral):
        raise ConfigError(f"{name} is {shorten(value)}; expected a whole number")


def _is_kind(value: object, kind: type) -> bool:
    """Return whether a value is a number of the given kind; booleans do not count."""
    return isinstance(value, kind) and not isinstance(value, bool)
