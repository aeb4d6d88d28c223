"""What `ser train` has for the calm speech of strangers: its options, and what these mean."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sercli.training.unlabelled import Unlabelled

# As what this speech is told of.
CALM = "calm"


def calm_options(function: Any) -> Any:
    """Add the options of calm speech."""
    function = click.option(
        "--calm-speakers",
        metavar="FILE|REGEX",
        help="Who speaks in them, as --speakers of `ser annotate`; without it, each recording "
        "is taken for another speaker (with --calm).",
    )(function)
    return click.option(
        "--calm",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Calm speech of as many other people as there is, in as many rooms, without "
        "labels: files and directories, several times for several. Clips are learned as these "
        "people might say them, too, so that the model holds in other voices, rooms and languages "
        "(svm, transformer; for a cnn whose teacher learned so: for teachers of folds).",
    )(function)


def find_calm(
    options: dict[str, Any], cache: Path, jobs: int, report: Callable[[int, int], None] | None
) -> "Unlabelled | None":
    """Return the calm speech that is to be learned from, or None.

    Parameters
    ----------
    options
        Of the command line.
    cache
        Of decoded audio.
    jobs
        Number of processes.
    report
        Told how far the search is, if anybody is.
    """
    if not options["calm"]:
        return None
    from sercli.speakers import Speakers
    from sercli.training.unlabelled import Unlabelled

    speakers = Speakers.parse(options["calm_speakers"]) if options["calm_speakers"] else None
    told = {} if report is None else {"report": report}
    return Unlabelled(options["calm"], cache, CALM, speakers, jobs, **told)


def spell_calm(options: dict[str, Any]) -> list[str]:
    """Return the options of calm speech, without the user's own paths."""
    parts = ["--calm", "PATH"] * len(options["calm"])
    if options["calm_speakers"]:
        named = Path(options["calm_speakers"]).is_file()
        parts += ["--calm-speakers", "FILE" if named else options["calm_speakers"]]
    return parts
