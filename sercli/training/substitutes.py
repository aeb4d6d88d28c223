"""Substitutes: teachers like a given one, that know fewer speakers.

A teacher that learned from a corpus knows the speakers of every fold. Whoever is taught by it is
told of them, too, by what it says of the others: what such a pupil then says of the fold is better
than what it would say of strangers. A pupil that is to be judged by a fold is taught by a
substitute instead, which learned from the same speakers as the pupil, and by its own held-out word.
"""

from dataclasses import replace
from typing import Any

from sercli.datasets.votes import Votes
from sercli.errors import ConfigError
from sercli.training.config import NeuralConfig, TransformerConfig
from sercli.training.networks.transformer import TransformerCourse
from sercli.training.origins import find_origin
from sercli.training.teachers import Teacher
from sercli.training.unlabelled import Unlabelled

TRANSFORMER = "transformer"


def find_substitute(
    teacher: Teacher,
    pupil: NeuralConfig,
    votes: Votes | None,
    calm: Unlabelled | None = None,
    **common: Any,
) -> TransformerCourse | None:
    """Return how teachers like a given one are trained; None if that takes too long or is unknown.

    It is known of a transformer whose encoder learned nothing from the corpus: its heads are
    trained in a minute.

    Parameters
    ----------
    teacher
        The model.
    pupil
        What is to be taught: by it, who is in a fold.
    votes
        Of listeners, from which the teacher may have learned, too.
    calm
        Calm speech of strangers, likewise.
    **common
        Other fields of `sercli.training.networks.transformer.TransformerCourse`.
    """
    spec = teacher.classifier.spec
    facts = spec.training
    if spec.family != TRANSFORMER or facts.get("teacher") or facts.get("unlabelled"):
        return None
    try:
        config = TransformerConfig(**facts["config"])
    except (KeyError, TypeError, ConfigError):
        return None  # of another version
    lacks = (facts.get("votes") and votes is None) or (facts.get("calm") and calm is None)
    if config.layers or lacks:
        return None
    origin = find_origin(str(teacher.folder))
    return TransformerCourse(
        replace(
            config,
            hearing_epochs=0,  # its encoder has learned to hear already, if it was to
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
