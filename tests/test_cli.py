"""The command line, as a user meets it; in a process of its own where that makes a difference."""

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner, Result
from conftest import EXAMPLES
from numpy.typing import NDArray

import sercli
from sercli.audio.reading import load_audio
from sercli.cli import main
from sercli.cli.comparing import _place_reports
from sercli.cli.console import Progress
from sercli.cli.measuring import _tell_limits
from sercli.cli.models import _render_table, _row
from sercli.errors import ConfigError, DatasetError, OutputError
from sercli.evaluation.mixes import EVEN, SINGLE
from sercli.labels import EMOTIONS
from sercli.output.journal import Journal, find_unfinished
from sercli.output.report import RunInfo
from sercli.output.writers import open_writer, record_path
from sercli.registry.catalogue import ModelEntry, list_models, shipped_folder
from sercli.registry.store import load_model
from sercli.training.adapters import adaptation
from sercli.training.adapters.adaptation import fit_sharpening

README_PATH = Path(__file__).parent.parent / "README.md"
README = README_PATH.read_text(encoding="utf-8")


def ser(*arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


def process(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "sercli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def read_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def read_record(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize("command", [(), *((name,) for name in main.commands)])
def test_every_command_has_help_with_an_example_and_is_in_the_readme(
    command: tuple[str, ...],
) -> None:
    result = ser(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert " ".join(("ser", *command)) in README


def test_help_lists_options_under_headings() -> None:
    lines = ser("annotate", "--help").stdout.splitlines()
    headings = [line.removesuffix(":") for line in lines if re.fullmatch(r"\w+:", line)]
    assert headings == ["Input", "Segments", "Model", "Output", "Speed", "Other"]
    places = [lines.index("Segments:"), lines.index("Model:")]
    (window,) = (place for place, line in enumerate(lines) if line.startswith("  --window "))
    assert places[0] < window < places[1]
    for name, command in main.commands.items():
        listed = re.findall(r"^  (-[^ ,]+)", ser(name, "--help").stdout, re.MULTILINE)
        options = [one for one in command.params if isinstance(one, click.Option)]
        assert sorted(listed) == sorted(["-h", *(one.opts[0] for one in options)])


def test_every_option_has_help() -> None:
    for command in main.commands.values():
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("models",)])
def test_light_commands_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from sercli.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'numpy', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_annotating_with_an_svm_loads_no_torch_and_no_scikit_learn() -> None:
    code = (
        "import sys, sercli\n"
        f"assert list(sercli.annotate({str(EXAMPLES / 'memo.m4a')!r}, 'svm'))[0].segments\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'librosa'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_annotate_to_standard_output() -> None:
    result = ser("annotate", EXAMPLES)
    assert result.exit_code == 0, result.stderr
    rows = read_rows(result.stdout)
    base = ["file", "channel", "start", "end", "emotion", "confidence"]
    assert list(rows[0]) == base + [f"prob_{label}" for label in EMOTIONS]
    assert {row["file"] for row in rows} == {
        str(EXAMPLES / name) for name in ("call.wav", "memo.m4a", "statement.flac")
    }
    for row in rows:
        probabilities = [float(row[f"prob_{label}"]) for label in EMOTIONS]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(probabilities)
        assert row["emotion"] == EMOTIONS[int(np.argmax(probabilities))]
        assert 0 <= float(row["start"]) < float(row["end"])
    assert "4 files: 3 labelled, 1 without speech, 0 failed" in result.stderr


def test_annotate_to_a_file_with_a_record(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    result = ser("annotate", EXAMPLES / "statement.flac", "-o", target, "--max-segment", "4")
    assert (result.exit_code, result.stdout) == (0, "")
    rows = read_rows(target.read_bytes().decode())
    assert sorted(os.listdir(tmp_path)) == ["labels.csv", "labels.csv.run.json"]
    record = read_record(tmp_path / "labels.csv.run.json")
    assert record["completed"] is True
    assert record["model"]["name"] == "transformer"
    assert len(record["model"]["sha256"]) == 64
    assert record["options"]["max_segment"] == 4.0
    assert record["counts"]["segments"] == len(rows)
    assert [entry["status"] for entry in record["files"]] == ["ok"]

    again = ser("annotate", EXAMPLES, "-o", target)
    assert again.exit_code == 2
    assert "already exists; give another name or --overwrite" in again.stderr
    assert ser("annotate", EXAMPLES, "-o", target, "--overwrite").exit_code == 0
    assert len(read_rows(target.read_bytes().decode())) > len(rows)


def test_windows_have_no_longest_segment(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    options = ("-m", "svm", "--segment", "window", "--window", "4", "-o", target, "--overwrite")
    ends = {}
    for least in ("0.5", "4"):
        more = ("--min-segment", least)
        result = ser("annotate", EXAMPLES / "statement.flac", *options, *more)
        assert result.exit_code == 0, result.stderr
        ends[least] = [row["end"] for row in read_rows(target.read_bytes().decode())]
    # It lasts 10.8 s.
    assert ends["0.5"][:-1] == ends["4"]
    assert ends["4"][-1] == "8.000"


def test_json_and_json_lines_hold_the_same_as_csv(tmp_path: Path) -> None:
    for name in ("a.csv", "b.json", "c.jsonl"):
        arguments = ("-o", tmp_path / name, "--overwrite", "--channels", "split")
        assert ser("annotate", EXAMPLES, *arguments).exit_code == 0
    rows = read_rows((tmp_path / "a.csv").read_bytes().decode())
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    files = read_record(tmp_path / "b.json")["files"]
    segments = [(file["path"], segment) for file in files for segment in file["segments"]]
    assert len(rows) == len(lines) == len(segments) > 10
    for row, line, (path, segment) in zip(rows, lines, segments, strict=True):
        assert row["file"] == line["file"] == path
        assert row["emotion"] == line["emotion"] == segment["emotion"]
        assert float(row["end"]) == line["end"] == segment["end"]
        assert float(row["prob_fear"]) == line["prob_fear"] == segment["probabilities"]["fear"]


def test_annotate_segments_that_were_told(tmp_path: Path) -> None:
    turns = [("statement", 1, 1.5, "anna"), ("statement", 3, 2.25, "ben"), ("other", 0, 1, "ben")]
    diarisation = tmp_path / "turns.rttm"
    diarisation.write_text(
        "".join(f"SPEAKER {name} 1 {a} {n} <NA> <NA> {who}\n" for name, a, n, who in turns)
    )
    paths = (EXAMPLES / "statement.flac", EXAMPLES / "memo.m4a")
    target = tmp_path / "labels.csv"
    options = ("-m", "svm", "--segments", diarisation, "--adapt", "speaker", "-o", target)
    result = ser("annotate", *paths, *options)
    assert result.exit_code == 0, result.stderr
    rows = read_rows(target.read_bytes().decode())
    times = [(row["start"], row["end"], row["speaker"]) for row in rows]
    assert times == [("1.000", "2.500", "statement/anna"), ("3.000", "5.250", "statement/ben")]
    assert "has segments of 1 recording not among the inputs, such as other" in result.stderr
    assert f"{paths[1]}: has no segments in --segments" in result.stderr
    record = read_record(tmp_path / "labels.csv.run.json")
    assert record["options"]["segments"] == str(diarisation)
    assert [entry["status"] for entry in record["files"]] == ["ok", "no speech"]
    names = [group["name"] for group in record["files"][0]["groups"]]
    assert names == ["statement/anna", "statement/ben"]
    assert "1 labelled, 1 without segments, 0 failed" in result.stderr

    # What was written is a list of segments, too: of the same there are the same labels.
    again = ser("annotate", *paths, "-m", "svm", "--segments", target, "--format", "jsonl", "-q")
    assert again.exit_code == 0, again.stderr
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    for line, row in zip(lines, rows, strict=True):
        assert (line["start"], line["speaker"]) == (float(row["start"]), row["speaker"])
        assert line["prob_anger"] == pytest.approx(float(row["prob_anger"]), abs=1e-6)


def test_speakers_of_other_recordings_are_told(tmp_path: Path) -> None:
    memo, table, turns = EXAMPLES / "memo.m4a", tmp_path / "names.csv", tmp_path / "names.rttm"
    table.write_text(f"file,speaker\n{memo},ann\nmeno.m4a,ann\nb.wav,ben\n")
    turns.write_text("SPEAKER memo 1 0 9 <NA> <NA> a\nSPEAKER meno 1 0 9 <NA> <NA> a\n")
    (tmp_path / "more").mkdir()
    shutil.copy(memo, tmp_path / "more")
    options = ("annotate", memo, tmp_path / "more", "-m", "svm", "--adapt", "speaker", "--speakers")
    told = ser(*options, table).stderr
    assert (
        f"warning: {table} has speakers of 2 recordings not among the inputs, such as "
        f"{tmp_path / 'b.wav'}\n"
    ) in told
    assert "several inputs" not in told
    told = ser(*options, turns).stderr
    assert f"warning: {turns} has speakers of 1 recording not among the inputs, such as me" in told
    assert f"warning: {turns}: several inputs match memo; its speakers are used for e" in told
    assert "not among the inputs" not in ser(*options, "(mem)o").stderr
    assert ser(*options, table, "-q").stderr == ""


def test_segments_of_which_none_is_scored_are_told_even_quietly(tmp_path: Path) -> None:
    call, memo, table = EXAMPLES / "call.wav", EXAMPLES / "memo.m4a", tmp_path / "segments.csv"
    options = ("-m", "svm", "-q", "--segments", table)
    told = (
        f"warning: {table}: none of its segments has a label; the warning of each file says why "
        "(without -q, or in the run record)\n"
    )
    table.write_text(f"file,start,end,channel\n{call},1,3,0\n")
    assert ser("annotate", call, *options).stderr == told
    assert ser("annotate", memo, *options).stderr == told
    assert ser("annotate", call, *options, "--channels", "split").stderr == ""
    # Nor where there is nothing to be left out, or an error says more.
    gone = tmp_path / "gone.wav"
    assert ser("annotate", gone, *options).stderr == f"failed: {gone}: does not exist\n"
    table.write_text("file,start,end,channel\n")
    assert ser("annotate", call, *options).stderr == ""


def make_round_trip(folder: Path, speech: NDArray[np.float32]) -> None:
    """Fill a folder with what a directory of recordings may hold."""
    shutil.copy(EXAMPLES / "statement.flac", folder / 'Grüße, "été"\nzwei.flac')
    (folder / "empty.wav").touch()
    (folder / "letter.wav").write_text("Dear Sir or Madam\n" * 50)
    content = (EXAMPLES / "statement.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(content[: len(content) // 2])
    broken = speech.copy()
    broken[1_000:1_200] = np.nan
    sf.write(folder / "nan.wav", broken, 16_000, subtype="FLOAT")
    sf.write(folder / "eight.wav", np.tile(speech[:, None], (1, 8)), 16_000)
    sf.write(folder / "slow.wav", speech[::4], 4_000)
    sf.write(folder / "short.wav", speech[20_000:21_600], 16_000)
    os.link(folder / "eight.wav", os.fsencode(folder) + b"/caf\xe9.wav")


def test_whatever_a_directory_holds_has_a_status(
    tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_round_trip(folder, speech)
    target = tmp_path / "labels.csv"
    result = ser("annotate", folder, "-o", target)
    assert result.exit_code == 1
    record = read_record(tmp_path / "labels.csv.run.json")
    entries = {Path(entry["path"]).name: entry for entry in record["files"]}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        'Grüße, "été"\nzwei.flac': "ok",
        "caf\\xe9.wav": "ok",
        "eight.wav": "ok",
        "empty.wav": "failed",
        "letter.wav": "failed",
        "nan.wav": "ok",
        "short.wav": "no speech",
        "slow.wav": "ok",
        "truncated.flac": "failed",
    }
    assert entries["nan.wav"]["warnings"] == [
        "200 samples are NaN, infinite or huge, and were set to silence"
    ]
    assert "empty (0 bytes)" in entries["empty.wav"]["error"]
    rows = read_rows(target.read_bytes().decode())
    labelled = {Path(row["file"]).name for row in rows}
    # What could be decoded of the truncated file is labelled, too.
    assert (
        labelled
        == {name for name, entry in entries.items() if entry["n_segments"]}
        >= {"truncated.flac", "slow.wav", "eight.wav", 'Grüße, "été"\nzwei.flac'}
    )
    assert record["completed"] is True
    assert record["counts"]["failed"] == 3
    assert result.stderr.count("failed: ") == 3


def test_a_list_from_find(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "with\nnewline.m4a")
    names = f"{tmp_path}/with\nnewline.m4a\0{EXAMPLES}/statement.flac\0".encode()
    result = process("annotate", "--files-from", "-", "-0", "-q", input=names)
    assert (result.returncode, result.stderr) == (0, b"")
    rows = read_rows(result.stdout.decode())
    assert {row["file"] for row in rows} == {
        f"{tmp_path}/with\nnewline.m4a",
        str(EXAMPLES / "statement.flac"),
    }


@pytest.mark.parametrize("kind", ["wav", "flac", "m4a"])
def test_a_recording_on_standard_input(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path = EXAMPLES / {"wav": "call.wav", "flac": "statement.flac", "m4a": "memo.m4a"}[kind]
    content = path.read_bytes()
    if kind == "wav":  # sizes are not known when a program writes the header to a pipe
        place = content.index(b"data") + 4
        unknown = b"\xff" * 4
        content = content[:4] + unknown + content[8:place] + unknown + content[place + 4 :]
    expected = read_rows(ser("annotate", path, "-m", "svm").stdout)
    result = ser("annotate", "-", "-m", "svm", input=content)
    assert result.exit_code == 0, result.stderr
    assert len(expected) >= 2
    assert read_rows(result.stdout) == [{**row, "file": "stdin"} for row in expected]
    assert not [*temporary.iterdir()]


def test_a_pattern_names_one_speaker_for_all_channels(tmp_path: Path) -> None:
    told = "warning: where a recording has several channels, a pattern names one speaker for all;"
    common = ("annotate", EXAMPLES / "memo.m4a", "-m", "svm", "--speakers", "(memo)")
    assert told in ser(*common, "--channels", "split").stderr
    assert told not in ser(*common).stderr
    assert told not in ser(*common, "--channels", "0").stderr
    assert told not in ser(*common, "--channels", "split", "-q").stderr
    table = tmp_path / "speakers.csv"
    table.write_text(f"file,channel,speaker\n{EXAMPLES / 'memo.m4a'},0,agent\n")
    result = ser(*common[:-1], table, "--channels", "split")
    assert told not in result.stderr
    assert ",agent," in result.stdout


def test_exported_labels_of_standard_input_can_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = (EXAMPLES / "statement.flac").read_bytes()
    # What a file of its name has does not matter, and neither does its age.
    (tmp_path / "stdin").write_bytes(b"another")
    done = ser("annotate", "-", "-m", "svm", "-o", "labels.csv", input=content)
    assert done.exit_code == 0, done.stderr
    (entry,) = read_record(tmp_path / "labels.csv.run.json")["files"]
    assert (entry["path"], entry["status"], entry["modified"]) == ("stdin", "ok", None)
    assert ser("export", "labels.csv", "--format", "textgrid", "-o", "grids").exit_code == 0
    assert os.listdir(tmp_path / "grids") == ["stdin.TextGrid"]
    again = ser(
        "annotate",
        "-",
        *("-m", "svm", "--segments", "grids", "--tier", "emotion"),
        input=content,
    )
    assert again.exit_code == 0, again.stderr
    first, second = (
        [(float(row["start"]), float(row["end"])) for row in read_rows(text)]
        for text in (Path("labels.csv").read_text(encoding="utf-8"), again.stdout)
    )
    assert len(first) == 3
    assert second == first


def test_standard_input_without_a_recording(tmp_path: Path) -> None:
    for content, message in (
        (b"", "failed: stdin: is empty (0 bytes); expected an audio or video file"),
        (b"no sound", "failed: stdin: libsndfile does not know the format; FFmpeg cannot open it"),
    ):
        result = ser("annotate", "-", EXAMPLES / "memo.m4a", "-m", "svm", input=content)
        assert result.exit_code == 1
        assert message in result.stderr
        assert {row["file"] for row in read_rows(result.stdout)} == {str(EXAMPLES / "memo.m4a")}
    # A path is still a path.
    result = ser("annotate", tmp_path / "-", "-m", "svm", input=b"")
    assert f"failed: {tmp_path / '-'}: does not exist" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and terminals of POSIX")
def test_standard_input_that_cannot_be_read() -> None:
    def run(shell: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        command = ["sh", "-c", shell.format('"$0" -m sercli annotate - -m svm'), sys.executable]
        return subprocess.run(command, capture_output=True, check=False, **options)

    content = (EXAMPLES / "call.wav").read_bytes()
    terminal = os.openpty()
    results = {
        "-: standard input is a terminal; expected audio there": run("{}", stdin=terminal[1]),
        "-: standard input is closed; expected audio there": run("{} <&-"),
        "standard input cannot be copied to a temporary file: File too large; expected audio "
        "there, and room for all of it in the folder that TMPDIR names": run(
            "ulimit -f 8; {}", input=content
        ),
    }
    for descriptor in terminal:
        os.close(descriptor)
    for message, result in results.items():
        assert (result.returncode, result.stdout) == (2, b""), result.stderr.decode()
        assert message in result.stderr.decode()


def test_python_dash_m_and_encoding_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "Grüße.m4a")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = process("annotate", tmp_path, env=environment)
    assert result.returncode == 0, result.stderr.decode()
    assert "Grüße.m4a" in result.stdout.decode("utf-8")


def test_usage_errors(tmp_path: Path) -> None:
    for arguments, message in (
        ((), "Name files or directories"),
        ((EXAMPLES, "--model", "nope"), "model 'nope': found no model.json"),
        ((EXAMPLES, "-o", "labels.txt"), "its suffix names no format"),
        ((EXAMPLES, "-o", tmp_path / "no/labels.csv"), "create it first"),
        ((EXAMPLES, "--max-segment", "100"), "max_segment is 100; expected"),
        (
            (EXAMPLES, "--min-segment", "4"),
            "max_segment is 6 and min_segment 4; expected a max_segment of 8 to 30, twice",
        ),
        ((EXAMPLES, "--channels", "left"), "channels is 'left'; expected"),
        ((EXAMPLES, "--segment", "word"), "'word' is not one of"),
        ((EXAMPLES, "--hop", "1"), "--hop goes with --segment window"),
        ((EXAMPLES, "--segment", "file", "--max-gap", "1"), "--max-gap goes with --segment speech"),
        (
            (EXAMPLES, "--segment", "file", "--min-segment", "1"),
            "--min-segment goes with --segment speech or window",
        ),
        ((EXAMPLES, "-0"), "-0 goes with --files-from"),
        (("-", EXAMPLES, "-"), "-, standard input, is named twice"),
        (("-", "--files-from", "-"), "--files-from - does not go with -"),
        (("-", "-o", "l.csv", "--resume"), "--resume does not go with -: whether standard input"),
        ((EXAMPLES, "--resume"), "--resume goes with -o FILE"),
        ((EXAMPLES, "-o", "l.csv", "--resume", "--overwrite"), "--overwrite exclude each other"),
        (
            (EXAMPLES, "-o", "l.csv", "--resume", "--adapt", "corpus"),
            "--resume does not go with --adapt corpus",
        ),
        ((EXAMPLES, "--segments", "no.csv"), "'no.csv' does not exist"),
        ((EXAMPLES, "--segments", README_PATH), "expected file, start, end"),
        (
            (EXAMPLES, "--segments", README_PATH, "--segment", "speech"),
            "--segment does not go with --segments",
        ),
        (
            (EXAMPLES, "--segments", README_PATH, "--vad-threshold", "0.4"),
            "--vad-threshold does not go with --segments",
        ),
    ):
        result = ser("annotate", *arguments)
        assert result.exit_code == 2, message
        assert message in result.stderr
        assert result.stdout == ""


def test_an_empty_directory_gives_an_empty_table(tmp_path: Path) -> None:
    result = ser("annotate", tmp_path)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert f"found no audio or video files in: {tmp_path}" in result.stderr


def test_patterns_that_nothing_matches_are_told(tmp_path: Path) -> None:
    for name in ("may", "june"):
        (tmp_path / "calls" / name).mkdir(parents=True)
        shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "calls" / name)
    calls = tmp_path / "calls"
    options = (
        "annotate",
        calls,
        "-m",
        "svm",
        "--exclude",
        calls / "may",
        "--exclude",
        calls / "mai",
    )
    done = ser(*options)
    assert {row["file"] for row in read_rows(done.stdout)} == {str(calls / "june" / "memo.m4a")}
    assert done.stderr.startswith(
        f"warning: nothing in the directories matches {calls / 'mai'}; expected a "
        "name, a path below the directory, or a path as given\n"
    )
    assert done.stderr.count("matches") == 1
    assert ser(*options, "-q").stderr == ""


def test_on_error_stop(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    shutil.copy(EXAMPLES / "memo.m4a", tmp_path / "b.m4a")
    target = tmp_path / "labels.csv"
    assert ser("annotate", tmp_path, "-o", target, "--on-error", "stop").exit_code == 1
    record = read_record(tmp_path / "labels.csv.run.json")
    assert [entry["path"] for entry in record["files"]] == [str(tmp_path / "a.wav")]
    assert record["completed"] is False


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_resuming_labels_what_is_new_has_changed_or_failed(
    tmp_path: Path, speech: NDArray[np.float32], suffix: str
) -> None:
    folder, target = tmp_path / "in", tmp_path / f"labels.{suffix}"
    folder.mkdir()
    for name in ('b, "1"\nz.flac', "d.flac", "f.flac"):
        shutil.copy(EXAMPLES / "statement.flac", folder / name)
    sf.write(folder / "c.wav", np.zeros(16_000), 16_000)
    (folder / "e.flac").write_bytes(b"fLaC")
    options = (folder, "-m", "svm", "-o", target, "--resume")
    first = ser("annotate", *options)  # there is nothing to go on with
    assert first.exit_code == 1, first.stderr
    once = target.read_bytes()

    again = ser("annotate", *options)
    assert "3 labelled, 1 without speech, 1 failed, 4 kept from before" in again.stderr
    assert again.exit_code == 1
    record = read_record(record_path(target))
    assert record["completed"] is True
    assert record["counts"]["kept"] == 4
    if suffix != "json":  # which says when a run began
        assert target.read_bytes() == once

    shutil.copy(EXAMPLES / "statement.flac", folder / "a.flac")  # new, before all others
    sf.write(folder / "d.flac", speech[: 3 * 16_000], 16_000)  # changed
    shutil.copy(EXAMPLES / "statement.flac", folder / "e.flac")  # failed before
    resumed = ser("annotate", *options)
    assert resumed.exit_code == 0, resumed.stderr
    assert "5 labelled, 1 without speech, 0 failed, 3 kept from before" in resumed.stderr
    anew = tmp_path / f"anew.{suffix}"
    assert ser("annotate", folder, "-m", "svm", "-o", anew).exit_code == 0
    # With other segments in a batch, the last digits are others.
    digits = re.compile(r"(?<!\d)0\.\d+")
    texts = [path.read_text(encoding="utf-8").split("files")[-1] for path in (target, anew)]
    assert digits.sub("x", texts[0]) == digits.sub("x", texts[1])
    numbers = [[float(one) for one in digits.findall(text)] for text in texts]
    assert len(numbers[0]) >= 10 * 7
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-3)
    before, now = (read_record(record_path(path)) for path in (target, anew))
    # Numbers with fewer digits make rows shorter.
    of_before, of_now = ([one | {"rows": None} for one in run["files"]] for run in (before, now))
    assert of_before == of_now
    # The length of a file is rounded in the record.
    same = {"kept": 0, "audio_seconds": pytest.approx(before["counts"]["audio_seconds"], abs=0.01)}
    assert now["counts"] == before["counts"] | same

    for wrong, message in (
        (("-m", "cnn", "--max-gap", "0.3"), "was made with another model: svm ("),
        (("-m", "svm", "--max-gap", "0.5"), "was made with another max_gap: 0.3, now it is 0.5"),
    ):
        refused = ser("annotate", folder, "-o", target, "--resume", *wrong)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    record_path(target).unlink()
    refused = ser("annotate", *options)
    assert refused.exit_code == 2
    assert f"expected the output of a run, and its record {target}.run.json" in (refused.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("options", [(), ("-u",)])
def test_standard_output_on_a_full_disk(options: tuple[str, ...]) -> None:
    command = [sys.executable, *options, "-m", "sercli", "annotate", str(EXAMPLES / "memo.m4a")]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [*command, "-m", "svm", "-q"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    message = b"Error: the output cannot be written: No space left on device\n"
    assert (result.returncode, result.stderr) == (2, message)


# Annotates as the command line does, and is killed when it has come to a file.
KILLED = """
import os, signal, sys
from sercli.annotation.scored import ScoredFile
from sercli.cli import main

gather = ScoredFile.gather

def killed(recording, *given):
    if recording.result.path.endswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return gather(recording, *given)

ScoredFile.gather = killed
main(sys.argv[2:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_killed_run_loses_nothing(tmp_path: Path, suffix: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    names = ["a.flac", "b.wav", "c.flac", "d.flac"]
    for name in names:
        shutil.copy(EXAMPLES / "statement.flac", folder / name)
    sf.write(folder / "b.wav", np.zeros(16_000), 16_000)
    target = out / f"labels.{suffix}"
    options = ("annotate", str(folder), "-m", "svm", "-o", str(target))

    def be_killed(at: str, *more: str) -> None:
        command = [sys.executable, "-c", KILLED, at, *options, *more]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    be_killed("a.flac")  # there is nothing to go on with
    be_killed("c.flac")
    assert len(list(out.iterdir())) == 2
    assert not target.exists()
    refused = ser(*options)
    assert refused.exit_code == 2
    assert (
        f"{target}: an earlier run that was writing it was killed; continue it with --resume"
        in (refused.stderr)
    )
    assert ser(*options, "--resume", "--max-gap", "0.5").exit_code == 2
    # Another is killed that had gone on from there.
    be_killed("d.flac", "--resume")
    (journal,) = [path for path in out.glob(".*.journal") if "c.flac" in path.read_text()]
    # What was being written when it was killed.
    for path in (journal, journal.with_suffix("")):
        with path.open("ab") as stream:
            stream.write(b'{"end": 1')
    resumed = ser(*options, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "4 files: 3 labelled, 1 without speech, 0 failed, 3 kept from before" in resumed.stderr
    assert sorted(out.iterdir()) == [target, record_path(target)]
    record = read_record(record_path(target))
    assert [Path(entry["path"]).name for entry in record["files"]] == names
    anew = tmp_path / f"anew.{suffix}"
    assert ser(*options[:-1], anew).exit_code == 0
    texts = [path.read_text(encoding="utf-8").split('"files": [')[-1] for path in (target, anew)]
    digits = re.compile(r"(?<!\d)0\.\d+")
    assert digits.sub("x", texts[0]) == digits.sub("x", texts[1])
    # From the beginning, whatever was left.
    be_killed("c.flac", "--overwrite")
    assert list(out.glob(".*"))
    assert "kept from before" not in ser(*options, "--overwrite").stderr
    assert not list(out.glob(".*"))


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sercli.output.writers import Writer

    put = Writer._put

    def write_some(self: Writer, text: str) -> None:
        if "statement.flac" in text or self.n_bytes > 2000:
            self.n_bytes = 10_000
            raise OutputError("the output cannot be written: No space left on device")
        put(self, text)

    target = tmp_path / "labels.csv"
    options = ("annotate", EXAMPLES, "-m", "svm", "-o", target)
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_put", write_some)
        full = ser(*options)
    assert full.exit_code == 2
    assert "No space left on device" in full.stderr
    assert not target.exists()
    assert read_record(tmp_path / "labels.csv.run.json")["completed"] is False
    resumed = ser(*options, "--resume")
    assert "3 labelled, 1 without speech, 0 failed, 3 kept from before" in resumed.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "labels.csv.run.json"]


def test_a_disk_that_is_full_before_the_journal_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Journal._put

    def write_some(self: Journal, data: dict[str, Any]) -> None:
        if "statement.flac" in json.dumps(data):
            self._stream.write('{"end": 1, "fi')
            raise OutputError("the journal cannot be written: No space left on device")
        put(self, data)

    def write_nothing(*_: object, **__: object) -> None:
        raise OutputError("the record cannot be written: No space left on device")

    target = tmp_path / "labels.csv"
    options = ("annotate", EXAMPLES, "-m", "svm", "-o", target)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_put", write_some)
        patch.setattr(sys.modules["sercli.output.ledger"], "write_json", write_nothing)
        full = ser(*options)
    assert full.exit_code == 2
    assert "Error: the journal cannot be written" in full.stderr  # what was first
    assert len(list(tmp_path.glob(".labels.csv.*"))) == len(list(tmp_path.iterdir())) == 2
    resumed = ser(*options, "--resume")
    assert "3 labelled, 1 without speech, 0 failed, 3 kept from before" in resumed.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "labels.csv.run.json"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["sercli.output.ledger"], "write_json", write_nothing)
        full = ser(*options, "--overwrite")
    assert (full.exit_code, "Error: the record cannot be written" in full.stderr) == (2, True)


def test_what_a_journal_tells(tmp_path: Path) -> None:
    info = RunInfo("0", {"labels": ["calm"]}, {"format": "jsonl"})
    targets = [tmp_path / "labels", tmp_path / "labels.csv"]
    entries = [{"path": "é.wav", "rows": [0, 4]}, {"path": "è.wav", "rows": [4, 6]}]
    for target in targets:
        writer = open_writer(str(target), "jsonl", info)
        with Journal(writer, info) as journal:
            for rows, entry in zip(("xxx\n", "é"), entries, strict=True):
                writer.copy(rows)
                journal.note(entry | {"rows": writer.place})
        writer.leave()
    # Cut within a character, as a disk may be full anywhere.
    (path,) = tmp_path.glob(".labels.????????.tmp.journal")
    content = path.read_bytes()
    path.write_bytes(content[: content.index("è".encode()) + 1])
    (unfinished,) = find_unfinished(targets[0])  # that of labels.csv is another's
    told = unfinished.read()
    assert (told.end, told.entries) == (4, {"é.wav": entries[0]})
    assert told.sha256 == sha256(b"xxx\n").hexdigest()
    (other,) = find_unfinished(targets[1])
    told = other.read()
    assert (told.end, [*told.entries.values()]) == (6, entries)
    assert told.sha256 == sha256("xxx\né".encode()).hexdigest()


def test_speakers_that_nobody_is_are_told(tmp_path: Path) -> None:
    options = ("annotate", EXAMPLES / "memo.m4a", "-m", "svm", "--speakers")
    told = ser(*options, "(patient[0-9]+)").stderr
    assert "warning: the speaker is not known for 2 of 2 segments\n" in told
    assert "not known" not in ser(*options, "(memo)").stderr


def test_speakers_of_the_channels_of_all_calls(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    for name in ("a.wav", "b.wav"):
        shutil.copy(EXAMPLES / "call.wav", calls / name)
    shutil.copy(EXAMPLES / "memo.m4a", calls)
    roles, target = tmp_path / "roles.csv", tmp_path / "labels.csv"
    roles.write_text("channel,speaker\n0,agent\n1,caller\n")
    options = ("annotate", calls, "-m", "svm", "--channels", "split", "--speakers", roles)
    result = ser(*options, "-o", target)
    rows = read_rows(target.read_text())
    whose = {"a.wav": {"0": "agent", "1": "caller"}, "memo.m4a": {"0": ""}}
    whose["b.wav"] = whose["a.wav"]
    for row in rows:
        assert row["speaker"] == whose[Path(row["file"]).name][row["channel"]]
    assert {row["speaker"] for row in rows} == {"agent", "caller", ""}
    n_mono = sum("memo" in row["file"] for row in rows)
    assert f"the speaker is not known for {n_mono} of {len(rows)} segments" in result.stderr
    mixed = ser("annotate", calls, "-m", "svm", "--speakers", roles)
    assert mixed.exit_code == 2
    assert f"{roles}: says who speaks in the channels of each recording, but these" in mixed.stderr
    # Other roles are other rows.
    roles.write_text("channel,speaker\n0,caller\n1,agent\n")
    ser(*options, "-o", target, "--resume")
    swapped = {"agent": "caller", "caller": "agent", "": ""}
    again = [row["speaker"] for row in read_rows(target.read_text())]
    assert again == [swapped[row["speaker"]] for row in rows]


def test_speakers_of_a_diarisation_are_those_of_a_recording(tmp_path: Path) -> None:
    for name in ("a.flac", "b.flac"):
        shutil.copy(EXAMPLES / "statement.flac", tmp_path / name)
    turns = tmp_path / "all.rttm"
    lines = [
        f"SPEAKER {name} 1 {start} 1 <NA> <NA> S0 <NA> <NA>" for name in "ab" for start in range(8)
    ]
    turns.write_text("\n".join(lines))
    table = tmp_path / "all.csv"
    rows = [f"{name}.flac,{start},{start + 1},S0" for name in "ab" for start in range(8)]
    table.write_text("\n".join(["file,start,end,speaker", *rows]))
    groups = {}
    inputs = [tmp_path / f"{name}.flac" for name in "ab"]
    for segments, speakers in ((turns, {"a/S0", "b/S0"}), (table, {"S0"})):
        target = tmp_path / f"{segments.suffix[1:]}.csv"
        options = ("-m", "svm", "--segments", segments, "--adapt", "speaker", "-o", target)
        assert ser("annotate", *inputs, *options).exit_code == 0
        files = read_record(record_path(target))["files"]
        groups[segments.suffix] = [
            (group["name"], group["segments"]) for file in files for group in file["groups"]
        ]
        assert {row["speaker"] for row in read_rows(target.read_text())} == speakers
    assert groups[".csv"] == [("S0", 16)] * 2
    assert groups[".rttm"] == [("a/S0", 8), ("b/S0", 8)]
    # Nor are they one where these rows are the segments of another run.
    labels = tmp_path / "rttm.csv"
    again = ser("annotate", *inputs, "-m", "svm", "--segments", labels, "--adapt", "speaker")
    assert again.stdout_bytes == labels.read_bytes()
    (tmp_path / "more").mkdir()
    shutil.copy(EXAMPLES / "statement.flac", tmp_path / "more" / "a.flac")
    told = ser("annotate", *inputs, tmp_path / "more", "-m", "svm", "--segments", turns)
    assert f"{turns}: several inputs match a; its segments" in told.stderr


def test_a_run_under_way_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    info = RunInfo("0", {"labels": ["calm"]}, {"format": "csv"})
    writer = open_writer(str(target), "csv", info)
    journal = Journal(writer, info)
    for option in ("--resume", "--overwrite", "-q"):
        refused = ser("annotate", EXAMPLES, "-m", "svm", "-o", target, option)
        assert refused.exit_code == 2
        assert "another run is writing it; wait for its end" in refused.stderr
    # Killed between the two.
    with journal, writer:
        pass
    with journal:
        target.unlink()
    assert ser("annotate", EXAMPLES / "memo.m4a", "-m", "svm", "-o", target).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "labels.csv.run.json"]


def test_what_is_gone_on_with_keeps_what_is_not_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("monday.flac", "tuesday.flac"):
        shutil.copy(EXAMPLES / "statement.flac", tmp_path / name)
    target = tmp_path / "all.jsonl"
    options = ("-m", "svm", "-o", target)
    assert ser("annotate", tmp_path / "monday.flac", *options).exit_code == 0
    rows = target.read_text()
    told = ser("annotate", tmp_path / "tuesday.flac", *options, "--resume")
    assert told.exit_code == 0, told.stderr
    assert "1 file of an earlier run not among the inputs: kept" in told.stderr
    assert target.read_text() == rows + rows.replace("monday", "tuesday")
    told = ser("annotate", tmp_path / "gone", *options, "--resume")
    assert told.exit_code == 1
    (tmp_path / "empty").mkdir()
    told = ser("annotate", tmp_path / "empty", *options, "--resume")
    assert told.exit_code == 0  # what was not there is not among the files
    assert target.read_text() == rows + rows.replace("monday", "tuesday")
    # In another spelling, a file is the same.
    monkeypatch.chdir(tmp_path)
    told = ser("annotate", "tuesday.flac", *options, "--resume")
    assert "2 files: 2 labelled, 0 without speech, 0 failed, 2 kept" in told.stderr
    assert target.read_text() == rows + rows.replace("monday", "tuesday")
    record = read_record(record_path(target))
    assert [Path(file["path"]).name for file in record["files"]] == ["monday.flac", "tuesday.flac"]
    assert record["completed"]
    # Another format has a record of its own, and what was renamed with its record goes on.
    assert ser("annotate", "monday.flac", "-m", "svm", "-o", tmp_path / "all.csv").exit_code == 0
    assert read_record(record_path(target)) == record
    old, labels = tmp_path / "old.jsonl", target.read_text()
    shutil.move(target, old)
    shutil.move(record_path(target), record_path(old))
    assert ser("annotate", "tuesday.flac", "-m", "svm", "-o", old, "--resume").exit_code == 0
    assert old.read_text() == labels


def test_what_broke_off_is_kept_also_when_it_is_gone(tmp_path: Path) -> None:
    whole, cut, target = tmp_path / "a.flac", tmp_path / "cut.wav", tmp_path / "labels.csv"
    shutil.copy(EXAMPLES / "statement.flac", whole)
    sf.write(cut, sf.read(whole)[0], 16_000)
    cut.write_bytes(cut.read_bytes()[:200_000])
    options = ("-m", "svm", "-o", target, "--resume")
    assert ser("annotate", cut, *options).exit_code == 1
    n_rows = len(read_rows(target.read_text()))
    assert n_rows > 0
    for _ in range(2):
        # That it failed was told then.
        told = ser("annotate", whole, *options)
        assert told.exit_code == 0
        assert "2 files: 1 labelled, 0 without speech, 1 failed" in told.stderr
        files = [row["file"] for row in read_rows(target.read_text())]
        assert files == [str(cut)] * n_rows + [str(whole)] * (len(files) - n_rows)
        cut.unlink(missing_ok=True)


def test_what_was_not_tried_and_who_is_not_known_is_told(tmp_path: Path) -> None:
    files = (EXAMPLES / "statement.flac", tmp_path / "gone.wav", EXAMPLES / "memo.m4a")
    told = ser("annotate", *files, "-m", "svm", "--on-error", "stop")
    assert "stopped at a file that failed: 1 file not tried" in told.stderr
    options = ("-m", "svm", "--adapt", "speaker", "--speakers", "(statement)")
    told = ser("annotate", files[0], files[2], *options)
    n_unknown = sum(not row["speaker"] for row in read_rows(told.stdout))
    n_rows = len(read_rows(told.stdout))
    assert f"the speaker is not known for {n_unknown} of {n_rows} segments" in told.stderr
    assert 0 < n_unknown < n_rows
    assert "not known who speaks" not in ser("annotate", files[0], *options).stderr


def test_quiet_tells_errors_alone(tmp_path: Path) -> None:
    samples = sf.read(EXAMPLES / "statement.flac")[0]
    samples[1000] = np.nan
    sf.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    told = ser("annotate", tmp_path / "nan.wav", tmp_path / "gone.wav", "-m", "svm")
    assert "nan.wav: 1 samples are NaN, infinite or huge, and were set to silence" in told.stderr
    told = ser("annotate", tmp_path / "nan.wav", tmp_path / "gone.wav", "-m", "svm", "-q")
    assert told.stderr == f"failed: {tmp_path}/gone.wav: does not exist\n"


def test_a_missing_file_is_recorded(tmp_path: Path) -> None:
    result = ser("annotate", tmp_path / "gone.wav", EXAMPLES / "memo.m4a", "-v")
    assert result.exit_code == 1
    assert f"failed: {tmp_path}/gone.wav: does not exist" in result.stderr
    assert "memo.m4a: ok, " in result.stderr
    assert len(read_rows(result.stdout)) > 0


def test_idle_workers_end_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> list[Any]:
        for text in ("A worker stopped while some jobs were given to it.", "something else"):
            warnings.warn(text, UserWarning, stacklevel=1)
        return []

    monkeypatch.setattr(sys.modules["sercli.cli.models"], "list_models", warn)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ser("models")
    assert [str(one.message) for one in found] == ["something else"]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from sercli.annotation.scored import ScoredFile

    gather = ScoredFile.gather

    def interrupted(recording: Any, *given: Any) -> Any:
        if recording.result.path.endswith("statement.flac"):
            signal.raise_signal(number)
        return gather(recording, *given)

    monkeypatch.setattr(ScoredFile, "gather", interrupted)
    target = tmp_path / "labels.csv"
    result = ser("annotate", EXAMPLES, "-o", target)
    assert result.exit_code == 130
    assert "interrupted after 3 of 4 files" in result.stderr
    rows = read_rows(target.read_bytes().decode())
    assert {Path(row["file"]).name for row in rows} == {"call.wav", "memo.m4a"}
    record = read_record(tmp_path / "labels.csv.run.json")
    assert (record["completed"], record["counts"]["files"]) == (False, 3)


@pytest.mark.usefixtures("interruptible")
def test_what_is_kept_outlasts_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sercli.annotation.scored import ScoredFile

    target = tmp_path / "labels.csv"
    options = ("-m", "svm", "-o", target, "--resume")
    memo = ser("annotate", EXAMPLES / "memo.m4a", *options)
    assert memo.exit_code == 0, memo.stderr
    rows = target.read_bytes()

    def interrupted(recording: Any, *given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ScoredFile, "gather", interrupted)
        assert ser("annotate", EXAMPLES, *options).exit_code == 130
    assert target.read_bytes() == rows
    record = read_record(tmp_path / "labels.csv.run.json")
    assert [Path(entry["path"]).name for entry in record["files"]] == ["memo.m4a"]
    done = ser("annotate", EXAMPLES, *options)
    assert done.exit_code == 0, done.stderr
    assert "4 files: 3 labelled, 1 without speech, 0 failed, 1 kept from before" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("annotate", "-q", str(EXAMPLES)), ("models", "--json"), ("eval", "--help")]
)
def test_a_closed_pipe_ends_quietly(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sercli", *arguments]
    with open(writer, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "sercli", "annotate", "-q", str(EXAMPLES)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"Error: the output cannot be written: No space left on device\n"


def test_streams_that_are_closed(tmp_path: Path) -> None:
    command = f"{sys.executable} -m sercli annotate -m svm {EXAMPLES / 'memo.m4a'}"
    closed = subprocess.run(f"{command} >&-", shell=True, capture_output=True, check=False)
    assert closed.returncode == 2
    assert closed.stderr == b"Error: standard output is closed; expected a file, by -o FILE\n"
    target = tmp_path / "labels.csv"
    silent = subprocess.run(f"{command} -o {target} 2>&-", shell=True, check=False)
    assert silent.returncode == 0
    assert len(read_rows(target.read_text(encoding="utf-8"))) > 0


class Unwritable(io.StringIO):
    """Standard output that cannot be written, of a number that tells why."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def run_without_output(
    number: int, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> object:
    """Return the exit code of a command whose standard output cannot be written."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Unwritable(number))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    return ended.value.code


FULL = f"Error: standard output cannot be written: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("annotate", "--help"), ("models",), ("models", "--json")],
)
def test_what_cannot_be_printed(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_without_output(errno.ENOSPC, monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == FULL


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--help",), ""),
        (("--version",), ""),
        (("train", "--help"), ""),
        (("models",), "your own models are searched for in "),
        (("bench", EXAMPLES / "memo.m4a", "-m", "svm", "-q"), ""),
    ],
)
def test_what_nobody_reads_to_its_end(
    arguments: tuple[str | Path, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_without_output(errno.EPIPE, monkeypatch, *arguments) == 0
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert bool(error) == bool(said)


def test_figures_that_nobody_reads_to_their_end(
    trained: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--jobs", "1", "--split")
    for arguments in (
        ("eval", corpus, "-m", trained, *options, "dev"),
        ("eval", corpus, "-m", trained, "--json", *options, "dev"),
        ("eval", corpus, "--compare", trained, "svm", *options, "dev"),
    ):
        assert run_without_output(errno.EPIPE, monkeypatch, *arguments) == 0
        assert "Intervals from 5 speakers are too narrow." in capsys.readouterr().err
    # What comes after them is done and told, and counts.
    arguments = ("eval", corpus, "-m", trained, *options, "test")
    assert run_without_output(errno.EPIPE, monkeypatch, *arguments) == 1
    assert "1048_IEO_ANG_LO.wav: is empty" in capsys.readouterr().err


def test_what_is_said_to_nobody(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    reader, writer = os.pipe()
    os.close(reader)
    options = ("-m", "svm", "-o", str(target), "-v")
    command = [sys.executable, "-m", "sercli", "annotate", str(EXAMPLES / "memo.m4a"), *options]
    with open(writer, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=pipe, check=False)
    assert done.returncode == 0
    assert len(read_rows(target.read_text(encoding="utf-8"))) > 0


def test_figures_that_cannot_be_printed(
    trained: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--split", "dev", "--jobs", "1", "-q")
    report, model = tmp_path / "report", tmp_path / "model"
    for arguments in (
        ("eval", corpus, "-m", trained, "-o", report, *options),
        ("eval", corpus, "--compare", trained, report, *options),
    ):
        assert run_without_output(errno.ENOSPC, monkeypatch, *arguments) == 2
        assert capsys.readouterr().err == FULL
    assert set(REPORT) < set(os.listdir(report))
    training = ("train", "--data", corpus, "-o", model, "--jobs", "1", "--no-adapter")
    assert run_without_output(errno.ENOSPC, monkeypatch, *training) == 2
    assert capsys.readouterr().err.endswith(f"model in {model}\n{FULL}")
    assert set(REPORT) < set(os.listdir(model))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_streams_that_nothing_can_be_printed_on(trained: Path, corpus: Path) -> None:
    # In processes of their own: these are started with the streams of this one.
    measure = f"{sys.executable} -m sercli eval {corpus} -m {trained} --split dev -q --jobs 2"
    listed = f"{sys.executable} -m sercli models"
    for command, error in (
        (f"{listed} > /dev/full", FULL),
        (f"{measure} > /dev/full", FULL),
        (f"{listed} >&-", "Error: standard output cannot be written: it is closed\n"),
        (f"{measure} >&-", "Error: standard output cannot be written: it is closed\n"),
    ):
        done = subprocess.run(command, shell=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr.decode()) == (2, error)
    silent = subprocess.run(f"{measure} 2>&-", shell=True, capture_output=True, check=False)
    assert silent.returncode == 0
    assert b"mine on cremad dev: 30 clips" in silent.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("annotate", ""), "an argument is empty; expected a value"),
        (("annotate", "a.wav", "--speakers", ""), "--speakers is empty; expected a value"),
        (("annotate", "a.wav", "--speakers="), "--speakers is empty; expected a value"),
        (("annotate", "-q", ""), "an argument is empty"),
        (("eval", "corpus", "-o", ""), "-o is empty"),
        (("export", "labels.csv", "--format", "srt", "-o", ""), "-o is empty"),
        (("train", "--data", "", "-o", "model"), "--data is empty"),
        (("annotate", "a.wav", "-q", "-v"), "--quiet and --verbose exclude each other"),
        (("annotate", "a.wav", "--overwrite"), "--overwrite goes with -o FILE"),
        (("eval", "corpus", "--overwrite"), "--overwrite goes with -o DIR"),
        (("eval", "corpus", "--seed", "4294967296"), "not in the range 0<=x<=4294967295"),
    ],
)
def test_values_that_would_do_something_else(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ser(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_output_never_replaces_what_is_read(tmp_path: Path) -> None:
    recording, turns = tmp_path / "a.wav", tmp_path / "turns.csv"
    shutil.copy(EXAMPLES / "call.wav", recording)
    turns.write_text("file,start,end\na.wav,1,3\n")
    before = recording.read_bytes(), turns.read_bytes()
    for target in (recording, turns):
        result = ser(
            *("annotate", recording, "-m", "svm", "--segments", turns, "--format", "csv"),
            *("-o", target, "--overwrite"),
        )
        assert result.exit_code == 2
        assert f"{target}: is also an input; expected another output" in result.stderr
    assert (recording.read_bytes(), turns.read_bytes()) == before
    listed = tmp_path / "list.csv"
    listed.write_text(f"{recording}\n")
    result = ser("annotate", "-m", "svm", "--files-from", listed, "-o", listed, "--overwrite")
    assert (result.exit_code, listed.read_text()) == (2, f"{recording}\n")
    assert f"{listed}: is also an input; expected another output" in result.stderr


def test_speakers_that_the_encoding_of_a_pipe_lacks(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.csv"
    rows = (
        f"{EXAMPLES / 'statement.flac'},{emotion},{who},{start},{start + 1}"
        for start, (emotion, who) in enumerate(product(("anger", "fear"), ("Łukasz", "Анна")), 2)
    )
    corpus.write_text("\n".join(("file,emotion,speaker,start,end", *rows)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sercli", "eval", str(corpus), "-m", "svm", "-q"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u0141ukasz" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="no name has a line feed on Windows")
def test_a_name_with_line_feeds_is_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "evil\nfailed: good.wav"
    path.touch()
    result = ser("annotate", path, "-m", "svm")
    assert result.stderr.startswith(f"failed: {tmp_path}/evil\\x0afailed: good.wav: ")
    assert len(result.stderr.splitlines()) == 2


def test_what_is_no_text_is_recorded(tmp_path: Path) -> None:
    target = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv")
    options = ("-m", "svm", "--include", os.fsdecode(b"*\xe9*"), "--include", "*.m4a")
    done = process("annotate", EXAMPLES, *options, "-o", target)
    assert done.returncode == 0, done.stderr
    record = read_record(Path(f"{target}.run.json"))
    assert record["options"]["output"] == f"{tmp_path}/caf\\xe9.csv"
    assert record["options"]["include"] == ["*\\xe9*", "*.m4a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [Path(target).name, f"{Path(target).name}.run.json"]
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_segments_are_told_apart_by_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, target = tmp_path / "turns.csv", tmp_path / "labels.csv"
    monkeypatch.chdir(tmp_path)
    recording = EXAMPLES / "call.wav"
    turns.write_text(f"file,start,end\n{recording},1,3\n")
    options = ("annotate", recording, "-m", "svm", "-o", target)
    assert ser(*options, "--segments", turns).exit_code == 0
    # However it is named.
    again = ser(*options, "--segments", "./turns.csv", "--resume")
    assert again.exit_code == 0, again.stderr
    assert "1 kept from before" in again.stderr
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    content = f"file,start,end\n{recording},1,4\n"
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    anew = process(*options, "--segments", pipe, "--resume")
    writer.join()
    assert anew.returncode == 0
    assert b"kept from before" not in anew.stderr
    assert [(row["start"], row["end"]) for row in read_rows(target.read_text())] == [
        ("1.000", "4.000")
    ]


def test_names_do_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from sercli.cli.console import say

    say("a\x1b[2Jb\r\x9bc\td\ne é")
    assert capsys.readouterr().err == "a\\x1b[2Jb\\x0d\\x9bc\td\ne é\n"
    # Nor turn the direction of what follows, or break a line; joined letters stay what they are.
    say("a\u202egpj.\u2066b\u2028c\u2029d\u200fe\u061c \u0646\u200c \u200d")
    assert capsys.readouterr().err == (
        "a\\u202egpj.\\u2066b\\u2028c\\u2029d\\u200fe\\u061c \u0646\u200c \u200d\n"
    )


def test_names_in_a_table_on_a_terminal() -> None:
    from sercli.cli.models import _render_table

    assert "a\\u202e\\x1b[2J" in _render_table([("a\u202e\x1b[2J", *"bcdefghi")])


@pytest.mark.parametrize("width", [40, 80, 150])
def test_words_of_a_table_are_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    from sercli.cli.models import _render_table

    monkeypatch.setenv("COLUMNS", str(width))
    rows = [_row(one, set()) for one in list_models()]
    lines = re.sub("\x1b\\[[0-9;]*m", "", _render_table(rows)).splitlines()
    words = {word for line in lines for word in line.split()}
    assert words >= {"anger,", "happiness,", "sadness", "intended,", "perceived", "transformer"}
    assert max(map(len, lines)) <= max(width, 80)
    assert (len(lines) == 1 + len(rows)) is (width == 150)


def test_names_are_data_as_they_are(tmp_path: Path) -> None:
    name = "a\u202e\u2028b.wav"
    sf.write(tmp_path / name, np.zeros(16_000), 16_000)
    (tmp_path / f"c{name}").write_bytes(b"RIFF")
    result = ser("annotate", tmp_path, "-m", "svm", "--format", "json", "-v")
    assert [one["path"] for one in json.loads(result.stdout)["files"]] == [
        str(tmp_path / name),
        str(tmp_path / f"c{name}"),
    ]
    assert "a\\u202e\\u2028b.wav: no speech" in result.stderr
    assert not {"\u202e", "\u2028"} & set(result.stderr)


def test_models_with_names_like_markup_and_speakers_that_are_shared(tmp_path: Path) -> None:
    shared = ModelEntry(
        "svm[v2]", "user", tmp_path, uar=0.5, measured_on="toy test", protocol="speakers shared"
    )
    lost = ModelEntry("old", "user", tmp_path, error="old[/x]: lacks :cat: a file")
    page = _render_table([_row(one, set()) for one in (shared, lost)])
    plain = " ".join(re.sub("\x1b\\[[0-9;]*m", "", page).split())
    for text in ("svm[v2]", "toy test,", "speakers shared", "old[/x]:", ":cat:"):
        assert text in plain


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_MODELS", str(tmp_path))
    result = ser("models")
    header, *rows = (line.split("\t") for line in result.stdout.splitlines())
    assert header[:6] == ["name", "origin", "family", "UAR", "measured on", "MB"]
    assert header[6:] == ["target", "adapts", "labels"]
    families = {"best": "fusion", "cnn": "fusion", "svm": "svm", "transformer": "transformer"}
    assert [row[:3] for row in rows] == [[name, "shipped", families[name]] for name in families]
    data = json.loads(ser("models", "--json").stdout)
    for row, entry in zip(rows, data, strict=True):
        assert row[4] == "cremad test"
        perceives = row[0] != "svm"
        assert row[6] == "intended" + perceives * ",perceived"
        assert row[7:] == ["yes", ",".join(EMOTIONS)]
        assert float(row[3]) == pytest.approx(entry["uar"], abs=5e-4)
    # One of one's own hides the shipped one of its name, and tells what it lacks.
    shutil.copytree(shipped_folder() / "cnn", tmp_path / "cnn")
    (tmp_path / "cnn" / "adapter.safetensors").unlink()
    rows = [line.split("\t") for line in ser("models").stdout.splitlines()]
    assert [row[1] for row in rows if row[0] == "cnn"] == ["shipped, hidden by yours", "user"]
    assert rows[-1][-1] == f"{tmp_path / 'cnn'}: lacks adapter.safetensors; copy the folder again"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, speech: NDArray[np.float32]) -> Path:
    """A corpus of CREMA-D's shape: its speakers differ in pitch, its emotions in tempo."""
    folder = tmp_path_factory.mktemp("corpus")
    codes = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    for actor in (1001, 1002, 1003, 1004, 1005, 1049, 1053, 1054, 1055, 1058, 1048):
        for index, code in enumerate(codes):
            start = 17_000 + 11 * (actor - 1000)
            piece = speech[start : start + 24_000]
            step = np.arange(0, len(piece) - 1, 0.75 + 0.1 * index)
            sped = np.interp(step, np.arange(len(piece)), piece)
            sf.write(folder / f"{actor}_IEO_{code}_XX.wav", sped, 16_000)
    (folder / "1048_IEO_ANG_LO.wav").touch()
    return folder


REPORT = ["metrics.json", "predictions.csv", "report.html", "report.md"]
MODEL = ["README.md", "held_out.csv", "manifest.csv", "model.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the speakers of `train`, and was not measured."""
    model = tmp_path_factory.mktemp("models") / "mine"
    result = ser("train", "--data", corpus, "-o", model, "--jobs", "1", "--no-test")
    assert result.exit_code == 0, result.stderr
    assert "by cross-validation on the training clips" in result.stderr
    return model


def test_train_writes_a_model_that_can_be_made_again(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    assert sorted(os.listdir(trained)) == MODEL
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert "30 clips of 5 speakers; splits: `train`" in card
    command = "ser train --data cremad:PATH --model svm --split speaker --fit-on train --seed 0"
    assert f"`{command} -o mine`" in card
    assert ser("train", "--data", corpus, "-o", trained).exit_code == 2
    again = tmp_path / "again"
    options = ("-o", again, "--jobs", "1", "--no-test", "-q")
    result = ser("train", "--data", f"cremad:{corpus}", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    for name in ("model.json", "weights.safetensors", "manifest.csv"):
        assert (again / name).read_bytes() == (trained / name).read_bytes()


def test_training_in_python_is_that_of_the_command(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    config = sercli.TrainConfig(sercli.SvmConfig(jobs=1), test=False)
    result = sercli.train(str(corpus), tmp_path / "mine", config, say=said.append)
    assert (result.evaluation, result.failed, result.classifier.name) == (None, {}, "mine")
    assert "training the adapter for baselines" not in " ".join(said)  # five speakers are too few
    for name in ("held_out.csv", "weights.safetensors", "manifest.csv"):
        assert (tmp_path / "mine" / name).read_bytes() == (trained / name).read_bytes()
    own, commanded = (read_record(one / "model.json") for one in (tmp_path / "mine", trained))
    assert "command" not in own["training"]
    assert own["training"] == {k: v for k, v in commanded["training"].items() if k != "command"}
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "none: trained from Python" in card
    with pytest.raises(OutputError, match=r"mine/model\.json: already exists"):
        sercli.train(corpus, tmp_path / "mine", config)
    # What is in a folder without a model is somebody's own.
    for name in ("README.md", "manifest.csv", "history.csv", "speakers.png"):
        folder = tmp_path / "own" / name
        folder.mkdir(parents=True)
        (folder / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{re.escape(name)}: already exists"):
            sercli.train(corpus, folder, config)
        assert [one.read_text() for one in folder.iterdir()] == ["mine"]
    partly = Path(shutil.copytree(corpus, tmp_path / "partly"))
    broken = min(partly.rglob("1048*.wav"))
    broken.write_text("no audio")
    measured = sercli.train(partly, tmp_path / "mine", sercli.SvmConfig(jobs=1), overwrite=True)
    assert [*measured.failed] == [str(broken)]
    assert measured.evaluation is not None
    figures = measured.evaluation.figures
    assert (figures["protocol"], figures["speakers"]) == ("speakers apart", ["1048"])
    assert read_record(tmp_path / "mine" / "metrics.json") == figures
    with pytest.raises(ConfigError, match=r"folds is 1"):
        sercli.train(corpus, tmp_path / "other", sercli.TrainConfig(folds=1))
    with pytest.raises(DatasetError, match="expected"):
        sercli.train(tmp_path / "no", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_eval_writes_a_report(trained: Path, corpus: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    options = ("--json", "--jobs", "1", "--baseline", "--precisions", "fp32")
    result = ser("eval", corpus, "-m", trained, "-o", report, *options)
    assert result.exit_code == 1  # a clip of the test speaker is empty
    assert "1048_IEO_ANG_LO.wav: is empty" in result.stderr
    assert "There are no intervals: all clips are of one speaker." in result.stderr
    figures = json.loads(result.stdout)
    assert figures == read_record(report / "metrics.json")
    schema = json.loads((Path(sercli.__file__).parent / "data/metrics.schema.json").read_text())
    jsonschema.validate(figures, schema)
    assert figures["precisions"]["fp32"]["change"] == 0
    assert [figures[key] for key in ("corpus", "split", "speakers")] == ["cremad", "test", ["1048"]]
    assert figures["protocol"] == "speakers apart"
    assert figures["n_segments"] == 6
    settings = {"target": "intended", "adapt": "none", "precision": "fp32"}
    assert {key: figures[key] for key in settings} == settings
    text = (report / "report.md").read_text(encoding="utf-8")
    assert all(re.search(rf"\| {key} +\| {settings[key]} +\|", text) for key in settings)
    assert figures["uar"] > 0.6
    assert set(REPORT) | {"confusion.png", "confusion.svg"} < set(os.listdir(report))
    rows = read_rows((report / "predictions.csv").read_text(encoding="utf-8"))
    assert [row["clip"][5:] for row in rows] == [
        f"IEO_{code}_XX" for code in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    ]
    right = sum(row["expected"] == row["emotion"] for row in rows)
    assert right / 6 == pytest.approx(figures["accuracy"])
    assert ser("eval", corpus, "-m", trained, "-o", report).exit_code == 2


def test_a_model_beside_a_corpus_is_measured_whatever_report_it_has(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    model = tmp_path / "mine"
    shutil.copytree(trained, model)
    report = ser("eval", corpus, "-m", model, "-o", model, "--split", "test", "--overwrite")
    assert (model / "metrics.json").exists(), report.stderr
    options = ("eval", corpus, "--split", "train", "--compare", "svm", model, "--json", "-q")
    result = ser(*options)
    assert result.exit_code in (0, 1), result.stderr
    both = {one["name"]: one for one in json.loads(result.stdout)["models"]}
    alone = json.loads(ser("eval", corpus, "--split", "train", "-m", model, "--json").stdout)
    assert both["mine"]["uar"] == alone["uar"]
    # What was measured of another model is not that of the new one.
    again = ser("train", "--data", corpus, "-o", model, "--no-test", "--no-adapter", "--overwrite")
    assert again.exit_code in (0, 1), again.stderr
    assert not (model / "metrics.json").exists()
    assert not [path for path in model.iterdir() if path.suffix in (".png", ".svg")]
    assert not (model / "predictions.csv").exists()


def test_numbers_of_processes(corpus: Path, tmp_path: Path) -> None:
    for options in (("eval", corpus, "-m", "svm"), ("train", "--data", corpus, "-o", tmp_path)):
        for jobs in ("0", "-2", "100000"):
            result = ser(*options, "--jobs", jobs)
            assert result.exit_code == 2
            assert f"jobs is {jobs}; expected 1 to " in result.stderr


def test_progress_is_told_of_the_number_that_is_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sercli.cli.console.PROGRESS_INTERVAL_S", 0)
    with Progress("clips") as progress:
        progress.expect(4)
        progress.advance()
        progress.advance(3)
    assert capsys.readouterr().err == "1/4 clips\n4/4 clips\n"


def test_eval_tells_what_the_model_multiplied(corpus: Path) -> None:
    for precision in ("fp32", "bf16"):
        result = ser("eval", corpus, "-m", "cnn", "--precision", precision, "--json", "-q")
        assert json.loads(result.stdout)["precision"] == precision


def test_eval_prints_tables_and_tells_of_leaks(trained: Path, corpus: Path) -> None:
    result = ser("eval", corpus, "-m", trained, "--split", "dev", "--jobs", "1")
    assert "mine on cremad dev: 30 clips of 5 speakers; speakers apart" in result.stdout
    assert "macro-F1" in result.stdout
    assert "warning: mine: Intervals from 5 speakers are too narrow." in result.stderr
    result = ser("eval", corpus, "-m", trained, "--split", "train", "--jobs", "1")
    assert "5 speakers; speakers shared" in result.stdout
    assert (
        "The model was trained on 5 speakers and 30 clips of the evaluation data" in result.stderr
    )
    assert "--split new" not in result.stderr  # there is nobody else
    result = ser("eval", corpus, "-m", trained, "--split", "all", "--jobs", "1")
    assert "--split new measures only on speakers that mine was not trained on" in result.stderr
    result = ser("eval", corpus, "-m", trained, "--split", "train", "--strict")
    assert result.exit_code == 2
    assert "model mine: was trained on 5 speakers of the evaluation data" in result.stderr


def test_eval_in_quiet_says_what_makes_figures_wrong(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    table = tmp_path / "two.csv"
    rows = [
        f"{corpus}/1049_IEO_ANG_XX.wav,anger",
        f"{corpus}/1053_IEO_SAD_XX.wav,sadness",
        f"{corpus}/1053_IEO_NEU_XX.wav,bored",
    ]
    table.write_text("\n".join(("file,emotion", *rows)), encoding="utf-8")
    options = ("eval", table, "-m", trained, "--jobs", "1")
    told = ser(*options).stderr
    assert "1 clip of boredom left out: mine has no such label" in told
    assert "--split new" not in told
    assert "warning: mine: Speakers are unknown" in told
    assert ser(*options, "-q").stderr == ""
    gone = tmp_path / "gone.wav"
    gone.touch()
    table.write_text("\n".join(("file,emotion", *rows, f"{gone},anger")), encoding="utf-8")
    assert ser(*options, "-q").stderr.splitlines() == [
        f"failed: {gone}: is empty (0 bytes); expected an audio or video file"
    ]
    # What the model knows is no matter of how sure figures are.
    shared = ("--split", "train", "--jobs", "1", "-q")
    known = (
        "The model was trained on 5 speakers and 30 clips of the evaluation data: its figures are "
        "too good."
    )
    report = tmp_path / "report"
    result = ser("eval", corpus, "-m", trained, "-o", report, *shared)
    assert result.stderr == f"warning: mine: {known}\n"
    result = ser("eval", corpus, "--compare", trained, "svm", *shared)
    too_good = "speakers shared: its figures may be too good."
    lines = result.stderr.splitlines()
    assert f"warning: mine: {too_good}" in lines
    assert f"warning: mine: {known}" in lines
    assert not [line for line in lines if "too good" not in line]
    again = tmp_path / "again" / "mine"
    shutil.copytree(trained, again)
    result = ser("eval", corpus, "--compare", trained, again, *shared)
    assert {f"warning: mine ({number}): {known}" for number in (1, 2)} < {
        *result.stderr.splitlines()
    }
    result = ser("eval", "--compare", report, report, "-q")
    assert set(result.stderr.splitlines()) == {
        f"warning: mine (report) ({number}): {too_good}" for number in (1, 2)
    }


def test_labels_that_another_compared_model_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    figures: dict[str, Any] = {
        "warnings": [],
        "overlap": None,
        "adapt": "none",
        "labels_left_out": {"model": ["bliss", "fear"], "corpus": {"bliss": 3, "calm": 1}},
    }
    _tell_limits("mine", figures)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "3 clips of bliss left out: not every compared model has this label",
        "1 clip of calm left out: mine has no such label",
    ]


@pytest.fixture(scope="module")
def adapted(trained: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, that knows what to make of a baseline, too."""
    model = tmp_path_factory.mktemp("models") / "adapted"
    options = ("--members", trained, "--fit-on", "train+dev", "--no-test")
    cache = ("--cache", model.parent / "cache", "--repeated-share", "0")
    with pytest.MonkeyPatch.context() as patch:
        # On so few clips, all of which are right, it is 0 or not by chance.
        patch.setattr(
            adaptation, "fit_sharpening", lambda *given: (fit_sharpening(*given)[0], 0.25)
        )
        result = ser("train", "--data", corpus, "-m", "adapter", *options, *cache, "-o", model)
    assert result.exit_code == 0, result.stderr
    assert (
        "training the adapter for baselines, with 15% of the groups of one emotion" in result.stderr
    )
    return model


def test_a_training_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    table = tmp_path / "calm.csv"
    table.write_text("file,emotion\na.flac,neutral\nb.flac,neutral\n")
    for name in ("a.flac", "b.flac"):
        shutil.copy(EXAMPLES / "statement.flac", tmp_path / name)
    result = ser("train", "--data", table, "-o", tmp_path / "mine", "--split", "random")
    assert result.exit_code == 2
    assert "calm: all 2 clips are labelled neutral; expected two or more labels" in result.stderr
    assert not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    assert ser("train", "--data", table, "-o", tmp_path / "mine").exit_code == 2
    assert (tmp_path / "mine").is_dir()


def test_train_an_adapter_of_a_model(adapted: Path, trained: Path, corpus: Path) -> None:
    before, after = (read_record(folder / "model.json") for folder in (trained, adapted))
    told = after["training"].pop("adapter")
    kept = ("family", "labels", "calibration", "settings", "versions")
    assert [after[key] for key in kept] == [before[key] for key in kept]
    settings = after["adapter"]["settings"]
    sharpening = settings.pop("sharpening")
    adapter = load_model(adapted).adapter
    assert adapter is not None
    assert adapter.settings.sharpening == sharpening == 0.25
    assert settings == {"least": 6, "shrinkage": 5.0, "safe": told["safe"]}
    manifest = after["training"].pop("manifest_sha256"), before["training"].pop("manifest_sha256")
    assert manifest[0] != manifest[1]
    assert after["training"] == before["training"]
    assert told["splits"] == ["train", "dev"]
    command = "ser train --data cremad:PATH --model adapter --members mine --repeated-share 0 "
    assert told["command"].startswith(command)
    assert told["config"]["repeated_share"] == 0.0
    assert {row["mix"] for row in told["mixes"]} == {
        EVEN,
        SINGLE,
        *(f"{n}% neutral" for n in (50, 80, 100)),
    }
    card = (adapted / "README.md").read_text(encoding="utf-8")
    assert "## With a baseline" in card
    files = sorted(os.listdir(trained))
    assert sorted(os.listdir(adapted)) == sorted([*files, "adapter.safetensors"])
    for name in ("held_out.csv", "weights.safetensors"):
        assert (adapted / name).read_bytes() == (trained / name).read_bytes()
    assert f"`{told['command'].replace('NAME', 'adapted')}`" in card
    waveform = load_audio(next(corpus.glob("1001*")))
    probabilities = [load_model(one).predict_proba([waveform]) for one in (trained, adapted)]
    np.testing.assert_array_equal(probabilities[1], probabilities[0])


def test_settings_of_members_arrive(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []

    def refuse(_: Any, config: sercli.TrainConfig) -> None:
        planned.append(config.settings)
        raise ConfigError("planned")

    monkeypatch.setattr("sercli.training.plan.Plan.make", refuse)
    start = ("train", "--data", corpus, "-o", "nowhere", "-m")
    for options in (
        ("adapter", "--members", "cnn", "--repeated-share", "0.25"),
        ("adapter", "--members", "cnn"),
        ("fusion", "--members", "svm,cnn", "--equal-weights"),
        ("fusion", "--members", "svm,cnn", "--copy-members"),
        ("cnn", "--dynamic-range", "60"),
    ):
        assert "planned" in ser(*start, *options).stderr
    assert [one.repeated_share for one in planned[:2]] == [0.25, None]
    assert [(one.equal_weights, one.copy_members) for one in planned[2:4]] == [
        (True, False),
        (False, True),
    ]
    assert planned[4].dynamic_range == 60
    for share in ("1.5", "-0.1", "x"):
        result = ser(*start, "adapter", "--members", "cnn", "--repeated-share", share)
        assert (result.exit_code, "--repeated-share" in result.stderr) == (2, True)


def test_train_an_adapter_of_what_cannot_have_one(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    options = ("train", "--data", corpus, "-m", "adapter", "--cache", tmp_path / "cache")
    for more, message in (
        (("--members", f"{trained},svm", "-o", tmp_path / "a"), "2 are named; expected one"),
        (("-o", tmp_path / "a"), "0 are named; expected one"),
        (
            ("--members", trained, "-o", trained, "--overwrite", "--fit-on", "train+dev"),
            "is the folder of the model itself",
        ),
        (
            ("--members", trained, "-o", tmp_path / "a"),
            "clips of 6 known speakers or more; found 5; train on more, with "
            "--fit-on train+dev or --folds",
        ),
        (("--members", trained, "-o", tmp_path / "a", "--no-adapter"), "does not go with"),
        (
            ("--members", "svm", "--fit-on", "train+dev", "-o", tmp_path / "a"),
            "has no held-out probabilities for them; retrain it",
        ),
    ):
        result = ser(*options, *more)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_eval_by_baselines(adapted: Path, corpus: Path, tmp_path: Path) -> None:
    options = ("--split", "all", "--json", "-q", "--jobs", "1", "-m", adapted)
    figures = {
        adapt: json.loads(ser("eval", corpus, *options, "--adapt", adapt).stdout)
        for adapt in ("none", "recording", "channel", "speaker", "corpus", "auto")
    }
    told = {adapt: row["adapt"] for adapt, row in figures.items()}
    assert told == {adapt: adapt for adapt in figures} | {"auto": "speaker"}
    # A clip is too short to have a baseline, and who speaks is known.
    assert figures["recording"]["uar"] == figures["none"]["uar"]
    assert figures["auto"]["nll"] == figures["speaker"]["nll"]
    assert len({figures[one]["nll"] for one in ("none", "speaker", "corpus")}) == 3
    assert all(row["mixes"] is None for row in figures.values())
    report = tmp_path / "report"
    result = ser("eval", corpus, *options[:2], "-m", adapted, "--mix", "-o", report, "--jobs", "1")
    assert "by baseline" in result.stdout
    measured = read_record(report / "metrics.json")
    schema = json.loads((Path(sercli.__file__).parent / "data/metrics.schema.json").read_text())
    jsonschema.validate(measured, schema)
    row = next(row for row in measured["mixes"] if row["mix"] == EVEN and row["size"] == 10)
    assert (row["groups"], row["mean_size"]) == (11 * 20, 6.0)
    assert row["alone"]["uar"] == pytest.approx(measured["uar"])
    assert row["adapted"]["uar"] == pytest.approx(figures["speaker"]["uar"])
    assert "## Groups" in (report / "report.md").read_text(encoding="utf-8")


def test_eval_each_side_of_a_call(adapted: Path, corpus: Path, tmp_path: Path) -> None:
    # Two speakers in a recording, each in a channel, of which the table names the stretches.
    sides, rows = [], ["file,emotion,speaker,start,end,channel"]
    for channel, speaker in enumerate(("1001", "1002")):
        parts, at = [], 0.0
        for path in sorted(corpus.glob(f"{speaker}_*.wav"))[:6]:
            samples, rate = sf.read(path)
            end = at + len(samples) / rate
            label = "anger" if "_ANG" in path.name else "sadness"
            rows.append(f"call.wav,{label},{speaker},{at:.6f},{end:.6f},{channel}")
            parts.append(samples)
            at = end
        sides.append(np.concatenate(parts))
    length = min(map(len, sides))
    sf.write(tmp_path / "call.wav", np.stack([one[:length] for one in sides], axis=1), rate)
    table = tmp_path / "call.csv"
    table.write_text("\n".join(rows))
    options = ("--split", "all", "--json", "-q", "--jobs", "1", "-m", adapted)
    ways = ("none", "channel", "speaker", "recording", "auto")
    nll = {
        way: json.loads(ser("eval", table, *options, "--adapt", way).stdout)["nll"] for way in ways
    }
    assert nll["channel"] == nll["speaker"] == nll["auto"]
    assert len({nll[way] for way in ("none", "channel", "recording")}) == 3
    # Of whom it is not known who speaks, but where.
    unknown = re.sub(",100[12],", ",,", "\n".join(rows))
    table.write_text(unknown)
    figures = json.loads(ser("eval", table, *options, "--adapt", "auto").stdout)
    assert figures["nll"] == nll["channel"]


def test_annotate_by_baselines(adapted: Path, corpus: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for clip in sorted(corpus.glob("10*_NEU_*"))[:6]:
        shutil.copy(clip, clips / clip.name)
    options = ("-m", adapted, "--overwrite", "--segment", "file")
    rows = {}
    for adapt in (("none",), ("auto",), ("corpus",), ("speaker", "--speakers", "(10)")):
        target = tmp_path / "labels.csv"
        result = ser("annotate", clips, *options, "-o", target, "--adapt", *adapt)
        assert result.exit_code == 0, result.stderr
        rows[adapt[0]] = read_rows(target.read_bytes().decode())
        record = read_record(tmp_path / "labels.csv.run.json")
        assert record["options"]["adapt"] == adapt[0].replace("auto", "recording")
        groups = [entry["groups"] for entry in record["files"]]
        if adapt[0] == "none":
            assert groups == [[]] * 6
        elif adapt[0] == "auto":
            assert {(one[0]["segments"], one[0]["adapted"]) for one in groups} == {(1, False)}
        else:
            name = adapt[0].replace("speaker", "10")
            assert groups == [[{"name": name, "segments": 6, "adapted": True}]] * 6
    assert {row.pop("speaker") for row in rows["speaker"]} == {"10"}
    assert rows["auto"] == rows["none"] != rows["corpus"] == rows["speaker"]
    for wrong, message in (
        (("--adapt", "speaker"), "--adapt speaker goes with --speakers FILE|REGEX, or with"),
        (("--adapt", "speaker", "--speakers", "x"), "0 groups; expected one"),
        (("--adapt", "corpus", "--target", "perceived"), "predicts only the intended emotion"),
    ):
        result = ser("annotate", clips, "-m", adapted, *wrong)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_eval_under_stress_and_against_listeners(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    votes = tmp_path / "votes.csv"
    lines = ["clip,anger,fear", *(f"{a}_IEO_ANG_XX,3,1" for a in (1049, 1053)), "other,9,9"]
    votes.write_text("\n".join(lines), encoding="utf-8")
    options = ("--stress", "noise20,gain-20", "--votes", votes, "--json", "-q", "--jobs", "1")
    result = ser("eval", corpus, "-m", trained, "--split", "dev", *options)
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    quiet = figures["stress"]["conditions"]["gain-20"]
    assert (quiet["drop"], quiet["unchanged"]) == (0, 1)  # loudness is not heard
    assert set(figures["stress"]["conditions"]) == {"noise20", "gain-20"}
    assert figures["listeners"]["n_segments"] == 2
    assert figures["listeners"]["n_votes"] == 8
    assert figures["listeners"]["listener"]["accuracy"] == 0.75
    for option, value, message in (
        ("--stress", "rain", "rain"),
        ("--precisions", "bf16,auto", "found 'auto'; expected some of fp32, bf16, fp16, int8"),
        ("--precisions", "bf16", "a model of the family svm multiplies fp32"),
    ):
        result = ser("eval", corpus, "-m", trained, option, value)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_eval_tells_what_stays_out(trained: Path, corpus: Path, tmp_path: Path) -> None:
    names = [f"{actor}_IEO_{code}_XX" for actor in (1049, 1053) for code in ("ANG", "FEA")]
    table, votes = tmp_path / "two.csv", tmp_path / "votes.csv"
    rows = [f"{corpus / name}.wav,{name[9:12]}" for name in names]
    table.write_text("\n".join(("file,emotion", *rows)), encoding="utf-8")
    counts = [f"{name},2,0,1,1" for name in names]
    votes.write_text("\n".join(("clip,anger,fear,sad,disgst", *counts)), encoding="utf-8")
    options = ("--votes", votes, "--target-precision", "0.5", "--jobs", "1", "--adapt", "auto")
    result = ser("eval", table, "-m", trained, *options)
    assert result.exit_code == 0, result.stderr
    assert (
        "of mine that are not scored: disgust, happiness, neutral, sadness; prob" in result.stderr
    )
    assert "mine uses no baseline, as with --adapt auto of ser" in result.stderr
    assert "mine: The table of votes has columns that are not labels: disgst." in result.stderr
    assert "one is right in 25.0%, their majority in 50.0%" in result.stdout
    assert "50.0% of their votes are for labels that were not" in result.stdout
    assert "(disgst 4, sadness 4), and count as wrong" in result.stdout


def test_eval_tells_which_clips_failed_and_why(trained: Path, corpus: Path, tmp_path: Path) -> None:
    whole, table = corpus / "1049_IEO_ANG_XX.wav", tmp_path / "clips.csv"
    duration = sf.info(whole).duration
    empty = tmp_path / "a#1-2@0"  # a name that looks like a place
    empty.touch()
    rows = (
        f"{whole},ANG,0,1,",
        f"{whole},ANG,0.2,0.25,",
        f"{whole},ANG,0.3,0.35,",
        f"{whole},ANG,50,51,",
        f"{whole},ANG,0,1,3",
        f"{empty},ANG,,,",
    )
    table.write_text("\n".join(("file,emotion,start,end,channel", *rows)), encoding="utf-8")
    result = ser("eval", table, "-m", trained, "--jobs", "1")
    assert result.exit_code == 1, result.stderr
    assert "mine: 5 clips failed and had to be left out." in result.stderr
    found = sorted(line for line in result.stderr.splitlines() if line.startswith("failed: "))
    expected = (
        f"{empty}: is empty (0 bytes); expected an audio or video file",
        f"{whole}#0-1@3: has 1 channel; expected a channel 3, counted from 0",
        f"{whole}#0.2-0.25: the clip lasts 0.050 s; expected 0.1 s or more",
        f"{whole}#0.3-0.35: the clip lasts 0.050 s; expected 0.1 s or more",
        f"{whole}#50-51: ends at {duration:.3f} s; expected a clip from 50 s on",
    )
    assert found == sorted(f"failed: {line}" for line in expected)


def test_what_annotate_tells_of_a_recording_is_told_of_its_clips(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    folder, report = tmp_path / "corpus", tmp_path / "report"
    shutil.copytree(corpus, folder)
    (folder / "1048_IEO_ANG_LO.wav").unlink()  # which fails
    behind, invalid = folder / "1001_IEO_FEA_XX.wav", folder / "1048_IEO_SAD_XX.wav"
    behind.write_bytes(2 * behind.read_bytes())
    samples, rate = sf.read(invalid, dtype="float32")
    samples[:7] = np.inf
    sf.write(invalid, samples, rate, "FLOAT")
    told = ser("annotate", behind, invalid, "-m", "svm").stderr.splitlines()[:2]
    assert told[0].startswith(f"{behind}: another recording is appended")
    assert told[1] == f"{invalid}: 7 samples are NaN, infinite or huge, and were set to silence"

    def find_told(result: Result) -> list[str]:
        assert result.exit_code == 0, result.stderr
        return [line for line in result.stderr.splitlines() if line.startswith(str(folder))]

    options = ("--jobs", "1", "-m", trained, "--split", "all")
    result = ser("eval", folder, *options, "--stress", "phone", "-o", report)
    assert find_told(result) == told
    assert "mine: Parts of 2 recordings were repaired or not read." in result.stderr
    figures = read_record(report / "metrics.json")
    schema = json.loads((Path(sercli.__file__).parent / "data/metrics.schema.json").read_text())
    jsonschema.validate(figures, schema)
    assert [f"{path}: {line}" for path, (line,) in figures["repaired"].items()] == told
    assert find_told(ser("eval", folder, *options, "-q")) == []
    assert find_told(ser("eval", folder, *options, "--compare", "svm", "cnn")) == told
    # Of what is learned from, and what is measured on.
    training = ("train", "--data", folder, "--jobs", "1", "-o", tmp_path / "model")
    assert find_told(ser(*training)) == told
    assert find_told(ser(*training, "--overwrite", "-q")) == []
    # Of folds, all are both.
    assert find_told(ser(*training, "--overwrite", "--folds", "3")) == told


def test_an_error_that_names_no_clip_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from sercli.cli.console import tell_failed

    tell_failed({"/in/a.wav#1-2": "/in/b.wav: is empty", "c\udce9.wav": "c\udce9.wav: is none"})
    assert capsys.readouterr().err == (
        "failed: /in/a.wav#1-2: /in/b.wav: is empty\nfailed: c\\xe9.wav: is none\n"
    )


def test_eval_compares_models_and_reports(trained: Path, corpus: Path, tmp_path: Path) -> None:
    report, both = tmp_path / "report", tmp_path / "both"
    options = ("--split", "dev", "--jobs", "1", "-q")
    assert ser("eval", corpus, "-m", trained, "-o", report, *options).exit_code == 0
    more = ("--json", "-o", both)
    result = ser("eval", corpus, "--compare", "svm", trained, report, *options, *more)
    assert result.exit_code == 0, result.stderr
    comparison = json.loads(result.stdout)
    assert comparison == read_record(both / "comparison.json")
    assert [model["name"] for model in comparison["models"]] == ["svm", "mine", "mine (report)"]
    uars = [model["uar"] for model in comparison["models"]]
    first, _, last = comparison["differences"]
    assert first["figures"]["uar"]["difference"] == pytest.approx(uars[1] - uars[0])
    # The report keeps six digits of the same model's probabilities.
    assert last["figures"]["uar"] == {"difference": 0, "interval": [0, 0]}
    assert last["figures"]["nll"]["difference"] == pytest.approx(0, abs=1e-5)
    assert set(REPORT) < set(os.listdir(both / "svm"))
    assert read_record(both / "mine" / "metrics.json")["uar"] == uars[1]
    numbered = tmp_path / "numbered"
    again = tmp_path / "again" / "mine"
    shutil.copytree(trained, again)
    result = ser("eval", corpus, "--compare", trained, again, *options, "-o", numbered)
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir(numbered)) == ["comparison.json", "mine-1", "mine-2"]
    models = ("x/a", "y/a", "a-1", "b")
    places = [one.name for one in _place_reports(tmp_path, models)]
    assert places == ["a-2", "a-3", "a-1", "b"]
    result = ser("eval", corpus, "-m", trained, "-o", report / "metrics.json" / "more", *options)
    assert (result.exit_code, "more: the folder cannot be created" in result.stderr) == (2, True)
    result = ser("eval", "--compare", report, report)
    assert "mine (report) (2) - mine (report) (1)" in result.stdout
    result = ser("eval", corpus, "--compare", trained)
    assert (result.exit_code, "nothing to compare" in result.stderr) == (2, True)
    assert ser("eval", corpus, trained).exit_code == 2
    result = ser("eval", "--compare", report, report, "--strict")
    assert (result.exit_code, "strict: would do nothing" in result.stderr) == (2, True)
    idle = ("--map", "a=b", "--precision", "fp32", "--corpus", "emodb")
    result = ser("eval", "--compare", report, report, *idle)
    told = "--map, --precision, --corpus: would do nothing" in result.stderr
    assert (result.exit_code, told) == (2, True), result.stderr
    result = ser("eval", corpus, "--compare", report, report)
    assert (result.exit_code, "expected reports alone" in result.stderr) == (2, True)
    result = ser("eval", corpus, "--compare", "svm", trained, "--votes", "votes.csv")
    assert (result.exit_code, "expected -o DIR with --compare" in result.stderr) == (2, True)
    result = ser("eval", corpus, "--compare", "svm", trained, "--baseline")
    assert (result.exit_code, "expected -o DIR with --compare" in result.stderr) == (2, True)


def test_train_on_more_speakers_and_test(corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "both"
    result = ser("train", "--data", corpus, "-o", model, "--fit-on", "train+dev", "-q")
    assert result.exit_code == 1, result.stderr  # a test clip is empty
    (told,) = result.stderr.splitlines()
    assert (result.stdout, "1048_IEO_ANG_LO.wav: is empty" in told) == ("", True)
    training = read_record(model / "model.json")["training"]
    assert (training["splits"], training["clips"]) == (["train", "dev"], 60)
    assert load_model(model).adapter is not None
    assert len(training["adapter"]["mixes"]) > 5
    figures = read_record(model / "metrics.json")
    assert (figures["speakers"], figures["n_segments"]) == (["1048"], 6)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "On 6 clips of cremad, split `test` (1 speaker; speakers apart)" in card
    assert f"| {figures['uar']:.3f} | {figures['accuracy']:.3f} |" in card


def test_random_split_is_marked(corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "random"
    options = ("--split", "random", "--seed", "3", "--jobs", "1")
    result = ser("train", "--data", corpus, "-o", model, *options)
    assert result.exit_code == 1, result.stderr  # the empty clip was drawn
    figures = read_record(model / "metrics.json")
    assert figures["protocol"] == "speakers shared"
    assert figures["overlap"]["clips"] == 0
    assert "its figures are too good" in figures["warnings"][0]
    assert read_record(model / "model.json")["training"]["protocol"] == "speakers shared"
    assert "Speakers shared: the model" in (model / "report.md").read_text(encoding="utf-8")


def test_folds_classify_every_clip_by_a_model_that_does_not_know_the_speaker(
    corpus: Path, tmp_path: Path
) -> None:
    model = tmp_path / "folds"
    result = ser("train", "--data", corpus, "-o", model, "--folds", "2", "--jobs", "1", "-q")
    assert result.exit_code == 1, result.stderr
    figures = read_record(model / "metrics.json")
    assert (figures["split"], figures["protocol"]) == ("2 folds", "speakers apart")
    assert (figures["n_segments"], len(figures["speakers"])) == (66, 11)
    assert read_record(model / "model.json")["training"]["clips"] == 66
    for option in (("--split", "random"), ("--no-test",), ("--fit-on", "train+dev")):
        again = ("-o", tmp_path / "again", "--folds", "2", *option)
        result = ser("train", "--data", corpus, *again)
        assert (result.exit_code, "would do nothing" in result.stderr) == (2, True), option


def test_train_on_two_corpora(corpus: Path, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    rows = []
    for path in corpus.glob("*XX.wav"):
        copy = shutil.copy(path, tmp_path)  # or it would be the same clip
        rows.append(f"{copy},{path.stem.split('_')[2]},{path.stem[:4]}")
    table.write_text("\n".join(("file,emotion,speaker", *rows)), encoding="utf-8")
    names = "ANG=anger,DIS=disgust,FEA=fear,HAP=happiness,NEU=neutral,SAD=sadness"
    data = ("--data", corpus, "--data", f"manifest:{table}", "--map", names)
    result = ser("train", *data, "-o", tmp_path / "both", "-q", "--no-test", "--no-adapter")
    assert result.exit_code == 0, result.stderr
    training = read_record(tmp_path / "both/model.json")["training"]
    assert training["corpus"] == "cremad+more"
    # The table has the actors of the release, and no splits: it follows them.
    assert (training["speakers"], training["clips"]) == (5, 2 * 5 * 6)
    assert "adapter" not in training
    assert " --no-adapter " in training["command"]


def test_eval_errors(tmp_path: Path) -> None:
    assert ser("eval", tmp_path / "gone").exit_code == 2
    result = ser("eval", tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr


def test_effort_and_precision_are_in_the_record(tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    options = ("--threads", "2", "--workers", "1", "--batch-seconds", "7.5", "--precision", "bf16")
    result = ser("annotate", EXAMPLES / "statement.flac", "-m", "cnn", "-o", target, *options)
    assert result.exit_code == 0, result.output
    found = read_record(tmp_path / "labels.csv.run.json")["options"]
    names = ("threads", "workers", "batch_seconds", "precision")
    assert [found[name] for name in names] == [2, 1, 7.5, "bf16"]
    result = ser("annotate", EXAMPLES / "statement.flac", "-m", "svm", "-o", target, "--overwrite")
    assert result.exit_code == 0, result.output
    found = read_record(tmp_path / "labels.csv.run.json")["options"]
    assert found["workers"] == found["threads"] >= 1
    assert (found["batch_seconds"], found["precision"]) == (120.0, "fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threads", "0"), "threads is 0; expected 1 to "),
        (("--threads", "100000"), "threads is 100000; expected 1 to "),
        (("--threads", "9" * 400), "threads is 9999"),
        (("--threads", "9" * 5_000), "is not a valid integer"),
        (
            ("--threads", "1", "--workers", "2"),
            "workers is 2; expected 1 to the number of threads, 1",
        ),
        (("--batch-seconds", "0.1"), "batch_seconds is 0.1"),
        (("--precision", "int8", "-m", "svm"), "family svm multiplies fp32"),
    ],
)
def test_effort_that_makes_no_sense(options: tuple[str, ...], message: str) -> None:
    result = ser("annotate", EXAMPLES, *options)
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_only_annotating_runs_on_several_devices(tmp_path: Path) -> None:
    result = ser("eval", tmp_path, "--device", "cuda:0,cuda:1")
    assert (result.exit_code, "'cuda:0,cuda:1' are several" in result.stderr) == (2, True)
    result = ser("annotate", EXAMPLES, "--device", "cpu,cpu")
    assert (result.exit_code, "different GPUs: cuda:0,cuda:1" in result.stderr) == (2, True)
