"""Warnings about figures, such as training overlap or too few speakers."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sercli.classifiers.base import Classifier
from sercli.config import APART, SHARED, UNKNOWN, Target
from sercli.datasets.clip import Clip
from sercli.datasets.matching import is_published, join_voices
from sercli.errors import DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.measurement import ClassifiedClips
from sercli.evaluation.resampling import FEW_UNITS
from sercli.text import format_count


def refuse_known(classifier: Classifier, clips: Sequence[Clip], hashes: Sequence[str]) -> None:
    """Raise if a model was trained, selected or calibrated on any of the clips or speakers.

    Parameters
    ----------
    classifier
        The model.
    clips
        Clips to evaluate on.
    hashes
        Hashes of their audio, as far as they are known yet; see
        `sercli.datasets.decoding.hash_audio`.

    Raises
    ------
    DatasetError
        If there is an overlap, or no manifest.
    """
    manifest = TrainingManifest.of(classifier)
    if manifest is None:
        raise DatasetError(
            f"model {classifier.name}: has no record of its training data, so overlap with these "
            "clips cannot be ruled out; expected a manifest.csv in its folder"
        )
    if known := manifest.describe_known(clips, hashes):
        raise DatasetError(
            f"model {classifier.name}: was {known} of the evaluation data; choose clips and "
            "speakers that are new to it"
        )


def find_limits(classified: ClassifiedClips) -> list[str]:
    """Return warnings about figures that hold for any model, one sentence each.

    Parameters
    ----------
    classified
        The predictions.
    """
    warnings = find_limits_of(classified.predictions.clips)
    counts = Counter(one for one in classified.hashes if one)
    if n_copies := counts.total() - len(counts):
        warnings.append(
            f"{format_count(n_copies, 'clip')} with the same audio as another, which count again."
        )
    if classified.failed:
        warnings.append(
            f"{format_count(len(classified.failed), 'clip')} failed and had to be left out."
        )
    if classified.notes:
        warnings.append(
            f"Parts of {format_count(len(classified.notes), 'recording')} were repaired or not "
            "read."
        )
    if classified.n_alone:
        clips = format_count(len(classified.predictions.clips), "clip")
        warnings.append(
            f"For {classified.n_alone} of {clips}, the babble may contain the same speaker or the "
            "clip itself: no other speaker is known."
        )
    return warnings


def find_limits_of(clips: Sequence[Clip]) -> list[str]:
    """Return warnings about figures and intervals that follow from the clips, one sentence each.

    Parameters
    ----------
    clips
        The scored clips.
    """
    voices = {*join_voices(clips)}
    warnings = []
    if n_unknown := sum(clip.voice is None for clip in clips):
        whose = (
            "Speakers"
            if n_unknown == len(clips)
            else f"Speakers of {format_count(n_unknown, 'clip')}"
        )
        warnings.append(
            f"{whose} are unknown, so intervals are bootstrapped over clips, and too narrow."
        )
    elif len(voices) < FEW_UNITS:
        warnings.append(
            f"Intervals from {format_count(len(voices), 'speaker')} are too narrow."
            if len(voices) > 1
            else "There are no intervals: all clips are of one speaker."
        )
    if len({clip.emotion for clip in clips}) == 1:
        warnings.append("All clips have the same label, so UAR is its recall.")
    return warnings


def find_caveats(
    manifest: TrainingManifest | None,
    classified: ClassifiedClips,
    target: Target,
    limits: Sequence[str],
    *,
    has_votes: bool = False,
) -> dict[str, Any]:
    """Return ``protocol``, ``overlap`` and ``warnings`` for ``metrics.json``.

    A warning about an overlap with the training data comes first.

    Parameters
    ----------
    manifest
        Manifest of the model's training data, or None if it has none.
    classified
        The model's predictions.
    target
        The output of the model that was evaluated.
    limits
        Warnings about the model itself, one sentence each.
    has_votes
        Whether the predictions are compared with listeners' votes.
    """
    clips = classified.predictions.clips
    voices = {clip.voice for clip in clips}
    warnings = []
    overlap: dict[str, Any] | None = None
    if manifest is None:
        protocol = UNKNOWN
        warnings.append(
            "The model has no record of its training data: it may have been trained on these clips "
            "or speakers."
        )
    else:
        speakers, n_clips = manifest.find_speakers(clips), manifest.count_clips(classified.hashes)
        overlap = {"speakers": speakers, "clips": n_clips}
        unknown = manifest.explain_unknown()
        known = unknown is None and None not in voices
        protocol = SHARED if speakers or n_clips else APART if known else UNKNOWN
        if protocol == SHARED:
            warnings.append(
                f"The model was {manifest.describe_known(clips, classified.hashes)} of the "
                "evaluation data: its figures are too good."
            )
            if not all(is_published(clip) for clip in clips if clip.voice in speakers):
                warnings.append(
                    "Speakers are identified by name: if these are different people, rename them."
                )
        elif unknown is not None:
            warnings.append(unknown)
    if target == "perceived":
        warnings.append(
            "These probabilities predict the emotion that listeners perceive, but the labels are "
            "the intended emotions."
            + ("" if has_votes else " Compare them with listeners' votes (--votes).")
        )
    warnings += [*limits, *find_limits(classified)]
    return {"protocol": protocol, "overlap": overlap, "warnings": warnings}
