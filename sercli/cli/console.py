"""What commands print and say, and how errors of the package end a command."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from io import TextIOBase
from time import monotonic
from typing import IO, Any, ParamSpec, TextIO, TypeVar

import click

from sercli.errors import OutputError, SerError
from sercli.output.report import ExitCode
from sercli.schema import printable
from sercli.system.interrupts import ending_in_order

P = ParamSpec("P")
T = TypeVar("T")

# Without a terminal, a line of progress is worth reading this often.
PROGRESS_INTERVAL_S = 30.0
# What would move a terminal's cursor, or worse, but line feeds and tabs; what breaks lines or turns
# the direction of what follows.
CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *range(32),
        *range(127, 160),
        0x61C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\n\t"
}


class UsageFailure(click.ClickException):
    """An error of the package that ends a command: wrong usage, model, corpus or target."""

    exit_code = ExitCode.USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on standard error."""
        say(f"Error: {self.message}")


class ClosedOutput(TextIOBase):
    """Stands for standard output that is closed: libraries count on one that can be flushed."""

    def write(self, text: str) -> int:
        """Refuse the text."""
        raise OSError(errno.EBADF, "it is closed")


def fill_streams() -> None:
    """Put something in the place of standard output and standard error where they are closed.

    A file that is opened would get the number of one, and with it what libraries print there.
    """
    for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                os.set_inheritable(number, True)  # which one that is opened as it is not
    sys.stdout = sys.stdout or ClosedOutput()
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def reports_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Turn the package's own errors into a message and exit code 2; bugs stay bugs."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with ending_in_order():
                return function(*args, **kwargs)
        except SerError as error:
            raise UsageFailure(str(error)) from error
        except KeyboardInterrupt:
            say("interrupted")
            sys.exit(ExitCode.INTERRUPTED)

    return wrapped


def say(message: str) -> None:
    """Print a line on standard error, as far as that is read."""
    try:
        click.echo(escape(message), err=True)
    except OSError:  # which nobody can be told of
        leave(sys.stderr)


def tell_failed(failed: Mapping[str, str]) -> None:
    """Say which clips could not be heard, and why.

    Parameters
    ----------
    failed
        Error of each, by its place.
    """
    for place, error in failed.items():
        place, error = printable(place), printable(error)
        # The error names the recording, of which there may be many clips.
        colons = [found.start() for found in re.finditer(": ", error)]
        ends = [end for end in colons if place.startswith(error[:end])]
        say(f"failed: {place}{error[ends[-1] :] if ends else f': {error}'}")


def give(text: str) -> None:
    """Print what was asked for on standard output.

    Parameters
    ----------
    text
        One line or several.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with printing():
        click.echo(text)


@contextmanager
def printing() -> Iterator[None]:
    """Print on standard output within the block, up to where its reader has seen enough.

    That is no fault, and no reason to leave undone what is to follow.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        leave(sys.stdout)
    except OSError as error:
        leave(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def leave(stream: TextIO) -> None:
    """Let what is buffered for a stream go nowhere, and all that follows.

    Parameters
    ----------
    stream
        Standard output or standard error, which cannot be written.
    """
    with suppress(OSError):  # one that is no file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape(message: str) -> str:
    """Return what no terminal takes for a command, whatever is in the name of a file.

    Parameters
    ----------
    message
        One line or several.
    """
    return printable(message).translate(CONTROLS)


class Progress:
    """How far a long command is: a bar on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    title
        What is counted, such as ``"files"``.
    total
        How many there are.
    quiet
        Show neither bar nor lines.
    bar
        Show a bar where that is possible.
    """

    def __init__(self, title: str, total: int, *, quiet: bool = False, bar: bool = True) -> None:
        self._title = title
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._last = monotonic()
        self._bar: Any = None
        if bar and not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _create_bar()
            self._task = self._bar.add_task(title, total=total, note="", timed=True)

    @property
    def has_bar(self) -> bool:
        """Whether there is a terminal to show a bar on."""
        return self._bar is not None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count what is done, and show a note beside it."""
        self._done += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=note)
        elif not self._quiet and monotonic() - self._last >= PROGRESS_INTERVAL_S:
            self._last = monotonic()
            say(f"{self._done}/{self._total} {self._title} {note}".rstrip())

    def show(self, title: str, done: int, total: int, note: str) -> None:
        """Show that so much of something else is done; without a terminal, nothing."""
        if self._bar is not None:
            self._bar.update(
                self._task, description=title, completed=done, total=total, note=note, timed=False
            )

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._bar is None:
            say(message)
        else:
            self._bar.console.print(escape(message), markup=False, highlight=False)


@contextmanager
def show_progress(
    title: str, total: int, *, quiet: bool = False, bar: bool = True
) -> Iterator[Progress]:
    """Show a `Progress` while the block runs."""
    progress = Progress(title, total, quiet=quiet, bar=bar)
    if not progress.has_bar:
        yield progress
    else:
        with progress._bar:
            yield progress


def _create_bar() -> Any:
    from rich import progress
    from rich.console import Console

    class TimeLeft(progress.TimeRemainingColumn):
        """Of a task that says so: one of several parts tells nothing of the whole."""

        def render(self, task: Any) -> Any:
            return super().render(task) if task.fields["timed"] else ""

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        TimeLeft(),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
