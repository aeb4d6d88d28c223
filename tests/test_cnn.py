"""The convolutional network: its front end, its masks, and its classifier."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sercli.calibration import Calibration
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.batches import group_by_length
from sercli.classifiers.cnn import CnnClassifier
from sercli.errors import ConfigError, ModelError
from sercli.labels import EMOTIONS
from sercli.neural.batching import pad
from sercli.neural.cnn import Cnn, CnnSettings, ConvolutionalLayer
from sercli.neural.front_end import LEAST_OFFSET, LogMel, LogMelSettings, remove_offset
from sercli.neural.masking import MaskingSettings, mask_at_random
from sercli.neural.mel import WhisperMel
from sercli.neural.pooling import AttentiveStatistics, weighted_statistics
from sercli.registry.store import load_model, save_model

FloatArray = NDArray[np.float32]

SMALL = CnnSettings(LogMelSettings(n_mels=16), channels=(4, 4, 6, 6, 8, 8, 8))


def tones(rng: np.random.Generator) -> list[FloatArray]:
    """Tones in noise, of odd lengths and levels; one is shorter than a window."""
    return [
        (gain * (np.sin(pitch * np.arange(n)) + 0.1 * rng.standard_normal(n))).astype(np.float32)
        for n, gain, pitch in (
            (16_000, 0.1, 0.1),
            (1_600, 0.9, 0.3),
            (300, 0.01, 0.5),
            (40_321, 0.3, 0.7),
            (9_999, 1e-3, 1.2),
        )
    ]


@pytest.fixture
def waveforms(rng: np.random.Generator) -> list[FloatArray]:
    return tones(rng)


def network(settings: CnnSettings = SMALL) -> Cnn:
    """Random weights, and normalisation that brings out how segments differ."""
    torch.manual_seed(0)
    made = Cnn(settings, len(EMOTIONS)).train()
    with torch.no_grad():
        for _ in range(40):
            made(*pad(tones(np.random.default_rng(1))))
    return made.eval()


def classifier(settings: CnnSettings = SMALL, **changes: Any) -> CnnClassifier:
    values: dict[str, Any] = {
        "family": "cnn",
        "labels": EMOTIONS,
        "sample_rate": 16_000,
        "band_limit": 4_000.0,
        "calibration": Calibration("temperature", np.eye(6), np.zeros(6)),
        "settings": asdict(settings),
    }
    return CnnClassifier(ModelSpec(**(values | changes)), network(settings), "cpu")


def test_the_same_alone_padded_and_in_any_order(waveforms: list[FloatArray]) -> None:
    model = classifier()
    alone = np.concatenate([model.predict_proba([waveform]) for waveform in waveforms])
    together = model.predict_proba(waveforms)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(waveforms[::-1])[::-1], alone, atol=1e-4)
    assert np.ptp(alone, axis=0).max() > 0.03  # or anything would be the same
    padded = pad([waveforms[0], np.zeros(200_000, np.float32)])
    scores = model.network(*padded)[:1].numpy(force=True)
    expected = model.score(model.extract_features(waveforms[:1]))
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_gain_does_not_matter(waveforms: list[FloatArray]) -> None:
    model = classifier()
    louder = [waveform * np.float32(7) for waveform in waveforms]
    expected = model.predict_proba(waveforms)
    np.testing.assert_allclose(model.predict_proba(louder), expected, atol=1e-3)


def test_a_constant_offset_does_not_matter(waveforms: list[FloatArray]) -> None:
    centred = [one - one.mean() for one in waveforms]
    whole, lengths = pad(centred)
    for share in (0.1, -3.0):
        moved = pad([one + np.float32(share * one.std()) for one in centred])
        assert torch.allclose(remove_offset(*moved), whole, atol=1e-6)
        for front_end in (LogMel(LogMelSettings()), WhisperMel(80, band_limit=4_000)):
            frames, _ = front_end(*moved)
            assert torch.allclose(frames, front_end(whole, lengths)[0], atol=1e-3)
    # Where it makes no difference, nothing changes.
    slight = pad([one + np.float32(0.9 * LEAST_OFFSET * one.std()) for one in centred])
    assert torch.equal(remove_offset(*slight), slight.waveforms)


def test_silence_and_the_shortest_segments_have_probabilities() -> None:
    silence = [np.zeros(n, np.float32) for n in (1, 1_600, 16_000)]
    rows = classifier().predict_proba(silence)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (1, 9)])
def test_fewer_frames_than_a_kernel_are_as_if_zeros_followed(
    kernel: tuple[int, int], precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = ConvolutionalLayer(4, 6, kernel, (kernel[0] // 2 + 1, 2), squeeze=True).eval()
    for n_frames in range(1, kernel[1] + 2):
        frames, mask = torch.randn(2, 4, 8, n_frames), torch.ones(2, n_frames)
        longer = (functional.pad(one, (0, 2 * kernel[1])) for one in (frames, mask))
        with torch.inference_mode(), torch.autocast("cpu", precision, precision != torch.float32):
            (found, inside), (expected, _) = layer(frames, mask), layer(*longer)
        n_left = (n_frames + 1) // 2
        assert found.shape == (2, 6, -(-8 // layer.convolution.stride[0]), n_left)
        assert inside.tolist() == [[1] * n_left] * 2
        assert found.dtype == precision
        assert found.std() > 0.01
        tolerance = 1e-6 if precision == torch.float32 else 0.02
        torch.testing.assert_close(found, expected[..., :n_left], atol=tolerance, rtol=tolerance)


def test_front_end_finds_a_tone_and_levels_it() -> None:
    settings = LogMelSettings(n_mels=32)
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    frames, mask = LogMel(settings)(*pad([tone, tone[:8_000]]))
    assert frames.shape == (2, 32, 63)
    assert mask.sum(dim=1).tolist() == [63, 32]  # frames at 0, 256, ... up to the end
    assert frames[1, :, 32:].abs().max() == 0
    torch.testing.assert_close(frames.sum(dim=(1, 2)), torch.zeros(2), atol=2e-2, rtol=0)
    mel = 2595 * np.log10(1 + np.array([50, 1_000, 4_000]) / 700)
    place = (mel[1] - mel[0]) / (mel[2] - mel[0]) * 33 - 1  # centres of 32 triangles in between
    assert abs(int(frames[0, :, 30].argmax()) - place) < 1
    # 80 dB below the loudest, everything is cut: 5 times the spread of 16 dB.
    assert float(frames[0].max() - frames[0].min()) == pytest.approx(5, abs=1e-4)


def test_pooling_by_hand() -> None:
    frames = torch.tensor([[[1.0, 2.0, 6.0, 99.0]]])
    mean, deviation = weighted_statistics(frames, torch.tensor([[[0.5, 0.25, 0.25, 0.0]]]))
    assert mean.item() == pytest.approx(2.5)
    assert deviation.item() == pytest.approx(np.sqrt(4.25), rel=1e-5)
    pooling = AttentiveStatistics(1)
    torch.nn.init.zeros_(pooling.scores.weight)  # all frames alike
    pooled = pooling(frames, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert pooled[0].tolist() == pytest.approx([3, np.sqrt(14 / 3)], rel=1e-4)
    torch.nn.init.zeros_(pooling.hidden.weight[:, 1:])
    torch.nn.init.constant_(pooling.hidden.weight[:, 0], 0.1)
    torch.nn.init.constant_(pooling.scores.weight, 10)
    pooled = pooling(frames, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert pooled[0, 0].item() == pytest.approx(6, abs=0.01)  # it attends to the loudest


def test_masking_hides_stripes_of_the_segment() -> None:
    frames = torch.ones(200, 16, 40)
    mask = torch.ones(200, 40)
    mask[:, 20:] = 0
    settings = MaskingSettings(n_bands=1, n_times=1, max_bands=0.25, max_times=0.5)
    torch.manual_seed(0)
    hidden = mask_at_random(frames, mask, settings) == 0
    bands, times = hidden.all(dim=2).sum(dim=1), hidden.all(dim=1).sum(dim=1)
    assert sorted(set(bands.tolist())) == [0, 1, 2, 3, 4]  # of 16
    assert sorted(set(times.tolist())) == list(range(11))  # of the segment's 20, not of 40
    assert not hidden.all(dim=1)[:, 20:].any()
    assert hidden.all(dim=2).any(dim=0).all()  # any band can be hidden
    torch.manual_seed(0)
    again = mask_at_random(frames, mask, settings)
    assert torch.equal(again == 0, hidden)
    nothing = MaskingSettings(n_bands=0, n_times=0)
    assert torch.equal(mask_at_random(frames, mask, nothing), frames)


def test_only_training_hides_and_drops(waveforms: list[FloatArray]) -> None:
    model, batch = network().train(), pad(waveforms)
    torch.manual_seed(1)
    first = model.embed(*batch)
    assert not torch.equal(first, model.embed(*batch))
    model.eval()
    assert torch.equal(model(*batch), model(*batch))


def test_batches_of_similar_lengths() -> None:
    groups = list(group_by_length([5, 90, 10, 30, 9], 30))
    assert groups == [[1], [3], [2, 4], [0]]
    # Little of a batch is padding, but a batch that is less than half full takes any.
    assert list(group_by_length([10, 9, 5], 41)) == [[0, 1, 2]]
    assert list(group_by_length([10, 9, 9, 5], 40)) == [[0, 1, 2], [3]]
    assert list(group_by_length([], 30)) == []


def test_size_of_the_shipped_shape() -> None:
    model = Cnn(CnnSettings(), 6)
    assert sum(tensor.numel() for tensor in model.parameters()) < 5e6
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == 7


def test_a_folder_gives_the_same_model(tmp_path: Path, waveforms: list[FloatArray]) -> None:
    saved = classifier()
    loaded = load_model(save_model(saved, tmp_path / "mine"))
    assert isinstance(loaded, CnnClassifier)
    np.testing.assert_allclose(
        loaded.predict_proba(waveforms), saved.predict_proba(waveforms), atol=5e-3
    )  # half precision
    again = load_model(save_model(loaded, tmp_path / "again"))
    np.testing.assert_array_equal(again.predict_proba(waveforms), loaded.predict_proba(waveforms))


def test_damaged_descriptions_are_told(waveforms: list[FloatArray]) -> None:
    good = classifier()
    tensors = good.tensors()
    other = replace(good.spec, settings=asdict(replace(SMALL, channels=(5,) * 7)))
    with pytest.raises(ModelError, match="its weights do not fit its settings: head"):
        CnnClassifier.from_tensors(other, tensors)
    with pytest.raises(ModelError, match=r"band_limit is 5000.0 Hz; its mel bands end at 4000.0"):
        CnnClassifier.from_tensors(replace(good.spec, band_limit=5000.0), tensors)
    with pytest.raises(ModelError, match=r"the network's settings are .*: 'log_mel'"):
        CnnClassifier.from_tensors(replace(good.spec, settings={}), tensors)
    for change in (
        {"channels": (1,)},
        {"strides": ((3, 1),) * 7},
        {"strides": ((2, 1),) * 7},
        {"n_planar": 8},
        {"kernel_time": 4},
        {"dropout": 1.0},
    ):
        with pytest.raises(ConfigError):
            replace(SMALL, **change)
    for wrong in ({"f_max": 9e3}, {"hop_length": 0}, {"floor": 0}):
        with pytest.raises(ConfigError):
            LogMelSettings(**wrong)
    for wrong_mask in ({"n_bands": -1}, {"max_times": 1.5}):
        with pytest.raises(ConfigError):
            MaskingSettings(**wrong_mask)
