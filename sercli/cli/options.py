"""Options that several commands share."""

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary

import click
from click.core import ParameterSource

from sercli.config import Adaptation, LabelScheme, Precision, Target
from sercli.registry.store import load_model
from sercli.schema import MIX

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier

MODEL_HELP = (
    "Model name (see: ser models), model folder, or an audio classifier of Hugging Face: hub:NAME, "
    "or its folder."
)
DEVICES = "auto|cpu|cuda|cuda:N|mps"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


# Heading under which --help lists an option.
HEADINGS: MutableMapping[click.Parameter, str] = WeakKeyDictionary()


def join_options(*options: Decorator, heading: str | None = None) -> Decorator:
    """Return one decorator that adds several options.

    Parameters
    ----------
    *options
        Decorators of the options, in the order in which help lists them.
    heading
        Heading under which help lists those that have none yet.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(function, "__click_params__", ()))
        for option in reversed(options):
            function = option(function)
        if heading is not None:
            for parameter in getattr(function, "__click_params__", ())[before:]:
                HEADINGS.setdefault(parameter, heading)
        return function

    return decorate


def jobs_option(default: int) -> Decorator:
    """Return the option for the number of processes that decode.

    Parameters
    ----------
    default
        Default number of processes; -1 for one per core.
    """
    return click.option(
        "--jobs",
        type=int,
        default=default,
        metavar="N",
        help="Number of processes that decode; -1: one per core.",
    )


def device_option(default: str | None = "auto", *, several: bool = False) -> Decorator:
    """Return the option for the device that networks run on.

    Parameters
    ----------
    default
        Default device; None, which means auto, if the command checks whether the option is given.
    several
        Whether several GPUs may be given.
    """
    text = "Device that networks run on; auto: a GPU if there is one."
    if several:
        text += " Separate several GPUs by commas."

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and "," in value and not several:
            raise click.BadParameter(f"expected one of {DEVICES}; {value!r} are several")
        return value

    return click.option(
        "--device",
        default=default,
        metavar=DEVICES,
        callback=check,
        help=text if default else f"{text}  [default: auto]",
    )


# Option for the number type in which networks compute.
precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="auto",
    help="Number type of networks; auto: the fastest on the device that hardly changes a label.",
)


speed_options = join_options(
    device_option(several=True),
    precision_option,
    click.option(
        "--threads", type=int, metavar="N", help="Number of cores to use.  [default: all]"
    ),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Number of files and batches processed at once; fewer need less memory.  [default: as "
        "many as threads]",
    ),
    click.option(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="Seconds of audio in a batch.  [default: depends on the model]",
    ),
    heading="Speed",
)


def load_chosen(options: dict[str, Any]) -> "Classifier":
    """Return the model that the options name, loaded.

    Parameters
    ----------
    options
        Options of the command line, with those of `model_options`, `labels_option` and a device and
        precision.

    Raises
    ------
    ModelError, ConfigError
        As for `sercli.registry.store.load_model`.
    """
    return load_model(
        options["model"],
        options["device"] or "auto",
        revision=options["revision"],
        labels=options["labels"],
        precision=options["precision"],
    )


# Option for the model output that is used.
target_option = click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    default="intended",
    help="The emotion that speakers want to express, or the one that listeners perceive (only "
    "with models that were trained on listeners' votes, see: ser models).",
)


# Option for the channels that are classified.
channels_option = click.option(
    "--channels",
    default=MIX,
    metavar="mix|split|0,1",
    help="Classify the mean of all channels, each channel by itself, or the channels listed, "
    "counted from 0, which all files must have.",
)


def adapt_option(default: Adaptation, text: str) -> Decorator:
    """Return the option for the groups whose segments share a baseline.

    Parameters
    ----------
    default
        Default value.
    text
        End of the help text, which depends on the command.
    """
    return click.option(
        "--adapt",
        type=click.Choice(get_args(Adaptation)),
        default=default,
        help=f"Compare each segment with the baseline of its group. {text}",
    )


def model_options(text: str, default: str | None = None) -> Decorator:
    """Return the options that name a model, and its revision if it is on the hub.

    Parameters
    ----------
    text
        Help text of ``--model``.
    default
        Default model; None if the command checks whether the option is given.
    """
    model = click.option("-m", "--model", default=default, metavar="NAME|DIR|hub:NAME", help=text)
    revision = click.option(
        "--revision", help="Commit, tag or branch of a model on the hub (with hub:NAME)."
    )
    return join_options(model, revision)


# Option for the label names of a Hugging Face classifier.
labels_option = click.option(
    "--labels",
    type=click.Choice(get_args(LabelScheme)),
    # Giving the default is the same as giving nothing, also when --resume compares runs.
    callback=lambda _context, _option, scheme: None if scheme == "ours" else scheme,
    help="Label names of a Hugging Face classifier: ours where they mean the same, or the "
    "model's own.  [default: ours]",
)


def spell(name: str) -> str:
    """Return an option of the current command as it is written, with its dashes.

    Parameters
    ----------
    name
        Name of the option's parameter.
    """
    parameters = click.get_current_context().command.params
    return next(one.opts[-1] for one in parameters if one.name == name)


def is_given(name: str) -> bool:
    """Return whether an option of the current command is on the command line.

    Parameters
    ----------
    name
        Name of the option's parameter.
    """
    source = click.get_current_context().get_parameter_source(name)
    return source == ParameterSource.COMMANDLINE
