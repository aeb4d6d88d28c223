"""Tests of segments from TextGrids: which intervals are taken, and whose they are."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import EXAMPLES, FakeClassifier, find_turns
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid

import sercli
from sercli.cli import main
from sercli.errors import ConfigError
from sercli.schema import FileResult, Segment
from sercli.speech.matching import match_turns
from sercli.speech.turn import TIMES, Turn
from sercli.speech.turns import Turns

Tiers = Mapping[str, Sequence[tuple[float, float, str]]]


def write_grid(path: Path, tiers: Tiers, encoding: str = "utf-8") -> Path:
    """Write a TextGrid as Praat does, in its long form."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 9"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, rows) in enumerate(tiers.items(), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{name}"', "        xmin = 0", "        xmax = 9"]
        lines.append(f"        intervals: size = {len(rows)}")
        for index, (start, end, text) in enumerate(rows, 1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start}"]
            lines += [f"            xmax = {end}", f'            text = "{text}"']
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


SPOKEN = [(0.0, 1.0, ""), (1.0, 2.5, "well"), (2.5, 4.0, "\u00a0 "), (4.0, 9.0, 'she said ""no""')]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_intervals_with_a_text_are_segments(tmp_path: Path, encoding: str) -> None:
    path = write_grid(tmp_path / "call.TextGrid", {"utterance": SPOKEN}, encoding)
    turns = Turns.read(path, *TIMES)
    assert find_turns(turns, "elsewhere/call.wav") == (Turn(1.0, 2.5), Turn(4.0, 9.0))
    assert find_turns(turns, "other.wav") == ()
    assert (turns.tells_times, turns.tells_speakers) == (True, False)
    assert turns.sha256 != Turns.read(write_grid(path, {"utterance": SPOKEN[:2]})).sha256


@pytest.mark.skipif(os.name == "nt", reason="names are of UTF-16 there")
def test_grids_of_recordings_whose_names_are_escaped(tmp_path: Path) -> None:
    # As export_labels names them: one byte is no UTF-8, and one name spells such an escape itself.
    for name in (r"caf\xe9", r"\x5cxff"):
        write_grid(tmp_path / f"{name}.TextGrid", {"words": SPOKEN})
    turns = Turns.read(tmp_path, *TIMES)
    for escaped in (b"caf\xe9.wav", rb"\xff.wav"):
        recording = os.fsdecode(b"calls/" + escaped)
        assert find_turns(turns, recording) == (Turn(1.0, 2.5), Turn(4.0, 9.0))
    assert find_turns(turns, os.fsdecode(b"calls/caf\xe8.wav")) == ()


def test_tiers_that_are_named_are_speakers(tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    (folder / "more").mkdir(parents=True)
    tiers = {"agent": [(0, 3, "yes")], "client": [(2, 5, "no")], "noise": [(0, 9, "hum")]}
    write_grid(folder / "call.TextGrid", tiers)
    write_grid(folder / "more" / "memo.textgrid", {"agent": [(1, 2, "note")]})
    turns = Turns.read(folder, *TIMES, tiers=("client", "agent"))
    spoken = (Turn(0, 3, None, "call/agent"), Turn(2, 5, None, "call/client"))
    assert find_turns(turns, "call.wav") == find_turns(turns, "call.wav", mixed=True) == spoken
    assert find_turns(turns, "memo.wav") == (Turn(1, 2, None, "more/memo/agent"),)
    # The agent of another call may be another.
    assert (turns.local, turns.tells_speakers) == (True, True)
    assert match_turns(turns, ["call.wav"]).others == ("more/memo",)
    alone = Turns.read(folder, *TIMES, tiers=("agent",))
    assert find_turns(alone, "call.wav") == (Turn(0, 3),)
    assert alone.sha256 != turns.sha256


def test_tiers_of_one_name_are_told(tmp_path: Path) -> None:
    tiers = {"u": [(0, 4, "a")], "v": [(5, 6, "b")], "w": [(7, 8, "c")]}
    grid = write_grid(tmp_path / "solo.TextGrid", tiers)
    grid.write_text(grid.read_text().replace('name = "v"', 'name = "u"'))
    with pytest.raises(ConfigError, match=r"has several tiers u; expected each name once"):
        Turns.read(grid, *TIMES, tiers=("u",))
    (turns,) = Turns.read(grid, *TIMES, tiers=("w",)).by_recording.values()
    assert [turn[:2] for turn in turns] == [(7, 8)]


def test_labels_of_a_run_are_segments_of_another(
    fake_classifier: FakeClassifier, tmp_path: Path
) -> None:
    first = list(sercli.annotate(EXAMPLES / "statement.flac", fake_classifier))
    sercli.export_labels(first, tmp_path / "grids", "textgrid")
    turns = Turns.read(tmp_path / "grids", *TIMES, tiers=["emotion"])
    (again,) = sercli.annotate(EXAMPLES / "statement.flac", fake_classifier, segments=turns)
    for one, other in zip(first[0].segments, again.segments, strict=True):
        assert (other.start, other.end) == pytest.approx((one.start, one.end), abs=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'File type = "ooTextFile"\ntext = "caf\xe9"\n'.encode("latin-1"),
            "is neither UTF-8 (line 2) nor UTF-16; expected a TextGrid in UTF-8 or UTF-16, as "
            "Praat saves it",
        ),
        (
            "no grid".encode("utf-16")[:-1],
            "is not UTF-16, although it has its byte order mark; expected a TextGrid in UTF-8 or "
            "UTF-16, as Praat saves it",
        ),
        (
            b"no grid",
            "is not a TextGrid (it ends where the type of the file was expected); expected one as "
            "Praat saves it, as text in UTF-8 or UTF-16",
        ),
        (
            b"ooBinaryFile\x08TextGrid\xff",
            "is binary; expected a TextGrid that Praat saved as text",
        ),
    ],
)
def test_what_is_wrong_with_a_grid_is_told_in_a_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "call.TextGrid"
    path.write_bytes(content)
    for named in (path, tmp_path):
        with pytest.raises(ConfigError) as caught:
            Turns.read(named, *TIMES)
        where = "" if named == path else "call.TextGrid: "
        assert str(caught.value) == f"{named}: cannot be read: {where}{message}"


def save(path: Path, tiers: Tiers, form: str) -> Path:
    """Write a TextGrid in one of the forms that there are."""
    grid = Textgrid(-9, 9)
    for name, rows in tiers.items():
        grid.addTier(IntervalTier(name, rows, -9, 9))
    grid.save(str(path), form, includeBlankSpaces=True)
    return path


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid", "textgrid_json", "json"])
def test_times_below_0_are_refused(tmp_path: Path, form: str) -> None:
    where = r"grids: cannot be read: call\.TextGrid: the tier words has an interval from"
    folder = tmp_path / "grids"
    folder.mkdir()
    spoken = (3.0, 4.0, "-2")
    for row, times in (((-0.5, 2.0, "well"), r"-0\.5 to 2"), ((-2.0, -1.0, "well"), "-2 to -1")):
        tiers = {"other": [spoken], "words": [row, spoken]}
        save(folder / "call.TextGrid", tiers, form)
        with pytest.raises(ConfigError, match=f"{where} {times} s; expected no time below 0"):
            Turns.read(folder, *TIMES, tiers=["words"])
    # What has no text is no segment, and -0 is 0.
    path = save(folder / "call.TextGrid", {"words": [(0.0, 1.0, "xmin = -1"), spoken]}, form)
    text = path.read_text()
    text = text.replace("xmin = 0 ", "xmin = -0 ").replace("\n0\n1\n", "\n-0\n1\n")
    text = text.replace("[0.0, 1.0", "[-0.0, 1.0")
    assert "-0" in text
    path.write_text(text)
    assert find_turns(Turns.read(folder, *TIMES), "call.wav") == (Turn(0, 1), Turn(3, 4))


def test_a_grid_is_not_told_as_a_whole(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "call.TextGrid", {"words": [(0, 9, "well")]})
    path.write_text(path.read_text().replace("xmin = 0", 'xmin = "' + "a b\t" * 9_999 + '"', 1))
    with pytest.raises(
        ConfigError,
        match=r"is not a TextGrid \(line 4: found .a b [ab ]{30,40}\.\.\.; expected the",
    ) as caught:
        Turns.read(path, *TIMES)
    assert len(str(caught.value)) < len(str(path)) + 300
    assert "\n" not in str(caught.value)


def test_what_was_exported_is_read(tmp_path: Path) -> None:
    names = (
        *("p1/visit.flac", "p2/visit.flac", "visit.flac", "same.wav", "same.mp3", "p1/same.wav"),
        *("E.wav", "e.mp3", "f", "f.wav", "g.wav", "g.wav.flac", "b.c.wav", "p2/zo\u0308.wav"),
    )
    results = [
        FileResult(
            f"in/{name}", "ok", (Segment("mix", n, n + 0.5, "joy", 1.0, (1.0,)),), duration=99.0
        )
        for n, name in enumerate(names)
    ]
    sercli.export_labels(results, tmp_path / "grids", "textgrid")
    turns = Turns.read(tmp_path / "grids", *TIMES, tiers=["emotion"])
    for root in ("in", "elsewhere/in", str(tmp_path)):
        recordings = [f"{root}/{name}" for name in names]
        match = match_turns(turns, recordings)
        assert [match.find(one)[0].start for one in recordings] == list(range(len(names)))
        assert match.others == match.shared == ()
    # Folders tell one of several; of a single one, the name is enough.
    assert [turn.start for turn in find_turns(turns, "p2/visit.flac")] == [1]
    assert [turn.start for turn in find_turns(turns, "elsewhere/z\u00f6.mp3")] == [13]
    assert find_turns(turns, "elsewhere/e.wav") == ()
    assert match_turns(turns, ["p1/visit.mp3", "E.wav"]).others[:4] == (
        "b.c",
        "e.mp3",
        "f",
        "f.wav",
    )


def test_exported_labels_keep_their_speakers_and_channels(tmp_path: Path) -> None:
    def tell(start: float, end: float, channel: str, speaker: str | None = None) -> Segment:
        return Segment(channel, start, end, "joy", 1.0, (1.0,), speaker)

    results = [
        FileResult("in/call.wav", "ok", segments, duration=9.0, channels=2)
        for segments in (
            (tell(0, 2, "0", "agent"), tell(1, 3, "1", "p1/client (2)"), tell(1, 4, "0", "agent")),
            (tell(0, 2, "mix", "channel 1"), tell(0, 3, "mix"), tell(1, 3, "mix")),
            (tell(0, 2, "1", "Bo (channel 0)"), tell(2, 4, "mix", "Bo (channel 0)")),
            (
                tell(0, 2, "mix", "Anna"),
                tell(0, 3, "mix", "Anna (layer 2)"),
                tell(1, 4, "mix", "Anna"),
            ),
            (
                tell(0, 2, "mix", "(layer 2)"),
                tell(2, 4, "0", "A (speaker)"),
                tell(4, 5, "mix", "x (2)"),
            ),
            (tell(0, 2, "0"), tell(1, 3, "1")),
            (tell(0, 2, "mix", "agent"), tell(2, 3, "mix", "client")),
            (tell(0, 2, "mix"), tell(1, 3, "mix")),
            (tell(0, 2, "1"),),
        )
    ]
    for number, result in enumerate(results):
        sercli.export_labels([result], tmp_path / str(number), "textgrid")
        found = find_turns(Turns.read(tmp_path / str(number), *TIMES), "in/call.wav")
        expected = {
            (one.start, one.end, None if one.channel == "mix" else one.channel, one.speaker)
            for one in result.segments
        }
        assert {(one.start, one.end, one.channel, one.speaker) for one in found} == expected
    odd = replace(results[0], segments=(tell(0, 2, "mix", "item [1]"),))
    sercli.export_labels([odd], tmp_path / "odd", "textgrid")
    assert find_turns(Turns.read(tmp_path / "odd", *TIMES), "call.wav")[0].speaker == "item (1]"
    # Another tier may be what is meant.
    write_grid(tmp_path / "0" / "more.TextGrid", {"emotion": SPOKEN, "words": SPOKEN})
    with pytest.raises(
        ConfigError, match="has the interval tiers emotion, words; expected only one"
    ):
        Turns.read(tmp_path / "0", *TIMES)


def test_a_grid_without_segments_is_that_of_its_recording(tmp_path: Path) -> None:
    first = Segment("mix", 1, 2, "joy", 1.0, (1.0,))
    results = [
        FileResult("in/p1/visit.wav", "ok", (first,), duration=9.0),
        FileResult("in/p2/visit.wav", "no speech", duration=9.0),
    ]
    sercli.export_labels(results, tmp_path, "textgrid")
    turns = Turns.read(tmp_path, *TIMES, tiers=["emotion"])
    recordings = [result.path for result in results]
    match = match_turns(turns, recordings)
    assert [match.find(one) for one in recordings] == [(Turn(1, 2),), ()]
    assert (
        match_turns(turns, recordings[:1]).others
        == match_turns(turns, [*recordings, "x/p2/visit.mp3"]).shared
    )
    assert match_turns(turns, recordings[1:]).others == ("p1/visit",)


def test_what_macos_puts_beside_grids_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    folder.mkdir()
    write_grid(folder / "call.TextGrid", {"utterance": SPOKEN})
    alone = Turns.read(folder, *TIMES)
    (folder / "__MACOSX").mkdir()
    for place in (folder, folder / "__MACOSX"):
        (place / "._call.TextGrid").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X \xff")
    assert Turns.read(folder, *TIMES) == alone
    # A grid that is hidden otherwise may be of a recording that is.
    write_grid(folder / ".memo.TextGrid", {"utterance": SPOKEN})
    assert [*Turns.read(folder, *TIMES).by_recording] == [".memo", "call"]


def test_recordings_that_may_be_those_of_several_grids(tmp_path: Path) -> None:
    for folder in ("p1", "p2"):
        (tmp_path / "grids" / folder).mkdir(parents=True)
        write_grid(tmp_path / "grids" / folder / "visit.TextGrid", {"words": SPOKEN})
    write_grid(tmp_path / "grids" / "p1" / "memo.TextGrid", {"words": SPOKEN})
    turns = Turns.read(tmp_path / "grids", *TIMES)
    message = (
        r"grids: in/visit\.wav may be p1/visit or p2/visit; expected the recordings in folders"
    )
    with pytest.raises(ConfigError, match=message):
        match_turns(turns, ["in/memo.wav", "in/visit.wav"])
    # Others in the same layout tell that it is none of them.
    match = match_turns(turns, ["in/memo.wav", "in/p2/visit.wav", "in/p3/visit.wav"])
    assert match.find("in/p3/visit.wav") == ()
    # What they tell holds for their own run alone.
    with pytest.raises(ConfigError, match=message.replace("in/", "in/p3/")):
        match_turns(turns, ["in/p3/visit.wav"])


def test_what_may_be_of_several_grids_is_refused_however_it_is_labelled(
    fake_classifier: FakeClassifier, tmp_path: Path
) -> None:
    call, grids = EXAMPLES / "call.wav", tmp_path / "grids"
    for folder in ("p1", "p2"):
        (grids / folder).mkdir(parents=True)
        write_grid(grids / folder / "call.TextGrid", {"words": SPOKEN})
    message = f"{call} may be p1/call or p2/call; expected the recordings in folders"
    done = CliRunner().invoke(main, ["annotate", str(call), "--segments", str(grids), "-q"])
    assert done.exit_code == 2
    assert message in done.stderr
    annotator = sercli.Annotator.load(fake_classifier, segments=grids)
    # At once: not when a first result is asked for.
    with pytest.raises(ConfigError, match=message):
        sercli.annotate(call, fake_classifier, segments=grids)
    with pytest.raises(ConfigError, match=message):
        annotator.annotate([sercli.Found(str(call))])
    with pytest.raises(ConfigError, match=message):
        sercli.write_labels(call, tmp_path / "labels.csv", annotator)
    assert [path.name for path in tmp_path.iterdir()] == ["grids"]  # nothing was begun
    for folder in ("p1", "p2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "call.wav").symlink_to(call)
    results = annotator.annotate([tmp_path / "p1", tmp_path / "p2"])
    assert [len(result.segments) for result in results] == [2, 2]


def test_speakers_of_a_recording_with_two_names_are_refused(tmp_path: Path) -> None:
    call, turns = EXAMPLES / "call.wav", tmp_path / "all.rttm"
    turns.write_text("SPEAKER call 1 0 9 <NA> <NA> ann\nSPEAKER call.wav 1 9 90 <NA> <NA> ben\n")
    message = f"{call} may be call.wav (line 2) or call (line 1); expected one name for each rec"
    command = ["annotate", str(call), "--adapt", "speaker", "--speakers", str(turns), "-q"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert message in done.stderr
    with pytest.raises(ConfigError, match=re.escape(message)):
        sercli.annotate(call, "svm", adapt="speaker", speakers=turns)


def test_grids_that_tell_no_segments(tmp_path: Path) -> None:
    several = write_grid(tmp_path / "call.TextGrid", {"words": SPOKEN, "phones": SPOKEN})
    with pytest.raises(
        ConfigError, match="has the interval tiers words, phones; expected only one"
    ):
        Turns.read(several, *TIMES)
    with pytest.raises(ConfigError, match="has the interval tiers words, phones; expected agent"):
        Turns.read(several, *TIMES, tiers=("agent",))
    with pytest.raises(ConfigError, match="has no tier wrods in any grid; expected it in at"):
        Turns.read(several, *TIMES, tiers=("phones", "wrods"))
    with pytest.raises(ConfigError, match="words, phones; expected words\udcff"):  # the byte FF
        Turns.read(several, *TIMES, tiers=("words\udcff",))
    with pytest.raises(ConfigError, match=r"call\.TextGrid: is a TextGrid; expected a table or a"):
        sercli.Speakers.parse(str(several))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ConfigError, match="empty: cannot be read: contains no TextGrid; expected one"
    ):
        Turns.read(tmp_path / "empty", *TIMES)
    (tmp_path / "two" / "a").mkdir(parents=True)
    for suffix in ("TextGrid", "textgrid"):
        write_grid(tmp_path / "two" / "a" / f"call.{suffix}", {"words": SPOKEN})
    with pytest.raises(ConfigError, match="contains two TextGrids named a/call; expected one"):
        Turns.read(tmp_path / "two", *TIMES)
    endless = write_grid(tmp_path / "endless.TextGrid", {"words": [(0, 10**308, "well")]})
    with pytest.raises(
        ConfigError, match=r"interval of endless from 0 to 1e\+308 s; expected times"
    ):
        Turns.read(endless, *TIMES)
    broken = tmp_path / "broken.TextGrid"
    broken.write_text("no grid")
    with pytest.raises(ConfigError, match=r"broken\.TextGrid: cannot be read: is not a TextGrid"):
        Turns.read(broken, *TIMES)
    with pytest.raises(ConfigError, match="cannot be read: "):
        Turns.read(tmp_path / "none.TextGrid", *TIMES)
    table = tmp_path / "all.csv"
    table.write_text("file,start,end\na.wav,0,1\n")
    with pytest.raises(ConfigError, match=r"all\.csv: has no tiers; expected a TextGrid"):
        Turns.read(table, *TIMES, tiers=("a",))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [(0, 1000.125, "a"), (1000.0625, 1001, "b")],
            r"the tier words has an interval b from 1000\.0625 to 1001\.0 s, and one that ends at "
            r"1000\.125 s; expected no overlap",
        ),
        ([(2, 2, "a")], r"has an interval a from 2\.0 to 2\.0 s; expected a start before the end"),
        ([(3, 2, "a")], r"has an interval a from 3\.0 to 2\.0 s; expected a start before the end"),
    ],
)
def test_intervals_that_are_none(
    tmp_path: Path, rows: Sequence[tuple[float, float, str]], message: str
) -> None:
    path = write_grid(tmp_path / "call.TextGrid", {"words": rows})
    with pytest.raises(ConfigError, match=message):
        Turns.read(path, *TIMES)
    # Without a text, they tell nothing.
    bare = write_grid(path, {"words": [(*row[:2], "") for row in rows]})
    assert find_turns(Turns.read(bare, *TIMES), "call.wav") == ()
