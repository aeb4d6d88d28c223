"""Reading and checking of ``model.json``, the description of a model."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from sercli.classifiers.families import ENCODER_FILE, FAMILIES
from sercli.errors import ModelError
from sercli.json_text import is_number, parse_json

# Version of the layout of model.json; others are rejected.
FORMAT = 1
MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
ADAPTER_FILE = "adapter.safetensors"
WEIGHTS_FILES = (WEIGHTS_FILE, ENCODER_FILE, ADAPTER_FILE)
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
# Hashes of what the model was trained on, and what it said of that when it was held out.
MANIFEST_FILE = "manifest.csv"
HELD_OUT_FILE = "held_out.csv"
# Files that tell of a model, and that a copy of it keeps.
TOLD_FILES = (CARD_FILE, METRICS_FILE, MANIFEST_FILE, HELD_OUT_FILE)

_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "format": (int, "a number"),
    "family": (str, "a name"),
    "labels": (list, "a list"),
    "sample_rate": (int, "a number"),
    "band_limit": ((int, float), "a number"),
    **dict.fromkeys(
        ("calibration", "settings", "training", "versions", "weights"), (dict, "{...}")
    ),
}
# Keys of models that also predict what is perceived, and of those that adapt to a baseline.
PERCEIVED, ADAPTER = "perceived", "adapter"
OPTIONAL = frozenset((PERCEIVED, ADAPTER))
# Informational keys that do not affect the model: numbers in them need not be finite.
TOLD = frozenset(("training", "versions"))
# Deepest nesting; no description that was written reaches it.
DEPTH = 20


def read_description(folder: Path) -> dict[str, Any]:
    """Read the description of a model folder.

    Parameters
    ----------
    folder
        The model folder.

    Raises
    ------
    ModelError
        If it cannot be read, has a layout or family that this version does not know, or has
        unusable values.
    """
    path = folder / MODEL_FILE
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else data
        raise ModelError(f"{path}: format is {shorten(found)}; this version reads format {FORMAT}")
    for name in OPTIONAL:
        data.setdefault(name, None)
    known = _KINDS.keys() | OPTIONAL
    if data.keys() != known:
        missing, unknown = sorted(known - data.keys()), sorted(data.keys() - known)
        raise ModelError(f"{path}: missing keys {missing}, unknown keys {unknown}")
    _check_numbers(path, data)
    for name, (kind, expected) in _KINDS.items():
        if not isinstance(data[name], kind):
            raise ModelError(f"{path}: {name} is {shorten(data[name])}; expected {expected}")
    for name in OPTIONAL:
        if not isinstance(data[name], dict | None):
            raise ModelError(f"{path}: {name} is {shorten(data[name])}; expected {{...}}")
    if not all(isinstance(label, str) for label in data["labels"]):
        raise ModelError(f"{path}: labels are {shorten(data['labels'])}; expected a list of names")
    if data["family"] not in FAMILIES:
        raise ModelError(
            f"{path}: family is {shorten(data['family'])}; this version knows {', '.join(FAMILIES)}"
        )
    if not 0 < data["band_limit"] <= data["sample_rate"] / 2:
        raise ModelError(
            f"{path}: band_limit is {data['band_limit']} Hz, sample_rate {data['sample_rate']} Hz; "
            "expected a limit above 0, up to half the sample rate"
        )
    return data


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's description, which in turn holds the hashes of its weights.

    Parameters
    ----------
    folder
        A model folder.

    Raises
    ------
    ModelError
        If the description cannot be read.
    """
    path = folder / MODEL_FILE
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _check_numbers(path: Path, data: Mapping[str, Any]) -> None:
    """Raise if values are nested too deeply, or numbers are not finite or too large."""
    left: list[tuple[str, Any, int]] = [(name, value, 0) for name, value in data.items()]
    while left:
        place, value, depth = left.pop()
        if depth > DEPTH:
            raise ModelError(f"{path}: {place} is nested more than {DEPTH} times; copy it again")
        if isinstance(value, dict):
            left += [(f"{place}.{shorten(key)}", one, depth + 1) for key, one in value.items()]
        elif isinstance(value, list):
            left += [(place, one, depth + 1) for one in value]
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and not is_number(value)
            and place.partition(".")[0] not in TOLD
        ):
            raise ModelError(
                f"{path}: {place} is {shorten(value)}; expected a finite number, or a smaller one"
            )
