"""Tests of runs from Python: what they write, keep and refuse, and how they end."""

import contextlib
import dataclasses
import io
import json
import math
import re
import shutil
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES, FakeClassifier
from runs import Runs, change, every_format

import sercli
from sercli.annotation.annotator import Annotator
from sercli.annotation.run import RunWatcher
from sercli.errors import ConfigError, DatasetError, ModelError, OutputError
from sercli.output import ledger as ledger_module
from sercli.output.report import RunReport
from sercli.output.target import Output
from sercli.output.writers import CsvWriter, record_path
from sercli.schema import FileResult


@every_format
def test_labels_in_a_file_are_those_of_annotate(
    runs: Runs, fake_classifier: FakeClassifier, suffix: str
) -> None:
    report = runs.write()
    assert report.counts() | {"audio_seconds": 0} == {
        "files": 3, "ok": 2, "no_speech": 0, "failed": 1, "kept": 0, "segments": 5,
        "audio_seconds": 0,
    }  # fmt: skip
    assert (report.completed, report.exit_code) == (True, 1)
    expected = [one for one in sercli.annotate(runs.sounds, fake_classifier) if one.segments]
    written = [one for one in sercli.read_results(runs.output) if one.segments]
    assert [one.path for one in written] == [one.path for one in expected]
    for one, same in zip(written, expected, strict=True):
        assert [s.emotion for s in one.segments] == [s.emotion for s in same.segments]
        for segment, other in zip(one.segments, same.segments, strict=True):
            assert segment.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    options = runs.record["options"]
    told = {name: options[name] for name in ("mode", "channels", "adapt", "target", "format")}
    assert told == {
        "mode": "speech", "channels": "mix", "adapt": "none", "target": "intended",
        "format": suffix,
    }  # fmt: skip


def test_a_run_that_goes_on_labels_what_is_new(runs: Runs, fake_classifier: FakeClassifier) -> None:
    runs.load(channels=(0,))
    runs.write(runs.statement)
    rows, n_received = runs.content, len(fake_classifier.received)
    assert n_received == 3
    with pytest.raises(OutputError, match=r"labels\.csv: already exists"):
        runs.write()
    report = runs.resume(exclude="*.wav")
    assert (report.n_kept, report.n_files) == (1, 2)
    assert len(fake_classifier.received) > n_received
    assert runs.content.endswith(rows.split(b"\r\n", 1)[1])
    runs.load()
    with pytest.raises(OutputError, match="was made with another channels: 0, now it is mix"):
        runs.resume()
    runs.load(channels="0")  # as spelled on the command line
    assert runs.annotator.channels == (0,)
    runs.write(overwrite=True, include="*.flac")
    assert runs.content == rows


def test_the_same_weights_with_other_labels_are_not_resumed(
    runs: Runs, fake_classifier: FakeClassifier
) -> None:
    runs.write(runs.memo)
    labels = fake_classifier.spec.labels
    fake_classifier.spec = dataclasses.replace(fake_classifier.spec, labels=labels[::-1])
    runs.load()
    expected = f"was made with another list of labels: {', '.join(labels)}, now it is "
    with pytest.raises(OutputError, match=expected):
        runs.resume(runs.memo)


def test_what_to_do_after_a_failure_is_spelled_as_documented(runs: Runs) -> None:
    with pytest.raises(ConfigError, match="on_error is 'Stop'; expected continue or stop"):
        runs.annotator.annotate(runs.memo, on_error="Stop")  # type: ignore[arg-type]


def test_an_interrupt_is_raised_when_what_was_finished_is_in_its_place(
    runs: Runs, tmp_path: Path
) -> None:
    class Impatient(RunWatcher):
        def done(self, result: FileResult) -> None:
            if result.segments:
                raise KeyboardInterrupt

    paths = runs.both[::-1]
    run = runs.begin(*paths)
    with pytest.raises(KeyboardInterrupt):
        run.write(Impatient())
    assert (run.report.n_files, run.n_files, run.report.completed) == (1, 2, False)
    assert runs.rows == ["statement.flac: 3"]
    assert runs.record["completed"] is False
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "labels.csv", "labels.csv.run.json", "sounds",
    ]  # fmt: skip
    again = runs.begin(*paths, resume=True)
    assert (again.n_new, again.n_files) == (1, 2)
    assert again.write().completed


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}, {}])
def test_a_run_that_ends_before_its_first_file_is_done_changes_nothing(
    options: dict[str, bool],
    error: type[BaseException],
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if options:
        runs.write(runs.memo)
        rows, record = runs.content, runs.record
    paths = [runs.memo]
    if "resume" in options:
        paths.append(runs.statement)  # after a file that is kept

    def fail(*_: object) -> None:
        raise error("no more")

    with monkeypatch.context() as patch:
        patch.setattr(FakeClassifier, "score", fail)
        with pytest.raises(error):
            runs.write(*paths, **options)
    assert not runs.hidden
    if options:
        assert (runs.content, runs.record) == (rows, record)
    else:
        assert not runs.output.exists()


def test_a_run_does_not_mind_what_its_caller_is_handling(runs: Runs) -> None:
    try:
        raise OutputError("another")
    except OutputError:
        report = runs.write(runs.memo)
    assert report.completed
    assert runs.rows == ["memo.m4a: 2"]
    assert not runs.hidden


def test_a_run_that_an_error_ends_leaves_no_journal(runs: Runs) -> None:
    class Failing(RunWatcher):
        def done(self, result: FileResult) -> None:
            raise ModelError("gives probabilities that are not finite")

    with pytest.raises(ModelError):
        runs.begin(*runs.both).write(Failing())
    assert runs.rows == ["memo.m4a: 2"]
    assert runs.record["completed"] is False
    assert not runs.hidden


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("cut", [(CsvWriter, "copy"), (RunReport, "keep"), (RunReport, "add")])
def test_an_interrupt_loses_and_doubles_no_file(
    cut: tuple[type, str], runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(*runs.both)
    rows = runs.content
    for path in runs.both:
        path.unlink()  # nobody could label them again
    new = shutil.copy(EXAMPLES / "memo.m4a", runs.sounds / "new.m4a")
    before = getattr(*cut)

    def interrupted(self: object, *values: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return before(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(*cut, interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.resume(new)
    written = runs.content
    assert written.startswith(rows)
    names = [Path(entry["path"]).name for entry in runs.record["files"]]
    assert names[:2] == ["memo.m4a", "statement.flac"]
    # What is in one of the two is in the other.
    assert (b"new.m4a" in written) == (names[2:] == ["new.m4a"])
    runs.resume(new)
    assert runs.content.startswith(rows)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3", "new.m4a: 2"]


def test_runs_that_begin_at_once_do_not_replace_each_other(runs: Runs, tmp_path: Path) -> None:
    first, second = (runs.begin(path) for path in runs.both)

    class Meanwhile(RunWatcher):
        """Lets the other run begin while one is under way."""

        def done(self, result: FileResult) -> None:
            with pytest.raises(OutputError, match="another run is writing it"):
                second.write()

    first.write(Meanwhile())
    rows = runs.content
    assert b"memo.m4a" in rows
    # Nor one that begins when the other is done, and had looked before.
    with pytest.raises(OutputError, match=r"labels\.csv: already exists"):
        second.write()
    assert runs.content == rows
    # Nor where both go on with what is there.
    paths = (runs.statement, runs.sounds / "broken.wav")
    first, second = (runs.begin(path, resume=True) for path in paths)
    assert first.write().n_kept == 1
    with pytest.raises(OutputError, match="another run or program has written to it meanwhile"):
        second.write()
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]


def test_what_was_overtaken_by_another_output_is_gone_on_with(runs: Runs, tmp_path: Path) -> None:
    runs.write(runs.memo)
    another, record = runs.content, record_path(runs.output).read_bytes()
    runs.output = tmp_path / "third.csv"

    class Overtaken(RunWatcher):
        """Lets another output appear."""

        def done(self, result: FileResult) -> None:
            runs.output.write_bytes(another)
            record_path(runs.output).write_bytes(record)

    message = (
        r"third\.csv: another program created .*; the output is in .*\.tmp\. Move the other file"
    )
    with pytest.raises(OutputError, match=message):
        runs.begin(runs.statement).write(Overtaken())
    assert runs.content == another
    runs.resume(*runs.both)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]


def test_outputs_that_are_refused(
    runs: Runs, fake_classifier: FakeClassifier, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--resume goes with -o FILE"):
        Output.prepare("-", resume=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        runs.resume(overwrite=True)
    with pytest.raises(OutputError, match="format is 'CSV'; expected one of csv, json, jsonl"):
        runs.write(format_="CSV")
    annotator = Annotator.load(fake_classifier)
    with pytest.raises(OutputError, match=r"its suffix names no format; expected one of \.csv"):
        sercli.write_labels(runs.sounds, tmp_path / "labels.xml", annotator)
    assert [one.name for one in tmp_path.iterdir()] == ["sounds"]
    message = "standard output does not accept bytes"  # as notebooks have it
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(OutputError, match=message):
        sercli.write_labels(runs.sounds, "-", annotator)
    with pytest.raises(OutputError, match=r"memo\.m4a: is also an input; expected another output"):
        sercli.write_labels(runs.sounds, runs.memo, annotator, format_="csv", overwrite=True)
    assert runs.memo.read_bytes() == (EXAMPLES / "memo.m4a").read_bytes()
    assert not fake_classifier.received


def test_which_files_of_a_folder_are_labelled(runs: Runs) -> None:
    (runs.sounds / "below").mkdir()
    shutil.copy(EXAMPLES / "memo.m4a", runs.sounds / "below" / "later.m4a")
    runs.write()
    assert runs.rows_found == ["later.m4a: 2", "memo.m4a: 2", "statement.flac: 3"]
    for options, expected in (
        ({"recursive": False}, ["memo.m4a: 2", "statement.flac: 3"]),
        ({"include": "*.m4a"}, ["later.m4a: 2", "memo.m4a: 2"]),
        ({"exclude": ["below", "*.flac"]}, ["memo.m4a: 2"]),
    ):
        runs.write(overwrite=True, **options)
        assert runs.rows_found == expected


def test_an_output_that_cannot_be_replaced_keeps_its_record(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write(*runs.both)
    rows, record = runs.content, runs.record

    def fail(self: CsvWriter, text: str) -> None:
        raise OutputError("the output cannot be written: File too large")

    other = shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "other.m4a")
    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "copy", fail)
        with pytest.raises(OutputError, match="File too large"):
            runs.resume(other)
    assert (runs.content, runs.record) == (rows, record)
    # So the next run knows what is there.
    runs.resume(other)
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3", "other.m4a: 2"]


def test_outputs_of_long_names_are_gone_on_with(runs: Runs, tmp_path: Path) -> None:
    runs.output, other = (tmp_path / f"{'a' * 240}{name}.csv" for name in "xy")
    runs.kill_after(0, runs.memo)
    with pytest.raises(OutputError, match="an earlier run that was writing it was killed"):
        runs.write()
    assert sercli.write_labels(runs.sounds, other, runs.annotator).n_kept == 0
    assert runs.resume().n_kept == 1
    assert runs.content == other.read_bytes()
    assert not runs.hidden


@every_format
def test_an_output_whose_record_is_of_before_is_gone_on_with(runs: Runs) -> None:
    runs.write(runs.memo)
    before = runs.record
    runs.kill_at(ledger_module, "write_json", runs.statement, resume=True)
    assert runs.record == before
    rows = runs.content
    assert b"statement.flac" in rows
    with pytest.raises(OutputError, match="already exists"):
        runs.write()
    assert runs.content == rows
    report = runs.resume()
    assert (report.n_kept, report.n_files) == (2, 3)
    assert not runs.hidden
    assert runs.resume().n_kept == 2  # the broken one is tried again
    assert runs.rows_found == ["memo.m4a: 2", "statement.flac: 3"]


def leave_whole(runs: Runs) -> Path:
    """Return the output of a run that ended."""
    runs.write()
    return runs.output


def leave_without_record(runs: Runs) -> Path:
    """Return the output of a run that was killed when it was in its place."""
    runs.kill_at(ledger_module, "write_json")
    return runs.output


def leave_hidden(runs: Runs) -> Path:
    """Return the output of a run that was killed when all files were done."""
    runs.kill_after(0)
    return runs.hidden[0]


def edit(content: bytes) -> dict[str, bytes]:
    """Return an output as an editor, a spreadsheet or a person may have left it."""
    lines = content.splitlines(keepends=True)
    of_memo = [number for number, line in enumerate(lines) if b"memo.m4a" in line]
    return {
        "a label": re.sub(rb"\b(short|long)\b(?=[,\"]+(0|\s\"conf))", b"calm", content, count=1),
        "a time": content.replace(b"0.", b"1.", 1),
        "a digit of the last row": b"4".join(content.rsplit(b"0", 1)),
        "a name": content.replace(b"memo.m4a", b"note.m4a"),
        "a row removed": b"".join(lines[: of_memo[-1]] + lines[of_memo[-1] + 1 :]),
        "a row doubled": b"".join([*lines[: of_memo[0]], lines[of_memo[0]], *lines[of_memo[0] :]]),
        "a row added": content + lines[of_memo[0]],
        "rows in another order": b"".join(lines[::-1]),
        "other line ends": b"\n".join(content.splitlines()) + b"\n"
        if b"\r\n" in content
        else content.replace(b"\n", b"\r\n"),
        "no last line end": content.rstrip(b"\r\n"),
        "a byte order mark": b"\xef\xbb\xbf" + content,
        "nothing": b"",
    }


@every_format
@pytest.mark.parametrize("leave", [leave_whole, leave_without_record, leave_hidden])
def test_an_output_that_was_edited_is_refused(
    runs: Runs, fake_classifier: FakeClassifier, leave: Callable[[Runs], Path], suffix: str
) -> None:
    output = leave(runs)
    content, n_received = output.read_bytes(), len(fake_classifier.received)
    is_hidden = output != runs.output
    for what, edited in edit(content).items():
        assert edited != content, what
        if is_hidden and what in ("a row added", "no last line end", "nothing"):
            continue  # as a run that is killed leaves it
        output.write_bytes(edited)
        message = rf"{re.escape(str(output))}: was edited since .* or start again with --overwrite"
        with pytest.raises(OutputError, match=message):
            runs.resume()
        assert output.read_bytes() == edited, what
    assert len(fake_classifier.received) == n_received
    # What counts is the content, not when it was written.
    output.write_bytes(content)
    change(output)
    assert runs.resume().n_kept == 2
    assert runs.rows_found == ["memo.m4a: 2", "statement.flac: 3"]


@every_format
def test_a_record_has_the_hash_of_the_output_and_the_place_of_all_rows(
    runs: Runs, suffix: str
) -> None:
    runs.write(*runs.both)
    change(runs.memo)
    runs.write(resume=True)
    assert runs.record["output_sha256"] == sha256(runs.content).hexdigest()
    first, *rest = runs.record["files"]
    start, end = first["rows"]
    for entry, name in zip(rest, ("memo.m4a", "statement.flac"), strict=True):
        assert entry["rows"][0] == end
        end = entry["rows"][1]
        pieces = runs.content.split(name.encode())
        # From the line of the first row, or of the file, to the end of the last one.
        assert entry["rows"][0] <= len(pieces[0]) < end - sum(map(len, pieces[1:-1]))
        assert name.encode() not in runs.content[end:]
    assert b"broken.wav" not in runs.content[:start] + runs.content[first["rows"][1] :]


def damage(record: dict[str, Any], **changes: Any) -> str:
    return json.dumps(record | {"files": [record["files"][0] | changes, *record["files"][1:]]})


@pytest.mark.parametrize(
    "alter",
    [
        lambda record: "",
        lambda record: "[" * 100_000,
        lambda record: "[]",
        lambda record: json.dumps(record | {"options": []}),
        lambda record: json.dumps(record | {"model": None}),
        lambda record: json.dumps(record | {"files": {"a": 1}}),
        lambda record: json.dumps(record | {"files": [3]}),
        lambda record: damage(record, path=["a"]),
        lambda record: damage(record, path="\ud800"),
        lambda record: damage(record, status={}),
        lambda record: damage(record, status="done"),
        lambda record: damage(record, duration="2"),
        lambda record: damage(record, duration=-1),
        lambda record: damage(record, duration=math.nan),
        lambda record: damage(record, duration=10**400),
        lambda record: damage(record, duration=0).replace('tion": 0,', f'tion": {"9" * 5_000},'),
        lambda record: damage(record, bytes="7"),
        lambda record: damage(record, n_segments=None),
        lambda record: damage(record, rows=None),
        lambda record: damage(record, rows=[0, 1, 2]),
        lambda record: damage(record, rows=["0", "1"]),
        lambda record: json.dumps(record).replace('"rows"', '"was"'),
        lambda record: json.dumps(record | {"files": []}),
        lambda record: damage(record, warnings=None),
        lambda record: damage(record, error=5),
    ],
)
def test_records_that_are_damaged(runs: Runs, alter: Callable[[dict[str, Any]], str]) -> None:
    runs.write(runs.memo)
    record_path(runs.output).write_text(alter(runs.record), encoding="utf-8")
    with pytest.raises(OutputError, match=r"labels\.csv: cannot be continued: .*Put them back"):
        runs.resume()
    with contextlib.suppress(DatasetError):  # where what is damaged matters
        sercli.read_results(runs.output)


@every_format
def test_rows_that_do_not_follow_each_other_are_refused(runs: Runs, suffix: str) -> None:
    runs.write(*runs.both)
    record, content = runs.record, runs.content
    first, second = (one["rows"] for one in record["files"])
    assert first[1] == second[0] < second[1]
    for start, middle, again, end in (
        (first[0], first[1], second[0] + 1, second[1]),
        (first[0], first[1] - 1, second[0], second[1]),
        (first[0] + 1, first[1], second[0], second[1]),
        (first[0] - 1, first[1], second[0], second[1]),
        (1, first[1], second[0], second[1]),
        (first[1], first[1], second[0], second[1]),
        (second[0], second[1], first[0], first[1]),
        (first[0], second[1] + 1, second[1] + 1, second[1]),
        (first[0], first[1], second[0], second[1] - 1),
        (first[0], first[1], second[0], len(content) + 1),
        (first[0], first[1], second[0], 10**30),
        (10**30, 10**30, 10**30, 10**30),
        (300, 200, 200, second[1]),
    ):
        files = zip(record["files"], ([start, middle], [again, end]), strict=True)
        told = record | {"files": [one | {"rows": rows} for one, rows in files]}
        record_path(runs.output).write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(OutputError, match=r"cannot be continued: its record has the rows of"):
            runs.resume(*runs.both)
        assert runs.content == content
    record_path(runs.output).write_text(json.dumps(record), encoding="utf-8")
    assert runs.resume(*runs.both).n_kept == 2
    assert runs.rows == ["memo.m4a: 2", "statement.flac: 3"]


def test_a_record_without_the_hash_of_its_output_does_not_show_an_edit(runs: Runs) -> None:
    runs.write(runs.memo)
    record = {name: value for name, value in runs.record.items() if name != "output_sha256"}
    for text in (record, record | {"output_sha256": None}):
        record_path(runs.output).write_text(json.dumps(text), encoding="utf-8")
        with pytest.raises(OutputError, match="cannot be continued: it lacks 'output_sha256'"):
            runs.resume()
    # An older version is what the message names first.
    older = json.dumps(record | {"ser_version": "0.1.0"})
    record_path(runs.output).write_text(older, encoding="utf-8")
    with pytest.raises(OutputError, match=r"was made with another ser: 0\.1\.0"):
        runs.resume()


@pytest.mark.parametrize(
    "alter",
    [
        lambda lines: ["[" * 100_000, *lines[1:]],
        lambda lines: ["[]", *lines[1:]],
        lambda lines: [lines[0], "[]", *lines[1:]],
        lambda lines: [lines[0], "{", *lines[1:]],
        lambda lines: [lines[0], "[" * 100_000, *lines[1:]],
        lambda lines: [lines[0], lines[1].replace('"end": ', '"end": 1e999, "was": '), *lines[2:]],
        lambda lines: [lines[0], lines[1].replace('"status": ', '"was": '), *lines[2:]],
        lambda lines: [lines[0], *lines[2:]],
    ],
)
def test_journals_that_are_damaged(runs: Runs, alter: Callable[[list[str]], list[str]]) -> None:
    runs.kill_after(0, *runs.both)
    journal = runs.hidden[-1]
    lines = journal.read_text("utf-8").split("\n")
    journal.write_text("\n".join(alter(lines)), encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot be continued: .*Put them back, or start"):
        runs.resume()
    journal.write_text("\n".join(lines), encoding="utf-8")
    assert runs.resume().n_kept == 2
