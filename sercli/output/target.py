"""Where the labels of a run go: what is there already, and whether it may be replaced."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sercli.errors import ConfigError, OutputError
from sercli.files import STDOUT, check_target
from sercli.output.journal import Unfinished, find_unfinished
from sercli.output.writers import choose_format, record_path


@dataclass(frozen=True)
class Output:
    """Where labels go, which is known to be free, or may be replaced.

    Parameters
    ----------
    target
        A path, or ``"-"`` for standard output.
    format
        ``"csv"``, ``"json"`` or ``"jsonl"``.
    overwrite
        Whether what is there is replaced.
    resume
        Whether it is gone on with, and with what `unfinished` runs left.
    unfinished
        What runs left that were to write it, and did not come to their end.
    """

    target: str
    format: str
    overwrite: bool = False
    resume: bool = False
    unfinished: Sequence[Unfinished] = ()

    @classmethod
    def prepare(
        cls,
        target: str | os.PathLike[str],
        format_: str | None = None,
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Self:
        """Look whether labels may go there.

        Parameters
        ----------
        target
            A path, or ``"-"`` for standard output.
        format_
            ``"csv"``, ``"json"`` or ``"jsonl"``; None: by the suffix, CSV on standard output.
        overwrite
            Replace what is there.
        resume
            Go on with what is there, or with what a run left that was killed.

        Raises
        ------
        ConfigError
            If both are asked for, or to go on with standard output.
        OutputError
            If no format is told, something is there that is to stay, or another run writes it.
        """
        target = os.fspath(target)
        if resume and target == STDOUT:
            raise ConfigError("--resume goes with -o FILE")
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite exclude each other")
        format_ = choose_format(target, format_)
        if target == STDOUT:
            return cls(target, format_)
        for path in (Path(target), record_path(target)):
            check_target(path, overwrite=overwrite or resume)
        unfinished = find_unfinished(Path(target))
        if unfinished and not (overwrite or resume):
            raise OutputError(
                f"{target}: a run that was to write it was killed; go on from there with --resume, "
                "or begin anew with --overwrite"
            )
        return cls(target, format_, overwrite, resume, unfinished)

    def refuse_inputs(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Refuse to be written over what is read, as a pattern of the shell may have it.

        Parameters
        ----------
        paths
            Of all that is read.

        Raises
        ------
        OutputError
            If one of them is the output or its record, by whatever path.
        """
        if self.target == STDOUT:
            return
        written = {_identify(self.target), _identify(record_path(self.target))} - {None}
        for path in paths if written else ():
            if _identify(path) in written:
                raise OutputError(f"{path}: is to be read; expected another output")


def _identify(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return by what a file is known, whatever its path; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no path holds NUL
        return None
    return status.st_dev, status.st_ino
