"""Locations of model folders, and a list of the models without loading any."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

from sercli.classifiers.members import list_inside, read_members
from sercli.errors import ModelError
from sercli.json_text import is_number, parse_json
from sercli.neural.hub import HUB, is_checkpoint
from sercli.registry.description import (
    ADAPTER,
    METRICS_FILE,
    MODEL_FILE,
    PERCEIVED,
    model_hash,
    read_description,
)

MODELS_VARIABLE = "SER_MODELS"
DEFAULT_MODEL = "transformer"
FUSION = "fusion"
# A safetensors file begins with the length of its JSON header, whose keys other than the metadata
# are tensors.
LENGTH_BYTES = 8
METADATA = "__metadata__"


@dataclass(frozen=True)
class ModelEntry:
    """An entry in the list of models, made without loading the model.

    Parameters
    ----------
    name
        Name of the folder.
    origin
        ``"shipped"`` or ``"user"``.
    path
        Path of the folder.
    family, labels
        Model family and labels, as in ``model.json``.
    targets
        Outputs of the model: ``"intended"``, and for some models ``"perceived"``.
    adapts
        Whether it can adapt segments to the baseline of their group.
    uar
        Unweighted average recall of its evaluation, or None.
    measured_on
        Corpus and split of that evaluation, or None.
    protocol
        Whether the model was trained on its speakers: ``"speakers apart"`` if not, ``"speakers
        shared"`` or ``"speakers unknown"``; or None.
    size
        Size of all files of the folder, in bytes.
    error
        Why the folder cannot be used, or None.
    """

    name: str
    origin: str
    path: Path
    family: str | None = None
    labels: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    adapts: bool = False
    uar: float | None = None
    measured_on: str | None = None
    protocol: str | None = None
    size: int = 0
    error: str | None = None


def shipped_folder() -> Path:
    """Return the folder of the shipped models, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def user_folder() -> Path:
    """Return the user's folder of models: ``$SER_MODELS``, else in the platform's data folder."""
    from platformdirs import user_data_path

    variable = os.environ.get(MODELS_VARIABLE)
    return Path(variable) if variable else user_data_path("ser", appauthor=False) / "models"


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, which may be in the layout of Hugging Face.

    Parameters
    ----------
    model
        A name, looked up in the user's folder, then among the shipped models; or the path of a
        folder.

    Raises
    ------
    ModelError
        If there is no such model; the message lists the places tried and the known models.
    """
    name = os.fspath(model)
    # A bare name is looked up as a name first: a folder that happens to be in the working directory
    # must not replace a shipped model.
    is_name = bool(name) and Path(name).name == name
    tried = [user_folder() / name, shipped_folder() / name] if is_name else []
    tried.append(Path(name))
    for folder in tried:
        if is_model(folder):
            return folder
    if name and is_checkpoint(Path(name)):
        return Path(name)
    places = (place for root in (shipped_folder(), user_folder()) for place in _list_folder(root))
    known = ", ".join(sorted({place.name for place in places if is_model(place)})) or "none"
    raise ModelError(
        f"model {name!r}: found no {MODEL_FILE} in {', '.join(map(str, tried))}; available "
        f"models: {known}; a classifier of Hugging Face is {HUB}ORG/NAME, or the path of its folder"
    )


def list_models() -> list[ModelEntry]:
    """Return the shipped models, then the user's, sorted by name; unusable ones have an error."""
    return [
        _describe(folder, origin)
        for origin, root in (("shipped", shipped_folder()), ("user", user_folder()))
        if os.path.isdir(root)
        for folder in _list_folder(root)
        if is_model(folder)
    ]


def _list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def find_member(folder: Path, name: str) -> Path:
    """Return the folder of a fusion's member: beside the fusion, else as `find_model` finds it.

    Parameters
    ----------
    folder
        Folder of the fusion; it need not exist yet.
    name
        Name of the member.

    Raises
    ------
    ModelError
        As for `find_model`.
    """
    beside = folder.resolve().parent / name
    return beside if is_model(beside) else find_model(name)


def find_members(folder: Path, settings: Mapping[str, Any]) -> list[Path]:
    """Return the folders of a fusion's members, which are those that it was fitted with.

    Parameters
    ----------
    folder
        Folder of the fusion.
    settings
        ``settings`` of its specification.

    Raises
    ------
    ModelError
        If a member is missing, or another model is in its place.
    """
    places, inside = [], list_inside(settings)
    for member in read_members(settings):
        is_inside = member.name in inside
        place = folder / member.name if is_inside else find_member(folder, member.name)
        if not is_model(place):
            raise ModelError(f"lacks its member {member.name}; copy the folder again")
        found = model_hash(place)
        if found != member.sha256:
            raise ModelError(
                f"its member {member.name}, {place}, is not the model that it was fitted with: "
                f"SHA-256 of its {MODEL_FILE} is {found[:12]}..., expected "
                f"{member.sha256[:12]}...; put that model back, or train the fusion again"
            )
        places.append(place)
    return places


def is_model(folder: Path) -> bool:
    """Return whether a folder is a model folder.

    Parameters
    ----------
    folder
        Any path.
    """
    return os.path.isfile(folder / MODEL_FILE)  # does not raise if a name is too long


def _describe(folder: Path, origin: str) -> ModelEntry:
    size = sum(map(_find_size, folder.rglob("*")))
    entry = ModelEntry(folder.name, origin, folder, size=size)
    try:
        data = read_description(folder)
    except ModelError as error:
        return replace(entry, error=str(error))
    entry = replace(entry, family=data["family"])
    if fault := _find_fault(folder, data):
        return replace(entry, error=fault)
    return replace(
        entry,
        labels=tuple(data["labels"]),
        targets=("intended", *((PERCEIVED,) if data[PERCEIVED] else ())),
        adapts=data[ADAPTER] is not None,
        **_read_evaluation(folder),
    )


def _find_fault(folder: Path, data: Mapping[str, Any]) -> str | None:
    """Return why a model's weights, or a member of a fusion, cannot be used; None if all can."""
    if missing := [name for name in data["weights"] if not os.path.isfile(folder / name)]:
        return f"{folder}: lacks {', '.join(missing)}; copy the folder again"
    if broken := [name for name in data["weights"] if _is_cut(folder / name)]:
        return f"{folder}: {', '.join(broken)} is truncated or damaged; copy the folder again"
    if data["family"] != FUSION:
        return None
    try:
        places = find_members(folder, data["settings"])
    except ModelError as error:
        return f"{folder}: {error}"
    return next((fault for place in places if (fault := _describe(place, "").error)), None)


def _find_size(path: Path) -> int:
    """Return the size of a file; 0 of all else, and of what cannot be read or is gone by now."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if S_ISREG(status.st_mode) else 0


def _read_evaluation(folder: Path) -> dict[str, Any]:
    """Return the fields of an entry that tell of a model's evaluation, if any."""
    try:
        data = parse_json((folder / METRICS_FILE).read_text(encoding="utf-8"))
        if not is_number(data["uar"]):
            return {}
        return {
            "uar": float(data["uar"]),
            "measured_on": f"{data['corpus']} {data['split']}",
            "protocol": str(data["protocol"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not evaluated, or not by `ser eval`


def _is_cut(path: Path) -> bool:
    """Return whether a file is not safetensors, or not of the length that its header states."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            begin, size = LENGTH_BYTES + length, os.fstat(stream.fileno()).st_size
            if begin > size:
                return True
            header = parse_json(stream.read(length).decode("utf-8"))
            ends = [one["data_offsets"][1] for name, one in header.items() if name != METADATA]
            return bool(begin + max(ends, default=0) != size)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True
