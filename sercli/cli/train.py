"""``ser train``."""

import sys
from pathlib import Path
from typing import Any

import click

from sercli.cli.console import reports_errors, say, show_progress
from sercli.config import SvmConfig
from sercli.report import ExitCode
from sercli.store import MODEL_FILE, save_model
from sercli.writers import check_target


@click.command(context_settings={"show_default": True})
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("-m", "--model", "family", type=click.Choice(["svm"]), default="svm", help="Family.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The model folder; it is made.",
)
@click.option("--overwrite", is_flag=True, help="Replace the model if there is one.")
@click.option(
    "--fit-on",
    type=click.Choice(["train", "train+dev"]),
    default="+".join(SvmConfig.fit_on),
    help="Whose clips to learn from; with `train`, those of `dev` can be measured on.",
)
@click.option("--seed", type=int, default=SvmConfig.seed, help="Of everything that is random.")
@click.option("--jobs", type=int, default=-1, metavar="N", help="Processes; -1: one per core.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(corpus: Path, **options: Any) -> None:
    """Train and calibrate a model on a corpus.

    CORPUS is a copy of CREMA-D. Settings are searched and the calibration is fitted by
    cross-validation over the speakers; those of the split `test` are not read.

    \b
    Example:
      ser train CREMA-D/AudioWAV --model svm -o my-svm
    """
    folder, quiet = options["folder"], options["quiet"]
    folder.mkdir(parents=True, exist_ok=True)
    check_target(folder / MODEL_FILE, overwrite=options["overwrite"])

    from sercli.cards import write_card
    from sercli.datasets import read_corpus
    from sercli.training.svm import train_svm

    data = read_corpus(corpus)
    splits = tuple(options["fit_on"].split("+"))
    config = SvmConfig(fit_on=splits, seed=options["seed"], jobs=options["jobs"])
    n_clips = sum(len(data.select(split)) for split in splits)
    with show_progress("clips", n_clips, quiet=quiet) as progress:
        tell = (lambda _: None) if quiet else progress.say
        tell(data.describe())
        classifier = train_svm(data, config, say=tell, progress=progress.advance)
    save_model(classifier, folder)
    write_card(classifier.spec, folder)
    training = classifier.spec.training
    for error in training["failed"].values():
        say(f"failed: {error}")
    if not quiet:
        uar = training["held_out"]["whole"]["uar"]
        say(f"UAR {uar:.3f} on held-out speakers, by cross-validation; model in {folder}")
    sys.exit(ExitCode.SOME_FAILED if training["failed"] else ExitCode.DONE)
