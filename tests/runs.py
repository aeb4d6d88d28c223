"""Runs into one output, how they end, and what they leave."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import sercli
from sercli import Annotator
from sercli.annotation.run import LabelRun, RunWatcher
from sercli.classifiers.base import Classifier
from sercli.files import AtomicFile, write_json
from sercli.output import ledger as ledger_module
from sercli.output.ledger import Ledger
from sercli.output.report import RunInfo, RunReport
from sercli.output.target import Output
from sercli.output.writers import open_writer, record_path
from sercli.schema import FileResult

every_format = pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])


def write_results(path: Path, results: Iterable[FileResult], info: RunInfo) -> Path:
    """Write the output and the record of a completed run with these results."""
    report = RunReport(info)
    with open_writer(str(path), path.suffix[1:], info) as writer:
        for result in results:
            writer.write(result)
            report.add(result)
    report.completed = True
    write_json(record_path(path), report.record())
    return path


class Killed(BaseException):
    """Ends a run as if the process were killed: nothing is put in order."""


class Stop(RunWatcher):
    """Ends a run after so many files."""

    def __init__(self, n_files: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self._n_left = n_files
        self._error = error

    def done(self, result: FileResult) -> None:
        self._n_left -= 1
        if not self._n_left:
            raise self._error


class Runs:
    """Runs of one annotator over a folder of recordings, `sounds`, into one output beside it."""

    def __init__(
        self, classifier: Classifier, sounds: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.annotator = Annotator.load(classifier)
        self.sounds, self.output = sounds, output
        self.memo, self.statement = self.both = [sounds / "memo.m4a", sounds / "statement.flac"]
        self._classifier, self._monkeypatch = classifier, monkeypatch

    def load(self, **settings: Any) -> None:
        """Take another annotator of the same model."""
        self.annotator = Annotator.load(self._classifier, **settings)

    def begin(self, *paths: Path, **options: Any) -> LabelRun:
        """Return a run that has not begun to write."""
        inputs = list(sercli.find_inputs(paths or self.sounds))
        return LabelRun(self.annotator, inputs, Output.prepare(self.output, **options))

    def write(self, *paths: Path | str, **options: Any) -> RunReport:
        """Label paths, or all sounds."""
        return sercli.write_labels(paths or self.sounds, self.output, self.annotator, **options)

    def resume(self, *paths: Path | str, **options: Any) -> RunReport:
        return self.write(*paths, resume=True, **options)

    def kill_at(self, owner: Any, name: str, *paths: Path, **options: Any) -> None:
        """Run until a function is called, and leave all as it is then."""

        def die(*_: object, **__: object) -> None:
            raise Killed

        with self._monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            patch.setattr(Ledger, "_discard", lambda ledger: ledger._writer.leave())
            with pytest.raises(Killed):
                self.write(*paths, **options)

    def kill_after(self, n_files: int, *paths: Path, **options: Any) -> None:
        """Run until so many files are written, and leave all as it is then."""
        record = record_path(self.output)
        before = record.read_bytes() if record.exists() else None

        def leave(file: AtomicFile) -> None:
            file.leave()
            raise Killed

        with self._monkeypatch.context() as patch:
            patch.setattr(AtomicFile, "close", leave)
            patch.setattr(ledger_module, "write_json", lambda *_, **__: None)
            with pytest.raises(Killed):
                self.begin(*paths, **options).write(Stop(n_files, Killed))
        assert (record.read_bytes() if record.exists() else None) == before

    @property
    def content(self) -> bytes:
        return self.output.read_bytes()

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(record_path(self.output).read_text("utf-8"))
        return record

    @property
    def rows(self) -> list[str]:
        """Name of each file and number of its rows, in order."""
        results = sercli.read_results(self.output)
        return [f"{Path(one.path).name}: {len(one.segments)}" for one in results]

    @property
    def rows_found(self) -> list[str]:
        """The same, of files that have rows."""
        return [told for told in self.rows if not told.endswith(": 0")]

    @property
    def hidden(self) -> list[Path]:
        """What unfinished runs left."""
        return sorted(self.output.parent.glob(".*"))


def change(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1, 1))
