"""Substitutes: teachers like a given one, trained without the speakers of a fold.

A teacher that was trained on a corpus knows the speakers of every fold. Through its probabilities
of the other speakers, a pupil learns about those of the held-out fold, too, so that the pupil's
held-out scores are better than its scores of strangers would be. A pupil that is scored on a fold
therefore learns from a substitute, which is trained on the same speakers as the pupil, and from the
substitute's own held-out probabilities.
"""

from dataclasses import replace
from typing import Any

from sercli.datasets.votes import Votes
from sercli.errors import ConfigError
from sercli.training.config import NeuralConfig, TransformerConfig
from sercli.training.networks.transformer import TransformerCourse
from sercli.training.origins import find_origin
from sercli.training.teachers import Teacher
from sercli.training.train_config import TRANSFORMER
from sercli.training.unlabelled import Unlabelled


def find_substitute(
    teacher: Teacher,
    pupil: NeuralConfig,
    votes: Votes | None,
    calm: Unlabelled | None = None,
    **common: Any,
) -> TransformerCourse | None:
    """Return the course that trains substitutes of a teacher, or None if there is none.

    There is one for a transformer whose encoder was not fine-tuned on the corpus and that had no
    teacher and no unlabelled speech itself: its heads are trained within a minute. Votes and calm
    speech that the teacher was trained with must be given.

    Parameters
    ----------
    teacher
        The teacher.
    pupil
        Training settings of the pupil, of which the grouping of folds, the device and the number
        of processes are used.
    votes
        Listeners' votes, or None; used if the teacher was trained with votes.
    calm
        Calm speech of strangers, or None; used if the teacher was trained with it.
    **common
        Other fields of `sercli.training.networks.transformer.TransformerCourse`.

    Raises
    ------
    ModelError
        If the encoder of the teacher cannot be loaded; see `sercli.training.origins.find_origin`.
    """
    spec = teacher.classifier.spec
    facts = spec.training
    if spec.family != TRANSFORMER or facts.get("teacher") or facts.get("unlabelled"):
        return None
    try:
        config = TransformerConfig(**facts["config"])
    except (KeyError, TypeError, ConfigError):
        return None  # a model of another version, with other settings
    lacks = (facts.get("votes") and votes is None) or (facts.get("calm") and calm is None)
    if config.layers or lacks:
        return None
    origin = find_origin(str(teacher.folder))
    return TransformerCourse(
        replace(
            config,
            hearing_epochs=0,  # the teacher's encoder already has this training, if any
            group_by=pupil.group_by,
            device=pupil.device,
            jobs=pupil.jobs,
        ),
        votes=votes if facts.get("votes") else None,
        calm=calm if facts.get("calm") else None,
        base=origin.base,
        limit=origin.limit,
        **common,
    )
