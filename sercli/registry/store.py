"""Loading, verifying and saving of model folders.

A model folder holds ``model.json``, the weights as safetensors, ``README.md`` (the card) and
``metrics.json`` (the figures of ``ser eval``). Nothing in it can run code. A pre-trained encoder
has a file of its own, which stays the same when another head is trained on it. A fusion has no
weights; its ``model.json`` holds the names and hashes of its members, whose folders are inside its
own or found by their names. Classifiers of Hugging Face are loaded as published, from the hub or
from folders in their own layout.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.classifiers.families import FAMILIES, load_family
from sercli.classifiers.members import list_inside
from sercli.config import LabelScheme, Precision
from sercli.errors import ConfigError, ModelError
from sercli.files import make_folder, write_together
from sercli.neural.hub import HUB
from sercli.registry.catalogue import DEFAULT_MODEL, find_members, find_model, is_model
from sercli.registry.copies import check_room, list_left, read_copies, remove_left
from sercli.registry.description import (
    ADAPTER,
    ADAPTER_FILE,
    FORMAT,
    MODEL_FILE,
    PERCEIVED,
    WEIGHTS_FILE,
    WEIGHTS_FILES,
    model_hash,
    read_description,
)

if TYPE_CHECKING:
    from sercli.adaptation import Adapter
    from sercli.classifiers.base import Classifier, ModelSpec

# Types of the tensors of a model, for error messages.
TENSOR_TYPES = "expected float16 or float32"


def load_model(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    *,
    revision: str | None = None,
    labels: LabelScheme | None = None,
    precision: Precision = "auto",
) -> "Classifier":
    """Load a model and verify its weights.

    Parameters
    ----------
    model
        Name of a shipped or user's model, or the path of a model folder; or an audio classifier of
        Hugging Face: ``"hub:ORG/NAME"``, or a folder with its ``config.json`` and
        ``model.safetensors``, see `sercli.classifiers.hub.load_hub_classifier`.
    device
        Device of a network: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``, or
        several GPUs, separated by commas. Other models run on the CPU.
    revision
        Commit, tag or branch of a model on the hub.
    labels
        ``"ours"``, the default, translates the labels of a classifier of Hugging Face by the table
        of labels; ``"model"`` keeps them. All other models have our labels.
    precision
        Number type of a network's matrix products: ``"fp32"``, ``"bf16"``, ``"fp16"`` on a GPU,
        ``"int8"`` on a CPU; ``"auto"``: the fastest that hardly changes a label.

    Returns
    -------
    Classifier

    Raises
    ------
    ModelError
        If the model is missing, incomplete, altered or of an unknown kind.
    ConfigError
        If there is no such device, the model does not run on it, or it does not support
        `revision`, `labels` or `precision`.
    """
    name = os.fspath(model)
    if revision is not None and not name.startswith(HUB):
        raise ConfigError(
            f"revision is {revision!r}, which goes with a model on the hub, {HUB}NAME; "
            f"expected none for {name}"
        )
    classifier: Classifier
    if is_checkpoint_of_others(name):
        from sercli.classifiers.hub import load_hub_classifier

        classifier = load_hub_classifier(name, device, revision, labels or "ours")
    elif labels not in (None, "ours"):
        raise ConfigError(
            f"labels is {labels!r}, which goes with a classifier of Hugging Face; expected "
            f"ours, the default, for {name}"
        )
    else:
        classifier = _load_folder(find_model(name), device)
    classifier.use_precision(precision)
    return classifier


def is_checkpoint_of_others(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is a classifier of Hugging Face, not one that `ser train` made.

    Parameters
    ----------
    model
        As for `load_model`.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    name = os.fspath(model)
    return name.startswith(HUB) or not is_model(find_model(name))


def _load_folder(folder: Path, device: str) -> "Classifier":
    data = read_description(folder)
    try:
        classifier = _build(folder, data, device)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    classifier.folder = folder.resolve()
    classifier.sha256 = model_hash(folder)
    return classifier


def load_models(
    models: Sequence[str | os.PathLike[str]], device: str = "auto"
) -> "list[Classifier]":
    """Load models that are used together; networks among them run on the device, in float32.

    Parameters
    ----------
    models, device
        As for `load_model`.

    Raises
    ------
    ModelError, ConfigError
        As for `load_model`; also if a model is a classifier of Hugging Face, or none is a network
        and the device is not the CPU.
    """
    folders = [_find_trained(os.fspath(model)) for model in models]
    placed = [not load_family(read_description(folder)["family"]).in_workers for folder in folders]
    return [
        load_model(folder, device if runs_there or not any(placed) else "auto", precision="fp32")
        for folder, runs_there in zip(folders, placed, strict=True)
    ]


def _find_trained(model: str) -> Path:
    """Return the folder of a model that `ser train` made; raise if it is another."""
    if is_checkpoint_of_others(model):
        raise ModelError(
            f"{model}: is a classifier of Hugging Face, whose training data are not known; "
            "expected a model made by `ser train`"
        )
    return find_model(model)


def save_model(
    classifier: "Classifier",
    folder: str | os.PathLike[str],
    told: Mapping[str, bytes | None] = {},
) -> Path:
    """Write a model's description, its weights if it has any, and members inside its folder.

    Parameters
    ----------
    classifier
        The model.
    folder
        Folder of the output, created if needed; files of the same names are replaced.
    told
        Further files that appear with the model, by their names; None removes one of an earlier
        model.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ModelError
        If the model is a classifier of Hugging Face.
    OutputError
        If a file cannot be written, or something is in the way of a member.
    """
    from safetensors.numpy import save

    if classifier.family not in FAMILIES:
        raise ModelError(
            f"{classifier.name}: a checkpoint of Hugging Face is not saved as a model folder; keep "
            "its own folder"
        )
    target = Path(folder)
    make_folder(target)
    contents = {file: save(tensors) for file, tensors in _sort_tensors(classifier).items()}
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    members = _find_inside(classifier)
    check_room(target, members)
    contents |= read_copies(target, members)
    left = list_left(target, members, contents)
    contents |= {name: content for name, content in told.items() if content is not None}
    contents[MODEL_FILE] = _describe(classifier, hashes).encode()
    copies = {(target / file).parent for file in contents} - {target}
    try:
        for place in copies:
            make_folder(place)
        # Together, or a process that is killed in between leaves an earlier model in this folder
        # with weights that are not its own.
        write_together(
            {target / file: content for file, content in contents.items()},
            [target / name for name, content in told.items() if content is None],
        )
    finally:
        # Of copies that could not be written: these folders would be in the way of the next ones.
        for place in sorted(copies, reverse=True):
            with suppress(OSError):  # it is not empty
                place.rmdir()
    # What is left over from an earlier model, whose description is replaced.
    left += [target / file for file in {*WEIGHTS_FILES} - hashes.keys()]
    remove_left(target, left)
    return target


def _find_inside(classifier: "Classifier") -> dict[str, Path]:
    """Return the folders of the members that a fusion keeps in its own folder, by their names."""
    from sercli.classifiers.fusion import FusionClassifier

    names = list_inside(classifier.spec.settings)
    members = classifier.members if isinstance(classifier, FusionClassifier) else ()
    return {one.name: one.folder for one in members if one.name in names and one.folder}


def _describe(classifier: "Classifier", hashes: Mapping[str, str]) -> str:
    """Return the content of ``model.json``, given the hashes of the weight files."""
    spec = classifier.spec
    data: dict[str, Any] = {"format": FORMAT}
    data |= {item.name: getattr(spec, item.name) for item in fields(spec)}
    data["calibration"] = spec.calibration.to_dict()
    perceived = data.pop(PERCEIVED)
    if perceived is not None:
        data[PERCEIVED] = perceived.to_dict()
    if classifier.adapter is not None:
        data[ADAPTER] = classifier.adapter.to_dict()
    data["weights"] = hashes
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return f"{text}\n"


def _parse_spec(data: Mapping[str, Any]) -> "ModelSpec":
    """Return the specification in a description, without the hashes of the weights."""
    from sercli.audio import SAMPLE_RATE
    from sercli.calibration import Calibration
    from sercli.classifiers.base import ModelSpec

    labels = data["labels"]
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise ModelError(f"labels are {labels!r}; expected a list of two or more different names")
    if data["sample_rate"] != SAMPLE_RATE:
        raise ModelError(f"sample_rate is {data['sample_rate']!r} Hz; expected {SAMPLE_RATE} Hz")
    values = {item.name: data[item.name] for item in fields(ModelSpec)} | {"labels": tuple(labels)}
    for name in ("calibration", PERCEIVED):
        if data[name] is None:  # it predicts only what is intended
            continue
        values[name] = Calibration.from_dict(data[name])
        if len(values[name].bias) != len(labels):
            raise ModelError(f"{name} gives {len(values[name].bias)} of {len(labels)} labels")
        if len(values[name].weights) != len(values["calibration"].weights):
            raise ModelError(
                f"{name} takes {len(values[name].weights)} scores, calibration "
                f"{len(values['calibration'].weights)}; expected as many"
            )
    return ModelSpec(**values)


def _build(folder: Path, data: Mapping[str, Any], device: str) -> "Classifier":
    from sercli.classifiers.base import TensorClassifier
    from sercli.classifiers.fusion import FusionClassifier

    spec, family = _parse_spec(data), load_family(data["family"])
    expected = {ADAPTER_FILE} if data[ADAPTER] is not None else set()
    if issubclass(family, TensorClassifier):
        expected |= {WEIGHTS_FILE, *family.weight_files}
    if set(data["weights"]) != expected:
        raise ModelError(
            f"{MODEL_FILE} lists the weights {sorted(data['weights'])}; expected "
            f"{', '.join(sorted(expected)) or 'none'} of a model of the family {spec.family}"
            + (" with an adapter" if ADAPTER_FILE in expected else "")
        )
    tensors: dict[str, Any] = {}
    for file in sorted(data["weights"].keys() - {ADAPTER_FILE}):
        found = _load_tensors(folder, file, data)
        if twice := sorted(tensors.keys() & found):
            raise ModelError(f"{file} has {twice[0]}, which another file has, too; copy it again")
        tensors |= found
    model: Classifier
    if issubclass(family, TensorClassifier):
        model = family.from_tensors(spec, tensors, device)
    else:
        model = FusionClassifier(spec, load_models(find_members(folder, spec.settings), device))
    if data[ADAPTER] is not None:
        model.adapter = _build_adapter(
            model, data[ADAPTER], _load_tensors(folder, ADAPTER_FILE, data)
        )
    return model


def _load_tensors(folder: Path, file: str, data: Mapping[str, Any]) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(_read_verified(folder, file, data["weights"][file]))
    except SafetensorError as error:
        raise ModelError(f"{file} is not in safetensors format; copy it again") from error
    except KeyError as error:  # a type that NumPy does not have
        raise ModelError(f"{file} has tensors of the type {error}; {TENSOR_TYPES}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.name not in ("float16", "float32"):
            raise ModelError(f"{file}: {name} is of the type {tensor.dtype}; {TENSOR_TYPES}")
    return tensors


def _build_adapter(
    model: "Classifier", data: Mapping[str, Any], tensors: Mapping[str, Any]
) -> "Adapter":
    from sercli.adaptation import Adapter

    adapter = Adapter.from_dict(data, tensors)
    n_labels = len(model.spec.labels)
    if len(adapter.calibration.bias) != n_labels:
        raise ModelError(f"its adapter has {len(adapter.calibration.bias)} of {n_labels} labels")
    if len(adapter.calibration.weights) != n_labels:
        raise ModelError(
            f"its adapter's calibration takes {len(adapter.calibration.weights)} scores; expected "
            f"{n_labels}, one for each label"
        )
    return adapter


def _sort_tensors(classifier: "Classifier") -> dict[str, dict[str, Any]]:
    """Return the tensors of each weight file."""
    from sercli.classifiers.base import TensorClassifier

    files: dict[str, dict[str, Any]] = {}
    if isinstance(classifier, TensorClassifier):
        rest = dict(classifier.tensors())
        for file, prefix in classifier.weight_files.items():
            files[file] = {name: rest.pop(name) for name in list(rest) if name.startswith(prefix)}
        files[WEIGHTS_FILE] = rest
    if classifier.adapter is not None:
        files[ADAPTER_FILE] = classifier.adapter.tensors()
    return files


def _read_verified(folder: Path, name: str, expected: str) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}; copy it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"{name} is altered or damaged: SHA-256 is {found[:12]}..., {MODEL_FILE} says "
            f"{str(expected)[:12]}...; copy it again"
        )
    return content
