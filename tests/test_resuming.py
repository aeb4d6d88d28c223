"""Runs that go on where others ended, however that was: no row is lost, doubled, brought back."""

import errno
import fcntl
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, FakeClassifier, find_turns
from numpy.typing import NDArray

import sercli
from sercli import Annotator, OutputError, SegmentConfig, Turns
from sercli.annotation import run as run_module
from sercli.annotation.run import LabelRun, RunWatcher
from sercli.files import ORPHANED_S, AtomicFile
from sercli.output.journal import STARTING_S, Journal, Unfinished, find_unfinished
from sercli.output.target import Output
from sercli.output.writers import CsvWriter, record_path
from sercli.schema import FileResult, printable_path


class Stop(RunWatcher):
    """Interrupts after so many files."""

    def __init__(self, n_files: int) -> None:
        self._n_left = n_files

    def done(self, result: FileResult) -> None:
        self._n_left -= 1
        if not self._n_left:
            raise KeyboardInterrupt


class Killed(BaseException):
    """Ends a run as if the process were killed: nothing is put in order."""


def read_files(output: Path) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = json.loads(record_path(output).read_text("utf-8"))["files"]
    return files


def count_rows(output: Path) -> dict[str, int]:
    return {Path(one.path).name: len(one.segments) for one in sercli.read_results(output)}


def change(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1, 1))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_what_is_to_be_labelled_anew_has_its_rows_until_then(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, suffix: str
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(paths, output, annotator)
    rows = output.read_bytes()
    change(*paths)
    inputs = list(sercli.find_inputs(paths))
    run = LabelRun(annotator, inputs, Output.prepare(output, resume=True))
    assert (run.n_new, run.n_left) == (2, 2)
    with pytest.raises(KeyboardInterrupt):
        run.write(Stop(1))
    assert (run.n_left, run.report.completed) == (1, False)
    assert count_rows(output) == {"memo.m4a": 2, "statement.flac": 3}
    if suffix != "json":  # which tells of the files, too
        assert output.read_bytes() == rows
    assert [one["modified"] == 1 for one in read_files(output)] == [True, False]
    # Nor is anything lost at a file that fails, after which nothing is tried.
    run = LabelRun(annotator, list(sercli.find_inputs(sounds)), Output.prepare(output, resume=True))
    assert not run.write(on_error="stop").completed
    assert count_rows(output) | {"broken.wav": 0} == {
        "broken.wav": 0, "memo.m4a": 2, "statement.flac": 3,
    }  # fmt: skip
    last = sercli.write_labels(paths, output, annotator, resume=True)
    assert (last.n_kept, last.n_files, last.completed) == (1, 2, True)


def test_rows_of_a_file_that_failed_stay_when_it_is_gone(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    cut = sounds / "cut.wav"
    sf.write(cut, speech, 16_000)
    cut.write_bytes(cut.read_bytes()[:-100_000])
    report = sercli.write_labels([cut, sounds / "memo.m4a"], output, annotator)
    assert (report.exit_code, count_rows(output)) == (1, {"cut.wav": 3, "memo.m4a": 2})
    rows = output.read_bytes()
    cut.unlink()
    report = sercli.write_labels(sounds / "memo.m4a", output, annotator, resume=True)
    assert output.read_bytes() == rows
    assert report.counts()["failed"] == 1
    assert report.exit_code == 0  # that it failed was told then


def test_a_file_is_known_by_any_spelling_of_its_path(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    monkeypatch.chdir(tmp_path)
    sercli.write_labels("sounds", output, annotator, exclude="broken.wav")
    rows = output.read_bytes()
    for spelled in ("./sounds", sounds, "sounds/../sounds"):
        report = sercli.write_labels(spelled, output, annotator, resume=True, exclude="broken.wav")
        assert (report.n_kept, report.n_files) == (2, 2)
        assert output.read_bytes() == rows


def test_relative_paths_begin_where_they_began(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    monkeypatch.chdir(tmp_path)
    sercli.write_labels("sounds", output, annotator, exclude="broken.wav")
    rows = output.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(OutputError, match=rf"memo.m4a, are relative to {tmp_path}, and "):
        sercli.write_labels(sounds, output, annotator, resume=True, exclude="broken.wav")
    assert output.read_bytes() == rows
    # A project may move with its recordings.
    sounds.rename(elsewhere / "sounds")
    report = sercli.write_labels("sounds", output, annotator, resume=True, exclude="broken.wav")
    assert (report.n_kept, report.n_files) == (2, 2)
    assert output.read_bytes() == rows


def kill(
    annotator: Annotator, inputs: Path, output: Path, n_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run until so many files are written, and end with all as it is then."""

    class Kill(RunWatcher):
        n_done = 0

        def done(self, result: FileResult) -> None:
            self.n_done += 1
            if self.n_done == n_files:
                raise Killed

    def leave(self: AtomicFile) -> None:
        self.leave()
        raise Killed

    before = record_path(output).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "close", leave)
        patch.setattr("sercli.annotation.run.write_json", lambda *_, **__: None)
        found = list(sercli.find_inputs(inputs))
        run = LabelRun(annotator, found, Output.prepare(output, overwrite=True))
        with pytest.raises(Killed):
            run.write(Kill())
    assert record_path(output).read_bytes() == before


@pytest.mark.parametrize("n_files", [1, 2])
def test_what_was_to_be_overwritten_does_not_come_back(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_files: int,
) -> None:
    output = tmp_path / "labels.csv"
    before, now = (
        Annotator.load(fake_classifier, segments=SegmentConfig(max_segment=longest))
        for longest in (6.0, 5.0)
    )
    old = shutil.copy(sounds / "memo.m4a", tmp_path / "old.m4a")
    sercli.write_labels(old, output, before)
    (sounds / "broken.wav").unlink()
    kill(now, sounds, output, n_files, monkeypatch)
    assert count_rows(output) == {"old.m4a": 2}
    report = sercli.write_labels(sounds, output, now, resume=True)
    assert (report.n_kept, report.n_files) == (n_files, 2)
    assert count_rows(output) == {"memo.m4a": 2, "statement.flac": 3}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_disk_that_is_full_when_a_run_begins_costs_nothing(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    sercli.write_labels(sounds / "memo.m4a", output, annotator)
    rows = output.read_bytes()

    def fail(self: Journal, data: object) -> None:
        raise OutputError("the journal: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_put", fail)
        with pytest.raises(OutputError, match="No space left"):
            sercli.write_labels(sounds, output, annotator, resume=True)
    assert output.read_bytes() == rows
    assert not list(tmp_path.glob(".*"))
    # Nor one that was killed before it had written a line.
    (tmp_path / f".labels.{suffix}.01234567.tmp").touch()
    journal = tmp_path / f".labels.{suffix}.01234567.tmp.journal"
    journal.touch()
    old = journal.stat().st_mtime - STARTING_S - 1
    os.utime(journal, (old, old))
    report = sercli.write_labels(sounds, output, annotator, resume=True)
    assert (report.n_kept, report.n_files) == (1, 3)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_run_that_was_killed_before_its_first_file_is_gone_on_with(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    sercli.write_labels(sounds / "memo.m4a", output, annotator)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LabelRun, "_write_all", die)
        with pytest.raises(Killed):
            sercli.write_labels(sounds, output, annotator, overwrite=True)
    assert count_rows(output) == {"memo.m4a": 2}
    assert len(list(tmp_path.glob(".*.journal"))) == 1
    report = sercli.write_labels(sounds, output, annotator, resume=True)
    assert (report.n_kept, report.n_files) == (0, 3)
    assert count_rows(output) | {"broken.wav": 0} == {
        "broken.wav": 0, "memo.m4a": 2, "statement.flac": 3,
    }  # fmt: skip
    assert not list(tmp_path.glob(".*"))


PLACES = (
    (AtomicFile, "__init__"),
    (AtomicFile, "close"),
    (Journal, "__init__"),
    (Journal, "_put"),
    (Journal, "remove"),
    (CsvWriter, "_footer"),
    (LabelRun, "_open_ledger"),
    (LabelRun, "_write_all"),
    (run_module, "write_json"),
)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("owner", "name"), PLACES)
def test_an_interrupt_anywhere_costs_nothing(
    owner: Any,
    name: str,
    late: bool,
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    gone, memo = tmp_path / "gone.m4a", sounds / "memo.m4a"
    shutil.copy(memo, gone)
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
                sercli.write_labels(paths, output, annotator, resume=resume)
        assert came

    interrupt(gone, memo, resume=False)
    sercli.write_labels([gone, memo], output, annotator, resume=True)
    assert count_rows(output) == {"gone.m4a": 2, "memo.m4a": 2}
    # One is gone, and the other is another recording since.
    gone.unlink()
    shutil.copy(sounds / "statement.flac", memo)
    interrupt(memo, resume=True)
    assert count_rows(output) in ({"gone.m4a": 2, "memo.m4a": n_rows} for n_rows in (2, 3))
    sercli.write_labels(memo, output, annotator, resume=True)
    assert count_rows(output) == {"gone.m4a": 2, "memo.m4a": 3}
    assert not list(tmp_path.glob(".*.journal"))


class Flaky(io.FileIO):
    """A file that cannot be written for a moment: at the second piece."""

    n_pieces = 0

    def write(self, piece: Any) -> int:
        self.n_pieces += 1
        if self.n_pieces == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_disk_that_is_full_for_a_moment_costs_nothing(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    (sounds / "broken.wav").unlink()
    sercli.write_labels(sounds, output, annotator)
    content = output.read_bytes()
    change(sounds / "memo.m4a")
    create = AtomicFile.__init__

    def create_flaky(self: AtomicFile, path: Path, *, overwrite: bool = False) -> None:
        create(self, path, overwrite=overwrite)
        self.stream.close()
        raw = Flaky(self.temporary, "w")
        self.stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", newline="")

    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "__init__", create_flaky)
        with pytest.raises(OutputError, match="cannot be written: No space left on device"):
            sercli.write_labels(sounds, output, annotator, resume=True)
    assert output.read_bytes() == content
    report = sercli.write_labels(sounds, output, annotator, resume=True)
    # JSON Lines have no header, so that the first file was written.
    assert (report.n_kept, report.completed) == (2 if suffix == "jsonl" else 1, True)
    assert count_rows(output) == {"memo.m4a": 2, "statement.flac": 3}
    assert not list(tmp_path.glob(".*"))


def test_what_killed_runs_left_without_a_journal_goes(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
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
    sercli.write_labels(
        sounds / "memo.m4a", tmp_path / "labels.csv", Annotator.load(fake_classifier)
    )
    assert sorted(one.name for one in tmp_path.glob(".*")) == sorted(names[2:])


def test_names_that_spell_an_escape_are_told_from_it(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    names = (os.fsdecode(b"a\xff.m4a"), r"a\xff.m4a")
    assert [printable_path(name) for name in names] == [r"a\xff.m4a", r"a\x5cxff.m4a"]
    folder = tmp_path / "both"
    folder.mkdir()
    for name in names:
        shutil.copy(EXAMPLES / "memo.m4a", folder / name)
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    sercli.write_labels(folder, output, annotator)
    assert list(count_rows(output).values()) == [2, 2]
    assert sercli.write_labels(folder, output, annotator, resume=True).n_kept == 2
    # As a table of segments, each is found again.
    turns = Turns.read(output)
    assert [len(find_turns(turns, str(folder / name))) for name in names] == [2, 2]


@pytest.fixture
def listed(sounds: Path) -> Path:
    table = sounds / "segments.csv"
    table.write_text("file,start,end\nmemo.m4a,0.123456,1.5\nmemo.m4a,1.500001,2\n")
    return table


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_times_that_were_given_are_written_as_they_were(
    fake_classifier: FakeClassifier, sounds: Path, listed: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"labels.{suffix}"
    annotator = Annotator.load(fake_classifier, segments=Turns.read(listed))
    sercli.write_labels(sounds / "memo.m4a", output, annotator)
    (found,) = sercli.read_results(output)
    times = [(one.start, one.end) for one in found.segments]
    assert times == [(0.123456, 1.5), (1.500001, 2.0)]
    if suffix == "csv":
        assert [row.split(",")[2:4] for row in output.read_text("utf-8").splitlines()[1:]] == [
            ["0.123456", "1.500"], ["1.500001", "2.000"],
        ]  # fmt: skip


def test_a_list_of_segments_may_grow(
    fake_classifier: FakeClassifier, sounds: Path, listed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labels.csv"
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]

    def run() -> int:
        annotator = Annotator.load(fake_classifier, segments=Turns.read(listed))
        return sercli.write_labels(paths, output, annotator, resume=output.exists()).n_kept

    assert run() == 0
    assert run() == 2
    rows = listed.read_text()
    listed.write_text(rows + "statement.flac,1,2\n")
    assert run() == 1  # the other has a segment more
    assert count_rows(output) == {"memo.m4a": 2, "statement.flac": 1}
    listed.write_text(rows.replace("1.5\n", "1.4\n") + "statement.flac,1,2\n")
    assert run() == 1
    assert run() == 2
    with pytest.raises(OutputError, match="another segments: those given, now it is those found"):
        sercli.write_labels(paths, output, Annotator.load(fake_classifier), resume=True)
    labels = output.read_bytes()
    listed.write_text("file,start,end,speaker\nmemo.m4a,0,1,ann\n")
    with pytest.raises(OutputError, match="another speakers: not told, now it is told"):
        run()
    assert output.read_bytes() == labels


def test_turns_of_a_file_that_is_kept_are_not_those_of_another(
    fake_classifier: FakeClassifier, tmp_path: Path
) -> None:
    paths = [tmp_path / folder / "memo.m4a" for folder in ("s1", "s2")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(EXAMPLES / "memo.m4a", path)
    output, turns = tmp_path / "labels.csv", tmp_path / "all.rttm"
    turns.write_text("SPEAKER s1/memo 1 0 1 <NA> <NA> ann\n")
    annotator = Annotator.load(fake_classifier, segments=turns)
    sercli.write_labels(paths[0], output, annotator)
    assert sercli.write_labels(paths, output, annotator, resume=True).n_kept == 1
    assert [len(one.segments) for one in sercli.read_results(output)] == [1, 0]
    # In a run of its own, the other is meant: nothing is left of the run before.
    (alone,) = annotator.annotate(paths[1])
    assert len(alone.segments) == 1


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_rows_of_a_file_that_cannot_be_opened_now_stay(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, suffix: str
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    memo, _ = paths = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(paths, output, annotator)
    before, away = sercli.read_results(output), tmp_path / "away"
    rows = output.read_bytes()
    memo.rename(away)
    told: list[FileResult] = []

    class Told(RunWatcher):
        def done(self, result: FileResult) -> None:
            told.append(result)

    for _ in range(2):
        inputs = list(sercli.find_inputs(paths))
        report = LabelRun(annotator, inputs, Output.prepare(output, resume=True)).write(Told())
        assert (report.exit_code, report.n_segments, report.completed) == (1, 5, True)
        assert (report.counts()["failed"], report.n_kept) == (1, 2)
        if suffix != "json":
            assert output.read_bytes() == rows
        entry = read_files(output)[0]
        assert (entry["status"], entry["n_segments"]) == ("failed", 2)
        assert entry["error"] == f"{memo}: does not exist"
        assert entry["warnings"] == [
            "2 segments of an earlier run stay in the output; --resume tries the file again"
        ]
        now = sercli.read_results(output)
        assert [one.status for one in now] == ["failed", "ok"]
        assert [one.segments for one in now] == [one.segments for one in before]
        assert now[0].error == entry["error"]
    assert [one.status for one in told] == ["failed"] * 2
    # When it is there again, it is labelled as ever.
    away.rename(memo)
    report = sercli.write_labels(paths, output, annotator, resume=True)
    assert (report.exit_code, report.n_kept) == (0, 1)
    assert sercli.read_results(output) == before
    # Of another that takes its place, they would be wrong.
    memo.write_bytes(b"no audio")
    report = sercli.write_labels(paths, output, annotator, resume=True)
    assert (report.exit_code, count_rows(output)) == (1, {"memo.m4a": 0, "statement.flac": 3})


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
    old = journal.stat().st_mtime - STARTING_S - 1
    os.utime(journal, (old, old))
    assert find_unfinished(target) == []
    assert not rows.exists()


def test_without_locks_the_process_that_writes_is_asked_for(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sercli.output.journal._lock", lambda *_, **__: None)
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    sercli.write_labels(sounds, output, annotator)
    kill(annotator, sounds, output, 2, monkeypatch)
    (journal,) = tmp_path.glob("*.journal")
    header, *lines = journal.read_text("utf-8").splitlines(keepends=True)
    told = json.loads(header)
    assert (told["host"], told["pid"]) == (platform.node(), os.getpid())

    def tell(host: str, pid: int, age: float = 0) -> None:
        journal.write_text(json.dumps(told | {"host": host, "pid": pid}) + "\n" + "".join(lines))
        at = journal.stat().st_mtime - age
        os.utime(journal, (at, at))

    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for host, pid, age in (
        (platform.node(), os.getpid(), ORPHANED_S + 1),
        ("another", 1, ORPHANED_S - 9),
    ):
        tell(host, pid, age)
        with pytest.raises(OutputError, match="another run is writing it"):
            find_unfinished(output)
    for host, pid, age in (
        (platform.node(), ended.pid, 0.0),
        ("another", 1, ORPHANED_S + 1),
    ):
        tell(host, pid, age)
        assert [one.journal for one in find_unfinished(output)] == [journal]


def test_speakers_that_changed_are_told_anew(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    output, table = tmp_path / "labels.csv", tmp_path / "who.csv"
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]

    def run(speakers: str) -> tuple[int, list[str | None]]:
        annotator = Annotator.load(fake_classifier, speakers=speakers)
        n_kept = sercli.write_labels(paths, output, annotator, resume=output.exists()).n_kept
        return n_kept, [one.segments[0].speaker for one in sercli.read_results(output)]

    table.write_text(f"file,speaker\n{paths[0]},ann\n")
    assert run(str(table)) == (0, ["ann", None])
    table.write_text(f"file,speaker\n{paths[0]},ann\n{paths[1]},ben\n")
    assert run(str(table)) == (1, ["ann", "ben"])
    with pytest.raises(OutputError, match=r"another speakers_pattern: None, now it is \(m\|s\)"):
        run("(m|s)")


def test_another_folder_with_files_of_the_same_names_is_another(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        shutil.copy(sounds / "memo.m4a", tmp_path / day / "rec1.m4a")
    monkeypatch.chdir(tmp_path / "day1")
    sercli.write_labels(".", output, annotator)
    rows = output.read_bytes()
    monkeypatch.chdir(tmp_path / "day2")
    with pytest.raises(OutputError, match=r"such as \./rec1\.m4a, are relative to .*day1, and "):
        sercli.write_labels(".", output, annotator, resume=True)
    assert output.read_bytes() == rows
    # Nor is it that of a project that was moved, if it is another file.
    (tmp_path / "day1" / "rec1.m4a").unlink()
    (tmp_path / "day2" / "rec1.m4a").write_bytes(b"other")
    with pytest.raises(OutputError, match="are relative to"):
        sercli.write_labels(".", output, annotator, resume=True)


@pytest.mark.parametrize("name", ["cw\udcff", r"cw\x41", "cw"])
def test_a_working_directory_of_any_name(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(sounds / "memo.m4a", folder)
    monkeypatch.chdir(folder)
    for path in ("memo.m4a", folder / "memo.m4a"):
        report = sercli.write_labels(path, output, annotator, resume=output.exists())
        assert (report.n_files, report.n_segments) == (1, 2)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_later_run_replaced_does_not_come_back(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    memo, statement = sounds / "memo.m4a", sounds / "statement.flac"
    sercli.write_labels(statement, output, annotator)
    kill(annotator, sounds, output, 2, monkeypatch)  # with the file that fails and the memo
    shutil.copy(statement, sounds / "broken.wav")  # it is repaired

    def die(_: object) -> None:
        raise Killed

    for owner in (Unfinished, Journal):
        with monkeypatch.context() as patch:
            patch.setattr(owner, "remove", die)
            inputs = statement if overwrite else sounds
            with pytest.raises(Killed):
                sercli.write_labels(
                    inputs, output, annotator, overwrite=overwrite, resume=not overwrite
                )
        shutil.copytree(tmp_path, copy := tmp_path / owner.__name__, ignore=ignore_folders)
        sercli.write_labels(
            memo if not overwrite else statement, copy / output.name, annotator, resume=True
        )
        expected = (
            {"statement.flac": 3}
            if overwrite
            else {"broken.wav": 3, "memo.m4a": 2, "statement.flac": 3}
        )
        assert count_rows(copy / output.name) == expected


def ignore_folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_dir()]


def test_an_output_that_is_changed_meanwhile_stays(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]

    class Edit(RunWatcher):
        """Edits the output as another program would, in a new file."""

        def done(self, result: FileResult) -> None:
            edited = tmp_path / "edited"
            edited.write_bytes(output.read_bytes().replace(b",0,", b",9,"))
            edited.replace(output)

    for changed, resumed in ((paths[:1], paths), (paths, paths)):
        sercli.write_labels(paths, output, annotator, overwrite=output.exists())
        change(*changed)
        run = LabelRun(
            annotator, list(sercli.find_inputs(resumed)), Output.prepare(output, resume=True)
        )
        with pytest.raises(OutputError, match="another run or program has written it meanwhile"):
            run.write(Edit())
        assert output.read_bytes().count(b",9,") == 5


def test_rows_that_cannot_be_read_for_a_moment_stay(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(paths, output, annotator)
    rows, opened, n_opened = output.read_bytes(), Path.open, 0

    def fail(self: Path, mode: str = "r", **options: Any) -> Any:
        nonlocal n_opened
        n_opened += self == output and mode == "rb"
        if n_opened == 3:  # the first indexes it
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(self, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(
            OutputError, match=r"labels\.csv: cannot be read: .*; go on with --resume"
        ):
            sercli.write_labels(paths, output, annotator, resume=True)
    assert output.read_bytes() == rows
    assert sercli.write_labels(paths, output, annotator, resume=True).n_kept == 2


def test_a_journal_of_somebody_else_is_of_a_run_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "labels.csv"
    journal = tmp_path / ".labels.csv.01234567.tmp.journal"
    journal.write_text("{}\n")
    journal.with_suffix("").write_text("rows")

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
