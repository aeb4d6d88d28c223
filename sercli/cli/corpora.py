"""Options of how a corpus is read, which `ser eval` and `ser train` share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sercli.cli.options import join_options
from sercli.datasets.corpus import Corpus

AUTO = "auto"

corpus_options = join_options(
    click.option(
        "--map",
        "mapping",
        metavar="THEIRS=OURS,...",
        help="Rename labels of the corpus, such as happy=happiness,calm=neutral.",
    ),
    click.option(
        "--columns",
        metavar="OURS=THEIRS,...",
        help="Names of the columns in a table, such as file=path,emotion=label.",
    ),
    click.option("--song", is_flag=True, help="Also read sung clips (RAVDESS)."),
)


def read(sources: Sequence[tuple[Path, str]], options: dict[str, Any]) -> Corpus:
    """Read corpora with the settings of the command line.

    Parameters
    ----------
    sources
        Path and reader of each corpus; ``"auto"`` chooses the reader by the names of the files.
    options
        Options of the command line, with those of `corpus_options`.
    """
    from sercli.datasets import parse_mapping, read_corpora

    return read_corpora(
        sources,
        mapping=parse_mapping(options["mapping"]) if options["mapping"] else {},
        columns=parse_mapping(options["columns"], "--columns") if options["columns"] else {},
        song=options["song"],
    )
