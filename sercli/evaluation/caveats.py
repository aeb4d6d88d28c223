"""What a reader must know of figures: whom the model knows, how few speakers there are."""

from collections.abc import Sequence
from typing import Any

from sercli.classifiers.base import Classifier
from sercli.config import Target
from sercli.datasets.base import Clip
from sercli.datasets.matching import is_published, join_voices
from sercli.datasets.protocols import APART, SHARED, UNKNOWN
from sercli.errors import DatasetError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.measurement import Judgement
from sercli.evaluation.resampling import FEW_UNITS
from sercli.text import format_count


def refuse_known(
    classifier: Classifier,
    manifest: TrainingManifest | None,
    clips: Sequence[Clip],
    hashes: Sequence[str],
) -> None:
    """Refuse to measure a model on what it knows.

    Parameters
    ----------
    classifier
        The model.
    manifest
        Of what it was trained on, if that is known.
    clips
        That are measured.
    hashes
        Of their audio, as far as it is known yet; see `sercli.datasets.decoding.hash_audio`.

    Raises
    ------
    DatasetError
        If it knows any of them, or does not tell what it knows.
    """
    if manifest is None:
        raise DatasetError(
            f"model {classifier.name}: does not say what it was trained on, so that it cannot be "
            "checked for overlap; expected a manifest.csv in its folder"
        )
    if known := manifest.describe_known(clips, hashes):
        raise DatasetError(
            f"model {classifier.name}: was {known} of those to measure on; choose clips that it "
            "does not know"
        )


def find_limits(judgement: Judgement) -> list[str]:
    """Return what limits the figures of predictions, whatever the model; a sentence each.

    Parameters
    ----------
    judgement
        What was predicted.
    """
    warnings = find_limits_of(judgement.predictions.clips)
    if judgement.failed:
        warnings.append(
            f"{format_count(len(judgement.failed), 'clip')} could not be heard and stayed out."
        )
    if judgement.n_alone:
        clips = format_count(len(judgement.predictions.clips), "clip")
        warnings.append(
            f"Behind {judgement.n_alone} of {clips}, babble is of other clips, whoever speaks in "
            "them, or of the clip itself: no other speaker is known."
        )
    return warnings


def find_limits_of(clips: Sequence[Clip]) -> list[str]:
    """Return what limits figures and intervals of clips, whoever judges them; a sentence each.

    Parameters
    ----------
    clips
        Those that are scored.
    """
    voices = {*join_voices(clips)}
    warnings = []
    if None in voices:
        warnings.append("Speakers are unknown: intervals are from resampled clips, and too narrow.")
    elif len(voices) < FEW_UNITS:
        warnings.append(
            f"Intervals from {format_count(len(voices), 'speaker')} are too narrow."
            if len(voices) > 1
            else "There are no intervals: all clips are of one speaker."
        )
    if len({clip.emotion for clip in clips}) == 1:
        warnings.append("All clips have one label: UAR is its recall.")
    return warnings


def find_caveats(
    manifest: TrainingManifest | None,
    judgement: Judgement,
    target: Target,
    limits: Sequence[str],
) -> dict[str, Any]:
    """Return ``protocol``, ``overlap`` and ``warnings``: what a reader must know of the figures.

    Of clips or speakers that the model knows, the first warning is.

    Parameters
    ----------
    manifest
        Of what the model was trained on, if that is known.
    judgement
        What it said.
    target
        Which of its outputs was measured.
    limits
        Of the model itself; a sentence each.
    """
    clips = judgement.predictions.clips
    voices = {clip.voice for clip in clips}
    warnings = []
    overlap: dict[str, Any] | None = None
    if manifest is None:
        protocol = UNKNOWN
        warnings.append(
            "The model does not say what it was trained on: it may know these clips or speakers."
        )
    else:
        speakers, n_clips = manifest.find_speakers(clips), manifest.count_clips(judgement.hashes)
        overlap = {"speakers": speakers, "clips": n_clips}
        unknown = manifest.explain_unknown()
        known = unknown is None and None not in voices
        protocol = SHARED if speakers or n_clips else APART if known else UNKNOWN
        if protocol == SHARED:
            warnings.append(
                f"The model was {manifest.describe_known(clips, judgement.hashes)} of these: its "
                "figures are too good."
            )
            if not all(is_published(clip) for clip in clips if clip.voice in speakers):
                warnings.append(
                    "Speakers are known by their names: if these are others, give them other names."
                )
        elif unknown is not None:
            warnings.append(unknown)
    if target == "perceived":
        warnings.append(
            "These probabilities tell what listeners hear; the expected labels are what was "
            "intended. Compare them with listeners by their votes."
        )
    warnings += [*limits, *find_limits(judgement)]
    return {"protocol": protocol, "overlap": overlap, "warnings": warnings}
