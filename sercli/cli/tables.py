"""Tables of figures for standard output."""

import sys
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from sercli.reporting.canvas import Figures
from sercli.reporting.parts import NAMES
from sercli.text import format_count

# Figures that fit into a table of models.
COMPARED = ("uar", "accuracy", "macro_f1", "ece", "nll")
# Tables of groups with more rows than this are only in the report.
MAX_ROWS = 6
# Of so many speakers, those of the lowest accuracy are named.
MANY_SPEAKERS = 10

MIX_HEADING = (
    "mix",
    "segments",
    "figure",
    "alone",
    "by baseline",
    "difference",
    "ECE alone",
    "by baseline",
)


def render_figures(figures: Figures) -> str:
    """Return the figures of one model as text for standard output.

    Parameters
    ----------
    figures
        Figures from `sercli.evaluation.run.evaluate`.
    """
    page = _page()
    speakers = figures["speakers"]
    known = format_count(len(speakers), "speaker") if speakers else "unknown speakers"
    page.print(
        f"{figures['model']} on {figures['corpus']} {figures['split']}: "
        f"{format_count(figures['n_segments'], 'clip')} of {known}; {figures['protocol']}"
    )
    _print(page, *_main_table(figures))
    _print(page, *_class_table(figures))
    _print_details(page, figures)
    for table in _group_tables(figures):
        _print(page, *table)
    return _read(page)


def render_comparison(comparison: Figures) -> str:
    """Return the figures of several models and their differences as text for standard output.

    Parameters
    ----------
    comparison
        Result of `sercli.evaluation.comparison.compare_predictions`.
    """
    page = _page()
    page.print(
        f"{format_count(comparison['n_segments'], 'clip')}, "
        f"labels {', '.join(comparison['labels'])}; intervals of {comparison['level']:.0%} by "
        f"resampling {comparison['resampled']}"
    )
    heading = [NAMES[name] for name in COMPARED]
    models = [
        [model["name"], *(_with_interval(model[n], model["intervals"][n]) for n in COMPARED)]
        for model in comparison["models"]
    ]
    _print(page, ["model", *heading], models)
    differences = []
    for row in comparison["differences"]:
        told = (row["figures"][name] for name in COMPARED)
        cells = (_with_interval(one["difference"], one["interval"], sign="+") for one in told)
        differences.append([f"{row['of']} - {row['from']}", *cells])
    _print(page, ["difference", *heading], differences)
    return _read(page)


def _main_table(figures: Figures) -> tuple[Sequence[str], list[list[str]]]:
    intervals = figures["intervals"]
    level = f"{intervals['level']:.0%}"
    rows = [
        ["figure", *(f"{figures[name]:.3f}" for name in NAMES)],
        [f"{level} interval", *(_interval(intervals["figures"][name]) for name in NAMES)],
    ]
    for name, row in (figures["baselines"] or {}).items():
        rows.append([name, *(f"{row[figure]:.3f}" for figure in NAMES)])
    return ["", *NAMES.values()], rows


def _class_table(figures: Figures) -> tuple[Sequence[str], list[list[str]]]:
    labels = list(figures["classes"])
    rows = [
        [
            label,
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}" if row["support"] else "-",
            f"{row['f1']:.3f}",
            str(row["support"]),
            *map(str, counts),
        ]
        for (label, row), counts in zip(
            figures["classes"].items(), figures["confusion"], strict=True
        )
    ]
    heads = ["emotion", "precision", "recall", "F1", "clips", *(f"as {label}" for label in labels)]
    return heads, rows


def _print_details(page: Console, figures: Figures) -> None:
    if figures["reliability"]:
        low, high = figures["exact_ece"]["interval"]
        page.print(
            f"On so many clips, perfectly calibrated probabilities would have an ECE of {low:.3f} "
            f"to {high:.3f}."
        )
    if target := figures["target_precision"]:
        if target["threshold"] is None:
            page.print(f"No threshold keeps enough clips at a precision of {target['target']:.3f}.")
        else:
            page.print(
                f"From a confidence of {target['threshold']:.3f} on, {target['precision']:.1%} of "
                f"the labels that ser annotate writes are right; that keeps "
                f"{target['coverage']:.1%} of the clips. The threshold was found on these clips: "
                "expect less on others, and much less if few are kept."
            )
    if listeners := figures["listeners"]:
        model, constant = listeners["model"], listeners["constant"]
        page.print(
            f"Listeners ({listeners['n_votes']:,} votes on {listeners['n_segments']:,} clips): "
            f"one is right in {listeners['listener']['accuracy']:.1%}, their majority in "
            f"{listeners['majority']['accuracy']:.1%}, the model in {model['accuracy']:.1%}."
        )
        if others := listeners["other_votes"]:
            share = sum(others.values()) / listeners["n_votes"]
            counts = ", ".join(f"{label} {n:,}" for label, n in others.items())
            page.print(
                f"{share:.1%} of their votes are for labels that were not scored ({counts}), and "
                "count as wrong; the model could not choose these labels. The next figures are "
                "without these votes."
            )
        page.print(
            f"Against their votes: cross-entropy {model['cross_entropy']:.3f} (best constant "
            f"{constant['cross_entropy']:.3f}, floor {listeners['floor']['cross_entropy']:.3f}), "
            f"Jensen-Shannon {model['jensen_shannon']:.3f} (constant "
            f"{constant['jensen_shannon']:.3f}, a listener "
            f"{_number(listeners['listener']['jensen_shannon'])})"
        )
    worst = figures["worst_speakers"]
    if len(figures["speakers"]) >= MANY_SPEAKERS:
        speakers = figures["breakdown"]["speaker"]
        told = (
            f"{name} ({speakers[name]['accuracy']:.3f} of {speakers[name]['n_segments']})"
            for name in worst
        )
        page.print(f"Worst speakers: {', '.join(told)}")


def _group_tables(figures: Figures) -> list[tuple[Sequence[str], list[list[str]]]]:
    tables: list[tuple[Sequence[str], list[list[str]]]] = []
    for trait, groups in figures["breakdown"].items():
        if len(groups) <= MAX_ROWS:
            rows = [
                [value, *(f"{row[n]:.3f}" for n in ("uar", "accuracy")), str(row["n_segments"])]
                for value, row in groups.items()
            ]
            tables.append(([trait.replace("_", " "), "UAR", "accuracy", "clips"], rows))
    names = ("uar", "drop", "unchanged", "ece")
    if stress := figures["stress"]:
        rows = [
            [condition, *(f"{row[name]:.3f}" for name in names)]
            for condition, row in stress["conditions"].items()
        ]
        tables.append((["condition", "UAR", "drop", "same label", "ECE"], rows))
    if precisions := figures.get("precisions"):
        rows = [
            [precision, *(f"{row[name]:.3f}" for name in (*names, "change"))]
            for precision, row in precisions.items()
        ]
        tables.append((["number type", "UAR", "drop", "same label", "ECE", "change"], rows))
    if mixes := figures.get("mixes"):
        tables.append((MIX_HEADING, describe_mixes(mixes)))
    return tables


def describe_mixes(mixes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of the table of figures without and with baselines.

    Parameters
    ----------
    mixes
        Result of `sercli.evaluation.mixes.measure_mixes`.
    """
    return [
        [
            row["mix"],
            f"{row['mean_size']:g}",
            NAMES.get(row["figure"], row["figure"]),
            *(f"{row[name][row['figure']]:.3f}" for name in ("alone", "adapted")),
            _with_interval(row["difference"], row["interval"], sign="+"),
            *(f"{row[name]['ece']:.3f}" for name in ("alone", "adapted")),
        ]
        for row in mixes
    ]


def _page() -> Console:
    """Return a console that renders for standard output into a buffer."""
    on_terminal = sys.stdout.isatty()
    # A file or a pipe has no width that tables must fit.
    width = None if on_terminal else 200
    return Console(
        file=StringIO(),
        force_terminal=on_terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _read(page: Console) -> str:
    """Return the rendered text, without its last line end."""
    assert isinstance(page.file, StringIO)
    return page.file.getvalue().removesuffix("\n")


def _print(page: Console, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in heading:
        table.add_column(title, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    page.print(table)
    page.print()


def _with_interval(value: float, limits: Sequence[float] | None, sign: str = "") -> str:
    text = f"{value:{sign}.3f}"
    return text if limits is None else f"{text} [{limits[0]:{sign}.3f}, {limits[1]:{sign}.3f}]"


def _interval(limits: Sequence[float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:.3f}-{limits[1]:.3f}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
