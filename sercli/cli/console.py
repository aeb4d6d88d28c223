"""Console output of the commands, and conversion of the package's errors to exit codes."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from io import TextIOBase, TextIOWrapper
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, ParamSpec, Self, TextIO, TypeVar

import click

from sercli.errors import OutputError, SerError
from sercli.output.report import ExitCode
from sercli.schema import printable
from sercli.system.interrupts import ending_in_order

if TYPE_CHECKING:
    from sercli.datasets.notes import Notes

P = ParamSpec("P")
T = TypeVar("T")

# Seconds between lines of progress, if there is no terminal.
PROGRESS_INTERVAL_S = 30.0
# Escapes for control characters that act on a terminal, but for line feeds and tabs, and for
# characters that break lines or change the direction of text.
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
    """Error of the package that ends a command: wrong usage, model, corpus or output."""

    exit_code = ExitCode.USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on standard error."""
        say(f"Error: {self.message}")


class ClosedOutput(TextIOBase):
    """Substitute for a closed standard output, as libraries expect one that can be flushed."""

    def write(self, text: str) -> int:
        """Raise `OSError`, as for a closed file."""
        raise OSError(errno.EBADF, "it is closed")


def fill_streams() -> None:
    """Let results of any text be printed, and substitute closed standard streams.

    Without substitutes, the next file that is opened would get the descriptor of one of them, and
    the text that libraries print there.
    """
    for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                os.set_inheritable(number, True)  # new descriptors are not, by default
    sys.stdout = sys.stdout or ClosedOutput()
    if isinstance(sys.stdout, TextIOWrapper):
        # Pipes may have an encoding that lacks letters, as on Windows.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def refuse_closed_output() -> None:
    """Raise if standard output is closed.

    Raises
    ------
    OutputError
        If it is.
    """
    if isinstance(sys.stdout, ClosedOutput):
        raise OutputError("standard output is closed; expected a file, by -o FILE")


def reports_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Turn the package's own errors into a message and exit code 2; others propagate."""

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
    """Print a line on standard error, and ignore it if that fails."""
    try:
        click.echo(escape(message), err=True)
    except OSError:  # there is nowhere to report it
        leave(sys.stderr)


def tell_failed(failed: Mapping[str, str]) -> None:
    """Report the clips that could not be decoded, and why.

    Parameters
    ----------
    failed
        Error messages by the clip's place.
    """
    for place, error in failed.items():
        place, error = printable(place), printable(error)
        # The error begins with the recording, which the clip's place names already.
        colons = [found.start() for found in re.finditer(": ", error)]
        ends = [end for end in colons if place.startswith(error[:end])]
        say(join_lines(f"failed: {place}{error[ends[-1] :] if ends else f': {error}'}"))


def tell_notes(notes: "Mapping[str, Notes]") -> None:
    """Print the warnings about recordings, as `ser annotate` does.

    Parameters
    ----------
    notes
        Notes on each recording, by its path.
    """
    for path, found in notes.items():
        for warning in found.warnings:
            say(join_lines(f"{path}: {warning}"))


def give(text: str) -> None:
    """Print a result on standard output.

    Parameters
    ----------
    text
        Text of one or more lines.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with printing():
        click.echo(text)


@contextmanager
def printing() -> Iterator[None]:
    """Handle errors of standard output within the block.

    If the reader closes the pipe, the block ends there without an error, and the command goes on.

    Raises
    ------
    OutputError
        If standard output cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        leave(sys.stdout)
    except OSError as error:
        leave(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def leave(stream: TextIO) -> None:
    """Redirect a stream to the null device, with what is still in its buffer.

    Parameters
    ----------
    stream
        Standard output or standard error, which cannot be written.
    """
    with suppress(OSError):  # a stream that is not a file has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape(message: str) -> str:
    """Return a message with control characters escaped, which file names may contain.

    Parameters
    ----------
    message
        Text of one or more lines.
    """
    return printable(message).translate(CONTROLS)


def join_lines(message: str) -> str:
    """Return a message on a file in one line: a name with line feeds must not look like another.

    Parameters
    ----------
    message
        The message, which begins with the file's path.
    """
    return message.replace("\n", "\\x0a")


class Progress:
    """Progress of a long command: a bar on a terminal, else a line from time to time.

    A context manager: the bar is shown within its block.

    Parameters
    ----------
    title
        Name of the things that are counted, such as ``"files"``.
    total
        Total number of these, if it is known before `expect` tells it.
    quiet
        Whether to show neither a bar nor lines.
    bar
        Whether to show a bar if standard error is a terminal.
    """

    def __init__(
        self, title: str, total: int = 0, *, quiet: bool = False, bar: bool = True
    ) -> None:
        self._title = title
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._last = monotonic()
        self._bar: Any = None
        if bar and not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _create_bar()
            self._task = self._bar.add_task(title, total=total, note="", timed=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def has_bar(self) -> bool:
        """Whether a bar is shown."""
        return self._bar is not None

    def expect(self, total: int) -> None:
        """Set the total number."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Add `n` to the count, and show a note beside it."""
        self._done += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=note)
        elif not self._quiet and monotonic() - self._last >= PROGRESS_INTERVAL_S:
            self._last = monotonic()
            say(f"{self._done}/{self._total} {self._title} {note}".rstrip())

    def show(self, title: str, done: int, total: int, note: str) -> None:
        """Show another count on the bar, such as that of a part; does nothing without a bar."""
        if self._bar is not None:
            self._bar.update(
                self._task, description=title, completed=done, total=total, note=note, timed=False
            )

    def say(self, message: str) -> None:
        """Print a line on standard error, above the bar if there is one."""
        if self._bar is None:
            say(message)
        else:
            self._bar.console.print(
                escape(message), markup=False, highlight=False, emoji=False, soft_wrap=True
            )


def _create_bar() -> Any:
    from rich import progress
    from rich.console import Console

    class TimeLeft(progress.TimeRemainingColumn):
        """Remaining time of tasks with ``timed=True``; that of a part would mislead."""

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
