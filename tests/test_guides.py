"""What a network learns of clips besides their labels."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES
from numpy.typing import NDArray
from torch import nn

from sercli.datasets.clip import Clip
from sercli.errors import ConfigError
from sercli.features.vector import extract_features
from sercli.neural.cnn import Cnn, CnnSettings
from sercli.neural.front_end import LogMelSettings
from sercli.training.cache import cache_clips
from sercli.training.clean_features import extract_clean_features
from sercli.training.config import NeuralConfig
from sercli.training.networks.guides import GuidedNetwork, guided_loss, make_guides
from sercli.training.networks.loop import cross_entropy

SMALL = CnnSettings(LogMelSettings(n_mels=16), channels=(4, 4, 6, 6, 8, 8, 8), dropout=0.0)


def correlated(n_clips: int, n_features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Features of which few directions matter, in units of their own."""
    mixing = rng.normal(size=(n_features, n_features)) * 0.8 ** np.arange(n_features)[:, None]
    return rng.normal(size=(n_clips, n_features)) @ mixing * np.geomspace(1e-3, 1e3, n_features) + 7


@pytest.mark.parametrize("shape", [(400, 20), (40, 90)])
def test_guides_are_whitened_principal_components(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    features = correlated(*shape, rng)
    found = make_guides(features, 6)
    assert found.shape == (shape[0], 6)
    assert found.dtype == np.float32
    inside = np.abs(found) < 4
    assert inside.mean() > 0.99
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(6), atol=0.03)
    # The same as by singular values, whose signs are as free, the largest first.
    rows = np.clip((features - features.mean(axis=0)) / features.std(axis=0), -5, 5)
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert values[5] > 1.01 * values[6]
    expected = left[:, :6] * math.sqrt(shape[0])
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose((found * signs)[inside], expected[inside], atol=1e-4)


def test_there_are_no_more_guides_than_the_rank_allows(rng: np.random.Generator) -> None:
    flat = rng.uniform(size=(200, 3)) @ rng.normal(size=(3, 30))
    flat[:, 4] = 5.0  # tells nothing of any clip
    assert make_guides(flat, 10).shape == (200, 3)
    few = make_guides(correlated(6, 50, rng), 128)
    assert few.shape == (6, 5)
    np.testing.assert_allclose(few.T @ few / 6, np.eye(5), atol=1e-5)


def test_an_outlier_does_not_stand_out(rng: np.random.Generator) -> None:
    features = rng.normal(size=(300, 8))
    features[0] = 30.0
    found = make_guides(features, 8)
    assert np.abs(found).max() == 4
    assert found.shape == (300, 8)
    assert found[1:].std(axis=0).min() > 0.4  # the others are told apart all the same


def test_features_are_those_of_clips_as_they_are(tmp_path: Path) -> None:
    call = EXAMPLES / "call.wav"
    clips = [Clip(call, "a", start=i / 4, end=i / 4 + 0.5, name=str(i)) for i in range(18)]
    cached = cache_clips(clips, tmp_path, jobs=1)
    found = extract_clean_features(cached, 8_000.0, jobs=1)  # more than the features hear
    for index in (0, 15, 16, 17):
        expected = extract_features(cached.utterance(index).waveform)
        np.testing.assert_array_equal(found[index], expected)


def test_guided_loss() -> None:
    outputs = torch.tensor([[math.log(0.2), math.log(0.8), 1.0, 3.0], [0.0, 0.0, 0.0, 2.0]])
    targets = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.0, 0.0]])
    certain = -(math.log(0.8) + math.log(0.5)) / 2
    missed = (1 + 4 + 0 + 4) / 4
    assert guided_loss(cross_entropy, 2, 0.5)(outputs, targets).item() == pytest.approx(
        certain + 0.5 * missed
    )


def test_guides_are_told_in_training_only(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    network = Cnn(SMALL, 3)
    guided = GuidedNetwork(network, 5)
    waveforms = torch.from_numpy(rng.normal(size=(4, 8_000)).astype(np.float32))
    lengths = torch.tensor([8_000] * 4)

    def run(module: nn.Module) -> torch.Tensor:
        torch.manual_seed(1)  # of masking
        outputs: torch.Tensor = module(waveforms, lengths)
        return outputs

    outputs = run(guided.train())
    assert outputs.shape == (4, 8)
    torch.testing.assert_close(outputs[:, :3], run(network))
    outputs[:, 3:].square().sum().backward()  # type: ignore[no-untyped-call]
    learned = {name for name, one in network.named_parameters() if one.grad.any()}  # type: ignore[union-attr]
    assert "planar.0.convolution.weight" in learned
    assert not {"head.2.weight", "head.2.bias"} & learned
    torch.testing.assert_close(run(guided.eval()), run(network.eval()))


@pytest.mark.parametrize("changes", [{"guide_weight": -1.0}, {"guide_components": 0}])
def test_settings(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"guide (weight|components) is .*; expected"):
        NeuralConfig(**changes)  # type: ignore[arg-type]
