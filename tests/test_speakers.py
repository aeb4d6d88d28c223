"""Who speaks: by the names of recordings, by tables, by diarisations."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import find_speaker

from sercli.errors import ConfigError
from sercli.speech import speakers
from sercli.speech.speakers import Speakers, Timeline
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns


def test_by_a_pattern() -> None:
    speakers = Speakers.parse(r"(p\d+)_")
    assert find_speaker(speakers, "visits/p12_first.wav", "0", 0, 1) == "p12"
    assert find_speaker(speakers, "visits/first.wav", "0", 0, 1) is None
    folders = Speakers.parse(r"/([^/]+)/[^/]+$")
    assert find_speaker(folders, "/data/anna/one.wav", "0", 0, 1) == "anna"


def test_by_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "speakers.csv"
    table.write_text("file,speaker,note\ncalls/a.wav,anna,\ncalls/b.wav,,nobody\n")
    speakers = Speakers.parse(str(table))
    assert find_speaker(speakers, str(tmp_path / "calls" / "a.wav"), "0", 0, 5) == "anna"
    assert find_speaker(speakers, str(tmp_path / "calls" / "b.wav"), "0", 0, 5) is None
    monkeypatch.chdir(tmp_path / "..")
    assert find_speaker(speakers, f"{tmp_path.name}/calls/../calls/a.wav", "mix", 0, 5) == "anna"


def test_by_channels(tmp_path: Path) -> None:
    table = tmp_path / "speakers.csv"
    table.write_text("speaker,file,channel\nagent 7,a.wav,0\ncaller,a.wav,1\n")
    speakers = Speakers.parse(str(table))
    assert find_speaker(speakers, str(tmp_path / "a.wav"), "0", 0, 5) == "agent 7"
    assert find_speaker(speakers, str(tmp_path / "a.wav"), "1", 0, 5) == "caller"
    assert find_speaker(speakers, str(tmp_path / "a.wav"), "mix", 0, 5) is None
    table.write_text("speaker,file,channel\nboth,a.wav,mix\n")
    speakers = Speakers.parse(str(table))
    assert find_speaker(speakers, str(tmp_path / "a.wav"), "0", 0, 5) is None
    assert find_speaker(speakers, str(tmp_path / "a.wav"), "0", 0, 5, alone=True) == "both"


def test_by_who_speaks_most_of_a_segment(tmp_path: Path) -> None:
    table = tmp_path / "turns.csv"
    table.write_text("file,start,end,speaker\na.wav,0,4,anna\na.wav,4,5,ben\na.wav,5.5,9,ben\n")
    speakers = Speakers.parse(str(table))
    path = str(tmp_path / "a.wav")
    assert find_speaker(speakers, path, "0", 0.5, 4.5) == "anna"
    # Two turns of his count together.
    assert find_speaker(speakers, path, "0", 2.8, 6.1) == "ben"
    assert find_speaker(speakers, path, "0", 9, 12) is None


def test_rows_without_times_are_of_the_whole_recording_beside_others(tmp_path: Path) -> None:
    table = tmp_path / "turns.csv"
    rows = ("a.wav,,,anna", "b.wav,,2,ben", "b.wav,2,,cleo")
    table.write_text("file,start,end,speaker\n" + "".join(f"{row}\n" for row in rows))
    speakers = Speakers.parse(str(table))
    told = [
        find_speaker(speakers, str(tmp_path / name), "0", start, start + 1)
        for name, start in (("a.wav", 0), ("a.wav", 9_000), ("b.wav", 0), ("b.wav", 9_000))
    ]
    assert told == ["anna", "anna", "ben", "cleo"]


def test_by_a_diarisation(tmp_path: Path) -> None:
    turns = tmp_path / "all.rttm"
    turns.write_text(
        "SPEAKER call 1 0.00 4.00 <NA> <NA> spk00 <NA> <NA>\n\n"
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown spk00 <NA> <NA>\n"
        "SPEAKER call 1 4.00 3.00 <NA> <NA> spk01 <NA> <NA>\n"
    )
    speakers = Speakers.parse(str(turns))
    assert find_speaker(speakers, "elsewhere/call.mp3", "mix", 1, 3) == "call/spk00"
    assert find_speaker(speakers, "elsewhere/call.mp3", "mix", 3.5, 6) == "call/spk01"
    assert find_speaker(speakers, "elsewhere/other.mp3", "mix", 1, 3) is None


def test_a_table_of_channels_is_of_every_recording(tmp_path: Path) -> None:
    table = tmp_path / "roles.csv"
    table.write_text("channel,speaker,note\n0,agent,left\n1,caller,\n")
    match = Speakers.parse(str(table)).match(["a.wav", "calls/b.wav"])
    for path in ("a.wav", "calls/b.wav"):
        timeline = Timeline(match.find(path))
        assert [timeline.find(channel, 0, 5) for channel in ("0", "1")] == ["agent", "caller"]
        assert timeline.find("mix", 0, 5) is timeline.find("2", 0, 5) is None
        # Its only channel is not one of two sides.
        assert match.find(path, alone=True) == ()
    assert match.others == match.shared == ()
    assert Turns.read(table, "speaker").tells_speakers
    with pytest.raises(ConfigError, match="channel, speaker, note; expected file, start"):
        Turns.read(table, "start", "end")


def test_who_is_heard_twice_speaks_once() -> None:
    first, second = Turn(0, 1, None, "A"), Turn(1, 2.5, None, "B")
    for turns in ([first, first, second], [first, second, Turn(0.2, 1, None, "A")]):
        assert Timeline(turns).find("0", 0, 2.5) == "B"
    longer = Timeline([first, Turn(0.5, 2, None, "A"), Turn(1, 2.5, None, "B")])
    assert longer.find("0", 0, 2.5) == "A"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speakers.csv(", "no such file, and no regular expression"),
        ("speakers.csv", "0 groups; expected one"),
        ("(a)(b)", "2 groups; expected one"),
    ],
)
def test_neither_file_nor_pattern(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Speakers.parse(text)


@pytest.mark.parametrize("source", ["(s)", re.compile("s"), re.compile("(s)(t)"), None])
def test_sources_that_are_none(source: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected (one, which is the speaker|turns or a comp)"):
        Speakers(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,who\nx,y\n", "has the columns path, who; expected file, speaker, and any"),
        ("a.csv", "channel,who\n0,x\n", "has the columns channel, who; expected file, speaker"),
        ("a.csv", "channel,speaker,end\n0,x,1\n", "expected file, speaker, and any of channel"),
        ("a.csv", "channel,speaker\n0,a\n ,b\n", "line 3: has no channel; expected one"),
        ("a.csv", "channel,speaker\n0,a\n0,b\n", "line 3: b speaks throughout, but an earlier"),
        (
            "a.csv",
            "channel,speaker\nleft,a\n",
            "line 2: channel is 'left'; expected its number, counted from 0",
        ),
        ("a.csv", "", "is empty; expected CSV"),
        ("a.csv", "file,speaker,start\na.wav,anna,soon\n", "soon"),
        (
            "a.csv",
            "file,speaker\na.wav,anna\na.wav,anna\n./a.wav,ben\n",
            "line 4: ben speaks throughout, but an earlier row says so of anna; expected a single",
        ),
        (
            "a.csv",
            "file,speaker,channel\na.wav,anna,1\na.wav,ben,\n",
            "line 3: ben speaks throughout, but an earlier row says so of anna",
        ),
        (
            "a.csv",
            "file,speaker,channel\na.wav,anna,\na.wav,ben,1\n",
            "line 3: ben speaks throughout, but an earlier row says so of anna",
        ),
        ("a.rttm", "SPEAKER call 1 0.0\n", "a turn is .SPEAKER call 1 0.0.; expected 8 fields"),
        (
            "a.rttm",
            "SPEAKER call 1 0.0 x <NA> <NA> a\n",
            "line 1: duration is 'x'; expected seconds",
        ),
    ],
)
def test_files_that_tell_nothing(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        Speakers.parse(str(path))


def test_a_timeline_is_what_a_look_at_all_turns_gives(rng: np.random.Generator) -> None:
    names = ["ann", "bob", "cid", None]
    turns = [
        Turn(start, start + rng.exponential(3), str(rng.integers(2)), names[rng.integers(4)])
        for start in rng.uniform(0, 100, 60).tolist()
    ]
    turns.append(Turn(speaker="dan", channel="1"))  # all of it
    timeline = Timeline(turns)
    found = set()
    for start in rng.uniform(-5, 105, 300).tolist():
        end = start + rng.uniform(0.1, 5)
        # Between two times at which nothing changes, a speaker speaks or does not.
        edges = {max(start, min(end, time)) for turn in turns for time in turn[:2]} | {start, end}
        spoken = dict.fromkeys(["ann", "bob", "cid", "dan"], 0.0)
        for low, high in pairwise(sorted(edges)):
            some = {
                one.speaker
                for one in turns
                if one.start <= low and high <= one.end and one.channel == "0"
            }
            for speaker in some - {None}:
                spoken[str(speaker)] += high - low
        most = max(spoken.values())
        speaker = timeline.find("0", start, end)
        assert spoken[speaker] == pytest.approx(most) if speaker else most == 0
        found.add(speaker)
    assert found == {"ann", "bob", "cid", None}
    assert timeline.find("1", 200, 201) == "dan"


def test_one_who_speaks_throughout_does_not_make_all_turns_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[float] = []

    class Times(list[float]):
        """Times of spans, which note what is looked at."""

        def __getitem__(self, at: Any) -> Any:
            found = super().__getitem__(at)
            looked_at.append(found)
            return found

    spans = speakers._Spans
    monkeypatch.setattr(speakers, "_Spans", lambda *_: spans(Times(), Times()))
    turns = [Turn(n / 10, n / 10 + 0.08, None, "ann" if n % 2 else "bob") for n in range(6_000)]
    timeline = Timeline([*turns, Turn(0, 600, None, "other")])
    assert timeline.find("0", 600, 601) is None
    looked_at.clear()  # what was needed once, to join the spans of each
    assert timeline.find("0", 300.0, 300.05) == "other"
    # Two searches of 3,000 times for each of two speakers, of 12 steps at most, and what they find.
    assert 0 < len(looked_at) < 70


def test_a_diarisation_tells_of_the_mix_and_of_channels_in_any_order(tmp_path: Path) -> None:
    turns = tmp_path / "all.rttm"
    turns.write_text(
        "SPEAKER call 1 0.00 4.00 <NA> <NA> anna <NA> <NA>\n"
        "SPEAKER call 2 1.00 4.00 <NA> <NA> bert <NA> <NA>\n"
    )
    speakers = Speakers.parse(str(turns))
    told = [
        find_speaker(speakers, "call.wav", "0", 2, 5, mixed=mixed) for mixed in (False, True, False)
    ]
    assert told == ["call/anna", "call/bert", "call/anna"]


def test_a_pattern_whose_group_is_empty_knows_nobody() -> None:
    speakers = Speakers.parse("([0-9]*)_")
    assert find_speaker(speakers, "12_x.wav", "0", 0, 1) == "12"
    assert find_speaker(speakers, "ab_x.wav", "0", 0, 1) is None
