"""Where a training stands: one file, replaced as a whole after each epoch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sercli.errors import ConfigError, ModelError
from sercli.files import write_bytes
from sercli.training.networks.history import EpochRecord

CHECKPOINT_FILE = "checkpoint.safetensors"
# Version of the layout of the file.
FORMAT = 2

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that the next epoch needs.

    Parameters
    ----------
    network
        Weights, as the last step left them.
    average
        Their moving average.
    best
        The average after the best epoch.
    optimiser
        Of `sercli.training.networks.optimiser.Optimiser.state`.
    step
        Number of steps done.
    best_epoch
        From 1.
    records
        Of the epochs done.
    """

    network: Tensors
    average: Tensors
    best: Tensors
    optimiser: Tensors
    step: int
    best_epoch: int
    records: tuple[EpochRecord, ...]


_PARTS = ("network", "average", "best", "optimiser")


def save_checkpoint(
    checkpoint: Checkpoint, path: Path, fingerprint: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint; the old one stays until the new one is whole.

    Parameters
    ----------
    checkpoint
        What is written.
    path
        The file.
    fingerprint
        Settings and data, which must be the same when the training goes on; what JSON can hold.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
        for part in _PARTS
        for name, tensor in getattr(checkpoint, part).items()
    }
    facts = {
        "format": FORMAT,
        "fingerprint": dict(fingerprint or {}),
        "step": checkpoint.step,
        "best_epoch": checkpoint.best_epoch,
        "records": [record.to_dict() for record in checkpoint.records],
    }
    content = save(tensors, {"facts": json.dumps(facts)})
    write_bytes(path, content)


def load_checkpoint(path: Path, fingerprint: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path
        The file.
    fingerprint
        Of the settings and data with which training goes on.

    Raises
    ------
    ModelError
        If there is no such file, or it is damaged.
    ConfigError
        If it is of other settings or data.
    """
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if facts["format"] != FORMAT:
                raise ValueError(f"format is {facts['format']!r}, expected {FORMAT}")
            # Not a mapping, whatever it looks like: it must be asked for its keys.
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        records = tuple(EpochRecord(**record) for record in facts["records"])
        step, best_epoch, found = facts["step"], facts["best_epoch"], facts["fingerprint"]
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: there is no checkpoint to resume from; start without --resume"
        ) from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: is no checkpoint of this version, or damaged ({error}); delete it, and start "
            "without --resume"
        ) from error
    # As JSON gives it back: tuples are lists.
    wanted = json.loads(json.dumps(dict(fingerprint or {})))
    other = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if other:
        changes = "; ".join(
            f"{key} is {wanted.get(key)!r}, expected {found.get(key)!r}" for key in other
        )
        raise ConfigError(
            f"{path}: is of a training with other settings or data: {changes}; give the same as "
            "then, or start without --resume"
        )
    return Checkpoint(**parts, step=step, best_epoch=best_epoch, records=records)
