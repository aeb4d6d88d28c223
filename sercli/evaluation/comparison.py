"""Several models side by side on the same clips, with paired differences."""

from collections.abc import Sequence
from typing import Any

from sercli.errors import DatasetError
from sercli.evaluation.metrics import evaluate_probabilities
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.resampling import FIGURES, LEVEL, N_RESAMPLES, compare, find_intervals
from sercli.evaluation.run import renormalise


def compare_predictions(predictions: Sequence[Predictions], *, seed: int = 0) -> dict[str, Any]:
    """Compare models on the clips that all of them judged and the labels that all of them score.

    Parameters
    ----------
    predictions
        Of two models or more; clips are told by corpus and name. Models of one name are numbered.
    seed
        Of the resampling.

    Returns
    -------
    dict
        ``labels``, ``n_segments``, ``resampled`` (what is drawn for the intervals), ``level``,
        ``n_resamples``, ``seed``; ``models``: of each its ``name``, its figures and their
        ``intervals``; ``differences``: of each pair, later minus earlier, the ``difference`` and
        its paired ``interval`` for each figure.

    Raises
    ------
    DatasetError
        If there are fewer than two, no clip is common to all, fewer than two labels are, or the
        same clip has different labels.
    """
    if len(predictions) < 2:
        raise DatasetError("there is nothing to compare; expected two models or reports, or more")
    aligned = _align(predictions)
    names = _number([one.model for one in aligned])
    samples = [one.resampled() for one in aligned]
    models = []
    for name, one, (sample, _) in zip(names, aligned, samples, strict=True):
        figures = evaluate_probabilities(one.y_true, one.probabilities, one.labels)
        intervals = find_intervals(sample, seed=seed)
        figures = {figure: figures[figure] for figure in FIGURES}
        models.append({"name": name, **figures, "intervals": intervals})
    pairs = [(i, j) for j in range(len(names)) for i in range(j)]
    return {
        "labels": list(aligned[0].labels),
        "n_segments": len(aligned[0].clips),
        "resampled": samples[0][1],
        "level": LEVEL,
        "n_resamples": N_RESAMPLES,
        "seed": seed,
        "models": models,
        "differences": [
            {
                "of": names[j],
                "from": names[i],
                "figures": compare(samples[j][0], samples[i][0], seed=seed),
            }
            for i, j in pairs
        ],
    }


def _align(predictions: Sequence[Predictions]) -> list[Predictions]:
    first = predictions[0]
    labels = tuple(
        label for label in first.labels if all(label in one.labels for one in predictions)
    )
    common = set.intersection(*(set(one.keys()) for one in predictions))
    keys = [
        key
        for key, clip in zip(first.keys(), first.clips, strict=True)
        if key in common and clip.emotion in labels
    ]
    if not keys or len(labels) < 2:
        raise DatasetError(
            f"{', '.join(one.model for one in predictions)}: have {len(common)} clips and the "
            f"labels {list(labels)} in common; expected predictions for the same clips"
        )
    parts = [one.take(keys) for one in predictions]
    clips = parts[0].clips
    aligned = []
    for part in parts:
        if [clip.emotion for clip in part.clips] != [clip.emotion for clip in clips]:
            raise DatasetError(
                f"{first.model} and {part.model}: have different true labels for the same "
                "clips; expected predictions for one corpus, read with one --map"
            )
        probabilities = renormalise(part.probabilities, part.labels, labels)
        # With the first's clips, so that the same speakers are drawn for all.
        aligned.append(Predictions(part.model, labels, clips, probabilities))
    return aligned


def _number(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]
