"""Runs that go on where others ended, however that was: no row is lost, doubled, brought back."""

import errno
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, FakeClassifier, find_turns
from numpy.typing import NDArray
from runs import Runs, Stop, change, every_format

import sercli
from sercli import ModelError, OutputError, SegmentConfig, Turns, files
from sercli.annotation.run import LabelRun, RunWatcher
from sercli.files import ORPHANED_S, AtomicFile
from sercli.output import journal as journal_module
from sercli.output import ledger as ledger_module
from sercli.output import resuming
from sercli.output.journal import STARTING_S, Journal, Unfinished, find_unfinished
from sercli.output.ledger import Ledger
from sercli.output.report import RunReport
from sercli.output.resuming import find_stamp
from sercli.output.writers import CsvWriter, record_path
from sercli.schema import FileResult, printable_path


@every_format
def test_what_is_to_be_labelled_anew_has_its_rows_until_then(runs: Runs, suffix: str) -> None:
    runs.write(*runs.both)
    rows = runs.content
    change(*runs.both)
    run = runs.begin(*runs.both, resume=True)
    assert (run.n_new, run.n_left) == (2, 2)
    with pytest.raises(KeyboardInterrupt):
        run.write(Stop(1))
    assert (run.n_left, run.report.completed) == (1, False)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    if suffix != "json":  # which tells of the files, too
        assert runs.content == rows
    assert [one["modified"] == 1 for one in runs.record["files"]] == [True, False]
    # Nor is anything lost at a file that fails, after which nothing is tried.
    assert not runs.resume(on_error="stop").completed
    assert runs.rows_found == ["memo.m4a: 2", "statement.flac: 3"]
    # The one that failed stays in the record, unless it is gone.
    last = runs.resume(*runs.both)
    assert (last.n_kept, last.n_files, last.completed) == (2, 3, True)
    failed = [one["path"] for one in runs.record["files"] if one["status"] == "failed"]
    assert (len(failed), last.exit_code) == (1, 0)
    Path(failed[0]).unlink()
    last = runs.resume(*runs.both)
    assert (last.n_kept, last.n_files, last.completed) == (2, 2, True)


@pytest.fixture
def cut(runs: Runs, speech: NDArray[np.float32]) -> Path:
    """A recording that breaks off."""
    path = runs.sounds / "cut.wav"
    sf.write(path, speech, 16_000)
    path.write_bytes(path.read_bytes()[:-100_000])
    return path


def test_rows_of_a_file_that_failed_stay_when_it_is_damaged_or_gone(runs: Runs, cut: Path) -> None:
    report = runs.write(cut, runs.memo)
    assert (report.exit_code, runs.rows) == (1, ["cut.wav: 3", "memo.m4a: 2"])
    rows, status = runs.content, cut.stat()
    # As a drive returns it that fails.
    cut.write_bytes(bytes(status.st_size))
    os.utime(cut, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = runs.resume(cut, runs.memo)
    assert (report.exit_code, report.n_kept, runs.content) == (1, 2, rows)
    cut.unlink()
    report = runs.resume(runs.memo)
    assert runs.content == rows
    assert report.counts()["failed"] == 1
    assert report.exit_code == 0  # that it failed was told then


def test_a_file_of_another_size_has_changed_whatever_its_time(runs: Runs) -> None:
    runs.write(*runs.both)
    status = runs.memo.stat()
    shutil.copy(runs.statement, runs.memo)
    os.utime(runs.memo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert runs.resume(*runs.both).n_kept == 1
    assert runs.rows == ["memo.m4a: 3", "statement.flac: 3"]


def test_rows_of_a_file_that_breaks_off_again_are_its_new_ones(runs: Runs, cut: Path) -> None:
    runs.write(cut, runs.memo)
    report = runs.resume(cut, runs.memo)
    assert (report.n_kept, runs.rows) == (1, ["cut.wav: 3", "memo.m4a: 2"])
    assert runs.record["files"][0]["warnings"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_segment", 5.0),
        ("min_segment", 0.4),
        ("max_gap", 0.4),
        ("vad_threshold", 0.6),
        ("window", 2.0),
        ("hop", 1.0),
        ("mode", "window"),
    ],
)
def test_settings_of_segments_that_changed_are_refused(
    name: str, value: float | str, runs: Runs
) -> None:
    runs.write(runs.memo)
    runs.load(segments=SegmentConfig(**{name: value}))  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=f"was made with another {name}: "):
        runs.resume(runs.memo)


@pytest.mark.parametrize("name", ["target", "adapt", "precision", "labels", "speakers_pattern"])
def test_other_settings_that_changed_are_refused(name: str, runs: Runs) -> None:
    runs.write(runs.memo)
    record = runs.record
    record["options"][name] = "another"
    record_path(runs.output).write_text(json.dumps(record))
    with pytest.raises(OutputError, match=f"was made with another {name}: another, now it is "):
        runs.resume(runs.memo)


def test_rows_of_another_format_are_refused(runs: Runs) -> None:
    runs.write(runs.memo)
    with pytest.raises(OutputError, match="was made with another format: csv, now it is jsonl"):
        runs.resume(format_="jsonl")


def test_the_journal_of_another_output_is_not_taken(runs: Runs, tmp_path: Path) -> None:
    runs.output = tmp_path / "labels.csv.2.csv"
    runs.kill_after(1, *runs.both)
    hidden = runs.hidden
    assert find_unfinished(tmp_path / "labels.csv") == []
    assert runs.hidden == hidden != []


def test_rows_that_change_before_they_are_copied_are_refused(runs: Runs) -> None:
    runs.kill_after(1, *runs.both)
    run = runs.begin(*runs.both, resume=True)
    rows = next(path for path in runs.hidden if path.suffix == ".tmp")
    rows.write_bytes(rows.read_bytes().replace(b",mix,", b",mox,"))
    with pytest.raises(OutputError, match="written to it meanwhile"):
        run.write()


def test_an_output_that_is_gone_is_not_missed_beside_what_a_killed_run_left(runs: Runs) -> None:
    runs.write(runs.memo)
    runs.kill_after(1, runs.statement, resume=True)
    runs.output.unlink()
    assert runs.resume(*runs.both).n_kept == 2


def test_each_change_of_an_output_shows_in_its_stamp(tmp_path: Path) -> None:
    path, other = tmp_path / "labels.csv", tmp_path / "other.csv"

    def write(path: Path, content: str, time: int) -> Path:
        path.write_text(content)
        os.utime(path, (time, time))
        return path

    before = find_stamp(write(path, "rows", 1))
    assert find_stamp(path) == before is not None
    assert find_stamp(write(path, "more rows", 1)) != before
    assert find_stamp(write(path, "rows", 2)) != before
    assert find_stamp(write(path, "rows", 1)) == before
    write(other, "rows", 1).replace(path)
    assert find_stamp(path) != before
    path.unlink()
    assert find_stamp(path) is None


def test_an_output_of_any_size_is_compared(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.write(*runs.both)
    monkeypatch.setattr(resuming, "CHUNK_SIZE", 64)
    assert len(runs.content) > 2 * 64
    assert runs.resume(*runs.both).n_kept == 2


def test_a_file_is_known_by_any_spelling_of_its_path(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs.write("sounds", exclude="broken.wav")
    rows = runs.content
    for spelled in ("./sounds", runs.sounds, "sounds/../sounds"):
        report = runs.resume(spelled, exclude="broken.wav")
        assert (report.n_kept, report.n_files) == (2, 2)
        assert runs.content == rows


def test_the_last_rows_count_however_runs_spelled_a_file(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changing = tmp_path / "changing"
    shutil.copy(runs.memo, changing)
    runs.write(changing)
    for content, spelled in ((runs.statement, Path("changing")), (runs.memo, changing)):
        shutil.copy(content, changing)
        runs.kill_after(1, spelled, resume=True)
    changing.unlink()  # nobody could label it again
    runs.resume(changing)
    assert runs.rows == ["changing: 2"]


def test_relative_paths_begin_where_they_began(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs.write("sounds", exclude="broken.wav")
    rows = runs.content
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(
        OutputError, match=rf"memo.m4a, are relative to {tmp_path}, but the current directory is "
    ):
        runs.resume(exclude="broken.wav")
    assert runs.content == rows
    # A project may move with its recordings.
    runs.sounds.rename(elsewhere / "sounds")
    report = runs.resume("sounds", exclude="broken.wav")
    assert (report.n_kept, report.n_files) == (2, 2)
    assert runs.content == rows


@pytest.mark.parametrize("n_files", [1, 2])
def test_what_was_to_be_overwritten_does_not_come_back(
    runs: Runs, tmp_path: Path, n_files: int
) -> None:
    old = shutil.copy(runs.memo, tmp_path / "old.m4a")
    runs.load(segments=SegmentConfig(max_segment=6.0))
    runs.write(old)
    (runs.sounds / "broken.wav").unlink()
    runs.load(segments=SegmentConfig(max_segment=5.0))
    runs.kill_after(n_files, overwrite=True)
    assert runs.rows == ["old.m4a: 2"]
    report = runs.resume()
    assert (report.n_kept, report.n_files) == (n_files, 2)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert not runs.hidden


@pytest.mark.parametrize("n_files", [1, 2])
def test_what_a_killed_run_left_does_not_come_back_when_overwritten(
    runs: Runs, n_files: int
) -> None:
    runs.load(segments=SegmentConfig(max_segment=6.0))
    runs.kill_after(n_files, *runs.both)
    runs.load(segments=SegmentConfig(max_segment=5.0))
    runs.kill_after(1, runs.statement, overwrite=True)
    report = runs.resume(runs.statement)
    assert (report.n_kept, runs.rows) == (1, ["statement.flac: 3"])
    assert not runs.hidden


@every_format
def test_a_disk_that_is_full_when_a_run_begins_costs_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(runs.memo)
    rows = runs.content

    def fail(self: Journal, data: object) -> None:
        raise OutputError("the journal: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_put", fail)
        with pytest.raises(OutputError, match="No space left"):
            runs.resume()
    assert runs.content == rows
    assert not runs.hidden
    # Nor one that was killed before it had written a line.
    temporary = runs.output.with_name(f".{runs.output.name}.01234567.tmp")
    temporary.touch()
    journal = temporary.with_name(f"{temporary.name}.journal")
    journal.touch()
    old = journal.stat().st_mtime - STARTING_S - 1
    os.utime(journal, (old, old))
    report = runs.resume()
    assert (report.n_kept, report.n_files) == (1, 3)
    assert not runs.hidden


@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_that_is_full_before_the_first_file_leaves_nothing(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    def fail(self: Journal, data: object) -> None:
        raise OutputError("the journal: cannot be written: No space left on device")

    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_put", fail)
        with pytest.raises(OutputError, match="No space left"):
            runs.write(runs.memo)
    assert sorted(tmp_path.iterdir()) == before
    assert runs.write(runs.memo, resume=resume).completed


def test_a_record_without_an_output_is_no_output_that_is_gone(runs: Runs) -> None:
    runs.write(runs.memo)
    runs.output.unlink()
    record = runs.record
    for told in (json.dumps(record), "{", "[]"):
        record_path(runs.output).write_text(told)
        with pytest.raises(OutputError, match="cannot be continued"):  # it was moved away
            runs.resume(runs.memo)
        assert record_path(runs.output).read_text() == told
    record_path(runs.output).write_text(json.dumps(record | {"output_sha256": None}))
    report = runs.resume(runs.memo)
    assert (report.n_kept, report.completed, runs.rows) == (0, True, ["memo.m4a: 2"])


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_the_record_is_written_costs_no_record(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_json

    def write_slowly(path: Path, data: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "write_json", write_slowly)
        with pytest.raises(KeyboardInterrupt):
            runs.write()
    assert runs.record["completed"]
    assert not runs.hidden
    assert runs.resume().n_kept == 2


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_as_the_end_begins_costs_nothing_and_unlocks(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Ledger.__exit__
    came: list[str] = []

    def end_late(self: Ledger, *error: Any) -> None:
        if not came:
            came.append("before the end")
            signal.raise_signal(signal.SIGINT)
        end(self, *error)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "__exit__", end_late)
        with pytest.raises(KeyboardInterrupt) as caught:
            runs.write(*runs.both)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert not runs.hidden
    report = runs.resume(*runs.both)
    assert (report.n_kept, report.completed) == (2, True)
    assert caught.tb is not None  # as in a notebook, it keeps what was open


@pytest.mark.parametrize("kept", [".journal", ".tmp"])
def test_what_cannot_be_removed_is_told_and_costs_nothing(
    kept: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.kill_after(1, *runs.both)
    remove = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == kept and path.exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(
            OutputError, match=rf"{kept}: cannot be removed: Permission denied; .* with --resume$"
        ):
            runs.resume(*runs.both)
    assert runs.record["completed"]
    report = runs.resume(*runs.both)
    assert (report.n_kept, runs.rows) == (2, ["memo.m4a: 2", "statement.flac: 3"])
    # Without a journal, it goes when it is old.
    assert [one.suffix for one in runs.hidden] == [".tmp"] * (kept == ".tmp")


@pytest.mark.parametrize("name", ["copy_mode", "_lock"])
def test_a_journal_that_cannot_be_begun_leaves_nothing_and_is_unlocked(
    name: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, name, fail)
        with pytest.raises(MemoryError) as caught:
            runs.write(runs.memo)
    assert not runs.hidden
    assert runs.write(runs.memo).completed
    assert caught.tb is not None  # as in a notebook, it keeps what was open


@pytest.mark.parametrize(
    ("error", "told"), [(MemoryError, MemoryError), (KeyboardInterrupt, OutputError)]
)
def test_a_journal_stays_where_no_record_could_be_written(
    error: type[BaseException],
    told: type[BaseException],
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, data: Any) -> None:
        raise OutputError("the record: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "write_json", refuse)
        with pytest.raises(told):
            runs.begin().write(Stop(2, error))
    assert [one.suffix for one in runs.hidden] == [".journal"]
    report = runs.resume()
    assert (report.n_kept, report.n_files, runs.rows[1:]) == (
        1,
        3,
        ["memo.m4a: 2", "statement.flac: 3"],
    )
    assert not runs.hidden


@every_format
@pytest.mark.parametrize(
    ("owner", "name"), [(AtomicFile, "write"), (RunReport, "add"), (Journal, "note")]
)
@pytest.mark.parametrize("late", [False, True])
def test_an_error_amid_the_rows_of_a_file_costs_no_other_file(
    owner: type, name: str, late: bool, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(*runs.both)
    rows = runs.content
    before = getattr(owner, name)
    runs.output.unlink()
    record_path(runs.output).unlink()
    n_left = 3 if owner is AtomicFile else 2  # a header is written first

    def fail_once(self: object, *values: object) -> object:
        nonlocal n_left
        n_left -= 1
        if not n_left and not late:
            raise MemoryError
        result = before(self, *values)
        if not n_left:
            raise MemoryError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_once)
        with pytest.raises(MemoryError):
            runs.write(*runs.both)
    report = runs.resume(*runs.both)
    assert report.n_kept == (2 if owner is Journal and late else 1)
    assert report.completed
    if runs.output.suffix != ".json":  # which tells when it was started
        assert runs.content == rows
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert not runs.hidden


def test_an_error_amid_rows_that_are_kept_doubles_none(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(runs.statement)
    before, came = RunReport.keep, list[str]()

    def fail_once(self: RunReport, entry: dict[str, Any], **options: Any) -> Any:
        if not came:
            came.append("amid the rows")
            raise MemoryError
        return before(self, entry, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RunReport, "keep", fail_once)
        with pytest.raises(MemoryError):
            runs.resume(*runs.both[::-1])
        assert not runs.hidden  # as nothing was new
        came.clear()
        with pytest.raises(MemoryError):
            runs.resume(*runs.both)
    assert runs.rows == ["statement.flac: 3"]
    report = runs.resume(*runs.both)
    assert (report.n_kept, runs.rows) == (2, ["memo.m4a: 2", "statement.flac: 3"])
    assert not runs.hidden


def test_an_output_that_could_not_be_written_has_a_record(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OutputError("the output: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "write", fail)
        with pytest.raises(OutputError, match="No space left"):
            runs.write(*runs.both)
    assert not runs.output.exists()
    assert (runs.record["completed"], runs.record["output_sha256"]) == (False, None)
    assert runs.resume(*runs.both).completed
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]


def test_an_error_after_rows_that_were_kept_leaves_an_output_in_its_place(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = Path(shutil.copy(runs.memo, tmp_path / "third.m4a"))
    runs.write(runs.statement)
    before = LabelRun._write_all

    def end_early(self: LabelRun, results: Iterator[FileResult], *others: Any) -> None:
        def give_one() -> Iterator[FileResult]:
            yield next(results)
            raise ModelError("no more")

        before(self, give_one(), *others)

    with monkeypatch.context() as patch:
        patch.setattr(LabelRun, "_write_all", end_early)
        with pytest.raises(ModelError):
            runs.resume(*runs.both, third)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert runs.record["completed"] is False
    assert not runs.hidden


@every_format
def test_a_run_that_was_killed_before_its_first_file_is_gone_on_with(runs: Runs) -> None:
    runs.write(runs.memo)
    runs.kill_at(LabelRun, "_write_all", overwrite=True)
    assert runs.rows == ["memo.m4a: 2"]
    assert [one.suffix for one in runs.hidden] == [".tmp", ".journal"]
    report = runs.resume()
    assert (report.n_kept, report.n_files) == (0, 3)
    assert runs.rows_found == ["memo.m4a: 2", "statement.flac: 3"]
    assert not runs.hidden


PLACES = (
    (AtomicFile, "__init__"),
    (AtomicFile, "close"),
    (Journal, "__init__"),
    (Journal, "_put"),
    (Journal, "remove"),
    (CsvWriter, "_put"),
    (Ledger, "__init__"),
    (Ledger, "_complete"),
    (LabelRun, "_write_all"),
    (ledger_module, "write_json"),
)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("owner", "name"), PLACES)
def test_an_interrupt_anywhere_costs_nothing(
    owner: Any, name: str, late: bool, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone.m4a"
    shutil.copy(runs.memo, gone)
    before = getattr(owner, name)
    came: list[str] = []

    def interrupted(*values: Any, **options: Any) -> Any:
        result = before(*values, **options) if late else None
        if not came:
            came.append(name)
            signal.raise_signal(signal.SIGINT)
        return result if late else before(*values, **options)

    def interrupt(*paths: Path, resume: bool) -> None:
        came.clear()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                runs.write(*paths, resume=resume)
        assert came

    interrupt(gone, runs.memo, resume=False)
    runs.resume(gone, runs.memo)
    assert runs.rows == ["gone.m4a: 2", "memo.m4a: 2"]
    # One is gone, and the other is another recording since.
    gone.unlink()
    shutil.copy(runs.statement, runs.memo)
    interrupt(runs.memo, resume=True)
    assert runs.rows in (["gone.m4a: 2", f"memo.m4a: {n_rows}"] for n_rows in (2, 3))
    runs.resume(runs.memo)
    assert runs.rows == ["gone.m4a: 2", "memo.m4a: 3"]
    assert not list(tmp_path.glob(".*.journal"))


class Flaky(io.FileIO):
    """A file that cannot be written for a moment: at the second piece."""

    n_pieces = 0

    def write(self, piece: Any) -> int:
        self.n_pieces += 1
        if self.n_pieces == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)


@every_format
def test_a_disk_that_is_full_for_a_moment_costs_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    runs.write(*runs.both)
    content = runs.content
    change(runs.memo)
    create = AtomicFile.__init__

    def create_flaky(self: AtomicFile, path: Path, *, overwrite: bool = False) -> None:
        create(self, path, overwrite=overwrite)
        self.stream.close()
        raw = Flaky(self.temporary, "w")
        self.stream = io.BufferedWriter(raw)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "__init__", create_flaky)
        with pytest.raises(
            OutputError, match=rf"{runs.output.name}: cannot be written: No space left on device; "
        ):
            runs.resume(*runs.both)
    assert runs.content == content
    report = runs.resume(*runs.both)
    # JSON Lines have no header, so that the first file was written.
    assert (report.n_kept, report.completed) == (2 if suffix == "jsonl" else 1, True)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert not runs.hidden


def test_what_killed_runs_left_without_a_journal_goes(runs: Runs, tmp_path: Path) -> None:
    names = [
        ".labels.csv.0123abcd.tmp",
        ".labels.csv.run.json.0123abcd.tmp",
        ".labels.csv.00000000.tmp",  # of now
        ".labels.csv.mine.tmp",
        ".labels.csv.backup.0123abcd.tmp",
    ]
    for name in names:
        (tmp_path / name).touch()
        if name != names[2]:
            old = (tmp_path / name).stat().st_mtime - ORPHANED_S - 1
            os.utime(tmp_path / name, (old, old))
    runs.write(runs.memo)
    assert [one.name for one in runs.hidden] == sorted(names[2:])


def test_names_that_spell_an_escape_are_told_from_it(runs: Runs, tmp_path: Path) -> None:
    names = (os.fsdecode(b"a\xff.m4a"), r"a\xff.m4a")
    assert [printable_path(name) for name in names] == [r"a\xff.m4a", r"a\x5cxff.m4a"]
    folder = tmp_path / "both"
    folder.mkdir()
    for name in names:
        shutil.copy(EXAMPLES / "memo.m4a", folder / name)
    runs.write(folder)
    assert runs.rows == [r"a\x5cxff.m4a: 2", r"a\xff.m4a: 2"]
    assert runs.resume(folder).n_kept == 2
    # As a table of segments, each is found again.
    turns = Turns.read(runs.output)
    assert [len(find_turns(turns, str(folder / name))) for name in names] == [2, 2]


@pytest.fixture
def listed(sounds: Path) -> Path:
    table = sounds / "segments.csv"
    table.write_text("file,start,end\nmemo.m4a,0.123456,1.5\nmemo.m4a,1.500001,2\n")
    return table


@every_format
def test_times_that_were_given_are_written_as_they_were(
    runs: Runs, listed: Path, suffix: str
) -> None:
    runs.load(segments=Turns.read(listed))
    runs.write(runs.memo)
    (found,) = sercli.read_results(runs.output)
    times = [(one.start, one.end) for one in found.segments]
    assert times == [(0.123456, 1.5), (1.500001, 2.0)]
    if suffix == "csv":
        assert [row.split(",")[2:4] for row in runs.content.decode().splitlines()[1:]] == [
            ["0.123456", "1.500"], ["1.500001", "2.000"],
        ]  # fmt: skip


def test_a_list_of_segments_may_grow(runs: Runs, listed: Path) -> None:
    def count_kept() -> int:
        runs.load(segments=Turns.read(listed))
        return runs.resume(*runs.both).n_kept

    assert count_kept() == 0
    assert count_kept() == 2
    rows = listed.read_text()
    listed.write_text(rows + "statement.flac,1,2\n")
    assert count_kept() == 1  # the other has a segment more
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 1"]
    listed.write_text(rows.replace("1.5\n", "1.4\n") + "statement.flac,1,2\n")
    assert count_kept() == 1
    assert count_kept() == 2
    labels = runs.content
    runs.load()
    with pytest.raises(OutputError, match="another segments: those given, now it is those found"):
        runs.resume(*runs.both)
    listed.write_text("file,start,end,speaker\nmemo.m4a,0,1,ann\n")
    with pytest.raises(OutputError, match="another speakers: not told, now it is told"):
        count_kept()
    assert runs.content == labels


def test_turns_of_a_file_that_is_kept_are_not_those_of_another(runs: Runs, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "memo.m4a" for folder in ("s1", "s2")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(EXAMPLES / "memo.m4a", path)
    turns = tmp_path / "all.rttm"
    turns.write_text("SPEAKER s1/memo 1 0 1 <NA> <NA> ann\n")
    runs.load(segments=turns)
    runs.write(paths[0])
    assert runs.resume(*paths).n_kept == 1
    assert [len(one.segments) for one in sercli.read_results(runs.output)] == [1, 0]
    # In a run of its own, the other is meant: nothing is left of the run before.
    (alone,) = runs.annotator.annotate(paths[1])
    assert len(alone.segments) == 1


@every_format
def test_rows_of_a_file_that_cannot_be_opened_now_stay(
    runs: Runs, tmp_path: Path, suffix: str
) -> None:
    runs.write(*runs.both)
    before, rows = sercli.read_results(runs.output), runs.content
    away = runs.memo.rename(tmp_path / "away")
    told: list[FileResult] = []

    class Told(RunWatcher):
        def done(self, result: FileResult) -> None:
            told.append(result)

    for _ in range(2):
        report = runs.begin(*runs.both, resume=True).write(Told())
        assert (report.exit_code, report.n_segments, report.completed) == (1, 5, True)
        assert (report.counts()["failed"], report.n_kept) == (1, 2)
        if suffix != "json":
            assert runs.content == rows
        entry = runs.record["files"][0]
        assert (entry["status"], entry["n_segments"]) == ("failed", 2)
        assert entry["error"] == f"{runs.memo}: does not exist"
        assert entry["warnings"] == [
            "2 segments of an earlier run kept in the output; --resume tries the file again"
        ]
        now = sercli.read_results(runs.output)
        assert [one.status for one in now] == ["failed", "ok"]
        assert [one.segments for one in now] == [one.segments for one in before]
        assert now[0].error == entry["error"]
    assert [one.status for one in told] == ["failed"] * 2
    # When it is there again, it is labelled as ever.
    away.rename(runs.memo)
    report = runs.resume(*runs.both)
    assert (report.exit_code, report.n_kept) == (0, 1)
    assert sercli.read_results(runs.output) == before
    # Of another that takes its place, they would be wrong.
    runs.memo.write_bytes(b"no audio")
    report = runs.resume(*runs.both)
    assert (report.exit_code, runs.rows) == (1, ["memo.m4a: 0", "statement.flac: 3"])


def test_a_journal_that_has_just_begun_is_of_a_run_at_work(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    rows = tmp_path / ".labels.csv.0123456789abcdef.tmp"
    journal = rows.with_name(rows.name + ".journal")
    rows.write_text("file")
    for begun in ("", '{"schema_ver'):
        journal.write_text(begun)
        with pytest.raises(OutputError, match="another run is writing it"):
            find_unfinished(target)
        assert rows.exists()
    now = journal.stat().st_mtime
    for then in (now - STARTING_S - 1, now + STARTING_S + 60):  # or the clock was ahead
        rows.write_text("file")
        journal.write_text('{"schema_ver')
        os.utime(journal, (then, then))
        assert find_unfinished(target) == []
        assert not rows.exists()


def test_without_locks_the_process_that_writes_is_asked_for(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sercli.output.journal._lock", lambda *_, **__: None)
    runs.write()
    runs.kill_after(2, overwrite=True)
    (journal,) = tmp_path.glob("*.journal")
    header, *lines = journal.read_text("utf-8").splitlines(keepends=True)
    told = json.loads(header)
    assert (told["host"], told["pid"]) == (platform.node(), os.getpid())

    def tell(host: str, pid: int, age: float = 0) -> None:
        journal.write_text(json.dumps(told | {"host": host, "pid": pid}) + "\n" + "".join(lines))
        at = journal.stat().st_mtime - age
        os.utime(journal, (at, at))

    def refuse(_: int, __: int) -> None:
        raise PermissionError

    tell(platform.node(), os.getpid())
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)  # another user's
        with pytest.raises(OutputError, match="another run is writing it"):
            find_unfinished(runs.output)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for host, pid, age in (
        (platform.node(), os.getpid(), ORPHANED_S + 1),
        ("another", 1, ORPHANED_S - 9),
    ):
        tell(host, pid, age)
        with pytest.raises(OutputError, match="another run is writing it"):
            find_unfinished(runs.output)
    for host, pid, age in (
        (platform.node(), ended.pid, 0.0),
        ("another", 1, ORPHANED_S + 1),
        ("another", 1, -ORPHANED_S - 1),  # its clock is ahead
    ):
        tell(host, pid, age)
        assert [one.journal for one in find_unfinished(runs.output)] == [journal]


def test_speakers_that_changed_are_told_anew(runs: Runs, tmp_path: Path) -> None:
    table = tmp_path / "who.csv"

    def label(speakers: str) -> tuple[int, list[str | None]]:
        runs.load(speakers=speakers)
        n_kept = runs.resume(*runs.both).n_kept
        return n_kept, [one.segments[0].speaker for one in sercli.read_results(runs.output)]

    table.write_text(f"file,speaker\n{runs.memo},ann\n")
    assert label(str(table)) == (0, ["ann", None])
    table.write_text(f"file,speaker\n{runs.memo},ann\n{runs.statement},ben\n")
    assert label(str(table)) == (1, ["ann", "ben"])
    with pytest.raises(OutputError, match=r"another speakers_pattern: None, now it is \(m\|s\)"):
        label("(m|s)")


@every_format
def test_a_pattern_that_is_not_utf8_is_told_with_escapes(runs: Runs) -> None:
    runs.load(speakers=os.fsdecode(b"(memo|state)[\xe9.]"))
    runs.kill_after(1, *runs.both)
    (journal,) = (one for one in runs.hidden if one.suffix == ".journal")
    header = json.loads(journal.read_text("utf-8").splitlines()[0])
    assert header["options"]["speakers_pattern"] == r"(memo|state)[\xe9.]"
    report = runs.resume(*runs.both)
    assert (report.n_kept, report.completed) == (1, True)
    assert runs.record["options"]["speakers_pattern"] == r"(memo|state)[\xe9.]"
    speakers = [one.segments[0].speaker for one in sercli.read_results(runs.output)]
    assert speakers == ["memo", None]


def test_another_folder_with_files_of_the_same_names_is_another(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        for name in ("rec1.m4a", "rec2.m4a"):
            shutil.copy(runs.memo, tmp_path / day / name)
    monkeypatch.chdir(tmp_path / "day1")
    runs.write(".")
    rows = runs.content
    monkeypatch.chdir(tmp_path / "day2")
    with pytest.raises(OutputError, match=r"such as \./rec1\.m4a, are relative to .*day1, but "):
        runs.resume(".")
    assert runs.content == rows
    # Nor was it moved, if one of the files is still there.
    (tmp_path / "day1" / "rec1.m4a").unlink()
    with pytest.raises(OutputError, match="are relative to"):
        runs.resume(".")
    # Nor is it that of a project that was moved, if they are other files.
    (tmp_path / "day1" / "rec2.m4a").unlink()
    for name in ("rec1.m4a", "rec2.m4a"):
        (tmp_path / "day2" / name).write_bytes(b"other")
    with pytest.raises(OutputError, match="are relative to"):
        runs.resume(".")


@pytest.mark.parametrize("name", ["cw\udcff", r"cw\x41", "cw"])
def test_a_working_directory_of_any_name(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(runs.memo, folder)
    monkeypatch.chdir(folder)
    for path in ("memo.m4a", folder / "memo.m4a"):
        report = runs.resume(path)
        assert (report.n_files, report.n_segments) == (1, 2)


@pytest.mark.parametrize("owners", [(Unfinished,), (Journal,), (Unfinished, Journal)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_later_run_replaced_does_not_come_back(
    runs: Runs, owners: tuple[type, ...], overwrite: bool
) -> None:
    runs.write(runs.statement)
    runs.kill_after(2, overwrite=True)  # with the file that fails and the memo
    shutil.copy(runs.statement, runs.sounds / "broken.wav")  # it is repaired
    for owner in owners:
        if overwrite:
            runs.kill_at(owner, "remove", runs.statement, overwrite=True)
        else:
            runs.kill_at(owner, "remove", resume=True)
    if overwrite:
        runs.resume(runs.statement)
        assert runs.rows == ["statement.flac: 3"]
    else:
        runs.resume(runs.memo)
        assert runs.rows == ["broken.wav: 3", "statement.flac: 3", "memo.m4a: 2"]


def test_an_output_that_is_changed_meanwhile_stays(runs: Runs, tmp_path: Path) -> None:
    class Edit(RunWatcher):
        """Edits the output as another program would, in a new file."""

        def done(self, result: FileResult) -> None:
            edited = tmp_path / "edited"
            edited.write_bytes(runs.content.replace(b",0,", b",9,"))
            edited.replace(runs.output)

    for changed in ([runs.memo], runs.both):
        runs.write(*runs.both, overwrite=runs.output.exists())
        change(*changed)
        run = runs.begin(*runs.both, resume=True)
        with pytest.raises(OutputError, match="another run or program has written to it meanwhile"):
            run.write(Edit())
        assert runs.content.count(b",9,") == 5


def test_an_output_that_changed_before_a_run_writes_costs_no_labelling(
    runs: Runs, fake_classifier: FakeClassifier
) -> None:
    runs.write(*runs.both)
    change(*runs.both)
    run = runs.begin(*runs.both, resume=True)
    n_scored = len(fake_classifier.received)
    assert n_scored == 5
    edited = runs.content.replace(b",mix,", b",mox,")
    runs.output.write_bytes(edited)
    with pytest.raises(OutputError, match="written to it meanwhile"):
        run.write()
    assert len(fake_classifier.received) == n_scored
    assert (runs.content, runs.hidden) == (edited, [])


def test_rows_that_cannot_be_read_for_a_moment_stay(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(*runs.both)
    rows, opened, n_opened = runs.content, Path.open, 0

    def fail(self: Path, mode: str = "r", **options: Any) -> Any:
        nonlocal n_opened
        n_opened += self == runs.output and mode == "rb"
        if n_opened == 3:  # the first indexes it
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(self, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(
            OutputError, match=r"labels\.csv: cannot be read: .*; continue with --resume"
        ):
            runs.resume(*runs.both)
    assert runs.content == rows
    assert runs.resume(*runs.both).n_kept == 2


def test_a_journal_of_somebody_else_is_of_a_run_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "labels.csv"
    journal = tmp_path / ".labels.csv.01234567.tmp.journal"
    journal.write_text("{}\n")
    journal.with_suffix("").write_text("rows")

    fcntl = pytest.importorskip("fcntl", reason="locks on Windows are others")
    refused = ["r+"]

    def refuse(self: Path, mode: str = "r", **_: Any) -> Any:
        if mode in refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(self, mode)

    opened = Path.open
    with opened(journal, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "open", refuse)
                with pytest.raises(OutputError, match="another run is writing it"):
                    find_unfinished(target)
            refused.append("r")
    assert journal.exists()


def test_a_run_that_cannot_be_described_leaves_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise TypeError("Object of type complex is not JSON serializable")

    with monkeypatch.context() as patch:
        patch.setattr("sercli.output.journal.json.dumps", fail)
        with pytest.raises(TypeError):
            runs.write(runs.memo)
    assert not runs.hidden
    runs.write(runs.memo)
    assert runs.rows == ["memo.m4a: 2"]


@pytest.mark.parametrize("name", ["labels[1].csv", "labels*.csv"])
def test_outputs_whose_names_are_patterns_are_gone_on_with(
    runs: Runs, tmp_path: Path, name: str
) -> None:
    runs.output = tmp_path / name
    runs.kill_after(1, *runs.both)
    report = runs.resume(*runs.both)
    assert (report.n_kept, runs.rows) == (1, ["memo.m4a: 2", "statement.flac: 3"])
    assert not runs.hidden


@every_format
def test_an_output_that_lacks_only_its_record_is_kept(runs: Runs) -> None:
    runs.kill_at(ledger_module, "write_json", *runs.both)
    assert runs.output.exists()
    assert not record_path(runs.output).exists()
    content = runs.content
    report = runs.resume(*runs.both)
    assert (report.n_kept, report.completed) == (2, True)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]
    assert len(runs.content) == len(content)
    assert not runs.hidden


@pytest.mark.parametrize("is_double", [False, True])
def test_a_record_that_lacks_a_file_without_rows_is_refused(runs: Runs, is_double: bool) -> None:
    runs.write()
    record, rows = runs.record, runs.content
    broken, *others = record["files"]
    assert (broken["n_segments"], len(others)) == (0, 2)
    told = [{**broken, "path": others[0]["path"]}, *others] if is_double else others
    record_path(runs.output).write_text(json.dumps(record | {"files": told}))
    with pytest.raises(OutputError, match="its record has 2 of 3 files"):
        runs.resume()
    assert runs.content == rows


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_new_record_has_the_mode_of_its_output_and_keeps_its_own(runs: Runs) -> None:
    runs.write(runs.memo)
    record = record_path(runs.output)
    record.unlink()
    runs.output.chmod(0o600)

    def write(*paths: Path, **options: Any) -> list[str]:
        runs.write(*paths, **options)
        return [oct(path.stat().st_mode & 0o777) for path in (runs.output, record)]

    assert write(runs.memo, overwrite=True) == ["0o600", "0o600"]
    record.chmod(0o640)
    assert write(*runs.both, resume=True) == ["0o600", "0o640"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_journal_is_as_secret_as_its_output(runs: Runs) -> None:
    runs.write(runs.memo)
    runs.output.chmod(0o600)
    runs.kill_after(2, *runs.both, resume=True)
    assert {path.name[-8:]: oct(path.stat().st_mode & 0o777) for path in runs.hidden} == {
        ".journal": "0o600",
        runs.hidden[0].name[-8:]: "0o600",
    }
