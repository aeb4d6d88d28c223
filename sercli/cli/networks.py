"""What `ser train` has for networks: their options, and what these mean."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sercli.cli.calm import spell_calm
from sercli.cli.options import device_option, is_given, spell
from sercli.training.config import NEURAL_CONFIGS, NeuralConfig, TransformerConfig
from sercli.training.train_config import (
    CNN,
    DEFAULT_BASE,
    DEFAULTS,
    NETWORKS,
    OF_MEMBERS,
    SVM,
    TRANSFORMER,
    Settings,
)

# Of the upper layers of an encoder that learn: without any, they would do nothing.
TUNING = ("tuning_epochs", "tuning_rate", "layer_decay", "lora")
# Families that have some options: with another, these would do nothing.
FAMILIES_OF = {
    **dict.fromkeys(("epochs", "batch_size", "learning_rate", "patience", "resume"), NETWORKS),
    **dict.fromkeys(("hearing_epochs", "layers", *TUNING), (TRANSFORMER,)),
    "device": (*NETWORKS, *OF_MEMBERS),
    "cache": (*NETWORKS, *OF_MEMBERS, SVM),
}
# Those of all networks that decide what the model is.
DECIDING = ("epochs", "batch_size", "learning_rate", "patience", "device")


def _tell_defaults(name: str) -> str:
    """Return what is taken where an option is not given, of each family of networks."""
    values = {family: getattr(config, name) for family, config in NEURAL_CONFIGS.items()}
    if len(set(values.values())) == 1:
        return f"  [default: {values[CNN]:g}]"
    return f"  [default: {', '.join(f'{value:g} ({key})' for key, value in values.items())}]"


def neural_options(function: Any) -> Any:
    """Add the options of neural networks."""
    options = (
        click.option(
            "--base",
            metavar="NAME|DIR",
            default=DEFAULT_BASE,
            help="Pre-trained speech encoder: a name on the hub, or a folder, which may be that of "
            "a transformer that `ser train` made (transformer).",
        ),
        click.option("--revision", help="Of the encoder on the hub (transformer)."),
        click.option(
            "--layers",
            type=int,
            default=TransformerConfig.layers,
            metavar="N",
            help="Upper layers of the encoder that learn, too, after the head (transformer).",
        ),
        click.option(
            "--tuning-epochs",
            type=int,
            default=TransformerConfig.tuning_epochs,
            help="Passes over the clips in which they learn (with --layers).",
        ),
        click.option(
            "--tuning-rate",
            type=float,
            default=TransformerConfig.tuning_rate,
            help="Learning rate of the uppermost, at its highest (with --layers).",
        ),
        click.option(
            "--layer-decay",
            type=float,
            default=TransformerConfig.layer_decay,
            metavar="FACTOR",
            help="Of the learning rate, from each layer to the one below (with --layers).",
        ),
        click.option(
            "--lora",
            type=int,
            default=TransformerConfig.lora,
            metavar="RANK",
            help="They learn by low-rank matrices, which become part of the weights at the end; "
            "needs the extra sercli[lora]; 0: all their weights learn (with --layers).",
        ),
        click.option(
            "--hearing-epochs",
            type=int,
            default=TransformerConfig.hearing_epochs,
            help="Passes over the calm speech in which the encoder first learns to make of it in "
            "other rooms, noise and lines what it makes of it as it is (transformer, with --calm).",
            show_default=True,
        ),
        click.option(
            "--epochs",
            type=int,
            help="Passes over the clips; with development clips, the best of them counts "
            f"(networks).{_tell_defaults('epochs')}",
        ),
        click.option(
            "--batch-size",
            type=int,
            help=f"Clips per step (networks).{_tell_defaults('batch_size')}",
        ),
        click.option(
            "--learning-rate",
            type=float,
            help=f"At its highest (networks).{_tell_defaults('learning_rate')}",
        ),
        click.option(
            "--patience",
            type=int,
            default=NeuralConfig.patience,
            metavar="EPOCHS",
            help="End after so many without a better development UAR; 0: never (networks).",
        ),
        click.option(
            "--votes",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Learn from listeners, too: a CSV file with the columns clip and one per label "
            "(networks).",
        ),
        click.option(
            "--teacher",
            metavar="NAME|DIR",
            help="Learn from a model's probabilities, too (networks).",
        ),
        click.option(
            "--unlabelled",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="PATH",
            help="Learn the teacher's probabilities of speech that nobody labelled, too: files "
            "and directories, several times for several (with --teacher).",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where decoded audio is kept for the next training (networks, fusion, adapter).  "
            "[default: ser/audio in your cache folder]",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with a training that was interrupted; give all else as then (networks).",
        ),
        device_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


def refuse_other_families(family: str) -> None:
    """Refuse options that are given and would do nothing with a model of this family.

    Parameters
    ----------
    family
        That is trained.

    Raises
    ------
    UsageError
        With the families that they go with.
    """
    for name, families in FAMILIES_OF.items():
        if is_given(name) and family not in families:
            raise click.UsageError(f"{spell(name)} goes with --model {' or '.join(families)}.")


def refuse_idle(options: dict[str, Any]) -> None:
    """Refuse options that would do nothing without another, or with it.

    Parameters
    ----------
    options
        Of the command line.

    Raises
    ------
    UsageError
        With the other option.
    """
    for name in TUNING:
        if is_given(name) and not options["layers"]:
            raise click.UsageError(f"{spell(name)} goes with --layers N.")
    if is_given("cache") and options["family"] == SVM and not options["calm"]:
        others = " or ".join(one for one in FAMILIES_OF["cache"] if one != SVM)
        raise click.UsageError(f"--cache goes with --model {others}, or with --calm PATH.")


def configure(options: dict[str, Any]) -> Settings:
    """Return the settings of a family: its defaults, and what was given.

    Parameters
    ----------
    options
        Of the command line.
    """
    family = options["family"]
    names: tuple[str, ...] = ("seed", "jobs")
    if family in NETWORKS:
        names += DECIDING
    elif family in OF_MEMBERS:
        names += ("device",)
    if family == TRANSFORMER:
        names += ("hearing_epochs", "layers", *TUNING)
    given = {name: options[name] for name in names if options[name] is not None}
    return replace(DEFAULTS[family], **given)


def spell_network(options: dict[str, Any]) -> list[str]:
    """Return the options that make this network, without the user's own paths."""
    parts = ["--votes", "FILE"] if options["votes"] else []
    if options["teacher"]:
        parts += ["--teacher", find_name(options["teacher"])]
    parts += ["--unlabelled", "PATH"] * len(options["unlabelled"])
    parts += spell_calm(options)
    names: tuple[str, ...] = DECIDING
    if options["family"] == TRANSFORMER:
        parts += ["--base", find_name(options["base"])]
        parts += ["--revision", options["revision"]] if options["revision"] else []
        parts += ["--layers", str(options["layers"])] if options["layers"] else []
        names = ("hearing_epochs", *TUNING, *DECIDING)
    for name in names:
        default = getattr(NEURAL_CONFIGS[options["family"]], name)
        if options[name] not in (None, default):
            parts += [spell(name), str(options[name])]
    return parts


def find_name(given: str | os.PathLike[str]) -> str:
    """Return a name as it is, and of a path the last part.

    Parameters
    ----------
    given
        On the command line.
    """
    return Path(given).resolve().name if Path(given).is_dir() else os.fspath(given)
