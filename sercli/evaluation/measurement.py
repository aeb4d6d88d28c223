"""Computation of all figures in ``metrics.json`` from predictions for labelled clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.config import EvalConfig
from sercli.datasets.clip import Clip
from sercli.datasets.matching import join_voices
from sercli.datasets.notes import Notes
from sercli.datasets.votes import Votes, match_votes, suggest_name
from sercli.errors import DatasetError
from sercli.evaluation import metrics
from sercli.evaluation.listeners import compare_with_listeners
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.resampling import FIGURES, LEVEL, N_RESAMPLES, find_intervals
from sercli.schema import printable_path

N_WORST_SPEAKERS = 5


@dataclass(frozen=True, eq=False)
class ClassifiedClips:
    """A model's predictions for a corpus, before figures are computed.

    Parameters
    ----------
    predictions
        Predictions for the clean clips.
    stressed
        Probabilities under each stress condition, by name.
    failed
        Error of each clip that could not be decoded, by its place.
    mixes
        Result of `sercli.evaluation.mixes.measure_mixes`, or None.
    converted
        Probabilities of the clean clips with other number types, by name of the type.
    written
        The predictions that `ser annotate` would write for the clean clips, over all labels of the
        model. None: the same as `predictions`.
    n_alone
        Number of clips whose babble may contain their own speaker.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    predictions: Predictions
    stressed: Mapping[str, DoubleArray]
    failed: Mapping[str, str]
    mixes: list[dict[str, Any]] | None = None
    converted: Mapping[str, DoubleArray] = field(default_factory=dict)
    written: Predictions | None = None
    n_alone: int = 0
    notes: Mapping[str, Notes] = field(default_factory=dict)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hash of each clip's audio."""
        return self.predictions.hashes


def _find_worst(speakers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the speakers of the lowest accuracy, at most `N_WORST_SPEAKERS` and half of all."""
    n_worst = min(N_WORST_SPEAKERS, len(speakers) // 2)
    return sorted(speakers, key=lambda one: float(speakers[one]["accuracy"]))[:n_worst]


def measure(
    classified: ClassifiedClips, config: EvalConfig, votes: Votes | None = None
) -> dict[str, Any]:
    """Return all figures that depend only on the predictions, not on the model.

    Parameters
    ----------
    classified
        The predictions.
    config
        Settings of the evaluation.
    votes
        Listeners' votes, by name of the clip.

    Raises
    ------
    DatasetError
        If the votes match no clip, or none is for a scored label.
    """
    predictions = classified.predictions
    y_true, probabilities = predictions.y_true, predictions.probabilities
    sample, kind = predictions.resampled()
    target = config.target_precision
    # Thresholds are applied to the confidences that `ser annotate` writes.
    written = classified.written or predictions
    breakdown = break_down(predictions)
    speakers = breakdown.get("speaker", {})
    return {
        "labels": list(predictions.labels),
        "speakers": sorted(speakers),
        "failed": {printable_path(place): error for place, error in classified.failed.items()},
        "repaired": {
            printable_path(path): list(notes.warnings) for path, notes in classified.notes.items()
        },
        **metrics.evaluate_probabilities(y_true, probabilities, predictions.labels),
        "exact_ece": metrics.exact_calibration_error(probabilities, LEVEL, config.seed),
        "intervals": {
            "level": LEVEL,
            "resampled": kind,
            "n_resamples": N_RESAMPLES,
            "seed": config.seed,
            "figures": find_intervals(sample, seed=config.seed),
        },
        "reliability": metrics.reliability_bins(y_true, probabilities),
        "coverage": metrics.coverage_curve(written.y_true, written.probabilities),
        "target_precision": target
        and metrics.threshold_for_precision(written.y_true, written.probabilities, target),
        "breakdown": breakdown,
        "worst_speakers": _find_worst(speakers),
        "listeners": None if votes is None else _compare_with_votes(predictions, votes),
        "mixes": classified.mixes,
        "stress": _tabulate_stress(classified, config) if classified.stressed else None,
        "precisions": _tabulate_precisions(classified) if classified.converted else None,
        "baselines": _find_baselines(predictions, config.seed) if config.baselines else None,
    }


def break_down(predictions: Predictions) -> dict[str, dict[str, dict[str, Any]]]:
    """Return size, accuracy, UAR and macro-F1 of every speaker and of the groups by each trait.

    Parameters
    ----------
    predictions
        Predictions for clips with traits.

    Returns
    -------
    dict
        Figures by trait and value. Traits with a single value, or with more values than half the
        number of clips, are left out.
    """
    values: dict[str, dict[str, list[int]]] = {}
    # The same name may belong to different speakers in different corpora.
    voices = join_voices(predictions.clips)
    named = {(voice, clip.speaker) for voice, clip in zip(voices, predictions.clips, strict=True)}
    is_plain = len({speaker for _, speaker in named}) == len(named)
    for row, (voice, clip) in enumerate(zip(voices, predictions.clips, strict=True)):
        name = clip.speaker if is_plain else voice
        speaker = {} if name is None else {"speaker": name}
        for trait, value in (speaker | dict(clip.traits)).items():
            values.setdefault(trait, {}).setdefault(value, []).append(row)
    n_clips = len(predictions.clips)
    return {
        trait: {
            value: metrics.summarise_labels(predictions.y_true[rows], predictions.y_pred[rows])
            for value, rows in sorted(groups.items())
        }
        for trait, groups in values.items()
        if trait == "speaker" or 1 < len(groups) <= n_clips / 2
    }


def refuse_idle_votes(votes: Votes, clips: Sequence[Clip]) -> None:
    """Raise if no clip has votes.

    Parameters
    ----------
    votes
        Listeners' votes by name of the clip.
    clips
        The clips to be measured on.

    Raises
    ------
    DatasetError
        If none has.
    """
    if not any(sum(row.values()) for row in match_votes(votes, clips)):
        raise DatasetError(
            f"none of {len(clips)} clips has votes; expected clips named like "
            f"{suggest_name(clips)}, found {sorted(votes)[:1]}"
        )


def _compare_with_votes(predictions: Predictions, votes: Votes) -> dict[str, Any]:
    refuse_idle_votes(votes, predictions.clips)
    found, labels = match_votes(votes, predictions.clips), predictions.labels
    others = sorted({label for row in found for label in row}.difference(labels))
    counts = np.array([[row.get(label, 0) for label in (*labels, *others)] for row in found])
    rows = counts.sum(axis=1) > 0
    if not counts[:, : len(labels)].any():
        raise DatasetError(
            f"all votes on these clips are for {', '.join(others)}; expected votes for "
            f"{', '.join(labels)}"
        )
    figures = compare_with_listeners(
        counts[rows].astype(np.float64), predictions.y_true[rows], predictions.probabilities[rows]
    )
    n_votes = dict(zip(others, counts[:, len(labels) :].sum(axis=0).tolist(), strict=True))
    return {**figures, "other_votes": {label: n for label, n in n_votes.items() if n}}


def _tabulate_stress(classified: ClassifiedClips, config: EvalConfig) -> dict[str, Any]:
    conditions = {
        condition: _compare(classified.predictions, probabilities)
        for condition, probabilities in classified.stressed.items()
    }
    return {"seed": config.seed, "conditions": conditions}


def _tabulate_precisions(classified: ClassifiedClips) -> dict[str, Any]:
    predictions = classified.predictions
    return {
        precision: {
            **_compare(predictions, probabilities),
            "change": float(np.abs(probabilities - predictions.probabilities).max()),
        }
        for precision, probabilities in classified.converted.items()
    }


def _compare(predictions: Predictions, probabilities: DoubleArray) -> dict[str, float]:
    """Return figures of other probabilities for the same clips, and how they differ."""
    y_pred = probabilities.argmax(axis=1)
    figures = metrics.summarise_labels(predictions.y_true, y_pred)
    uar = metrics.unweighted_average_recall(predictions.y_true, predictions.y_pred)
    return {
        "uar": figures["uar"],
        "accuracy": figures["accuracy"],
        "ece": metrics.expected_calibration_error(predictions.y_true, probabilities),
        "drop": uar - figures["uar"],
        "unchanged": float((y_pred == predictions.y_pred).mean()),
    }


def _find_baselines(predictions: Predictions, seed: int) -> dict[str, Any]:
    """Return figures of the label shares as a constant, and of uniform draws from the simplex."""
    n_clips, n_labels = predictions.probabilities.shape
    shares = np.bincount(predictions.y_true, minlength=n_labels) / n_clips
    drawn = np.random.default_rng(seed).dirichlet(np.ones(n_labels), n_clips)
    results: dict[str, Any] = {}
    table = {"majority": np.tile(shares, (n_clips, 1)), "random": drawn}
    for name, probabilities in table.items():
        figures = metrics.evaluate_probabilities(
            predictions.y_true, probabilities, predictions.labels
        )
        results[name] = {figure: figures[figure] for figure in FIGURES}
    return results
