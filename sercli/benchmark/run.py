"""Measurement of the annotation speed on this machine, by stage."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile as sf

from sercli.annotation.annotator import Annotator
from sercli.audio import SAMPLE_RATE
from sercli.benchmark.synthetic import synthesise
from sercli.classifiers.base import BATCH_S, Classifier
from sercli.config import Effort
from sercli.discovery import Found, find_inputs
from sercli.errors import ConfigError
from sercli.output.report import RunInfo
from sercli.output.writers import open_writer
from sercli.schema import MIX, printable, printable_path
from sercli.system.memory import measure_peak_memory
from sercli.text import format_count
from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.classifiers.neural import NetworkClassifier

# Longest synthetic recording, in seconds.
RECORDING_S = 120.0


@dataclass(frozen=True)
class StageTime:
    """Time that a stage took in the median run.

    With several workers and a minute of speech or more, the ``features`` of an SVM, also of one in
    a fusion, include the start of its processes: each worker waits for it once a run, for about a
    second, which counts for less the more audio there is.

    Parameters
    ----------
    seconds
        Total time of all workers, in seconds.
    speed
        Seconds of audio per second of one worker that runs only this stage.
    share
        Share of the time of all stages, in ``[0, 1]``.
    """

    seconds: float
    speed: float
    share: float


@dataclass(frozen=True)
class Benchmark:
    """Result of `measure`.

    Parameters
    ----------
    model, precision
        Name and number type of the model.
    threads, workers, batch_seconds
        Settings as in `sercli.config.Effort`, with defaults resolved.
    files, failed, segments
        Numbers of files, of files that could not be read in full, and of segments.
    audio_seconds, speech_seconds
        Total durations of all files and of their segments.
    wall_seconds
        Wall-clock time of each run, in ascending order, from the first file to the last row;
        loading the model is not included.
    speed
        How many times faster than real time the median run was; of an even number of runs, the
        slower of the two in the middle.
    hours_per_minute
        Hours of audio per minute, in that run.
    stages
        Times of the stages of that run, by name; for a network, ``features`` includes all but its
        head.
    errors
        Why each file that failed could not be read in full, by its path.
    multiply_adds
        Multiply-adds that a network needs for the segments, or None for other models.
    peak
        Multiply-adds per second in products of large matrices of the same number type.
    model_share, run_share
        Shares of that peak that are reached in the stages ``features`` and ``model``, and in the
        whole run.
    peak_memory
        Peak memory of this process in bytes, or None if unknown.
    """

    model: str
    precision: str
    threads: int
    workers: int
    batch_seconds: float
    files: int
    failed: int
    segments: int
    audio_seconds: float
    speech_seconds: float
    wall_seconds: list[float]
    speed: float
    hours_per_minute: float
    stages: dict[str, StageTime] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    multiply_adds: float | None = None
    peak: float | None = None
    model_share: float | None = None
    run_share: float | None = None
    peak_memory: int | None = None


def measure(
    classifier: Classifier,
    paths: Iterable[Path | str] = (),
    *,
    hours: float = 0.25,
    channels: str | Sequence[int] = MIX,
    effort: Effort | None = None,
    runs: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Annotate recordings and measure how long that takes.

    An extra first run, which is not counted, warms up the disk cache and the libraries.

    Parameters
    ----------
    classifier
        The model.
    paths
        Recordings and directories; if empty, synthetic recordings are used.
    hours
        Total duration of the synthetic recordings, in hours.
    channels, effort
        Channels, and use of cores and memory, as in `sercli.annotate`.
    runs
        Number of counted runs.
    say
        Called with each progress message.

    Raises
    ------
    ConfigError
        If `runs` or `hours` is out of range, or there are no recordings or no speech in them.
    """
    if runs < 1 or not 0 < hours <= 1000:
        raise ConfigError(
            f"runs is {runs} and hours {hours:g}; expected 1 run or more, and up to 1000 hours"
        )
    effort = effort or Effort()
    with TemporaryDirectory(prefix="ser-bench-") as folder:
        inputs = _find_recordings(list(paths), Path(folder), hours, say)
        outcomes = []
        for number in range(runs + 1):
            say(f"run {number} of {runs}" if number else "warming up")
            target = Path(folder) / "labels.csv"
            outcomes.append(_run(classifier, channels, effort, inputs, target))
            _check_speech(outcomes[-1], len(inputs))
    outcomes = sorted(outcomes[1:], key=lambda outcome: outcome.wall)
    median = outcomes[len(outcomes) // 2]  # of an even number, the slower of the two
    audio, durations = median.audio, median.durations
    found = Benchmark(
        model=classifier.name,
        precision=classifier.precision,
        threads=effort.n_threads,
        workers=effort.n_workers,
        batch_seconds=effort.batch_seconds or classifier.batch_seconds,
        files=len(inputs),
        failed=len(median.failed),
        segments=len(durations),
        audio_seconds=audio,
        speech_seconds=sum(durations),
        wall_seconds=[outcome.wall for outcome in outcomes],
        speed=audio / median.wall,
        hours_per_minute=audio / median.wall / 60,
        stages=_time_stages(median),
        errors=median.failed,
        peak_memory=measure_peak_memory(),
    )
    return _add_shares(found, classifier, effort, durations, say)


def _find_recordings(
    paths: list[Path | str], folder: Path, hours: float, say: Callable[[str], None]
) -> list[Found]:
    """Return the recordings in some paths; without paths, synthetic ones, which are written."""
    if not paths:
        say(f"making {hours:g} h of synthetic recordings")
        return [Found(str(path)) for path in _synthesise(folder, hours)]
    inputs = list(find_inputs(paths))
    if not inputs:
        raise ConfigError(
            f"found no audio or video files in: {', '.join(map(str, paths))}; name "
            "recordings, or no paths at all, for synthetic recordings"
        )
    return inputs


@dataclass(frozen=True)
class _Outcome:
    wall: float
    stages: dict[Any, float]
    audio: float
    durations: list[float]  # of all segments
    failed: dict[str, str]  # why, by path, of each file that could not be read in full


def _check_speech(outcome: _Outcome, n_inputs: int) -> None:
    if not outcome.durations:
        recordings = format_count(n_inputs, "recording")
        first = next(iter(outcome.failed.values()), None)
        reason = f"; the first that failed: {first}" if first else ""
        raise ConfigError(
            f"found no speech in {recordings}; expected recordings with speech{reason}"
        )


def _time_stages(outcome: _Outcome) -> dict[str, StageTime]:
    spent = sum(outcome.stages.values())
    return {
        name: StageTime(seconds, outcome.audio / seconds if seconds else 0.0, seconds / spent)
        for name, seconds in outcome.stages.items()
    }


def _run(
    classifier: Classifier,
    channels: str | Sequence[int],
    effort: Effort,
    inputs: list[Found],
    target: Path,
) -> _Outcome:
    annotator = Annotator(classifier, channels=channels, adapt="auto", effort=effort)
    info = RunInfo(__version__, {"labels": classifier.spec.labels}, {})
    audio, durations, failed = 0.0, list[float](), dict[str, str]()
    start = perf_counter()
    with open_writer(str(target), "csv", info, overwrite=True) as writer:
        for result in annotator.annotate(inputs):
            with annotator.stopwatch.measure("write"):
                writer.write(result)
            audio += result.duration
            durations += [segment.end - segment.start for segment in result.segments]
            if result.error:
                failed[printable_path(result.path)] = printable(result.error)
    wall = perf_counter() - start
    return _Outcome(wall, annotator.stopwatch.seconds, audio, durations, failed)


def _add_shares(
    found: Benchmark,
    classifier: Classifier,
    effort: Effort,
    durations: list[float],
    say: Callable[[str], None],
) -> Benchmark:
    """Add the shares of the machine's peak that are reached, if the model is of networks alone."""
    networks = _find_networks(classifier)
    if not networks:
        return found
    from sercli.benchmark.peak import count_multiply_adds, measure_peak

    say("measuring the peak of this machine")
    needed = sum(count_multiply_adds(network, durations) for network in networks)
    with classifier.replicas(effort.n_workers, effort.threads_each, BATCH_S) as replicas:
        peak = measure_peak(networks[0], effort.n_workers)
        n_scoring = min(len(replicas), effort.n_workers)  # a GPU has fewer replicas
    busy = (found.stages["features"].seconds + found.stages["model"].seconds) / n_scoring
    wall = found.audio_seconds / found.speed
    return replace(
        found,
        multiply_adds=needed,
        peak=peak,
        model_share=needed / busy / peak,
        run_share=needed / wall / peak,
    )


def _find_networks(classifier: Classifier) -> "list[NetworkClassifier]":
    """Return the networks of a model; none if any part of it is not a network."""
    if classifier.in_workers:
        return []
    from sercli.classifiers.fusion import FusionClassifier
    from sercli.classifiers.neural import NetworkClassifier

    if isinstance(classifier, FusionClassifier):
        parts = [_find_networks(member) for member in classifier.members]
        return [network for part in parts for network in part] if all(parts) else []
    assert isinstance(classifier, NetworkClassifier)
    return [classifier]


def _synthesise(folder: Path, hours: float) -> list[Path]:
    rng = np.random.default_rng(0)
    left, paths = max(1, round(hours * 3600 * SAMPLE_RATE)), list[Path]()
    while left > 0:
        path = folder / f"{len(paths):05d}.wav"
        n_samples = min(left, int(RECORDING_S * SAMPLE_RATE))
        sf.write(path, synthesise(n_samples / SAMPLE_RATE, rng), SAMPLE_RATE)
        paths.append(path)
        left -= n_samples
    return paths
