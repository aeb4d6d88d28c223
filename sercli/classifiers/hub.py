"""Classifiers of Hugging Face, made by others: their own heads, under our labels or theirs."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from sercli.arrays import FloatArray
from sercli.calibration import UNCALIBRATED, Calibration
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.neural import NetworkClassifier
from sercli.config import LONGEST_SEGMENT_S, LabelScheme, Precision
from sercli.datasets.labelling import common_label
from sercli.errors import ConfigError, ModelError
from sercli.neural.devices import AUTO, choose_devices
from sercli.neural.heads import PublishedNetwork, load_published
from sercli.neural.hub import HUB, WEIGHTS_FILE, fetch_checkpoint
from sercli.neural.mel import NYQUIST, SAMPLE_RATE

# What transformers calls labels that nobody has named.
_UNNAMED = re.compile(r"LABEL_\d+")


class HubClassifier(NetworkClassifier):
    """A classifier of Hugging Face as it is.

    Its probabilities are its own: nothing calibrates them.

    Parameters
    ----------
    spec
        ``settings`` holds ``architecture``, and its own ``labels`` in their order.
    network
        With its weights.
    members
        Of each label of `spec`, the indices of its own labels that mean the same.
    name
        On the hub, or of its folder.
    device
        Where it runs; see `sercli.neural.devices.choose_devices`.
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
        """On the hub, or of its folder."""
        return self._name

    @property
    def limits(self) -> tuple[str, ...]:
        """What a reader of its labels must know; a sentence each."""
        seconds = (self.network.n_samples or np.inf) / SAMPLE_RATE
        cut = f"Of a segment, it hears the first {seconds:.1f} s."
        return ("Its confidences are not calibrated.", *((cut,) * (seconds < LONGEST_SEGMENT_S)))

    def use_precision(self, precision: Precision) -> None:
        """Multiply another number type from now on; see `Classifier`.

        With ``"auto"``, it is float32: whether another changes its labels, nobody has measured.
        """
        super().use_precision("fp32" if precision == AUTO else precision)

    def length(self, waveform: FloatArray) -> int:
        """Return how many samples the network hears of a segment, padding included."""
        return self.network.n_samples or len(waveform)

    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        """Return logits of its own labels, shape (n_segments, n_labels)."""
        logits: torch.Tensor = self.network(waveforms)
        return logits

    def score(self, features: FloatArray) -> FloatArray:
        """Return logits, shape (n_segments, n_labels): odds of labels that mean the same add up."""
        columns = [np.logaddexp.reduce(features[:, own], axis=1) for own in self._members]
        return np.stack(columns, axis=1)


def load_checkpoint(
    model: str | Path,
    device: str = "auto",
    revision: str | None = None,
    labels: LabelScheme = "ours",
) -> HubClassifier:
    """Load a classifier of Hugging Face.

    Parameters
    ----------
    model
        ``hub:NAME`` or ``hub:ORG/NAME``, or a folder; with a folder, the network is never asked.
    device
        Where it runs; see `sercli.neural.devices.choose_devices`.
    revision
        On the hub: a commit, tag or branch.
    labels
        ``"ours"``: its labels are translated by the table of labels, and those that become the
        same are one; ``"model"``: they stay what they are.

    Raises
    ------
    ModelError
        If it cannot be loaded, see `sercli.neural.hub.fetch_checkpoint` and
        `sercli.neural.heads.load_published`, or the table does not know its labels.
    ConfigError
        If there is no such device, or no such way to name labels.
    """
    if labels not in get_args(LabelScheme):
        raise ConfigError(f"labels is {labels!r}; expected {' or '.join(get_args(LabelScheme))}")
    choose_devices(device)  # before anything is downloaded
    on_hub = isinstance(model, str) and model.startswith(HUB)
    name = str(model).removeprefix(HUB) if on_hub else Path(model).resolve().name
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
    with (folder / WEIGHTS_FILE).open("rb") as file:
        classifier.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    classifier.revision = folder.name if on_hub else None
    return classifier


def group_labels(own: Sequence[str], scheme: LabelScheme) -> dict[str, list[int]]:
    """Return the labels of a model, and which of a checkpoint's own labels each is.

    Parameters
    ----------
    own
        A checkpoint's labels.
    scheme
        As in `load_checkpoint`.

    Returns
    -------
    dict
        Label to indices into `own`; ours are in alphabetical order, theirs in their own.

    Raises
    ------
    ModelError
        If the table of labels does not know one of them, or there are not two different labels.
    """
    if scheme == "model":
        if len(set(own)) < len(own):
            raise ModelError(f"its labels are {', '.join(own)}; expected different names")
        return {label: [index] for index, label in enumerate(own)}
    keep = "`--labels model` keeps them as they are"
    if any(_UNNAMED.fullmatch(label) for label in own):
        raise ModelError(f"does not name its labels, which are {', '.join(own)}; {keep}")
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
