"""Report of a run: counts of outcomes, the exit code, and the run record."""

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from reprlib import repr as shorten
from time import monotonic
from typing import Any, get_args

from sercli.json_text import is_number
from sercli.schema import FileResult, Status, printable, printable_path
from sercli.text import format_count, format_duration

# Version of the layout of the JSON outputs and of the run record.
SCHEMA_VERSION = 1
# Fields of a file's entry by type; texts and numbers are None if unknown.
TEXTS = ("error",)
NUMBERS = ("bytes", "modified", "sample_rate", "channels")
LISTS = ("warnings", "groups")


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


@dataclass(frozen=True)
class RunInfo:
    """Description of a run: its model and settings.

    Parameters
    ----------
    version
        Version of this package.
    model
        Name, family, labels, calibration, hash and revision of the model.
    options
        All settings, also those that do not affect results, such as the number of workers.
    started
        Start of the run in UTC, ISO 8601; now by default.
    speakers
        Whether results name speakers.
    directory
        Directory that relative paths are relative to; the current one by default.
    """

    version: str
    model: Mapping[str, Any]
    options: Mapping[str, Any]
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    speakers: bool = False
    directory: str = field(default_factory=lambda: printable_path(os.getcwd()))

    def header(self) -> dict[str, Any]:
        """Return the fields with which every JSON output of the run begins."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ser_version": self.version,
            "started": self.started,
            "model": dict(self.model),
            "options": dict(self.options),
        }


class RunReport:
    """Outcomes of a run, as a summary, a record and an exit code.

    Parameters
    ----------
    info
        Description of the run.

    Attributes
    ----------
    info
        Description of the run.
    completed
        Whether all files are done.
    n_kept
        Number of files whose rows an earlier run wrote.
    n_segments
        Number of segments, with kept ones.
    n_kept_segments
        Number of segments whose rows an earlier run wrote.
    n_unknown
        Number of segments without a speaker, among those of this run.
    duration
        Seconds of audio, with kept files.
    """

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.completed = False
        self.n_kept = 0
        self.n_segments = 0
        self.n_kept_segments = 0
        self.n_unknown = 0
        self.duration = 0.0
        self._kept_duration = 0.0
        self._statuses: Counter[str] = Counter()
        self._any_failed = False
        self._files: list[dict[str, Any]] = []
        self._start = monotonic()

    def add(self, result: FileResult, turns_sha256: str | None = None) -> dict[str, Any]:
        """Count a file, and return its entry in the record.

        Parameters
        ----------
        result
            Result of the file.
        turns_sha256
            Hash of the segments and speakers given for the file, if any.
        """
        self._statuses[result.status] += 1
        self._any_failed |= result.status == "failed"
        self.n_segments += len(result.segments)
        self.n_unknown += sum(not segment.speaker for segment in result.segments)
        self.duration += result.duration
        entry = describe_file(result) | {"n_segments": len(result.segments)}
        if turns_sha256 is not None:
            entry["turns_sha256"] = turns_sha256
        self._files.append(entry)
        return entry

    def keep(self, entry: Mapping[str, Any], *, failed: bool = False) -> dict[str, Any]:
        """Count a file whose rows an earlier run wrote, and return its entry in the record.

        Parameters
        ----------
        entry
            Entry of the file for the record.
        failed
            Whether this run tried the file, and failed.
        """
        entry = dict(entry)
        self._any_failed |= failed
        self._statuses[entry["status"]] += 1
        self.n_kept += 1
        self.n_kept_segments += entry["n_segments"]
        self.n_segments += entry["n_segments"]
        self.duration += entry["duration"]
        self._kept_duration += entry["duration"]
        self._files.append(entry)
        return entry

    @property
    def n_files(self) -> int:
        """Number of files counted so far."""
        return len(self._files)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code: whether any file failed in this run."""
        return ExitCode.SOME_FAILED if self._any_failed else ExitCode.DONE

    def speed(self, duration: float) -> float:
        """Return the speed relative to real time, for `duration` seconds of audio until now."""
        return duration / max(monotonic() - self._start, 1e-9)

    def counts(self) -> dict[str, Any]:
        """Return the totals of the run."""
        return {
            "files": self.n_files,
            "ok": self._statuses["ok"],
            "no_speech": self._statuses["no speech"],
            "failed": self._statuses["failed"],
            "kept": self.n_kept,
            "segments": self.n_segments,
            "audio_seconds": round(self.duration, 3),
        }

    def summary(self) -> str:
        """Return a one-line summary of the run."""
        counts = self.counts()
        kept = f", {self.n_kept} kept from before" if self.n_kept else ""
        decoded = self.duration - self._kept_duration
        speed = f", {self.speed(decoded):.0f} times real time" if decoded else ""
        wanted = "segments" if self.info.options.get("segments_sha256") else "speech"
        return (
            f"{format_count(counts['files'], 'file')}: {counts['ok']} labelled, "
            f"{counts['no_speech']} without {wanted}, {counts['failed']} failed{kept}; "
            f"{format_count(counts['segments'], 'segment')} in {format_duration(self.duration)} "
            f"of audio{speed}"
        )

    def record(self, output_sha256: str | None = None) -> dict[str, Any]:
        """Return the run record in JSON types: everything but the labels.

        Parameters
        ----------
        output_sha256
            SHA-256 of the output; None if there is none.
        """
        return {
            **self.info.header(),
            "directory": self.info.directory,
            "completed": self.completed,
            "output_sha256": output_sha256,
            "wall_seconds": round(monotonic() - self._start, 3),
            "machine": {
                "platform": platform.platform(),
                "python": platform.python_version(),
                "cpus": os.cpu_count(),
            },
            "counts": self.counts(),
            "files": self._files,
        }


def describe_file(result: FileResult) -> dict[str, Any]:
    """Return everything about a file but its segments, in JSON types.

    Parameters
    ----------
    result
        Result of the file.
    """
    return {
        "path": printable_path(result.path),
        "status": result.status,
        "bytes": result.size,
        "modified": result.modified,
        "duration": round(result.duration, 3),
        "sample_rate": result.sample_rate,
        "channels": result.channels,
        "error": result.error and printable(result.error),
        "warnings": list(result.warnings),
        "groups": [
            {
                "name": printable(group.name),
                "segments": group.n_segments,
                "adapted": group.adapted,
            }
            for group in result.groups
        ],
    }


def check_file(entry: Any, *, recorded: bool = False) -> dict[str, Any]:
    """Check a file's entry that was read back, as a user may have edited it, and return it.

    Parameters
    ----------
    entry
        Entry as `describe_file` returns it, parsed from JSON; it may have more fields.
    recorded
        Whether it must have those of a run record, too.

    Raises
    ------
    ValueError
        If a field is missing or has another type, or the entry cannot be encoded.
    """
    try:
        fits = (
            isinstance(entry["path"], str)
            and entry["status"] in get_args(Status)
            and is_number(entry["duration"])
            and entry["duration"] >= 0
            and all(entry[name] is None or isinstance(entry[name], str) for name in TEXTS)
            and all(entry[name] is None or is_number(entry[name]) for name in NUMBERS)
            and all(isinstance(entry[name], list) for name in LISTS)
        )
        if recorded:
            fits &= is_number(entry["n_segments"]) and [*map(type, entry["rows"])] == [int, int]
        json.dumps(entry, ensure_ascii=False).encode()  # so that it can be written again
    except (KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"its entry for a file is {shorten(entry)} ({error!r})") from error
    if not fits:
        raise ValueError(f"its entry for a file is {shorten(entry)}")
    result: dict[str, Any] = entry
    return result
