"""Training and calibrating a network of any family on a corpus.

With development clips, which are not trained on, the best epoch is chosen and the calibration
fitted on them. Without, the number of epochs is fixed, and the calibration is fitted on
cross-validated scores: for each fold, one network is trained on all other folds. The final network
is then trained on all clips.

In both cases the calibration is fitted on every held-out clip in several versions: unchanged,
augmented, and possibly transposed.
"""

from collections.abc import Sized
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sercli.arrays import FloatArray, IntArray
from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, choose_calibration
from sercli.classifiers.base import ModelSpec
from sercli.datasets.matching import count_speakers
from sercli.datasets.votes import suggest_name
from sercli.errors import DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.reporting.families import DEVELOPMENT_SPEAKERS
from sercli.text import format_count
from sercli.training.cache import CachedClips
from sercli.training.config import NeuralConfig
from sercli.training.folds import (
    MIN_GROUPS,
    VERSIONS,
    Groups,
    check_labels,
    count_folds,
    cross_fitted_figures,
    group_clips,
    split_groups,
)
from sercli.training.networks.course import Course
from sercli.training.networks.loop import Fitted
from sercli.training.networks.material import Material
from sercli.training.teachers import Teacher
from sercli.training.trainer import Learned, Say
from sercli.version import __version__

# Number of folds for the cross-fitted figures of development clips, and for choosing the
# development speakers (one fold) of a network that scores a fold of a cross-validation.
DEV_FOLDS = 5
# Subfolder of a fold's folder, for the checkpoints of the fold's teacher.
TEACHER_FOLDER = "teacher"


def fit_model(
    cached: CachedClips,
    course: Course,
    folder: Path,
    *,
    dev: CachedClips | None = None,
    say: Say = lambda _: None,
) -> Learned:
    """Train and calibrate a network.

    Parameters
    ----------
    cached
        Training clips.
    course
        Training settings and methods.
    folder
        Folder of the checkpoints; those of folds are in subfolders.
    dev
        Development clips, or None: then networks are trained on folds, too; see the module.
    say
        Called with each message.

    Returns
    -------
    Learned
        The model and, without development clips, the held-out probabilities of the training
        clips.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, an emotion occurs only with the speakers of one
        fold, there is a single development clip, or no clip to calibrate on has votes.
    ConfigError
        If a checkpoint is of another training.
    """
    _check_votes(course, dev or cached)
    if dev is not None:
        _check_dev(course, dev, say)
    material = course.gather(cached, say, scored=dev is None)  # else folds of them are scored
    if dev:
        held_out = replace(course.prepare(dev, say, learned=False), strangers=material.strangers)
        return _fit(
            material.meet(1, DEV_FOLDS, others=True),
            course,
            folder,
            say,
            dev=held_out.meet(1, DEV_FOLDS, others=False),
        )
    substitute = None
    if course.teacher and course.substitute:
        like_it = replace(course.substitute, labels=course.labels)
        substitute = Substitute(like_it, like_it.gather(cached, say))
    return _fit(material, course, folder, say, substitute=substitute)


class Substitute(NamedTuple):
    """Course and training clips of the substitute teachers, one of which is trained per fold.

    Parameters
    ----------
    course
        Course of the teachers.
    material
        All clips; those of the pupil's fold are left out for each teacher.
    """

    course: Course
    material: Material


class Trained(NamedTuple):
    """A network, and scores of held-out clips, on which its calibration is fitted.

    Parameters
    ----------
    fitted
        The network.
    held_out
        The held-out clips: the development clips, or all clips, held out in folds.
    calibrated_on
        Description of the held-out clips.
    scores
        Their scores, shape (n_versions, n_clips, n_scores).
    groups
        Their groups, for the calibration.
    n_folds
        Number of folds for their figures.
    seconds
        Duration of all trainings.
    """

    fitted: Fitted
    held_out: CachedClips
    calibrated_on: str
    scores: FloatArray
    groups: Groups
    n_folds: int
    seconds: float


def _fit(
    material: Material,
    course: Course,
    folder: Path,
    say: Say,
    *,
    dev: Material | None = None,
    substitute: Substitute | None = None,
) -> Learned:
    """Train and calibrate a network on prepared clips; see `fit_model`."""
    if dev:
        trained = _train_with_dev(material, course, folder, dev, say)
    else:
        trained = _train_with_folds(material, course, folder, substitute, say)
    network = trained.fitted.network
    calibration, figures = _calibrate(trained, course)
    spec = ModelSpec(
        family=course.classifier.family,
        labels=course.labels,
        sample_rate=SAMPLE_RATE,
        band_limit=course.band_limit,
        calibration=calibration,
        settings=asdict(course.network_settings),
        training={
            "clips": len(material),
            "speakers": count_speakers(material.cached.clips),
            "seed": course.config.seed,
            "config": asdict(course.config),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "votes": course.votes is not None,
            "teacher": course.teacher.name if course.teacher else None,
            "substitutes": substitute is not None,
            "unlabelled": _describe_unlabelled(course),
            "best_epoch": trained.fitted.best_epoch,
            "calibration_on": trained.calibrated_on,
            "held_out": figures,
            "seconds": round(trained.seconds, 3),
            **course.describe(),
        },
        versions={"sercli": __version__, **{name: version(name) for name in course.packages}},
        perceived=_calibrate_perceived(trained, course),
    )
    model = course.classifier(spec, network, course.config.device)
    if dev:
        return Learned(model)
    return Learned(model, tuple(calibration.probabilities(scores) for scores in trained.scores))


def _train_with_dev(
    material: Material, course: Course, folder: Path, dev: Material, say: Say
) -> Trained:
    """Train a network whose best epoch is chosen on the development clips."""
    say(f"training on {len(material):,} clips; {len(dev):,} development clips")
    groups = _group_dev(dev.cached, course.config)
    n_folds = min(DEV_FOLDS, len(np.unique(groups)))
    fitted = course.teach("network", material, folder, dev)
    scores = course.score(fitted.network, dev, material)
    return Trained(
        fitted, dev.cached, DEVELOPMENT_SPEAKERS, scores, groups, n_folds, fitted.seconds
    )


def _train_with_folds(
    material: Material, course: Course, folder: Path, substitute: Substitute | None, say: Say
) -> Trained:
    """Train a network for each fold, and then the network on all clips."""
    config, cached = course.config, material.cached
    groups = group_clips(cached.clips, config.group_by, cached.hashes)
    n_folds = count_folds(groups, config.folds, config.group_by)
    # For the calibration, clips scored by the same network form one group: each network has its
    # own bias towards some labels, which the final network will not share.
    scores, groups, seconds = _teach_folds(
        material, course, folder, groups, n_folds, substitute, say
    )
    say(f"training on all {len(cached):,} clips")
    fitted = course.teach("all clips", material, folder)
    calibrated_on = f"{n_folds} folds of {config.group_by}s"
    seconds += fitted.seconds
    return Trained(fitted, cached, calibrated_on, scores, groups, n_folds, seconds)


def _calibrate(trained: Trained, course: Course) -> tuple[Calibration, dict[str, Any]]:
    """Fit the calibration of the intended emotions; return it with the cross-fitted figures."""
    n_labels, n_versions = len(course.labels), len(trained.scores)
    rows = trained.scores[..., :n_labels].reshape(-1, n_labels)
    classes = np.tile(course.find_classes(trained.held_out), n_versions)
    groups = np.tile(trained.groups, n_versions)
    figures = cross_fitted_figures(
        rows,
        classes,
        groups,
        course.labels,
        trained.n_folds,
        choose_calibration,
        VERSIONS[:n_versions],
    )
    return choose_calibration(rows, classes, groups).widen(0, course.n_scores), figures


def _teach_folds(
    material: Material,
    course: Course,
    folder: Path,
    groups: Groups,
    n_folds: int,
    substitute: Substitute | None,
    say: Say,
) -> tuple[FloatArray, Groups, float]:
    """Return held-out scores of all clips, each by a network not trained on the clip's fold.

    Returns
    -------
    scores : ndarray, shape (n_versions, n_clips, n_scores)
        See `Course.score`.
    networks : ndarray of str, shape (n_clips,)
        Number of the fold, and so of the network, of each clip.
    seconds : float
        Total training time.
    """
    parts, order = [], []
    networks = np.empty(len(material), "U8")
    seconds = 0.0
    folds = split_groups(groups, n_folds)
    classes = course.find_classes(material.cached)
    for inside, _ in folds:  # before any training starts
        check_labels(classes[inside], course.labels, course.config.group_by)
    for number, (inside, outside) in enumerate(folds, 1):
        place, pupil = folder / f"fold{number}", course
        if substitute is not None:
            say(f"training a teacher without the speakers of fold {number}")
            teacher = _train_teacher(substitute, inside, place / TEACHER_FOLDER)
            seconds += teacher.classifier.spec.training["seconds"]
            pupil = replace(course, teacher=teacher)
        learned = material.take(inside).meet(number, n_folds, others=True)
        fitted = pupil.teach(f"fold {number} of {n_folds}", learned, place)
        held_out = material.take(outside).meet(number, n_folds, others=False)
        parts.append(pupil.score(fitted.network, held_out, learned))
        order.append(outside)
        networks[outside] = str(number)
        seconds += fitted.seconds
    return np.concatenate(parts, axis=1)[:, np.argsort(np.concatenate(order))], networks, seconds


def _train_teacher(substitute: Substitute, inside: IntArray, folder: Path) -> Teacher:
    """Return a teacher trained on some of the clips, with its held-out probabilities of them."""
    material = substitute.material.take(inside)
    learned = _fit(material, substitute.course, folder, lambda _: None)
    held_out = dict(zip(material.cached.hashes, learned.held_out[0], strict=True))
    return Teacher(learned.classifier, held_out, TrainingManifest())


def check_dev(dev: Sized) -> None:
    """Raise if there are too few development clips to calibrate on.

    Parameters
    ----------
    dev
        The development clips.

    Raises
    ------
    DatasetError
        If there are fewer than `MIN_GROUPS`.
    """
    if len(dev) < MIN_GROUPS:
        raise DatasetError(
            f"found {format_count(len(dev), 'development clip')}; expected {MIN_GROUPS} or more, "
            "to choose the epoch and fit the calibration, or none (--fit-on train+dev)"
        )


def _check_dev(course: Course, dev: CachedClips, say: Say) -> None:
    """Check the development clips before the training, and report labels that they lack."""
    check_dev(dev)
    found = {clip.emotion for clip in dev.clips}
    if missing := [label for label in course.labels if label not in found]:
        say(
            f"warning: no development clip is labelled {' or '.join(missing)}: the epoch and the "
            "calibration are chosen without regard to it"
        )


def _check_votes(course: Course, held_out: CachedClips) -> None:
    """Raise before the training if no clip to calibrate on has votes, where votes are used."""
    if course.tells_perceived and not course.find_perceived(held_out).any():
        raise DatasetError(
            f"the table of votes has none of the {len(held_out):,} calibration clips; expected "
            f"names such as {suggest_name(held_out.clips)}"
        )


def _calibrate_perceived(trained: Trained, course: Course) -> Calibration | None:
    """Fit the calibration of the perceived emotions on the votes of held-out clips, if any."""
    if not course.tells_perceived:
        return None
    n_labels, n_versions = len(course.labels), len(trained.scores)
    shares = course.find_perceived(trained.held_out)
    voted = shares.any(axis=1)
    calibration = choose_calibration(
        trained.scores[:, voted, n_labels:].reshape(-1, n_labels),
        np.tile(shares[voted], (n_versions, 1)),
        np.tile(trained.groups[voted], n_versions),
    )
    return calibration.widen(n_labels, course.n_scores)


def _group_dev(dev: CachedClips, config: NeuralConfig) -> Groups:
    """Return the group of each development clip; with a single group, each clip is its own."""
    groups = group_clips(dev.clips, config.group_by, dev.hashes)
    return groups if len(np.unique(groups)) >= MIN_GROUPS else group_clips(dev.clips, "clip")


def _describe_unlabelled(course: Course) -> dict[str, float] | None:
    """Return the unlabelled segments, their versions, and how often they are drawn, or None."""
    if course.unlabelled is None:
        return None
    segments = course.unlabelled.segments
    return {
        "clips": len(segments),
        "seconds": round(segments.duration, 3),
        "prosodies": course.unlabelled.prosodies,
        "ratio": course.config.ratio_of_unlabelled,
    }
