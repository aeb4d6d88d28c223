"""Content of a report: sections of plain sentences and tables, for any format.

Sections about missing figures are left out.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sercli.config import APART, SHARED, UNKNOWN
from sercli.reporting.canvas import Figures, format_figure, is_measured
from sercli.reporting.extras import (
    describe_baselines,
    describe_listeners,
    describe_mixes,
    describe_precisions,
    describe_stress,
)
from sercli.reporting.parts import NAMES, Section, Table, format_figures
from sercli.text import format_count

HIGHER_IS_BETTER: Final = ("uar", "accuracy", "macro_f1")
PROTOCOLS: Final = {
    APART: "Speakers apart: the model was not trained on any of these speakers, as far as their "
    "names and the audio of their clips show.",
    SHARED: "Speakers shared: the model was trained on some of these speakers or clips, so its "
    "figures are too good.",
    UNKNOWN: "Speakers unknown: it is not known whether the model was trained on these speakers. "
    "If it was, its figures are too good.",
}
GLOSSARY: Final = (
    ("UAR", "Unweighted average recall: the mean recall of the labels, all with the same weight."),
    ("accuracy", "Share of segments whose label is right. Also called WA."),
    ("macro-F1", "Mean F1 of the labels; F1 is the harmonic mean of precision and recall."),
    ("ECE", "Expected calibration error: mean gap between confidence and accuracy over bins."),
    ("NLL", "Negative log-likelihood of the true label, in nats. 0 is best."),
    ("Brier", "Squared distance between probabilities and true label, from 0 (best) to 2."),
)

MOST_FAILED: Final = 20  # failed clips listed; all are in metrics.json
MOST_THRESHOLDS: Final = 12
Z_95: Final = 1.96  # half the width of a 95 % interval of a normal distribution of unit variance
# Intervals over fewer are somewhat too narrow: enough for a remark where they are explained; those
# over fewer than `sercli.evaluation.resampling.FEW_UNITS` have a warning, too.
FEW_SPEAKERS: Final = 20
SMALLEST_GAP: Final = 0.0005  # between confidence and accuracy; less is 0 in three decimals
LONG_TABLE: Final = 6  # rows from which a breakdown is sorted by accuracy


def report_title(figures: Figures) -> str:
    """Return the heading of a report."""
    return f"{figures['model']} on {figures['corpus']}, {figures['split']} split"


def report_sections(figures: Figures) -> list[Section]:
    """Return the sections of a report.

    Parameters
    ----------
    figures
        Figures of one model on one corpus, as in ``metrics.json``.
    """
    sections = (
        _main(figures),
        _method(figures),
        _classes(figures),
        _confusion(figures),
        _calibration(figures),
        _coverage(figures),
        _speakers(figures),
        _breakdowns(figures),
        describe_listeners(figures),
        describe_stress(figures),
        describe_precisions(figures),
        describe_mixes(figures),
        describe_baselines(figures),
        Section("Glossary", tables=(Table(("term", "meaning"), GLOSSARY, n_texts=2),)),
        _origin(figures),
    )
    return [section for section in sections if section is not None]


def _main(figures: Figures) -> Section:
    intervals = figures["intervals"]
    rows = []
    for key, name in NAMES.items():
        low, high = intervals["figures"].get(key) or (None, None)
        better = "higher" if key in HIGHER_IS_BETTER else "lower"
        rows.append((name, better, *format_figures((figures[key], low, high))))
    level = f"{intervals['level']:.0%}"
    head = ("figure", "better if", "value", f"{level} from", f"{level} to")
    sentences = [PROTOCOLS.get(figures["protocol"], f"{figures['protocol']}.")]
    n_labels = len(figures["labels"])
    guess = format_figure(1 / n_labels)
    chance = f"Random guessing among {n_labels} labels gives a UAR of {guess}."
    return Section("Main figures", (*sentences, chance), (Table(head, tuple(rows), n_texts=2),))


def _method(figures: Figures) -> Section:
    speakers = figures["speakers"]
    of_speakers = f" of {format_count(len(speakers), 'speaker')}" if speakers else ""
    sentences = (
        f"{format_count(figures['n_segments'], 'segment')}{of_speakers}.",
        f"Labels scored: {', '.join(figures['labels'])}.",
        *_describe_left_out(figures),
        *_describe_intervals(figures["intervals"], len(speakers)),
    )
    return Section("How it was measured", sentences, _list_faults(figures))


def _describe_left_out(figures: Figures) -> list[str]:
    """Return sentences on the labels that are not scored."""
    left_out, sentences = figures["labels_left_out"], list[str]()
    # Labels of both the model and the corpus are missing in another model of a comparison.
    apart = set(left_out["model"]) & set(left_out["corpus"])
    if left_out["model"]:
        has = "no segment or not every compared model has" if apart else "no segment has"
        sentences.append(
            f"Labels of the model that {has}: {', '.join(left_out['model'])}. Its probabilities "
            "are renormalised over the other labels."
        )
    if left_out["corpus"]:
        counts = ", ".join(
            f"{label} ({format_count(n, 'clip')})" for label, n in left_out["corpus"].items()
        )
        used = ", but are part of the baselines" if figures["adapt"] != "none" else ""
        lacks = "not every compared model has" if apart else "the model does not have"
        sentences.append(
            f"Labels of the corpus that {lacks}: {counts}. Their clips are not scored{used}."
        )
    return sentences


def _list_faults(figures: Figures) -> tuple[Table, ...]:
    """Return the tables on files that were left out, failed or were repaired."""
    reasons = tuple((reason, str(n)) for reason, n in figures["left_out"].items())
    failed = figures["failed"]
    shown = tuple(failed.items())[:MOST_FAILED]
    more = f", the first {len(shown)}; all are in metrics.json" if len(shown) < len(failed) else ""
    caption = f"{format_count(len(failed), 'clip')} failed and had to be left out{more}"
    repaired = tuple(
        (path, warning)
        for path, warnings in figures.get("repaired", {}).items()
        for warning in warnings
    )
    more = ", the first ones; all are in metrics.json" if len(repaired) > MOST_FAILED else ""
    tables = (
        Table(("left out because", "files"), reasons, "Files of the corpus that were left out"),
        Table(("clip", "error"), shown, caption, n_texts=2),
        Table(
            ("recording", "warning"),
            repaired[:MOST_FAILED],
            f"Warnings about recordings{more}",
            n_texts=2,
        ),
    )
    return tuple(table for table in tables if table.rows)


def _describe_intervals(intervals: Mapping[str, Any], n_speakers: int) -> tuple[str, ...]:
    if not any(intervals["figures"].values()):
        return ()
    sentence = (
        f"The {intervals['level']:.0%} intervals come from {intervals['n_resamples']} bootstrap "
        f"resamples of {intervals['resampled']} (seed {intervals['seed']})."
    )
    if intervals["resampled"] != "speakers":
        return (f"{sentence} Segments of one speaker are similar, so they may be too narrow.",)
    few = " From so few, they are somewhat too narrow." if n_speakers < FEW_SPEAKERS else ""
    return (f"{sentence} They show how the figures may vary with other, similar speakers.{few}",)


def _classes(figures: Figures) -> Section:
    rows = tuple(
        (
            label,
            *format_figures(
                (one["precision"], one["recall"] if one["support"] else None, one["f1"])
            ),
            str(one["support"]),
        )
        for label, one in figures["classes"].items()
    )
    head = ("label", "precision", "recall", "F1", "segments")
    return Section("Labels", tables=(Table(head, rows),))


def _confusion(figures: Figures) -> Section:
    labels = figures["labels"]
    rows = tuple(
        (label, *map(str, counts))
        for label, counts in zip(labels, figures["confusion"], strict=True)
    )
    return Section(
        "Confusion",
        ("Rows are true labels, columns are predicted labels.",),
        (Table(("true", *labels), rows, "Number of segments"),),
        plot="confusion",
    )


def _calibration(figures: Figures) -> Section | None:
    bins, exact = figures["reliability"], figures["exact_ece"]
    if not bins:
        return None
    confidence = float(np.average([b["confidence"] for b in bins], weights=[b["n"] for b in bins]))
    gap = confidence - figures["accuracy"]
    # Of exact probabilities, the mean of confidence less accuracy has this standard deviation.
    variance = sum(b["n"] * b["confidence"] * (1 - b["confidence"]) for b in bins)
    by_chance = Z_95 * math.sqrt(variance) / sum(b["n"] for b in bins)
    if abs(gap) < SMALLEST_GAP:
        verdict = "neither overconfident nor underconfident"
    else:
        side = "overconfident" if gap > 0 else "underconfident"
        doubt = ", which may be chance on so few segments" if abs(gap) <= by_chance else ""
        verdict = f"{side} by {format_figure(abs(gap))}{doubt}"
    rows = tuple((*format_figures((b["confidence"], b["accuracy"])), str(b["n"])) for b in bins)
    return Section(
        "Calibration",
        (
            f"The mean confidence is {format_figure(confidence)} and the accuracy "
            f"{format_figure(figures['accuracy'])}: on average, the model is {verdict}. The "
            f"expected calibration error (ECE) over bins of equal size is "
            f"{format_figure(figures['ece'])}. On this many segments, perfectly calibrated "
            f"probabilities would have an ECE of {format_figure(exact['mean'])} "
            f"({' to '.join(format_figures(exact['interval']))}) by chance.",
        ),
        (Table(("mean confidence", "accuracy", "segments"), rows, "Bins", n_texts=0),),
        plot="reliability",
    )


def _coverage(figures: Figures) -> Section | None:
    points = figures["coverage"]
    if not points:
        return None
    # Evenly spaced over the curve, including both ends.
    chosen = np.unique(np.linspace(0, len(points) - 1, MOST_THRESHOLDS).round().astype(int))
    keys = ("threshold", "coverage", "accuracy")
    rows = tuple(tuple(format_figures(points[i][key] for key in keys)) for i in chosen)
    sentences = ["Coverage is the share of segments whose confidence reaches the threshold."]
    if unused := figures["labels_left_out"]["model"]:
        sentences.append(
            "Confidences and labels in this section are those that ser annotate writes: over all "
            f"labels of the model, including {', '.join(unused)}, which are never right here."
        )
    if found := figures["target_precision"]:
        sentences.append(_describe_target(found))
    return Section(
        "Confidence as a filter",
        tuple(sentences),
        (Table(keys, rows, "Accuracy of the segments that are kept", n_texts=0),),
        plot="coverage",
    )


def _describe_target(found: Mapping[str, Any]) -> str:
    target = format_figure(found["target"])
    if found["threshold"] is None:
        return f"No threshold that keeps enough segments reaches a precision of {target}."
    threshold, coverage, precision = format_figures(
        found[key] for key in ("threshold", "coverage", "precision")
    )
    return (
        f"To reach a precision of {target}, keep labels with a confidence of {threshold} or more: "
        f"they are {coverage} of all labels, and {precision} of them are right. The threshold was "
        "chosen on these same segments: on others, expect a lower precision, and a much lower one "
        "if few segments are kept."
    )


def _speakers(figures: Figures) -> Section | None:
    speakers = figures["breakdown"].get("speaker")
    if not speakers:
        return None
    worst = ", ".join(
        f"{name} ({format_figure(speakers[name]['accuracy'])} of {speakers[name]['n_segments']})"
        for name in figures["worst_speakers"]
        if name in speakers
    )
    sentences = (f"Lowest accuracy: {worst}.",) if worst else ()
    table = _breakdown_table("speaker", speakers, by_accuracy=True)
    return Section("Speakers", sentences, (table,), plot="speakers")


def _breakdowns(figures: Figures) -> Section | None:
    tables = [
        _breakdown_table(key, groups, by_accuracy=len(groups) >= LONG_TABLE)
        for key, groups in figures["breakdown"].items()
        if key != "speaker" and groups
    ]
    return Section("Breakdowns", tables=tuple(tables)) if tables else None


def _breakdown_table(
    key: str, groups: Mapping[str, Mapping[str, Any]], *, by_accuracy: bool
) -> Table:
    items = list(groups.items())
    if by_accuracy:
        # Groups without an accuracy come last.
        items.sort(key=lambda g: g[1]["accuracy"] if is_measured(g[1]["accuracy"]) else np.inf)
    rows = tuple(
        (name, str(group["n_segments"]), *format_figures(group[one] for one in HIGHER_IS_BETTER))
        for name, group in items
    )
    order = ", lowest accuracy first" if by_accuracy else ""
    head = (key, "segments", *(NAMES[name] for name in HIGHER_IS_BETTER))
    return Table(head, rows, f"By {key}{order}")


def _origin(figures: Figures) -> Section:
    rows = (
        ("ser", figures["ser_version"]),
        ("model", figures["model"]),
        ("SHA-256", figures["sha256"]),
        *((name, figures[name]) for name in ("corpus", "split", "target", "adapt", "precision")),
    )
    table = Table(("item", "value"), tuple((a, str(b)) for a, b in rows), n_texts=2)
    return Section("To reproduce these figures", tables=(table,))
