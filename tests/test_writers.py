import csv
import errno
import io
import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sercli.errors import OutputError
from sercli.files import AtomicFile, write_json
from sercli.output.report import RunInfo, RunReport
from sercli.output.writers import choose_format, open_writer, record_path
from sercli.schema import FileResult, Segment

INFO = RunInfo(
    "1.2.3", {"name": "m", "labels": ["anger", "neutral"]}, {"window": 3.0}, "2026-01-01"
)
ROW = Segment("0", 0.5, 3600.12345, "neutral", 2 / 3, (1 / 3, 2 / 3))
NASTY = 'Grüße, "Welt"\nzwei.wav'
RESULTS = [
    FileResult(NASTY, "ok", (ROW, ROW), 3601.0, 8_000, 1, size=7, modified=1.25),
    FileResult("quiet.wav", "no speech", (), 2.0, 16_000, 2),
    FileResult("caf\udce9.wav", "failed", (), error="caf\udce9.wav: does not exist"),
]


def write(path: Path, format_: str) -> bytes:
    with open_writer(str(path), format_, INFO) as writer:
        for result in RESULTS:
            writer.write(result)
    return path.read_bytes()


def test_csv_is_rfc_4180(tmp_path: Path) -> None:
    content = write(tmp_path / "labels.csv", "csv")
    assert content.decode("utf-8") == (
        "file,channel,start,end,emotion,confidence,prob_anger,prob_neutral\r\n"
        + '"Grüße, ""Welt""\nzwei.wav",0,0.500,3600.123,neutral,0.666667,0.333333,0.666667\r\n' * 2
    )
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    assert rows[1][0] == NASTY


def test_json(tmp_path: Path) -> None:
    data = json.loads(write(tmp_path / "labels.json", "json"))
    assert data["schema_version"] == 1
    assert data["ser_version"] == "1.2.3"
    assert data["model"] == INFO.model
    assert data["options"] == {"window": 3.0}
    assert data["files"][0] == {
        "path": NASTY,
        "status": "ok",
        "bytes": 7,
        "modified": 1.25,
        "duration": 3601.0,
        "sample_rate": 8_000,
        "channels": 1,
        "error": None,
        "warnings": [],
        "groups": [],
        "segments": [
            {
                "channel": "0",
                "start": 0.5,
                "end": 3600.123,
                "emotion": "neutral",
                "confidence": 0.666667,
                "probabilities": {"anger": 0.333333, "neutral": 0.666667},
            }
        ]
        * 2,
    }
    assert data["files"][1]["status"] == "no speech"
    assert data["files"][2]["path"] == "caf\\xe9.wav"
    assert data["files"][2]["error"] == "caf\\xe9.wav: does not exist"


def test_json_lines(tmp_path: Path) -> None:
    lines = write(tmp_path / "labels.jsonl", "jsonl").decode("utf-8").splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('{"file": "Grüße, ')  # as people read it
    assert json.loads(lines[0]) == {
        "file": NASTY,
        "channel": "0",
        "start": 0.5,
        "end": 3600.123,
        "emotion": "neutral",
        "confidence": 0.666667,
        "prob_anger": 0.333333,
        "prob_neutral": 0.666667,
    }


def test_given_times_and_speakers_are_written_as_they_are(tmp_path: Path) -> None:
    info = replace(INFO, options={"segments_sha256": "00"}, speakers=True)
    given = replace(ROW, start=0.123456789, end=2.5)
    result = replace(RESULTS[0], segments=(given, replace(given, speaker="Ann\udce9")))
    texts = {}
    for name in ("csv", "json", "jsonl"):
        with open_writer(str(tmp_path / name), name, info) as writer:
            writer.write(replace(result, path="caf\udce9.wav"))
        texts[name] = (tmp_path / name).read_text(encoding="utf-8")
    assert texts["csv"].splitlines()[1:] == [
        rf"caf\xe9.wav,0,0.123456789,2.500,{speaker},neutral,0.666667,0.333333,0.666667"
        for speaker in ("", r"Ann\xe9")
    ]
    rows = [json.loads(line) for line in texts["jsonl"].splitlines()]
    for found in (rows, json.loads(texts["json"])["files"][0]["segments"]):
        assert [one["speaker"] for one in found] == ["", r"Ann\xe9"]
        assert [(one["start"], one["end"]) for one in found] == [(0.123456789, 2.5)] * 2


@pytest.mark.parametrize(("name", "line_end"), [("csv", b"\r\n"), ("jsonl", b"\n")])
def test_copied_rows_stay_as_they_are_and_are_counted_in_bytes(
    tmp_path: Path, name: str, line_end: bytes
) -> None:
    rows = write(tmp_path / "old", name)[-80:].decode()  # with letters of two bytes
    with open_writer(str(tmp_path / "new"), name, INFO) as writer:
        writer.copy("ü" + rows)
        assert writer.temporary is not None
        assert writer.n_bytes == writer.temporary.stat().st_size
        writer.copy("ü" + rows)
        writer.copy("")
        assert not (tmp_path / "new").exists()
        counted = writer.n_bytes
    assert counted == (tmp_path / "new").stat().st_size
    new = (tmp_path / "new").read_bytes()
    assert new.endswith(("ü" + rows).encode() * 2)
    assert new.endswith(line_end)


def test_a_copied_entry_has_no_fields_that_are_not_of_documents(tmp_path: Path) -> None:
    told = {"path": "a.wav", "status": "ok", "bytes": 7, "segments": []}
    with open_writer(str(tmp_path / "a.json"), "json", INFO) as writer:
        writer.copy(json.dumps(told), {"path": "b.wav", "n_segments": 3})
        writer.copy(json.dumps(told))
    files = json.loads((tmp_path / "a.json").read_text())["files"]
    assert files == [told | {"path": "b.wav"}, told]


def test_an_output_that_failed_stays_where_a_run_can_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    writer = open_writer(str(tmp_path / "labels.csv"), "csv", INFO)
    writer.write(RESULTS[0])
    size = writer.n_bytes
    assert isinstance(writer._output, AtomicFile)
    writer._output.stream.close()
    monkeypatch.setattr(writer._output, "stream", Full())
    told = r"labels\.csv: cannot be written: No space left on device; .* --resume"
    with pytest.raises(OutputError, match=told), writer:
        writer.write(RESULTS[0])
    monkeypatch.undo()
    assert writer.n_bytes == size
    # What the disk has room for again would follow half of a row.
    with pytest.raises(OutputError, match="the output could not be written before"):
        writer.write(RESULTS[0])
    assert list(tmp_path.iterdir()) == [writer.temporary]


def test_an_output_without_its_header_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise OutputError("the output cannot be written")

    monkeypatch.setattr("sercli.output.writers.CsvWriter._header", fail)
    with pytest.raises(OutputError):
        open_writer(str(tmp_path / "labels.csv"), "csv", INFO)
    assert list(tmp_path.iterdir()) == []


def test_rows_on_standard_output_follow_what_was_printed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="latin-1"))
    sys.stdout.write("# labels\n")
    with open_writer("-", "csv", INFO) as writer:
        writer.write(RESULTS[0])
    sys.stdout.write("# end\n")
    sys.stdout.flush()
    text = content.getvalue().decode("utf-8")
    assert text.startswith("# labels\nfile,channel,")
    assert "Grüße" in text
    assert text.endswith("0.666667\r\n# end\n")


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl"])
def test_an_interrupt_leaves_what_was_finished(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "labels"
    writer = open_writer(str(path), format_, INFO)
    writer.write(RESULTS[0])
    assert not path.exists()
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    text = path.read_text(encoding="utf-8")
    assert text.count("3600.123") == 2
    if format_ == "json":
        assert len(json.loads(text)["files"]) == 1
    assert os.listdir(tmp_path) == ["labels"]


def test_each_result_is_out_at_once(tmp_path: Path) -> None:
    with open_writer(str(tmp_path / "labels.jsonl"), "jsonl", INFO) as writer:
        writer.write(RESULTS[0])
        (temporary,) = tmp_path.iterdir()
        assert len(temporary.read_text(encoding="utf-8").splitlines()) == 2


def test_no_run_at_all_is_valid_json(tmp_path: Path) -> None:
    with open_writer(str(tmp_path / "labels.json"), "json", INFO):
        pass
    assert json.loads((tmp_path / "labels.json").read_text())["files"] == []


def test_targets_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"labels\.csv: already exists; .*--overwrite"):
        open_writer(str(path), "csv", INFO)
    assert path.read_text() == "precious"
    with open_writer(str(path), "csv", INFO, overwrite=True):
        assert path.read_text() == "precious"
    assert path.read_text().startswith("file,")
    with pytest.raises(OutputError, match="is a directory"):
        open_writer(str(tmp_path), "csv", INFO)
    with pytest.raises(OutputError, match="does not exist; create it first"):
        open_writer(str(tmp_path / "no/labels.csv"), "csv", INFO)


def test_the_target_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "csv")
    (tmp_path / "other").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("labels.csv", "other")]
    assert modes[0] == modes[1]


@pytest.mark.skipif(os.name == "nt", reason="such permissions are Unix's")
def test_what_replaces_a_private_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write(path, "csv")
    write_json(record_path(path), {})
    for one in (path, record_path(path)):
        one.chmod(0o600)
    with open_writer(str(path), "csv", INFO, overwrite=True) as writer:
        assert writer.temporary is not None
        assert stat.S_IMODE(writer.temporary.stat().st_mode) == 0o600
    write_json(record_path(path), {})
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, record_path(path))]
    assert modes == [0o600, 0o600]


class FullDisk(io.BytesIO):
    """Takes a single piece."""

    def write(self, piece: Any) -> int:
        if self.getvalue():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_standard_output_that_cannot_be_written_stays_open(
    format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(FullDisk(), encoding="utf-8"))
    with (
        pytest.raises(OutputError, match="No space left on device"),
        open_writer("-", format_, INFO) as writer,
    ):
        writer.write(RESULTS[0])
    assert not sys.stdout.closed


class Unbuffered(io.BytesIO):
    """Takes three bytes at once, as a descriptor may."""

    def write(self, piece: Any) -> int:
        return super().write(piece[:3])


def test_standard_output_without_a_buffer_is_written_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = Unbuffered()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="utf-8"))
    with open_writer("-", "csv", INFO) as writer:
        writer.write(RESULTS[0])
    assert content.getvalue().endswith(b"0.333333,0.666667\r\n")
    assert len(content.getvalue()) == writer.n_bytes


def test_formats_and_names() -> None:
    assert choose_format("labels.JSON", None) == "json"
    assert choose_format("-", None) == "csv"
    assert choose_format("labels.csv", "jsonl") == "jsonl"
    with pytest.raises(OutputError, match=r"labels\.txt: .*expected one of \.csv, \.json, \.jsonl"):
        choose_format("labels.txt", None)
    assert record_path("out/labels.csv") == Path("out/labels.csv.run.json")


def test_report_counts_and_decides_the_exit_code() -> None:
    report = RunReport(INFO)
    report.add(RESULTS[0])
    report.add(RESULTS[1])
    assert report.exit_code.value == 0
    report.add(RESULTS[2])
    assert report.exit_code.value == 1
    assert report.counts() == {
        "files": 3,
        "ok": 1,
        "no_speech": 1,
        "failed": 1,
        "kept": 0,
        "segments": 2,
        "audio_seconds": 3603.0,
    }
    assert report.summary().startswith(
        "3 files: 1 labelled, 1 without speech, 1 failed; 2 segments in 1.00 h of audio, "
    )
    record = report.record()
    assert [entry["status"] for entry in record["files"]] == ["ok", "no speech", "failed"]
    assert [entry["n_segments"] for entry in record["files"]] == [2, 0, 0]
    assert record["completed"] is False
    assert json.loads(json.dumps(record)) == record
    # Of a run before: counted as if it were of this one.
    again = RunReport(INFO)
    for entry in record["files"]:
        again.keep(entry)
    assert again.counts() == report.counts() | {"kept": 3}
    assert again.record()["files"] == record["files"]
    assert (report.exit_code, again.exit_code) == (1, 0)  # that they failed was told then
    # Nothing was heard, so that there is no speed.
    assert again.summary().endswith(" 1 failed, 3 kept from before; 2 segments in 1.00 h of audio")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (str(tmp_path / "pipe.csv"), os.devnull):
        with pytest.raises(OutputError, match="is not a regular file; expected a file name, or -"):
            open_writer(path, "csv", INFO, overwrite=True)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "labels.csv", tmp_path / "link.csv"
    new = tmp_path / "new.csv"
    new.symlink_to("not-there-yet.csv")
    with open_writer(str(new), "csv", INFO) as writer:
        writer.write(RESULTS[0])
    assert new.is_symlink()
    assert (tmp_path / "not-there-yet.csv").read_bytes().startswith(b"file,channel,")
    target.write_text("old")
    link.symlink_to(target)
    with open_writer(str(link), "csv", INFO, overwrite=True) as writer:
        assert writer.temporary is not None
        assert writer.temporary.parent == target.parent
    assert link.is_symlink()
    assert target.read_text().startswith("file,channel")
    write_json(link, {"a": 1})
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"a": 1}


def test_an_output_that_another_program_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    writer = open_writer(str(tmp_path / "labels.csv"), "csv", INFO)
    writer.write(RESULTS[0])
    monkeypatch.setattr(os, "replace", fail)
    message = (
        r"labels\.csv: cannot be replaced: Permission denied; close the program that has it open"
    )
    with pytest.raises(OutputError, match=message), writer:
        pass
    assert writer.temporary is not None
    assert writer.temporary.read_text(encoding="utf-8").count("neutral") == 3


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    for size in (252, 300):
        with pytest.raises(OutputError, match="cannot be written: File name too long"):
            open_writer(str(tmp_path / ("x" * size + ".csv")), "csv", INFO)


def test_json_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"a\.json: cannot be written: No space left on device"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []
