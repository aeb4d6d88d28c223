"""Several models side by side on the same clips, with paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sercli.config import APART
from sercli.errors import DatasetError
from sercli.evaluation.caveats import find_limits_of
from sercli.evaluation.classification import renormalise
from sercli.evaluation.metrics import evaluate_probabilities
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.resampling import FIGURES, LEVEL, N_RESAMPLES, compare, find_intervals
from sercli.text import format_count

# Keys of a model's figures that describe how it was evaluated.
WAYS: Final = ("target", "adapt", "precision")


def compare_predictions(
    predictions: Sequence[Predictions],
    *,
    measured: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Compare models on the clips and labels that all of them have predictions for.

    Parameters
    ----------
    predictions
        Predictions of two models or more. Clips are matched by corpus and name, and must have the
        same audio or, where a hash is unknown, the same times and channel. Models of the same name
        are numbered.
    measured
        Figures of each model, as in ``metrics.json``; ``target``, ``adapt``, ``precision`` and
        ``protocol`` describe how it was evaluated. Unknown ones may be missing.
    seed
        Seed of the resampling.

    Returns
    -------
    dict
        ``labels``, ``n_segments``, ``resampled`` (the kind of resampling unit), ``level``,
        ``n_resamples``, ``seed``; ``models``: the ``name`` of each, how it was evaluated, its
        figures and their ``intervals``; ``warnings``; ``differences``: for each pair of models,
        later minus earlier, the ``difference`` and its paired ``interval`` for each figure.

    Raises
    ------
    DatasetError
        If there are fewer than two models, no clip or fewer than two labels are common to all, or
        the same clip has different labels.
    """
    if len(predictions) < 2:
        raise DatasetError("nothing to compare; expected two or more models or reports")
    labels = tuple(
        label for label in predictions[0].labels if all(label in one.labels for one in predictions)
    )
    parts, n_others = _pair(predictions, labels)
    aligned = _align(parts, labels)
    names = _number([one.model for one in aligned])
    samples, kinds = zip(*(one.resampled() for one in aligned), strict=True)
    ways = [
        {way: figures.get(way) for way in (*WAYS, "protocol")}
        for figures in measured or [{}] * len(names)
    ]
    n_left = [len(one.clips) - len(aligned[0].clips) - n_others for one in predictions]
    models = []
    for name, way, one, sample in zip(names, ways, aligned, samples, strict=True):
        figures = evaluate_probabilities(one.y_true, one.probabilities, one.labels)
        intervals = find_intervals(sample, seed=seed)
        figures = {figure: figures[figure] for figure in FIGURES}
        models.append({"name": name, **way, **figures, "intervals": intervals})
    return {
        "labels": list(aligned[0].labels),
        "n_segments": len(aligned[0].clips),
        "resampled": kinds[0],
        "level": LEVEL,
        "n_resamples": N_RESAMPLES,
        "seed": seed,
        "models": models,
        "warnings": [
            *_warn(names, ways, n_left),
            *_warn_of_clips(names, parts, n_others),
            *find_limits_of(aligned[0].clips),
        ],
        "differences": [
            {
                "of": names[j],
                "from": names[i],
                "figures": compare(samples[j], samples[i], seed=seed),
            }
            for j in range(len(names))
            for i in range(j)
        ],
    }


def _pair(
    predictions: Sequence[Predictions], labels: Sequence[str]
) -> tuple[list[Predictions], int]:
    """Return the predictions for the clips and labels that all models have.

    Also return the number of clips left out because the same name means different clips.
    """
    first = predictions[0]
    common = set.intersection(*(set(one.keys()) for one in predictions))
    keys = [
        key
        for key, clip in zip(first.keys(), first.clips, strict=True)
        if key in common and clip.emotion in labels
    ]
    parts = [one.take(keys) for one in predictions]
    same = [key for row, key in enumerate(keys) if _is_same(parts, row)]
    models = ", ".join(one.model for one in predictions)
    if not keys or len(labels) < 2:
        raise DatasetError(
            f"{models}: have {len(common)} clips and the labels {list(labels)} in common; expected "
            "predictions for the same clips"
        )
    if not same:
        raise DatasetError(
            f"{models}: have {len(keys)} clips with the same names, but different audio or times; "
            "expected predictions for the same clips"
        )
    return [part.take(same) for part in parts], len(keys) - len(same)


def _is_same(parts: Sequence[Predictions], row: int) -> bool:
    """Return whether a clip is the same in all: by audio or, if a hash is unknown, by times."""
    hashes = {part.hashes[row] for part in parts}
    if len(hashes - {""}) > 1:
        return False
    clips = [part.clips[row] for part in parts]
    # Times are rounded as in a table.
    times = {(f"{clip.start:.3f}", clip.end and f"{clip.end:.3f}") for clip in clips}
    channels = {clip.channel for clip in clips} - {None}
    return "" not in hashes or (len(times) == 1 and len(channels) <= 1)


def _align(parts: Sequence[Predictions], labels: tuple[str, ...]) -> list[Predictions]:
    first, clips = parts[0], parts[0].clips
    aligned = []
    for part in parts:
        if [clip.emotion for clip in part.clips] != [clip.emotion for clip in clips]:
            raise DatasetError(
                f"{first.model} and {part.model}: have different true labels for the same clips; "
                "expected predictions for the same corpus, read with the same --map"
            )
        probabilities = renormalise(part.probabilities, part.labels, labels)
        # With the clips of the first model, so that the same speakers are drawn for all.
        aligned.append(Predictions(part.model, labels, clips, probabilities))
    return aligned


def _warn(
    names: Sequence[str],
    ways: Sequence[Mapping[str, Any]],
    n_left: Sequence[int],
) -> list[str]:
    """Return warnings on how the models' evaluations differ, one sentence each."""
    warnings = []
    for way in WAYS:
        told = [(name, of[way]) for name, of in zip(names, ways, strict=True) if of[way]]
        if len({value for _, value in told}) > 1:
            values = ", ".join(f"{value} ({name})" for name, value in told)
            warnings.append(f"They were measured with different settings: {way} is {values}.")
    for name, of in zip(names, ways, strict=True):
        if not any(of.values()) and any(any(one.values()) for one in ways):
            warnings.append(f"{name}: the settings that it was measured with are not known.")
    for name, of, n_clips in zip(names, ways, n_left, strict=True):
        if of["protocol"] not in (APART, None):
            warnings.append(f"{name}: {of['protocol']}: its figures may be too good.")
        if n_clips:
            warnings.append(
                f"{name}: {format_count(n_clips, 'clip')} left out, since not all models scored "
                "them or have their label."
            )
    return warnings


def _warn_of_clips(names: Sequence[str], parts: Sequence[Predictions], n_others: int) -> list[str]:
    """Return warnings on clips of the same name that may differ, one sentence each."""
    warnings = []
    if n_others:
        warnings.append(
            f"{format_count(n_others, 'clip')} left out, since their names agree, but not their "
            "audio or times."
        )
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if not any(part.hashes):
            warnings.append(
                f"{name}: has no hashes of its audio, so its clips are matched by name only."
            )
        n_strange = sum(
            not (audio and audio == other)
            and None not in (clip.speaker, same.speaker)
            and clip.speaker != same.speaker
            for clip, audio, same, other in zip(
                part.clips, part.hashes, first.clips, first.hashes, strict=True
            )
        )
        if n_strange:
            warnings.append(
                f"{name}: {format_count(n_strange, 'clip')} with other speakers than in "
                f"{names[0]}: these may be other recordings of the same name."
            )
    return warnings


def _number(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]
