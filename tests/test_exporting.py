"""Labels of each recording in a file of its own, as the programs that read them understand it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from praatio.textgrid import openTextgrid
from runs import write_results

from sercli.cli import main
from sercli.errors import DatasetError, OutputError
from sercli.output.exporting import export_labels
from sercli.output.report import RunInfo
from sercli.output.results import read_results
from sercli.output.writers import WRITERS, record_path
from sercli.schema import FileResult, Segment

INFO = RunInfo("1.2.3", {"name": "m", "labels": ["anger", "neutral"]}, {}, "2026-01-01")
FIRST = Segment("mix", 0.5, 2.0, "neutral", 0.75, (0.25, 0.75))
SECOND = Segment("mix", 2.0, 3.25, "anger", 0.996, (0.996, 0.004))
RESULTS = [
    replace(one, labels=("anger", "neutral"))
    for one in (
        FileResult("calls/may/a.wav", "ok", (FIRST, SECOND), 4.0, 8_000, 1, size=7, modified=1.25),
        FileResult("calls/b.wav", "no speech", (), 2.0, 16_000, 2, warnings=("is odd",)),
        FileResult("calls/c.wav", "failed", (), error="calls/c.wav: does not exist"),
    )
]


def write(path: Path, results: list[FileResult], info: RunInfo = INFO) -> Path:
    return write_results(path, results, info)


@pytest.mark.parametrize("format_", WRITERS)
def test_what_was_written_is_read(tmp_path: Path, format_: str) -> None:
    path = write(tmp_path / f"labels.{format_}", RESULTS)
    assert read_results(path) == RESULTS
    told = replace(INFO, speakers=True)
    spoken = replace(RESULTS[0], segments=(replace(FIRST, speaker="Grün"), SECOND))
    assert read_results(write(tmp_path / f"who.{format_}", [spoken], told)) == [spoken]
    assert read_results(write(tmp_path / f"none.{format_}", [])) == []
    if format_ == "json":  # in whatever way another program has written it
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":")))
        assert read_results(path) == RESULTS


def test_a_path_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    given = export_labels(RESULTS, tmp_path / "given", "audacity")
    for labels in (path, str(path)):
        read = export_labels(labels, tmp_path / "read", "audacity", overwrite=True)
        assert read.keys() == given.keys() == {"calls/may/a.wav", "calls/b.wav"}
        for name, place in read.items():
            assert place.read_text() == given[name].read_text()
    with pytest.raises(DatasetError, match=r"gone\.csv: cannot be read"):
        export_labels(str(tmp_path / "gone.csv"), tmp_path / "none", "audacity")
    assert not (tmp_path / "none").exists()


def test_a_run_record_is_told(tmp_path: Path) -> None:
    record = record_path(write(tmp_path / "labels.csv", RESULTS))
    with pytest.raises(
        DatasetError, match=r"is a run record; expected the labels that it lies beside, labels\.csv"
    ):
        read_results(record)


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_table_without_a_record(tmp_path: Path, format_: str) -> None:
    path = write(tmp_path / f"labels.{format_}", RESULTS)
    record_path(path).unlink()
    labels = ("anger", "neutral")
    expected = FileResult("calls/may/a.wav", "ok", (FIRST, SECOND), labels=labels)
    assert read_results(path) == [expected]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "{}", "{\n}", "[1]", "{\x00", "\x89PNG"])
def test_what_is_something_else(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content, encoding="latin-1")
    message = (
        r"labels\.csv(, line 1)?: (cannot be read: .*; expected what ser annotate wrote|is not UTF)"
    )
    with pytest.raises(DatasetError, match=message):
        read_results(path)


def test_a_table_that_a_spreadsheet_saved(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b",", b";"))
    assert read_results(path) == RESULTS
    for wrong, message in (
        (b"0.500,1e308", "line 2: cannot be read: a segment is from 0.5 to 1e"),
        (b"nan,2.000", "line 2: cannot be read: a segment is from nan to 2"),
        (b"0.500", "line 2: has 7 cells; expected 8"),
        (b'"0.500,2.000', "line 2: cannot be read: unexpected end of data"),
    ):
        path.write_bytes(content.replace(b"0.500,2.000", wrong))
        with pytest.raises(DatasetError, match=message):
            read_results(path)


def test_probabilities_are_read_by_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    lines = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    moved = [[*line[:6], line[7], line[6], "0.5"] for line in lines]
    moved[0][8] = "prob_most"  # a column of the user's own
    path.write_text("\n".join(map(",".join, moved)), "utf-8")
    assert read_results(path) == RESULTS
    record_path(path).unlink()
    with_own = read_results(path)[0]
    assert with_own.labels == ("neutral", "anger", "most")
    assert with_own.segments[0].probabilities == ()  # they are more than all
    document = write(tmp_path / "labels.json", RESULTS)
    sorted_ = json.dumps(json.loads(document.read_text("utf-8")), sort_keys=True)
    document.write_text(
        sorted_.replace('"anger": 0.25, "neutral": 0.75', '"neutral": 0.75, "anger": 0.25')
    )
    assert read_results(document) == RESULTS


def test_probabilities_that_were_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    lines = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join(",".join(line[:-1]) for line in lines), "utf-8")
    bare = replace(
        RESULTS[0], segments=tuple(replace(one, probabilities=()) for one in (FIRST, SECOND))
    )
    assert read_results(path) == [bare, *RESULTS[1:]]
    assert len(export_labels(path, tmp_path / "srt", "srt")) == 2


def test_labels_in_another_unicode_form(tmp_path: Path) -> None:
    label = "tru\u0308be"
    row = {"file": "a.wav", "channel": 0, "start": 0, "end": 1, "emotion": label}
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row | {"confidence": 1, f"prob_{label}": 1}), "utf-8")
    (found,) = read_results(path)
    assert found.segments[0].emotion in found.labels


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_document_needs_no_record(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "labels.json", RESULTS)
    record_path(path).write_text(content)
    assert read_results(path) == RESULTS


def test_rows_of_two_models_are_no_output(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", RESULTS)
    other = path.read_text("utf-8").replace("anger", "joy")
    path.write_text(path.read_text("utf-8") + other, "utf-8")
    with pytest.raises(
        DatasetError, match=r"line 3: .* are of joy, neutral; expected anger, neutral"
    ):
        read_results(path)
    record_path(path).unlink()
    message = "line 3: cannot be read: its probabilities are of joy, neutral, and those before of a"
    with pytest.raises(DatasetError, match=message):
        read_results(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"confidence": 0.75', '"confidence": NaN', "a probability is nan"),
        (
            '"prob_anger": 0.25',
            '"prob_anger": -0.25',
            "a probability is -0.25, and not from 0 to 1",
        ),
        ('"prob_neutral": 0.75', '"prob_neutral": 1.75', "a probability is 1.75"),
        ('"start": 0.5, ', "", "cannot be read: has no 'start'"),
        ("calls/may", "calls\\u0000may", "contains a NUL character"),
        ("calls/may", "calls\\ud800may", "surrogates not allowed"),
    ],
)
def test_rows_that_somebody_broke(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path / "labels.jsonl", RESULTS)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(DatasetError, match=f"line 1: .*{message}"):
        read_results(path)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    record = record_path(path)
    for content in ("{", "{}"):
        record.write_text(content)
        with pytest.raises(
            DatasetError, match=r"labels\.csv\.run\.json: cannot be read: .*Move it"
        ):
            read_results(path)


def test_speakers_that_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    row = {"file": "a.wav", "channel": 0, "start": 0, "end": 1, "speaker": 5, "emotion": "anger"}
    path.write_text("\n" + json.dumps(row | {"confidence": 1, "prob_anger": 1}), "utf-8")
    (found,) = read_results(path)
    assert found.segments == (Segment("0", 0, 1, "anger", 1, (1,), "5"),)


@pytest.mark.parametrize("start", ["1e400", "9" * 5_000, "-1", "NaN", "[" * 100_000, "null"])
def test_documents_with_times_that_are_none(tmp_path: Path, start: str) -> None:
    for suffix in ("json", "jsonl"):
        path = write(tmp_path / f"labels.{suffix}", RESULTS)
        path.write_text(path.read_text().replace('"start": 0.5', f'"start": {start}'))
        with pytest.raises(DatasetError, match=rf"labels\.{suffix}(, line 1)?: cannot be read: "):
            read_results(path)


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.json", RESULTS)
    text = path.read_text()
    place = r"labels\.json: cannot be read: segment 2 of calls/may/a\.wav: "
    for old, new, message in (
        ('"start": 2.0', '"start": null', "its start is no number: "),
        ('"end": 3.25', '"end": "soon"', "its end is no number: .*soon"),
        ('"confidence": 0.996', '"confidence": null', "its confidence is no number: "),
        ('"anger": 0.996', '"anger": null', "its probability of anger is no number: "),
    ):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        with pytest.raises(DatasetError, match=place + message):
            read_results(path)


def test_textgrid(tmp_path: Path) -> None:
    paths = export_labels(RESULTS, tmp_path / "grids", "textgrid")
    assert paths == {
        "calls/may/a.wav": tmp_path / "grids" / "may" / "a.TextGrid",
        "calls/b.wav": tmp_path / "grids" / "b.TextGrid",
    }
    grid = openTextgrid(str(paths["calls/may/a.wav"]), includeEmptyIntervals=True)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0.0, 4.0)
    assert grid.tierNames == ("emotion", "confidence")
    edges = [(0.0, 0.5), (0.5, 2.0), (2.0, 3.25), (3.25, 4.0)]
    for name, texts in (
        ("emotion", ["", "neutral", "anger", ""]),
        ("confidence", ["", "0.75", "1.00", ""]),
    ):
        expected = [(*one, text) for one, text in zip(edges, texts, strict=True)]
        assert [tuple(entry) for entry in grid.getTier(name).entries] == expected
    empty = openTextgrid(str(paths["calls/b.wav"]), includeEmptyIntervals=True)
    assert [tuple(entry) for entry in empty.getTier("emotion").entries] == [(0.0, 2.0, "")]


def test_each_voice_has_tiers_and_none_overlap(tmp_path: Path) -> None:
    segments = (
        replace(FIRST, channel="0"),
        replace(FIRST, channel="1", speaker='Zoë "Z"'),
        replace(FIRST, channel="0", start=1.0, end=3.0),  # over the first
        replace(SECOND, channel="0"),
    )
    result = FileResult("a.wav", "ok", segments, 3.2)  # shorter than its last segment
    (path,) = export_labels([result], tmp_path, "textgrid").values()
    grid = openTextgrid(str(path), includeEmptyIntervals=False)
    assert grid.maxTimestamp == 3.25
    found = {
        name: [entry.start for entry in grid.getTier(name).entries]
        for name in grid.tierNames
        if name.startswith("emotion")
    }
    assert found == {
        "emotion channel 0": [0.5, 2.0],
        "emotion channel 0 (layer 2)": [1.0],
        'emotion Zoë "Z" (channel 1)': [0.5],
    }


def test_names_of_speakers_that_would_break_a_grid(tmp_path: Path) -> None:
    names = ("a", "a (2)", "a\n(2)", " \n", "(2)", 'b\u2028"\r\n', "a", None, None)
    segments = tuple(replace(FIRST, speaker=name) for name in names)
    result = FileResult("a.wav", "ok", segments, 4.0)
    (path,) = export_labels([result], tmp_path, "textgrid").values()
    grid = openTextgrid(str(path), includeEmptyIntervals=False)
    found = {name: len(grid.getTier(name).entries) for name in grid.tierNames}
    layers = (" (layer 2)", " (layer 3)", " a (layer 2)", " a (2) (layer 2)")
    expected = ("", " a", " a (2)", " (2)", ' b "', *layers)
    assert found == {f"{what}{name}": 1 for name in expected for what in ("emotion", "confidence")}


def test_labels_in_several_lines(tmp_path: Path) -> None:
    result = FileResult("a.wav", "ok", (replace(FIRST, emotion='so\n"so"'),), 4.0)
    (path,) = export_labels([result], tmp_path, "textgrid").values()
    grid = openTextgrid(str(path), includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("emotion").entries] == ['so "so"']


def test_names_of_recordings_that_are_long(tmp_path: Path) -> None:
    names = [f"{'é' * 118}.wav", f"{'a' * 236}.wav", f"{'a' * 235}b.wav"]  # 240 bytes
    results = [replace(RESULTS[0], path=name) for name in names]
    paths = export_labels(results, tmp_path / "grids", "textgrid")
    assert [path.name for path in paths.values()] == [f"{one[:-4]}.TextGrid" for one in names]
    assert sorted((tmp_path / "grids").iterdir()) == sorted(paths.values())
    # To one of them, no suffix can be added: nothing is written.
    longest = replace(RESULTS[0], path=f"{'b' * 248}.wav")
    with pytest.raises(OutputError, match=r"b\.TextGrid: cannot be written: File name too long"):
        export_labels([RESULTS[1], longest], tmp_path / "none", "textgrid")
    assert not list((tmp_path / "none").rglob("*.TextGrid"))


def test_audacity_and_subtitles(tmp_path: Path) -> None:
    late = Segment("1", 3599.9996, 36_061.5, "fear", 0.5, (0.5,), "a\tb\n")
    result = FileResult("a.wav", "ok", (FIRST, late), 36_062.0)
    (track,) = export_labels([result], tmp_path, "audacity").values()
    assert track.name == "a.txt"
    assert track.read_bytes() == (
        b"0.500\t2.000\tneutral 0.75\n3600.000\t36061.500\ta b (channel 1): fear 0.50\n"
    )
    (subtitles,) = export_labels([result], tmp_path, "srt").values()
    assert subtitles.read_bytes() == (
        b"1\n00:00:00,500 --> 00:00:02,000\nneutral 0.75\n\n"
        b"2\n01:00:00,000 --> 10:01:01,500\na b (channel 1): fear 0.50\n\n"
    )


@pytest.mark.parametrize(
    ("start", "end", "times"),
    [
        (86_399.9996, 90_061.5, "24:00:00,000 --> 25:01:01,500"),
        (359_999.5, 360_000.25, "99:59:59,500 --> 100:00:00,250"),
    ],
)
def test_times_of_a_day_and_more_go_on(
    tmp_path: Path, start: float, end: float, times: str
) -> None:
    result = FileResult("a.wav", "ok", (replace(FIRST, start=start, end=end),), end)
    (subtitles,) = export_labels([result], tmp_path, "srt").values()
    assert subtitles.read_text().splitlines()[1] == times


def test_a_segment_below_a_millisecond_keeps_a_length(tmp_path: Path) -> None:
    short = [replace(FIRST, start=start, end=start + 0.0003) for start in (0, 1.0001, 1.9999)]
    result = FileResult("a.wav", "ok", tuple(short), 4.0)
    (track,) = export_labels([result], tmp_path, "audacity").values()
    times = [line.split("\t")[:2] for line in track.read_text().splitlines()]
    assert times == [["0.000", "0.001"], ["1.000", "1.001"], ["2.000", "2.001"]]
    (subtitles,) = export_labels([result], tmp_path, "srt").values()
    assert subtitles.read_text().splitlines()[1::4] == [
        "00:00:00,000 --> 00:00:00,001",
        "00:00:01,000 --> 00:00:01,001",
        "00:00:02,000 --> 00:00:02,001",
    ]


def test_recordings_that_differ_by_their_suffix_or_folder(tmp_path: Path) -> None:
    known = ("x/a.wav", "x/a.mp3", "x/y/a.wav", "x/b.c.wav", str(Path("x/d.wav").absolute()))
    names = (*known, "x/E.wav", "x/e.mp3", "x/f", "x/f.wav", "x/a.wav.flac")
    results = [replace(RESULTS[0], path=name) for name in names]
    paths = export_labels(results, tmp_path, "srt")
    assert [str(path.relative_to(tmp_path)) for path in paths.values()] == [
        "a.wav.srt",
        "a.mp3.srt",
        str(Path("y/a.srt")),
        "b.c.srt",
        "d.srt",
        "E.wav.srt",
        "e.mp3.srt",
        "f.srt",
        "f.wav.srt",
        "a.wav.flac.srt",
    ]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    there = tmp_path / "b.srt"
    there.write_text("mine")
    with pytest.raises(OutputError, match=r"b\.srt: already exists; give another name or --over"):
        export_labels(RESULTS, tmp_path, "srt")
    assert there.read_text() == "mine"
    assert list(tmp_path.rglob("*.srt")) == [there]
    export_labels(RESULTS, tmp_path, "srt", overwrite=True)
    assert there.read_text() == ""
    with pytest.raises(OutputError, match="format is 'eaf'; expected one of textgrid, audacity,"):
        export_labels(RESULTS, tmp_path, "eaf")


def test_what_is_exported_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    results = [replace(RESULTS[0], path=str(tmp_path / "a.wav"))]
    csv = write(tmp_path / "a.csv", results)
    labels, record = tmp_path / "a.txt", record_path(tmp_path / "a.txt")
    csv.rename(labels)
    record_path(csv).rename(record)
    content = labels.read_bytes(), record.read_bytes()
    command = ["export", str(labels), "--format", "audacity", "-o", str(tmp_path), "--overwrite"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {labels}: is what is exported; name another folder\n",
    )
    with pytest.raises(OutputError, match=r"a\.txt: is what is exported"):
        export_labels(labels, tmp_path, "audacity", overwrite=True)
    assert (labels.read_bytes(), record.read_bytes()) == content


def test_ser_export(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", RESULTS)
    command = ["export", str(labels), "--format", "audacity", "-o", str(tmp_path / "tracks")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == (
        f"no labels: calls/c.wav: does not exist\n2 files written to {tmp_path / 'tracks'}\n"
    )
    assert (tmp_path / "tracks" / "may" / "a.txt").stat().st_size == 48
    assert CliRunner().invoke(main, command).exit_code == 2
    assert CliRunner().invoke(main, [*command, "--overwrite", "-q"]).stderr == ""


def test_names_of_speakers_that_are_no_text(tmp_path: Path) -> None:
    # Of a pattern, in a path with the byte E9.
    result = replace(RESULTS[0], segments=(replace(FIRST, speaker="caf\udce9"),))
    for format_, written in (("audacity", r"caf\xe9: neutral"), ("textgrid", r"emotion caf\xe9")):
        (path,) = export_labels([result], tmp_path / format_, format_).values()
        assert written in path.read_text("utf-8")


@pytest.mark.parametrize("format_", WRITERS)
def test_outputs_that_begin_with_a_byte_order_mark(tmp_path: Path, format_: str) -> None:
    path = write(tmp_path / f"labels.{format_}", RESULTS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_results(path) == RESULTS


@pytest.mark.parametrize("format_", WRITERS)
def test_labels_whose_letters_are_decomposed(tmp_path: Path, format_: str) -> None:
    labels = ("a\u0308rger", "neutral ")
    segment = replace(FIRST, emotion=labels[0])
    results = [replace(RESULTS[0], segments=(segment,), labels=labels)]
    info = replace(INFO, model={"name": "m", "labels": [*labels]})
    path = write(tmp_path / f"labels.{format_}", results, info)
    assert read_results(path)[0].segments[0].probabilities == segment.probabilities


def test_columns_of_probabilities_may_be_removed_beside_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    lines = [line.split(",")[:6] for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join(map(",".join, lines)), "utf-8")
    bare = tuple(replace(one, probabilities=()) for one in (FIRST, SECOND))
    assert read_results(path) == [replace(RESULTS[0], segments=bare), *RESULTS[1:]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"end": 2.0', '"end": 0.5', r"a segment is from 0\.5 to 0\.5 s"),
        ('"start": 0.5', f'"start": {10**400}', "too large"),
        ('"emotion": "neutral"', '"emotion": "neu\\u0000tral"', "contains a NUL character"),
        ('{"file"', '[1]\n{"file"', "cannot be read"),
    ],
)
def test_more_rows_that_somebody_broke(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path / "labels.jsonl", RESULTS)
    text = path.read_text("utf-8")
    first, second = text.splitlines()
    assert old in first
    path.write_text(f"{second}\n{first.replace(old, new)}\n", "utf-8")
    with pytest.raises(DatasetError, match=f"line 2: .*{message}"):
        read_results(path)


def test_a_document_cut_off_or_without_fields_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.json", RESULTS)
    text = path.read_text("utf-8")
    record_path(path).unlink()
    path.write_text(text.replace('"no speech"', '"no such"'), "utf-8")
    with pytest.raises(DatasetError, match=r"labels\.json: cannot be read: "):
        read_results(path)
    path.write_text("\n" + text, "utf-8")
    assert read_results(path) == RESULTS


def test_a_record_with_a_wrong_entry_or_labels_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", RESULTS)
    record = record_path(path)
    text = record.read_text("utf-8")
    told = json.loads(text)
    for wrong in (
        text.replace('"no speech"', '"no such"'),
        json.dumps(told | {"model": told["model"] | {"labels": [1, 2]}}),
    ):
        assert wrong != text
        record.write_text(wrong, "utf-8")
        with pytest.raises(DatasetError, match=r"labels\.csv\.run\.json: cannot be read: "):
            read_results(path)
