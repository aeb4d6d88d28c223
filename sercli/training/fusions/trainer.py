"""Trainer of fusions, fitted on probabilities of clips that the members were not trained on.

These are clips that are new to a member, or of which it has held-out probabilities; see
`sercli.training.teachers`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.audio import SAMPLE_RATE
from sercli.calibration import UNCALIBRATED, Calibration
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.classifiers.fusion import LEAST, FusionClassifier
from sercli.classifiers.members import INSIDE, MIN_MEMBERS, Member
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.matching import count_speakers
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import evaluate_probabilities
from sercli.registry.copies import check_room, is_replaced
from sercli.registry.description import model_hash
from sercli.training.cache import CachedClips
from sercli.training.config import FusionConfig
from sercli.training.folds import count_folds, group_clips
from sercli.training.fusions.mixture import Mixture, cross_fit, fit_mixture
from sercli.training.teachers import Teacher, check_place
from sercli.training.trainer import Learned, Trainer
from sercli.version import __version__

# Figures of a member that are recorded.
TOLD = ("uar", "nll")


@dataclass(frozen=True, eq=False)
class FusionTrainer(Trainer[CachedClips]):
    """Trainer of fusions of given members.

    The other parameters are those of `Trainer`.

    Parameters
    ----------
    config
        Settings of the fitting.
    members
        The members, loaded as teachers.

    Raises
    ------
    ConfigError
        If there are fewer than two members, two have the same name, or their labels differ.
    """

    config: FusionConfig
    members: Sequence[Teacher]

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
                    f"the member {member.name} has the labels {', '.join(member.labels)}, "
                    f"{first.name} has {', '.join(first.labels)}; expected members with the same "
                    "labels"
                )

    def begin(self, folder: Path) -> None:
        """Raise if a member would not be found from the model folder, or cannot be copied into it.

        Raises
        ------
        ConfigError
            If a member is inside the folder and would be replaced, the folder has the name of a
            member, another model would be found, or a copy of a member would lack its own members.
        ModelError
            If no model would be found.
        OutputError
            If something is in the way of a copy.
        """
        copied = self.config.copy_members
        for member in self.members:
            stays = copied and member.folder.resolve() == (folder / member.name).resolve()
            if is_replaced(folder, member.folder) and not stays:
                raise ConfigError(
                    f"{folder}: contains its member {member.folder}, which would be replaced; "
                    "expected another folder"
                )
            if copied and not _is_whole(member.classifier):
                raise ConfigError(
                    f"{member.folder}: is a fusion of members outside of its folder, which a copy "
                    "would lack; expected one that was made with --copy-members"
                )
        if copied:
            check_room(folder, {member.name: member.folder for member in self.members})
        for member in () if copied else self.members:
            if folder.resolve().name == member.name:
                raise ConfigError(
                    f"{folder}: has the same name as its member {member.name}, which could then "
                    "not be found; give the fusion another name, or --copy-members"
                )
            check_place(folder, member.name, member.folder)

    def check_held_out(self, clips: Sequence[Clip]) -> None:
        """Raise if a member was trained on speakers of held-out clips.

        Raises
        ------
        ConfigError
            If there are such speakers.
        """
        for member in self.members:
            member.refuse_held_out(clips, "member")

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Raise if the folds of the clips do not suffice to evaluate the fusion."""
        groups = group_clips(clips, self.config.group_by)
        count_folds(groups, self.config.folds, self.config.group_by)

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache.

        Raises
        ------
        DatasetError
            If no clip of a part can be decoded, the labels are not those of the members, or a
            member was trained on a clip or its speaker and has no held-out probabilities of it.
        """
        expected = self.members[0].labels
        labels = sorted({clip.emotion for part in parts for clip in part})
        if set(labels) != set(expected):
            raise DatasetError(
                f"the clips to fit on have the labels {', '.join(labels)}; expected those of the "
                f"members, {', '.join(expected)}"
            )
        for member in self.members:
            if not member.held_out:  # can be checked before anything is decoded
                for clips in parts:
                    member.refuse_learned(clips)
        found = self.decode(parts)
        for member in self.members:
            for cached in found:
                member.refuse_learned(cached.clips, cached.hashes)
        for member in self.members:
            fitted, whole = member.manifest.fitted, member.manifest
            if any(whole.count_clips(one.hashes) > fitted.count_clips(one.hashes) for one in found):
                self.say(
                    f"warning: {member.name} was selected and calibrated on some of these clips: "
                    "its weight and the figures may be a little too good"
                )
            facts = member.classifier.spec.training
            if (teacher := facts.get("teacher")) and not facts.get("substitutes"):
                self.say(
                    f"warning: {member.name} was trained with the teacher {teacher}, which was "
                    f"trained on clips that were held out of {member.name}: its weight and the "
                    "figures may be too good"
                )
        return found

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Learned:
        """Fit and calibrate a fusion, and evaluate it and each of its members."""
        probabilities = self._classify(found, labels)
        classes = np.array(class_indices(found.clips, labels))
        groups = group_clips(found.clips, self.config.group_by, found.hashes)
        n_folds = count_folds(groups, self.config.folds, self.config.group_by)
        equal = self.config.equal_weights
        mixture = fit_mixture(probabilities, classes, equal_weights=equal)
        fused = cross_fit(probabilities, classes, groups, n_folds, equal_weights=equal)
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
            # Whether any member was trained on transposed clips.
            "calm": any(bool(one.classifier.spec.training.get("calm")) for one in self.members),
            "held_out": {"whole": held_out},
        }
        return Learned(self._build(mixture, labels, training), (mixture.apply(probabilities),))

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> FusionClassifier:
        """Fit and calibrate a fusion that scores one fold."""
        classes = np.array(class_indices(found.clips, labels))
        probabilities, equal = self._classify(found, labels), self.config.equal_weights
        mixture = fit_mixture(probabilities, classes, equal_weights=equal)
        return self._build(mixture, labels, {})

    def classify(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return a fusion's probabilities of unchanged clips, shape (n_clips, n_labels)."""
        assert isinstance(model, FusionClassifier)
        labels, calibration = model.spec.labels, model.spec.calibration
        calibration = replace(calibration, weights=calibration.weights[: len(labels)])
        return Mixture(model.weights, calibration).apply(self._classify(found, labels))

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of the clips that the fusion and its members were trained on."""
        own = super().make_manifest(found)
        return own.join(member.manifest for member in self.members)

    def _classify(self, found: CachedClips, labels: Sequence[str]) -> DoubleArray:
        """Return the probabilities of each member, shape (n_members, n_clips, n_labels)."""
        of_members = []
        for member in self.members:
            n_kept = sum(audio in member.held_out for audio in found.hashes)
            self.say(
                f"{member.name} scores {len(found):,} clips, {n_kept:,} of them by its held-out "
                "probabilities"
            )
            of_members.append(member.classify(found, labels))
        # Held-out probabilities are rounded, and may be zero.
        return np.maximum(np.stack(of_members), LEAST)

    def _build(
        self, mixture: Mixture, labels: Sequence[str], training: dict[str, Any]
    ) -> FusionClassifier:
        models = [member.classifier for member in self.members]
        members = [
            Member(member.name, model_hash(member.folder), weight)
            for member, weight in zip(self.members, mixture.weights.tolist(), strict=True)
        ]
        calibration, perceived = mixture.calibration, None
        if all(model.spec.perceived is not None for model in models):
            n_labels = len(labels)
            shares = Calibration(UNCALIBRATED, np.eye(n_labels), np.zeros(n_labels))
            perceived = shares.widen(n_labels, 2 * n_labels)
            calibration = calibration.widen(0, 2 * n_labels)
        settings: dict[str, Any] = {"members": [asdict(member) for member in members]}
        if self.config.copy_members:
            settings[INSIDE] = True
        spec = ModelSpec(
            family=FusionClassifier.family,
            labels=tuple(labels),
            sample_rate=SAMPLE_RATE,
            band_limit=max(model.spec.band_limit for model in models),
            calibration=calibration,
            settings=settings,
            training=training,
            versions={"sercli": __version__, "numpy": version("numpy")},
            perceived=perceived,
        )
        return FusionClassifier(spec, models)


def _is_whole(model: Classifier) -> bool:
    """Return whether a model's folder has all that it needs."""
    if not isinstance(model, FusionClassifier):
        return True
    return bool(model.spec.settings.get(INSIDE)) and all(map(_is_whole, model.members))


def _tell(figures: dict[str, Any]) -> str:
    return f"UAR {figures['uar']:.3f}, NLL {figures['nll']:.3f}"
