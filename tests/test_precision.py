import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_checkpoint
from numpy.typing import NDArray
from torch import nn

from sercli import load_model
from sercli.benchmark.peak import count_multiply_adds
from sercli.classifiers import neural
from sercli.classifiers.neural import NetworkClassifier, TrainedNetworkClassifier
from sercli.config import Precision
from sercli.errors import ConfigError
from sercli.neural import devices
from sercli.neural.devices import (
    choose_devices,
    computing,
    find_precision,
    limit_threads,
    replicate,
    round_to,
)
from sercli.neural.packed import PackedLinear, can_pack, pack
from sercli.neural.quantised import QuantisedLinear, quantise
from sercli.registry.catalogue import shipped_folder

CPU = torch.device("cpu")
FloatArray = NDArray[np.float32]


def noises(*n_samples: int) -> list[FloatArray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in n_samples]


def test_integers_multiply_almost_as_exactly() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    rows = torch.randn(5, 7, 64) * torch.logspace(-3, 3, 7)[:, None]
    rows[0, 0] = 0
    found, expected = QuantisedLinear(layer)(rows), layer(rows)
    assert found.shape == (5, 7, 48)
    error = (found - expected).norm(dim=2) / expected.norm(dim=2)
    assert 1e-4 < error.max() < 0.02
    torch.testing.assert_close(found[0, 0], layer.bias)
    # Each row has a scale of its own: what else is in the batch does not matter.
    torch.testing.assert_close(QuantisedLinear(layer)(rows[2:3, 4:5]), found[2:3, 4:5])


@pytest.fixture(scope="module")
def transformer() -> TrainedNetworkClassifier:
    model = load_model("transformer", "cpu", precision="fp32")
    assert isinstance(model, TrainedNetworkClassifier)
    return model


def test_a_model_of_integers(transformer: TrainedNetworkClassifier) -> None:
    waveforms = noises(16_000, 40_000, 24_000)
    exact = transformer.predict_proba(waveforms)
    stored = transformer.tensors()
    model = load_model("transformer", "cpu", precision="int8")
    assert isinstance(model, TrainedNetworkClassifier)
    assert (model.precision, transformer.precision) == ("int8", "fp32")
    layers = [one for one in model.network.modules() if isinstance(one, QuantisedLinear)]
    assert len(layers) == 6 * 6
    found = model.predict_proba(waveforms)
    np.testing.assert_allclose(found, exact, atol=0.1)
    assert not np.allclose(found, exact, atol=1e-5)
    alone = np.concatenate([model.predict_proba([waveform]) for waveform in waveforms])
    np.testing.assert_allclose(alone, found, atol=1e-3)
    assert all(np.array_equal(one, stored[name]) for name, one in model.tensors().items())
    model.use_precision("fp32")
    np.testing.assert_allclose(model.predict_proba(waveforms), exact, atol=1e-6)


# A CPU for which `can_pack` is false may still multiply packed weights, but rounds them otherwise.
packs = pytest.mark.skipif(not can_pack(), reason="needs AVX512-BF16 without AMX")


@packs
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_the_same_products(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 80, bias=bias).to(torch.bfloat16)
    state = torch.get_rng_state()
    packed = PackedLinear(layer)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn for weights that go
    assert not any(one.requires_grad for one in packed.parameters())
    copied = copy.deepcopy(packed)
    assert copied is not packed
    assert copied.weight is packed.weight
    with torch.inference_mode():
        for n_rows in (1, 31, 200):
            rows = torch.randn(n_rows, 96)
            expected = layer(rows.to(torch.bfloat16))
            for one in (packed, copied):
                assert torch.equal(one(rows), expected)


@packs
def test_the_layers_of_a_transformer_are_packed(transformer: TrainedNetworkClassifier) -> None:
    model = load_model("transformer", "cpu", precision="bf16")
    assert isinstance(model, TrainedNetworkClassifier)
    packed = [one for one in model.network.modules() if isinstance(one, PackedLinear)]
    assert len(packed) == 6 * 6
    assert not any(isinstance(one, PackedLinear) for one in transformer.network.modules())
    assert all(one.bias is None for one in packed[::6])  # those of the keys
    again = pack(transformer.network)
    assert again.head.state_dict().keys() == transformer.network.head.state_dict().keys()
    assert {id(one) for one in again.head.parameters()} == {
        id(one) for one in transformer.network.head.parameters()
    }


def test_weights_are_packed_only_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    built = [True]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: built[0])
    for found, expected in (
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, False),
        ({"amx_bf16": False}, False),
        ({}, False),
    ):
        monkeypatch.setattr(devices, "_find_capabilities", lambda found=found: found)
        assert can_pack() is expected
    monkeypatch.setattr(devices, "_find_capabilities", lambda: {"avx512_bf16": True})
    built[0] = False
    assert can_pack() is False
    model = load_model("transformer", "cpu", precision="bf16")
    assert isinstance(model, TrainedNetworkClassifier)
    assert not any(isinstance(one, PackedLinear) for one in model.network.modules())


def test_bf16_is_close(transformer: TrainedNetworkClassifier) -> None:
    waveforms = noises(8_000)
    exact = transformer.predict_proba(waveforms)
    model = load_model("transformer", "cpu", precision="bf16")
    found = model.predict_proba(waveforms)
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert not np.allclose(found, exact, atol=1e-6)
    several = noises(8_000, 16_000, 24_000)
    alone = np.concatenate([model.predict_proba([one]) for one in several])
    np.testing.assert_allclose(model.predict_proba(several), alone, atol=1e-3)


def test_a_caller_may_compute_in_another_type(transformer: TrainedNetworkClassifier) -> None:
    waveforms = noises(16_000, 20_000)
    exact = transformer.predict_proba(waveforms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = transformer.predict_proba(waveforms)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found, exact, atol=0.02)


@pytest.mark.parametrize("name", ["transformer", "cnn/calm"])
def test_weights_are_converted_once_and_to_the_same(name: str) -> None:
    waveforms = noises(9_000, 16_000)
    exact = load_model(shipped_folder() / name, "cpu", precision="fp32")
    model = load_model(shipped_folder() / name, "cpu", precision="bf16")
    assert isinstance(exact, TrainedNetworkClassifier)
    assert isinstance(model, TrainedNetworkClassifier)
    with torch.inference_mode(), computing(CPU, torch.bfloat16):
        expected = exact.compute_rows(waveforms).float().numpy()
    np.testing.assert_array_equal(model.extract_features(waveforms), expected)
    types = {key: one.dtype for key, one in model.network.state_dict().items()}
    heads = [key for key in types if key.startswith("head.")]
    assert heads
    assert {types.pop(key) for key in heads} <= {torch.float32, torch.int64}
    products = [module for key, module in model.network.named_modules() if is_product(key, module)]
    assert len(products) > 5
    assert {one.weight.dtype for one in products} == {torch.bfloat16}
    stored = exact.tensors()
    assert all(np.array_equal(one, stored[key]) for key, one in model.tensors().items())


@pytest.mark.parametrize("name", ["cnn/calm", "transformer"])
def test_a_gpu_holds_the_converted_weights_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(shipped_folder() / name, "cpu", precision="fp32")
    assert isinstance(model, TrainedNetworkClassifier)
    stored = {key: one.copy() for key, one in model.tensors().items()}
    gpu = torch.device("meta")
    monkeypatch.setattr(model, "_device", gpu)
    monkeypatch.setattr(model, "devices", (gpu,))
    monkeypatch.setattr(neural, "find_precision", lambda name, *_: name)
    model.use_precision("bf16")
    weights = [*model.network.parameters(), *model.network.buffers()]
    assert {one.device for one in weights} == {gpu}
    assert {one.dtype for one in weights} >= {torch.float32, torch.bfloat16}
    exact = model.tensors()
    assert all(np.array_equal(one, stored[key]) for key, one in exact.items())
    kept = [*model._exact.parameters(), *model._exact.buffers()]
    assert {one.device for one in kept} == {CPU}
    model.use_precision("fp32")
    assert {one.device for one in model.network.parameters()} == {gpu}
    assert {one.dtype for one in model.network.parameters()} == {torch.float32}


def test_what_is_multiplied_is_rounded_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(3, 4, 3), nn.LayerNorm(4), nn.Linear(4, 2))
    network.add_module("head", nn.Linear(2, 2))
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(1 + 2**-8 + 2**-9)  # between two neighbours, nearer to the upper one
    round_to(network, torch.bfloat16)
    found = {name: set(one.flatten().tolist()) for name, one in network.named_parameters()}
    rounded = {f"{layer}.{kind}" for layer in "02" for kind in ("weight", "bias")}
    assert found == {
        name: {1 + 2**-7} if name in rounded else {1 + 2**-8 + 2**-9} for name in found
    }
    assert {one.dtype for one in network.parameters()} == {torch.float32}


def test_the_shipped_encoder_is_what_bf16_multiplies(transformer: TrainedNetworkClassifier) -> None:
    products = [
        module
        for name, module in transformer.network.encoder.named_modules()
        if is_product(name, module)
    ]
    assert len(products) == 2 + 6 * 6
    for module in products:
        for weights in module.parameters():
            assert weights.equal(weights.bfloat16().float())


def is_product(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and not name.startswith("head.")


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", "data2vec-audio"])
def test_checkpoints_of_others_in_bf16(kind: str, tmp_path: Path) -> None:
    save_checkpoint(kind, tmp_path)
    assert load_model(tmp_path, "cpu", labels="model").precision == "fp32"  # whatever is fast
    exact = load_model(tmp_path, "cpu", labels="model", precision="fp32")
    model = load_model(tmp_path, "cpu", labels="model", precision="bf16")
    assert isinstance(exact, NetworkClassifier)
    waveforms = noises(16_000, 20_000)
    with torch.inference_mode(), computing(CPU, torch.bfloat16):
        expected = exact.compute_rows(waveforms).float().numpy()
    np.testing.assert_array_equal(model.extract_features(waveforms), expected)


def test_what_has_no_layers_of_a_transformer() -> None:
    with pytest.raises(ConfigError, match="and the network has no layers of a transformer"):
        load_model("cnn", "cpu", precision="int8")
    model = load_model("cnn", "cpu", precision="fp32")
    with pytest.raises(ConfigError, match="expected auto, fp32, bf16 or fp16"):
        model.use_precision("int8")
    assert model.precision == "fp32"
    with pytest.raises(ConfigError, match="a model of the family svm multiplies fp32"):
        load_model("svm", precision="bf16")
    with pytest.raises(ConfigError, match="no layers of a transformer"):
        quantise(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm"])
def test_checkpoints_of_others_in_integers(kind: str, tmp_path: Path) -> None:
    save_checkpoint(kind, tmp_path)
    exact = load_model(tmp_path, "cpu", labels="model", precision="fp32")
    model = load_model(tmp_path, "cpu", labels="model", precision="int8")
    waveforms = noises(16_000, 20_000)
    expected = exact.predict_proba(waveforms)
    np.testing.assert_allclose(model.predict_proba(waveforms), expected, atol=0.05)


def test_precisions_and_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for name, device in (("fp16", CPU), ("int8", cuda), ("int8", torch.device("mps"))):
        with pytest.raises(ConfigError, match=f"precision is '{name}', and the device"):
            find_precision(name, device)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one of auto, fp32, bf16, fp16, int8"):
        find_precision("fp8", CPU)  # type: ignore[arg-type]
    found: list[Precision] = []
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(devices, "choose_precision", lambda _, fast=fast: fast)
        found += [find_precision("auto", CPU), find_precision("auto", cuda)]
    assert found == ["bf16", "bf16", "fp32", "fp16"]


def test_several_devices() -> None:
    assert choose_devices("cpu") == (CPU,)
    for none in (0, None, CPU):
        with pytest.raises(ConfigError, match="expected its name, such as 'cpu' or 'cuda:0'"):
            choose_devices(none)  # type: ignore[arg-type]
    for names in ("cpu,cpu", "cpu,cuda:7", "cuda:7"):
        with pytest.raises(ConfigError, match="device is"):
            choose_devices(names)


def test_replicas_share_their_weights_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    found = list(replicate(network, (CPU,), 3))
    assert [device for _, device in found] == [CPU] * 3
    modules = {id(module) for one, _ in found for module in one.modules()}
    assert len(modules) == 9
    for one, _ in found:
        for mine, other in zip(one.parameters(), network.parameters(), strict=True):
            assert mine.data_ptr() == other.data_ptr()


def test_replicas_go_round_the_devices() -> None:
    meta, other = torch.device("meta", 0), torch.device("meta", 1)
    network = nn.Linear(3, 3)
    found = list(replicate(network, (CPU, meta, other), 4))
    assert [device for _, device in found] == [CPU, meta, other] * 2 + [CPU] * 2
    assert [one.weight.device.type for one, _ in found] == ["cpu", "meta", "meta"] * 2 + ["cpu"] * 2
    assert len({id(one) for one, _ in found}) == 8
    for first, second in ((0, 3), (1, 4), (2, 5)):  # those on one device
        assert found[first][0].weight is found[second][0].weight
    assert found[0][0].weight is network.weight
    assert found[1][0].weight is not found[2][0].weight


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "data2vec-audio"])
def test_replicas_classify_at_the_same_time(kind: str, tmp_path: Path) -> None:
    """Some keep the lengths of a batch between their layers."""
    save_checkpoint(kind, tmp_path)
    model = load_model(tmp_path, "cpu", labels="model", precision="fp32")
    batches = [noises(*[8_000 + 320 * n] * (1 + n % 3), 16_000 + 100 * n) for n in range(40)]
    expected = [model.predict_proba(batch) for batch in batches]
    with model.replicas(4, 1, 12.0) as replicas, ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda n: [replicas[n].predict_proba(batch) for batch in batches[n::4]], range(4)
            )
        )
    for n, rows in enumerate(found):
        for row, plain in zip(rows, expected[n::4], strict=True):
            np.testing.assert_allclose(row, plain, atol=1e-5)


def test_a_batch_is_as_large_as_it_is_asked_for(transformer: TrainedNetworkClassifier) -> None:
    sizes: list[int] = []
    for seconds in (3.0, 40.0):
        with transformer.replicas(1, 1, seconds) as (replica,):
            pass
        embed = replica.network.embed

        def spy(waveforms: torch.Tensor, lengths: torch.Tensor, embed: Any = embed) -> Any:
            sizes.append(len(lengths))
            return embed(waveforms, lengths)

        replica.network.embed = spy
        replica.extract_features(noises(*[16_000] * 30))
    assert sizes == [3] * 10 + [30]


def test_threads_are_what_they_were_afterwards() -> None:
    before = torch.get_num_threads()
    with limit_threads(1):
        assert torch.get_num_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    # As Apple's GPUs tell it.
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 8.89 GiB, other allocations: 172.98 MiB, max "
        "allowed: 9.07 GiB). Tried to allocate 6.25 MiB on private pool."
    ),
    RuntimeError("Invalid buffer size: 20.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    # Memory that is not allocated by PyTorch, such as that of a kernel.
    torch.AcceleratorError("CUDA error: out of memory"),
]


class Forgetful(NetworkClassifier):
    """Has memory for three seconds."""

    family = "forgetful"

    def __init__(self, model: TrainedNetworkClassifier, error: RuntimeError) -> None:
        super().__init__(model.spec, nn.Linear(1, 1), "cpu")
        self.error = error
        self.sizes: list[float] = []

    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        seconds = sum(map(len, waveforms)) / 16_000
        self.sizes.append(seconds)
        if seconds > 3:
            raise self.error
        return torch.tensor([[float(len(waveform))] for waveform in waveforms])

    def score(self, features: Any) -> Any:
        return features


@pytest.mark.parametrize("error", NO_MEMORY)
def test_batches_are_halved_where_memory_does_not_suffice(
    transformer: TrainedNetworkClassifier, error: RuntimeError
) -> None:
    model = Forgetful(transformer, error)
    waveforms = noises(*[16_000] * 7, 8_000)
    rows = model.extract_features(waveforms)
    assert rows[:, 0].tolist() == [16_000] * 7 + [8_000]
    assert max(model.sizes) == 7
    model.sizes.clear()
    model.extract_features(waveforms)
    assert max(model.sizes) <= 3
    with pytest.raises(
        ConfigError,
        match=r"^a segment of 4\.00 s does not fit in the free memory of cpu; end other programs",
    ) as raised:
        model.extract_features(noises(64_000))
    assert raised.value.__cause__ is error


def test_batches_that_memory_does_not_suffice_for_are_not_tried_again(
    transformer: TrainedNetworkClassifier,
) -> None:
    model = Forgetful(transformer, NO_MEMORY[0])
    rows = model.extract_features(noises(*[16_000] * 20))
    assert rows[:, 0].tolist() == [16_000] * 20
    assert model.sizes == [12, 6, *[3] * 6, 2]


class Crowded(Forgetful):
    """Has memory for one worker at a time, the first of which waits for another to fail."""

    def __init__(self, model: TrainedNetworkClassifier, error: RuntimeError) -> None:
        super().__init__(model, error)
        self.inside: list[object] = []
        self.entered, self.failed = Event(), Event()

    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        self.inside.append(self)
        try:
            if len(self.inside) > 1:
                self.sizes.append(sum(map(len, waveforms)) / 16_000)
                self.failed.set()
                raise self.error
            self.entered.set()
            assert self.failed.wait(60)
            return super().compute_rows(waveforms)
        finally:
            self.inside.remove(self)


@pytest.mark.parametrize(
    ("n_samples", "sizes"), [([24_000], [1.5, 1.5]), ([16_000] * 4, [4, 2, 2])]
)
def test_memory_that_another_worker_holds_is_waited_for(
    transformer: TrainedNetworkClassifier, n_samples: list[int], sizes: list[float]
) -> None:
    model = Crowded(transformer, NO_MEMORY[0])
    other = copy.copy(model)
    other.sizes = []
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(model.extract_features, noises(8_000))
        assert model.entered.wait(60)
        rows = other.extract_features(noises(*n_samples))
        assert task.result().tolist() == [[8_000]]
    assert rows[:, 0].tolist() == n_samples
    assert (model.sizes, other.sizes) == ([0.5], sizes)


def test_batches_are_not_halved_for_another_error(transformer: TrainedNetworkClassifier) -> None:
    error = RuntimeError("MPS does not know this operation")
    model = Forgetful(transformer, error)
    with pytest.raises(RuntimeError) as raised:
        model.extract_features(noises(*[16_000] * 5))
    assert raised.value is error
    assert model.sizes == [5]


def test_multiply_adds_are_those_of_the_layers(transformer: TrainedNetworkClassifier) -> None:
    one, two = (count_multiply_adds(transformer, [seconds]) for seconds in (2.0, 4.0))
    width, frames = 512, 100
    layers = 6 * frames * (4 * width * width + 2 * width * 2048 + 2 * frames * width)
    convolutions = 200 * 80 * 3 * width + 100 * 3 * width * width
    assert one == pytest.approx(layers + convolutions, rel=0.05)
    assert 2 * one < two < 2.2 * one
    both = count_multiply_adds(transformer, [2.0, 4.0, 2.0])
    assert both == pytest.approx(2 * one + two)
    integers: Any = load_model("transformer", "cpu", precision="int8")
    assert count_multiply_adds(integers, [2.0]) == one


def test_a_gpu_too_full_for_the_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full, other = torch.device("meta", 0), torch.device("meta", 1)
    move = nn.Module.to

    def fail(module: nn.Module, device: torch.device) -> nn.Module:
        if device == full:
            raise NO_MEMORY[0]
        return move(module, device)

    monkeypatch.setattr(nn.Module, "to", fail)
    told = "^the network does not fit in the free memory of meta:0; end other programs that use it"
    with pytest.raises(ConfigError, match=told) as raised:
        list(replicate(nn.Linear(3, 3), (other, full), 1))
    assert raised.value.__cause__ is NO_MEMORY[0]
    folder = shipped_folder() / "cnn" / "calm"
    model = load_model(folder, "cpu", precision="fp32")
    monkeypatch.setattr(model, "_device", full)
    monkeypatch.setattr(neural, "find_precision", lambda name, *_: name)
    for precision in ("fp32", "bf16"):
        with pytest.raises(ConfigError, match=told):
            model.use_precision(precision)
    monkeypatch.setattr(neural, "choose_devices", lambda _: (full,))
    with pytest.raises(ConfigError, match=told):
        load_model(folder, "full", precision="fp32")


def test_a_head_that_memory_does_not_suffice_for_is_told(
    transformer: TrainedNetworkClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(transformer.network.head, "forward", fail)
    features = np.zeros((1, transformer.network.n_features), np.float32)
    error = NO_MEMORY[0]
    with pytest.raises(ConfigError, match="the head's input does not fit in the free memory of"):
        transformer.score(features)
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as raised:
        transformer.score(features)
    assert raised.value is error
