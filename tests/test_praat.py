"""TextGrids of Praat in all text formats, compared with praatio where that reads them right."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid
from praatio.textgrid import openTextgrid

from sercli.speech.praat import Tier, parse_grid, render_grid

# What is special in a grid, outside of a text.
WORDS = (
    "item [1]:",
    "intervals [2]",
    "points[",
    '"',
    '""',
    "!",
    "<exists>",
    "xmin = 3",
    "7",
    "\n",
    "é",
)
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
4.5
<exists>
2
"IntervalTier"
"words"
0
4.5
3
0
1.5
"a"
1.5
3
""
3
4.5
"c \""d\"\""
"TextTier"
"clicks"
0
4.5
1
2.25
"click"
"""
TOLD = [Tier("words", [(0.0, 1.5, "a"), (1.5, 3.0, ""), (3.0, 4.5, 'c "d"')])]


def draw_tiers(rng: np.random.Generator) -> tuple[float, list[Tier]]:
    """Return an end, and tiers whose texts and names look like parts of a grid."""
    tiers = []
    for number in range(int(rng.integers(0, 4))):
        times = np.unique(rng.choice([1e-7, 0.25, 1 / 3, 2.0, 1e5 / 7, 12_345_678.9, 2e7], 5))
        entries = [
            (float(first), float(last), " ".join(rng.choice(WORDS, int(rng.integers(1, 4)))))
            for first, last in itertools.pairwise(times)
            if rng.random() < 0.6
        ]
        tiers.append(Tier(f"{rng.choice(WORDS)} {number}", entries))
    return 3e7, tiers


def test_what_is_written_is_read(rng: np.random.Generator) -> None:
    for _ in range(200):
        end, tiers = draw_tiers(rng)
        text = render_grid(end, tiers)
        assert not re.search(r"xm(in|ax) = \S*e", text)
        found = parse_grid(text)
        assert [tier.name for tier in found] == [tier.name for tier in tiers]
        for one, other in zip(found, tiers, strict=True):
            assert [entry for entry in one.entries if entry[2]] == other.entries
            # All of the tier, without gaps.
            assert [entry[0] for entry in one.entries] == [0, *(e[1] for e in one.entries[:-1])]
            assert one.entries[-1][1] == end


def test_what_is_written_is_read_by_others(tmp_path: Path) -> None:
    tiers = [Tier("emotion", [(0.00001, 2.5, "anger"), (3.0, 4.0, "joy")]), Tier("none", [])]
    (tmp_path / "a.TextGrid").write_text(render_grid(4.0, tiers), encoding="utf-8")
    grid = openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0.0, 4.0)
    assert [tuple(one) for one in grid.getTier("emotion").entries] == [
        *((0.0, 0.00001, ""), (0.00001, 2.5, "anger"), (2.5, 3.0, ""), (3.0, 4.0, "joy"))
    ]
    assert [tuple(one) for one in grid.getTier("none").entries] == [(0.0, 4.0, "")]


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid", "textgrid_json", "json"])
def test_what_others_write_is_read(tmp_path: Path, form: str) -> None:
    grid = Textgrid(0, 9)
    rows = {"u": [(0.5, 1.25, "well"), (1.25, 3.0, 'she said "no"')], "v": [(8.0, 9.0, "é")]}
    for name, entries in rows.items():
        grid.addTier(IntervalTier(name, entries, 0, 9))
    grid.save(str(tmp_path / "a.TextGrid"), form, includeBlankSpaces=True)
    found = parse_grid((tmp_path / "a.TextGrid").read_text(encoding="utf-8"))
    assert {tier.name: [one for one in tier.entries if one[2]] for tier in found} == rows


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_short_grids(end: str, line_end: str) -> None:
    assert parse_grid((SHORT.strip() + end).replace("\n", line_end)) == TOLD


def test_comments_and_layout_do_not_matter() -> None:
    assert parse_grid(SHORT.replace("\n0\n", '\n! 3 "x" <absent>\n 0 ! 1\n')) == TOLD
    assert parse_grid("\ufeff" + SHORT.replace("ooTextFile", "ooTextFile short")) == TOLD
    on_a_line = SHORT.replace('TextGrid"\n', 'TextGrid" ').replace("\n", "   ")
    assert parse_grid(on_a_line) == TOLD
    numbered = SHORT.replace("\n1.5\n", "\n    intervals [2]: xmin = +.15e1\n", 1)
    assert parse_grid(numbered) == TOLD
    assert parse_grid(SHORT[: SHORT.index("<")] + "<absent>") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"click"\n',
            "",
            "it ends where an entry .of 1. of the tier clicks was expected",
        ),
        (
            "\n1\n2.25",
            "\n2\n2.25",
            "it ends where an entry .of 2. of the tier clicks",
        ),
        ("\n3\n0\n1.5", "\n2\n0\n1.5", "line 19: found 3; expected the class of a tier, a text"),
        (
            "\n3\n0\n1.5",
            "\n4\n0\n1.5",
            'line 22: found "TextTier"; expected the start of an entry .of 4.',
        ),
        (
            "<exists>\n2",
            "<exists>\n1",
            'line 22: found "TextTier"; expected its end, after as many',
        ),
        ("<exists>\n2", "<exists>\n2.5", "the number of tiers is 2.5; expected a whole number"),
        (
            "<exists>\n",
            "",
            "line 6: found 2; expected whether there are tiers, <exists> or <absent>",
        ),
        (
            '"a"',
            "a",
            "line 16: found 1.5; expected an entry .of 3. of the tier words, a",
        ),
        (
            '"a"',
            '"a',
            'line 15: found "a; expected .* a text in quotes; those within it are doubled',
        ),
        (
            "2.25",
            "2.2.5",
            "line 27: found 2.2.5; expected an entry .of 1. of the tier clicks, a",
        ),
        ("ooTextFile", "Praat chronological TextGrid text file", "its type is Praat chronological"),
        ('"TextGrid"', '"PitchTier"', "it is a PitchTier; expected a TextGrid"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, message: str) -> None:
    assert SHORT.count(old) == 1
    with pytest.raises(ValueError, match=message):
        parse_grid(SHORT.replace(old, new))


@pytest.mark.parametrize(
    "text", ["{}", "{", '{"tiers": 3}', '{"tiers": [{"name": "a", "class": "IntervalTier"}]}']
)
def test_json_that_is_no_grid(text: str) -> None:
    with pytest.raises(ValueError, match=r"no tiers that can be read|Expecting property name"):
        parse_grid(text)
