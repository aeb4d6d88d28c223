"""Teachers: models whose probabilities a network learns besides labels (Hinton et al. 2015).

A teacher says of clips that it learned from what models like it said while those clips were held
out of them: what it says of them now is little more than their labels. A model folder keeps that as
``held_out.csv``, by the hash of the audio.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Self

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.datasets.base import Clip
from sercli.datasets.decoding import cut_equally
from sercli.errors import ConfigError, DatasetError, ModelError
from sercli.evaluation.leaks import TrainingManifest, describe_overlap
from sercli.files import write_bytes
from sercli.registry.catalogue import find_member
from sercli.registry.store import load_model, model_hash
from sercli.schema import PROBABILITY_PREFIX
from sercli.training.cache import CachedClips

HELD_OUT_FILE = "held_out.csv"
AUDIO = "audio"
# Clips whose waveforms are in memory at once.
CLIPS_AT_ONCE = 256


def check_place(folder: Path, name: str, model: Path) -> None:
    """Refuse a model folder from which a model that it is made of would not be found again.

    Parameters
    ----------
    folder
        That is to be made.
    name
        Of the model that it is made of.
    model
        The folder of that.

    Raises
    ------
    ConfigError
        If another model would be found.
    ModelError
        If none would.
    """
    found = find_member(folder, name)
    if model_hash(found) != model_hash(model):
        raise ConfigError(
            f"{folder}: by the name of its member {name}, {found} would be found, and not {model}; "
            f"put it beside its members, such as {model.parent / folder.name}"
        )


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that teaches.

    Parameters
    ----------
    classifier
        The model.
    held_out
        By the hash of a clip's audio, what was said of it while it was held out.
    manifest
        Of what the model was trained on.
    """

    classifier: Classifier
    held_out: Mapping[str, DoubleArray]
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
            If the model cannot be loaded, or does not tell what it was trained on.
        """
        return cls.of(load_model(model, device, precision="fp32"))

    @classmethod
    def of(cls, classifier: Classifier) -> Self:
        """Make a teacher of a model.

        Parameters
        ----------
        classifier
            That was loaded.

        Raises
        ------
        ModelError
            If the model does not tell what it was trained on, or no longer as it was saved.
        """
        folder, manifest = classifier.folder, TrainingManifest.of(classifier)
        if folder is None or manifest is None:
            raise ModelError(
                f"{folder or classifier.name}: has no manifest of what it was trained on; expected "
                "one, by which the clips that it knows are told from others"
            )
        return cls(classifier, read_held_out(folder, classifier.spec.labels), manifest)

    @property
    def name(self) -> str:
        """That of the model."""
        return self.classifier.name

    @property
    def folder(self) -> Path:
        """That of the model."""
        assert self.classifier.folder is not None
        return self.classifier.folder

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the model."""
        return self.classifier.spec.labels

    def refuse_judged(
        self,
        clips: Sequence[Clip],
        role: str = "teacher",
        advice: str = "",
    ) -> None:
        """Refuse to be a part of what is measured on clips whose speakers it knows.

        Parameters
        ----------
        clips
            That are held out of what learns from it.
        role
            What it is to that.
        advice
            What else could be done about it.

        Raises
        ------
        ConfigError
            With the first of these speakers.
        """
        known = self.manifest.fitted.find_speakers(clips)
        if known:
            raise ConfigError(
                f"the {role} {self.name} was trained on {len(known)} of the speakers that are to "
                f"be judged, such as {known[0]}; expected none. Give a {role} that knows none of "
                f"them{advice}"
            )

    def refuse_learned(self, clips: Sequence[Clip], hashes: Sequence[str] = ()) -> None:
        """Refuse to fit, on what it says of clips, what it learned from these clips.

        Parameters
        ----------
        clips
            That it has nothing on from when they were held out.
        hashes
            Of their audio.

        Raises
        ------
        DatasetError
            If it knows any of them or of their speakers.
        """
        fitted = self.manifest.fitted
        speakers, n_clips = fitted.find_speakers(clips), fitted.count_clips(hashes)
        if speakers or n_clips:
            raise DatasetError(
                f"the member {self.name} was trained on {describe_overlap(speakers, n_clips)} of "
                f"those to fit on, and {self.folder / HELD_OUT_FILE} does not tell what it said "
                "when they were held out; train it anew with --fit-on train+dev, which writes that "
                "file, or fit on speakers that it does not know"
            )

    def check_held_out(self, cached: CachedClips) -> None:
        """Refuse clips that it knows and has nothing on from when they were held out.

        Parameters
        ----------
        cached
            The clips.

        Raises
        ------
        DatasetError
            See `refuse_learned`.
        """
        rest = [i for i, audio in enumerate(cached.hashes) if audio not in self.held_out]
        new = cached.take(rest)
        self.refuse_learned(new.clips, new.hashes)

    def count_learned(self, cached: CachedClips) -> int:
        """Return of how many clips it says what it learned, for want of anything held out."""
        rest = [audio for audio in cached.hashes if audio not in self.held_out]
        return self.manifest.fitted.count_clips(rest)

    def judge(self, cached: CachedClips, labels: Sequence[str]) -> DoubleArray:
        """Return what it says of clips, shape (n_clips, n_labels), rows summing to 1.

        Parameters
        ----------
        cached
            The clips.
        labels
            In the order of the columns.

        Raises
        ------
        ConfigError
            If it has other labels.
        """
        own = self.labels
        if set(own) != set(labels):
            raise ConfigError(
                f"the teacher {self.name} tells {', '.join(own)}; expected {', '.join(labels)}"
            )
        unknown = [
            index
            for index, audio in enumerate(cached.hashes)
            if audio not in self.held_out and audio not in self._known
        ]
        for start in range(0, len(unknown), CLIPS_AT_ONCE):
            part = unknown[start : start + CLIPS_AT_ONCE]
            pieces = [cut_equally(cached.utterance(index).waveform) for index in part]
            told = self.classifier.predict_proba([one for waveforms in pieces for one in waveforms])
            ends = np.cumsum([len(waveforms) for waveforms in pieces])
            for index, some in zip(part, np.split(told, ends[:-1]), strict=True):
                self._known[cached.hashes[index]] = some.mean(axis=0)
        rows = [
            self.held_out[audio] if audio in self.held_out else self._known[audio]
            for audio in cached.hashes
        ]
        return np.array(rows)[:, [own.index(label) for label in labels]]


def write_held_out(
    folder: Path, hashes: Sequence[str], labels: Sequence[str], probabilities: DoubleArray
) -> None:
    """Write ``held_out.csv`` into a model's folder.

    Parameters
    ----------
    folder
        The model folder.
    hashes
        Of the audio of each clip.
    labels
        In the order of the columns.
    probabilities
        Of models that did not learn from the clip, shape (n_clips, n_labels).

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([AUDIO, *(f"{PROBABILITY_PREFIX}{label}" for label in labels)])
    for audio, row in sorted(zip(hashes, probabilities.tolist(), strict=True)):
        writer.writerow([audio, *(f"{value:.4g}" for value in row)])
    write_bytes(folder / HELD_OUT_FILE, text.getvalue().encode())


def read_held_out(folder: Path, labels: Sequence[str]) -> dict[str, DoubleArray]:
    """Read ``held_out.csv`` of a model's folder; there is nothing if it has none.

    Parameters
    ----------
    folder, labels
        As for `write_held_out`.

    Raises
    ------
    ModelError
        If the file is not of these labels.
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
        if any(row.shape != (len(labels),) or not row.sum() > 0 for row in found.values()):
            raise ValueError("a row is not as long as the first, or all zero")
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(
            f"{path}: {error}; expected a CSV file with the columns {', '.join(expected)}. Copy "
            "the model's folder anew"
        ) from error
    # Rounded as they are, they do not sum to 1.
    return {audio: row / row.sum() for audio, row in found.items()}
