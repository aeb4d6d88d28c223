import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import EXAMPLES, FakeClassifier, MakeWav
from numpy.typing import NDArray

import sercli
from sercli.adaptation import AdapterSettings, Rows
from sercli.annotation.annotator import Annotator
from sercli.annotation.recording import parse_channels
from sercli.calibration import Calibration
from sercli.config import Adaptation, Effort, SegmentConfig
from sercli.discovery import Found
from sercli.errors import ConfigError, ModelError
from sercli.schema import FileResult, Group, Segment

ONE_WORKER = Effort(threads=1)


def run(model: FakeClassifier, path: Path, channels: str = "mix", **options: Any) -> FileResult:
    annotator = Annotator(model, SegmentConfig(**options), channels, effort=ONE_WORKER)
    (result,) = annotator.annotate(path)
    return result


def pair(model: FakeClassifier, result: FileResult) -> list[tuple[Segment, NDArray[np.float32]]]:
    """Segments, and the audio that was scored for them: the longest first."""
    segments = sorted(result.segments, key=lambda segment: segment.start - segment.end)
    return list(zip(segments, model.received, strict=True))


def write(path: Path, waveform: NDArray[np.float32], rate: int = 16_000) -> Path:
    sf.write(path, waveform, rate)
    return path


def test_labels_and_probabilities_are_the_classifiers(fake_classifier: FakeClassifier) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac")
    assert (result.status, result.sample_rate, result.channels) == ("ok", 16_000, 1)
    assert len(result.segments) == len(fake_classifier.received) == 3
    for segment, waveform in pair(fake_classifier, result):
        length = segment.end - segment.start
        assert length == pytest.approx(len(waveform) / 16_000)
        assert segment.emotion == ("short" if length < 1 else "long")
        assert segment.confidence == max(segment.probabilities)
        assert segment.probabilities == pytest.approx((1 / (1 + length), length / (1 + length)))


def test_segments_are_the_audio_at_their_times(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32]
) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac", max_segment=1.5)
    for segment, waveform in pair(fake_classifier, result):
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
    np.testing.assert_array_equal(fake_classifier.received[0], speech)


def test_a_long_file_is_scored_in_pieces_weighted_by_their_speech(
    fake_classifier: FakeClassifier, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    silence = np.zeros(20 * 16_000, np.float32)
    path = write(tmp_path / "long.wav", np.concatenate((speech, silence, speech[: 5 * 16_000])))
    result = run(fake_classifier, path, mode="file")
    (segment,) = result.segments
    assert segment.end == pytest.approx(35.8, abs=0.01)
    lengths = [len(waveform) / 16_000 for waveform in fake_classifier.received]
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
    assert parse_channels((1, 0)) == parse_channels("1,0") == (1, 0)
    assert parse_channels(np.arange(2)) == parse_channels(range(2)) == (0, 1)


@pytest.mark.parametrize(
    ("gains", "is_told"),
    [
        ((1, -1), True),
        ((1, -0.5, -0.5), True),
        ((1, -0.95), True),
        ((1, -0.8), False),
        ((1, 0, 0, 0, 0, 0, 0, 0), False),
        ((0, 0), False),
        ((1,), False),
    ],
)
def test_channels_that_cancel_each_other(
    fake_classifier: FakeClassifier,
    speech: NDArray[np.float32],
    tmp_path: Path,
    gains: tuple[float, ...],
    is_told: bool,
) -> None:
    samples = 0.5 * speech[:, None] * np.array(gains, np.float32)
    path = tmp_path / "call.wav"
    sf.write(path, samples, 16_000, subtype="FLOAT")
    told = ("the channels cancel each other in their mean; --channels split reads each by itself",)
    assert run(fake_classifier, path).warnings == (told if is_told else ())
    silent = ("7 of 8 channels have no sound at all: 1, 2, 3, 4, 5",) if len(gains) == 8 else ()
    assert run(fake_classifier, path, "split").warnings == silent
    assert run(fake_classifier, path, "0").warnings == ()
    # What is broken off is told of, too, and the whole of a recording counts.
    sf.write(path, np.tile(samples, (6, 1)), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    broken = run(fake_classifier, path)
    assert (broken.status, broken.warnings) == ("failed", told if is_told else ())
    sf.write(path, np.concatenate((np.tile(samples, (6, 1)), np.abs(samples))), 16_000)
    assert run(fake_classifier, path).warnings == ()


@pytest.mark.parametrize(
    ("gains", "is_told"),
    [((1, 1), True), ((1, 1, 1), True), ((1, 0.9999), False), ((0, 0), False), ((1,), False)],
)
def test_channels_that_are_the_same(
    fake_classifier: FakeClassifier,
    speech: NDArray[np.float32],
    tmp_path: Path,
    gains: tuple[float, ...],
    is_told: bool,
) -> None:
    path = tmp_path / "call.wav"
    sf.write(path, 0.5 * speech[:, None] * np.array(gains, np.float32), 16_000, subtype="FLOAT")
    found = run(fake_classifier, path, "split")
    told = (
        "the channels are the same, and so are their rows; --channels 0 gives each segment once",
    )
    assert found.warnings == (told if is_told else ())
    assert run(fake_classifier, path).warnings == ()
    assert run(fake_classifier, path, "0").warnings == ()
    # The whole of a recording counts.
    samples = np.tile(0.5 * speech[:, None] * np.array(gains, np.float32), (6, 1))
    samples[-1] = 0.1 * np.arange(len(gains))
    sf.write(path, samples, 16_000, subtype="FLOAT")
    silent = () if gains[0] or len(gains) == 1 else ("1 of 2 channels have no sound at all: 0",)
    assert run(fake_classifier, path, "split").warnings == silent


def test_a_channel_that_is_not_there(fake_classifier: FakeClassifier) -> None:
    result = run(fake_classifier, EXAMPLES / "statement.flac", "0,2")
    assert result.status == "failed"
    assert result.error == (
        f"{EXAMPLES / 'statement.flac'}: has 1 channel; asked for channel 2, counted from 0; name "
        "channels that all files have, or use --channels split"
    )


@pytest.mark.parametrize(
    "channels", ["left", "", "-1", "0,0", "1,", (), ("a",), (1, 1), 1, [0.7], [True]]
)
def test_channels_that_make_no_sense(channels: Any) -> None:
    with pytest.raises(ConfigError, match="expected mix, split, or different indices"):
        parse_channels(channels)


def test_batches_are_bounded_and_their_size_changes_nothing(
    fake_classifier: FakeClassifier,
    speech: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "long.wav", np.tile(speech, 30))
    whole = run(fake_classifier, path)
    assert len(fake_classifier.batches) > 1
    assert max(fake_classifier.batches) < 20
    assert max(map(len, fake_classifier.received)) * max(fake_classifier.batches) > 10 * 16_000
    fake_classifier.batches.clear()
    annotator = Annotator(fake_classifier, SegmentConfig(), effort=Effort(batch_seconds=1.0))
    assert list(annotator.annotate([path])) == [whole]
    assert max(fake_classifier.batches) == 1


class ForgetfulClassifier(FakeClassifier):
    def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        features = super().extract_features(waveforms)
        self.received.clear()
        return features


def test_memory_does_not_grow_with_the_length_of_a_file(
    speech: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or it would take long to be full.
    monkeypatch.setattr("sercli.annotation.pipeline.WINDOW_S", 60.0)
    annotator = Annotator(ForgetfulClassifier(), SegmentConfig())
    peaks = []
    # 7 minutes, several times, as it depends on the moment how far reading is ahead; then 29.
    for n_copies in (40, 40, 40, 160):
        path = write(tmp_path / f"{n_copies}.wav", np.tile(speech, n_copies))
        tracemalloc.start()
        list(annotator.annotate(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[-1] < 1.1 * max(peaks[:-1])


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


def test_progress_tells_the_seconds_read(fake_classifier: FakeClassifier) -> None:
    decoded: list[float] = []
    annotator = Annotator(fake_classifier, SegmentConfig())
    list(annotator.annotate([Found(str(EXAMPLES / "call.wav"))], decoded.append))
    assert sum(decoded) == pytest.approx(60)
    assert len(decoded) > 1


def test_perceived(fake_classifier: FakeClassifier) -> None:
    path = EXAMPLES / "statement.flac"
    with pytest.raises(ConfigError, match="fake model predicts only the intended emotion"):
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


# Baselines.


class Centred:
    """Takes from each probability how far the group's mean is from one half."""

    settings = AdapterSettings(least=2)

    def rescore(self, group: Rows) -> None:
        if len(group) >= self.settings.least:
            rows = group[:]
            group[:] = rows - rows.mean(axis=0) + 0.5


@pytest.fixture
def centred(fake_classifier: FakeClassifier) -> FakeClassifier:
    fake_classifier.adapter = Centred()  # type: ignore[assignment]
    return fake_classifier


def annotate(model: FakeClassifier, *paths: Path, **options: Any) -> list[FileResult]:
    return list(sercli.annotate(paths, model, **options))


def collect(results: Sequence[FileResult]) -> NDArray[np.float64]:
    return np.array([one.probabilities for result in results for one in result.segments])


def test_a_recording_is_a_group(centred: FakeClassifier) -> None:
    paths = (EXAMPLES / "statement.flac", EXAMPLES / "call.wav")
    plain = annotate(centred, *paths, adapt="none")
    adapted = annotate(centred, *paths)
    for before, after in zip(plain, adapted, strict=True):
        rows = collect([before])
        np.testing.assert_allclose(collect([after]), rows - rows.mean(axis=0) + 0.5)
        assert [(one.start, one.end) for one in after.segments] == [
            (one.start, one.end) for one in before.segments
        ]
        assert after.groups == (Group(after.path, len(rows), True),)
        for one in after.segments:
            assert one.confidence == max(one.probabilities)
            assert one.emotion == ("short", "long")[int(np.argmax(one.probabilities))]
        assert before.groups == ()


def test_a_channel_is_a_group_where_each_is_scored(centred: FakeClassifier) -> None:
    (plain,) = annotate(centred, EXAMPLES / "call.wav", channels="split", adapt="none")
    (adapted,) = annotate(centred, EXAMPLES / "call.wav", channels="split")
    for channel in ("0", "1"):
        before, after = (
            np.array([one.probabilities for one in result.segments if one.channel == channel])
            for result in (plain, adapted)
        )
        assert len(before) > 2
        np.testing.assert_allclose(after, before - before.mean(axis=0) + 0.5)
    assert [group.name for group in adapted.groups] == [f"{adapted.path}#0", f"{adapted.path}#1"]
    (whole,) = annotate(centred, EXAMPLES / "call.wav", channels="split", adapt="recording")
    assert [group.n_segments for group in whole.groups] == [len(plain.segments)]


@pytest.fixture
def recordings(
    speech: NDArray[np.float32], tmp_path: Path, rng: np.random.Generator
) -> tuple[Path, ...]:
    """Five recordings of three speakers, of different lengths; one of nobody."""
    names = ("a_1.wav", "b_1.wav", "a_2.wav", "c_1.wav", "nobody.wav")
    cuts = (10.8, 4.0, 7.0, 3.0, 5.0)
    return tuple(
        write(tmp_path / name, speech[: round(cut * 16_000)])
        for name, cut in zip(names, cuts, strict=True)
    )


def test_speakers_are_groups_across_files(
    centred: FakeClassifier, recordings: tuple[Path, ...]
) -> None:
    plain = annotate(centred, *recordings, adapt="none")
    adapted = annotate(centred, *recordings, adapt="speaker", speakers="([abc])_[0-9]")
    assert [result.path for result in adapted] == [str(path) for path in recordings]
    both = collect([plain[0], plain[2]])
    expected = both - both.mean(axis=0) + 0.5
    np.testing.assert_allclose(collect([adapted[0], adapted[2]]), expected)
    assert adapted[0].groups == adapted[2].groups == (Group("a", len(both), True),)
    # Of the third there is one segment, and it is not known who the last is.
    assert adapted[3].groups == (Group("c", 1, False),)
    np.testing.assert_array_equal(collect([adapted[3]]), collect([plain[3]]))
    assert adapted[4].groups[0].name == str(recordings[4])


def test_order_does_not_matter(centred: FakeClassifier, recordings: tuple[Path, ...]) -> None:
    forth = annotate(centred, *recordings, adapt="corpus")
    back = annotate(centred, *reversed(recordings), adapt="corpus")
    assert [result.path for result in back] == [result.path for result in reversed(forth)]
    np.testing.assert_allclose(collect(back[::-1]), collect(forth), atol=1e-12)
    assert {result.groups for result in forth} == {(Group("corpus", len(collect(forth)), True),)}


def test_one_segment_may_be_of_another_speaker(
    centred: FakeClassifier, recordings: tuple[Path, ...]
) -> None:
    turns = recordings[0].parent / "turns.csv"
    turns.write_text("file,start,end,speaker\na_1.wav,0,3,x\na_1.wav,3,11,y\n")
    (plain,) = annotate(centred, recordings[0], adapt="none")
    (adapted,) = annotate(centred, recordings[0], adapt="speaker", speakers=str(turns))
    assert [(group.name, group.n_segments) for group in adapted.groups] == [("x", 1), ("y", 2)]
    rows = collect([plain])
    expected = np.vstack((rows[:1], rows[1:] - rows[1:].mean(axis=0) + 0.5))
    np.testing.assert_allclose(collect([adapted]), expected)


def test_files_that_fail_stay_in_their_place(
    centred: FakeClassifier, recordings: tuple[Path, ...], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    paths = (recordings[0], broken, recordings[1])
    results = annotate(centred, *paths, adapt="corpus")
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    annotator = Annotator(centred, SegmentConfig(), adapt="corpus")
    some = list(annotator.annotate([Found(str(path)) for path in paths], on_error="stop"))
    assert [result.status for result in some] == ["ok", "failed"]


@pytest.mark.parametrize(
    ("adapt", "expected"), [("recording", [1, 2, 3, 4, 5]), ("corpus", [5, 5, 5, 5, 5])]
)
def test_files_count_when_they_were_read(
    centred: FakeClassifier,
    recordings: tuple[Path, ...],
    adapt: Adaptation,
    expected: list[int],
) -> None:
    scored: list[None] = []
    annotator = Annotator(centred, SegmentConfig(), adapt=adapt)
    inputs = [Found(str(path)) for path in recordings]
    counts = [
        len(scored) for _ in annotator.annotate(inputs, on_scored=lambda: scored.append(None))
    ]
    assert counts == expected


def test_one_label_for_a_file_is_the_mean_of_what_was_adapted(centred: FakeClassifier) -> None:
    config = SegmentConfig(mode="file")
    (plain,) = annotate(centred, EXAMPLES / "call.wav", segments=config, adapt="none")
    assert sum(centred.batches) == 2
    (whole,) = annotate(centred, EXAMPLES / "call.wav", segments=config)
    assert whole.groups == (Group(whole.path, 2, True),)
    (before,), (after,) = plain.segments, whole.segments
    assert (after.start, after.end) == (before.start, before.end)
    assert before.probabilities[0] < 0.1
    # Both pieces have as much speech, or nearly, and are as far from one half.
    assert after.probabilities == pytest.approx((0.5, 0.5), abs=0.01)


def test_what_was_decoded_waits_on_disk(
    centred: FakeClassifier, recordings: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = collect(annotate(centred, *recordings, adapt="corpus"))
    monkeypatch.setattr("sercli.annotation.spool.MEMORY_LIMIT", 100)
    np.testing.assert_array_equal(collect(annotate(centred, *recordings, adapt="corpus")), expected)


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (np.zeros(5, np.float32), r"has the shape \(\) and the type float32; expected a list"),
        ([np.zeros(5), np.zeros(0)], r"has the shape \(0,\) and the type float64; expected"),
        ([np.zeros((2, 5))], r"has the shape \(2, 5\) and the type float64; expected"),
        ([np.array([0, np.nan])], r"the type float64, and values that are not finite; expected"),
        ([np.zeros(5, np.int16)], r"has the shape \(5,\) and the type int16; expected"),
        ([None], r"has the shape \(\) and the type object; expected"),
        (None, r"^a waveform cannot be read as an array: .* not iterable; expected a list of arr"),
        ([[[0.0], [0.0, 0.0]]], r"^a waveform cannot be read as an array: .*; expected a list"),
        ([torch.zeros(5, requires_grad=True)], r"^a waveform cannot be .* grad.*; expected a list"),
        ([torch.zeros(5, dtype=torch.bfloat16)], r"^a waveform cannot be .* BFloat16; expected a"),
        ([np.zeros(480_001)], r"has 480,001 samples; expected at most 480,000, 30 s"),
    ],
)
def test_what_is_no_waveform(fake_classifier: FakeClassifier, waveforms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fake_classifier.predict_proba(waveforms)


@pytest.mark.parametrize(
    ("name", "value"), [("device", ""), ("device", 0), ("device", False), ("precision", "")]
)
@pytest.mark.parametrize("model", ["svm", "cnn"])
def test_what_is_empty_is_not_chosen_automatically(model: str, name: str, value: Any) -> None:
    Annotator.load(model, device=None, precision=None)
    with pytest.raises(ConfigError, match=f"^{name} is {value!r}; "):
        Annotator.load(model, **{name: value})


def test_a_model_without_an_adapter(fake_classifier: FakeClassifier) -> None:
    assert Annotator(fake_classifier, SegmentConfig(), adapt="auto").adapt == "none"
    with pytest.raises(ConfigError, match="fake has no adapter"):
        Annotator(fake_classifier, SegmentConfig(), adapt="recording")


def test_an_adapter_that_may_hurt_is_used_by_request(centred: FakeClassifier) -> None:
    assert Annotator(centred, SegmentConfig(), adapt="auto").adapt == "recording"
    centred.adapter.settings = AdapterSettings(safe=False)  # type: ignore[union-attr]
    assert Annotator(centred, SegmentConfig(), adapt="auto").adapt == "none"
    assert Annotator(centred, SegmentConfig(), adapt="recording").adapt == "recording"


def test_what_does_not_go_together(centred: FakeClassifier) -> None:
    perceived = replace(centred.spec, perceived=centred.spec.calibration)
    with pytest.raises(ConfigError, match="the speakers are not known; expected a table or"):
        Annotator(centred, SegmentConfig(), adapt="speaker")
    with pytest.raises(ConfigError, match="adapt is 'speakr'; expected one of none, "):
        annotate(centred, EXAMPLES / "call.wav", adapt="speakr")
    centred.spec = perceived
    assert Annotator(centred, SegmentConfig(), target="perceived", adapt="auto").adapt == "none"
    with pytest.raises(ConfigError, match="not the perceived one"):
        Annotator(centred, SegmentConfig(), target="perceived", adapt="corpus")


def test_segments_that_were_told(
    centred: FakeClassifier, recordings: tuple[Path, ...], speech: NDArray[np.float32]
) -> None:
    table = recordings[0].parent / "segments.csv"
    table.write_text(
        "file,start,end,speaker,channel\n"
        "a_1.wav,4,9.12345,y,0\n"
        "a_1.wav,1,3,x,\n"
        "a_1.wav,2,2.6,y,0\n"
        "a_1.wav,20,21,x,\n"
        "a_1.wav,10.75,12,x,\n"
        "a_1.wav,10.79,10.81,x,\n"
        "a_1.wav,0,0.05,x,\n"
        "a_1.wav,0,1,x,1\n"
        "nobody.wav,0,4,,\n"
    )
    paths = (recordings[0], recordings[1], recordings[4])
    results = annotate(centred, *paths, segments=str(table), adapt="none")
    told, unlisted, nobody = results
    times = [(one.start, one.end, one.speaker, one.channel) for one in told.segments]
    assert times == [(1, 3, "x", "0"), (2, 2.6, "y", "0"), (4, 9.12345, "y", "0")]
    cut = {len(waveform): waveform for waveform in centred.received}
    for segment in told.segments:
        start, end = round(16_000 * segment.start), round(16_000 * segment.end)
        np.testing.assert_array_equal(cut[end - start], speech[start:end])
        assert segment.probabilities[0] == pytest.approx(
            1 / (1 + segment.end - segment.start), 1e-4
        )
    assert told.warnings == (
        "1 segment without a label: of channel 1, but the recording has 1 channel",
        "2 segments without a label: after its end",
        "2 segments without a label: shorter than 0.1 s",
    )
    (failed,) = annotate(centred, recordings[0], segments=str(table), adapt="none", channels="3")
    assert (failed.status, failed.warnings) == ("failed", ())
    assert (unlisted.status, unlisted.segments) == ("no speech", ())
    assert unlisted.warnings == ("has no segments in --segments",)
    # What was told to be a segment is one, whatever is heard in it.
    assert [(one.start, one.end, one.speaker) for one in nobody.segments] == [(0, 4, None)]


@pytest.mark.parametrize(
    ("end", "expected", "warnings"),
    [
        (2.0009, 2.0009, ()),  # rounded, as in the output of a run
        (1.9996, 1.9996, ()),
        (2.05, 2.0, ("1 segment cut at its end",)),
    ],
)
def test_a_segment_that_ends_with_its_recording_keeps_its_times(
    fake_classifier: FakeClassifier,
    make_wav: MakeWav,
    end: float,
    expected: float,
    warnings: tuple[str, ...],
) -> None:
    path = make_wav("a.wav", 2.0)
    table = path.parent / "segments.csv"
    table.write_text(f"file,start,end\na.wav,1,{end}\n")
    (result,) = annotate(fake_classifier, path, segments=str(table), adapt="none")
    assert [(one.start, one.end) for one in result.segments] == [(1.0, expected)]
    assert result.warnings == warnings


@pytest.mark.parametrize(
    ("channels", "labelled", "warnings"),
    [
        (
            "mix",
            ["mix"],
            [
                "2 segments without a label: of channels 0, 1, but mix is classified; --channels "
                "split classifies each by itself",
            ],
        ),
        (
            "split",
            ["0", "1"],
            [
                "1 segment without a label: of channel mix, but 0, 1 are classified; --channels "
                "mix classifies the mean of all",
            ],
        ),
        (
            "1",
            ["1"],
            [
                "1 segment without a label: of channel 0, but 1 is classified; --channels split "
                "classifies each by itself",
                "1 segment without a label: of channel mix, but 1 is classified; --channels mix "
                "classifies the mean of all",
            ],
        ),
    ],
)
def test_segments_of_channels_that_are_not_scored(
    fake_classifier: FakeClassifier,
    make_wav: MakeWav,
    tmp_path: Path,
    channels: str,
    labelled: list[str],
    warnings: list[str],
) -> None:
    path = make_wav(duration=9.0, channels=2)
    table = tmp_path / "segments.csv"
    names = ("0", "1", "mix", *map(str, range(2, 9)), "left")
    rows = "".join(f"tone.wav,1,2,{name}\n" for name in names)
    table.write_text(f"file,start,end,channel\n{rows}")
    (result,) = sercli.annotate(path, fake_classifier, segments=str(table), channels=channels)
    assert [one.channel for one in result.segments] == labelled
    assert result.warnings == (
        *warnings,
        "8 segments without a label: of channels 2, 3, 4, 5, 6, ..., but the recording has 2 "
        "channels",
    )


@pytest.mark.parametrize("channels", ["mix", "split", "0"])
def test_the_only_channel_is_the_mix(
    centred: FakeClassifier, make_wav: MakeWav, tmp_path: Path, channels: str
) -> None:
    path = make_wav(duration=9.0)
    table = tmp_path / "segments.csv"
    table.write_text("file,start,end,channel,speaker\ntone.wav,1,2,mix,x\ntone.wav,3,4,0,y\n")
    names = tmp_path / "speakers.csv"
    names.write_text("file,channel,speaker\ntone.wav,mix,ann\n")
    for speakers, expected in ((None, ["x", "y"]), (str(names), ["ann", "ann"])):
        (result,) = annotate(
            centred,
            path,
            segments=str(table),
            channels=channels,
            adapt="speaker",
            speakers=speakers,
        )
        found = [(one.channel, one.start, one.speaker) for one in result.segments]
        assert found == [("0", 1, expected[0]), ("0", 3, expected[1])]
        assert result.warnings == ()


def test_segments_tell_whose_baseline_they_are_scored_by(
    centred: FakeClassifier, recordings: tuple[Path, ...]
) -> None:
    turns = recordings[0].parent / "turns.csv"
    rows = [("a_1", 0, 3, "x"), ("a_1", 3, 5, "y"), ("a_1", 5, 9, "x"), ("b_1", 0, 1, "y")]
    lines = [f"{name}.wav,{start},{end},{who}" for name, start, end, who in rows]
    turns.write_text("\n".join(["file,start,end,speaker", *lines]))
    plain = annotate(centred, *recordings[:2], segments=str(turns), adapt="none")
    adapted = annotate(centred, *recordings[:2], segments=str(turns), adapt="speaker")
    assert adapted[0].groups == (Group("x", 2, True), Group("y", 2, True))
    x, y = collect([plain[0]])[[0, 2]], np.vstack((collect([plain[0]])[1], collect([plain[1]])))
    expected = np.vstack((x[0], y[0], x[1], y[1])) + 0.5
    expected[[0, 2]] -= x.mean(axis=0)
    expected[[1, 3]] -= y.mean(axis=0)
    np.testing.assert_allclose(collect(adapted), expected)
    assert [one.speaker for one in adapted[0].segments] == ["x", "y", "x"]


def test_segments_tell_who_speaks_where_speakers_do_not(
    centred: FakeClassifier, recordings: tuple[Path, ...]
) -> None:
    folder = recordings[0].parent
    rows = [("a_1", 0, 3, "x"), ("a_1", 3, 5, "y"), ("b_1", 0, 1, "x"), ("b_1", 1, 2, "")]
    turns = folder / "turns.csv"
    lines = [f"{name}.wav,{start},{end},{who}" for name, start, end, who in rows]
    turns.write_text("\n".join(["file,start,end,speaker", *lines]))
    diarisation = folder / "turns.rttm"
    lines = [
        f"SPEAKER {name} 1 {start} {end - start} <NA> <NA> {who or '<NA>'}\n"
        for name, start, end, who in rows
    ]
    diarisation.write_text("".join(lines))
    table = folder / "speakers.csv"
    table.write_text("file,start,end,speaker\na_1.wav,0,3,zed\nb_1.wav,0,1,\n")
    second = str(recordings[1])
    # A name of the table is one person in all files, one of a diarisation in its recording.
    for segments, y, x in ((turns, "y", "x"), (diarisation, "a_1/y", "b_1/x")):
        options = {"segments": str(segments), "adapt": "speaker", "speakers": str(table)}
        results = annotate(centred, *recordings[:2], **options)
        speakers = [[one.speaker for one in result.segments] for result in results]
        assert speakers == [["zed", y], [x, None]]
        groups = [{group.name for group in result.groups} for result in results]
        assert groups == [{"zed", y}, {x, second}]
    # A pattern that does not match knows nobody, either.
    options["speakers"] = "(a)_1"
    results = annotate(centred, *recordings[:2], **options)
    speakers = [[one.speaker for one in result.segments] for result in results]
    assert speakers == [["a", "a"], ["b_1/x", None]]


def test_a_long_segment_has_the_mean_of_its_parts(
    fake_classifier: FakeClassifier, make_wav: MakeWav, tmp_path: Path
) -> None:
    path = make_wav(duration=80.0)
    table = tmp_path / "segments.csv"
    table.write_text(f"file,start,end\n{path},5,10\n{path},10,70\n{path},50,100\n")
    (result,) = sercli.annotate(path, fake_classifier, segments=str(table), effort=ONE_WORKER)
    assert [(one.start, one.end) for one in result.segments] == [(5, 10), (10, 70), (50, 80)]
    # Two parts of 30 s; what is left of two parts of 25 s.
    assert result.segments[1].probabilities[0] == pytest.approx(1 / 31)
    assert result.segments[2].probabilities[0] == pytest.approx((25 / 26 + 5 / 6) / 30)


def test_nobody_says_who_speaks(centred: FakeClassifier, recordings: tuple[Path, ...]) -> None:
    table = recordings[0].parent / "segments.csv"
    table.write_text("file,start,end\na_1.wav,4,9\n")
    with pytest.raises(ConfigError, match="adapt is 'speaker', but the speakers are not known"):
        annotate(centred, recordings[0], segments=str(table), adapt="speaker")


def test_an_annotator_takes_paths_and_what_was_found(fake_classifier: FakeClassifier) -> None:
    annotator = Annotator(fake_classifier, effort=ONE_WORKER)
    found = Found(str(EXAMPLES / "memo.m4a"))
    expected = list(annotator.annotate([found, found]))
    assert len(expected) == 2
    path = EXAMPLES / "memo.m4a"
    # A path that is reached twice is annotated once, as by `sercli.annotate`.
    assert list(annotator.annotate([path, path, found])) == expected
    names = [Path(one.path).name for one in annotator.annotate(str(EXAMPLES))]
    assert names == ["call.wav", "memo.m4a", "silence.wav", "statement.flac"]


def test_segments_of_another_type_are_refused(fake_classifier: FakeClassifier) -> None:
    for segments in ({"mode": "file"}, [(0.0, 2.0)], "turns.csv"):
        with pytest.raises(ConfigError, match="expected a SegmentConfig, or Turns, which"):
            Annotator(fake_classifier, segments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speakers": 3}, "speakers are 3; expected a table or pattern, which"),
        ({"speakers": ["a"]}, r"speakers are \['a'\]; expected a table or pattern, which"),
        ({"effort": 3}, "effort is 3; expected an Effort"),
    ],
)
def test_speakers_and_efforts_of_another_type_are_refused(
    fake_classifier: FakeClassifier, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sercli.annotate(EXAMPLES, fake_classifier, **settings)
    with pytest.raises(ConfigError, match=message):
        Annotator(fake_classifier, **settings)


def test_paths_are_taken_in_the_thread_of_the_caller(fake_classifier: FakeClassifier) -> None:
    taken_in = []

    def give() -> Iterator[Path]:
        taken_in.append(current_thread())
        yield EXAMPLES / "memo.m4a"

    assert len(list(sercli.annotate(give(), fake_classifier))) == 1
    assert taken_in == [current_thread()]


def test_a_thread_that_outlives_the_main_one_gets_all_results() -> None:
    script = (
        "import sys, threading, sercli\n"
        "def work(): print(len(list(sercli.annotate(sys.argv[1:], 'svm'))))\n"
        "threading.Thread(target=work).start()\n"
    )
    names = [str(EXAMPLES / name) for name in ("memo.m4a", "statement.flac")]
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, timeout=120, check=True
    )
    assert done.stdout.strip() == b"2"


def test_probabilities_that_are_no_numbers_are_no_labels(
    fake_classifier: FakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(features), 2), np.nan, np.float32)

    monkeypatch.setattr(fake_classifier, "score", score)
    for precision, advice in (("fp32", "Copy its folder again"), ("fp16", "Try --precision fp32")):
        monkeypatch.setattr(FakeClassifier, "precision", precision)
        with pytest.raises(ModelError, match=f"that are not finite .*{advice}"):
            list(sercli.annotate(EXAMPLES / "memo.m4a", fake_classifier, effort=ONE_WORKER))
        with pytest.raises(ModelError, match=f"that are not finite .*{advice}"):
            fake_classifier.predict_proba([np.zeros(16_000, np.float32)])
