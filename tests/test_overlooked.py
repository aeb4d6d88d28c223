"""What no other test would notice if it broke, found by changing one thing at a time."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import find_turns
from runs import Runs, write_results

from sercli.audio.reading import AudioFile, load_audio
from sercli.discovery import find_inputs, read_path_list
from sercli.errors import AudioError, ConfigError, DatasetError, OutputError
from sercli.json_text import parse_json
from sercli.neural.batching import pad
from sercli.neural.front_end import LogMel, LogMelSettings
from sercli.output.exporting import export_labels
from sercli.output.report import RunInfo, check_file, describe_file
from sercli.output.results import read_results
from sercli.output.writers import record_path
from sercli.schema import FileResult, Segment
from sercli.speech.praat import Tier, parse_grid, render_grid
from sercli.speech.turn import TIMES, Turn
from sercli.speech.turns import Turns

FIRST = Segment("mix", 0.5, 2.0, "neutral", 0.75, (0.25, 0.75))
SECOND = Segment("mix", 2.0, 3.25, "anger", 1.0, (1.0, 0.0))
SPOKEN = FileResult("calls/a.wav", "ok", (FIRST, SECOND), 4.0, 8_000, 1, size=7, modified=1.25)
INFO = RunInfo("1.2.3", {"name": "m", "labels": ["anger", "neutral"]}, {}, "2026-01-01")
GRID = render_grid(9.0, [Tier("words", [(1.0, 2.5, "well")])])


def test_frames_do_not_depend_on_the_other_segments_of_a_batch(rng: np.random.Generator) -> None:
    # All the power of a tone is in one band: its level there is far above any of the noise.
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    steps = np.repeat([1.0, 1e-3, 1e-5], (8_000, 4_000, 4_000))
    faint = (rng.standard_normal(16_000) * steps).astype(np.float32)
    front_end = LogMel(LogMelSettings())
    alone, _ = front_end(*pad([faint]))
    together, _ = front_end(*pad([faint, tone]))
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_grids_in_utf_16_of_either_byte_order(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "call.TextGrid"
    path.write_bytes(("\ufeff" + GRID).encode(mark))  # Praat writes the second
    assert find_turns(Turns.read(path, *TIMES), "call.wav") == (Turn(1.0, 2.5),)


def test_rows_of_another_version_are_refused(runs: Runs) -> None:
    runs.write(runs.memo)
    record = runs.record
    record["ser_version"] = "0.0.1"
    record_path(runs.output).write_text(json.dumps(record))
    rows = runs.content
    with pytest.raises(OutputError, match=r"was made with another ser: 0\.0\.1, now it is "):
        runs.resume(*runs.both)
    assert runs.content == rows


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_table_without_a_record_is_exported_as_a_whole(tmp_path: Path, suffix: str) -> None:
    path = write_results(tmp_path / f"labels.{suffix}", [SPOKEN], INFO)
    record_path(path).unlink()  # which alone has the lengths of the recordings
    (grid,) = export_labels(path, tmp_path / "grids", "textgrid").values()
    tiers = parse_grid(grid.read_text("utf-8"))
    assert [row for row in tiers[0].entries if row[2]] == [
        (0.5, 2.0, "neutral"),
        (2.0, 3.25, "anger"),
    ]
    # The grid ends with the last segment, not before it.
    assert [line for line in grid.read_text("utf-8").splitlines() if line.startswith("xmax")] == [
        "xmax = 3.25"
    ]


@pytest.mark.parametrize("missing", [0.15, 0.5, 0.9])
def test_a_recording_that_lacks_part_of_a_second_is_damaged(tmp_path: Path, missing: float) -> None:
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    sf.write(path, noise, 16_000, "PCM_16")
    path.write_bytes(path.read_bytes()[: -round(missing * 32_000)])
    with pytest.raises(AudioError, match=r"decoding stops at 1\.\d* s of the 2\.000 s"):
        load_audio(path)


def test_a_size_below_0_in_a_grid_is_refused() -> None:
    # As if it had no intervals, all of them would be lost.
    for old, expected in (("intervals: size = 3", "the size of the tier words"), ("size = 1", "")):
        assert GRID.count(old) == 1
        wrong = GRID[: GRID.index(old)] + old.rsplit(" ", 1)[0] + " -1\n"
        with pytest.raises(ValueError, match=rf"{expected}.* is -1; expected a whole number"):
            parse_grid(wrong)


def test_json_grids_with_points_and_a_byte_order_mark() -> None:
    words = {"class": "IntervalTier", "name": "words", "entries": [[1.0, 2.5, "well"]]}
    clicks = {"class": "TextTier", "name": "clicks", "entries": [[2.25, "click"]]}
    told = [Tier("words", [(1.0, 2.5, "well")])]
    named = {one["name"]: {"type": one["class"], **one} for one in (clicks, words)}
    tiers: tuple[Any, ...] = ([clicks, words], named)
    for one in tiers:
        text = json.dumps({"xmin": 0, "xmax": 9, "tiers": one})
        assert parse_grid(text) == parse_grid("\ufeff" + text) == told
    # A comment ends with its line, however that ends.
    assert parse_grid(GRID.replace("\n", " ! so\n").replace("\n", "\r")) == parse_grid(GRID)


def test_patterns_match_paths_below_a_folder_that_is_linked(tmp_path: Path) -> None:
    for name in ("calls/b.wav", "old/a.wav", "old/deep/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "calls" / "archive").symlink_to(tmp_path / "old")

    def find(**patterns: Any) -> list[str]:
        found = [Path(one.path) for one in find_inputs(tmp_path / "calls", **patterns)]
        return [one.relative_to(tmp_path / "calls").as_posix() for one in found]

    assert find(exclude="archive/a.wav") == ["b.wav", "archive/deep/c.wav"]
    assert find(include="archive/deep/*") == ["archive/deep/c.wav"]
    assert find(exclude="a.wav") == ["b.wav", "archive/deep/c.wav"]


@pytest.mark.parametrize(
    ("video", "gap", "notes"), [(True, 0.8, 0), (False, 0.3, 0), (False, 2, 1)]
)
def test_only_long_gaps_within_the_sound_are_told(
    tmp_path: Path, video: bool, gap: float, notes: int
) -> None:
    path = tmp_path / "call.mkv"
    with av.open(path, "w") as container:
        if video:  # it begins before the sound
            picture = container.add_stream("mpeg4", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        if video:
            frame = av.VideoFrame(64, 64, "yuv420p")
            for packet in (*picture.encode(frame), *picture.encode(None)):
                container.mux(packet)
        samples = np.full((1, 8_000), 8_000, np.int16)
        for start in (gap,) if video else (0, 0.5 + gap):
            sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            sound.sample_rate, sound.pts = 16_000, round(start * 16_000)
            for packet in stream.encode(sound):
                container.mux(packet)
    with AudioFile(path) as audio:
        waveform = np.concatenate([*audio.blocks()])[:, 0]
        assert len(audio.warnings) == notes
    expected = gap + (0.5 if video else 1.0)
    assert len(waveform) / 16_000 == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), -1e301, True])
def test_a_record_with_numbers_that_are_none_is_refused(value: float) -> None:
    entry = describe_file(SPOKEN)
    assert check_file(entry) == entry
    for name in ("duration", "bytes", "modified", "sample_rate", "channels"):
        with pytest.raises(ValueError, match="its entry for a file is "):
            check_file({**entry, name: value})


def test_a_document_after_an_empty_line_is_read(tmp_path: Path) -> None:
    path = write_results(tmp_path / "labels.json", [SPOKEN], INFO)
    expected = read_results(path)
    for before, line_end in (("\n ", "\n"), ("", "\r\n"), ("\r\n", "\r\n")):
        text = path.read_text("utf-8").strip()
        path.write_text(before + text, "utf-8", newline=line_end)
        assert read_results(path) == expected
    # Of one that is cut off, too, it is told where.
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"cannot be read: .*: line \d+ column \d+"):
        read_results(path)


def test_captions_stay_in_their_line(tmp_path: Path) -> None:
    result = replace(SPOKEN, segments=(replace(FIRST, channel="0", emotion="so\n\nso\tso"),))
    (track,) = export_labels([result], tmp_path, "audacity").values()
    assert track.read_text("utf-8") == "0.500\t2.000\tso so so 0.75\n"
    (subtitles,) = export_labels([result], tmp_path, "srt").values()
    assert subtitles.read_text("utf-8").splitlines()[2:] == ["so so so 0.75", ""]


def test_names_of_tiers_and_grids_however_they_are_spelled(tmp_path: Path) -> None:
    composed, decomposed = "\u00c9tat", "E\u0301tat"
    for written, asked in ((composed, decomposed), (decomposed, composed)):
        path = tmp_path / "CALL.TEXTGRID"
        path.write_text(GRID.replace("words", written), "utf-8")
        turns = Turns.read(path, *TIMES, tiers=(asked,))
        assert find_turns(turns, "CALL.wav") == (Turn(1.0, 2.5),)


@pytest.mark.parametrize(
    "wrong", [{"n_mels": 0}, {"f_min": -1.0}, {"hop_length": 600}, {"f_min": 4000.0}]
)
def test_settings_of_frames_that_cannot_be_computed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LogMelSettings(**wrong)


def test_intervals_of_a_tier_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "call.TextGrid"
    for second in ((2.0, 4.0), (1.5, 2.0)):  # in part, or within the first
        rows = [(1.0, 2.5, "well"), (*second, "no")]
        tiers = [{"class": "IntervalTier", "name": "words", "entries": rows}]
        path.write_text(json.dumps({"xmin": 0, "xmax": 9, "tiers": tiers}), "utf-8")
        with pytest.raises(ConfigError, match=r"and one that ends at 2\.5 s; expected"):
            Turns.read(path, *TIMES)


def test_linked_folders_are_sub_folders_too(tmp_path: Path) -> None:
    for name in ("calls/b.wav", "old/a.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "calls" / "archive").symlink_to(tmp_path / "old")
    found = [Path(one.path).name for one in find_inputs(tmp_path / "calls", recursive=False)]
    assert found == ["b.wav"]


def test_json_that_is_nested_too_deeply_is_told() -> None:
    with pytest.raises(ValueError, match=r"^it is nested too deeply$"):
        parse_json("[" * 200_000 + "]" * 200_000)


def test_a_name_that_ends_with_a_carriage_return() -> None:
    assert read_path_list(io.BytesIO(b"a.wav\r\0b.wav\0"), nul=True) == ["a.wav\r", "b.wav"]
