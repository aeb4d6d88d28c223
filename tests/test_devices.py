"""Where networks run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sercli import load_model
from sercli.classifiers import neural
from sercli.classifiers.neural import TrainedNetworkClassifier
from sercli.errors import ConfigError
from sercli.neural.devices import (
    choose_device,
    choose_precision,
    computing,
    find_precision,
    repeatable,
    seeded,
)
from sercli.registry.catalogue import shipped_folder


def there_are(monkeypatch: pytest.MonkeyPatch, n_cuda: int, *, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("n_cuda", "mps", "expected"), [(2, False, "cuda:0"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_fastest(
    monkeypatch: pytest.MonkeyPatch, n_cuda: int, mps: bool, expected: str
) -> None:
    there_are(monkeypatch, n_cuda, mps=mps)
    assert choose_device() == torch.device(expected)
    assert choose_device("cpu") == torch.device("cpu")


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    there_are(monkeypatch, 2, mps=False)
    assert choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    for missing in ("cuda:2", "mps", "gpu", "meta", ""):
        with pytest.raises(ConfigError, match=r"one of those here: cuda:0, cuda:1, cpu"):
            choose_device(missing)


def test_precision_is_what_the_hardware_multiplies_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for can, expected in (
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "AMD Zen4"}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can, raising=False)
        assert choose_precision(cpu) == expected
    assert choose_precision(torch.device("mps")) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # as before PyTorch 2.11
    assert choose_precision(cpu) == torch.float32


def test_no_generator_is_asked_but_those_that_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    there_are(monkeypatch, 3, mps=False)
    asked: list[object] = []
    restored: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda one: asked.append(one))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _, one: restored.append(one))
    state = torch.get_rng_state()
    draws = []
    for device in ("cpu", "mps", "cuda:2"):
        with seeded(7, torch.device(device)):
            draws.append(torch.rand(3).tolist())
    generator = torch.Generator().manual_seed(7)
    assert draws == [torch.rand(3, generator=generator).tolist()] * 3
    assert torch.equal(torch.get_rng_state(), state)
    assert asked == restored == [torch.device("cuda:2")]


def test_precision_is_that_of_the_gpus_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    is_new = {torch.device("cuda:0"): False, torch.device("cuda:1"): True}
    current = [torch.device("cuda:0")]

    @contextmanager
    def make_current(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: is_new[current[-1]])
    old, new = is_new
    expected: list[tuple[tuple[torch.device, ...], torch.dtype, str]] = [
        ((old,), torch.float32, "fp16"),
        ((new,), torch.bfloat16, "bf16"),
        ((old, new), torch.float32, "fp16"),
        ((new, old), torch.float32, "fp16"),
        ((new, new), torch.bfloat16, "bf16"),
        ((new, torch.device("mps")), torch.float32, "fp32"),
    ]
    for devices, products, name in expected:
        assert choose_precision(*devices) == products
        assert find_precision("auto", *devices) == name
    assert len(current) == 1


def test_a_model_on_several_devices_multiplies_what_is_fast_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    found = []
    for names in (("cpu",), ("cpu", "meta")):
        devices = tuple(map(torch.device, names))
        monkeypatch.setattr(neural, "choose_devices", lambda _, devices=devices: devices)
        found.append(load_model("cnn", "several", precision="auto").precision)
    assert found == ["bf16", "fp32"]


@pytest.mark.parametrize(("name", "is_pinned"), [("cuda:1", True), ("mps", False), ("cpu", False)])
def test_only_what_is_pinned_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, name: str, is_pinned: bool
) -> None:
    """Apple's GPUs may read what is freed by then, and corrupt what they hear."""
    model = load_model(shipped_folder() / "cnn" / "calm", "cpu", precision="fp32")
    assert isinstance(model, TrainedNetworkClassifier)
    waveforms = [np.linspace(-0.1, 0.1, n, dtype=np.float32) for n in (8_000, 5_000)]
    expected = model.compute_rows(waveforms)
    device = torch.device(name)
    monkeypatch.setattr(model, "_device", device)
    pinned: list[int] = []
    moved: list[tuple[bool, bool]] = []
    move = Tensor.to

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(id(tensor))
        return tensor

    def spy(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        if args[:1] != (device,):
            return move(tensor, *args, **options)
        moved.append((id(tensor) in pinned, options.get("non_blocking", False)))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", spy)
    assert torch.equal(model.compute_rows(waveforms), expected)
    assert moved[:2] == [(is_pinned, is_pinned)] * 2


def test_products_are_of_the_chosen_type() -> None:
    cpu, matrix = torch.device("cpu"), torch.ones(2, 2)
    with computing(cpu, torch.bfloat16):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with computing(cpu, torch.float32):
        assert (matrix @ matrix).dtype == torch.float32


# What somebody may have set: float32 may be multiplied less exactly, and the fastest way be tried.
SLOPPY: dict[str, object] = {
    "conv": "tf32",
    "rnn": "tf32",
    "matmul": "tf32",
    "deterministic": False,
    "benchmark": True,
    "allow_tf32": True,
}
EXACT = dict.fromkeys(("conv", "rnn", "matmul"), "ieee") | {"allow_tf32": False}


def read_flags() -> dict[str, object]:
    cudnn: Any = torch.backends.cudnn
    return {
        "conv": cudnn.conv.fp32_precision,
        "rnn": cudnn.rnn.fp32_precision,
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "allow_tf32": cudnn.allow_tf32,
    }


@pytest.fixture
def sloppy() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    cudnn.benchmark = True
    assert read_flags() == SLOPPY
    yield
    assert read_flags() == SLOPPY
    torch.set_float32_matmul_precision(before[0])
    cudnn.benchmark = before[1]


@pytest.mark.usefixtures("sloppy")
def test_float32_on_a_gpu_is_no_tf32() -> None:
    cuda = torch.device("cuda:1")
    exact = SLOPPY | EXACT
    # In several threads, one begins before another ends.
    first, second = computing(cuda, torch.float32), computing(cuda, torch.float32)
    first.__enter__()
    assert read_flags() == exact
    second.__enter__()
    first.__exit__(None, None, None)
    assert read_flags() == exact
    second.__exit__(None, None, None)
    assert read_flags() == SLOPPY
    with pytest.raises(ZeroDivisionError), computing(cuda, torch.float32):
        raise ZeroDivisionError
    for name in ("cpu", "mps"):
        with computing(torch.device(name), torch.float32):
            assert read_flags() == SLOPPY


@pytest.mark.usefixtures("sloppy")
def test_others_may_set_and_read_older_flags_meanwhile() -> None:
    flags: Any = torch.backends.cudnn.flags
    with computing(torch.device("cuda"), torch.float32):
        with flags(enabled=True, allow_tf32=True):
            assert read_flags()["conv"] == "tf32"
        assert read_flags()["conv"] != "tf32"
        assert not torch.backends.cudnn.allow_tf32


def test_flags_that_differ_are_left_as_they_were() -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "ieee"
    try:
        with pytest.raises(RuntimeError, match="different TF32 flags"):
            _ = cudnn.allow_tf32
        with computing(torch.device("cuda"), torch.float32):
            assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", "ieee")
        assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", "tf32")
    finally:
        cudnn.conv.fp32_precision = "tf32"
    assert cudnn.allow_tf32


@pytest.mark.usefixtures("sloppy")
def test_a_training_on_a_gpu_leaves_nothing_to_chance() -> None:
    cuda = torch.device("cuda:0")
    repeated = EXACT | {"deterministic": True, "benchmark": False}
    with repeatable(cuda):
        with computing(cuda, torch.float32):
            assert read_flags() == repeated
        assert read_flags() == repeated
    with repeatable(torch.device("cpu")):
        assert read_flags() == SLOPPY
