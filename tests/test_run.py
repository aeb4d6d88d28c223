"""Tests of runs from Python: what they write, keep and refuse, and how they end."""

import contextlib
import io
import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES, FakeClassifier

import sercli
from sercli.annotation.annotator import Annotator
from sercli.annotation.run import LabelRun, RunWatcher
from sercli.errors import ConfigError, DatasetError, OutputError
from sercli.files import AtomicFile
from sercli.output.journal import Journal
from sercli.output.report import RunReport
from sercli.output.target import Output
from sercli.output.writers import CsvWriter, record_path
from sercli.schema import FileResult


def read_record(output: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(Path(f"{output}.run.json").read_text("utf-8"))
    return record


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_labels_in_a_file_are_those_of_annotate(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"labels.{suffix}"
    report = sercli.write_labels(sounds, output, Annotator.load(fake_classifier))
    assert report.counts() | {"audio_seconds": 0} == {
        "files": 3, "ok": 2, "no_speech": 0, "failed": 1, "kept": 0, "segments": 5,
        "audio_seconds": 0,
    }  # fmt: skip
    assert (report.completed, report.exit_code) == (True, 1)
    expected = [one for one in sercli.annotate(sounds, fake_classifier) if one.segments]
    written = [one for one in sercli.read_results(output) if one.segments]
    assert [one.path for one in written] == [one.path for one in expected]
    for one, same in zip(written, expected, strict=True):
        assert [s.emotion for s in one.segments] == [s.emotion for s in same.segments]
        for segment, other in zip(one.segments, same.segments, strict=True):
            assert segment.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    record = read_record(output)
    options = record["options"]
    assert isinstance(options, dict)
    told = {name: options[name] for name in ("mode", "channels", "adapt", "target", "format")}
    assert told == {
        "mode": "speech", "channels": "mix", "adapt": "none", "target": "intended",
        "format": suffix,
    }  # fmt: skip


def test_a_run_that_goes_on_labels_what_is_new(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier, channels=(0,))
    sercli.write_labels(sounds / "statement.flac", output, annotator)
    rows, n_heard = output.read_bytes(), len(fake_classifier.heard)
    assert n_heard == 3
    with pytest.raises(OutputError, match=r"labels\.csv: exists"):
        sercli.write_labels(sounds, output, annotator)
    report = sercli.write_labels(sounds, output, annotator, resume=True, exclude="*.wav")
    assert (report.n_kept, report.n_files) == (1, 2)
    assert len(fake_classifier.heard) > n_heard
    assert output.read_bytes().endswith(rows.split(b"\r\n", 1)[1])
    with pytest.raises(OutputError, match="was made with another channels: 0, now it is mix"):
        sercli.write_labels(sounds, output, Annotator.load(fake_classifier), resume=True)
    # As spelled on the command line.
    assert Annotator.load(fake_classifier, channels="0").channels == annotator.channels
    sercli.write_labels(sounds, output, annotator, overwrite=True, include="*.flac")
    assert output.read_bytes() == rows


def test_an_interrupt_is_raised_when_what_was_finished_is_in_its_place(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    class Impatient(RunWatcher):
        def done(self, result: FileResult) -> None:
            if result.segments:
                raise KeyboardInterrupt

    output = tmp_path / "labels.csv"
    inputs = list(sercli.find_inputs([sounds / "statement.flac", sounds / "memo.m4a"]))
    annotator = Annotator.load(fake_classifier)
    run = LabelRun(annotator, inputs, Output.prepare(output))
    with pytest.raises(KeyboardInterrupt):
        run.write(Impatient())
    assert (run.report.n_files, run.n_files, run.report.completed) == (1, 2, False)
    (written,) = sercli.read_results(output)
    assert len(written.segments) == 3
    assert read_record(output)["completed"] is False
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "labels.csv", "labels.csv.run.json", "sounds",
    ]  # fmt: skip
    again = LabelRun(annotator, inputs, Output.prepare(output, resume=True))
    assert (again.n_new, again.n_files) == (1, 2)
    assert again.write().completed


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("cut", [(CsvWriter, "copy"), (RunReport, "keep"), (RunReport, "add")])
def test_an_interrupt_loses_and_doubles_no_file(
    cut: tuple[type, str],
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    kept = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(kept, output, annotator)
    rows = output.read_bytes()
    for path in kept:
        path.unlink()  # nobody could label them again
    shutil.copy(EXAMPLES / "memo.m4a", sounds / "new.m4a")
    before = getattr(*cut)

    def interrupted(self: object, *values: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return before(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(*cut, interrupted)
        with pytest.raises(KeyboardInterrupt):
            sercli.write_labels(sounds / "new.m4a", output, annotator, resume=True)
    written = output.read_bytes()
    assert written.startswith(rows)
    files = read_record(output)["files"]
    assert isinstance(files, list)
    names = [Path(entry["path"]).name for entry in files]
    assert names[:2] == ["memo.m4a", "statement.flac"]
    # What is in one of the two is in the other.
    assert (b"new.m4a" in written) == (names[2:] == ["new.m4a"])
    sercli.write_labels(sounds / "new.m4a", output, annotator, resume=True)
    assert output.read_bytes().startswith(rows)
    assert len(list(sercli.read_results(output))) == 3


def test_runs_that_begin_at_once_do_not_replace_each_other(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    paths = [sounds / "memo.m4a", sounds / "statement.flac"]
    runs = [
        LabelRun(annotator, list(sercli.find_inputs(path)), Output.prepare(output))
        for path in paths
    ]

    class Meanwhile(RunWatcher):
        """Lets the other run begin while one is under way."""

        def done(self, result: FileResult) -> None:
            with pytest.raises(OutputError, match="another run is writing it"):
                runs[1].write()

    runs[0].write(Meanwhile())
    rows = output.read_bytes()
    assert b"memo.m4a" in rows
    # Nor one that begins when the other is done, and had looked before.
    with pytest.raises(OutputError, match=r"labels\.csv: exists already"):
        runs[1].write()
    assert output.read_bytes() == rows
    # Nor where both go on with what is there.
    going_on = [
        LabelRun(annotator, list(sercli.find_inputs(path)), Output.prepare(output, resume=True))
        for path in (paths[1], sounds / "broken.wav")
    ]
    assert going_on[0].write().n_kept == 1
    with pytest.raises(OutputError, match="another run or program has written it meanwhile"):
        going_on[1].write()
    assert [len(one.segments) for one in sercli.read_results(output)] == [2, 3]
    # Where another came to its end while this one wrote, what this one has is gone on with.
    third = tmp_path / "third.csv"
    run = LabelRun(annotator, list(sercli.find_inputs(paths[1])), Output.prepare(third))

    class Overtaken(RunWatcher):
        """Lets another output appear."""

        def done(self, result: FileResult) -> None:
            sercli.write_labels(paths[0], output, annotator, overwrite=True)
            shutil.copy(output, third)
            shutil.copy(record_path(output), record_path(third))

    message = (
        r"third\.csv: appeared meanwhile; what was to be there is .*\.tmp\. Move the other away"
    )
    with pytest.raises(OutputError, match=message):
        run.write(Overtaken())
    assert third.read_bytes() == output.read_bytes()
    sercli.write_labels(paths, third, annotator, resume=True)
    assert [Path(one.path).name for one in sercli.read_results(third)] == [
        "memo.m4a",
        "statement.flac",
    ]


def test_outputs_that_are_refused(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    annotator = Annotator.load(fake_classifier)
    with pytest.raises(ConfigError, match="--resume goes with -o FILE"):
        Output.prepare("-", resume=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        Output.prepare(tmp_path / "labels.csv", resume=True, overwrite=True)
    with pytest.raises(OutputError, match=r"its suffix names no format; expected one of \.csv"):
        sercli.write_labels(sounds, tmp_path / "labels.xml", annotator)
    with pytest.raises(OutputError, match="format is 'CSV'; expected one of csv, json, jsonl"):
        sercli.write_labels(sounds, tmp_path / "labels.csv", annotator, format_="CSV")
    assert [one.name for one in tmp_path.iterdir()] == ["sounds"]
    message = "standard output takes no bytes"  # as notebooks have it
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(OutputError, match=message):
        sercli.write_labels(sounds, "-", annotator)
    with pytest.raises(OutputError, match=r"memo\.m4a: is to be read; expected another output"):
        sercli.write_labels(sounds, sounds / "memo.m4a", annotator, format_="csv", overwrite=True)
    assert (sounds / "memo.m4a").read_bytes() == (EXAMPLES / "memo.m4a").read_bytes()
    assert not fake_classifier.heard


def test_an_output_that_cannot_be_replaced_keeps_its_record(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    both = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(both, output, annotator)
    rows, record = output.read_bytes(), read_record(output)

    def fail(self: CsvWriter, text: str) -> None:
        raise OutputError("the output cannot be written: File too large")

    (tmp_path / "more").mkdir()
    other = shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "more" / "other.m4a")
    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "copy", fail)
        with pytest.raises(OutputError, match="File too large"):
            sercli.write_labels(other, output, annotator, resume=True)
    assert (output.read_bytes(), read_record(output)) == (rows, record)
    # So the next run knows what is there.
    sercli.write_labels(other, output, annotator, resume=True)
    assert {Path(one.path).name for one in sercli.read_results(output)} == {
        "memo.m4a", "statement.flac", "other.m4a",
    }  # fmt: skip


def test_rows_whose_last_line_lost_its_end(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    sercli.write_labels(sounds / "memo.m4a", output, annotator)
    output.write_bytes(output.read_bytes().rstrip())  # as editors leave it
    both = [sounds / "memo.m4a", sounds / "statement.flac"]
    sercli.write_labels(both, output, annotator, resume=True)
    assert [len(one.segments) for one in sercli.read_results(output)] == [2, 3]


def test_outputs_of_long_names_are_gone_on_with(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    annotator = Annotator.load(fake_classifier)
    output, other = (tmp_path / f"{'a' * 240}{name}.csv" for name in "xy")
    with monkeypatch.context() as patch:
        # As if it were killed before the output takes its place.
        patch.setattr(AtomicFile, "close", AtomicFile.leave)
        patch.setattr(Journal, "remove", lambda self: None)
        sercli.write_labels(sounds / "memo.m4a", output, annotator)
    Path(f"{output}.run.json").unlink()
    with pytest.raises(OutputError, match="a run that was to write it was killed"):
        sercli.write_labels(sounds, output, annotator)
    assert sercli.write_labels(sounds, other, annotator).n_kept == 0
    assert sercli.write_labels(sounds, output, annotator, resume=True).n_kept == 1
    assert output.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_an_output_whose_record_is_of_before_is_gone_on_with(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    sercli.write_labels(sounds / "memo.m4a", output, annotator)
    before = record_path(output).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: None)
        sercli.write_labels(sounds / "statement.flac", output, annotator, resume=True)
    # As if it were killed when the output had its place, and the record had not.
    record_path(output).write_bytes(before)
    rows = output.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        sercli.write_labels(sounds, output, annotator)
    assert output.read_bytes() == rows
    report = sercli.write_labels(sounds, output, annotator, resume=True)
    assert (report.n_kept, report.n_files) == (2, 3)
    assert not list(tmp_path.glob(".*"))
    again = sercli.write_labels(sounds, output, annotator, resume=True)
    assert again.n_kept == 2  # the broken one is tried again
    assert [Path(one.path).name for one in sercli.read_results(output) if one.segments] == [
        "memo.m4a",
        "statement.flac",
    ]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_rows_that_cannot_be_placed_are_not_lost(
    fake_classifier: FakeClassifier, sounds: Path, tmp_path: Path, suffix: str
) -> None:
    output, annotator = tmp_path / f"labels.{suffix}", Annotator.load(fake_classifier)
    sercli.write_labels(sounds, output, annotator)
    content = output.read_bytes()
    n_heard = len(fake_classifier.heard)
    lines = content.splitlines(keepends=True)
    of_memo = [number for number, line in enumerate(lines) if b"memo.m4a" in line]
    without = lines[: of_memo[-1]] + lines[of_memo[-1] + 1 :]
    altered = {
        "a row": without,
        "a file": [line for line in lines if b"memo.m4a" not in line],
        "the name": [line.replace(b"memo.m4a", b"note.m4a") for line in lines],
        "twice": [*lines, lines[of_memo[0]]],
    }
    if suffix == "csv":
        altered |= {
            "the delimiter": [line.replace(b",", b";") for line in lines],
            "a column": [line.replace(b"confidence", b"sureness") for line in lines],
            "cells": [line.replace(b",mix,", b",mix,0,") for line in lines],
            "a quote": [line.replace(b",mix,", b',"mix,') for line in lines],
            "the end": [*lines, b"\0" * 10],
            "all": [],
        }
    if suffix == "jsonl":
        altered |= {"a column": [line.replace(b"confidence", b"sureness") for line in lines]}
    for what, some in altered.items():
        if b"".join(some) == content:
            continue
        output.write_bytes(b"".join(some))
        before = output.read_bytes()
        with pytest.raises(OutputError, match=r"cannot be gone on with: .*begin anew with --over"):
            sercli.write_labels(sounds, output, annotator, resume=True)
        assert output.read_bytes() == before, what
    assert len(fake_classifier.heard) == n_heard
    output.write_bytes(content)
    sercli.write_labels(sounds, output, annotator, resume=True)


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
        lambda record: damage(record, warnings=None),
        lambda record: damage(record, error=5),
    ],
)
def test_records_that_are_damaged(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    alter: Callable[[dict[str, Any]], str],
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    sercli.write_labels(sounds / "memo.m4a", output, annotator)
    record = Path(f"{output}.run.json")
    record.write_text(alter(json.loads(record.read_text("utf-8"))), encoding="utf-8")
    with pytest.raises(OutputError, match=r"labels\.csv: cannot be gone on with: .*Put them back"):
        sercli.write_labels(sounds, output, annotator, resume=True)
    with contextlib.suppress(DatasetError):  # where what is damaged matters
        sercli.read_results(output)


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
def test_journals_that_are_damaged(
    fake_classifier: FakeClassifier,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alter: Callable[[list[str]], list[str]],
) -> None:
    output, annotator = tmp_path / "labels.csv", Annotator.load(fake_classifier)
    with monkeypatch.context() as patch:
        # As if it were killed before the output takes its place.
        patch.setattr(AtomicFile, "close", AtomicFile.leave)
        patch.setattr(Journal, "remove", lambda self: None)
        sercli.write_labels(sounds, output, annotator, exclude="broken.wav")
    Path(f"{output}.run.json").unlink()
    (journal,) = tmp_path.glob(".labels.csv.*.journal")
    lines = journal.read_text("utf-8").split("\n")
    journal.write_text("\n".join(alter(lines)), encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot be gone on with: .*Put them back, or begin"):
        sercli.write_labels(sounds, output, annotator, resume=True)
    journal.write_text("\n".join(lines), encoding="utf-8")
    assert sercli.write_labels(sounds, output, annotator, resume=True).n_kept == 2
