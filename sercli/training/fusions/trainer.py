"""Fitting a fusion of models on what they say of clips that they did not learn from.

These are clips that are new to a member, or that were held out of models like it: see
`sercli.training.teachers`.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.classifiers.fusion import LEAST, MIN_MEMBERS, FusionClassifier, Member
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.extraction import Progress
from sercli.datasets.matching import count_speakers
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import evaluate_probabilities
from sercli.registry.store import load_models, model_hash
from sercli.training.cache import CachedClips, CachedTrainer
from sercli.training.config import FusionConfig
from sercli.training.folds import count_folds, group_clips
from sercli.training.fusions.mixture import Mixture, cross_fit, fit_mixture
from sercli.training.teachers import Teacher, check_place
from sercli.training.trainer import Learned, Say
from sercli.version import __version__

# Of the figures of a member, what is told.
TOLD = ("uar", "nll")


@dataclass(frozen=True, eq=False)
class FusionTrainer(CachedTrainer):
    """Fits fusions of the same members.

    Parameters
    ----------
    config
        How to fit.
    members
        The models; each says of clips what a teacher would.
    cache
        Folder of the decoded audio; it is made.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose audio is newly in the cache.

    Raises
    ------
    ConfigError
        If there are fewer than two members, or they differ in their labels or have one name.
    """

    uses_dev = False

    config: FusionConfig
    members: Sequence[Teacher]
    cache: Path
    say: Say = lambda _: None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Check that the members fit together."""
        names = [member.name for member in self.members]
        if len(set(names)) < max(len(names), MIN_MEMBERS):
            raise ConfigError(
                f"members are {', '.join(names) or 'none'}; expected two or more of different names"
            )
        first = self.members[0]
        for member in self.members:
            if set(member.labels) != set(first.labels):
                raise ConfigError(
                    f"the member {member.name} tells {', '.join(member.labels)}, {first.name} "
                    f"tells {', '.join(first.labels)}; expected members of the same labels"
                )

    @property
    def device(self) -> str:
        """That of the networks among the members."""
        return self.config.device

    def begin(self, folder: Path) -> None:
        """Refuse a folder from which the members would not be found again.

        Raises
        ------
        ConfigError
            With the member that is elsewhere.
        ModelError
            If there is no model of a member's name.
        """
        for member in self.members:
            if folder.resolve().name == member.name:
                raise ConfigError(
                    f"{folder}: has the name of the member {member.name}, which could not be found "
                    "by it any more; give the fusion another name"
                )
            check_place(folder, member.name, member.folder)

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse members that know the speakers of clips that are to judge the fusion."""
        for member in self.members:
            member.refuse_judged(clips, "member")

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Refuse clips by whose folds the fusion could not be judged."""
        groups = group_clips(clips, self.config.group_by)
        count_folds(groups, self.config.folds, self.config.group_by)

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache.

        Raises
        ------
        DatasetError
            If not one clip of a part can be decoded, they have other labels than the members, or a
            member learned from any and has nothing on it from when it was held out.
        """
        expected = self.members[0].labels
        labels = sorted({clip.emotion for part in parts for clip in part})
        if set(labels) != set(expected):
            raise DatasetError(
                f"the clips to fit on have the labels {', '.join(labels)}; expected those of the "
                f"members, {', '.join(expected)}"
            )
        for member in self.members:
            if not member.held_out:  # which is clear before anything is decoded
                for clips in parts:
                    member.refuse_learned(clips)
        found = self.decode(parts)
        for member in self.members:
            for cached in found:
                member.check_held_out(cached)
        for member in self.members:
            fitted, whole = member.manifest.fitted, member.manifest
            if any(whole.count_clips(one.hashes) > fitted.count_clips(one.hashes) for one in found):
                self.say(
                    f"warning: {member.name} was chosen and calibrated by some of these clips: its "
                    "weight and the figures may be a little too good"
                )
            facts = member.classifier.spec.training
            if (teacher := facts.get("teacher")) and not facts.get("substitutes"):
                self.say(
                    f"warning: {member.name} learned from {teacher}, which knew clips that were "
                    f"held out of {member.name}: its weight and the figures may be too good"
                )
        return found

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Learned:
        """Fit and calibrate a fusion, and tell what it is worth beside its members."""
        probabilities = self._judge(found, labels)
        classes = np.array(class_indices(found.clips, labels))
        groups = group_clips(found.clips, self.config.group_by)
        n_folds = count_folds(groups, self.config.folds, self.config.group_by)
        mixture = fit_mixture(probabilities, classes)
        fused = cross_fit(probabilities, classes, groups, n_folds)
        held_out = evaluate_probabilities(classes, fused, labels)
        figures = {}
        for member, weight, rows in zip(self.members, mixture.weights, probabilities, strict=True):
            alone = evaluate_probabilities(classes, rows, labels)
            figures[member.name] = {name: alone[name] for name in TOLD}
            self.say(f"{member.name}: weight {weight:.3f}, {_tell(alone)} alone")
        self.say(f"fusion: {_tell(held_out)}, fitted on other {self.config.group_by}s")
        training = {
            "clips": len(found),
            "speakers": count_speakers(found.clips),
            "seed": self.config.seed,
            "folds": n_folds,
            "group_by": self.config.group_by,
            "members": figures,
            # Whether any of them learned as strangers.
            "calm": any(bool(one.classifier.spec.training.get("calm")) for one in self.members),
            "held_out": {"whole": held_out},
        }
        return Learned(self._build(mixture, labels, training), mixture.judge(probabilities))

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> FusionClassifier:
        """Fit and calibrate a fusion that judges one fold."""
        classes = np.array(class_indices(found.clips, labels))
        mixture = fit_mixture(self._judge(found, labels), classes)
        return self._build(mixture, labels, {})

    def judge(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return a fusion's probabilities for clips as they are, shape (n_clips, n_labels)."""
        assert isinstance(model, FusionClassifier)
        mixture = Mixture(model.weights, model.spec.calibration)
        return mixture.judge(self._judge(found, model.spec.labels))

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of what the fusion was fitted on and its members learned from."""
        own = super().make_manifest(found)
        return own.join(member.manifest for member in self.members)

    def _judge(self, found: CachedClips, labels: Sequence[str]) -> DoubleArray:
        """Return what each member says of clips, shape (n_members, n_clips, n_labels)."""
        judged = []
        for member in self.members:
            n_kept = sum(audio in member.held_out for audio in found.hashes)
            self.say(
                f"{member.name} judges {len(found):,} clips, {n_kept:,} of them while held out"
            )
            judged.append(member.judge(found, labels))
        # What was held out is rounded, and may be zero.
        return np.maximum(np.stack(judged), LEAST)

    def _build(
        self, mixture: Mixture, labels: Sequence[str], training: dict[str, Any]
    ) -> FusionClassifier:
        models = [member.classifier for member in self.members]
        members = [
            Member(member.name, model_hash(member.folder), weight)
            for member, weight in zip(self.members, mixture.weights.tolist(), strict=True)
        ]
        spec = ModelSpec(
            family=FusionClassifier.family,
            labels=tuple(labels),
            sample_rate=SAMPLE_RATE,
            band_limit=max(model.spec.band_limit for model in models),
            calibration=mixture.calibration,
            settings={"members": [asdict(member) for member in members]},
            training=training,
            versions={"sercli": __version__, "numpy": version("numpy")},
        )
        return FusionClassifier(spec, models)


def load_members(
    models: Sequence[str | os.PathLike[str]], device: str = "auto"
) -> tuple[Teacher, ...]:
    """Load the members of a fusion that is to be fitted.

    Parameters
    ----------
    models, device
        As for `sercli.registry.store.load_models`.

    Raises
    ------
    ModelError
        If one cannot be loaded, or does not tell what it was trained on.
    ConfigError
        If the device is not the CPU, and none of them is a network.
    """
    return tuple(map(Teacher.of, load_models(models, device)))


def _tell(figures: dict[str, Any]) -> str:
    return f"UAR {figures['uar']:.3f}, NLL {figures['nll']:.3f}"
