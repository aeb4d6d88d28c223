"""Trainer of SVMs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sercli.arrays import DoubleArray, FloatArray
from sercli.classifiers.base import Classifier
from sercli.classifiers.svm import SvmClassifier
from sercli.datasets.clip import Clip
from sercli.datasets.extraction import ClipFeatures
from sercli.training.cache import cache_clips
from sercli.training.clean_features import extract_clean_features
from sercli.training.config import SvmConfig
from sercli.training.folds import check_folds
from sercli.training.svm.fitting import fit_svm
from sercli.training.svm.versions import BAND_LIMIT, TRANSPOSED, extract_versions
from sercli.training.trainer import Learned, Trainer
from sercli.training.transposition import check_calm, find_strangers, split_strangers
from sercli.training.unlabelled import Unlabelled
from sercli.training.watcher import Watcher


@dataclass(frozen=True, eq=False)
class SvmTrainer(Trainer[ClipFeatures]):
    """Trainer of SVMs.

    The other parameters are those of `Trainer`.

    Parameters
    ----------
    config
        Training settings.
    calm
        Calm speech of strangers, to whom training clips are transposed, or None; see
        `sercli.training.transposition`.
    watcher
        Receiver of the number of clips whose features were extracted.
    """

    config: SvmConfig
    calm: Unlabelled | None = None
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def speech(self) -> tuple[Unlabelled, ...]:
        """The calm speech, if there is any."""
        return () if self.calm is None else (self.calm,)

    def check_held_out(self, clips: Sequence[Clip]) -> None:
        """Raise if the calm speech contains held-out clips.

        Raises
        ------
        ConfigError
            If it does.
        DatasetError
            If there is no speech in the recordings, or of too few people.
        """
        if self.calm is None:
            return
        self.say("detecting speech in unlabelled recordings")
        self.say(self.calm.describe())
        split_strangers(self.calm.found.clips, self.config.folds)
        if clips:
            self.calm.refuse_held_out(cache_clips(clips, self.cache, jobs=self.config.jobs))

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Raise if no label is calm where clips are transposed, or the folds do not suffice."""
        if self.calm is not None:
            check_calm(labels)
        check_folds(clips, labels, self.config.folds, self.config.group_by)

    def check_fit_fold(self, clips: Sequence[Clip], labels: Sequence[str]) -> None:
        """Raise if the clips of the other folds cannot be divided into folds themselves."""
        self.check_fit(clips, labels)

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[ClipFeatures]:
        """Extract the features of all versions of clips; see `extract_versions`."""
        decoded = self.decode(parts)
        found = [extract_versions(part, self.config, self.watcher.extract) for part in decoded]
        if self.calm is not None:
            for part in found:  # folds of it are scored
                self.calm.refuse_held_out(part)
        return found

    def fit(
        self,
        found: ClipFeatures,
        labels: Sequence[str],
        folder: Path,
        dev: ClipFeatures | None = None,
    ) -> Learned:
        """Train and calibrate a model; see `fit_svm`."""
        classifier, held_out = fit_svm(
            found, labels, self.config, strangers=self._strangers, say=self.say
        )
        if self.calm is not None:
            training = {**classifier.spec.training, "calm": self.calm.facts}
            classifier.spec = replace(classifier.spec, training=training)
        # Transposed clips of a speaker come from many strangers, so they have no baseline.
        versions = zip(held_out, classifier.spec.training["versions"], strict=True)
        return Learned(classifier, tuple(said for said, name in versions if name != TRANSPOSED))

    def fit_fold(
        self, found: ClipFeatures, labels: Sequence[str], folder: Path, number: int
    ) -> SvmClassifier:
        """Train and calibrate a model; its settings, too, are chosen on the other folds alone."""
        return fit_svm(found, labels, self.config, strangers=self._strangers)[0]

    def classify(self, model: Classifier, found: ClipFeatures) -> DoubleArray:
        """Return a model's probabilities of unchanged clips, shape (n_clips, n_labels)."""
        scores = model.score(np.stack([rows[0] for rows in found.features]))
        return model.spec.calibration.probabilities(scores)

    @cached_property
    def _strangers(self) -> FloatArray | None:
        """Mean calm speech of each stranger, shape (n_strangers, n_features), or None."""
        if self.calm is None:
            return None
        self.say("extracting features of calm speech")
        cached = self.calm.cached
        rows = extract_clean_features(cached, BAND_LIMIT, self.config.jobs)
        deviations = np.zeros(rows.shape[1], bool)
        return find_strangers(cached.clips, rows, deviations, self.config.folds)
