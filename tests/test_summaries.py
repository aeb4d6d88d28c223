"""How emotions share the time of recordings, channels and speakers."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from runs import write_results

from sercli.cli import main
from sercli.errors import ConfigError
from sercli.output.report import RunInfo
from sercli.output.summaries import summarise
from sercli.output.writers import record_path
from sercli.schema import FileResult, Segment

LABELS = ("anger", "neutral")


def speak(
    channel: str, start: float, end: float, anger: float, speaker: str | None = None
) -> Segment:
    emotion = "anger" if anger > 0.5 else "neutral"
    return Segment(channel, start, end, emotion, max(anger, 1 - anger), (anger, 1 - anger), speaker)


CALL = FileResult(
    "calls/a.wav",
    "ok",
    (
        speak("2", 0, 1, 0.9, "eve"),
        speak("0", 1, 4, 0.4, "bob"),
        speak("10", 4, 5, 0.2),
        speak("2", 5, 7, 0.6, "bob"),
    ),
    8.0,
    8_000,
    11,
    labels=LABELS,
)
QUIET = FileResult("calls/b.wav", "no speech", (), 2.0, 16_000, 1, labels=LABELS)
BROKEN = FileResult("calls/c.wav", "failed", (), error="calls/c.wav: is empty", labels=LABELS)
# Broke off after a segment.
HALF = FileResult(
    "d.wav", "failed", (speak("mix", 0, 2, 0.25, "eve"),), 2.0, 8_000, 2, "d.wav: ends",
    labels=LABELS,
)  # fmt: skip
RESULTS = [CALL, QUIET, BROKEN, HALF]


def write(path: Path, results: list[FileResult]) -> Path:
    info = RunInfo("1.2.3", {"name": "m", "labels": [*LABELS]}, {}, "2026-01-01", speakers=True)
    return write_results(path, results, info)


def ser(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_recordings_share_their_time_by_duration() -> None:
    call, quiet, broken, half = summarise(RESULTS)
    # 1 s at .9, 3 at .4, 1 at .2, 2 at .6: a count of labels would give anger 2 of 4.
    assert call.shares == pytest.approx({"anger": 3.5 / 7, "neutral": 3.5 / 7})
    assert (call.segments, call.seconds, call.duration) == (4, 7, 8)
    assert call.name == {"file": "calls/a.wav", "status": "ok"}
    assert [one.name["status"] for one in (quiet, broken, half)] == [
        "no speech",
        "failed",
        "failed",
    ]
    for one in (quiet, broken):
        assert (one.segments, one.seconds, one.emotion, one.shares) == (0, 0, None, {})
    assert (quiet.duration, broken.duration) == (2, None)
    assert [one.recordings for one in (call, quiet, broken, half)] == [1, 0, 0, 1]
    assert half.shares == {"anger": 0.25, "neutral": 0.75}
    assert half.emotion == "neutral"


def test_channels_are_in_the_order_of_their_numbers() -> None:
    found = summarise(RESULTS, "channel")
    assert [(one.name["file"], one.name["channel"]) for one in found] == [
        ("calls/a.wav", "0"),
        ("calls/a.wav", "2"),
        ("calls/a.wav", "10"),
        ("calls/b.wav", None),
        ("calls/c.wav", None),
        ("d.wav", "mix"),
    ]
    assert found[1].shares == pytest.approx({"anger": 2.1 / 3, "neutral": 0.9 / 3})
    assert found[1].emotion == "anger"


def test_speakers_are_the_same_in_all_recordings() -> None:
    bob, eve, unknown = summarise(RESULTS, "speaker")
    assert (bob.name, eve.name, unknown.name) == (
        {"speaker": "bob"},
        {"speaker": "eve"},
        {"speaker": None},
    )
    assert bob.shares == pytest.approx({"anger": 2.4 / 5, "neutral": 2.6 / 5})
    assert eve.shares == pytest.approx({"anger": 1.4 / 3, "neutral": 1.6 / 3})
    assert (unknown.segments, unknown.seconds) == (1, 1)
    assert [(one.recordings, one.duration) for one in (bob, eve, unknown)] == [
        (1, 8),
        (2, 10),
        (1, 8),
    ]


def test_all_together() -> None:
    (every,) = summarise(RESULTS, "corpus")
    assert every.name == {}
    assert (every.segments, every.seconds, every.recordings, every.duration) == (5, 9, 2, 10)
    assert every.shares == pytest.approx({"anger": 4 / 9, "neutral": 5 / 9})
    (nothing,) = summarise([QUIET, BROKEN], "corpus")
    assert (nothing.segments, nothing.shares) == (0, {})


def test_what_cannot_be_summarised() -> None:
    with pytest.raises(ConfigError, match="by is 'file'; expected one of recording, channel"):
        summarise(RESULTS, "file")  # type: ignore[arg-type]
    nobody = replace(CALL, segments=tuple(replace(one, speaker=None) for one in CALL.segments))
    with pytest.raises(ConfigError, match="no segment has a speaker; expected labels that were"):
        summarise([nobody], "speaker")
    assert summarise([QUIET], "speaker") == []
    bare = replace(CALL, segments=(replace(CALL.segments[0], probabilities=()),))
    with pytest.raises(ConfigError, match=r"segments of calls/a\.wav lack probabilities"):
        summarise([HALF, bare])
    with pytest.raises(ConfigError, match=r"segments of d\.wav lack probabilities"):
        summarise([replace(HALF, labels=())])
    other = replace(HALF, labels=("joy", "neutral"))
    with pytest.raises(ConfigError, match="anger, neutral, and those of others joy, neutral"):
        summarise([CALL, other])
    # Nothing was labelled in these, so their labels do not matter.
    assert summarise([CALL, replace(QUIET, labels=())]) == summarise([CALL, QUIET])


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_ser_summary(tmp_path: Path, suffix: str) -> None:
    labels = write(tmp_path / f"labels.{suffix}", RESULTS)
    assert summarise(labels) == summarise(RESULTS)
    told = ser("summary", labels, "--by", "channel")
    assert told.exit_code == 0
    rows = list(csv.DictReader(StringIO(told.stdout, newline="")))
    assert rows[1] == {
        "file": "calls/a.wav",
        "channel": "2",
        "status": "ok",
        "duration": "8.000",
        "segments": "2",
        "seconds": "3.000",
        "emotion": "anger",
        "share_anger": "0.700000",
        "share_neutral": "0.300000",
    }
    assert [*rows[3].values()] == [
        *("calls/b.wav", "", "no speech", "2.000", "0", "0.000"),
        *("", "", ""),
    ]
    assert told.stderr == ""
    everyone = ser("summary", labels, "--by", "speaker", "--format", "json")
    assert json.loads(everyone.stdout)[0] == {
        "speaker": "bob",
        "recordings": 1,
        "duration": 8.0,
        "segments": 2,
        "seconds": 5.0,
        "emotion": "neutral",
        "shares": {"anger": 0.48, "neutral": 0.52},
    }
    assert everyone.stderr.splitlines() == [
        "not in these rows, as they failed: 1 recording",
        "not in these rows, as they have no segments: 1 recording",
        "only in part in these rows, as they broke off: 1 recording",
    ]


def test_a_summary_in_a_file(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", RESULTS)
    assert ser("summary", labels, "-o", tmp_path / "sum.csv", "--by", "corpus").stdout == ""
    assert (tmp_path / "sum.csv").read_bytes() == (
        b"recordings,duration,segments,seconds,emotion,share_anger,share_neutral\r\n"
        b"2,10.000,5,9.000,neutral,0.444444,0.555556\r\n"
    )
    again = ser("summary", labels, "-o", tmp_path / "sum.csv")
    assert again.exit_code == 2
    assert "sum.csv: already exists" in again.stderr
    assert ser("summary", labels, "-o", tmp_path / "sum.json").exit_code == 0
    assert json.loads((tmp_path / "sum.json").read_text("utf-8"))[2]["shares"] == {}
    wrong = ser("summary", labels, "-o", tmp_path / "sum.txt")
    assert wrong.exit_code == 2
    assert "sum.txt: its suffix names no format; expected .csv or .json" in wrong.stderr


def test_labels_are_never_replaced_by_their_summary(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", RESULTS)
    before = labels.read_bytes()
    for target in (labels, record_path(labels)):
        found = ser("summary", labels, "-o", target, "--overwrite")
        assert found.exit_code == 2
        assert "is what is summarised; name another file" in found.stderr
    assert labels.read_bytes() == before


def test_speakers_who_are_not_told(tmp_path: Path) -> None:
    nobody = replace(CALL, segments=tuple(replace(one, speaker=None) for one in CALL.segments))
    labels = write(tmp_path / "labels.csv", [nobody])
    found = ser("summary", labels, "--by", "speaker")
    assert found.exit_code == 2
    assert f"{labels}: no segment has a speaker" in found.stderr


def test_what_a_run_did_not_reach_is_told(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", RESULTS)
    record = record_path(labels)
    told = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps(told | {"completed": False}), "utf-8")
    gap = "the run was not completed, and files that it did not reach may be missing"
    for arguments in (("summary",), ("export", "--format", "srt", "-o", tmp_path / "srt")):
        assert ser(*arguments, labels).stderr.startswith(f"warning: {labels}: {gap}\n")
    told |= {"output_sha256": sha256(labels.read_bytes()).hexdigest()}
    record.write_text(json.dumps(told), "utf-8")
    assert ser("summary", labels).stderr == ""
    labels.write_bytes(labels.read_bytes().replace(b"neutral,", b"anger,"))
    assert ser("summary", labels).stderr == (
        f"warning: {labels}: it was changed after its run record was written, which may no "
        "longer fit it\n"
    )
    record.unlink()
    found = ser("summary", labels)
    assert found.stderr == (
        f"warning: {labels}: it has no run record beside it, and files without speech or that "
        "failed may be missing\n"
    )
    assert len(found.stdout.splitlines()) == 3
    assert ser("summary", labels, "-q").stderr == ""


def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", RESULTS)
    code = f"exec {sys.executable} -m sercli summary {labels} >&-"
    closed = subprocess.run(["sh", "-c", code], capture_output=True, check=False)
    assert closed.returncode == 2
    assert closed.stderr == b"Error: standard output is closed; expected a file, by -o FILE\n"


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_an_output_without_files_has_no_rows(tmp_path: Path, suffix: str) -> None:
    labels = write(tmp_path / f"labels.{suffix}", [])
    told = ser("summary", labels)
    assert told.exit_code == 0
    assert len(told.stdout.splitlines()) == 1


def test_labels_under_another_spelling_are_not_replaced(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", RESULTS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.json").symlink_to(labels)
    before = labels.read_bytes(), record_path(labels).read_bytes()
    for target in ("folder/../labels.json", "folder/../labels.json.run.json", "link.json"):
        found = ser("summary", labels, "-o", f"{tmp_path}/{target}", "--overwrite")
        assert found.exit_code == 2
        assert "is what is summarised; name another file" in found.stderr
    assert (labels.read_bytes(), record_path(labels).read_bytes()) == before


def test_formats_of_a_summary(tmp_path: Path) -> None:
    segment = replace(speak("mix", 0, 1.23449, 0.9, "J\u00fcrgen"))
    labels = write(tmp_path / "labels.json", [replace(HALF, segments=(segment,)), QUIET])
    options = ("--by", "speaker", "-q")
    loud = ser("summary", labels, "--by", "speaker", "-o", tmp_path / "loud.CSV")
    assert loud.stderr.startswith("not in these rows")
    assert (tmp_path / "loud.CSV").read_bytes().startswith(b"speaker,recordings,")
    # What is asked for goes before the suffix.
    found = ser("summary", labels, *options, "-o", tmp_path / "sum.csv", "--format", "json")
    assert (found.exit_code, found.stderr) == (0, "")
    text = (tmp_path / "sum.csv").read_text("utf-8")
    assert "J\u00fcrgen" in text
    assert json.loads(text)[0]["speaker"] == "J\u00fcrgen"


def test_times_of_a_summary_are_rounded(tmp_path: Path) -> None:
    segments = tuple(speak("mix", n + 0.1, n + 0.4, 0.9, "eve") for n in range(1, 4))
    labels = write(tmp_path / "labels.json", [replace(HALF, segments=segments)])
    found = ser("summary", labels, "--format", "json")
    assert json.loads(found.stdout)[0]["seconds"] == 0.9


def test_a_document_by_itself_lacks_nothing_and_an_old_record_is_complete(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", RESULTS)
    record = record_path(labels)
    told = json.loads(record.read_text("utf-8"))
    del told["completed"]
    record.write_text(json.dumps(told), "utf-8")
    assert ser("summary", labels).stderr == ""
    record.unlink()
    assert ser("summary", labels).stderr == ""
