"""Teachers: models whose probabilities a network learns in addition to labels (Hinton et al. 2015).

For its own training clips, a teacher gives the probabilities of models like it from which those
clips were held out, since its present probabilities of them are little more than their labels. A
model folder keeps them in ``held_out.csv``, by the hash of the audio.
"""

import csv
import os
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Self

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import cut_equally
from sercli.errors import ConfigError, DatasetError, ModelError
from sercli.evaluation.leaks import TrainingManifest, describe_overlap
from sercli.registry.catalogue import find_member
from sercli.registry.description import HELD_OUT_FILE, model_hash
from sercli.registry.store import load_model
from sercli.schema import PROBABILITY_PREFIX
from sercli.training.cache import CachedClips

AUDIO = "audio"
# Maximum number of clips whose waveforms are in memory at once.
CLIPS_AT_ONCE = 256


def check_place(folder: Path, name: str, model: Path) -> None:
    """Raise if a member would not be found by its name from a new model folder.

    Parameters
    ----------
    folder
        Path of the new model folder.
    name
        Name of the member.
    model
        Path of the member's folder.

    Raises
    ------
    ConfigError
        If another model would be found.
    ModelError
        If no model would be found.
    """
    found = find_member(folder, name)
    if model_hash(found) != model_hash(model):
        raise ConfigError(
            f"{folder}: the name of its member {name} would lead to {found}, not to {model}; put "
            f"the new model beside its members, such as {model.parent / folder.name}"
        )


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model as a source of target probabilities.

    Parameters
    ----------
    classifier
        The model.
    held_out
        Held-out probabilities of its training clips, by the hash of their audio.
    manifest
        Manifest of its training clips.
    """

    classifier: Classifier
    held_out: dict[str, DoubleArray]
    manifest: TrainingManifest
    _known: dict[str, DoubleArray] = field(default_factory=dict)

    @classmethod
    def load(cls, model: str | os.PathLike[str], device: str = "auto") -> Self:
        """Load a model as a teacher.

        Parameters
        ----------
        model, device
            As for `sercli.registry.store.load_model`.

        Raises
        ------
        ModelError
            If the model cannot be loaded, or has no valid manifest or held-out probabilities.
        """
        return cls.of(load_model(model, device, precision="fp32"))

    @classmethod
    def of(cls, classifier: Classifier) -> Self:
        """Create a teacher from a loaded model.

        Parameters
        ----------
        classifier
            The model, loaded from its folder.

        Raises
        ------
        ModelError
            If the model has no manifest, or the manifest or the held-out probabilities in its
            folder are not valid.
        """
        folder, manifest = classifier.folder, TrainingManifest.of(classifier)
        if folder is None or manifest is None:
            raise ModelError(
                f"{folder or classifier.name}: has no manifest of its training data; expected "
                "manifest.csv in its folder, to tell which clips it was trained on"
            )
        return cls(classifier, read_held_out(folder, classifier.spec.labels), manifest)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.classifier.name

    @property
    def folder(self) -> Path:
        """Folder of the model."""
        assert self.classifier.folder is not None
        return self.classifier.folder

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the model."""
        return self.classifier.spec.labels

    def refuse_held_out(
        self,
        clips: Sequence[Clip],
        role: str = "teacher",
        advice: str = "",
    ) -> None:
        """Raise if the model was trained on speakers of held-out clips.

        Parameters
        ----------
        clips
            Clips held out of the training that uses the model.
        role
            Role of the model in that training, for the error message.
        advice
            Further advice, for the error message.

        Raises
        ------
        ConfigError
            If there are such speakers; the message names the first.
        """
        fitted = self.manifest.fitted
        known = fitted.find_speakers(clips)
        if known:
            count = fitted.count_speakers(clips)
            raise ConfigError(
                f"the {role} {self.name} was trained on {count} of the speakers to be "
                f"scored, such as {known[0]}; expected none. Give a {role} that was not trained "
                f"on any of them{advice}"
            )

    def refuse_learned(self, clips: Sequence[Clip], hashes: Sequence[str] = ()) -> None:
        """Raise if the model was trained on clips to fit on that were never held out of it.

        Parameters
        ----------
        clips
            Clips to fit on.
        hashes
            Hashes of their audio, if known; clips with held-out probabilities do not count.

        Raises
        ------
        DatasetError
            If the model was trained on any of the other clips or of their speakers.
        """
        if hashes:
            rest = [i for i, audio in enumerate(hashes) if audio not in self.held_out]
            clips, hashes = [clips[i] for i in rest], [hashes[i] for i in rest]
        fitted = self.manifest.fitted
        n_speakers, n_clips = fitted.count_speakers(clips), fitted.count_clips(hashes)
        if n_speakers or n_clips:
            raise DatasetError(
                f"the member {self.name} was trained on {describe_overlap(n_speakers, n_clips)} of "
                f"the clips to fit on, and {self.folder / HELD_OUT_FILE} has no held-out "
                "probabilities for them; retrain it with --fit-on train+dev, which writes that "
                "file, or fit on speakers that are new to it"
            )

    def count_learned(self, cached: CachedClips) -> int:
        """Return the number of clips that are training clips without held-out probabilities."""
        rest = [audio for audio in cached.hashes if audio not in self.held_out]
        return self.manifest.fitted.count_clips(rest)

    def refuse_labels(self, labels: Sequence[str]) -> None:
        """Raise if the model has other labels.

        Parameters
        ----------
        labels
            Labels to learn, in any order.

        Raises
        ------
        ConfigError
            If they are not those of the model.
        """
        if set(self.labels) != set(labels):
            raise ConfigError(
                f"the teacher {self.name} has the labels {', '.join(self.labels)}; expected "
                f"{', '.join(labels)}, those of the clips. Train on clips of all its labels, or "
                "with another teacher"
            )

    def classify(self, cached: CachedClips, labels: Sequence[str]) -> DoubleArray:
        """Return probabilities of clips, shape (n_clips, n_labels), rows summing to 1.

        They are the held-out ones where there are any, else those of the model.

        Parameters
        ----------
        cached
            The clips.
        labels
            Labels, in the order of the columns.

        Raises
        ------
        ConfigError
            If the model has other labels.
        """
        self.refuse_labels(labels)
        own = self.labels
        known = ChainMap(self.held_out, self._known)
        unknown = [index for index, audio in enumerate(cached.hashes) if audio not in known]
        for start in range(0, len(unknown), CLIPS_AT_ONCE):
            part = unknown[start : start + CLIPS_AT_ONCE]
            pieces = [cut_equally(cached.utterance(index).waveform) for index in part]
            told = self.classifier.predict_proba([one for waveforms in pieces for one in waveforms])
            ends = np.cumsum([len(waveforms) for waveforms in pieces])
            for index, some in zip(part, np.split(told, ends[:-1]), strict=True):
                self._known[cached.hashes[index]] = some.mean(axis=0)
        rows = [known[audio] for audio in cached.hashes]
        return np.array(rows)[:, [own.index(label) for label in labels]]


def encode_held_out(
    hashes: Sequence[str], labels: Sequence[str], probabilities: DoubleArray
) -> bytes:
    """Return the content of ``held_out.csv`` in a model's folder.

    Parameters
    ----------
    hashes
        Hash of the audio of each clip.
    labels
        Labels, in the order of the columns.
    probabilities
        Probabilities by models that were not trained on the clip, shape (n_clips, n_labels).
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([AUDIO, *(f"{PROBABILITY_PREFIX}{label}" for label in labels)])
    for audio, row in sorted(zip(hashes, probabilities.tolist(), strict=True)):
        writer.writerow([audio, *(f"{value:.4g}" for value in row)])
    return text.getvalue().encode()


def read_held_out(folder: Path, labels: Sequence[str]) -> dict[str, DoubleArray]:
    """Read ``held_out.csv`` from a model's folder; return an empty dict if there is none.

    Parameters
    ----------
    folder, labels
        Path of the model folder, and labels, in the order of the columns.

    Returns
    -------
    dict
        Probabilities of each clip, summing to 1, by the hash of its audio.

    Raises
    ------
    ModelError
        If the file cannot be read, or has other columns or invalid rows.
    """
    path = folder / HELD_OUT_FILE
    if not path.is_file():
        return {}
    expected = [AUDIO, *(f"{PROBABILITY_PREFIX}{label}" for label in labels)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if header != expected:
            raise ValueError(f"columns are {', '.join(header)}")
        found = {audio: np.array(values, dtype=np.float64) for audio, *values in rows}
        for audio, row in found.items():
            if row.shape != (len(labels),) or not (np.isfinite(row) & (row >= 0)).all():
                raise ValueError(
                    f"the row of {audio} has other values than {len(labels)} from 0 on"
                )
            if not row.any():
                raise ValueError(f"the row of {audio} is all zero")
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(
            f"{path}: {error}; expected a CSV file with the columns {', '.join(expected)}. Copy "
            "the model's folder again"
        ) from error
    # The values in the file are rounded, so that they do not sum to 1.
    return {audio: row / row.sum() for audio, row in found.items()}
