"""Where networks run, and in which number type."""

from contextlib import AbstractContextManager, nullcontext

import torch

from sercli.errors import ConfigError

AUTO = "auto"


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


def choose_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it, else float32.

    Parameters
    ----------
    device
        Where the network runs.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # A CPU without such instructions takes bfloat16, too, and is hundreds of times slower.
        can = torch.cpu.get_capabilities()
        fast = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def computing(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which matrix products are of that number type, and the rest is float32.

    Parameters
    ----------
    device
        Where the network runs.
    precision
        Of `choose_precision`.
    """
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)
