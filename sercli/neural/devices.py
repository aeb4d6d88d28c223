"""Where networks run, in which number type, and with how many threads."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, TypeVar, get_args

import torch
from torch import nn

from sercli.config import Precision
from sercli.errors import ConfigError
from sercli.system.shared_limit import SharedLimit

AUTO = "auto"
CPU = torch.device("cpu")
# Of each GPU: while it computes for one worker, another prepares what comes next.
WORKERS_PER_GPU = 2

# Of Apple's GPUs it is told by these words: the error has no type of its own.
MPS_OUT_OF_MEMORY = "MPS backend out of memory"

# Number types that autocast multiplies.
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Network = TypeVar("Network", bound=nn.Module)


def choose_device(name: str = AUTO) -> torch.device:
    """Return the device of a name.

    Parameters
    ----------
    name
        ``"auto"``: CUDA if there is any, else Apple's MPS, else the CPU; or ``"cpu"``, ``"cuda"``,
        ``"cuda:N"``, ``"mps"``.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = [f"cuda:{index}" for index in range(n_cuda)]
    if torch.backends.mps.is_available():
        there.append("mps")
    there.append("cpu")
    if name == AUTO:
        return torch.device(there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise ConfigError(
            f"device is {name!r}; expected auto, or one of those here: {', '.join(there)}"
        )
    return torch.device(wanted)


def choose_devices(names: str = AUTO) -> tuple[torch.device, ...]:
    """Return the devices of one or more names, separated by commas.

    Parameters
    ----------
    names
        Each as for `choose_device`.

    Raises
    ------
    ConfigError
        If one of them is not there, or is named twice, or there is a CPU among several.
    """
    devices = tuple(choose_device(name.strip()) for name in names.split(","))
    if len(devices) > 1 and (len({*devices}) < len(devices) or CPU in devices):
        raise ConfigError(f"device is {names!r}; expected one, or different GPUs: cuda:0,cuda:1")
    return devices


def replicate(
    network: Network, devices: Sequence[torch.device], n_workers: int
) -> Iterator[tuple[Network, torch.device]]:
    """Give networks that may run at the same time in several threads, and where they are.

    Their modules are apart, since some keep what they know of a batch from one layer to another;
    the weights of those on one device are the same. They go round the devices, so that the first
    few are on all of these.

    Parameters
    ----------
    network
        On the first of the devices.
    devices
        Where they are to be.
    n_workers
        Threads.
    """
    placed = {
        device: network if device == devices[0] else copy.deepcopy(network).to(device)
        for device in devices
    }
    # PyTorch's operations on Apple's GPUs are not safe in several threads.
    counts = {"cpu": n_workers, "mps": 1}
    numbers = {device: counts.get(device.type, WORKERS_PER_GPU) for device in devices}
    for number in range(max(numbers.values())):
        for device, one in placed.items():
            if number < numbers[device]:
                shared = {id(part): part for part in chain(one.parameters(), one.buffers())}
                yield copy.deepcopy(one, shared), device


@contextmanager
def limit_threads(n_threads: int) -> Iterator[None]:
    """Limit the threads with which a CPU computes, in this thread and those that start later.

    Parameters
    ----------
    n_threads
        Of each of them.
    """
    with _LIMIT.hold(n_threads):
        yield


def _limit_torch(n_threads: int) -> Callable[[], None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    return partial(torch.set_num_threads, before)


_LIMIT = SharedLimit(_limit_torch)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is that the memory of a GPU does not suffice.

    Parameters
    ----------
    error
        That was raised by a computation.
    """
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and MPS_OUT_OF_MEMORY in str(error)
    )


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed what draws in the block, and leave the generators as they were.

    Those of other GPUs are not asked how they were: each would be initialised for that. Apple's is
    seeded, and not asked either, which PyTorch does for GPUs that have numbers.

    Parameters
    ----------
    seed
        Of the draws.
    device
        On which is drawn besides the CPU.
    """
    with torch.random.fork_rng(devices=(device,) if device.type == "cuda" else ()):
        torch.manual_seed(seed)
        yield


def choose_precision(*devices: torch.device) -> torch.dtype:
    """Return bfloat16 if all devices multiply it faster than float32, else float32.

    It depends on the hardware alone, and is not measured: the results of two runs on one machine
    are to be the same.

    Parameters
    ----------
    devices
        Where the network runs.
    """
    return torch.bfloat16 if all(map(_has_fast_bf16, devices)) else torch.float32


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):  # that is what it tells of
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # A CPU without such instructions takes bfloat16, too, and is hundreds of times slower. One
        # of Intel whose tiles (AMX) are hidden by a virtual machine multiplies it half as fast as
        # float32 by those that are left; one of AMD, nearly twice as fast.
        can = torch.cpu.get_capabilities()
        by_intel = str(can.get("cpu_name", "")).startswith("Intel")
        return bool(can.get("amx_bf16") or (can.get("avx512_bf16") and not by_intel))
    return False


def find_precision(name: Precision, *devices: torch.device) -> Precision:
    """Return the number type that networks multiply on devices; ``"auto"`` is resolved.

    Parameters
    ----------
    name
        ``"auto"``: the fastest of those that hardly change a label: bfloat16 where the hardware
        multiplies it faster than float32, else float16 on a GPU, else float32. ``"int8"``:
        eight-bit integers in the layers of a transformer, on a CPU.
    devices
        Where the network runs, the same on all of them.

    Raises
    ------
    ConfigError
        If a device does not multiply it.
    """
    types = {device.type for device in devices}
    if name == AUTO:
        if choose_precision(*devices) == torch.bfloat16:
            return "bf16"
        return "fp16" if types == {"cuda"} else "fp32"
    if name not in get_args(Precision):
        expected = ", ".join(get_args(Precision))
        raise ConfigError(f"precision is {name!r}; expected one of {expected}")
    only = {"fp16": ("cuda", "mps"), "int8": ("cpu",)}.get(name)
    if only and (wrong := sorted(types.difference(only))):
        raise ConfigError(
            f"precision is {name!r}, and the device {wrong[0]}; expected {' or '.join(only)}, "
            "or another precision"
        )
    return name


def store_as(network: Network, precision: torch.dtype) -> Network:
    """Return a network that holds what it multiplies in the number type of the products.

    It is for use in `computing`, which would convert the same weights anew for every batch, and
    makes the same of everything. All other tensors are those of the given network.

    Parameters
    ----------
    network
        Which stays as it is; its ``head``, if it has one, is used elsewhere and is left out.
    precision
        Of matrix products.
    """
    shared = {id(one): one for one in chain(network.parameters(), network.buffers())}
    stored = copy.deepcopy(network, shared)
    for module, name, weights in _find_multiplied(stored):
        converted = weights.detach().to(precision)
        setattr(module, name, nn.Parameter(converted, requires_grad=False))
    return stored


def round_to(network: nn.Module, precision: torch.dtype) -> None:
    """Round what a network multiplies to what another number type can hold.

    Parameters
    ----------
    network
        Whose weights stay of the type that they are of; its ``head``, if it has one, is left out.
    precision
        Of matrix products.
    """
    with torch.no_grad():
        for _, _, weights in _find_multiplied(network):
            weights.copy_(weights.to(precision))


def _find_multiplied(network: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Return the weights of matrix products and convolutions: module, name and weights."""
    left_out = set(getattr(network, "head", nn.Identity()).modules())
    return [
        (module, name, weights)
        for module in network.modules()
        if module not in left_out and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        for name, weights in module.named_parameters(recurse=False)
    ]


def computing(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which matrix products are of that number type, and the rest is float32.

    Parameters
    ----------
    device
        Where the network runs.
    precision
        Of matrix products.
    """
    if precision != torch.float32:
        return torch.autocast(device.type, dtype=precision)
    return _EXACT.hold(True) if device.type == "cuda" else nullcontext()


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let a network that learns end at the same weights every time.

    Gradients are not computed in `computing`, so that float32 is seen to here, too.

    Parameters
    ----------
    device
        Where it learns.
    """
    if device.type != "cuda":
        yield
        return
    with _REPEATED.hold(True), _EXACT.hold(True):
        yield


def _set_flags(*flags: tuple[Any, str, Any]) -> Callable[[], None]:
    """Set attributes, and return what sets them as they were."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in flags]
    for flag in flags:
        setattr(*flag)

    def undo() -> None:
        for flag in before:
            setattr(*flag)

    return undo


_CUDNN: Any = torch.backends.cudnn  # types leave some of it out
# Else CUDA's convolutions multiply ten bits of each float32 (TF32), and products where somebody
# lets them.
_EXACT = SharedLimit(
    lambda _: _set_flags(
        (_CUDNN.conv, "fp32_precision", "ieee"),
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    )
)
# Else the gradients of convolutions are sums in any order, or computed in whichever way was the
# fastest when all were tried.
_REPEATED = SharedLimit(
    lambda _: _set_flags(
        (_CUDNN, "deterministic", True),
        (_CUDNN, "benchmark", False),
    )
)
