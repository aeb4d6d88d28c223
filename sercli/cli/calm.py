"""Options of `ser train` for the calm speech of other people."""

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
        help="Calm speech of many other people in many rooms, without labels: a file or a "
        "directory. Clips are also transposed to these voices in training, so that the model "
        "works with other voices, rooms and languages (svm, transformer; for a cnn whose "
        "teacher was trained so, for the teachers of its folds). Repeatable.",
    ),
    click.option(
        "--calm-speakers",
        metavar="FILE|REGEX",
        help="Who speaks there, as with --speakers of `ser annotate`; otherwise each recording "
        "counts as another speaker (with --calm).",
    ),
    heading="Calm speech",
)


def spell_calm(options: dict[str, Any]) -> list[str]:
    """Return the arguments for the options of calm speech, without the user's own paths."""
    parts = ["--calm", "PATH"] * len(options["calm"])
    if options["calm_speakers"]:
        named = Path(options["calm_speakers"]).is_file()
        parts += ["--calm-speakers", "FILE" if named else options["calm_speakers"]]
    return parts
