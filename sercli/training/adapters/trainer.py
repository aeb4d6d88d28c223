"""Teaching a model that there is to judge by baselines, by what it says of clips."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.classifiers.fusion import FusionClassifier, read_members
from sercli.datasets.base import Clip
from sercli.datasets.extraction import Progress
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.registry.catalogue import find_member
from sercli.training.adapters.adaptation import add_adapter
from sercli.training.adapters.groups import Examples
from sercli.training.cache import CachedClips, CachedTrainer
from sercli.training.config import AdapterConfig
from sercli.training.teachers import HELD_OUT_FILE, Teacher, check_place
from sercli.training.trainer import Learned, Say

# In the place of a zero: what was held out is rounded, in older models to four decimals.
LEAST = 2.5e-5


@dataclass(frozen=True, eq=False)
class AdapterTrainer(CachedTrainer):
    """Trains adapters of a model, on clips that it did not learn from or that were held out of it.

    Parameters
    ----------
    config
        How to train, and where the model runs.
    model
        The model; it says of clips what a teacher would.
    cache
        Folder of the decoded audio; it is made.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose audio is newly in the cache.
    """

    uses_dev = False

    config: AdapterConfig
    model: Teacher
    cache: Path
    say: Say = lambda _: None
    progress: Progress | None = None

    @property
    def device(self) -> str:
        """That of the model."""
        return self.config.device

    def begin(self, folder: Path) -> None:
        """Refuse to replace the model while it is read, or to lose what it is made of."""
        if folder.resolve() == self.model.folder.resolve():
            raise ConfigError(f"{folder}: is the model itself; expected another folder")
        spec = self.model.classifier.spec
        for member in read_members(spec.settings) if spec.family == FusionClassifier.family else ():
            check_place(folder, member.name, find_member(self.model.folder, member.name))

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse a model that knows the speakers of clips that are to judge it."""
        self.model.refuse_judged(clips, "model")

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache.

        Raises
        ------
        DatasetError
            If not one clip of a part can be decoded, or the model learned from any and has nothing
            on it from when it was held out.
        """
        found = self.decode(parts)
        for cached in found:
            self.model.check_held_out(cached)
        return found

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Learned:
        """Train and calibrate an adapter of the model."""
        model = self.model.classifier
        probabilities = self.model.judge(found, model.spec.labels)
        probabilities = np.where(probabilities > 0, probabilities, LEAST)
        examples = Examples.gather(found.clips, model.spec.labels, probabilities)
        if not add_adapter(model, examples, self.config, self.say):
            raise DatasetError(f"{self.model.name}: got no adapter from {len(found):,} clips")
        return Learned(model)

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> Classifier:
        """Return the model: by itself it judges as it did."""
        return self.model.classifier

    def judge(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return what the model says of clips by themselves, shape (n_clips, n_labels)."""
        return self.model.judge(found, model.spec.labels)

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of what the adapter and the model learned from."""
        return super().make_manifest(found).join([self.model.manifest])

    def record(self, details: dict[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is told of the model, and within it what is of its adapter."""
        return {**training, "adapter": {**details, **training["adapter"]}}

    def finish(self, folder: Path) -> None:
        """Keep what the model said of clips while they were held out."""
        if (self.model.folder / HELD_OUT_FILE).is_file():
            shutil.copy(self.model.folder / HELD_OUT_FILE, folder / HELD_OUT_FILE)
