"""Target of a run's labels: its format, and whether it may be written, replaced or resumed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sercli.errors import ConfigError, OutputError
from sercli.files import STDOUT, check_target, identify
from sercli.output.journal import Unfinished, find_unfinished
from sercli.output.writers import choose_format, identify_output, record_path


@dataclass(frozen=True)
class Output:
    """Output for labels, which does not exist yet, or may be replaced or resumed.

    Parameters
    ----------
    target
        Path of the output, or ``"-"`` for standard output.
    format
        ``"csv"``, ``"json"`` or ``"jsonl"``.
    overwrite
        Whether to replace an existing output.
    resume
        Whether to add to an existing output, and to the files of `unfinished` runs.
    unfinished
        Files that unfinished runs of this output left.
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
        """Check that labels may be written to a target, and return the output.

        Parameters
        ----------
        target
            Path of the output, or ``"-"`` for standard output.
        format_
            ``"csv"``, ``"json"`` or ``"jsonl"``; None: by the suffix, CSV on standard output.
        overwrite
            Whether to replace an existing output.
        resume
            Whether to add to an existing output, or to the files that a killed run left.

        Raises
        ------
        ConfigError
            If both `overwrite` and `resume` are true, or `resume` with standard output.
        OutputError
            If the format is unknown, the output cannot be written or exists with neither
            `overwrite` nor `resume`, or another run is writing it.
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
                f"{target}: an earlier run that was writing it was killed; continue it with "
                "--resume, or start again with --overwrite"
            )
        return cls(target, format_, overwrite, resume, unfinished)

    def refuse_inputs(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Raise if the output would overwrite an input, which a shell pattern may have matched.

        Parameters
        ----------
        paths
            Paths of all inputs.

        Raises
        ------
        OutputError
            If one of them leads to the output or its run record.
        """
        if self.target == STDOUT:
            return
        written = identify_output(self.target)
        for path in paths if written else ():
            if identify(path) in written:
                raise OutputError(f"{path}: is also an input; expected another output")
