import importlib.util
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import FakeClassifier
from numpy.typing import NDArray

import sercli
from sercli.config import SegmentConfig
from sercli.errors import ConfigError, ModelError
from sercli.speech.segmentation import Span, create_segmenter, find_speech
from sercli.speech.vad import FRAME_LENGTH, SpeechFrames, SpeechStream, open_detector

FRAME_S = FRAME_LENGTH / 16_000
PAD = 480  # 30 ms


def frames_of(*runs: tuple[float, float], energy: float = 1.0) -> SpeechFrames:
    """Make frames from runs of (probability, seconds)."""
    probabilities = np.concatenate(
        [np.full(round(seconds / FRAME_S), probability) for probability, seconds in runs]
    ).astype(np.float32)
    return SpeechFrames(probabilities, np.full(len(probabilities), energy, np.float32))


def segment(
    frames: SpeechFrames,
    sizes: list[int] | None = None,
    *,
    n_samples: int | None = None,
    **options: Any,
) -> list[Span]:
    """Segment frames, of which the last may be padded beyond the end at `n_samples`."""
    segmenter = create_segmenter(SegmentConfig(**options))
    spans: list[Span] = []
    position = needed = 0
    for size in sizes or [len(frames.probabilities)]:
        part = slice(position, position + size)
        # What was not needed once is gone.
        needed = max(needed, segmenter.needed_from)
        new = segmenter.push(SpeechFrames(frames.probabilities[part], frames.energies[part]))
        assert all(span.start >= needed for span in new)
        spans += new
        position += size
    needed = max(needed, segmenter.needed_from)
    last = segmenter.finish(n_samples or len(frames.probabilities) * FRAME_LENGTH)
    assert all(span.start >= needed for span in last)
    return spans + last


def seconds(spans: list[Span]) -> list[tuple[float, float]]:
    return [(round(span.start / 16_000, 3), round(span.end / 16_000, 3)) for span in spans]


def test_regions_have_padding_and_bridge_short_gaps() -> None:
    frames = frames_of((0, 0.96), (1, 0.64), (0, 0.256), (1, 0.64), (0, 0.96), (1, 0.64), (0, 0.64))
    assert seconds(segment(frames)) == [(0.93, 2.526), (3.426, 4.126)]
    assert seconds(segment(frames, max_gap=0.2)) == [(0.93, 1.63), (1.826, 2.526), (3.426, 4.126)]


def test_probabilities_between_the_thresholds_neither_start_nor_end() -> None:
    frames = frames_of((0.4, 0.96), (0.6, 0.32), (0.4, 0.96), (0.2, 0.64))
    assert seconds(segment(frames)) == [(0.93, 2.27)]


def test_a_probability_at_a_threshold_is_speech_and_none_below_ends_it() -> None:
    # The thresholds are 0.5 and 0.25: of both, computers have the exact value.
    frames = frames_of((0, 0.96), (0.5, 0.64), (0, 0.96))
    assert seconds(segment(frames)) == [(0.93, 1.63)]
    assert seconds(segment(frames, mode="window", window=1.6)) == [(0, 1.6)]
    frames = frames_of((0, 0.96), (1, 0.64), (0.25, 0.96), (0, 0.64))
    assert seconds(segment(frames, vad_threshold=0.4)) == [(0.93, 2.59)]
    # Of a threshold as low as the distance of the two, the lower one is still above zero.
    frames = frames_of((0, 0.96), (1, 0.64), (0, 0.96), (1, 0.64), (0, 0.64))
    assert seconds(segment(frames, vad_threshold=0.1)) == [(0.93, 1.63), (2.53, 3.23)]


def test_a_pause_ends_speech_with_the_frame_that_starts_after_the_gap() -> None:
    for gap, n_regions in ((0.32, 1), (0.352, 2)):
        frames = frames_of((0, 0.96), (1, 0.64), (0, gap), (1, 0.64), (0, 0.96))
        assert len(segment(frames, max_gap=0.32)) == n_regions


def test_clicks_are_dropped() -> None:
    frames = frames_of((0, 0.96), (1, 0.224), (0, 0.96))
    assert segment(frames) == []
    frames = frames_of((0, 0.96), (1, 0.256), (0, 0.96))
    assert seconds(segment(frames)) == [(0.93, 1.246)]
    # A quarter of a second is a click, and a sample more is none.
    assert segment(frames_of((1, 0.256)), n_samples=4_000) == []
    assert seconds(segment(frames_of((1, 0.256)), n_samples=4_001)) == [(0, 0.25)]


def test_speech_to_the_end_of_the_file() -> None:
    frames = frames_of((1, 0.96))
    assert seconds(segment(frames)) == [(0.0, 0.96)]


def test_long_speech_is_cut_at_its_quietest_point() -> None:
    frames = frames_of((0, 0.96), (1, 9.6), (0, 0.96))
    frames.energies[150:153] = 0.01  # 4.8 to 4.896 s
    frames.energies[80:83] = 0.001  # 2.56 to 2.656 s: less than half of the longest
    assert seconds(segment(frames)) == [(0.93, 4.848), (4.848, 10.59)]
    # The same if the speech is so long that it is cut before its end is known.
    frames = frames_of((0, 0.96), (1, 60), (0, 0.96))
    frames.energies[150:153] = 0.01
    assert seconds(segment(frames))[0] == (0.93, 4.848)


def test_speech_just_too_long_leaves_no_scrap() -> None:
    for length in np.arange(5.5, 8, 0.032):
        frames = frames_of((0, 0.96), (1, length), (0, 0.96))
        # The same loudness throughout, or ever quieter, which asks for a cut at the end.
        for energies in (
            frames.energies,
            np.linspace(1, 0.1, len(frames.energies), dtype=np.float32),
        ):
            spans = segment(frames._replace(energies=energies))
            assert all(8_000 <= span.end - span.start <= 96_000 for span in spans)


@pytest.mark.parametrize(
    ("shortest", "n_samples", "cut"), [(0.5, 16_384, 8_000), (0.49, 15_700, 7_860)]
)
def test_a_cut_leaves_both_sides_long_enough(shortest: float, n_samples: int, cut: int) -> None:
    # The middle of the quietest frame, 7936, is too close to the start or to the end.
    frames = frames_of((0.9, -(-n_samples // FRAME_LENGTH) * FRAME_S))
    spans = segment(frames, n_samples=n_samples, min_segment=shortest, max_segment=2 * shortest)
    assert [span[:2] for span in spans] == [(0, cut), (cut, n_samples)]


def test_short_speech_joins_a_close_neighbour() -> None:
    close = frames_of((0, 0.96), (1, 1.28), (0, 0.416), (1, 0.32), (0, 2), (1, 0.32), (0, 2))
    # 0.416 s of pause end the first region at 2.27; the second starts within 0.5 s of it.
    spans = segment(close)
    assert seconds(spans) == [(0.93, 3.006), (4.93, 5.31)]
    # The pause is no speech; the padding is.
    assert [round(span.speech, 3) for span in spans] == [1.72, 0.38]
    # The short one may come first.
    turned = frames_of((0, 0.96), (1, 0.32), (0, 0.416), (1, 1.28), (0, 2))
    assert seconds(segment(turned)) == [(0.93, 3.006)]
    # With its padding, the pause is shorter than 0.5 s.
    padded = frames_of((0, 0.96), (1, 1.28), (0, 0.544), (1, 0.32), (0, 2))
    assert seconds(segment(padded)) == [(0.93, 3.134)]
    far = frames_of((0, 0.96), (1, 1.28), (0, 0.64), (1, 0.32), (0, 2))
    assert seconds(segment(far)) == [(0.93, 2.27), (2.85, 3.23)]
    # Nor does it join if the whole became too long, but if it is just as long as it may be.
    assert len(segment(close, max_segment=1.5)) == 3
    assert seconds(segment(close, max_segment=2.076))[0] == (0.93, 3.006)


def test_speech_as_long_as_a_segment_may_be_is_not_cut() -> None:
    assert seconds(segment(frames_of((1, 6.016)), n_samples=96_000)) == [(0, 6)]


@pytest.mark.parametrize("mode", ["speech", "window", "file"])
def test_pieces_do_not_matter(mode: str, rng: np.random.Generator) -> None:
    for _ in range(30):
        runs = [(rng.choice([0.1, 0.4, 0.9]), rng.gamma(2, 0.7)) for _ in range(60)]
        frames = frames_of(*runs)
        n_frames = len(frames.probabilities)
        frames = SpeechFrames(frames.probabilities, rng.random(n_frames).astype(np.float32))
        options: dict[str, Any] = {
            "mode": mode,
            "max_segment": float(rng.uniform(1.0, 8)),
            "window": 2.3,
        }
        cuts = np.sort(rng.integers(0, n_frames, 40))
        sizes = np.diff(np.concatenate(([0], cuts, [n_frames]))).tolist()
        whole = segment(frames, **options)
        assert segment(frames, sizes, **options) == whole
        assert segment(frames, [1] * n_frames, **options) == whole


def test_segments_are_sorted_disjoint_within_the_file_and_bounded(
    rng: np.random.Generator,
) -> None:
    for _ in range(100):
        runs = [(rng.choice([0.1, 0.4, 0.9]), rng.gamma(1.5, 1.0)) for _ in range(40)]
        frames = frames_of(*runs)
        n_samples = len(frames.probabilities) * FRAME_LENGTH
        spans = segment(frames, max_segment=4.0, max_gap=float(rng.uniform(0.1, 1)))
        assert all(span.start < span.end <= n_samples for span in spans)
        assert all(a.end <= b.start for a, b in pairwise(spans))
        assert max(span.end - span.start for span in spans) <= 4 * 16_000


def test_memory_is_bounded_in_endless_speech() -> None:
    segmenter = create_segmenter(SegmentConfig())
    for i in range(200):
        segmenter.push(frames_of((1, 3.2)))
        assert (i + 1) * 100 * FRAME_LENGTH - segmenter.needed_from <= 13 * 16_000


def test_windows() -> None:
    frames = frames_of((1, 10.24))
    assert seconds(segment(frames, mode="window", window=4.0)) == [(0, 4), (4, 8), (8, 10.24)]
    assert seconds(segment(frames, mode="window", window=4.0, hop=2.0)) == [
        (0, 4),
        (2, 6),
        (4, 8),
        (6, 10),
        (8, 10.24),
    ]
    # What is within an earlier window is no window of its own, however short it may be.
    spans = segment(frames, mode="window", window=4.0, hop=2.0, min_segment=0.2)
    assert seconds(spans)[-1] == (8, 10.24)
    # A scrap at the end is no window, unless it is all there is.
    assert seconds(segment(frames, mode="window", window=5.0)) == [(0, 5), (5, 10)]
    assert seconds(segment(frames_of((1, 0.32)), mode="window")) == [(0, 0.32)]
    # A window that ends with the file leaves nothing.
    assert seconds(segment(frames, mode="window", window=5.12)) == [(0, 5.12), (5.12, 10.24)]
    assert seconds(segment(frames, mode="window", window=1.0, hop=4.0)) == [(0, 1), (4, 5), (8, 9)]


def test_windows_end_with_the_recording_and_are_not_too_short_to_classify() -> None:
    # Of the last frame, the end is padding.
    spans = segment(frames_of((1, 1.024)), mode="window", window=1.024, n_samples=16_200)
    assert [span[:2] for span in spans] == [(0, 16_200)]
    for mode in ("window", "file"):
        assert segment(frames_of((1, 0.096)), mode=mode, n_samples=1_599) == []
    assert seconds(segment(frames_of((1, 0.128)), mode="window", n_samples=1_600)) == [(0, 0.1)]
    for n_samples, ends in ((481_599, [30]), (481_600, [30, 30.1])):
        spans = segment(frames_of((1, 30.112)), mode="file", n_samples=n_samples)
        assert [end for _, end in seconds(spans)] == ends


def test_the_shortest_rest_at_the_end_that_is_scored() -> None:
    # Twice that is more than the longest segment of speech, which these modes do not have.
    frames = frames_of((1, 10.24))
    for least, expected in ((4.24, [(0, 6), (6, 10.24)]), (4.25, [(0, 6)])):
        assert seconds(segment(frames, mode="window", window=6.0, min_segment=least)) == expected
    assert seconds(segment(frames, mode="window", window=12.0, min_segment=15)) == [(0, 10.24)]
    # Of a whole file, all is scored.
    frames = frames_of((1, 41.6))
    assert seconds(segment(frames, mode="file", min_segment=15)) == [(0, 30), (30, 41.6)]


@pytest.mark.parametrize("seconds_there", [2.0, 2.05])
def test_the_last_of_short_windows_is_whole_or_left_out(seconds_there: float) -> None:
    n_samples = round(16_000 * seconds_there)
    spans = segment(frames_of((1, seconds_there)), mode="window", window=0.4, n_samples=n_samples)
    assert seconds(spans) == [(0, 0.4), (0.4, 0.8), (0.8, 1.2), (1.2, 1.6), (1.6, 2)]


def test_windows_without_speech_are_left_out() -> None:
    frames = frames_of((0, 4.0), (1, 4.0), (0.1, 4.0))
    spans = segment(frames, mode="window", window=2.0)
    assert seconds(spans) == [(4, 6), (6, 8)]
    # 63 frames of 32 ms are in a window of 2 s, or partly so.
    assert [span.speech for span in spans] == [2.0, 2.0]
    # 0.25 s of speech are enough, less is not.
    frames = frames_of((0, 1.92), (1, 0.256), (0, 8))
    assert seconds(segment(frames, mode="window", window=3.2)) == [(0, 3.2)]
    frames = frames_of((0, 1.92), (1, 0.224), (0, 8))
    assert segment(frames, mode="window", window=3.2) == []
    # Of a window of less than half a second, half is enough.
    for length, expected in ((0.16, [(0.64, 0.96)]), (0.128, [])):
        frames = frames_of((0, 0.64), (1, length), (0, 0.64))
        assert seconds(segment(frames, mode="window", window=0.32)) == expected


def test_frames_at_the_edge_of_a_window_count_in_both() -> None:
    # 31 and a quarter of a frame in each window.
    frames = frames_of((0, 0.768), (1, 0.256), (0, 3.0))
    assert seconds(segment(frames, mode="window", window=1.0)) == [(0, 1)]
    (first, *_) = segment(frames_of((1, 4.0)), mode="window", window=1.0)
    assert first.speech == 1.0


def test_file_mode_classifies_pieces_of_half_a_minute_with_the_speech_in_them() -> None:
    spans = segment(frames_of((1, 3.2), (0, 32.0), (1, 6.4)), mode="file")
    assert seconds(spans) == [(0, 30), (30, 41.6)]
    assert [round(span.speech, 3) for span in spans] == [3.23, 6.43]  # with padding


def test_a_file_holds_speech_where_segments_of_it_are_found(rng: np.random.Generator) -> None:
    # At its end, after half a minute; and where probabilities fall below the threshold in between.
    late = frames_of((0, 30.08), (1, 0.384))
    assert seconds(segment(late)) == [(30.05, 30.464)]
    spans = segment(late, mode="file")
    assert seconds(spans) == [(30.0, 30.464)]
    assert spans[0].speech == pytest.approx(0.414)
    wavering = frames_of((0, 0.96), (0.6, 0.064), (0.4, 0.32), (0.2, 0.64))
    assert seconds(segment(wavering)) == [(0.93, 1.374)]
    assert seconds(segment(wavering, mode="file")) == [(0, 1.984)]
    assert segment(wavering, mode="file", vad_threshold=0.7) == []
    click = frames_of((0, 0.96), (1, 0.224), (0, 2.0))
    assert segment(click) == segment(click, mode="file") == []
    for _ in range(20):
        runs = [(float(rng.random()), float(rng.uniform(0.1, 9))) for _ in range(40)]
        frames = frames_of(*runs)
        speech = sum(span.end - span.start for span in segment(frames)) / 16_000
        pieces = segment(frames, [7] * (len(frames.probabilities) // 7 + 1), mode="file")
        assert sum(span.speech for span in pieces) == pytest.approx(speech)
        assert all(span.start % 480_000 == 0 for span in pieces)


def test_detector_gives_the_same_in_any_pieces(
    speech: NDArray[np.float32], rng: np.random.Generator
) -> None:
    stream = SpeechStream()
    whole = [stream.push(speech), stream.finish()]
    stream = SpeechStream()
    pieces = np.split(speech, np.sort(rng.integers(0, len(speech), 50)))
    parts = [*(stream.push(piece) for piece in pieces), stream.finish()]
    for name in ("probabilities", "energies"):
        a = np.concatenate([getattr(frames, name) for frames in whole])
        b = np.concatenate([getattr(frames, name) for frames in parts])
        assert len(a) == -(-len(speech) // FRAME_LENGTH)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_probabilities_are_those_of_the_package(
    speech: NDArray[np.float32], rng: np.random.Generator
) -> None:
    noisy = speech + 0.01 * rng.standard_normal(len(speech)).astype(np.float32)
    waveform = np.concatenate((speech, np.zeros(8000, np.float32), noisy, 3 * speech[::2]))
    waveform = waveform[: len(waveform) // FRAME_LENGTH * FRAME_LENGTH]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, (64, 0)), 576)[::512]
    package = importlib.util.find_spec("silero_vad")
    assert package
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
    reference = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    state = np.zeros((1, 1, 128), np.float32)
    expected = reference.run(["speech_probs"], {"input": frames, "h": state, "c": state})[0]
    assert expected.min() < 0.01
    assert expected.max() > 0.99
    found = SpeechStream().push(waveform).probabilities
    np.testing.assert_allclose(found, expected.reshape(-1), atol=1e-5)


def test_another_network_of_the_package_is_refused(
    fake_classifier: FakeClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "silero_vad_16k_sequence.onnx"
    text = '<ir_version: 8, opset_import: ["" : 16]> g (float[n] x) => (float[n] y) {y = Relu (x)}'
    onnx.save(onnx.parser.parse_model(text), path)
    monkeypatch.setattr("sercli.speech.silero._find_model", lambda: path)
    open_detector.cache_clear()
    with pytest.raises(ModelError, match=r"is not the network of silero-vad 6\.2 .*pip install"):
        sercli.Annotator(fake_classifier)


@pytest.mark.filterwarnings("ignore")
def test_regions_are_those_of_the_reference_implementation(
    speech: NDArray[np.float32], rng: np.random.Generator
) -> None:
    silero_vad = pytest.importorskip("silero_vad")
    noisy = speech + 0.01 * rng.standard_normal(len(speech)).astype(np.float32)
    waveform = np.concatenate((speech, noisy, speech[::2]))
    reference = silero_vad.get_speech_timestamps(
        waveform, silero_vad.load_silero_vad(), min_silence_duration_ms=200
    )
    config = SegmentConfig(max_segment=30, min_segment=0.1, max_gap=0.2)
    spans = find_speech([waveform], config)
    assert len(reference) > 5
    expected = np.array([[region["start"], region["end"]] for region in reference])
    np.testing.assert_allclose([span[:2] for span in spans], expected, atol=FRAME_LENGTH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sentence"}, "segment mode is 'sentence'; expected one of speech, window, file"),
        ({"max_segment": 31.0}, r"max_segment is 31; expected 0\.2 to 30"),
        ({"max_segment": 0.1, "mode": "file"}, r"max_segment is 0\.1; expected 0\.2 to 30"),
        (
            {"max_segment": 0.8},
            r"max_segment is 0\.8 and min_segment 0\.5; expected a max_segment of 1 to 30, twice",
        ),
        (
            {"min_segment": 10},
            "max_segment is 6 and min_segment 10; expected a max_segment of 20 to 30, twice",
        ),
        ({"min_segment": 16, "mode": "window"}, r"min_segment is 16; expected 0\.1 to 15"),
        ({"min_segment": 0.01}, r"min_segment is 0\.01; expected 0\.1"),
        ({"window": "4"}, r"window is '4'; expected a number from 0\.1 to 30"),
        ({"hop": True}, r"hop is True; expected a number from 0\.01 to 86400"),
        ({"max_segment": None}, r"max_segment is None; expected a number from 0\.2 to 30"),
        ({"max_gap": 0.0}, r"max_gap is 0; expected 0\.1"),
        ({"window": float("nan")}, "window is nan; expected"),
        ({"hop": 0.0}, "hop is 0; expected"),
        ({"vad_threshold": 1.5}, r"vad_threshold is 1\.5; expected"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentConfig(**options)


def test_nothing_is_reported_about_the_user(tmp_path: Path) -> None:
    # ONNX Runtime would keep an identifier of the device and its events here, and send them.
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    program = (
        "import os\n"
        "import numpy as np\n"
        "from sercli.speech.segmentation import find_speech\n"
        "assert find_speech([np.zeros(16_000, np.float32)]) == []\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment | home, check=True)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
