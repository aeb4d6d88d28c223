"""Audio on standard input, which the path ``-`` stands for."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import click

from sercli.discovery import Found
from sercli.errors import AudioError
from sercli.files import STDOUT

# The path that stands for standard input, too; a file of this name is ./-
STDIN = STDOUT
# The path that results give to it: a name that exported files can have.
STDIN_NAME = "stdin"


def refuse_unusable_stdin(paths: Sequence[str], options: dict[str, Any]) -> None:
    """Raise if audio is to be read from standard input, and cannot be.

    Parameters
    ----------
    paths
        Paths on the command line.
    options
        Options of ``ser annotate``.

    Raises
    ------
    click.UsageError
        If `STDIN` is among the paths more than once or together with options that it excludes, or
        standard input is closed or a terminal.
    """
    if STDIN not in paths:
        return
    if paths.count(STDIN) > 1:
        raise click.UsageError(f"{STDIN}, standard input, is named twice; it has one recording.")
    if options["resume"]:
        raise click.UsageError(
            f"--resume does not go with {STDIN}: whether standard input has changed cannot be "
            "checked."
        )
    if sys.stdin is None:
        raise click.UsageError(f"{STDIN}: standard input is closed; expected audio there.")
    if options["files_from"] is sys.stdin.buffer:
        raise click.UsageError(
            f"--files-from {STDIN} does not go with {STDIN}: standard input has either a list of "
            "files or audio."
        )
    if sys.stdin.isatty():
        raise click.UsageError(
            f"{STDIN}: standard input is a terminal; expected audio there, as by ffmpeg -i FILE "
            f"-f wav - | ser annotate {STDIN}"
        )


def reserve_stdin() -> Found:
    """Return the input for standard input, with an empty file that `read_stdin` fills.

    It is a temporary file that only this user can read, and that is removed at the end of the
    command, whatever ends it.

    Raises
    ------
    AudioError
        If there is no folder for temporary files.
    """
    with _naming():
        # Unbuffered: decoders read from its descriptor.
        spool = TemporaryFile(buffering=0)  # noqa: SIM115
        file = click.get_current_context().with_resource(spool)
    return Found(STDIN_NAME, file=file)


def read_stdin(found: Found) -> None:
    """Read standard input to its end, if a recording is there.

    Parameters
    ----------
    found
        An input of the run, perhaps from `reserve_stdin`.

    Raises
    ------
    AudioError
        If standard input cannot be read, or the temporary file not be written.
    """
    if found.file is not None:
        # Buffered, as an unbuffered file may take only a part of what it is given.
        with _naming(), open(found.file.fileno(), "wb", closefd=False) as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)


@contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(
            f"standard input cannot be copied to a temporary file: {error.strerror}; expected "
            "audio there, and room for all of it in the folder that TMPDIR names"
        ) from error
