"""Model folders: where they are, what they hold, and that nothing in them was altered.

A model folder holds ``model.json``, the weights as safetensors, ``README.md`` (the card) and
``metrics.json`` (what ``ser eval`` measured). Nothing in it can run code. Classifiers of Hugging
Face, from the hub or from folders of their own layout, are loaded beside them as they are.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.config import LabelScheme
from sercli.errors import ConfigError, ModelError
from sercli.hub import HUB, is_checkpoint

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier, ModelSpec

# Version of the layout of model.json; a reader refuses those it does not know.
FORMAT = 1
MODEL_FILE = "model.json"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
WEIGHTS_FILE = "weights.safetensors"
MODELS_VARIABLE = "SER_MODELS"
DEFAULT_MODEL = "svm"

# Family to "module:class": a family's packages load with its first model, and never before.
_FAMILIES: Mapping[str, str] = {
    "svm": "sercli.classifiers.svm:SvmClassifier",
    "cnn": "sercli.classifiers.cnn:CnnClassifier",
    "transformer": "sercli.classifiers.transformer:TransformerClassifier",
}

_KEYS = frozenset(
    (
        "format",
        "family",
        "labels",
        "sample_rate",
        "band_limit",
        "calibration",
        "settings",
        "training",
        "versions",
        "weights",
    )
)


@dataclass(frozen=True)
class ModelEntry:
    """A model folder as a list of models shows it, without loading the model.

    Parameters
    ----------
    name
        Name of the folder.
    origin
        ``"shipped"`` or ``"user"``.
    path
        The folder.
    family, labels
        As in ``model.json``.
    uar
        Measured unweighted average recall, or None.
    measured_on
        Corpus and split that `uar` was measured on, or None.
    size
        Bytes of all files of the folder.
    error
        Why the folder cannot be used, or None.
    """

    name: str
    origin: str
    path: Path
    family: str | None = None
    labels: tuple[str, ...] = ()
    uar: float | None = None
    measured_on: str | None = None
    size: int = 0
    error: str | None = None


def shipped_folder() -> Path:
    """Return the folder of the shipped models, of a wheel or of a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def user_folder() -> Path:
    """Return the user's folder of models: ``$SER_MODELS``, else the platform's data folder."""
    from platformdirs import user_data_path

    variable = os.environ.get(MODELS_VARIABLE)
    return Path(variable) if variable else user_data_path("ser", appauthor=False) / "models"


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, which may be one in the layout of Hugging Face.

    Parameters
    ----------
    model
        A name, looked up in the user's folder, then among the shipped; or the path of a folder.

    Raises
    ------
    ModelError
        If there is no such model; the message lists the places tried and the models there are.
    """
    name = os.fspath(model)
    # A bare name is first a name: a folder that happens to lie in the working directory must not
    # take the place of a shipped model.
    is_name = bool(name) and Path(name).name == name
    tried = [user_folder() / name, shipped_folder() / name] if is_name else []
    tried.append(Path(name))
    for folder in tried:
        if (folder / MODEL_FILE).is_file():
            return folder
    if name and is_checkpoint(Path(name)):
        return Path(name)
    known = ", ".join(sorted({entry.name for entry in list_models()})) or "none"
    raise ModelError(
        f"model {name!r}: found no {MODEL_FILE} in {', '.join(map(str, tried))}; "
        f"models at hand: {known}; one on the hub is {HUB}ORG/NAME"
    )


def list_models() -> Iterator[ModelEntry]:
    """Give the shipped models, then the user's, by name; unusable folders with their error."""
    for origin, root in (("shipped", shipped_folder()), ("user", user_folder())):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / MODEL_FILE).is_file():
                    yield _describe(folder, origin)


def load_model(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    *,
    revision: str | None = None,
    labels: LabelScheme | None = None,
) -> "Classifier":
    """Load a model and verify its weights.

    Parameters
    ----------
    model
        A shipped or user's model by name, or the path of a model folder; or an audio classifier of
        Hugging Face: ``"hub:ORG/NAME"``, or a folder with its ``config.json`` and
        ``model.safetensors``, see `sercli.classifiers.hub.load_checkpoint`.
    device
        Where a network runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``. Other
        models run on the CPU.
    revision
        Of a model on the hub: a commit, tag or branch.
    labels
        Of a classifier of Hugging Face: ``"ours"``, the default, translates its labels by the table
        of labels; ``"model"`` keeps them.

    Returns
    -------
    Classifier

    Raises
    ------
    ModelError
        If the model is missing, incomplete, altered or of an unknown kind.
    ConfigError
        If there is no such device, the model does not run on it, or `revision` or `labels` does not
        go with it.
    """
    name = os.fspath(model)
    if not name.startswith(HUB):
        if revision is not None:
            raise ConfigError(
                f"revision is {revision!r}, which goes with a model on the hub, {HUB}NAME; "
                f"expected none for {name}"
            )
        folder = find_model(name)
        if (folder / MODEL_FILE).is_file():
            if labels is not None:
                raise ConfigError(
                    f"labels is {labels!r}, which goes with a classifier of Hugging Face; expected "
                    f"none for {name}"
                )
            return _load_folder(folder, device)
    from sercli.classifiers.hub import load_checkpoint

    return load_checkpoint(name, device, revision, labels or "ours")


def _load_folder(folder: Path, device: str) -> "Classifier":
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = _read_description(folder)
    if set(data["weights"]) != {WEIGHTS_FILE}:
        raise ModelError(
            f"{folder}: {MODEL_FILE} lists the weights {sorted(data['weights'])}; "
            f"expected {WEIGHTS_FILE}"
        )
    try:
        tensors = load(_read_verified(folder, WEIGHTS_FILE, data["weights"][WEIGHTS_FILE]))
        classifier = _family(data["family"]).from_tensors(_parse_spec(data), tensors, device)
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS_FILE}: is not in safetensors format") from error
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    classifier.folder = folder.resolve()
    classifier.sha256 = model_hash(folder)
    return classifier


def save_model(classifier: "Classifier", folder: str | os.PathLike[str]) -> Path:
    """Write a model's weights and description; the folder is made.

    Parameters
    ----------
    classifier
        The model.
    folder
        Where to; files of the same names are replaced.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.numpy import save

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    content = save(dict(classifier.tensors()))
    (target / WEIGHTS_FILE).write_bytes(content)
    spec = classifier.spec
    data: dict[str, Any] = {"format": FORMAT}
    data |= {item.name: getattr(spec, item.name) for item in fields(spec)}
    data["calibration"] = spec.calibration.to_dict()
    data["weights"] = {WEIGHTS_FILE: hashlib.sha256(content).hexdigest()}
    text = json.dumps(data, indent=2, ensure_ascii=False)
    (target / MODEL_FILE).write_text(text + "\n", encoding="utf-8")
    return target


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's description, which in turn holds those of its weights.

    Parameters
    ----------
    folder
        A model folder.
    """
    return hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()


def entry_as_dict(entry: ModelEntry) -> dict[str, Any]:
    """Return an entry as JSON holds it.

    Parameters
    ----------
    entry
        A row of `list_models`.
    """
    return asdict(entry) | {"path": str(entry.path)}


def _describe(folder: Path, origin: str) -> ModelEntry:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        data = _read_description(folder)
    except ModelError as error:
        return ModelEntry(folder.name, origin, folder, size=size, error=str(error))
    uar, measured_on = _read_uar(folder)
    labels = tuple(data["labels"])
    return ModelEntry(folder.name, origin, folder, data["family"], labels, uar, measured_on, size)


def _read_uar(folder: Path) -> tuple[float | None, str | None]:
    try:
        data = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        return float(data["uar"]), f"{data['corpus']} {data['split']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None, None  # not measured, or not by `ser eval`


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else data
        raise ModelError(f"{path}: format is {found!r}; this version reads format {FORMAT}")
    if set(data) != _KEYS:
        missing, unknown = sorted(_KEYS - set(data)), sorted(set(data) - _KEYS)
        raise ModelError(f"{path}: missing keys {missing}, unknown keys {unknown}")
    if data["family"] not in _FAMILIES:
        raise ModelError(
            f"{path}: family is {data['family']!r}; this version knows {', '.join(_FAMILIES)}"
        )
    return data


def _read_verified(folder: Path, name: str, expected: str) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}; copy it anew") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"{name} is altered or damaged: SHA-256 is {found[:12]}..., "
            f"{MODEL_FILE} says {str(expected)[:12]}...; copy it anew"
        )
    return content


def _parse_spec(data: Mapping[str, Any]) -> "ModelSpec":
    from sercli.audio import SAMPLE_RATE
    from sercli.calibration import Calibration
    from sercli.classifiers.base import ModelSpec

    labels = data["labels"]
    if not isinstance(labels, list) or len(set(labels)) != len(labels) or len(labels) < 2:
        raise ModelError(f"labels are {labels!r}; expected a list of two or more different names")
    if data["sample_rate"] != SAMPLE_RATE:
        raise ModelError(f"sample_rate is {data['sample_rate']!r} Hz; expected {SAMPLE_RATE} Hz")
    calibration = Calibration.from_dict(data["calibration"])
    if len(calibration.bias) != len(labels):
        raise ModelError(f"calibration gives {len(calibration.bias)} of {len(labels)} labels")
    values = {item.name: data[item.name] for item in fields(ModelSpec)}
    return ModelSpec(**(values | {"labels": tuple(labels), "calibration": calibration}))


def _family(name: str) -> type["Classifier"]:
    module, _, attribute = _FAMILIES[name].partition(":")
    result: type[Classifier] = getattr(import_module(module), attribute)
    return result
