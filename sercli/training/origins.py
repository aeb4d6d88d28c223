"""The encoder that a training starts from: a pre-trained checkpoint, or a model of this package."""

from dataclasses import dataclass, field
from pathlib import Path

from sercli.classifiers.transformer import TransformerClassifier
from sercli.errors import ModelError
from sercli.evaluation.leaks import TrainingManifest
from sercli.neural.bases import Base, load_base
from sercli.registry.description import MODEL_FILE
from sercli.registry.store import load_model


@dataclass(frozen=True, eq=False)
class Origin:
    """An encoder and its training history.

    Parameters
    ----------
    base
        The encoder.
    limit
        Upper frequency limit of the audio, in Hz, for an encoder from a model of this package;
        None for others.
    manifest
        Manifest of the clips that such a model was trained on; empty for others.
    """

    base: Base
    limit: float | None = None
    manifest: TrainingManifest = field(default_factory=TrainingManifest)


def find_origin(base: str, revision: str | None = None) -> Origin:
    """Load the encoder for a training.

    Parameters
    ----------
    base
        Folder of a transformer trained by `ser train`; or a folder or name that
        `sercli.neural.bases.load_base` accepts.
    revision
        As for `load_base`.

    Raises
    ------
    ModelError
        As for `load_base` and `sercli.registry.store.load_model`; if the model is no transformer or
        has no manifest.
    """
    folder = Path(base)
    if not (folder / MODEL_FILE).is_file():
        return Origin(load_base(base, revision))
    model = load_model(folder.resolve(), "cpu", precision="fp32")
    if not isinstance(model, TransformerClassifier):
        raise ModelError(
            f"{folder}: is a model of the family {model.family}; expected a transformer, whose "
            "encoder can be trained further"
        )
    manifest = TrainingManifest.of(model)
    if manifest is None:
        raise ModelError(
            f"{folder}: has no manifest of its training data; expected manifest.csv, so that its "
            "encoder's training speakers are not scored"
        )
    network = model.network
    weights = {name: one.float() for name, one in network.encoder.model.state_dict().items()}
    found = Base(folder.resolve().name, network.settings.encoder, weights)
    return Origin(found, model.spec.band_limit, manifest)
