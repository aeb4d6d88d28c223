"""Published classifiers of Hugging Face with their own heads, under our labels or theirs."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.calibration import UNCALIBRATED, Calibration
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.neural import NetworkClassifier
from sercli.config import LONGEST_SEGMENT_S, LabelScheme, Precision
from sercli.datasets.labelling import common_label
from sercli.errors import ConfigError, ModelError
from sercli.neural.devices import AUTO, choose_devices
from sercli.neural.hub import (
    CONFIG_FILE,
    HUB,
    HUB_WEIGHTS_FILE,
    PREPROCESSOR_FILES,
    fetch_checkpoint,
)
from sercli.neural.mel import NYQUIST
from sercli.neural.published_networks import PublishedNetwork, load_published
from sercli.text import compose

# Default names that transformers gives to labels without a name.
_UNNAMED = re.compile(r"LABEL_\d+")


class HubClassifier(NetworkClassifier):
    """A published classifier of Hugging Face, whose probabilities are not calibrated.

    Parameters
    ----------
    spec
        Specification, whose ``settings`` hold the ``architecture`` and the checkpoint's own
        ``labels``, in their order.
    network
        Network with its weights.
    members
        For each label of `spec`, the indices of the checkpoint's own labels that map to it.
    name
        Name on the hub, or of its folder.
    device
        Device to run on; see `sercli.neural.devices.choose_devices`.
    """

    family = "hub"

    def __init__(
        self,
        spec: ModelSpec,
        network: PublishedNetwork,
        members: Sequence[Sequence[int]],
        name: str,
        device: str = "auto",
    ) -> None:
        super().__init__(spec, network, device)
        self._members = members
        self._name = name

    @property
    def name(self) -> str:
        """Name on the hub, or of its folder."""
        return self._name

    @property
    def limits(self) -> tuple[str, ...]:
        """Limitations that a user of its labels must know, one sentence each."""
        seconds = (self.network.n_samples or np.inf) / SAMPLE_RATE
        cut = f"It reads only the first {seconds:.1f} s of a segment."
        return ("Its confidences are not calibrated.", *((cut,) * (seconds < LONGEST_SEGMENT_S)))

    def use_precision(self, precision: Precision) -> None:
        """Change the number type of the matrix products; see `Classifier`.

        ``"auto"`` means float32: the effect of other types on its labels has not been measured.
        """
        super().use_precision("fp32" if precision == AUTO else precision)

    def length(self, waveform: FloatArray) -> int:
        """Return the number of samples of a segment in the network's input, padding included."""
        return self.network.n_samples or len(waveform)

    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        """Return logits of the checkpoint's own labels, shape (n_segments, n_own_labels)."""
        logits: torch.Tensor = self.network(waveforms)
        return logits

    def score(self, features: FloatArray) -> FloatArray:
        """Return logits, shape (n_segments, n_labels); probabilities of merged labels add up."""
        with np.errstate(invalid="ignore"):  # whoever takes probabilities checks them
            columns = [np.logaddexp.reduce(features[:, own], axis=1) for own in self._members]
        return np.stack(columns, axis=1)


def load_hub_classifier(
    model: str, device: str, revision: str | None, labels: LabelScheme
) -> HubClassifier:
    """Load a classifier of Hugging Face.

    Parameters
    ----------
    model
        ``hub:NAME`` or ``hub:ORG/NAME``, or the path of a folder, for which no connection is made.
    device
        Device to run on; see `sercli.neural.devices.choose_devices`.
    revision
        Commit, tag or branch on the hub.
    labels
        ``"ours"``: its labels are translated by the table of labels, and merged where several
        become the same; ``"model"``: they are kept, see `group_labels`.

    Raises
    ------
    ModelError
        If it cannot be loaded, see `sercli.neural.hub.fetch_checkpoint` and
        `sercli.neural.published_networks.load_published`, or its labels are unsuitable, see
        `group_labels`.
    ConfigError
        If there is no such device, or `labels` is invalid.
    """
    if labels not in get_args(LabelScheme):
        raise ConfigError(f"labels is {labels!r}; expected {' or '.join(get_args(LabelScheme))}")
    choose_devices(device)  # before anything is downloaded
    on_hub = model.startswith(HUB)
    name = model.removeprefix(HUB) if on_hub else Path(model).resolve().name
    folder = fetch_checkpoint(name, revision) if on_hub else Path(model)
    network = load_published(folder)
    own = [str(label) for _, label in sorted(network.config.id2label.items())]
    try:
        members = group_labels(own, labels)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    n_labels = len(members)
    spec = ModelSpec(
        family=HubClassifier.family,
        labels=tuple(members),
        sample_rate=SAMPLE_RATE,
        band_limit=NYQUIST,
        calibration=Calibration(UNCALIBRATED, np.eye(n_labels), np.zeros(n_labels)),
        settings={"architecture": network.config.model_type, "labels": own},
    )
    classifier = HubClassifier(spec, network, [*members.values()], name, device)
    classifier.sha256 = _hash(folder)
    classifier.revision = folder.name if on_hub else None
    return classifier


def _hash(folder: Path) -> str:
    """Return the SHA-256 of all files that results depend on: also of labels and preprocessing."""
    together = hashlib.sha256()
    for name in (CONFIG_FILE, HUB_WEIGHTS_FILE, *PREPROCESSOR_FILES):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            together.update(f"{name} {found}\n".encode())
    return together.hexdigest()


def group_labels(own: Sequence[str], scheme: LabelScheme) -> dict[str, list[int]]:
    """Return the labels of a model, each with the checkpoint's own labels that map to it.

    Parameters
    ----------
    own
        Labels of the checkpoint.
    scheme
        Label scheme, as `labels` in `load_hub_classifier`.

    Returns
    -------
    dict
        Label to indices into `own`; our labels are in alphabetical order, the checkpoint's own in
        their order, composed (NFC) and on one line without needless spaces.

    Raises
    ------
    ModelError
        For ``"ours"``, if a label is not in the table of labels, or fewer than two different ones
        result; for ``"model"``, if two labels are the same, or one is empty.
    """
    if scheme == "model":
        # As words of a corpus, of `--map` and of labels that are read back; others match none.
        labels = [" ".join(compose(label).split()) for label in own]
        if len(set(labels)) < len(own) or not all(labels):
            named = ", ".join(label or "''" for label in labels)
            raise ModelError(
                f"its labels are {named}; expected different names, none of them empty"
            )
        return {label: [index] for index, label in enumerate(labels)}
    keep = "`--labels model` keeps them untranslated"
    if any(_UNNAMED.fullmatch(label) for label in own):
        raise ModelError(f"does not name its labels, but calls them {', '.join(own)}; {keep}")
    members: dict[str, list[int]] = {}
    unknown = []
    for index, word in enumerate(own):
        label = common_label(word.strip())
        if label is None:
            unknown.append(repr(word))
        else:
            members.setdefault(label, []).append(index)
    if unknown:
        raise ModelError(
            f"its labels {', '.join(unknown)} are not in the table of labels; expected words for "
            f"emotions, such as angry or sad; {keep}"
        )
    if len(members) < 2:
        raise ModelError(f"its labels {', '.join(own)} mean the same; {keep}")
    return dict(sorted(members.items()))
