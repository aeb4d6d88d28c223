import itertools
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, FakeClassifier
from numpy.typing import NDArray

from sercli.annotation import pipeline
from sercli.annotation.annotator import Annotator
from sercli.annotation.pipeline import score_recordings
from sercli.annotation.recording import Block, Piece, Recording
from sercli.annotation.timing import Stopwatch
from sercli.audio.reading import load_audio
from sercli.benchmark.synthetic import synthesise
from sercli.config import Effort, SegmentConfig
from sercli.discovery import Found
from sercli.errors import ConfigError
from sercli.schema import FileResult
from sercli.speech.vad import open_detector
from sercli.system.memory import measure_allocated

FloatArray = NDArray[np.float32]


class FakeRecording:
    """Segments of given lengths in seconds, so many in a block."""

    def __init__(
        self, seconds: Sequence[float], block: int = 2, wait: Callable[[], Any] = lambda: None
    ) -> None:
        self.pieces: list[Piece] = []
        self._seconds = seconds
        self._block = block
        self._wait = wait
        self.is_open = False

    def listen(self) -> Iterator[Block]:
        self._wait()
        self.is_open = True
        try:
            for start in range(0, len(self._seconds), self._block):
                some = self._seconds[start : start + self._block]
                self.pieces += [Piece(0, 0.0, one, one) for one in some]
                waves = [np.full(round(16_000 * one), one, np.float32) for one in some]
                yield Block(sum(some), waves)
        finally:
            self.is_open = False


def score(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
    return np.array([[len(waveform) / 16_000, 1.0] for waveform in waveforms])


def run(
    recordings: Sequence[FakeRecording], workers: int = 2, score: Any = score, **options: Any
) -> list[list[float]]:
    """Of each recording, what was said of its pieces."""
    fakes: Any = iter(recordings)
    options = {"batch_seconds": 20.0, **options}
    scored = score_recordings(fakes, [score] * workers, 2, workers, **options)
    return [one.probabilities[:, 0].tolist() for one in scored]


def draw(rng: np.random.Generator, sizes: Sequence[int]) -> list[list[float]]:
    return [(rng.integers(4, 96, size) / 16).tolist() for size in sizes]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_segment_gets_its_own_result_in_the_order_of_the_files(
    workers: int, rng: np.random.Generator
) -> None:
    lengths = draw(rng, (3, 0, 400, 1, 1, 7, 0, 300, 2))
    assert run([FakeRecording(one) for one in lengths], workers) == lengths


def test_what_is_scored_together_is_no_matter_of_chance(rng: np.random.Generator) -> None:
    lengths = draw(rng, (3, 1500, *([2] * 500), 150))
    found = []
    for workers in (1, 4):
        batches: list[tuple[float, ...]] = []

        def spy(
            waveforms: Sequence[FloatArray], batches: list[tuple[float, ...]] = batches
        ) -> NDArray[np.float64]:
            rows = score(waveforms)
            batches.append(tuple(rows[:, 0]))
            return rows

        run([FakeRecording(one) for one in lengths], workers, spy)
        found.append(sorted(batches))
    assert found[0] == found[1]
    assert len(found[0]) > 20
    # Little of a batch is padding, though segments last from 0.25 to 6 s.
    padded = sum(len(batch) * max(batch) for batch in found[0])
    assert sum(map(sum, found[0])) > 0.95 * padded
    assert max(len(batch) * max(batch) for batch in found[0]) <= 20


@pytest.mark.parametrize(
    ("limits", "seconds", "ahead"),
    [
        ({"MAX_AHEAD": 5, "WINDOW_FILES": 2}, 1.0, 5),
        # Of the audio of the files after the first, none can be classified before it is read.
        ({"WAITING_S": 60.0}, 20.0, 4),
    ],
)
def test_files_are_not_read_too_far_ahead(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], seconds: float, ahead: int
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(pipeline, name, value)
    begun: list[int] = []
    full, idle = Event(), Event()

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            # The other worker is held by the first file: this one has found nothing to do.
            if full.is_set() and threading.current_thread().name.startswith("worker"):
                idle.set()
            return super().wait(timeout)

    monkeypatch.setattr(pipeline, "Condition", Watched)

    def begin(number: int) -> Callable[[], None]:
        def wait() -> None:
            begun.append(number)
            if len(begun) == ahead:
                full.set()
            if number == 0:
                assert idle.wait(30)
                assert sorted(begun) == list(range(ahead))

        return wait

    recordings = [FakeRecording([seconds], wait=begin(number)) for number in range(20)]
    assert run(recordings) == [[seconds]] * 20


def test_who_speaks_once_does_not_wait_for_all_who_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "MAX_AHEAD", 8)
    monkeypatch.setattr(pipeline, "WINDOW_FILES", 4)
    lengths = [[1.0], *([[]] * 30), [2.0, 3.0], *([[]] * 30)]
    assert run([FakeRecording(one) for one in lengths]) == lengths


def test_segments_of_many_files_are_classified_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WINDOW_FILES", 4)
    sizes: list[int] = []

    def count(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        sizes.append(len(waveforms))
        return score(waveforms)

    assert run([FakeRecording([1.0]) for _ in range(14)], score=count) == [[1.0]] * 14
    assert sorted(sizes) == [2, 4, 4, 4]


def test_a_model_that_fails_ends_the_run() -> None:
    def fail(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        raise ConfigError("no such frame")

    with pytest.raises(ConfigError, match="no such frame"):
        run([FakeRecording([1.0] * 400)], score=fail)
    assert not workers()


def test_recordings_before_a_failure_are_not_lost() -> None:
    def fail(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        if min(map(len, waveforms)) < 32_000:
            raise ConfigError("too short for it")
        return score(waveforms)

    def wait(_: float) -> None:  # until the failure has ended the workers
        for thread in workers():
            thread.join()

    recordings: Any = iter([FakeRecording([6.0] * 10), FakeRecording([1.0])])
    found = score_recordings(recordings, [fail], 2, n_workers=1, batch_seconds=20.0, progress=wait)
    assert next(found).probabilities[:, 0].tolist() == [6.0] * 10
    with pytest.raises(ConfigError, match="too short for it"):
        next(found)


def test_a_worker_that_cannot_be_started_stops_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RuntimeError("can't start new thread")
    begin = threading.Thread.start
    begun: list[str] = []

    def start(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise error
        begun.append(thread.name)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    recording = FakeRecording([1.0] * 10_000)
    with pytest.raises(RuntimeError) as raised:
        run([recording], workers=4)
    assert raised.value is error
    assert len(begun) == 2
    assert not workers()
    assert not recording.is_open


def test_who_stops_listening_stops_the_workers() -> None:
    fakes: Any = (FakeRecording([1.0]) for _ in range(10_000))
    scored = score_recordings(fakes, [score] * 3, 2, n_workers=3, batch_seconds=20.0)
    assert next(scored).probabilities.tolist() == [[1.0, 1.0]]
    assert len(workers()) == 3
    scored.close()
    assert not workers()


def test_a_worker_that_collects_the_results_as_garbage_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_left, is_closed = Event(), Event()
    seconds = pipeline._seconds

    def collect(items: Any) -> float:
        # Workers count seconds while they hold the lock that all others need.
        if is_left.is_set() and not is_closed.is_set():
            scored.close()
            is_closed.set()
        return seconds(items)

    monkeypatch.setattr(pipeline, "_seconds", collect)
    fakes: Any = (FakeRecording([1.0] * 10) for _ in itertools.count())
    scored = score_recordings(fakes, [score] * 3, 2, n_workers=3, batch_seconds=20.0)
    next(scored)
    started = workers()
    is_left.set()
    assert is_closed.wait(30)
    for thread in started:
        thread.join(30)
    assert not workers()


def test_batches_are_as_large_as_asked_for() -> None:
    sizes: list[float] = []

    def spy(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        rows = score(waveforms)
        sizes.append(rows[:, 0].sum())
        return rows

    run([FakeRecording([6.0] * 1000)], score=spy, batch_seconds=1200.0)
    # The first windows are smaller.
    assert sorted(sizes)[-3:] == [1200, 1200, 1200]
    assert max(sizes) == 1200


def test_a_script_that_takes_no_more_results_ends() -> None:
    code = (
        "import itertools\n"
        "from sercli.annotation.pipeline import score_recordings\n"
        "from tests.test_pipeline import FakeRecording, score\n"
        "endless = (FakeRecording([1.0]) for _ in itertools.count())\n"
        "scored = score_recordings(endless, [score] * 3, 2, n_workers=3, batch_seconds=20.0)\n"
        "print(next(scored).probabilities)\n"
    )
    root = Path(__file__).parent.parent
    paths = os.pathsep.join((str(root), str(root / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"[[1. 1.]]\n"), done.stderr.decode()


def test_who_looks_for_files_holds_up_nobody() -> None:
    taken = Event()

    def look() -> Iterator[Any]:
        yield FakeRecording([6.0] * 10)  # which fill a window
        assert taken.wait(30)  # for a result of the first
        yield FakeRecording([1.0])

    scored = score_recordings(look(), [score] * 2, 2, n_workers=2, batch_seconds=20.0)
    assert len(next(scored).probabilities) == 10
    taken.set()
    assert [one.probabilities[:, 0].tolist() for one in scored] == [[1.0]]


def test_segments_that_overlap_do_not_fill_the_memory() -> None:
    """Each second of the recording is in thirty segments of thirty seconds."""
    waiting, most = 0.0, 0.0

    class Overlapping(FakeRecording):
        def listen(self) -> Iterator[Block]:
            nonlocal waiting, most
            for _ in range(100):
                self.pieces += [Piece(0, 0.0, 30.0, 30.0)] * 30
                waiting += 900.0
                most = max(most, waiting)
                yield Block(1.0, [np.zeros(480_000, np.float32)] * 30)

    def take(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        nonlocal waiting
        waiting -= 30.0 * len(waveforms)
        return score(waveforms)

    assert len(run([Overlapping([])], 1, score=take)[0]) == 3_000
    assert most <= 2_000.0


@pytest.fixture
def slow(tmp_path: Path, speech: FloatArray) -> Path:
    """Speech at 8 kHz, 43 s: the lower the rate, the longer what is decoded at once."""
    path = tmp_path / "slow.wav"
    sf.write(path, np.tile(speech, 4)[::2], 8_000)
    return path


def test_windows_that_overlap_are_hardly_more_than_the_recording(slow: Path) -> None:
    config = SegmentConfig(mode="window", window=30.0, hop=0.05)
    whole = load_audio(slow)
    recording = Recording(Found(str(slow)), "mix", config, Stopwatch())
    open_detector()  # whose memory does not count
    given, seconds = 0, 0.0
    tracemalloc.start()
    try:
        for block in recording.listen():
            pieces = recording.pieces[given:]
            given += len(pieces)
            seconds += sum(map(len, block.waveforms)) / 16_000
            for piece, waveform in zip(pieces, block.waveforms, strict=True):
                start, end = round(piece.start * 16_000), round(piece.end * 16_000)
                assert np.array_equal(waveform, whole[start:end])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    starts = [piece.start for piece in recording.pieces]
    assert starts == pytest.approx(0.05 * np.arange(len(starts)))
    assert seconds > 200 * 30.0
    assert most < 4 * whole.nbytes


def test_models_may_change_what_they_are_given(slow: Path) -> None:
    class Ruthless(FakeClassifier):
        def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
            loudness = [[1 + float(np.abs(waveform).mean())] for waveform in waveforms]
            for waveform in waveforms:
                waveform[:] = 0
            return np.array(loudness, np.float32)

    config = SegmentConfig(mode="window", window=4.0, hop=0.5)
    (result,) = Annotator(Ruthless(), config, effort=Effort(2)).annotate([Found(str(slow))])
    whole = load_audio(slow)
    assert len(result.segments) > 60
    for segment in result.segments:
        decoded = whole[round(segment.start * 16_000) : round(segment.end * 16_000)]
        odds = segment.probabilities[1] / segment.probabilities[0]
        assert odds == pytest.approx(1 + float(np.abs(decoded).mean()), rel=1e-5)


def test_files_that_nobody_reads_any_more_are_closed() -> None:
    recordings = [FakeRecording([1.0]), *(FakeRecording([6.0] * 1000) for _ in range(3))]
    fakes: Any = iter(recordings)
    scored = score_recordings(fakes, [score] * 2, 2, n_workers=2, batch_seconds=20.0)
    assert len(next(scored).probabilities) == 1
    scored.close()
    assert not any(recording.is_open for recording in recordings)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


def test_progress_is_told_to_who_takes_the_results() -> None:
    decoded: list[float] = []
    threads: set[str] = set()

    def progress(seconds: float) -> None:
        decoded.append(seconds)
        threads.add(threading.current_thread().name)

    run([FakeRecording([2.0] * 30) for _ in range(3)], progress=progress)
    assert sum(decoded) == 180
    assert threads == {threading.current_thread().name}


def test_fewer_models_than_workers() -> None:
    """Of a GPU, there is one: others read in the meantime."""
    busy: list[int] = []
    most: list[int] = []

    def alone(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
        busy.append(1)
        most.append(len(busy))
        rows = score(waveforms)
        busy.pop()
        return rows

    fakes: Any = [FakeRecording([1.0] * 300) for _ in range(4)]
    scored = list(score_recordings(fakes, [alone], 2, n_workers=4, batch_seconds=20.0))
    assert [len(one.probabilities) for one in scored] == [300] * 4
    assert max(most) == 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_models_take_turns_whatever_the_workers(workers: int) -> None:
    """Or of several GPUs the last would do everything, where few workers are."""
    scored = [0] * 4

    def create(number: int) -> Any:
        def count(waveforms: Sequence[FloatArray]) -> NDArray[np.float64]:
            scored[number] += 1
            return score(waveforms)

        return count

    fakes: Any = [FakeRecording([20.0] * 40)]
    scorers = [create(number) for number in range(4)]
    (found,) = score_recordings(fakes, scorers, 2, n_workers=workers, batch_seconds=20.0)
    assert found.probabilities[:, 0].tolist() == [20.0] * 40
    if workers == 1:
        assert scored == [10] * 4
    assert sum(scored) == 40
    assert min(scored) > 0


@pytest.fixture
def recordings(tmp_path: Path, speech: FloatArray) -> list[Found]:
    lengths = (3, 1, 40, 2, 1)
    found = []
    for number, copies in enumerate(lengths):
        path = tmp_path / f"{number}.wav"
        sf.write(path, np.tile(speech, copies)[number * 1000 :], 16_000)
        found.append(Found(str(path)))
    return [*found, Found(str(tmp_path / "nowhere.wav")), Found(str(EXAMPLES / "call.wav"))]


def test_effort_changes_nothing_but_time(recordings: list[Found]) -> None:
    def annotate(inputs: list[Found], effort: Effort) -> list[FileResult]:
        return list(Annotator(FakeClassifier(), SegmentConfig(), effort=effort).annotate(inputs))

    plain = annotate(recordings, Effort(threads=1))
    assert [result.status for result in plain] == ["ok"] * 5 + ["failed", "ok"]
    for effort in (Effort(), Effort(threads=5), Effort(4, 2, 3.0)):
        assert annotate(recordings, effort) == plain
    assert annotate(recordings[::-1], Effort())[::-1] == plain


class Sampler(FakeClassifier):
    """Keeps nothing of what it hears but how much that was, and the memory in use by then."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.held: list[int] = []

    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        features = np.array([[len(waveform) / 16_000] for waveform in waveforms], np.float32)
        self.seconds.append(float(features.sum()))
        self.held.append(measure_allocated())
        return features


@pytest.mark.skipif(not measure_allocated(), reason="the system does not tell what is in use")
def test_memory_does_not_grow_with_a_recording(tmp_path: Path, rng: np.random.Generator) -> None:
    minute = synthesise(60.0, rng)
    path = tmp_path / "long.wav"
    with sf.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(45):
            file.write(minute)
    sampler = Sampler()
    (result,) = Annotator(sampler, SegmentConfig(), effort=Effort(2)).annotate([Found(str(path))])
    assert result.duration == 2700.0
    decoded = np.cumsum(sampler.seconds)
    assert decoded[-1] > 1800
    held, early = np.array(sampler.held), decoded < 600
    # What is read after that is 150 MB as the network hears it, and more of it as it is read.
    assert held[~early].max() - held[early].max() < 50_000_000


def test_on_error_stop_gives_nothing_after_a_failure(recordings: list[Found]) -> None:
    annotator = Annotator(FakeClassifier(), SegmentConfig())
    results = list(annotator.annotate(recordings, on_error="stop"))
    assert [result.status for result in results] == ["ok"] * 5 + ["failed"]
    assert not workers()


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"threads": 100_000},
        {"workers": 0},
        {"threads": 2, "workers": 3},
        {"batch_seconds": 0.5},
        {"batch_seconds": 7200.0},
    ],
)
def test_efforts_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"(threads|workers|batch_seconds) is .*; expected"):
        Effort(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": "4"}, "^threads is '4'; expected a whole number$"),
        ({"threads": 2.5}, r"^threads is 2\.5; expected a whole number$"),
        ({"threads": True}, "^threads is True; expected a whole number$"),
        ({"threads": 4, "workers": "2"}, "^workers is '2'; expected a whole number$"),
        ({"threads": 4, "workers": 1.0}, r"^workers is 1\.0; expected a whole number$"),
        ({"batch_seconds": "5"}, "^batch_seconds is '5'; expected a number from 1 to 3600$"),
    ],
)
def test_efforts_that_are_no_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Effort(**options)


def test_numbers_of_other_libraries_are_numbers() -> None:
    effort = Effort(np.int64(4), np.int32(2), np.float32(5))  # type: ignore[arg-type]
    assert (effort.n_threads, effort.n_workers, effort.batch_seconds) == (4, 2, 5)


def test_workers_share_the_threads() -> None:
    assert (Effort(8, 2).n_workers, Effort(8, 2).threads_each) == (2, 4)
    assert (Effort(3).n_workers, Effort(3).threads_each) == (3, 1)
