"""``ser eval --compare``: models, or reports of earlier runs, side by side."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sercli.cli.console import give, say
from sercli.cli.measuring import finish, measure
from sercli.cli.options import is_given, spell
from sercli.config import SHARED, EvalConfig
from sercli.errors import ConfigError
from sercli.files import check_target, make_folder, write_json
from sercli.neural.hub import HUB
from sercli.registry.description import METRICS_FILE, MODEL_FILE

if TYPE_CHECKING:
    from sercli.evaluation.run import Evaluation

COMPARISON_FILE = "comparison.json"
# Options that a comparison shows in the report of each model only.
REPORTED = ("stress", "votes", "baseline", "target_precision", "mix", "precisions")
# Options of how models are measured, and on what.
MEASURING = (
    *REPORTED,
    "split",
    "mapping",
    "columns",
    "song",
    "strict",
    "device",
    "revision",
    "labels",
    "target",
    "adapt",
    "precision",
    "kind",
)


class Sides(NamedTuple):
    """Models and reports to compare.

    Parameters
    ----------
    corpus
        Path of the corpus that models are measured on, or None.
    models
        Names or folders of the models.
    reports
        Folders of the reports.
    """

    corpus: Path | None
    models: list[str]
    reports: list[Path]


def compare(paths: Sequence[str], config: EvalConfig, options: dict[str, Any]) -> None:
    """Compare models, or reports of earlier runs, and print the comparison.

    Parameters
    ----------
    paths
        Paths of a corpus, models and reports, or of reports alone.
    config
        Settings of the evaluation.
    options
        Options of the command line.
    """
    from sercli.evaluation.comparison import compare_predictions
    from sercli.evaluation.predictions import PREDICTIONS_FILE, Predictions
    from sercli.reporting.folder import prepare_report, write_evaluation

    sides = _divide(paths, options["model"])
    _refuse_idle(sides, options)
    folder: Path | None = options["folder"]
    places = [] if folder is None else _place_reports(folder, sides.models)
    if folder is not None:
        make_folder(folder)
        check_target(folder / COMPARISON_FILE, overwrite=options["overwrite"])
    for place in places:
        prepare_report(place, overwrite=options["overwrite"])
    results: list[Evaluation] = []
    if sides.corpus is not None:
        results = measure(sides.models, sides.corpus, config, options)
    found: list[Predictions] = [result.predictions for result in results]
    measured = [result.figures for result in results]
    for path in sides.reports:
        figures = _read_figures(path)
        measured.append(figures)
        found.append(Predictions.read(path / PREDICTIONS_FILE, _report_name(path, figures)))
    comparison = compare_predictions(found, measured=measured, seed=config.seed)
    if folder is not None:
        write_json(folder / COMPARISON_FILE, comparison)
        for place, result in zip(places, results, strict=True):
            write_evaluation(result, place)
    _show(comparison, options)
    names = (model["name"] for model in comparison["models"])
    finish([*zip(names, results, strict=False)], quiet=options["quiet"])


def _divide(paths: Sequence[str], model: str | None) -> Sides:
    """Divide the paths into a corpus, models and reports, some of which may be missing."""
    from sercli.evaluation.predictions import PREDICTIONS_FILE

    def is_report(path: str) -> bool:
        return (Path(path) / PREDICTIONS_FILE).is_file()

    corpus, others = (None, paths) if is_report(paths[0]) else (Path(paths[0]), paths[1:])
    reports = [path for path in others if is_report(path)]
    if corpus is not None:
        # A model's folder also has the report of its training, on another corpus or fewer clips.
        reports = [path for path in reports if not (Path(path) / MODEL_FILE).is_file()]
    models = [model] if model else []
    models += [path for path in others if path not in reports]
    if models and corpus is None:
        raise ConfigError(
            f"{', '.join(models)}: models are measured on a corpus; expected "
            "`ser eval CORPUS --compare ...`, or reports alone"
        )
    if corpus is not None and not models:
        raise ConfigError(f"{corpus}: there is no model to measure on it; expected reports alone")
    return Sides(corpus, models, [*map(Path, reports)])


def _refuse_idle(sides: Sides, options: dict[str, Any]) -> None:
    """Raise if an option would have no effect."""
    if not sides.models and (unused := [name for name in MEASURING if is_given(name)]):
        raise ConfigError(
            f"{', '.join(map(spell, unused))}: would do nothing, since reports are not measured "
            "again; expected a corpus and models, or reports alone"
        )
    if options["folder"] is None and any(options[name] for name in REPORTED):
        raise ConfigError(
            "--stress, --votes, --baseline, --mix, --precisions and --target-precision go into the "
            "report of each model; expected -o DIR with --compare"
        )


def _place_reports(folder: Path, models: Sequence[str]) -> list[Path]:
    """Return the sub-folder for the report of each model; equal names are numbered."""
    names = [Path(model.removeprefix(HUB)).name for model in models]
    places: list[Path] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(1))
        free = (one for one in numbered if one not in names and folder / one not in places)
        places.append(folder / (name if names.count(name) == 1 else next(free)))
    return places


def _read_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of a report, or an empty dict if they cannot be read."""
    try:
        figures = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return figures if isinstance(figures, dict) else {}


def _report_name(folder: Path, figures: dict[str, Any]) -> str:
    """Return the name of a report: that of its model, and of its folder if that differs."""
    name = figures.get("model", folder.name)
    return folder.name if name == folder.name else f"{name} ({folder.name})"


def _show(comparison: dict[str, Any], options: dict[str, Any]) -> None:
    """Print a comparison and its warnings."""
    if options["as_json"]:
        give(json.dumps(comparison, indent=1))
    else:
        from sercli.cli.tables import render_comparison

        give(render_comparison(comparison))
    shared = tuple(f"{one['name']}: {SHARED}" for one in comparison["models"])
    for warning in comparison["warnings"]:
        if warning.startswith(shared) or not options["quiet"]:
            say(f"warning: {warning}")
