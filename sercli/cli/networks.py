"""What `ser train` has for networks: their options, and what these mean."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from sercli.cli.calm import spell_calm
from sercli.cli.options import Decorator, device_option, is_given, join_options, spell
from sercli.training.config import NEURAL_CONFIGS, NeuralConfig, TransformerConfig
from sercli.training.train_config import (
    DEFAULT_BASE,
    DEFAULTS,
    SVM,
    TRANSFORMER,
    Settings,
    find_families,
)

# Of the upper layers of an encoder that learn: without any, they would do nothing.
TUNING = ("tuning_epochs", "tuning_rate", "layer_decay", "lora")
# Settings that decide what a network is, in the order in which its command has them.
DECIDING = (
    *("layers", "hearing_epochs", *TUNING),
    *("epochs", "batch_size", "learning_rate", "patience", "device"),
)


def _spell(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _setting(
    config: type[NeuralConfig], name: str, text: str, metavar: str | None = None
) -> Decorator:
    """Return the option of a setting that has one default."""
    default = getattr(config, name)
    return click.option(
        _spell(name), type=type(default), default=default, metavar=metavar, help=text
    )


def _setting_of_each(name: str, text: str) -> Decorator:
    """Return the option of a setting of which each family has a default, which help tells."""
    default = getattr(NeuralConfig, name)
    values = {family: getattr(config, name) for family, config in NEURAL_CONFIGS.items()}
    told = [f"{value:g} ({family})" for family, value in values.items()]
    if {*values.values()} == {default}:
        told = [f"{default:g}"]
    text = f"{text}  [default: {', '.join(told)}]"
    return click.option(_spell(name), type=type(default), help=text)


encoder_options = join_options(
    click.option(
        "--base",
        metavar="NAME|DIR",
        default=DEFAULT_BASE,
        help="Pre-trained speech encoder: its name on the hub, its folder, or the folder of a "
        "transformer from `ser train`.",
    ),
    click.option("--revision", help="Commit, tag or branch of the encoder on the hub."),
    _setting(
        TransformerConfig,
        "layers",
        "Number of upper encoder layers to train after the head.",
        "N",
    ),
    _setting(
        TransformerConfig,
        "tuning_epochs",
        "Epochs in which these layers are trained (with --layers).",
    ),
    _setting(
        TransformerConfig,
        "tuning_rate",
        "Peak learning rate of the uppermost layer (with --layers).",
    ),
    _setting(
        TransformerConfig,
        "layer_decay",
        "Factor of the learning rate from each layer to the one below (with --layers).",
        "FACTOR",
    ),
    _setting(
        TransformerConfig,
        "lora",
        "Train low-rank matrices of this rank, merged into the weights at the end, which needs "
        "the extra sercli[lora]; 0: train all weights (with --layers).",
        "RANK",
    ),
    _setting(
        TransformerConfig,
        "hearing_epochs",
        "Epochs in which the encoder first learns to hear the calm speech the same in other "
        "rooms, noise and lines (transformer, with --calm).",
    ),
    heading="Transformers",
)

_learning_options = join_options(
    _setting_of_each(
        "epochs",
        "Epochs; with development clips, the best of them is kept.",
    ),
    _setting_of_each("batch_size", "Clips in a batch."),
    _setting_of_each("learning_rate", "Peak learning rate."),
    _setting(
        NeuralConfig,
        "patience",
        "Stop after so many epochs without a better development UAR; 0: never.",
        "EPOCHS",
    ),
)

_source_options = join_options(
    click.option(
        "--votes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Also learn from listeners' votes: a CSV file with the columns clip and one per "
        "label.",
    ),
    click.option(
        "--teacher",
        metavar="NAME|DIR",
        help="Also learn from the probabilities of this model.",
    ),
    click.option(
        "--unlabelled",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Also learn the teacher's probabilities on speech without labels: a file or a "
        "directory (with --teacher). Repeatable.",
    ),
)

neural_options = join_options(
    _learning_options,
    _source_options,
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder that keeps decoded audio for the next training (networks, fusion, adapter).  "
        "[default: ser/audio in your cache folder]",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue a training that was interrupted, with the same options.",
    ),
    device_option(),
    heading="Networks",
)


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
    for name in click.get_current_context().params:
        families = find_families(name)
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
        others = " or ".join(one for one in find_families("cache") if one != SVM)
        raise click.UsageError(f"--cache goes with --model {others}, or with --calm PATH.")


def configure(options: dict[str, Any]) -> Settings:
    """Return the settings of a family: its defaults, and what was given.

    Parameters
    ----------
    options
        Of the command line.
    """
    settings = DEFAULTS[options["family"]]
    # The folds that are given are those by which the model is measured.
    names = {field.name for field in fields(settings)} & options.keys() - {"folds"}
    return replace(settings, **{name: options[name] for name in names if options[name] is not None})


def spell_network(options: dict[str, Any]) -> list[str]:
    """Return the options that make this network, without the user's own paths."""
    parts = ["--votes", "FILE"] if options["votes"] else []
    if options["teacher"]:
        parts += ["--teacher", find_name(options["teacher"])]
    parts += ["--unlabelled", "PATH"] * len(options["unlabelled"])
    parts += spell_calm(options)
    if options["family"] == TRANSFORMER:
        parts += ["--base", find_name(options["base"])]
        parts += ["--revision", options["revision"]] if options["revision"] else []
    config = NEURAL_CONFIGS[options["family"]]
    for name in DECIDING:
        if hasattr(config, name) and options[name] not in (None, getattr(config, name)):
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
