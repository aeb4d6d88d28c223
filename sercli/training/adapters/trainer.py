"""Trainer that adds an adapter to an existing model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.classifiers.fusion import FusionClassifier
from sercli.classifiers.members import INSIDE, read_members
from sercli.datasets.clip import Clip
from sercli.datasets.matching import count_speakers
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.files import write_bytes
from sercli.registry.catalogue import find_member
from sercli.registry.copies import is_replaced
from sercli.registry.description import HELD_OUT_FILE
from sercli.training.adapters.adaptation import MIN_SPEAKERS, add_adapter
from sercli.training.adapters.groups import Examples
from sercli.training.cache import CachedClips
from sercli.training.config import AdapterConfig
from sercli.training.teachers import Teacher, check_place
from sercli.training.trainer import Learned, Trainer

# Replaces a probability of 0: held-out probabilities are rounded, in older models to four decimals.
LEAST = 2.5e-5


@dataclass(frozen=True, eq=False)
class AdapterTrainer(Trainer[CachedClips]):
    """Trainer of an adapter of a model, on clips that are new to the model or were held out of it.

    The other parameters are those of `Trainer`.

    Parameters
    ----------
    config
        Training settings, with the device of the model.
    model
        The model, loaded as a teacher.
    """

    config: AdapterConfig
    model: Teacher

    def begin(self, folder: Path) -> None:
        """Raise if the folder is the model's own, or a fusion's members would not be found from it.

        Raises
        ------
        ConfigError
            If the folder is that of the model, or another model would be found for a member.
        ModelError
            If no model would be found for a member.
        """
        if folder.resolve() == self.model.folder.resolve():
            raise ConfigError(
                f"{folder}: is the folder of the model itself; expected another folder"
            )
        if is_replaced(folder, self.model.folder):
            raise ConfigError(
                f"{folder}: contains the model {self.model.folder}, which would be replaced; "
                "expected another folder"
            )
        spec = self.model.classifier.spec
        is_fusion = spec.family == FusionClassifier.family and not spec.settings.get(INSIDE)
        for member in read_members(spec.settings) if is_fusion else ():
            check_place(folder, member.name, find_member(self.model.folder, member.name))

    def check_held_out(self, clips: Sequence[Clip]) -> None:
        """Raise if the model was trained on speakers of held-out clips.

        Raises
        ------
        ConfigError
            If there are such speakers.
        """
        self.model.refuse_held_out(clips, "model")

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Raise if the clips are of too few speakers, or of too few of the model's labels.

        Raises
        ------
        DatasetError
            If they are.
        """
        lacking = {*self.model.classifier.spec.labels}.difference(clip.emotion for clip in clips)
        if lacking:
            raise DatasetError(
                f"none of the {len(clips):,} clips is labelled {' or '.join(sorted(lacking))}; "
                f"expected clips of all labels of {self.model.name}"
            )
        n_speakers = count_speakers(clips)
        if n_speakers < MIN_SPEAKERS:
            # Of both splits, or without splits, there are no more clips to be had.
            more = len({clip.split for clip in clips}) == 1 and clips[0].split is not None
            raise DatasetError(
                f"an adapter needs clips of {MIN_SPEAKERS} known speakers or more; found "
                f"{n_speakers}"
                + ("; train on more, with --fit-on train+dev or --folds" if more else "")
            )

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache.

        Raises
        ------
        DatasetError
            If no clip of a part can be decoded, or the model was trained on a clip or its speaker
            and has no held-out probabilities of it.
        """
        found = self.decode(parts)
        for cached in found:
            self.model.refuse_learned(cached.clips, cached.hashes)
        return found

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Learned:
        """Train and calibrate an adapter, and add it to the model.

        Raises
        ------
        DatasetError
            If the clips do not suffice.
        """
        model = self.model.classifier
        probabilities = self.model.classify(found, model.spec.labels)
        probabilities = np.where(probabilities > 0, probabilities, LEAST)
        examples = Examples.gather(found.clips, model.spec.labels, probabilities)
        if not add_adapter(model, examples, self.config, self.say):
            raise DatasetError(
                f"{self.model.name}: no adapter could be trained on {len(found):,} clips; train "
                "on more, with --fit-on train+dev or --folds"
            )
        return Learned(model)

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> Classifier:
        """Return the unchanged model: an adapter does not change its scores of single clips."""
        return self.model.classifier

    def classify(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return the model's probabilities of each clip by itself, shape (n_clips, n_labels)."""
        return self.model.classify(found, model.spec.labels)

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of the training clips of adapter and model."""
        return super().make_manifest(found).join([self.model.manifest])

    def record(self, details: dict[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of the model, with that of the adapter inside."""
        return {**training, "adapter": {**details, **training["adapter"]}}

    def finish(self, folder: Path) -> None:
        """Copy the model's held-out probabilities, if any, into the new model folder."""
        if (self.model.folder / HELD_OUT_FILE).is_file():
            content = (self.model.folder / HELD_OUT_FILE).read_bytes()
            write_bytes(folder / HELD_OUT_FILE, content)
