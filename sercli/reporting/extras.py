"""Sections of a report on measurements that are made on request."""

from collections.abc import Mapping
from typing import Any

from sercli.reporting.canvas import Figures, format_figure
from sercli.reporting.parts import NAMES, Section, Table, format_figures
from sercli.text import format_count


def describe_listeners(figures: Figures) -> Section | None:
    """Return the section on listeners' votes if anything was measured."""
    found = figures["listeners"]
    if not found:
        return None
    who = {
        "model": "model",
        "listener": "one listener",
        "majority": "majority of listeners",
        "constant": "constant answer",
        "floor": "votes themselves",
    }
    keys = ("accuracy", "cross_entropy", "jensen_shannon")
    rows = tuple(
        (name, *format_figures(found[one].get(key) for key in keys)) for one, name in who.items()
    )
    return Section(
        "Human listeners",
        (
            f"{format_count(found['n_votes'], 'vote')} of listeners on "
            f"{format_count(found['n_segments'], 'segment')}.",
            *_describe_others(found),
            "Accuracy is the agreement with the label of the corpus: of the model, of a single "
            "vote, and of the label with the most votes. A model above one listener names that "
            "label more often than a single person does.",
            "Cross-entropy measures how well the model's probabilities predict a vote, in nats; "
            "lower is better. That of the votes themselves is the lowest possible, and above 0 "
            "since listeners disagree. The constant answer is the mean of these same votes: a "
            "model with a higher cross-entropy predicts votes worse than it, which may be due to "
            "too high confidences alone.",
            "Divergence (Jensen-Shannon, from 0 to 1; lower is better) is the distance of the "
            "model's probabilities from the votes, and of one listener from the others. A listener "
            "gives a single label, whose divergence is large even if all agree on what is likely: "
            "do not compare it with the others.",
        ),
        (Table(("who", "accuracy", "cross-entropy", "divergence"), rows),),
    )


def _describe_others(found: Mapping[str, Any]) -> tuple[str, ...]:
    others = found.get("other_votes")
    if not others:
        return ()
    share = format_figure(sum(others.values()) / found["n_votes"])
    counts = ", ".join(f"{label} ({n})" for label, n in others.items())
    return (
        f"A share of {share} of the votes is for labels that were not scored: {counts}. They count "
        "as wrong answers, although the model could not choose these labels. Cross-entropy and "
        "divergence are computed without them.",
    )


def describe_stress(figures: Figures) -> Section | None:
    """Return the section on the same clips in other conditions if anything was measured."""
    stress = figures["stress"]
    if not stress or not stress["conditions"]:
        return None
    keys = ("uar", "drop", "accuracy", "ece", "unchanged")
    rows = tuple(
        (name, *format_figures(one[key] for key in keys))
        for name, one in stress["conditions"].items()
    )
    return Section(
        "Stress",
        (
            "The same segments under other conditions. Drop is the loss of UAR; unchanged is the "
            "share of segments that keep their label. They have no intervals: small drops may be "
            f"chance. The random seed is {stress['seed']}.",
        ),
        (Table(("condition", "UAR", "drop", "accuracy", "ECE", "unchanged"), rows),),
        plot="stress",
    )


def describe_precisions(figures: Figures) -> Section | None:
    """Return the section on number types if anything was measured."""
    precisions = figures.get("precisions")
    if not precisions:
        return None
    keys = ("uar", "drop", "ece", "unchanged", "change")
    rows = tuple(
        (name, *format_figures(one[key] for key in keys)) for name, one in precisions.items()
    )
    return Section(
        "Number types",
        (
            f"The same segments, classified with number types other than {figures['precision']}. "
            "Drop is the loss of UAR, unchanged the share of segments that keep their label, and "
            "change the largest change in a probability.",
        ),
        (Table(("number type", "UAR", "drop", "ECE", "unchanged", "change"), rows),),
    )


def describe_mixes(figures: Figures) -> Section | None:
    """Return the section on groups with baselines if anything was measured."""
    mixes = figures.get("mixes")
    if not mixes:
        return None
    rows = tuple(
        (
            one["mix"],
            one["figure"],
            f"{one['mean_size']:g}",
            *format_figures(
                (
                    *(one[name][one["figure"]] for name in ("alone", "adapted")),
                    one["difference"],
                    *(one["interval"] or (None, None)),
                    *(one[name]["ece"] for name in ("alone", "adapted")),
                )
            ),
        )
        for one in mixes
    )
    ways = ("without baseline", "with baseline")
    head = ("mix", "figure", "segments", *ways, "difference", "from", "to")
    return Section(
        "Groups",
        (
            "Groups of segments of one speaker, drawn at random. Each segment is classified "
            "without a baseline and with the baseline of its group. The intervals are "
            "bootstrapped over speakers. Groups that are too small for a baseline differ by "
            "exactly 0.",
        ),
        (Table((*head, *(f"ECE {way}" for way in ways)), rows, n_texts=2),),
    )


def describe_baselines(figures: Figures) -> Section | None:
    """Return the section on trivial classifiers if anything was measured."""
    baselines = figures["baselines"]
    if not baselines:
        return None
    everyone = {figures["model"]: figures, **baselines}
    rows = tuple(
        (name, *format_figures(one.get(key) for key in NAMES)) for name, one in everyone.items()
    )
    return Section(
        "Baselines",
        (
            "Classifiers that ignore the audio. A low ECE alone means little: a classifier that "
            "always returns the frequencies of the labels has one, too.",
        ),
        (Table(("model", *NAMES.values()), rows),),
    )
