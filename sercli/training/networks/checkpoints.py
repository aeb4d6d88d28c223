"""Checkpoints of a training: one file, replaced atomically after each epoch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sercli.errors import ConfigError, ModelError
from sercli.files import write_bytes
from sercli.training.networks.history import EpochRecord

# Version of the file format.
FORMAT = 2

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a training after an epoch.

    Parameters
    ----------
    network
        Weights after the last step.
    average
        Moving average of the weights.
    best
        Moving average after the best epoch.
    optimiser
        State of the optimiser, from `sercli.training.networks.optimiser.Optimiser.state`.
    step
        Number of steps done.
    best_epoch
        Number of the best epoch, from 1.
    records
        Records of the epochs done.
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
    checkpoint: Checkpoint, path: Path, fingerprint: Mapping[str, Any] = {}
) -> None:
    """Write a checkpoint; the old file is kept until the new one is complete.

    Parameters
    ----------
    checkpoint
        Checkpoint to write.
    path
        Path of the file.
    fingerprint
        JSON-serialisable settings and data, which must be the same when the training is resumed.

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
        "fingerprint": dict(fingerprint),
        "step": checkpoint.step,
        "best_epoch": checkpoint.best_epoch,
        "records": [asdict(record) for record in checkpoint.records],
    }
    content = save(tensors, {"facts": json.dumps(facts)})
    write_bytes(path, content)


def load_checkpoint(path: Path, fingerprint: Mapping[str, Any] = {}) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path
        Path of the file.
    fingerprint
        Settings and data of the training that resumes.

    Raises
    ------
    ModelError
        If there is no such file, or it is damaged or of another format.
    ConfigError
        If it was written with another fingerprint.
    """
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if facts["format"] != FORMAT:
                raise ValueError(f"format is {facts['format']!r}, expected {FORMAT}")
            # The file is no mapping: iteration needs keys().
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        records = tuple(EpochRecord(**record) for record in facts["records"])
        step, best_epoch, found = facts["step"], facts["best_epoch"], facts["fingerprint"]
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no checkpoint to resume from; start without --resume") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: is not a checkpoint of this version, or is damaged ({error}); delete it, "
            "and start without --resume"
        ) from error
    # Through JSON, like the stored one: tuples become lists.
    wanted = json.loads(json.dumps(dict(fingerprint)))
    other = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if other:
        changes = "; ".join(
            f"{key} is {wanted.get(key)!r}, expected {found.get(key)!r}" for key in other
        )
        raise ConfigError(
            f"{path}: is from a training with other settings or data: {changes}; use the same "
            "ones, or start without --resume"
        )
    return Checkpoint(**parts, step=step, best_epoch=best_epoch, records=records)
