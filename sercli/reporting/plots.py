"""Plots of the figures of one model on one corpus, as PNG and SVG."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sercli.reporting.canvas import (
    BLUE,
    GREY,
    MISSING,
    PALE,
    VERMILION,
    WIDTH,
    Figures,
    format_figure,
    is_measured,
    new_figure,
    shorten,
    styled,
    subject,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK_CELL: Final = 0.68  # share above which a cell has white text
MARKED_THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
MAX_SPEAKERS: Final = 120
SPEAKERS_PER_COLUMN: Final = 40


def plot_names(figures: Figures) -> tuple[str, ...]:
    """Return the names of the plots that the figures have data for, in the order of a report.

    Parameters
    ----------
    figures
        Figures of one model on one corpus, as in ``metrics.json``.
    """
    needs: dict[str, Any] = {
        "confusion": figures["confusion"],
        "reliability": figures["reliability"],
        "coverage": figures["coverage"],
        "speakers": figures["breakdown"].get("speaker"),
        "stress": (figures["stress"] or {}).get("conditions"),
    }
    return tuple(name for name, needed in needs.items() if needed)


def draw_plots(figures: Figures) -> "dict[str, Figure]":
    """Return all plots that the figures have data for, by name.

    Parameters
    ----------
    figures
        As for `plot_names`.
    """
    draw = {
        "confusion": draw_confusion,
        "reliability": draw_reliability,
        "coverage": draw_coverage,
        "speakers": draw_speakers,
        "stress": draw_stress,
    }
    return {name: draw[name](figures) for name in plot_names(figures)}


@styled
def draw_confusion(figures: Figures) -> "Figure":
    """Draw the confusion matrix: shares of each true label, with counts.

    Parameters
    ----------
    figures
        As for `plot_names`.
    """
    import numpy as np

    labels = [shorten(label) for label in figures["labels"]]
    counts = np.array(figures["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure, axes = new_figure(
        f"Confusion: {subject(figures)}",
        "share of each true label, and number of segments",
        height=1.3 + 0.58 * len(labels),
        width=max(WIDTH, 1.6 + 0.62 * len(labels)),
    )
    # A mesh, not an image, so that the SVG holds no pixels.
    edges = np.arange(len(labels) + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", lw=1)
    axes.invert_yaxis()
    axes.set_xticks(range(len(labels)), labels)
    if len(labels) > 6 or max(map(len, labels)) > 10:
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")
    rows = [f"{label}\nn = {n}" for label, n in zip(labels, totals[:, 0], strict=True)]
    axes.set_yticks(range(len(labels)), rows)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{shares[row, column]:.0%}" if totals[row, 0] else MISSING
        axes.text(
            column,
            row,
            f"{share}\n{count}",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if row == column else "normal",
            color="white" if shares[row, column] > DARK_CELL else "black",
        )
    return figure


@styled
def draw_reliability(figures: Figures) -> "Figure":
    """Draw accuracy against confidence, with the diagonal of a calibrated model.

    Each bin has a 95 % interval (Wilson 1927), as if its segments were independent: a gap to the
    diagonal within it may be chance.

    Parameters
    ----------
    figures
        As for `plot_names`.
    """
    from scipy.stats import binomtest

    bins = figures["reliability"]
    confidence, accuracy = ([one[key] for one in bins] for key in ("confidence", "accuracy"))
    intervals = [
        binomtest(round(one["accuracy"] * one["n"]), one["n"]).proportion_ci(method="wilson")
        for one in bins
    ]
    sizes = sorted({one["n"] for one in bins})
    number = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    figure, axes = new_figure(
        f"Reliability: {subject(figures)}",
        f"ECE {format_figure(figures['ece'])}; {len(bins)} bins of {number} segments",
        height=5.4,
        width=5.2,
    )
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1, label="calibrated")
    # Rounding may leave the estimate slightly outside its interval.
    low = [max(0.0, a - i.low) for a, i in zip(accuracy, intervals, strict=True)]
    high = [max(0.0, i.high - a) for a, i in zip(accuracy, intervals, strict=True)]
    axes.errorbar(
        confidence,
        accuracy,
        yerr=[low, high],
        fmt="o-",
        color=BLUE,
        ecolor=PALE,
        elinewidth=2.2,
        lw=1.2,
        ms=4.5,
        label="bin, with its 95% interval",
    )
    axes.text(0.04, 0.7, "underconfident", color=GREY, fontsize=8)
    axes.text(0.96, 0.1, "overconfident", color=GREY, fontsize=8, ha="right")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="mean confidence", ylabel="share of labels that are right")
    axes.grid(True)
    axes.legend(loc="upper left")
    return figure


@styled
def draw_coverage(figures: Figures) -> "Figure":
    """Draw the accuracy of the labels that are kept against the share that is kept.

    Parameters
    ----------
    figures
        As for `plot_names`.
    """
    points = [one for one in figures["coverage"] if is_measured(one["accuracy"])]
    coverage, accuracy = ([one[key] for one in points] for key in ("coverage", "accuracy"))
    figure, axes = new_figure(
        f"Accuracy against coverage: {subject(figures)}",
        "numbers on the line: confidence below which labels are left out",
        height=4.2,
    )
    # Not the accuracy of the main figures, which excludes labels that are not scored.
    overall = accuracy[0] if accuracy else figures["accuracy"]
    axes.axhline(overall, color=GREY, ls="--", lw=1, label=f"all segments: {overall:.3f}")
    axes.plot(coverage, accuracy, color=BLUE, lw=1.6)
    # Thresholds that keep the same segments share a mark; the first point, which keeps all
    # segments, has none.
    marked = points[:1]
    for threshold in MARKED_THRESHOLDS:
        kept = next((one for one in points if one["threshold"] >= threshold), None)
        if kept is None or kept in marked:
            continue
        marked.append(kept)
        place = (kept["coverage"], kept["accuracy"])
        axes.plot(*place, "o", color=BLUE, ms=4.5)
        axes.annotate(f"{threshold}", place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    _mark_target(axes, figures["target_precision"])
    bottom = min([overall, *accuracy])
    axes.set(xlim=(0, 1.02), ylim=(max(0.0, math.floor(bottom * 10 - 0.5) / 10), 1.02))
    axes.set(xlabel="coverage: share of segments kept", ylabel="accuracy of those kept")
    axes.grid(True)
    axes.legend(loc="best")
    return figure


def _mark_target(axes: "Axes", found: Mapping[str, Any] | None) -> None:
    if not found:
        return
    reached = found["threshold"] is not None
    what = f"confidence {found['threshold']:.3f}" if reached else "not reached"
    label = f"precision {found['target']:.3g}: {what}"
    if reached:
        place = ([found["coverage"]], [found["precision"]])
        axes.plot(*place, "D", color=VERMILION, ms=7, label=label)
    else:
        axes.axhline(found["target"], color=VERMILION, ls=":", lw=1.4, label=label)


@styled
def draw_speakers(figures: Figures) -> "Figure":
    """Draw the accuracy of each speaker, best first; at most the `MAX_SPEAKERS` worst.

    Parameters
    ----------
    figures
        As for `plot_names`.
    """
    speakers = [
        (name, values["accuracy"])
        for name, values in figures["breakdown"]["speaker"].items()
        if is_measured(values["accuracy"])
    ]
    worst = set(figures["worst_speakers"])
    ranked = sorted(speakers, key=lambda one: (-one[1], one[0] in worst))[-MAX_SPEAKERS:]
    n_columns = math.ceil(len(ranked) / SPEAKERS_PER_COLUMN) or 1
    n_rows = math.ceil(len(ranked) / n_columns) or 1
    which = f"the worst {len(ranked)} of " if len(ranked) < len(speakers) else ""
    figure, axes = new_figure(
        f"Accuracy of {which}{len(speakers)} speakers: {subject(figures)}",
        f"dashed: all segments, {format_figure(figures['accuracy'])}; dark: the worst speakers",
        height=1.2 + 0.155 * n_rows,
        n_columns=n_columns,
    )
    for index, column in enumerate(figure.axes):
        part = ranked[index * n_rows : (index + 1) * n_rows]
        colours = [BLUE if name in worst else PALE for name, _ in part]
        column.barh(range(len(part)), [value for _, value in part], color=colours, height=0.78)
        column.set_yticks(range(len(part)), [shorten(name) for name, _ in part])
        column.axvline(figures["accuracy"], color="black", ls="--", lw=1)
        column.set_xticks([0, 0.5, 1] if n_columns > 1 else [0, 0.2, 0.4, 0.6, 0.8, 1])
        column.set(xlim=(0, 1), ylim=(n_rows - 0.4, -0.6))
        column.tick_params(axis="y", length=0)
        column.grid(True, axis="x")
    axes.figure.supxlabel("accuracy", fontsize=9)
    return figure


@styled
def draw_stress(figures: Figures) -> "Figure":
    """Draw the UAR under each condition, with its change from clean recordings.

    Parameters
    ----------
    figures
        As for `plot_names`; ``stress`` is not None.
    """
    conditions = figures["stress"]["conditions"]
    names = list(conditions)
    values = [one["uar"] if is_measured(one["uar"]) else 0.0 for one in conditions.values()]
    figure, axes = new_figure(
        f"UAR under stress: {subject(figures)}",
        "in brackets: change from clean recordings (dashed)",
        height=1.2 + 0.27 * len(names),
    )
    colours = [BLUE if name == "clean" else PALE for name in names]
    axes.barh(range(len(names)), values, color=colours, height=0.72)
    for row, (name, one) in enumerate(conditions.items()):
        text = format_figure(one["uar"])
        if name != "clean" and is_measured(one["drop"]):
            text += f"  ({0.0 - one['drop']:+.3f})".replace("-", "−")  # noqa: RUF001
        axes.text(1.02, row, text, va="center", fontsize=8)
    if is_measured(figures["uar"]):
        axes.axvline(figures["uar"], color="black", ls="--", lw=1)
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xlabel="UAR")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    return figure
