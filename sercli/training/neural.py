"""Fitting a network of any family on a corpus, and its calibration.

With development clips, which are not learned from, the epoch is chosen and the calibration fitted
on them. Without, the number of epochs is fixed; networks that each learn from all folds but one
give the scores on which the calibration is fitted, and then one network learns from all clips.

Either way the calibration knows every clip as it is and as another recording might have it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, choose_calibration
from sercli.cards import DEVELOPMENT_SPEAKERS
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.classifiers.neural import NeuralClassifier
from sercli.config import NeuralConfig
from sercli.datasets.base import Clip
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.extraction import Progress
from sercli.neural.devices import choose_device
from sercli.protocols import fold_by_speaker
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.checkpoints import CHECKPOINT_FILE
from sercli.training.course import Course, FloatArray, score_clips
from sercli.training.folds import (
    MIN_GROUPS,
    Groups,
    count_folds,
    cross_fitted_figures,
    group_clips,
)
from sercli.training.history import CURVES_FILE, HISTORY_FILE
from sercli.training.loop import Fitted
from sercli.training.material import Material
from sercli.training.teachers import write_held_out
from sercli.training.trainer import Say, Trainer
from sercli.version import __version__

# Of a model folder: where its training stands, until the model is complete.
TRAINING_FOLDER = "training"
# Folds by which the figures of development clips are calibrated on others of them; and of which
# one has the development speakers where all others judge a fold of a cross-validation.
DEV_FOLDS = 5


@dataclass(frozen=True, eq=False)
class NeuralTrainer(Trainer[CachedClips]):
    """Trains networks of one family.

    Parameters
    ----------
    course
        What the networks have in common.
    cache
        Folder of the decoded audio; it is made.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose audio is newly in the cache.

    Raises
    ------
    ConfigError
        If there is no such device.
    """

    uses_dev = True

    course: Course
    cache: Path
    say: Say = lambda _: None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Find out now, not after all clips are decoded, that there is no such device."""
        choose_device(self.config.device)

    @property
    def config(self) -> NeuralConfig:  # type: ignore[override]
        """How to train."""
        return self.course.config

    @property
    def device(self) -> str:
        """That of the training."""
        return self.config.device

    @property
    def failed(self) -> Mapping[str, str]:
        """Error of each recording and segment without labels that could not be decoded."""
        unlabelled = self.course.unlabelled
        return {} if unlabelled is None else unlabelled.failed

    def begin(self, folder: Path) -> None:
        """Remove what is left of an earlier training, or it would be taken for a part of this."""
        if not self.course.resume:
            clear_training(folder)

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse a teacher or base that knows their speakers, and to learn from them unlabelled."""
        course = self.course
        if course.teacher is not None:
            course.teacher.refuse_judged(clips)
        self._refuse_known(clips)
        if course.unlabelled is not None:
            self.say("looking for speech in what nobody labelled")
            self.say(course.unlabelled.describe())
            if clips:
                judged = cache_clips(clips, self.cache, jobs=self.config.jobs)
                course.unlabelled.refuse_judged(judged)

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache, and say how large they are in it."""
        found = [
            cache_clips(clips, self.cache, jobs=self.config.jobs, progress=self.progress)
            for clips in parts
        ]
        duration, n_bytes = sum(one.duration for one in found), sum(one.n_bytes for one in found)
        self.say(f"{duration:,.0f} s of audio in {self.cache}, {n_bytes / 1e6:,.0f} MB")
        if len(found) == 1:
            # Without development clips, folds of those that are learned from are judged.
            self._refuse_known(found[0].clips)
            if self.course.unlabelled is not None:
                self.course.unlabelled.refuse_judged(found[0])
        votes = self.course.votes
        if votes is not None:
            names = [clip.name for one in found for clip in one.clips]
            n_voted = sum(name in votes for name in names)
            if not n_voted:
                raise DatasetError(
                    f"the table of votes has none of {len(names)} clips; expected names such as "
                    f"{names[0]}"
                )
            self.say(f"votes on {n_voted:,} of {len(names):,} clips")
        teacher = self.course.teacher
        if teacher is not None and (n_learned := sum(map(teacher.count_learned, found[:1]))):
            self.say(
                f"warning: the teacher {teacher.name} learned from {n_learned:,} of these clips, "
                "and has nothing on them from when they were held out"
            )
        return found

    def join(self, parts: Sequence[CachedClips]) -> CachedClips:
        """Return the clips of several parts as one."""
        return CachedClips.join(parts)

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> NeuralClassifier:
        """Train and calibrate a model; see `fit_model`."""
        fitted = self._fit(found, labels, folder / TRAINING_FOLDER, dev)
        if fitted.held_out is not None:
            write_held_out(folder, found.hashes, labels, fitted.held_out)
        return fitted.classifier

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> NeuralClassifier:
        """Train and calibrate a model, with a fifth of the speakers as development speakers.

        Folds within folds would be better by little, and take `NeuralConfig.folds` times as long.
        """
        n_voices = len({clip.voice for clip in found.clips})
        dev, *others = fold_by_speaker(found.clips, max(MIN_GROUPS, min(DEV_FOLDS, n_voices)))
        learned = sorted(index for fold in others for index in fold)
        place = folder / TRAINING_FOLDER / f"judge{number}"
        return self._fit(found.take(learned), labels, place, found.take(dev)).classifier

    def judge(self, model: Classifier, found: CachedClips) -> NDArray[np.float64]:
        """Return a model's probabilities for clips as they are, shape (n_clips, n_labels)."""
        assert isinstance(model, NeuralClassifier)
        return model.spec.calibration.probabilities(score_clips(model.network, found))

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of a model that learned from clips, and from what else it did."""
        course = self.course
        others = [course.before]
        if course.unlabelled is not None:
            others.append(course.unlabelled.manifest)
        return super().make_manifest(found).join(others)

    def finish(self, folder: Path) -> None:
        """Keep the history of the network, and remove the checkpoints."""
        for name in (HISTORY_FILE, CURVES_FILE):
            (folder / TRAINING_FOLDER / name).replace(folder / name)
        clear_training(folder)

    def _refuse_known(self, clips: Sequence[Clip]) -> None:
        known = self.course.before.find_speakers(clips)
        if known:
            raise ConfigError(
                f"the base was trained on {len(known)} of the speakers that are to be judged, such "
                f"as {known[0]}; expected none. Give a base that knows none of them; without "
                "development speakers, all are judged, by folds"
            )

    def _fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        place: Path,
        dev: CachedClips | None,
    ) -> "FittedModel":
        course = replace(self.course, labels=tuple(labels))
        return fit_model(found, course, place, dev=dev, say=self.say)


class FittedModel(NamedTuple):
    """A model, and what its networks say of clips that they did not learn from.

    Parameters
    ----------
    classifier
        Its ``spec.training`` tells its settings and what it reached on clips held out.
    held_out
        Calibrated probabilities of all clips that it learned from, each by a network that did not,
        shape (n_clips, n_labels); None if there were no such networks.
    """

    classifier: NeuralClassifier
    held_out: NDArray[np.float64] | None


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a training into a model folder was interrupted, and can go on."""
    return any((folder / TRAINING_FOLDER).rglob(CHECKPOINT_FILE))


def clear_training(folder: Path) -> None:
    """Remove what trainings write into a model folder besides the model, and nothing else."""
    place = folder / TRAINING_FOLDER
    for name in (CHECKPOINT_FILE, HISTORY_FILE, CURVES_FILE):
        # Before and after the name: a file that was being written has more there.
        for path in place.rglob(f"*{name}*"):
            path.unlink()
    inner = sorted(path for path in place.rglob("*") if path.is_dir())
    for path in (*reversed(inner), place):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def fit_model(
    cached: CachedClips,
    course: Course,
    folder: Path,
    *,
    dev: CachedClips | None = None,
    say: Say = lambda _: None,
) -> "FittedModel":
    """Train and calibrate a network.

    Parameters
    ----------
    cached
        What is learned from.
    course
        How.
    folder
        Of the checkpoints; those of folds are in folders of their own inside.
    dev
        Development clips; without any, networks are trained on folds, too, see above.
    say
        Told what is done next.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, or an emotion occurs with the speakers of one
        fold only.
    ConfigError
        If a checkpoint is of another training.
    """
    config = course.config
    material = course.gather(cached, say)
    seconds = 0.0
    if dev:
        others = course.prepare(dev, say, learned=False)
        say(f"learning from {len(cached):,} clips; {len(dev):,} others are measured on")
        judged, judges, groups = dev, DEVELOPMENT_SPEAKERS, _group_dev(dev, config)
        n_folds = min(DEV_FOLDS, len(np.unique(groups)))
        fitted = course.teach("network", material, folder, others)
        scores = course.hear(fitted.network, others)
    else:
        groups = group_clips(cached.clips, config.group_by)
        n_folds = count_folds(groups, config.folds, config.group_by)
        judged, judges = cached, f"{n_folds} folds of {config.group_by}s"
        scores, seconds = _teach_folds(material, course, folder, groups, n_folds)
        say(f"learning from all {len(cached):,} clips")
        fitted = course.teach("all clips", material, folder)
    network = course.assemble(fitted.network)
    n_labels = len(course.labels)
    rows, row_groups = scores[..., :n_labels].reshape(-1, n_labels), np.tile(groups, 2)
    classes = np.tile(course.find_classes(judged), 2)
    training = {
        "clips": len(cached),
        "speakers": len({clip.voice for clip in cached.clips} - {None}),
        "seed": config.seed,
        "config": asdict(config),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "votes": course.votes is not None,
        "teacher": course.teacher.name if course.teacher else None,
        "unlabelled": _describe_unlabelled(material),
        "best_epoch": fitted.best_epoch,
        "calibration_on": judges,
        "held_out": cross_fitted_figures(
            rows, classes, row_groups, course.labels, n_folds, choose_calibration, len(judged)
        ),
        "seconds": round(seconds + _sum_seconds(fitted), 3),
        **course.describe(),
    }
    calibration = choose_calibration(rows, classes, row_groups).widen(0, course.n_scores)
    spec = ModelSpec(
        family=course.classifier.family,
        labels=course.labels,
        sample_rate=SAMPLE_RATE,
        band_limit=course.band_limit,
        calibration=calibration,
        settings=course.network_settings.to_dict(),
        training=training,
        versions={"sercli": __version__, **{name: version(name) for name in course.packages}},
        perceived=_calibrate_perceived(course, judged, scores, groups),
    )
    held_out = None if dev else calibration.probabilities(scores[0])
    return FittedModel(course.classifier(spec, network, config.device), held_out)


def _teach_folds(
    material: Material, course: Course, folder: Path, groups: Groups, n_folds: int
) -> tuple[FloatArray, float]:
    """Return scores of all clips, each of a network that did not learn from its fold.

    Their shape is (2, n_clips, n_scores), see `Course.hear`; with the seconds of the trainings.
    """
    scores = np.empty((2, len(material), course.n_scores), np.float32)
    seconds = 0.0
    folds = GroupKFold(n_folds).split(groups, groups=groups)
    for number, (inside, outside) in enumerate(folds, 1):
        fitted = course.teach(
            f"fold {number} of {n_folds}", material.take(inside), folder / f"fold{number}"
        )
        scores[:, outside] = course.hear(fitted.network, material.take(outside))
        seconds += _sum_seconds(fitted)
    return scores, seconds


def _calibrate_perceived(
    course: Course, judged: CachedClips, scores: FloatArray, groups: Groups
) -> Calibration | None:
    """Fit what is perceived on the votes on clips that were held out."""
    if not course.tells_perceived:
        return None
    n_labels = len(course.labels)
    shares = course.find_perceived(judged)
    voted = shares.any(axis=1)
    if not voted.any():
        raise DatasetError(
            f"the table of votes has none of the {len(judged):,} clips to calibrate on; expected "
            f"names such as {judged.clips[0].name}"
        )
    calibration = choose_calibration(
        scores[:, voted, n_labels:].reshape(-1, n_labels),
        np.tile(shares[voted], (2, 1)),
        np.tile(groups[voted], 2),
    )
    return calibration.widen(n_labels, course.n_scores)


def _group_dev(dev: CachedClips, config: NeuralConfig) -> Groups:
    """Return what of the development clips stays together: of a single speaker, each clip."""
    groups = group_clips(dev.clips, config.group_by)
    return groups if len(np.unique(groups)) >= MIN_GROUPS else group_clips(dev.clips, "clip")


def _describe_unlabelled(material: Material) -> dict[str, float] | None:
    """Return how much is learned from that nobody labelled."""
    if material.unlabelled is None:
        return None
    cached = material.unlabelled.cached
    return {"clips": len(cached), "seconds": round(cached.duration, 3)}


def _sum_seconds(fitted: Fitted) -> float:
    return sum(record.seconds for record in fitted.records)
