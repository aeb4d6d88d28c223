"""The trainer of networks of any family: what it prepares, refuses and keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.classifiers.neural import NeuralClassifier
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.extraction import Progress
from sercli.datasets.matching import count_speakers
from sercli.datasets.notes import Notes, join_notes
from sercli.datasets.protocols import fold_by_speaker
from sercli.datasets.votes import match_votes
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.neural.devices import choose_device
from sercli.training.cache import CachedClips, CachedTrainer, cache_clips
from sercli.training.config import NeuralConfig
from sercli.training.folds import MIN_GROUPS, check_folds, check_labels
from sercli.training.networks.checkpoints import CHECKPOINT_FILE
from sercli.training.networks.course import Course, score_clips
from sercli.training.networks.fitting import DEV_FOLDS, check_dev, fit_model
from sercli.training.networks.history import CURVES_FILE, HISTORY_FILE
from sercli.training.trainer import Learned, Say

# Of a model folder: where its training stands, until the model is complete.
TRAINING_FOLDER = "training"


@dataclass(frozen=True, eq=False)
class NeuralTrainer(CachedTrainer):
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
        return {place: error for one in self.course.speech for place, error in one.failed.items()}

    @property
    def notes(self) -> Mapping[str, Notes]:
        """What was repaired of recordings without labels, or is not heard."""
        return join_notes(one.notes for one in self.course.speech)

    def begin(self, folder: Path) -> None:
        """Remove what is left of an earlier training, or it would be taken for a part of this."""
        if not self.course.resume:
            clear_training(folder)

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse a teacher or base that knows their speakers, and to learn from them unlabelled."""
        course = self.course
        if course.teacher is not None:
            course.teacher.refuse_judged(
                clips,
                advice=", divide the speakers otherwise (--split FILE.csv), or, if they are to "
                "develop only, learn from them, too (--fit-on train+dev)",
            )
        self._refuse_known(clips)
        for speech in course.speech:
            self.say("looking for speech in what nobody labelled")
            self.say(speech.describe())
            if clips:
                judged = cache_clips(clips, self.cache, jobs=self.config.jobs)
                speech.refuse_judged(judged)

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Refuse clips without a label, and what nothing could be judged by.

        That are development clips or, without any, folds.
        """
        if dev:
            check_dev(dev)
            check_labels(np.array(class_indices(clips, labels)), labels)
        else:
            check_folds(clips, labels, self.config.folds, self.config.group_by)

    def check_fit_fold(self, clips: Sequence[Clip], labels: Sequence[str]) -> None:
        """Refuse other folds that leave no development speakers, or nobody else with a label."""
        dev, learned = _split_dev(clips)
        check_dev(dev)
        classes = np.array(class_indices(clips, labels))
        check_labels(classes[learned], labels, "speaker", " and the development speakers")

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache, and say how large they are in it."""
        found = self.decode(parts)
        duration, n_bytes = sum(one.duration for one in found), sum(one.n_bytes for one in found)
        self.say(f"{duration:,.0f} s of audio in {self.cache}, {n_bytes / 1e6:,.0f} MB")
        if len(found) == 1:
            # Without development clips, folds of those that are learned from are judged.
            self._refuse_known(found[0].clips)
            for speech in self.course.speech:
                speech.refuse_judged(found[0])
        votes = self.course.votes
        if votes is not None:
            clips = [clip for one in found for clip in one.clips]
            n_voted = sum(map(bool, match_votes(votes, clips)))
            if not n_voted:
                raise DatasetError(
                    f"the table of votes has none of {len(clips)} clips; expected names such as "
                    f"{clips[0].name}"
                )
            self.say(f"votes on {n_voted:,} of {len(clips):,} clips")
            labels = {clip.emotion for clip in clips}
            if others := sorted({label for row in votes.values() for label in row} - labels):
                self.say(
                    f"warning: votes for {', '.join(others)} do not count: no clip is labelled so"
                )
        teacher = self.course.teacher
        if teacher is not None and (n_learned := sum(map(teacher.count_learned, found[:1]))):
            self.say(
                f"warning: the teacher {teacher.name} learned from {n_learned:,} of these clips, "
                "and has nothing on them from when they were held out"
            )
        if teacher is not None and len(found) == 1 and self.course.substitute is None:
            self.say(
                f"warning: networks judged by folds learn from {teacher.name}, which knows who is "
                "in each: figures and calibration may be too good. A transformer of which only the "
                "head was trained, without a teacher, would be trained anew for each fold (with "
                "--votes, if it learned from votes)"
            )
        return found

    def fit(
        self,
        found: CachedClips,
        labels: Sequence[str],
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Learned:
        """Train and calibrate a model; see `fit_model`."""
        return self._fit(found, labels, folder / TRAINING_FOLDER, dev)

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> Classifier:
        """Train and calibrate a model, with a fifth of the speakers as development speakers.

        Folds within folds would be better by little, and take `NeuralConfig.folds` times as long.
        """
        dev, learned = _split_dev(found.clips)
        place = folder / TRAINING_FOLDER / f"judge{number}"
        return self._fit(found.take(learned), labels, place, found.take(dev)).classifier

    def judge(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return a model's probabilities for clips as they are, shape (n_clips, n_labels)."""
        assert isinstance(model, NeuralClassifier)
        return model.spec.calibration.probabilities(score_clips(model.network, found))

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of a model that learned from clips, and from what else it did."""
        course = self.course
        others = [course.before, *(speech.manifest for speech in course.speech)]
        if course.teacher is not None:
            # What it says of others, it learned from these.
            others.append(course.teacher.manifest)
        return super().make_manifest(found).join(others)

    def finish(self, folder: Path) -> None:
        """Keep the history of the network, and remove the checkpoints."""
        for name in (HISTORY_FILE, CURVES_FILE):
            (folder / TRAINING_FOLDER / name).replace(folder / name)
        clear_training(folder)

    def _refuse_known(self, clips: Sequence[Clip]) -> None:
        known = self.course.before.fitted.find_speakers(clips)
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
    ) -> Learned:
        course = replace(self.course, labels=tuple(labels))
        return fit_model(found, course, place, dev=dev, say=self.say)


def _split_dev(clips: Sequence[Clip]) -> tuple[list[int], list[int]]:
    """Return the indices of the clips of development speakers, and of the others."""
    n_folds = max(MIN_GROUPS, min(DEV_FOLDS, count_speakers(clips)))
    dev, *others = fold_by_speaker(clips, n_folds)
    return dev, sorted(index for fold in others for index in fold)


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
