"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, get_args

import click
from click.core import ParameterSource

from sercli.config import Adaptation, Effort, LabelScheme, Precision, Target

DEVICES = "auto|cpu|cuda|cuda:N|mps"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def join_options(*options: Decorator) -> Decorator:
    """Return options as one decorator.

    Parameters
    ----------
    *options
        In the order in which help shows them.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def jobs_option(default: int) -> Decorator:
    """Return the option that says how many processes decode.

    Parameters
    ----------
    default
        Number of processes; -1 for one per core.
    """
    return click.option(
        "--jobs",
        type=int,
        default=default,
        metavar="N",
        help="Processes; -1: all.",
    )


def device_option(default: str | None = "auto", *, several: bool = False) -> Decorator:
    """Return the option that says where networks run.

    Parameters
    ----------
    default
        None where it matters whether the option is given; it means auto.
    several
        Whether they may run on several GPUs at once.
    """
    text = "Where networks run; auto: on a GPU if there is one."
    if several:
        text += " Several GPUs are separated by commas."

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


def precision_option() -> Decorator:
    """Return the option that says which number type networks multiply."""
    return click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="auto",
        help="Number type that networks multiply; auto: the fastest that the device has and that "
        "hardly changes a label.",
    )


# Those that say how much of the machine is used.
effort_options = join_options(
    click.option("--threads", type=int, metavar="N", help="Cores in use.  [default: all]"),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Files and batches that are dealt with at once; fewer need less memory.  "
        "[default: as many as threads]",
    ),
    click.option(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="Audio that a worker judges at once.  [default: what suits the model]",
    ),
)


def find_effort(options: dict[str, Any]) -> Effort:
    """Return how much of the machine is used.

    Parameters
    ----------
    options
        Of the command line.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """
    return Effort(options["threads"], options["workers"], options["batch_seconds"])


def target_option() -> Decorator:
    """Return the option that says which of a model's outputs counts."""
    return click.option(
        "--target",
        type=click.Choice(get_args(Target)),
        default="intended",
        help="What speakers want to express, or what listeners hear in it (of models that learned "
        "from listeners, see: ser models).",
    )


def adapt_option(default: Adaptation, text: str) -> Decorator:
    """Return the option that says by whose baseline segments are judged.

    Parameters
    ----------
    default
        What holds if it is not given.
    text
        What is special to the command.
    """
    return click.option(
        "--adapt",
        type=click.Choice(get_args(Adaptation)),
        default=default,
        help=f"Whose segments give the baseline that each of them is judged by. {text}",
    )


def model_options(text: str, default: str | None = None) -> Decorator:
    """Return the options that name a model, and its revision if it is on the hub.

    Parameters
    ----------
    text
        What the model is for.
    default
        None where it matters whether the option is given.
    """
    model = click.option("-m", "--model", default=default, metavar="NAME|DIR|hub:NAME", help=text)
    revision = click.option(
        "--revision", help="Of a model on the hub: a commit, tag or branch (with hub:NAME)."
    )
    return join_options(model, revision)


def labels_option() -> Decorator:
    """Return the option that says what the labels of a model of others are called."""
    return click.option(
        "--labels",
        type=click.Choice(get_args(LabelScheme)),
        # A run that gives the default is no other than one that does not, for --resume, too.
        callback=lambda _context, _option, scheme: None if scheme == "ours" else scheme,
        help="Of a classifier of Hugging Face: ours for those that mean the same, or the model's "
        "own.  [default: ours]",
    )


def spell(name: str) -> str:
    """Return an option of the present command as it is written.

    Parameters
    ----------
    name
        Of its parameter.
    """
    parameters = click.get_current_context().command.params
    return next(one.opts[-1] for one in parameters if one.name == name)


def is_given(name: str) -> bool:
    """Tell whether an option of the present command is on the command line.

    Parameters
    ----------
    name
        Of its parameter.
    """
    source = click.get_current_context().get_parameter_source(name)
    return source == ParameterSource.COMMANDLINE
