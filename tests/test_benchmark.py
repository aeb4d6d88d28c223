import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from click.testing import CliRunner
from conftest import EXAMPLES, FakeClassifier

import sercli
from sercli.audio import SAMPLE_RATE
from sercli.benchmark import peak, run
from sercli.benchmark.run import Benchmark, measure
from sercli.benchmark.synthetic import synthesise
from sercli.classifiers import neural
from sercli.cli import main
from sercli.cli.bench import _tell
from sercli.config import Effort
from sercli.errors import ConfigError
from sercli.speech.segmentation import find_speech


def test_a_synthetic_voice_is_speech_with_pauses() -> None:
    waveform = synthesise(60.0, np.random.default_rng(0))
    assert waveform.shape == (60 * SAMPLE_RATE,)
    assert 0.2 < np.abs(waveform).max() <= 0.4
    spans = find_speech([waveform])
    assert len(spans) > 8
    assert 0.5 < sum(span.end - span.start for span in spans) / len(waveform) < 0.95
    np.testing.assert_array_equal(synthesise(60.0, np.random.default_rng(0)), waveform)


def test_figures_are_of_what_was_annotated(fake_classifier: FakeClassifier) -> None:
    said: list[str] = []
    paths = [EXAMPLES / "statement.flac", EXAMPLES / "silence.wav"]
    segments = [
        one for result in sercli.annotate(paths, fake_classifier) for one in result.segments
    ]
    found = measure(
        fake_classifier,
        paths,
        effort=Effort(2, 1, 5.0),
        runs=3,
        say=said.append,
    )
    assert (found.files, found.model, found.precision) == (2, "fake", "fp32")
    assert (found.threads, found.workers, found.batch_seconds) == (2, 1, 5.0)
    assert found.audio_seconds == pytest.approx(10.801 + 2.0, abs=0.001)
    assert found.segments == len(segments) > 1
    assert found.speech_seconds == pytest.approx(sum(one.end - one.start for one in segments))
    assert len(found.wall_seconds) == 3
    median = sorted(found.wall_seconds)[1]
    assert found.speed == pytest.approx(found.audio_seconds / median)
    assert found.hours_per_minute == pytest.approx(found.speed / 60)
    assert set(found.stages) == {"decode", "speech", "features", "model", "write"}
    assert sum(stage.share for stage in found.stages.values()) == pytest.approx(1)
    for stage in found.stages.values():
        assert 0 < stage.seconds < median
        assert stage.speed == pytest.approx(found.audio_seconds / stage.seconds)
    assert found.multiply_adds is None
    assert len([line for line in said if "run" in line]) == 3


@pytest.mark.parametrize("channels", ["split", (1,)])
def test_channels_are_measured_as_they_are_annotated(
    fake_classifier: FakeClassifier, channels: str | tuple[int, ...]
) -> None:
    call = EXAMPLES / "call.wav"
    (result,) = sercli.annotate([call], fake_classifier, channels=channels)
    (mixed,) = sercli.annotate([call], fake_classifier)
    assert len(result.segments) != len(mixed.segments)
    found = measure(fake_classifier, [call], channels=channels)
    assert found.segments == len(result.segments)
    assert found.audio_seconds == pytest.approx(result.duration)
    assert measure(fake_classifier, [call]).segments == len(mixed.segments)


def test_bench_takes_the_channels_of_annotate(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def refuse(*_: object, channels: str, **__: object) -> None:
        taken.append(channels)
        raise ConfigError("no more")

    monkeypatch.setattr(run, "measure", refuse)
    for options in ((), ("--channels", "split")):
        CliRunner().invoke(main, ["bench", "-m", "svm", *options])
    assert taken == ["mix", "split"]


@pytest.mark.parametrize("options", [{"runs": 0}, {"hours": 0.0}])
def test_nothing_to_measure(fake_classifier: FakeClassifier, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected 1 run or more"):
        measure(fake_classifier, **options)  # type: ignore[arg-type]


def test_no_speech_to_measure(fake_classifier: FakeClassifier) -> None:
    with pytest.raises(ConfigError, match="no speech in 1 recording"):
        measure(fake_classifier, [EXAMPLES / "silence.wav"])


def test_what_fails_is_told(fake_classifier: FakeClassifier, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no audio or video files in: "):
        measure(fake_classifier, [tmp_path])
    gone = tmp_path / "gone.wav"
    with pytest.raises(ConfigError, match=r"the first that failed: .*gone\.wav: does not exist"):
        measure(fake_classifier, [gone])
    found = measure(fake_classifier, [EXAMPLES / "statement.flac", gone])
    assert (found.files, found.failed) == (2, 1)
    assert found.errors == {str(gone): f"{gone}: does not exist"}


def test_runs_without_speech_end_with_the_first(fake_classifier: FakeClassifier) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match="no speech in 1 recording"):
        measure(fake_classifier, [EXAMPLES / "silence.wav"], runs=3, say=said.append)
    assert said == ["warming up"]


@pytest.mark.parametrize("options", [("-q",), ("-q", "--json"), ()])
def test_bench_tells_why_recordings_failed(options: tuple[str, ...], tmp_path: Path) -> None:
    gone = tmp_path / "gone.wav"
    command = ["bench", "-m", "svm", "--threads", "1", str(EXAMPLES / "memo.m4a"), str(gone)]
    result = CliRunner().invoke(main, [*command, *options])
    assert result.exit_code == 1
    told = [line for line in result.stderr.splitlines() if "-q" in options or "gone" in line]
    assert told == [f"failed: {gone}: does not exist"]
    if "--json" in options:
        found = json.loads(result.stdout)
        assert found["failed"] == 1
        assert found["errors"] == {str(gone): f"{gone}: does not exist"}


def test_bench_needs_recordings_that_can_be_read_again() -> None:
    result = CliRunner().invoke(main, ["bench", "-m", "nosuch", str(EXAMPLES), "-"])
    assert (result.exit_code, "can be read only once" in result.stderr) == (2, True)


def test_synthetic_recordings_are_as_long_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(run, "synthesise", lambda seconds, _: np.zeros(round(16_000 * seconds)))
    monkeypatch.setattr(sf, "write", lambda _, waveform, __: lengths.append(len(waveform)))
    # In floats, 33 times two minutes are less than 1.1 hours.
    run._synthesise(tmp_path, 1.1)
    assert lengths == [120 * SAMPLE_RATE] * 33
    lengths.clear()
    run._synthesise(tmp_path, 0.04)
    assert lengths == [120 * SAMPLE_RATE, 24 * SAMPLE_RATE]


@pytest.mark.parametrize(("walls", "expected"), [([3, 1, 2], 2), ([2, 4], 4), ([1, 4, 2, 3], 3)])
def test_figures_are_those_of_the_run_in_the_middle(
    walls: list[float],
    expected: float,
    fake_classifier: FakeClassifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = iter(
        run._Outcome(wall, {"decode": wall / 8}, 12.0, [1.0], {}) for wall in (9.0, *walls)
    )
    monkeypatch.setattr(run, "_run", lambda *_: next(outcomes))
    found = measure(fake_classifier, [EXAMPLES / "memo.m4a"], runs=len(walls))
    assert found.wall_seconds == sorted(walls)  # without the warm-up
    assert (found.speed, found.stages["decode"].seconds) == (12 / expected, expected / 8)


@pytest.mark.parametrize(
    ("n_runs", "told"),
    [(1, "(median of 1 run)"), (2, "(slower median of 2 runs)"), (3, "(median of 3 runs)")],
)
def test_bench_tells_which_run_its_figures_are_of(n_runs: int, told: str) -> None:
    found = Benchmark(
        "mine",
        "fp32",
        1,
        1,
        12.0,
        1,
        0,
        2,
        60.0,
        10.0,
        [1.0] * n_runs,
        60.0,
        1.0,
        multiply_adds=5e9,
        peak=1e9,
        model_share=0.37,
        run_share=0.2,
    )
    lines = _tell(found)
    assert lines[2] == f"1.00 hours of audio per minute, 60 times real time {told}"
    assert lines[-1] == (
        "of that peak, the stages features and model together reach 37%, and the whole run 20%"
    )


def test_the_share_of_the_peak_is_of_those_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def replicate(network: Any, devices: Any, _: int) -> Iterator[Any]:
        yield network, devices[0]  # as on Apple's GPUs

    monkeypatch.setattr(neural, "replicate", replicate)
    monkeypatch.setattr(peak, "measure_peak", lambda *_: 1e9)
    model = sercli.load_model("cnn", "cpu", precision="fp32")
    found = measure(model, [EXAMPLES / "statement.flac"], effort=Effort(4, 4))
    busy = found.stages["features"].seconds + found.stages["model"].seconds
    assert found.multiply_adds is not None
    assert found.model_share == pytest.approx(found.multiply_adds / busy / 1e9)


def test_the_peak_of_several_devices_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.device("meta", 0): 1.0, torch.device("meta", 1): 2.0}
    monkeypatch.setattr(peak, "_measure_device", lambda device, *_: rates[device])
    model: Any = SimpleNamespace(devices=(*rates,), precision="fp32")
    assert peak.measure_peak(model, 1) == 3


def test_products_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda:1", "mps"):
        peak._wait(torch.device(device))
    assert waited == [torch.device("cuda:1"), "mps"]


def test_bench_on_synthetic_recordings() -> None:
    command = ["bench", "-m", "cnn", "--device", "cpu", "--hours", "0.04", "--threads", "1"]
    result = CliRunner().invoke(main, [*command, "--json", "-q"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["model"], found["files"], found["workers"]) == ("cnn", 2, 1)
    assert found["audio_seconds"] == pytest.approx(144)
    assert 0 < found["run_share"] < found["model_share"] < 1
    assert found["peak"] > found["multiply_adds"] / 144


def test_bench_tells_figures_in_words(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bench", "-m", "svm", str(EXAMPLES), "--threads", "1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "svm, fp32, 1 worker on 1 thread, 120 s a batch"
    assert lines[1].startswith("4 files, 1.3 min of audio, 17 segments, ")
    assert [line.split()[0] for line in lines[5:10]] == [
        "decode",
        "speech",
        "features",
        "model",
        "write",
    ]
    assert "warming up" in result.stderr
    wrong = CliRunner().invoke(main, ["bench", str(EXAMPLES), "--hours", "1"])
    assert (wrong.exit_code, "--hours goes without PATHS" in wrong.stderr) == (2, True)
