"""Options of `ser train` for networks, and the settings that they stand for."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from sercli.cli.options import Decorator, device_option, is_given, join_options, spell
from sercli.training.config import NEURAL_CONFIGS, CnnConfig, NeuralConfig, TransformerConfig
from sercli.training.train_config import (
    DEFAULT_BASE,
    DEFAULTS,
    TRANSFORMER,
    Settings,
    find_families,
    spell_option,
)

# Settings of training the upper layers of an encoder, which have no effect without --layers.
TUNING = ("tuning_epochs", "tuning_rate", "layer_decay", "lora")
# Settings that affect the trained network, in the order in which its recorded command lists them.
DECIDING = (
    *("layers", "hearing_epochs", *TUNING),
    *("prosodies", "dynamic_range", "epochs", "batch_size", "learning_rate", "patience", "device"),
)


def _setting(
    config: type[NeuralConfig], name: str, text: str, metavar: str | None = None
) -> Decorator:
    """Return the option of a setting whose default is the same in all families."""
    default = getattr(config, name)
    return click.option(
        spell_option(name), type=type(default), default=default, metavar=metavar, help=text
    )


def _setting_of_each(name: str, text: str) -> Decorator:
    """Return the option of a setting whose default depends on the family; its help lists them."""
    default = getattr(NeuralConfig, name)
    values = {family: getattr(config, name) for family, config in NEURAL_CONFIGS.items()}
    told = [f"{value:g} ({family})" for family, value in values.items()]
    if {*values.values()} == {default}:
        told = [f"{default:g}"]
    text = f"{text}  [default: {', '.join(told)}]"
    return click.option(spell_option(name), type=type(default), help=text)


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
        "Epochs in which the encoder is first trained to give the same output for calm speech "
        "with other rooms, noise and lines (transformer, with --calm).",
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
    _setting(
        CnnConfig,
        "dynamic_range",
        "Dynamic range of mel spectrograms: lower levels are raised to this much below a "
        "segment's highest (cnn).",
        "DB",
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
    _setting(
        NeuralConfig,
        "prosodies",
        "Versions of each unlabelled segment with other pitch, tempo and voice quality, which the "
        "teacher labels, too, and which need the extra sercli[prosody]; 0: none (with "
        "--unlabelled).",
        "N",
    ),
)

neural_options = join_options(
    _learning_options,
    _source_options,
    click.option(
        "--resume",
        is_flag=True,
        help="Continue a training that was interrupted, with the same options.",
    ),
    device_option(),
    heading="Networks",
)

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


def refuse_other_families(family: str) -> None:
    """Raise if an option is given that has no effect with a model family.

    Parameters
    ----------
    family
        Model family that is trained.

    Raises
    ------
    UsageError
        If there is such an option; names the families that it goes with.
    """
    for name in click.get_current_context().params:
        families = find_families(name)
        if is_given(name) and family not in families:
            raise click.UsageError(f"{spell(name)} goes with --model {' or '.join(families)}.")


def refuse_idle(options: dict[str, Any]) -> None:
    """Raise if an option is given that has no effect without another one.

    Parameters
    ----------
    options
        Options of the command line.

    Raises
    ------
    UsageError
        If there is such an option; names the other one.
    """
    for name in TUNING:
        if is_given(name) and not options["layers"]:
            raise click.UsageError(f"{spell(name)} goes with --layers N.")
    if is_given("prosodies") and not options["unlabelled"]:
        raise click.UsageError("--prosodies goes with --unlabelled PATH.")


def configure(options: dict[str, Any]) -> Settings:
    """Return the settings of the model family: its defaults, replaced by options that are given.

    Parameters
    ----------
    options
        Options of the command line.
    """
    settings = DEFAULTS[options["family"]]
    # --folds sets the folds by which the model is measured, not those of the family's settings.
    names = {field.name for field in fields(settings)} & options.keys() - {"folds"}
    return replace(settings, **{name: options[name] for name in names if options[name] is not None})


def spell_network(options: dict[str, Any]) -> list[str]:
    """Return the arguments that train this network, without the user's own paths."""
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


def spell_calm(options: dict[str, Any]) -> list[str]:
    """Return the arguments for the options of calm speech, without the user's own paths."""
    parts = ["--calm", "PATH"] * len(options["calm"])
    if options["calm_speakers"]:
        named = Path(options["calm_speakers"]).is_file()
        parts += ["--calm-speakers", "FILE" if named else options["calm_speakers"]]
    return parts


def find_name(given: str | os.PathLike[str]) -> str:
    """Return the name of a model: the last part of a folder's path, or the name as given.

    Parameters
    ----------
    given
        Name or path on the command line.
    """
    return Path(given).resolve().name if Path(given).is_dir() else os.fspath(given)
