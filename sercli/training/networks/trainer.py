"""Trainer of neural networks of any family."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.classifiers.neural import TrainedNetworkClassifier
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.matching import count_speakers
from sercli.datasets.protocols import fold_by_speaker
from sercli.datasets.votes import Votes, match_votes, suggest_name
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.files import TEMPORARY
from sercli.neural.devices import choose_device
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import NeuralConfig
from sercli.training.folds import MIN_GROUPS, check_folds, check_labels
from sercli.training.networks.course import Course, score_clips
from sercli.training.networks.fitting import DEV_FOLDS, check_dev, fit_model
from sercli.training.networks.history import (
    CHECKPOINT_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    HISTORY_FILES,
    TRAINING_FOLDER,
)
from sercli.training.trainer import Learned, Trainer
from sercli.training.unlabelled import Unlabelled


@dataclass(frozen=True, eq=False)
class NeuralTrainer(Trainer[CachedClips]):
    """Trainer of the networks of one family.

    The other parameters are those of `Trainer`.

    Parameters
    ----------
    course
        Training settings and methods of the networks.

    Raises
    ------
    ConfigError
        If the device of the settings does not exist.
    """

    uses_dev = True

    course: Course

    def __post_init__(self) -> None:
        """Check that the device exists, before any clip is decoded."""
        choose_device(self.config.device)

    @property  # type: ignore[misc]
    def config(self) -> NeuralConfig:
        """Training settings."""
        return self.course.config

    @property
    def speech(self) -> tuple[Unlabelled, ...]:
        """All sets of unlabelled speech used in training."""
        return self.course.speech

    def begin(self, folder: Path) -> None:
        """Remove the files of an earlier training from the folder, unless it is resumed."""
        if not self.course.resume:
            clear_training(folder)

    def check_held_out(self, clips: Sequence[Clip]) -> None:
        """Raise if held-out clips are known to the teacher or base, or are in unlabelled speech.

        Raises
        ------
        ConfigError
            If the teacher or base was trained on their speakers, or the unlabelled or calm speech
            contains the clips.
        DatasetError
            If there is no speech in the unlabelled recordings, or calm speech of too few people.
        """
        course = self.course
        if course.teacher is not None:
            course.teacher.refuse_held_out(
                clips,
                advice=", split the speakers differently (--split FILE.csv), or, if they are "
                "development speakers only, train on them, too (--fit-on train+dev)",
            )
        self._refuse_known(clips)
        course.find_speech(self.say)
        if clips and course.speech:
            held_out = cache_clips(clips, self.cache, jobs=self.config.jobs)
            for speech in course.speech:
                speech.refuse_held_out(held_out)

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Raise if a label has no clips or cannot be learned, or dev clips or folds do not suffice.

        The labels have to be those of the teacher, too, which is found out here, before speech is
        looked for and resynthesised. Folds are needed only without development clips. Where votes
        are used, some clip has to have any.
        """
        self.course.refuse_labels(labels)
        if self.course.votes is not None:
            _count_voted(self.course.votes, (*clips, *dev))
        if dev:
            check_dev(dev)
            check_labels(np.array(class_indices(clips, labels)), labels)
        else:
            check_folds(clips, labels, self.config.folds, self.config.group_by)

    def check_fit_fold(self, clips: Sequence[Clip], labels: Sequence[str]) -> None:
        """Raise if there are too few development clips, or other speakers lack a label."""
        dev, learned = _split_dev(clips)
        check_dev(dev)
        classes = np.array(class_indices(clips, labels))
        check_labels(classes[learned], labels, "speaker", " and the development speakers")

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode the clips into the cache, and check votes, teacher and unlabelled speech.

        Raises
        ------
        DatasetError
            If no clip of a part can be decoded, or no clip has votes where votes are used.
        ConfigError
            As for `check_held_out`, if folds of the training clips will be scored.
        """
        found = self.decode(parts)
        duration, n_bytes = sum(one.duration for one in found), sum(one.n_bytes for one in found)
        self.say(f"{duration:,.0f} s of audio in {self.cache}, {n_bytes / 1e6:,.0f} MB")
        if len(found) == 1:
            # Without development clips, folds of the training clips are scored.
            self._refuse_known(found[0].clips)
            for speech in self.course.speech:
                speech.refuse_held_out(found[0])
        votes = self.course.votes
        if votes is not None:
            clips = [clip for one in found for clip in one.clips]
            n_voted = _count_voted(votes, clips)  # of those that could be decoded
            self.say(f"votes on {n_voted:,} of {len(clips):,} clips")
            labels = {clip.emotion for clip in clips}
            if others := sorted({label for row in votes.values() for label in row} - labels):
                self.say(
                    f"warning: votes for {', '.join(others)} do not count: no clip has this label"
                )
        teacher = self.course.teacher
        if teacher is not None and (n_learned := sum(map(teacher.count_learned, found[:1]))):
            self.say(
                f"warning: the teacher {teacher.name} was trained on {n_learned:,} of these "
                "clips, and has no held-out probabilities for them"
            )
        if teacher is not None and len(found) == 1 and self.course.substitute is None:
            self.say(
                f"warning: the networks of the folds learn from {teacher.name}, which was trained "
                "on the speakers of each: figures and calibration may be too good. A transformer "
                "with a frozen encoder that had no teacher itself would be retrained for each "
                "fold (with --votes, if it was trained with votes)"
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
        course = replace(self.course, labels=tuple(labels))
        return fit_model(found, course, folder / TRAINING_FOLDER, dev=dev, say=self.say)

    def fit_fold(
        self, found: CachedClips, labels: Sequence[str], folder: Path, number: int
    ) -> Classifier:
        """Train and calibrate a model, with about a fifth of the speakers for development.

        Nested folds would be little better, and take `NeuralConfig.folds` times as long.
        """
        dev, learned = _split_dev(found.clips)
        course = replace(self.course, labels=tuple(labels))
        place = folder / TRAINING_FOLDER / f"outer{number}"
        given = found.take(learned), course, place
        return fit_model(*given, dev=found.take(dev), say=self.say).classifier

    def classify(self, model: Classifier, found: CachedClips) -> DoubleArray:
        """Return a model's probabilities of unchanged clips, shape (n_clips, n_labels)."""
        assert isinstance(model, TrainedNetworkClassifier)
        return model.spec.calibration.probabilities(score_clips(model.network, found))

    def make_manifest(self, found: CachedClips) -> TrainingManifest:
        """Return the manifest of a model trained on clips, including all other training data."""
        course = self.course
        others = [course.before]
        if course.teacher is not None:
            # The teacher's training clips influence its probabilities, and so the pupil.
            others.append(course.teacher.manifest)
        return super().make_manifest(found).join(others)

    def finish(self, folder: Path) -> None:
        """Move the histories of the network to the model folder, and remove the checkpoints."""
        for place, name in HISTORY_FILES.items():
            if (folder / TRAINING_FOLDER / place).exists():
                (folder / TRAINING_FOLDER / place).replace(folder / name)
        clear_training(folder)

    def _refuse_known(self, clips: Sequence[Clip]) -> None:
        before = self.course.before.fitted
        known = before.find_speakers(clips)
        if known:
            count = before.count_speakers(clips)
            raise ConfigError(
                f"the base was trained on {count} of the speakers to be scored, such as "
                f"{known[0]}; expected none. Give a base that was not trained on any of them; "
                "without development speakers, all speakers are scored, by folds"
            )


def _count_voted(votes: Votes, clips: Sequence[Clip]) -> int:
    """Return the number of clips that have votes, and raise if none has."""
    n_voted = sum(map(bool, match_votes(votes, clips)))
    if not n_voted:
        raise DatasetError(
            f"the table of votes has none of {len(clips)} clips; expected names such as "
            f"{suggest_name(clips)}, found {sorted(votes)[:1]}"
        )
    return n_voted


def _split_dev(clips: Sequence[Clip]) -> tuple[list[int], list[int]]:
    """Return the indices of the clips of development speakers, and of the others."""
    n_folds = max(MIN_GROUPS, min(DEV_FOLDS, count_speakers(clips)))
    dev, *others = fold_by_speaker(clips, n_folds)
    return dev, sorted(index for fold in others for index in fold)


def clear_training(folder: Path) -> None:
    """Remove checkpoints and history from the training subfolder of a model folder, only those."""
    place = folder / TRAINING_FOLDER
    for name in (CHECKPOINT_FILE, HISTORY_FILE, CURVES_FILE):
        # The oldest first: without the first network, a killed removal is not taken for a training.
        kept = sorted(place.rglob(name), key=lambda path: path.stat().st_mtime_ns)
        # Temporary files that were being written, too.
        for path in [*kept, *place.rglob(f".{name}.*{TEMPORARY}")]:
            path.unlink()
            with suppress(OSError):  # something else is in that folder
                for parent in (path.parent, *path.parent.parents):
                    if parent == folder:
                        break
                    parent.rmdir()
