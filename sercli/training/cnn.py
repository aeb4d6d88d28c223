"""Fitting a convolutional network on a corpus, and its calibration.

With development clips, which are not learned from, the epoch is chosen and the calibration fitted
on them. Without, the number of epochs is fixed; networks that each learn from all folds but one
give the scores on which the calibration is fitted, and then one network learns from all clips.

Either way the calibration knows every clip as it is and as another recording might have it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, choose_calibration
from sercli.cards import DEVELOPMENT_SPEAKERS
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.classifiers.cnn import CnnClassifier
from sercli.config import NeuralConfig
from sercli.datasets.base import Clip
from sercli.errors import DatasetError
from sercli.extraction import Progress
from sercli.neural.cnn import Cnn, CnnSettings
from sercli.neural.devices import choose_device
from sercli.protocols import fold_by_speaker
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.checkpoints import CHECKPOINT_FILE
from sercli.training.course import Course, FloatArray, Nobody, Watcher, score_clips
from sercli.training.folds import (
    MIN_GROUPS,
    Groups,
    count_folds,
    cross_fitted_figures,
    group_clips,
)
from sercli.training.history import CURVES_FILE, HISTORY_FILE
from sercli.training.loop import Fitted
from sercli.training.targets import Votes
from sercli.training.trainer import Say, Trainer
from sercli.version import __version__

# Of a model folder: where its training stands, until the model is complete.
TRAINING_FOLDER = "training"
# Folds by which the figures of development clips are calibrated on others of them; and of which
# one has the development speakers where all others judge a fold of a cross-validation.
DEV_FOLDS = 5


@dataclass(frozen=True, eq=False)
class CnnTrainer(Trainer[CachedClips]):
    """Trains convolutional networks.

    Parameters
    ----------
    config
        How to train.
    cache
        Folder of the decoded audio; it is made.
    settings
        The shape of the network.
    votes
        Of listeners, by name of the clip, or None.
    resume
        Go on where the model folder has checkpoints.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose audio is newly in the cache.
    watcher
        Told how far the networks are.

    Raises
    ------
    ConfigError
        If there is no such device.
    """

    uses_dev = True

    config: NeuralConfig
    cache: Path
    settings: CnnSettings = field(default_factory=CnnSettings)
    votes: Votes | None = None
    resume: bool = False
    say: Say = lambda _: None
    progress: Progress | None = None
    watcher: Watcher = field(default_factory=Nobody)

    def __post_init__(self) -> None:
        """Find out now, not after all clips are decoded, that there is no such device."""
        choose_device(self.config.device)

    @property
    def device(self) -> str:
        """That of the training."""
        return self.config.device

    def begin(self, folder: Path) -> None:
        """Remove what is left of an earlier training, or it would be taken for a part of this."""
        if not self.resume:
            clear_training(folder)

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache, and say how large they are in it."""
        found = [
            cache_clips(clips, self.cache, jobs=self.config.jobs, progress=self.progress)
            for clips in parts
        ]
        duration, n_bytes = sum(one.duration for one in found), sum(one.n_bytes for one in found)
        self.say(f"{duration:,.0f} s of audio in {self.cache}, {n_bytes / 1e6:,.0f} MB")
        if self.votes is not None:
            names = [clip.name for one in found for clip in one.clips]
            n_voted = sum(name in self.votes for name in names)
            if not n_voted:
                raise DatasetError(
                    f"the table of votes has none of {len(names)} clips; expected names such as "
                    f"{names[0]}"
                )
            self.say(f"votes on {n_voted:,} of {len(names):,} clips")
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
    ) -> CnnClassifier:
        """Train and calibrate a model; see `fit_cnn`."""
        return self._fit(found, labels, folder / TRAINING_FOLDER, dev)

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> CnnClassifier:
        """Train and calibrate a model, with a fifth of the speakers as development speakers.

        Folds within folds would be better by little, and take `NeuralConfig.folds` times as long.
        """
        n_voices = len({clip.voice for clip in found.clips})
        dev, *others = fold_by_speaker(found.clips, max(MIN_GROUPS, min(DEV_FOLDS, n_voices)))
        learned = sorted(index for fold in others for index in fold)
        place = folder / TRAINING_FOLDER / f"judge{number}"
        return self._fit(found.take(learned), labels, place, found.take(dev))

    def judge(self, model: Classifier, found: CachedClips) -> NDArray[np.float64]:
        """Return a model's probabilities for clips as they are, shape (n_clips, n_labels)."""
        assert isinstance(model, CnnClassifier)
        return model.spec.calibration.probabilities(score_clips(model.network, found))

    def finish(self, folder: Path) -> None:
        """Keep the history of the network, and remove the checkpoints."""
        for name in (HISTORY_FILE, CURVES_FILE):
            (folder / TRAINING_FOLDER / name).replace(folder / name)
        clear_training(folder)

    def _fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        place: Path,
        dev: CachedClips | None,
    ) -> CnnClassifier:
        course = Course(
            tuple(labels), self.config, self.settings, self.votes, self.resume, self.watcher
        )
        return fit_cnn(found, course, place, dev=dev, say=self.say)


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


def fit_cnn(
    cached: CachedClips,
    course: Course,
    folder: Path,
    *,
    dev: CachedClips | None = None,
    say: Say = lambda _: None,
) -> CnnClassifier:
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

    Returns
    -------
    CnnClassifier
        Its ``spec.training`` tells its settings and what it reached on clips held out.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, or an emotion occurs with the speakers of one
        fold only.
    ConfigError
        If a checkpoint is of another training.
    """
    config = course.config
    if config.guide_weight:
        say(f"extracting what {len(cached):,} clips tell besides their labels")
    features = course.extract_features(cached)
    seconds = 0.0
    if dev:
        say(f"learning from {len(cached):,} clips; {len(dev):,} others are measured on")
        judged, judges, groups = dev, DEVELOPMENT_SPEAKERS, _group_dev(dev, config)
        n_folds = min(DEV_FOLDS, len(np.unique(groups)))
        fitted = course.teach("network", cached, features, folder, dev)
        scores = course.hear(fitted.network, dev)
    else:
        groups = group_clips(cached.clips, config.group_by)
        n_folds = count_folds(groups, config.folds, config.group_by)
        judged, judges = cached, f"{n_folds} folds of {config.group_by}s"
        scores, seconds = _teach_folds(cached, features, course, folder, groups, n_folds)
        say(f"learning from all {len(cached):,} clips")
        fitted = course.teach("all clips", cached, features, folder)
    network = fitted.network
    assert isinstance(network, Cnn)
    rows, row_groups = scores.reshape(-1, len(course.labels)), np.tile(groups, 2)
    classes = np.tile(course.find_classes(judged), 2)
    training = {
        "clips": len(cached),
        "speakers": len({clip.voice for clip in cached.clips} - {None}),
        "seed": config.seed,
        "config": asdict(config),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "votes": course.votes is not None,
        "best_epoch": fitted.best_epoch,
        "calibration_on": judges,
        "held_out": cross_fitted_figures(
            rows, classes, row_groups, course.labels, n_folds, choose_calibration, len(judged)
        ),
        "seconds": round(seconds + _sum_seconds(fitted), 1),
    }
    spec = _specify(course, choose_calibration(rows, classes, row_groups), training)
    return CnnClassifier(spec, network, config.device)


def _teach_folds(
    cached: CachedClips,
    features: FloatArray | None,
    course: Course,
    folder: Path,
    groups: Groups,
    n_folds: int,
) -> tuple[FloatArray, float]:
    """Return scores of all clips, each of a network that did not learn from its fold.

    Their shape is (2, n_clips, n_labels), see `Course.hear`; with the seconds of the trainings.
    """
    scores = np.empty((2, len(cached), len(course.labels)), np.float32)
    seconds = 0.0
    folds = GroupKFold(n_folds).split(groups, groups=groups)
    for number, (inside, outside) in enumerate(folds, 1):
        fitted = course.teach(
            f"fold {number} of {n_folds}",
            cached.take(inside),
            None if features is None else features[inside],
            folder / f"fold{number}",
        )
        scores[:, outside] = course.hear(fitted.network, cached.take(outside))
        seconds += _sum_seconds(fitted)
    return scores, seconds


def _specify(course: Course, calibration: Calibration, training: dict[str, Any]) -> ModelSpec:
    packages = ("torch", "torchaudio", "numpy", "soxr", "soundfile", "silero-vad")
    return ModelSpec(
        family=CnnClassifier.family,
        labels=course.labels,
        sample_rate=SAMPLE_RATE,
        band_limit=course.settings.log_mel.f_max,
        calibration=calibration,
        settings=course.settings.to_dict(),
        training=training,
        versions={"sercli": __version__, **{name: version(name) for name in packages}},
    )


def _group_dev(dev: CachedClips, config: NeuralConfig) -> Groups:
    """Return what of the development clips stays together: of a single speaker, each clip."""
    groups = group_clips(dev.clips, config.group_by)
    return groups if len(np.unique(groups)) >= MIN_GROUPS else group_clips(dev.clips, "clip")


def _sum_seconds(fitted: Fitted) -> float:
    return sum(record.seconds for record in fitted.records)
