"""Audio made on the spot, and a classifier whose answers a test can compute by hand."""

import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Tests that import it themselves send nothing either; `sercli.speech.vad` sees to it otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Workers share the cores, and none of them is to compute with all of these.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray
from runs import Runs

from sercli.calibration import Calibration
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.schema import MIX
from sercli.speech.matching import match_turns
from sercli.speech.speakers import Speakers, Timeline
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns

EXAMPLES = Path(__file__).parent.parent / "examples"

# Of `hisses`: three who are learned from, two of `dev`, one of `test`.
ACTORS = (1001, 1002, 1003, 1049, 1053, 1048)

MakeWav = Callable[..., Path]


def find_turns(turns: Turns, path: str, *, mixed: bool = False) -> tuple[Turn, ...]:
    """Return the turns of a recording that is alone in its run."""
    return match_turns(turns, [path]).find(path, mixed=mixed)


def find_speaker(
    speakers: Speakers,
    path: str,
    channel: str,
    start: float,
    end: float,
    *,
    mixed: bool = False,
    alone: bool = False,
) -> str | None:
    """Return the speaker of most of a segment of a recording that is alone in its run."""
    turns = speakers.match([path]).find(path, mixed=mixed or channel == MIX)
    return Timeline(turns, alone=alone).find(channel, start, end)


class FakeClassifier(Classifier):
    """Gives ``short`` with the probability 1 / (1 + duration in seconds), else ``long``."""

    family = "fake"

    def __init__(self) -> None:
        calibration = Calibration("none", np.eye(2), np.zeros(2))
        super().__init__(ModelSpec("fake", ("short", "long"), 16_000, 4_000.0, calibration))
        self.batches: list[int] = []
        self.received: list[NDArray[np.float32]] = []

    def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        self.batches.append(len(waveforms))
        self.received += waveforms
        return np.array([[len(waveform) / 16_000] for waveform in waveforms], np.float32)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.hstack((np.zeros_like(features), np.log(features)))


class LocalClassifier(FakeClassifier):
    """Answers alike, but must stay in this process."""

    in_workers = False

    def __reduce__(self) -> Any:
        raise AssertionError("is sent to another process")


class EagerParallel:
    """Stands for `joblib.Parallel`, and is as far ahead of who takes its results as that may be.

    What it calls is pickled, as for a worker.
    """

    def __init__(self, n_jobs: int, return_as: str) -> None:
        assert return_as == "generator"

    def __enter__(self) -> "EagerParallel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, calls: Iterable[Any]) -> Iterator[Any]:
        done = []
        for call in calls:
            function, positional, named = pickle.loads(pickle.dumps(call))
            done.append(function(*positional, **named))
        return iter(done)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave nothing in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user")))
        yield


@pytest.fixture
def eager_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.Parallel", EagerParallel)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def fake_classifier() -> FakeClassifier:
    return FakeClassifier()


@pytest.fixture
def local_classifier() -> LocalClassifier:
    return LocalClassifier()


@pytest.fixture
def make_wav(tmp_path: Path) -> MakeWav:
    """Write a sine of 440 Hz with amplitude 0.3 in every channel."""

    def make(
        name: str = "tone.wav",
        duration: float = 1.0,
        sample_rate: int = 16_000,
        channels: int = 1,
        **options: Any,
    ) -> Path:
        time = np.arange(round(duration * sample_rate)) / sample_rate
        tone = 0.3 * np.sin(2 * np.pi * 440 * time)
        path = tmp_path / name
        sf.write(path, np.repeat(tone[:, None], channels, axis=1), sample_rate, **options)
        return path

    return make


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of two recordings with 2 and 3 segments, and before them one that is broken."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("memo.m4a", "statement.flac"):
        shutil.copy(EXAMPLES / name, folder / name)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture
def suffix() -> str:
    """That of the output of `runs`; tests of all formats have it as a parameter."""
    return "csv"


@pytest.fixture
def runs(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> Runs:
    """Runs that label `sounds`."""
    return Runs(fake_classifier, sounds, tmp_path / f"labels.{suffix}", monkeypatch)


@pytest.fixture(scope="session")
def speech() -> NDArray[np.float32]:
    """Spoken sentences at 16 kHz, 10.8 s with pauses of a second."""
    waveform, sample_rate = sf.read(EXAMPLES / "statement.flac", dtype="float32")
    assert sample_rate == 16_000
    result: NDArray[np.float32] = waveform
    return result


@pytest.fixture(scope="session")
def hisses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of CREMA-D's shape, of hisses that tell emotions and hums that tell speakers."""
    path = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    time = np.arange(8_000) / 16_000
    for actor in ACTORS:
        for index, code in enumerate(("ANG", "HAP", "SAD")):
            for level in ("LO", "MD", "HI")[: 1 if actor == 1048 else 3]:
                hiss = rng.standard_normal(8_000 - 400 * index)
                smooth = np.convolve(hiss, np.ones(1 + 4 * index) / (1 + 4 * index), "same")
                hum = np.sin(2 * np.pi * (100 + 20 * (actor % 7)) * time[: len(smooth)])
                sound = 0.1 * smooth / smooth.std() + 0.1 * hum
                sf.write(path / f"{actor}_IEO_{code}_{level}.wav", sound, 16_000)
    return path


@pytest.fixture
def idle_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that nobody computes on; to ask for the state of one would initialise it."""

    def refuse(*_: object) -> None:
        raise AssertionError("is asked for the state of its generator")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_rng_state", refuse)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores the signal, and tests may run there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
