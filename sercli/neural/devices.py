"""Devices, number types and threads of networks."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
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
# While a GPU computes for one worker, the other prepares the next batch.
WORKERS_PER_GPU = 2

# Parts of messages about too little memory, of errors that have no type of their own.
OUT_OF_MEMORY = (
    "out of memory",  # of CUDA outside of PyTorch's allocator, and on MPS
    "Invalid buffer size",  # on MPS, of a tensor that exceeds the largest buffer
    "ALLOC_FAILED",  # of cuBLAS, cuFFT and cuSOLVER, and of cuDNN before version 9
    "ALLOCATION_FAILED",  # of cuDNN
)

# Floating-point number types by name.
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Network = TypeVar("Network", bound=nn.Module)

_CUDNN: Any = torch.backends.cudnn  # its type stubs are incomplete


def choose_device(name: str = AUTO) -> torch.device:
    """Return the device with a given name.

    Parameters
    ----------
    name
        ``"auto"``: CUDA if available, else Apple's MPS, else the CPU; or ``"cpu"``, ``"cuda"``,
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
        Names as for `choose_device`.

    Raises
    ------
    ConfigError
        If a device does not exist or is named twice, or the CPU is one of several.
    """
    if not isinstance(names, str):
        raise ConfigError(f"device is {names!r}; expected its name, such as 'cpu' or 'cuda:0'")
    devices = tuple(choose_device(name.strip()) for name in names.split(","))
    if len(devices) > 1 and (len({*devices}) < len(devices) or CPU in devices):
        raise ConfigError(f"device is {names!r}; expected one, or different GPUs: cuda:0,cuda:1")
    return devices


def replicate(
    network: Network, devices: Sequence[torch.device], n_workers: int
) -> Iterator[tuple[Network, torch.device]]:
    """Yield networks that may run at the same time in several threads, and their devices.

    Each has modules of its own, since some modules keep information on a batch from one layer to
    another; networks on the same device share their weights. The devices take turns, so that the
    first few networks cover all of them.

    Parameters
    ----------
    network
        Network on the first of the devices.
    devices
        Devices to run on.
    n_workers
        Number of networks on a CPU; the number on each GPU is fixed.

    Raises
    ------
    ConfigError
        If the memory of a device does not suffice.
    """
    placed = {devices[0]: network}
    for device in devices[1:]:
        with fitting("the network", device):
            placed[device] = copy.deepcopy(network).to(device)
    # PyTorch's operations on Apple's GPUs are not safe in several threads.
    counts = {"cpu": n_workers, "mps": 1}
    numbers = {device: counts.get(device.type, WORKERS_PER_GPU) for device in devices}
    for number in range(max(numbers.values())):
        for device, one in placed.items():
            if number < numbers[device]:
                shared = {id(part): part for part in chain(one.parameters(), one.buffers())}
                yield copy.deepcopy(one, shared), device


def _limit_torch(n_threads: int) -> Callable[[], None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    return partial(torch.set_num_threads, before)


# Limits the threads of PyTorch on a CPU, in this thread and those that start later.
limit_threads = SharedLimit(_limit_torch).hold


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a GPU is out of memory.

    Parameters
    ----------
    error
        Error raised by a computation.
    """
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


@contextmanager
def fitting(what: str, device: torch.device) -> Iterator[None]:
    """Turn an error within the block that means too little memory of a GPU into one of ours.

    Parameters
    ----------
    what
        What does not fit, for the message.
    device
        Device whose memory it needs.

    Raises
    ------
    ConfigError
        If the memory of the device does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{what} does not fit in the free memory of {device}; end other programs that use it, "
            "or choose another --device"
        ) from error


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the random generators within the block, and restore their states afterwards.

    The states of other GPUs are not saved, since that would initialise each of them. Apple's GPU is
    seeded, but its state is not restored: PyTorch does that only for GPUs with an index.

    Parameters
    ----------
    seed
        Seed of the draws.
    device
        Device that draws, in addition to the CPU.
    """
    with torch.random.fork_rng(devices=(device,) if device.type == "cuda" else ()):
        torch.manual_seed(seed)
        yield


def choose_precision(*devices: torch.device) -> torch.dtype:
    """Return bfloat16 if all devices multiply it faster than float32, else float32.

    The choice depends on the hardware alone and is not measured, so that two runs on the same
    machine have the same results.

    Parameters
    ----------
    devices
        Devices that the network runs on.
    """
    return torch.bfloat16 if all(map(_has_fast_bf16, devices)) else torch.float32


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):  # the query is about the current device
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # A CPU without such instructions supports bfloat16, too, but hundreds of times slower. If a
        # virtual machine hides the tiles (AMX) of an Intel CPU, AVX512-BF16 remains, which is half
        # as fast as float32; on AMD, it is nearly twice as fast.
        by_intel = str(_find_capabilities().get("cpu_name", "")).startswith("Intel")
        return has_amx() or (has_avx512_bf16() and not by_intel)
    return False


def has_amx() -> bool:
    """Return whether the CPU multiplies bfloat16 in tiles (Intel's AMX)."""
    return bool(_find_capabilities().get("amx_bf16"))


def has_avx512_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in vectors of 512 bits."""
    return bool(_find_capabilities().get("avx512_bf16"))


def _find_capabilities() -> dict[str, Any]:
    """Return what the CPU supports; nothing with PyTorch before 2.11, which does not report it."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def find_precision(name: Precision, *devices: torch.device) -> Precision:
    """Return the number type of a network's matrix products, with ``"auto"`` resolved.

    Parameters
    ----------
    name
        ``"auto"``: the fastest that hardly changes a label, which is bfloat16 where the hardware
        multiplies it faster than float32, else float16 on CUDA, else float32. ``"int8"``:
        eight-bit integers in the layers of a transformer, on a CPU.
    devices
        Devices that the network runs on, all with the same number type.

    Raises
    ------
    ConfigError
        If there is no such number type, or a device does not support it.
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
    """Return a network whose weights of matrix products are stored in the products' number type.

    In `computing`, it gives the same results as the original, whose weights would be converted
    again for every batch. All other tensors are shared with the original.

    Parameters
    ----------
    network
        The network, which is not changed. Its ``head``, if any, is used elsewhere and is not
        converted.
    precision
        Number type of matrix products.
    """
    shared = {id(one): one for one in chain(network.parameters(), network.buffers())}
    stored = copy.deepcopy(network, shared)
    for module, name, weights in _find_multiplied(stored):
        converted = weights.detach().to(precision)
        setattr(module, name, nn.Parameter(converted, requires_grad=False))
    return stored


def round_to(network: nn.Module, precision: torch.dtype) -> None:
    """Round a network's weights of matrix products, in place, to values of another number type.

    Parameters
    ----------
    network
        The network, whose weights keep their own type; its ``head``, if any, is not rounded.
    precision
        Number type to round to.
    """
    with torch.no_grad():
        for _, _, weights in _find_multiplied(network):
            weights.copy_(weights.to(precision))


def _find_multiplied(network: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Return module, name and values of the weights of linear layers and convolutions."""
    left_out = set(getattr(network, "head", nn.Identity()).modules())
    return [
        (module, name, weights)
        for module in network.modules()
        if module not in left_out and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        for name, weights in module.named_parameters(recurse=False)
    ]


def computing(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which matrix products use a number type, and all else uses float32.

    Parameters
    ----------
    device
        Device that the network runs on.
    precision
        Number type of matrix products.
    """
    if precision != torch.float32:
        return torch.autocast(device.type, dtype=precision)
    return _EXACT.hold(True) if device.type == "cuda" else nullcontext()


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make the training of a network reproducible within the block, except attention on CUDA.

    The gradients of attention are summed in any order there, so that layers of an encoder end close
    to the same weights only. The one backend that would not, the mathematical one, keeps the
    attention of each frame to each other in float32: several GB per layer for clips of 30 s.

    Gradients are computed outside of `computing`, so exact float32 products are set here, too.

    Parameters
    ----------
    device
        Device that the network is trained on.
    """
    if device.type != "cuda":
        yield
        return
    with _REPEATED.hold(True), _EXACT.hold(True):
        yield


def _set_flags(*flags: tuple[Any, str, Any]) -> Callable[[], None]:
    """Set attributes, and return a function that restores them."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in flags]
    for flag in flags:
        setattr(*flag)

    def undo() -> None:
        for flag in before:
            setattr(*flag)

    return undo


def _forbid_tf32() -> Callable[[], None]:
    owners = (_CUDNN.conv, _CUDNN.rnn, torch.backends.cuda.matmul)
    flags = [(owner, "fp32_precision", "ieee") for owner in owners]
    # The older flag comes first, as it sets the newer ones. Where these differ from it, PyTorch
    # raises an error if other code reads it, as `torch.backends.cudnn.flags` does.
    with suppress(RuntimeError):  # they differ already, by somebody else's settings
        return _set_flags((_CUDNN, "allow_tf32", False), *flags)
    return _set_flags(*flags)


# Otherwise, CUDA's convolutions multiply only ten bits of each float32's fraction (TF32), and so do
# matrix products if that was enabled.
_EXACT = SharedLimit(lambda _: _forbid_tf32())
# Otherwise, the gradients of convolutions are summed in any order, and the algorithm is the one
# that was fastest in a trial.
_REPEATED = SharedLimit(
    lambda _: _set_flags(
        (_CUDNN, "deterministic", True),
        (_CUDNN, "benchmark", False),
    )
)
