"""Measurement of models on a corpus for `ser eval`, with its messages and exit code."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.cli.console import Progress, say, tell_failed, tell_notes
from sercli.cli.corpora import read
from sercli.cli.options import load_chosen
from sercli.config import SHARED, EvalConfig
from sercli.datasets.labelling import common_label
from sercli.output.report import ExitCode
from sercli.registry.store import is_checkpoint_of_others
from sercli.text import format_count

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier
    from sercli.evaluation.run import Evaluation


def measure(
    models: Sequence[str], path: Path, config: EvalConfig, options: dict[str, Any]
) -> "list[Evaluation]":
    """Measure models on a corpus.

    Parameters
    ----------
    models
        Names or folders of the models.
    path
        Path of the corpus.
    config
        Settings of the evaluation.
    options
        Options of the command line.
    """
    from sercli.datasets.votes import read_votes
    from sercli.evaluation.classification import choose_adaptation
    from sercli.evaluation.run import evaluate_all

    classifiers = _load(models, options)
    corpus = read([(path, options["kind"])], options)
    votes = read_votes(options["votes"], corpus.mapping) if options["votes"] else None
    if not options["quiet"]:
        say(corpus.describe())
        for one in classifiers:
            if choose_adaptation(one, config, corpus.clips) == "none" != config.adapt:
                say(f"{one.name} uses no baseline, as with --adapt auto of ser annotate")
    with Progress("clips", quiet=options["quiet"]) as progress:
        return evaluate_all(
            classifiers,
            corpus,
            options["split"],
            config,
            votes=votes,
            progress=progress.advance,
            expect=progress.expect,
        )


def _load(models: Sequence[str], options: dict[str, Any]) -> "list[Classifier]":
    of_others = [model for model in models if is_checkpoint_of_others(model)]
    return [
        load_chosen(
            {
                **options,
                "model": model,
                # --revision applies to the model that --model names.
                "revision": options["revision"] if model == options["model"] else None,
                # --labels applies to classifiers of Hugging Face; without any, loading raises.
                "labels": options["labels"] if model in of_others or not of_others else None,
            }
        )
        for model in models
    ]


def finish(results: "Sequence[tuple[str, Evaluation]]", *, quiet: bool) -> None:
    """Print warnings and failed clips, and exit.

    Parameters
    ----------
    results
        Name and result of each model.
    quiet
        Whether to print only failed clips, and whether a model was trained on the test material.
    """
    from sercli.datasets.notes import join_notes

    for name, result in results:
        figures = result.figures
        if not quiet:
            _tell_limits(name, figures)
        elif figures["protocol"] == SHARED:  # the first warning is about this
            say(f"warning: {name}: {figures['warnings'][0]}")
        tell_failed(figures["failed"])
    if not quiet:
        tell_notes(join_notes(result.notes for _, result in results))
    failed = any(result.figures["failed"] for _, result in results)
    sys.exit(ExitCode.SOME_FAILED if failed else ExitCode.DONE)


def _tell_limits(name: str, figures: dict[str, Any]) -> None:
    left_out = figures["labels_left_out"]
    for warning in figures["warnings"]:
        say(f"warning: {name}: {warning}")
    known = figures["overlap"]["speakers"] if figures["overlap"] else ()
    if 0 < len(known) < len(figures["speakers"]):
        say(f"--split new measures only on speakers that {name} was not trained on")
    if left_out["model"]:
        say(
            f"labels of {name} that are not scored: {', '.join(left_out['model'])}; probabilities "
            "are renormalised over the others"
        )
    use = ", but part of the baselines" if figures["adapt"] != "none" else ""
    for label, n_clips in left_out["corpus"].items():
        clips = format_count(n_clips, "clip")
        # Labels that the model has are missing in another model of a comparison.
        missing = (
            "not every compared model has this label"
            if label in left_out["model"]
            else f"{name} has no such label"
        )
        # Words that the user chose are kept as they are.
        meant = common_label(label)
        hint = "" if meant in (None, label) else f"; did you mean {meant}?"
        say(f"{clips} of {label} left out{use}: {missing}{hint}")
