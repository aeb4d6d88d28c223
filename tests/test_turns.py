"""Stretches of recordings that somebody marked, and how recordings are cut at them."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeClassifier, find_speaker, find_turns
from runs import write_results

from sercli.annotation.annotator import Annotator
from sercli.annotation.tracks import Track, TurnCutter
from sercli.errors import ConfigError
from sercli.output.report import RunInfo
from sercli.output.writers import open_writer, record_path
from sercli.schema import FileResult, Segment
from sercli.speech.matching import match_turns
from sercli.speech.speakers import Speakers
from sercli.speech.turn import TIMES, Turn
from sercli.speech.turns import Turns


def test_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "segments.csv"
    table.write_text(
        "file,start,end,channel,speaker,text\n"
        "calls/a.wav,1.5,2, 0, anna ,hello\n"
        "calls/a.wav,0.25,1, ,,\n"
        "b.wav,3,4,1,ben,yes\n"
    )
    turns = Turns.read(table, *TIMES)
    expected = (Turn(1.5, 2, "0", "anna"), Turn(0.25, 1))
    assert find_turns(turns, str(tmp_path / "calls" / "a.wav")) == expected
    assert find_turns(turns, "elsewhere/a.wav") == ()
    assert turns.tells_speakers
    monkeypatch.chdir(tmp_path)
    assert find_turns(turns, "calls/../calls/a.wav") == expected
    assert match_turns(turns, ["calls/a.wav", "c.wav"]).others == (str(tmp_path / "b.wav"),)


def test_turns_of_no_length_are_told_by_a_table(tmp_path: Path) -> None:
    path = tmp_path / "turns.csv"
    path.write_text("file,start,end\na.wav,1.5,1.5\na.wav,2,3\n")
    turns = find_turns(Turns.read(path, *TIMES), str(tmp_path / "a.wav"))
    assert turns == (Turn(1.5, 1.5), Turn(2.0, 3.0))


def test_a_table_with_tabs(tmp_path: Path) -> None:
    table = tmp_path / "segments.tsv"
    table.write_text("file\tstart\tend\na, b.wav\t0\t1\n")
    turns = Turns.read(table, *TIMES)
    assert find_turns(turns, str(tmp_path / "a, b.wav")) == (Turn(0, 1),)
    assert not turns.tells_speakers


def test_spaces_around_a_name_count_if_the_file_has_them(tmp_path: Path) -> None:
    (tmp_path / "b.wav ").touch()
    table = tmp_path / "segments.csv"
    table.write_text("file, start, end\n a.wav, 0, 1\nb.wav ,1,2\n")
    turns = Turns.read(table, *TIMES)
    assert find_turns(turns, str(tmp_path / "a.wav")) == (Turn(0, 1),)
    assert find_turns(turns, str(tmp_path / "b.wav ")) == (Turn(1, 2),)


def test_names_in_any_form_of_unicode(tmp_path: Path) -> None:
    decomposed, composed = "Zoe\u0308", "Zo\u00eb"
    recording = tmp_path / "calls" / f"{decomposed}.wav"
    recording.parent.mkdir()
    recording.touch()
    table = tmp_path / "segments.csv"
    table.write_text(f"file;start;end;speaker\ncalls/{composed}.wav;0;1;{decomposed}\n")
    diarisation = tmp_path / "all.rttm"
    diarisation.write_text(f"SPEAKER {composed} 1 0 1 <NA> <NA> {decomposed} <NA> <NA>\n")
    # Some systems find a file by either form, and each gives it as it was asked for.
    for name in (decomposed, composed):
        other = str(recording.with_stem(name))
        assert find_turns(Turns.read(table, *TIMES), other) == (Turn(0, 1, None, composed),)
    for path, speaker in ((table, composed), (diarisation, f"{composed}/{composed}")):
        assert find_turns(Turns.read(path, *TIMES), str(recording)) == (Turn(0, 1, None, speaker),)
        assert match_turns(Turns.read(path, *TIMES), [str(recording)]).others == ()


def test_channels_of_a_diarisation_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text(f"SPEAKER call {'9' * 5_000} 0 1 <NA> <NA> a <NA> <NA>\n")
    assert find_turns(Turns.read(path, *TIMES), "call.wav") == (Turn(0, 1, None, "call/a"),)


def test_channels_of_a_diarisation_that_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text(
        "SPEAKER call <NA> 0 1 <NA> <NA> a <NA> <NA>\n"
        "SPEAKER call 02 1 1 <NA> <NA> b <NA> <NA>\n"
        "SPEAKER call left 2 1 <NA> <NA> c <NA> <NA>\n"
    )
    found = find_turns(Turns.read(path, *TIMES), "call.wav")
    assert [(turn.channel, turn.speaker) for turn in found] == [
        (None, "call/a"),
        ("1", "call/b"),
        (None, "call/c"),
    ]


def test_tables_of_the_same_name_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "call.wav").touch()
        (tmp_path / name / "turns.csv").write_text("file,start,end\ncall.wav,1,2\n")
        monkeypatch.chdir(tmp_path / name)
        assert [*Turns.read("turns.csv", *TIMES).by_recording] == [
            str(tmp_path / name / "call.wav")
        ]


def test_spaces_in_the_names_of_a_diarisation(tmp_path: Path) -> None:
    path = tmp_path / "turns.rttm"
    path.write_text(
        "SPEAKER\t会議\u3000一\t1 30.5  2 <NA> <NA> a <NA> <NA> ;; well\n", encoding="utf-8"
    )
    assert Turns.read(path, *TIMES).by_recording == {
        "会議\u3000一": (Turn(30.5, 32.5, None, "会議\u3000一/a"),)
    }
    path.write_text("SPEAKER my call 1 30.5 2 <NA> <NA> s <NA> <NA>\n")
    with pytest.raises(ConfigError, match=r"line 1: a turn is 'SPEAKER my.*; expected at most 10"):
        Turns.read(path, *TIMES)


def test_a_diarisation(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text(
        "SPEAKER call 1 0.5 4.00 <NA> <NA> spk00 <NA> <NA>\n\n"
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown spk00 <NA> <NA>\n"
        "SPEAKER call 1 4.00 3.00 <NA> <NA> <NA> <NA> <NA>\n"
    )
    turns = Turns.read(path, *TIMES)
    path.write_text(path.read_text().replace("\n", "\r"))
    assert Turns.read(path, *TIMES).by_recording == turns.by_recording
    assert find_turns(turns, "any/where/call.mp3") == (
        Turn(0.5, 4.5, None, "call/spk00"),
        Turn(4, 7),
    )
    assert match_turns(turns, ["call.mp3"]).others == ()
    assert match_turns(turns, ["called.mp3"]).others == ("call",)


def test_channels_of_a_diarisation_count_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text(
        "SPEAKER call 1 0.5 4.00 <NA> <NA> agent <NA> <NA>\n"
        "SPEAKER call 2 4.00 3.00 <NA> <NA> client <NA> <NA>\n"
        "SPEAKER memo 2 1.00 1.00 <NA> <NA> ann <NA> <NA>\n"
    )
    turns = Turns.read(path, *TIMES)
    agent, client = Turn(0.5, 4.5, "0", "call/agent"), Turn(4, 7, "1", "call/client")
    assert find_turns(turns, "call.wav") == (agent, client)
    mixed = (agent._replace(channel=None), client._replace(channel=None))
    assert find_turns(turns, "call.wav", mixed=True) == mixed
    assert find_turns(turns, "memo.wav") == (Turn(1, 2, None, "memo/ann"),)
    speakers = Speakers.parse(str(path))
    assert find_speaker(speakers, "call.wav", "0", 3.0, 7.0) == "call/agent"
    assert find_speaker(Speakers.parse(str(path)), "call.wav", "mix", 3.0, 7.0) == "call/client"
    # The only channel of a file may be of what was a mix.
    alone = Speakers.parse(str(path))
    assert find_speaker(alone, "call.wav", "0", 3.0, 7.0, mixed=True) == "call/client"
    # A table says itself what is of the mix.
    table = tmp_path / "all.csv"
    table.write_text("file,start,end,channel\ncall.wav,0,1,1\n")
    found = find_turns(Turns.read(table, *TIMES), str(tmp_path / "call.wav"), mixed=True)
    assert found == (Turn(0, 1, "1"),)


def test_a_diarisation_may_name_files_with_suffix(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    lines = [
        f"SPEAKER {name} 1 0 {n} <NA> <NA> x\n" for n, name in enumerate(("a.wav", "a", "b"), 1)
    ]
    path.write_text("".join(lines))
    turns = Turns.read(path, *TIMES)
    # The name in full comes first, and is nobody else's.
    expected = {
        "x/a.wav": 1,
        "x/a.mp3": 2,
        "x/a": 2,
        "x/b.wav": 3,
        "x/a.wav.mp3": 1,
        "x/c.wav": None,
    }
    match = match_turns(turns, expected)
    found = {name: next((turn.end for turn in match.find(name)), None) for name in expected}
    assert found == expected
    assert match_turns(turns, ["x/a.wav", "x/a.mp3"]).others == ("b",)
    assert match_turns(turns, ["x/a.mp3", "x/b.wav"]).others == ("a.wav",)
    assert match_turns(turns, ["x/a.wav", "x/a.mp3", "y/a.flac"]).shared == ("a",)


def test_a_recording_that_is_named_with_and_without_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    names = ("a", "b.wav", "p/a.wav", "a.wav", "a", "p/a", "c.d", "e", "p/f", "f.wav")
    path.write_text("".join(f"SPEAKER {name} 1 0 1 <NA> <NA> x\n" for name in names))
    turns = Turns.read(path, *TIMES)
    expected = r"all\.rttm: {}; expected one name for each recording$"
    told = r"x/a\.wav may be a\.wav \(line 4\) or a \(line 1\)"
    for inputs in (["x/a.wav"], ["x/b.wav", "x/a.wav", "x/p/a.mp3"]):
        with pytest.raises(ConfigError, match=expected.format(told)):
            match_turns(turns, inputs)
    told = r"x/p/a\.wav may be p/a\.wav \(line 3\) or p/a \(line 6\)"
    with pytest.raises(ConfigError, match=expected.format(told)):
        match_turns(turns, ["x/p/a.wav"])
    # What another is found by is the other's; and names in other folders are of others.
    match_turns(turns, ["x/a.wav", "x/a.mp3", "x/b.wav", "x/c.d", "x/c.wav", "e", "e.wav"])
    match_turns(turns, ["x/p/f.wav", "x/b.mp3", "x/e"])
    # Of a name without segments, nothing is lost.
    grids = Turns(path, {"a": (), "a.wav": (Turn(0, 1),)}, local=True)
    match_turns(grids, ["a.wav"])


def test_a_diarisation_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text("speaker call 1 0.5 4.00 <NA> <NA> agent <NA> <NA>\n")
    with pytest.raises(ConfigError, match=r"all\.rttm: has no turns; expected lines that begin"):
        Turns.read(path, *TIMES)


def test_segments_without_times(tmp_path: Path, fake_classifier: FakeClassifier) -> None:
    table = tmp_path / "all.csv"
    table.write_text("file,speaker\ncall.wav,ann\n")
    message = r"all\.csv: has segments without a start or an end; expected both for each"
    with pytest.raises(ConfigError, match=message):
        Annotator(fake_classifier, Turns.read(table))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,from,to\nx,0,1\n", "has the columns path, from, to; expected file, start"),
        ("a.csv", "file,start\na.wav,0\n", "expected file, start, end"),
        ("a.csv", "file,start,end\na.wav,0,\n", "line 2: has no end"),
        ("a.csv", "file,start,end\n,0,1\n", "line 2: has no file"),
        (
            "a.csv",
            "file,start,end\na.wav,0,1\na.wav,-1,1\n",
            r"a\.csv, line 3: start is '-1'; expected seconds",
        ),
        (
            "a.csv",
            "file,start,end\na.wav,0,nan\n",
            "line 2: end is 'nan'; expected seconds, with a decimal point, from 0 to",
        ),
        ("a.csv", "file,start,end\na.wav,2,1\n", "starts at 2 s and ends at 1 s"),
        (
            "a.rttm",
            "SPEAKER call 1 0.0 -0.5 <NA> <NA> a\n",
            r"a\.rttm, line 1: duration is '-0\.5'; expected seconds",
        ),
        ("a.rttm", "SPEAKER call 1 0.0\n", "expected 8 fields"),
        (
            "a.rttm",
            "SPEAKER call 1 0 1 <NA> <NA> a\nSPEAKER call 0 0 1 <NA> <NA> a\n",
            r"a\.rttm, line 2: channel is '0'; expected a number from 1 on, as RTTM counts "
            "them, or <NA>$",
        ),
        ("a.rttm", "SPEAKER call -1 0 1 <NA> <NA> a\n", "line 1: channel is '-1'; expected a num"),
        ("a.rttm", "SPEAKER call 0.0 0 1 <NA> <NA> a\n", r"line 1: channel is '0\.0'; expected"),
        ("a.csv", "file,start,end\na.wav,1,5,2,5\n", "line 2: has 5 cells; expected 3"),
        ("a.csv", 'file,start,end,speaker\na.wav,1,2,"bob\na.wav,2,3,x\n', "unexpected end of"),
        ("a.csv", "file,start,end\na.wav,1,1e308\n", "line 2: end is '1e308'; expected seconds"),
        ("a.csv", f"file,start,end\na.wav,{'9' * 5_000},1\n", r"line 2: start is '9+\.\.\.9+'; ex"),
        (
            "a.rttm",
            "\nSPEAKER call 1 0 1e308 <NA> <NA> a\n",
            "line 2: duration is '1e308'; expected",
        ),
        ("a.csv", "file,start,end\na.wav,1\n", "line 2: has 2 cells; expected 3"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_files_that_tell_no_segments(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        Turns.read(path, *TIMES)


@pytest.mark.parametrize("step", [100, 16_000, 1_000_000])
def test_turns_are_cut_as_they_were_told(step: int) -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal(10 * 16_000).astype(np.float32)
    turns = [
        Turn(3.0, 8.0),
        Turn(0.5, 1.25),
        Turn(3.5, 4.0),  # ends before the one that begins before it
        Turn(0.5, 1.25),  # the same again
        Turn(9.5, 12.0),  # ends after the end
        Turn(2.0, 2.0),
        Turn(2.0, 2.05),  # too short to be scored
        Turn(9.95, 12.0),  # so is what is left of it
        Turn(11.0, 12.0),
    ]
    track = Track(TurnCutter(enumerate(turns)))
    found = []
    for first in range(0, len(audio), step):
        found += track.push(audio[first : first + step])
    found += track.finish()
    ends = {0: (3.0, 8.0), 1: (0.5, 1.25), 2: (3.5, 4.0), 3: (0.5, 1.25), 4: (9.5, 10.0)}
    assert {span.turn: (span.start / 16_000, span.end / 16_000) for span, _ in found} == ends
    assert len(found) == len(ends)
    for span, waveform in found:
        np.testing.assert_array_equal(waveform, audio[span.start : span.end])
        assert span.speech == (span.end - span.start) / 16_000


def test_long_turns_are_cut_into_equal_parts() -> None:
    track = Track(TurnCutter([(7, Turn(1.0, 76.0))]))
    found = track.push(np.zeros(100 * 16_000, np.float32)) + track.finish()
    assert [span.turn for span, _ in found] == [7, 7, 7]
    assert [len(waveform) / 16_000 for _, waveform in found] == [25, 25, 25]
    assert [span.start / 16_000 for span, _ in found] == [1, 26, 51]


def test_a_turn_may_end_long_after_the_recording() -> None:
    track = Track(TurnCutter([(0, Turn(2.0, 1e12)), (1, Turn(1e12, 2e12))]))
    found = track.push(np.zeros(50 * 16_000, np.float32)) + track.finish()
    edges = [(span.start, span.end) for span, _ in found]
    assert edges == [(32_000, edges[0][1]), (edges[0][1], 800_000)]
    assert edges[0][1] == pytest.approx(32_000 + 30 * 16_000, abs=1)


def test_only_turns_that_overlap_much_share_the_audio() -> None:
    """A part of it that waits keeps all of it, which is to be less than copies are."""
    audio = np.arange(10 * 16_000, dtype=np.float32)
    for ends, is_shared in (((4.0, 5.0), False), ((5.0, 5.0), False), ((5.0, 6.0), True)):
        track = Track(TurnCutter(enumerate(Turn(0.0, end) for end in ends)))
        found = track.push(audio)
        assert [len(waveform) / 16_000 for _, waveform in found] == list(ends)
        for span, waveform in found:
            np.testing.assert_array_equal(waveform, audio[span.start : span.end])
        assert np.shares_memory(found[0][1], found[1][1]) == is_shared


def test_audio_between_turns_is_not_kept() -> None:
    turns = [Turn(minute * 60.0, minute * 60.0 + 1) for minute in range(10)]
    track = Track(TurnCutter(enumerate(turns)))
    second = np.zeros(16_000, np.float32)
    kept = []
    for _ in range(600):
        track.push(second)
        kept.append(len(track._audio))
    assert max(kept) <= 16_000


def test_the_whole_of_a_recording_is_a_turn_where_no_time_is_told(tmp_path: Path) -> None:
    table = tmp_path / "speakers.csv"
    table.write_text("file,speaker\na.wav,anna\n")
    (turn,) = find_turns(Turns.read(table, "speaker"), str(tmp_path / "a.wav"))
    assert turn == Turn(-math.inf, math.inf, None, "anna")


def test_the_output_of_a_run_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("calls", "out"):
        Path(folder).mkdir()
    name = os.fsdecode(b"calls/caf\xe9.wav")
    Path(name).touch()
    Path("calls/a.wav").touch()
    Path("out/labels.csv").write_text(
        "file,start,end\ncalls/a.wav,0,1\ncalls/caf\\xe9.wav,2,3\ncalls/b.wav,4,5\n"
    )
    turns = Turns.read(Path("out/labels.csv"), *TIMES)
    assert find_turns(turns, str(tmp_path / "calls/a.wav")) == (Turn(0, 1),)
    assert find_turns(turns, name) == (Turn(2, 3),)
    # What is nowhere is where it is said to be.
    assert find_turns(turns, "calls/b.wav") == ()
    assert match_turns(turns, ["calls/a.wav", name]).others == (str(tmp_path / "out/calls/b.wav"),)
    assert match_turns(turns, ["calls/a.wav"]).others[0] == f"{tmp_path}/calls/caf\\xe9.wav"
    # What is in the table's folder comes first.
    Path("out/calls").mkdir()
    Path("out/calls/a.wav").touch()
    turns = Turns.read(Path("out/labels.csv"), *TIMES)
    assert find_turns(turns, "calls/a.wav") == ()
    assert find_turns(turns, "out/calls/a.wav") == (Turn(0, 1),)


def test_names_in_a_diarisation_that_several_recordings_have(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text(
        "SPEAKER a 1 0 1 <NA> <NA> x <NA> <NA>\nSPEAKER b 1 0 1 <NA> <NA> x <NA> <NA>\n"
    )
    turns = Turns.read(path, *TIMES)
    assert match_turns(turns, ["x/a.wav", "y/a.flac", "y/b.wav", "c.wav", "d.wav"]).shared == ("a",)
    assert turns.local


@pytest.mark.parametrize(
    ("names", "local"),
    [
        # Two Unicode forms, and a byte that is no UTF-8 and its escape.
        (("caf\u00e9.wav", "cafe\u0301.wav"), False),
        ((os.fsdecode(b"caf\xe9.wav"), r"caf\xe9.wav"), True),
    ],
)
def test_recordings_of_similar_names_have_their_own_turns(
    names: tuple[str, str], local: bool, tmp_path: Path
) -> None:
    recordings = [str(tmp_path / name) for name in names]
    known = names if local else recordings
    spoken = {name: (Turn(n, n + 1),) for n, name in enumerate(known)}
    match = match_turns(Turns(tmp_path / "turns", spoken, local), recordings)
    assert [match.find(one) for one in recordings] == [(Turn(0, 1),), (Turn(1, 2),)]
    assert (match.shared, match.others) == ((), ())


def test_a_name_without_turns_is_shared_by_nobody(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "grids", {"a": (), "b": (Turn(0, 1),), "c": ()}, local=True)
    match = match_turns(turns, ["x/a.wav", "y/a.wav", "x/b.wav", "y/b.wav"])
    assert (match.shared, match.others) == (("b",), ())


def test_a_loop_of_links_has_no_turns(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("file,start,end\na.wav,0,1\n")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert find_turns(Turns.read(table, *TIMES), str(tmp_path / "loop.wav")) == ()


def test_links_to_recordings(tmp_path: Path) -> None:
    folder, table = tmp_path / "calls", tmp_path / "a.csv"
    folder.mkdir()
    (folder / "a.wav").touch()
    (folder / "b.wav").symlink_to("a.wav")
    (folder / "c.wav").symlink_to("a.wav")
    (tmp_path / "link").symlink_to("calls")
    table.write_text("file,start,end\ncalls/a.wav,0,1\ncalls/b.wav,0,2\n")
    turns = Turns.read(table, *TIMES)
    a, b, c = (str(folder / f"{name}.wav") for name in "abc")
    matched = match_turns(turns, [a, b])
    assert (matched.find(a), matched.find(b)) == ((Turn(0, 1),), (Turn(0, 2),))
    assert (matched.shared, matched.others) == ((), ())
    # The folder may be a link, too, and be named otherwise in the table.
    assert find_turns(turns, str(tmp_path / "link" / "b.wav")) == (Turn(0, 2),)
    # One that is not in the table is any that it leads to and that is not there itself.
    assert find_turns(turns, c) == (Turn(0, 1), Turn(0, 2))
    assert match_turns(turns, [b, c]).find(c) == (Turn(0, 1),)
    # They are in the order of their names, in every run.
    for number in range(9):
        (folder / f"d{number}.wav").symlink_to("a.wav")
    rows = [f"calls/d{number}.wav,0,{number + 1}\n" for number in range(9)]
    table.write_text("file,start,end\n" + "".join(reversed(rows)))
    linked = find_turns(Turns.read(table, *TIMES), c)
    assert linked == tuple(Turn(0, number + 1) for number in range(9))
    table.write_text("file,start,end\nlink/c.wav,0,3\n")
    turns = Turns.read(table, *TIMES)
    assert find_turns(turns, a) == find_turns(turns, c) == (Turn(0, 3),)
    assert match_turns(turns, [a, c]).find(a) == ()


def test_segments_of_a_run_that_found_none(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,channel,start,end,emotion,confidence\r\n")
    assert find_turns(Turns.read(path, *TIMES), str(tmp_path / "a.wav")) == ()
    with pytest.raises(ConfigError, match="has no row below its header"):
        Turns.read(path)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_labels_of_a_run_in_any_format_are_segments(tmp_path: Path, suffix: str) -> None:
    segments = (
        Segment("0", 0.0, 1.5, "joy", 1.0, (1.0,), "ann"),
        Segment("1", 1.25, 2.0, "joy", 1.0, (1.0,)),
    )
    result = FileResult("calls/a.wav", "ok", segments, duration=2.0, channels=2)
    info = RunInfo("0", {"labels": ["joy"]}, {}, speakers=True)
    path = tmp_path / f"labels.{suffix}"
    with open_writer(str(path), suffix, info) as writer:
        writer.write(result)
        writer.write(FileResult("calls/b.wav", "no speech"))
    found = find_turns(Turns.read(path, *TIMES), str(tmp_path / "calls" / "a.wav"))
    assert found == (Turn(0, 1.5, "0", "ann"), Turn(1.25, 2, "1"))
    if suffix == "jsonl":  # of a run that found no speech
        (tmp_path / "none.jsonl").touch()
        assert find_turns(Turns.read(tmp_path / "none.jsonl", *TIMES), "a.wav") == ()
    if suffix != "csv":
        with open_writer(str(path), suffix, info, overwrite=True) as writer:
            writer.write(replace(result, path="calls/b\u2028\x85c.wav", segments=segments[1:]))
        (turn,) = find_turns(Turns.read(path, *TIMES), str(tmp_path / "calls" / "b\u2028\x85c.wav"))
        assert turn == Turn(1.25, 2, "1")
        with pytest.raises(ConfigError, match="expected file, speaker, and any of channel, start,"):
            Speakers.parse(str(path))
        path.write_text(path.read_text()[:-20])
        with pytest.raises(ConfigError, match="expected what `ser annotate` wrote, or a table"):
            Turns.read(path, *TIMES)


def test_the_line_of_a_diarisation_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    line = "SPEAKER call 1 0 1 <NA> <NA> zo\xeb\n"
    path.write_bytes(line.encode() + line.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"all\.rttm, line 2: is not UTF-8: .*; expected RTTM"):
        Turns.read(path, *TIMES)


def write_run(path: Path) -> Path:
    """Write an output of three files with a segment each, and its record."""
    segments = (Segment("0", 0.0, 1.5, "joy", 1.0, (1.0,), "ann"),)
    results = [FileResult(f"{name}.wav", "ok", segments, duration=2.0) for name in "abc"]
    return write_results(path, results, RunInfo("0", {"labels": ["joy"]}, {}, speakers=True))


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("jsonl", r"labels\.jsonl, line 3: cannot be read: Expecting value: column \d+; expected"),
        ("json", r"labels\.json: cannot be read: Expecting value: line 14 column \d+ .*; expected"),
    ],
)
def test_the_line_of_a_run_that_is_broken_is_named(
    tmp_path: Path, suffix: str, message: str
) -> None:
    path = write_run(tmp_path / f"labels.{suffix}")
    before, _, after = path.read_text().rpartition('"start": 0.0')
    path.write_text(f'{before}"start": {after}')
    if suffix == "json":
        assert before.count("\n") == 13
    with pytest.raises(ConfigError, match=message):
        Turns.read(path, *TIMES)


@pytest.mark.parametrize("mark", ["", "\ufeff"])  # of each of two files that were put together
def test_lines_may_have_spaces_within_their_braces(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text((mark + '{ "file": "a.wav", "start": 0, "end": 1 }\n') * 2, "utf-8")
    assert find_turns(Turns.read(path, *TIMES), str(tmp_path / "a.wav")) == (Turn(0, 1),) * 2


def test_a_run_record_tells_no_segments(tmp_path: Path) -> None:
    record = record_path(write_run(tmp_path / "labels.json"))
    with pytest.raises(
        ConfigError,
        match=r"is a run record; expected the labels that it lies beside, labels\.json$",
    ):
        Turns.read(record, *TIMES)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(("old", "place"), [('"ann', r": b\.wav|, line 2"), ("b.wav", "|, line 2")])
@pytest.mark.parametrize(
    ("new", "message"),
    [("\\ud800", "surrogates not allowed"), ("\\u0000", "contains a NUL character")],
)
def test_texts_that_are_none_are_refused(
    tmp_path: Path, suffix: str, old: str, place: str, new: str, message: str
) -> None:
    path = write_run(tmp_path / f"labels.{suffix}")
    before, name, after = path.read_text().partition("b.wav")
    path.write_text(before + (name + after).replace(old, old[:-3] + new, 1))
    with pytest.raises(
        ConfigError, match=rf"labels\.{suffix}({place}): cannot be read: .*{message}; expected what"
    ) as found:
        Turns.read(path, *TIMES)
    str(found.value).encode()


def test_what_may_be_in_other_folders_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    for names in (("x/a", "y/a.wav"), ("x/a.wav", "y/a.wav", "z/a")):
        path.write_text("".join(f"SPEAKER {name} 1 0 1 <NA> <NA> x\n" for name in names))
        turns = Turns.read(path, *TIMES)
        with pytest.raises(
            ConfigError, match=r"elsewhere/a\.wav may be y/a\.wav or x/a; |x/a\.wav or y"
        ):
            match_turns(turns, ["elsewhere/a.wav"])


def test_turns_of_another_folder_are_not_those_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "all.rttm"
    path.write_text("SPEAKER s1/x 1 0 1 <NA> <NA> A <NA> <NA>\n")
    inputs = ["rec/s1/x.flac", "rec/s2/x.flac"]
    turns = Turns.read(path, *TIMES)
    match = match_turns(turns, inputs)
    assert [len(match.find(one)) for one in inputs] == [1, 0]
    # One that lies elsewhere, alone, is meant.
    assert len(find_turns(turns, inputs[1])) == 1


def test_turns_of_just_the_shortest_and_the_longest_length_are_kept_whole() -> None:
    turns = [Turn(1.0, 1.1), Turn(2.0, 32.0), Turn(40.0, 100.0)]
    track = Track(TurnCutter(enumerate(turns)))
    found = track.push(np.zeros(101 * 16_000, np.float32)) + track.finish()
    lengths = sorted((span.turn, len(waveform)) for span, waveform in found)
    assert lengths == [(0, 1_600), (1, 480_000), (2, 480_000), (2, 480_000)]
