"""What `ser train` has for the calm speech of strangers: its options, and what these mean."""

from pathlib import Path
from typing import Any

import click

from sercli.cli.options import join_options

calm_options = join_options(
    click.option(
        "--calm",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Calm speech of as many other people as there is, in as many rooms, without "
        "labels: files and directories, several times for several. Clips are learned as these "
        "people might say them, too, so that the model holds in other voices, rooms and languages "
        "(svm, transformer; for a cnn whose teacher learned so: for teachers of folds).",
    ),
    click.option(
        "--calm-speakers",
        metavar="FILE|REGEX",
        help="Who speaks in them, as --speakers of `ser annotate`; without it, each recording "
        "is taken for another speaker (with --calm).",
    ),
)


def spell_calm(options: dict[str, Any]) -> list[str]:
    """Return the options of calm speech, without the user's own paths."""
    parts = ["--calm", "PATH"] * len(options["calm"])
    if options["calm_speakers"]:
        named = Path(options["calm_speakers"]).is_file()
        parts += ["--calm-speakers", "FILE" if named else options["calm_speakers"]]
    return parts
