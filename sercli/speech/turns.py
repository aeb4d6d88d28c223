"""Turns of recordings, given in a table, a diarisation or TextGrids."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Self

from sercli.errors import ConfigError
from sercli.speech.grids import is_grid, read_grids
from sercli.speech.rttm import SUFFIX, read_rttm
from sercli.speech.turn import Turn
from sercli.speech.turn_tables import EVERYWHERE, read_turn_table


@dataclass(frozen=True)
class Turns:
    """The turns of recordings.

    Parameters
    ----------
    path
        Path of the file or folder that they were read from.
    by_recording
        Turns of each recording in the order of the file. A key is a real path; if `local`, a name
        with or without suffix, after folders if any.
    local
        Whether they name recordings by their names and speakers within a recording, as
        diarisations and TextGrids do, and not by paths and across recordings, as tables do.
    sha256
        SHA-256 digest of the file; of TextGrids, of all of them and the names of the tiers.
    lines
        Line at which each name first appears in a diarisation.
    everywhere
        Turns of the channels of every recording that has several.
    """

    path: Path
    by_recording: Mapping[str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False
    sha256: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    everywhere: tuple[Turn, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str], *needed: str, tiers: Sequence[str] = ()) -> Self:
        """Read a table, a diarisation or TextGrids.

        Parameters
        ----------
        path
            A table (see `sercli.delimited.read_table`) with the column file and any of channel,
            start, end and speaker; its paths are relative to its folder or, if there is no such
            file, to the working directory, as in the output of `ser annotate`. Or a diarisation in
            RTTM, which names recordings with or without suffix. Or a TextGrid of Praat, or a folder
            of them, of which the intervals with a text are read; each is named after its recording,
            in the same subfolders where several recordings have one name, as written by
            `sercli.export_labels`.
        needed
            Columns that a table must have in addition to file. If it is only the speaker, a table
            may have channel instead of file: it says who speaks in the channels of every recording.
        tiers
            Names of the tiers of TextGrids to read. If there are several, each is taken for a
            speaker; without any, each grid must have exactly one interval tier.

        Raises
        ------
        ConfigError
            If it is none of these, a time is no number of seconds, a recording has two speakers
            throughout, or a grid lacks the tiers.
        """
        path = Path(path)
        if is_grid(path):
            grids, sha256 = read_grids(path, tiers)
            return cls(path, grids, local=True, sha256=sha256)
        if tiers:
            raise ConfigError(f"{path}: has no tiers; expected a TextGrid, or a folder of them")
        try:
            content = path.read_bytes()  # once: it may be a pipe
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if path.suffix.lower() == SUFFIX:
            named, lines = read_rttm(path, content)
            return cls(path, named, local=True, sha256=sha256, lines=lines)
        tabled = read_turn_table(path, content, needed)
        everywhere = tabled.pop(EVERYWHERE, ())
        return cls(path, tabled, sha256=sha256, everywhere=everywhere)

    @property
    def tells_times(self) -> bool:
        """Whether every turn has a start and an end."""
        turns = (turn for some in self.by_recording.values() for turn in some)
        return all(math.isfinite(turn.end - turn.start) for turn in turns)

    @property
    def tells_speakers(self) -> bool:
        """Whether any turn has a speaker."""
        all_turns = chain(self.everywhere, *self.by_recording.values())
        return any(turn.speaker for turn in all_turns)
