"""The folder of an evaluation: figures, predictions, plots and reports."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sercli.errors import OutputError
from sercli.evaluation.predictions import PREDICTIONS_FILE
from sercli.files import check_target, make_folder, write_json
from sercli.registry.description import METRICS_FILE
from sercli.reporting.canvas import FORMATS
from sercli.reporting.documents import HTML_FILE, MARKDOWN_FILE, PLOT_TITLES, write_report

if TYPE_CHECKING:
    from sercli.evaluation.run import Evaluation

REPORT_FILES: Final = (
    *(METRICS_FILE, PREDICTIONS_FILE, MARKDOWN_FILE, HTML_FILE),
    *(f"{name}.{format_}" for name, format_ in product(PLOT_TITLES, FORMATS)),
)


def prepare_report(folder: Path, *, overwrite: bool) -> None:
    """Create the folder of a report.

    Parameters
    ----------
    folder
        Folder of the report.
    overwrite
        Whether an existing report may be replaced.

    Raises
    ------
    OutputError
        If there is a report that may not be replaced, or the folder cannot be created.
    """
    make_folder(folder)
    for name in REPORT_FILES:
        check_target(folder / name, overwrite=overwrite)


def remove_report(folder: Path) -> None:
    """Remove an existing report and its plots, which may be of another model or of other clips.

    Parameters
    ----------
    folder
        Folder of the report.

    Raises
    ------
    OutputError
        If a file cannot be removed.
    """
    for path in (folder / name for name in REPORT_FILES):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed: {error.strerror}") from error


def write_evaluation(evaluation: "Evaluation", folder: Path) -> None:
    """Write ``metrics.json``, ``predictions.csv``, the plots and the reports.

    Parameters
    ----------
    evaluation
        Result of an evaluation.
    folder
        Folder made by `prepare_report`; an existing report in it is replaced.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    remove_report(folder)
    write_json(folder / METRICS_FILE, evaluation.figures)
    evaluation.predictions.write(folder / PREDICTIONS_FILE)
    write_report(evaluation.figures, folder)
