"""Tests of corpora in TextGrids and label tracks: they are read as tables of the same rows are."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_grids import Tiers, write_grid
from trees import make_tree, summary

import sercli
from sercli.datasets import Corpus, read_corpus
from sercli.errors import ConfigError, DatasetError
from sercli.schema import FileResult, Segment

KINDS = ("textgrid", "audacity")
# Recording, channel, start, end, speaker and emotion.
ROWS = (
    ("p1/visit.wav", "mix", 0.5, 2.0, "Ann", "anger"),
    ("p1/visit.wav", "mix", 1.0, 3.25, "p1/Bo: son", "neutral"),
    ("p2/visit.wav", "0", 0.125, 2.0, None, "sadness"),
    ("p2/visit.wav", "1", 0.125, 2.0, None, "fear"),
    ("p2/visit.wav", "1", 3.0, 4.0, "Cy", "neutral"),
    ("zo\u0308.flac", "mix", 4.0, 5.0, None, "happiness"),
)
NAMES = ("p1/visit.wav", "p2/visit.wav", "zo\u0308.flac", "silent.mp3")
CORRECTED = {"anger": "Sad", "fear": "annoyed", "happiness": " "}


def write(
    folder: Path, kind: str, rows: Sequence[tuple[str, str, float, float, str | None, str]]
) -> Path:
    """Write files as `ser export` does, but with corrected labels."""
    results = []
    for name in NAMES:
        segments = tuple(
            Segment(channel, start, end, emotion, 0.9, (0.9,), speaker)
            for file, channel, start, end, speaker, emotion in rows
            if file == name
        )
        results.append(FileResult(f"in/{name}", "ok", segments, duration=9.0, channels=2))
    for path in sercli.export_labels(results, folder, kind).values():
        text = path.read_text("utf-8")
        for theirs, ours in CORRECTED.items():
            # As a text in a tier; in a track, where the confidence of the old label may go, too.
            text = text.replace(f'"{theirs}"', f'"{ours}"').replace(f"{theirs} 0.90\n", f"{ours}\n")
        path.write_text(text, "utf-8")
    return folder


def rows_of(corpus: Corpus) -> list[tuple[object, ...]]:
    return [
        (one.name, one.path, one.start, one.end, one.channel, one.voice, one.emotion, one.traits)
        for one in corpus.clips
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_corrected_labels_are_read_as_the_same_table(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "calls", *NAMES, "p1/other.wav")
    with (tmp_path / "calls" / "all.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "channel", "start", "end", "speaker", "emotion"))
        table.writerows((*row[:5], CORRECTED.get(row[5], row[5])) for row in ROWS)
    expected = read_corpus(tmp_path / "calls" / "all.csv")
    assert summary(expected) == [
        ("p1/visit.wav#0.5-2", "Ann", "sadness"),
        ("p1/visit.wav#1-3.25", "p1/Bo: son", "neutral"),
        ("p2/visit.wav#0.125-2@0", None, "sadness"),
        ("p2/visit.wav#0.125-2@1", None, "annoyed"),
        ("p2/visit.wav#3-4@1", "Cy", "neutral"),
    ]
    # Beside their recordings.
    corpus = read_corpus(write(tmp_path / "calls", kind, ROWS))
    assert (rows_of(corpus), corpus.name) == (rows_of(expected), "calls")
    rest = {"p1/other.wav", "silent.mp3", "zo\u0308.flac"}
    assert corpus.skipped == dict.fromkeys(rest, "not annotated")
    # In a folder of their own, of recordings in the working directory.
    write(tmp_path / "labels", kind, ROWS)
    monkeypatch.chdir(tmp_path)  # which has others of these names further below
    with pytest.raises(DatasetError, match=r"labels: found no recording of p1/visit and 1 more, n"):
        read_corpus("labels")
    monkeypatch.chdir(tmp_path / "calls")
    corpus = read_corpus("../labels")
    assert (summary(corpus), corpus.name, corpus.skipped) == (summary(expected), "labels", {})
    assert [clip.path.is_file() for clip in corpus.clips] == [True] * 5
    # A single file.
    (single,) = (tmp_path / "calls" / "p1").glob("visit.[Tt]*")
    corpus = read_corpus(single, mapping={"sad": "gloomy"})
    assert summary(corpus) == [
        ("visit.wav#0.5-2", "Ann", "gloomy"),
        ("visit.wav#1-3.25", "p1/Bo: son", "neutral"),
    ]
    assert corpus.skipped == {}
    # As any other rows of a user, they are refused where they contradict each other.
    twice = write(tmp_path / "twice", kind, [ROWS[1], (*ROWS[1][:5], "fear"), ROWS[2]])
    assert read_corpus(twice).skipped == {
        "p1/visit.wav#1-3.25": "in several rows: labelled annoyed and neutral"
    }


def test_which_tier_is_read(tmp_path: Path) -> None:
    make_tree(tmp_path, "call.wav")
    path, words = tmp_path / "call.TextGrid", [(0, 2, "well"), (2, 3, "now")]
    moods = [(0, 2, "happy"), (2, 3, ""), (3, 4, "so so")]

    def read(tiers: Tiers, **names: str) -> list[tuple[str, str | None, str]]:
        return summary(read_corpus(write_grid(path, tiers), columns=names))

    spoken = [("call.wav#0-2", None, "happiness"), ("call.wav#3-4", None, "so so")]
    assert read({"Mood": moods}) == spoken
    assert read({"Mood": moods, "words": words}, emotion="Mood") == spoken
    assert read({"E\u0301tat": moods, "words": words}, emotion="\u00c9tat") == spoken
    # The confidences have been removed, and notes added.
    voiced = {"emotion Ann (channel 1)": moods[:1], "notes": words}
    assert read(voiced) == [("call.wav#0-2@1", "Ann", "happiness")]
    # What is said to be emotions may all be the user's own.
    assert [label for *_, label in read({"emotion": words})] == ["well", "now"]
    with pytest.raises(
        DatasetError, match="Mood, words; expected only one, or name it with --colu"
    ):
        read({"Mood": moods, "words": words})
    with pytest.raises(DatasetError, match=r"the tier words holds no known label, but 'now, well'"):
        read({"words": words})
    assert len(read_corpus(path, mapping={"Well": "neutral"}).clips) == 2
    with pytest.raises(DatasetError, match=r"has no usable clip: call: 0 clips"):
        read({"words": moods[1:2]})


def test_what_macos_puts_beside_label_files_is_none(tmp_path: Path) -> None:
    make_tree(tmp_path, "call.wav", "memo.wav")
    write_grid(tmp_path / "call.TextGrid", {"emotion": [(0, 1, "fear")]})
    (tmp_path / "._call.TextGrid").write_bytes(b"\0\5\x16\7\xff")
    assert summary(read_corpus(tmp_path)) == [("call.wav#0-1", None, "fear")]
    (tmp_path / "call.TextGrid").unlink()
    with pytest.raises(DatasetError, match="is none of the known corpora"):
        read_corpus(tmp_path)


def test_label_files_among_other_corpora(tmp_path: Path) -> None:
    make_tree(tmp_path, "03a01Fa.wav", "08b03Lb.wav")
    (tmp_path / "readme.txt").write_text("1\tone\n")
    (tmp_path / "pitch.txt").write_text("0.01\t0.02\t120.5\n")
    # An alignment of words is none of emotions.
    (tmp_path / "08b03Lb.txt").write_text("0.5\t1\tder\n")
    write_grid(tmp_path / "03a01Fa.TextGrid", {"words": [(0, 1, "der")], "phones": []})
    assert [clip.name for clip in read_corpus(tmp_path).clips] == ["03a01Fa", "08b03Lb"]
    write_grid(tmp_path / "03a01Fa.TextGrid", {"emotion": [(0, 1, "fear")]}, "utf-16")
    told = r"looks like emodb \(2 .*\) and like textgrid \(1 file such as 03a01Fa\.TextGrid\); name"
    with pytest.raises(DatasetError, match=told):
        read_corpus(tmp_path)
    assert [clip.name for clip in read_corpus(tmp_path, "emodb").clips] == ["03a01Fa", "08b03Lb"]
    assert summary(read_corpus(tmp_path, "textgrid")) == [("03a01Fa.wav#0-1", None, "fear")]
    (tmp_path / "08b03Lb.txt").write_text("0.5\t1\tsad 0.99\n")
    with pytest.raises(
        DatasetError, match=r"like textgrid .* and like audacity \(1 file such as 08b0"
    ):
        read_corpus(tmp_path)


def test_a_track_that_audacity_saved(tmp_path: Path) -> None:
    make_tree(tmp_path, "call.wav")
    path = tmp_path / "call.txt"
    path.write_bytes(
        b"\xef\xbb\xbf0.500000\t2.000000\tAnn: anger 0.91\r\n\\\t100.0\t3000.0\r\n"
        b"2.000000\t2.000000\t\r\n3.000000\t4.000000\tpleasant surprise\r\n"
    )
    assert (
        summary(read_corpus(path))
        == summary(read_corpus(tmp_path, "audacity"))
        == [
            ("call.wav#0.5-2", "Ann", "anger"),
            ("call.wav#3-4", None, "surprise"),
        ]
    )
    path.write_text("0.5\t1.5\tanger\n2\t2\tphone rings\n")
    corpus = read_corpus(path)
    assert summary(corpus) == [("call.wav#0.5-1.5", None, "anger")]
    assert corpus.skipped == {"call.txt, line 2": "a note at a point in time"}
    for text, message in (
        (
            "0.5\t0.5\tanger\n",
            "call.txt, line 1: ends at 0.5 s and starts at 0.5 s; expected an en",
        ),
        ("0,5\t1,5\tanger\n", "call.txt, line 1: start is '0,5'; expected seconds, with a decimal"),
        ("0.5\t1.5\tcough\n", "the label track holds no known label, but 'cough'; .* by --map"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_corpus(path)
    assert summary(read_corpus(path, mapping={"cough": "cough"}))[0][2] == "cough"
    path.write_text("file\temotion\ncall.wav\tsad\n")  # a table, as before
    assert summary(read_corpus(path)) == [("call.wav", None, "sadness")]


def test_recordings_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undecodable = os.fsdecode(b"caf\xe9")
    make_tree(tmp_path, "labels/a.wav", f"{undecodable}.wav", "a.wav", "a.mp3")
    for name in ("a", undecodable):
        write_grid(tmp_path / "labels" / f"{name}.TextGrid", {"emotion": [(0, 1, "fear")]})
    monkeypatch.chdir(tmp_path)
    corpus = read_corpus("labels")
    assert [(clip.name, str(clip.path)) for clip in corpus.clips] == [
        ("a.wav#0-1", "labels/a.wav"),
        (r"caf\xe9.wav#0-1", f"{undecodable}.wav"),
    ]


def test_exported_labels_are_read_in_the_folder_that_all_recordings_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = write(tmp_path / "labels", "textgrid", ROWS)
    make_tree(tmp_path / "in", *NAMES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DatasetError,
        match=r"found no recording of p1/visit and 1 more, neither in labels nor, .*; expected .*; "
        "run this in the folder that all recordings share, or put the files there$",
    ):
        read_corpus("labels")
    monkeypatch.chdir("in")
    assert len(read_corpus(labels).clips) == 5
    labels.rename("labels")
    for file in Path("labels").rglob("*.TextGrid"):
        file.rename(file.relative_to("labels"))
    assert len(read_corpus(tmp_path / "in").clips) == 5


def test_labels_are_not_of_a_recording_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path, "b/one.wav", "b/two.wav", "c/one.wav")
    for name in ("a/one", "b/two"):
        path = tmp_path / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("0\t1\tfear\n")
    monkeypatch.chdir(tmp_path)
    # That of a/one is missing, and b/one has no labels.
    with pytest.raises(DatasetError, match="labels: found no recording of a/one, neither in label"):
        read_corpus("labels")
    make_tree(tmp_path, "a/one.wav")
    names = ["a/one.wav#0-1", "b/two.wav#0-1"]
    assert [clip.name for clip in read_corpus("labels").clips] == names
    # Nor does it put a recording in doubt that others of its name are missing.
    (tmp_path / "a" / "one.wav").unlink()
    (tmp_path / "labels" / "c").mkdir()
    (tmp_path / "labels" / "c" / "one.txt").write_text("0\t1\tfear\n")
    with pytest.raises(DatasetError, match="labels: found no recording of a/one, neither in label"):
        read_corpus("labels")


def test_recordings_that_are_in_doubt(tmp_path: Path) -> None:
    make_tree(tmp_path, "call.wav", "call.mp3")
    write_grid(tmp_path / "call.TextGrid", {"emotion": [(0, 1, "fear")]})
    with pytest.raises(DatasetError, match=r"call may be of \S+call\.mp3 and of \S+call\.wav; exp"):
        read_corpus(tmp_path)
    write_grid(tmp_path / "call.wav.TextGrid", {"emotion": [(0, 1, "sad")]})
    assert summary(read_corpus(tmp_path)) == [
        ("call.mp3#0-1", None, "fear"),
        ("call.wav#0-1", None, "sadness"),
    ]
    (tmp_path / "call.mp3").unlink()
    with pytest.raises(ConfigError, match=r"call\.wav may be call\.wav or call; expected one name"):
        read_corpus(tmp_path)
