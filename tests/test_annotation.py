import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, FakeClassifier, MakeWav
from numpy.typing import NDArray

import sercli
from sercli.annotation import Annotator, parse_channels
from sercli.calibration import Calibration
from sercli.config import SegmentConfig
from sercli.discovery import Found
from sercli.errors import ConfigError
from sercli.schema import FileResult


def run(model: FakeClassifier, path: Path, channels: str = "mix", **options: Any) -> FileResult:
    return Annotator(model, SegmentConfig(**options), channels).annotate_file(path)


def write(path: Path, waveform: NDArray[np.float32], rate: int = 16_000) -> Path:
    sf.write(path, waveform, rate)
    return path


def test_labels_and_probabilities_are_the_classifiers(fake_classifier: FakeClassifier) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac")
    assert (result.status, result.sample_rate, result.channels) == ("ok", 16_000, 1)
    assert len(result.segments) == len(fake_classifier.heard) == 3
    for segment, waveform in zip(result.segments, fake_classifier.heard, strict=True):
        length = segment.end - segment.start
        assert length == pytest.approx(len(waveform) / 16_000)
        assert segment.emotion == ("short" if length < 1 else "long")
        assert segment.confidence == max(segment.probabilities)
        assert segment.probabilities == pytest.approx((1 / (1 + length), length / (1 + length)))


def test_segments_are_the_audio_at_their_times(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32]
) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac", max_segment=1.5)
    for segment, waveform in zip(result.segments, fake_classifier.heard, strict=True):
        start, end = round(segment.start * 16_000), round(segment.end * 16_000)
        np.testing.assert_array_equal(waveform, speech[start:end])


def test_times_are_multiples_of_the_files_own_samples(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    path = write(tmp_path / "speech.wav", speech, 11_025)
    for segment in run(fake_classifier, path).segments:
        for time in (segment.start, segment.end):
            assert time * 11_025 == pytest.approx(round(time * 11_025), abs=1e-6)


def test_whole_file(fake_classifier: FakeClassifier, speech: NDArray[np.float32]) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac", mode="file")
    (segment,) = result.segments
    assert (segment.start, segment.end) == (0, result.duration)
    np.testing.assert_array_equal(fake_classifier.heard[0], speech)


def test_a_long_file_is_judged_in_pieces_weighted_by_their_speech(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    silence = np.zeros(20 * 16_000, np.float32)
    path = write(tmp_path / "long.wav", np.concatenate((speech, silence, speech[: 5 * 16_000])))
    result = run(fake_classifier, path, mode="file")
    (segment,) = result.segments
    assert segment.end == pytest.approx(35.8, abs=0.01)
    lengths = [len(waveform) / 16_000 for waveform in fake_classifier.heard]
    assert lengths == [30, pytest.approx(5.8, abs=0.01)]
    short = [1 / (1 + length) for length in lengths]
    # 6.5 s of speech in the first piece, most of 5 s in the second.
    share = (segment.probabilities[0] - short[0]) / (short[1] - short[0])
    assert 0.3 < share < 0.5


@pytest.mark.parametrize("mode", ["speech", "window", "file"])
def test_silence_has_no_label(fake_classifier: FakeClassifier, mode: str) -> None:
    result = run(fake_classifier, EXAMPLES / "silence.wav", mode=mode)
    assert (result.status, result.segments, result.duration) == ("no speech", (), 2.0)


def test_noise_and_tones_have_no_label(
    fake_classifier: FakeClassifier,
    make_wav: MakeWav,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    noise = 0.1 * rng.standard_normal(5 * 16_000).astype(np.float32)
    for path in (make_wav(duration=5.0), write(tmp_path / "noise.wav", noise)):
        assert run(fake_classifier, path).status == "no speech"


def test_channels(fake_classifier: FakeClassifier) -> None:
    call = EXAMPLES / "call.wav"
    mix = run(fake_classifier, call)
    assert {segment.channel for segment in mix.segments} == {"mix"}
    split = run(fake_classifier, call, "split")
    assert {segment.channel for segment in split.segments} == {"0", "1"}
    starts = [segment.start for segment in split.segments]
    assert starts == sorted(starts)
    for channel in ("0", "1"):
        only = run(fake_classifier, call, channel)
        assert only.segments == tuple(s for s in split.segments if s.channel == channel)
    files = run(fake_classifier, call, "1,0", mode="file")
    assert [segment.channel for segment in files.segments] == ["1", "0"]


def test_a_channel_that_is_not_there(fake_classifier: FakeClassifier) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac", "0,2")
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.endswith("statement.flac: has 1 channels; asked for channel 2")


@pytest.mark.parametrize("channels", ["left", "", "-1", "0,0", "1,"])
def test_channels_that_make_no_sense(channels: str) -> None:
    with pytest.raises(ConfigError, match="expected mix, split, or different indices"):
        parse_channels(channels)


def test_batches_are_bounded_and_their_size_changes_nothing(
    fake_classifier: FakeClassifier,
    speech: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "long.wav", np.tile(speech, 30))
    whole = run(fake_classifier, path)
    assert len(fake_classifier.batches) > 1
    assert max(fake_classifier.batches) < 60
    monkeypatch.setattr("sercli.annotation.BATCH_S", 1.0)
    assert run(fake_classifier, path) == whole


class ForgetfulClassifier(FakeClassifier):
    def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        features = super().extract_features(waveforms)
        self.heard.clear()
        return features


def test_memory_does_not_grow_with_the_length_of_a_file(
    speech: NDArray[np.float32], tmp_path: Path
) -> None:
    annotator = Annotator(ForgetfulClassifier(), SegmentConfig())
    peaks = []
    for n_copies in (40, 160):  # 7 and 29 minutes
        path = write(tmp_path / f"{n_copies}.wav", np.tile(speech, n_copies))
        tracemalloc.start()
        annotator.annotate_file(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_broken_file_keeps_the_labels_before_the_break(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    path = write(tmp_path / "cut.flac", speech)
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    result = run(fake_classifier, path)
    assert result.status == "failed"
    assert result.error is not None
    assert "decoding stops at" in result.error
    assert 0 < len(result.segments) <= 3
    assert result.segments[-1].end <= result.duration < 10


def test_progress_tells_the_seconds_heard(fake_classifier: FakeClassifier) -> None:
    heard: list[float] = []
    annotator = Annotator(fake_classifier, SegmentConfig())
    annotator.annotate_found(Found(str(EXAMPLES / "call.wav")), heard.append)
    assert sum(heard) == pytest.approx(60)
    assert len(heard) > 5


def test_perceived(fake_classifier: FakeClassifier) -> None:
    path = EXAMPLES / "statement.flac"
    with pytest.raises(ConfigError, match="fake model tells only what is intended"):
        Annotator(fake_classifier, SegmentConfig(), target="perceived")
    swapped = Calibration("none", np.eye(2)[::-1], np.zeros(2))
    fake_classifier.spec = replace(fake_classifier.spec, perceived=swapped)
    intended = run(fake_classifier, path).segments
    (found,) = sercli.annotate(path, fake_classifier, target="perceived")
    for segment, other in zip(found.segments, intended, strict=True):
        assert segment.probabilities == pytest.approx(other.probabilities[::-1])
        assert segment.emotion != other.emotion


def test_annotate_yields_every_file(fake_classifier: FakeClassifier, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    results = list(sercli.annotate([tmp_path, EXAMPLES], fake_classifier))
    assert [(Path(result.path).name, result.status) for result in results] == [
        ("empty.wav", "failed"),
        ("call.wav", "ok"),
        ("memo.m4a", "ok"),
        ("silence.wav", "no speech"),
        ("statement.flac", "ok"),
    ]
    (one,) = sercli.annotate(EXAMPLES / "memo.m4a", fake_classifier)
    assert one == results[2]
