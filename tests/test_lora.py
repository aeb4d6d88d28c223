"""Low-rank matrices of encoders."""

import sys
from pathlib import Path

import pytest
import torch
from checkpoints import TINY, save_checkpoint

from sercli.errors import ConfigError
from sercli.neural.bases import load_base
from sercli.neural.transformer import Transformer, TransformerSettings
from sercli.training.config import TransformerConfig
from sercli.training.networks.lora import RATE_FACTOR, add_lora, merge_lora
from sercli.training.networks.transformer import group_parameters


def load(kind: str, folder: Path) -> Transformer:
    save_checkpoint(kind, folder)
    base = load_base(str(folder))
    network = Transformer(TransformerSettings(base.settings), 3)
    network.encoder.model.load_state_dict(base.weights)
    return network.eval()


@pytest.mark.parametrize("kind", TINY)
def test_merged_matrices_say_the_same(kind: str, tmp_path: Path) -> None:
    network = load(kind, tmp_path)
    names = list(network.state_dict())
    waveforms = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8_000, 6_000])
    before = network(waveforms, lengths)
    groups = group_parameters(network, TransformerConfig(layers=1, lora=3))
    # They begin as nothing.
    torch.testing.assert_close(network(waveforms, lengths), before)
    rates = [rate for _, rate in groups]
    assert rates == [1.0, RATE_FACTOR]
    assert all(one.shape.numel() and 3 in one.shape for one in groups[1][0])
    learning = {id(one) for part, _ in groups for one in part}
    assert learning == {id(one) for one in network.parameters() if one.requires_grad}
    with torch.no_grad():
        for one in groups[1][0]:
            torch.nn.init.normal_(one, generator=torch.Generator().manual_seed(1))
    changed = network(waveforms, lengths)
    assert (changed - before).abs().max() > 1e-3
    merge_lora(network)
    torch.testing.assert_close(network(waveforms, lengths), changed, atol=1e-4, rtol=1e-4)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("kind", TINY)
def test_every_matrix_is_trained(kind: str, tmp_path: Path) -> None:
    network = load(kind, tmp_path)
    groups = group_parameters(network, TransformerConfig(layers=2, lora=2))
    waveforms = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    network(waveforms, torch.tensor([8_000, 6_000])).square().sum().backward()
    matrices = {name: one for name, one in network.named_parameters() if "lora_B" in name}
    without = [name for name, one in matrices.items() if one.grad is None or not one.grad.any()]
    assert without == []
    # Attention and the two maps after it; of WavLM's attention, the gate alone is called.
    assert len(matrices) == 2 * (3 if kind == "wavlm" else 6)
    learning = {id(one) for part, _ in groups for one in part}
    assert learning == {id(one) for one in network.parameters() if one.requires_grad}


def test_only_the_upper_layers_have_matrices(tmp_path: Path) -> None:
    network = load("hubert", tmp_path)
    group_parameters(network, TransformerConfig(layers=1, lora=2))
    names = {name for name, one in network.named_parameters() if one.requires_grad}
    assert {name.split(".")[4] for name in names if name.startswith("encoder.")} == {"1"}


def test_the_seed_decides_the_matrices(tmp_path: Path) -> None:
    drawn = []
    for seed in (5, 5, 6):
        network = load("hubert", tmp_path)
        torch.seed()  # another state of the global generator each time
        group_parameters(network, TransformerConfig(layers=1, lora=2, seed=seed))
        weights = network.state_dict()
        drawn.append(torch.cat([weights[one].flatten() for one in weights if "lora_A" in one]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'sercli\[lora\]'"):
        add_lora(torch.nn.Linear(2, 2), [], 2, lambda: None)
