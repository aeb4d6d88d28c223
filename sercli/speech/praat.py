"""TextGrids of Praat: reading in its long and short text formats, and writing.

The grammar is that of Praat's manual ("TextGrid file formats"): numbers, texts in quotes and flags
count, and all other words are comments. praatio, which the tests compare with, splits grids at
words such as ``item [`` even within a text, and loses the last interval of some.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

from sercli.json_text import parse_json

INTERVALS = "IntervalTier"
FILE_TYPES = frozenset(("ooTextFile", "ooTextFile short"))
# A text in quotes, in which two are one; a comment to the end of the line; or a word.
TOKEN = re.compile(r'"(?P<text>(?:[^"]|"")*+)"(?=\s|\Z)|!.*|(?P<word>\S+)')
NUMBER = re.compile(r"[-+]?\.?\d")
# Characters that are quoted of what was found.
MOST_TOLD = 40


class Tier(NamedTuple):
    """A tier of intervals.

    Parameters
    ----------
    name
        Its name.
    entries
        Start and end in seconds, and text, of each interval.
    """

    name: str
    entries: Sequence[tuple[float, float, str]]


def parse_grid(text: str) -> list[Tier]:
    """Return the interval tiers of a TextGrid in Praat's long or short format, or praatio's JSON.

    Parameters
    ----------
    text
        Content of the file.

    Raises
    ------
    ValueError
        If it is no such grid, or does not have as many tiers and intervals as it tells; with the
        line, what was found and what was expected.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip().startswith("{"):
        return [*_read_json(parse_json(text))]
    tokens = _Tokens(text)
    if (kind := tokens.text("the type of the file")) not in FILE_TYPES:
        raise ValueError(f"its type is {_quote(kind)}; expected ooTextFile (Save as text file)")
    if (kind := tokens.text("the class of the object")) != "TextGrid":
        raise ValueError(f"it is a {_quote(kind)}; expected a TextGrid")
    tokens.times("the grid")
    tiers = [*_read_tiers(tokens)] if tokens.flag("whether there are tiers") == "exists" else []
    tokens.end()
    return tiers


def _read_tiers(tokens: "_Tokens") -> Iterator[Tier]:
    for _ in range(tokens.count("the number of tiers")):
        kind, name = tokens.text("the class of a tier"), tokens.text("the name of a tier")
        tokens.times(f"the tier {_quote(name)}")
        size = tokens.count(f"the size of the tier {_quote(name)}")
        where = f"an entry (of {size}) of the tier {_quote(name)}"
        if kind == INTERVALS:
            yield Tier(name, [(*tokens.times(where), tokens.text(where)) for _ in range(size)])
        else:  # points
            for _ in range(size):
                tokens.number(where)
                tokens.text(where)


def _read_json(grid: Any) -> Iterator[Tier]:
    try:
        tiers = grid["tiers"]
        named = (
            [(name, one["type"], one["entries"]) for name, one in tiers.items()]
            if isinstance(tiers, Mapping)
            else [(one["name"], one["class"], one["entries"]) for one in tiers]
        )
        for name, kind, entries in named:
            if kind == INTERVALS:
                yield Tier(
                    str(name),
                    [(float(start), float(end), str(told)) for start, end, told in entries],
                )
    except (LookupError, TypeError) as error:
        raise ValueError(f"it has no tiers that can be read ({error!r})") from error


class _Tokens:
    """Numbers, texts and flags of a grid, in order; whoever takes another than is next is told."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._matches = self._find()

    def text(self, what: str) -> str:
        """Return the next text."""
        found = self._take(what)
        if (text := found["text"]) is None:
            doubled = "; those within it are doubled" if found[0].startswith('"') else ""
            raise self._expected(f"{what}, a text in quotes{doubled}", found)
        return text.replace('""', '"')

    def number(self, what: str) -> float:
        """Return the next number."""
        found = self._take(what)
        word = found["word"]
        try:
            return float(word if word is not None and NUMBER.match(word) else "")
        except ValueError:
            raise self._expected(f"{what}, a number", found) from None

    def times(self, what: str) -> tuple[float, float]:
        """Return the next two numbers, a start and an end."""
        return self.number(f"the start of {what}"), self.number(f"the end of {what}")

    def count(self, what: str) -> int:
        """Return the next number, which is whole."""
        number = self.number(what)
        if not number.is_integer() or number < 0:
            raise ValueError(f"{what} is {number:g}; expected a whole number")
        return int(number)

    def flag(self, what: str) -> str:
        """Return the next flag."""
        found = self._take(what)
        if not (found["word"] or "").startswith("<"):
            raise self._expected(f"{what}, <exists> or <absent>", found)
        return found["word"].strip("<>")

    def end(self) -> None:
        """Raise unless there is nothing more."""
        for found in islice(self._matches, 1):
            raise self._expected("its end, after as many tiers as it tells", found)

    def _find(self) -> Iterator[re.Match[str]]:
        for found in TOKEN.finditer(self._text):
            word = found["word"]
            if found["text"] is not None or (word and (NUMBER.match(word) or word[0] in '<"')):
                yield found

    def _take(self, what: str) -> re.Match[str]:
        for found in self._matches:
            return found
        raise ValueError(f"it ends where {what} was expected")

    def _expected(self, what: str, found: re.Match[str]) -> ValueError:
        line = self._text.count("\n", 0, found.start()) + 1
        return ValueError(f"line {line}: found {_quote(found[0])}; expected {what}")


def _quote(text: str) -> str:
    """Return a text as one short line."""
    joined = " ".join(text.split())
    return joined if len(joined) <= MOST_TOLD else f"{joined[:MOST_TOLD]}..."


def render_grid(end: float, tiers: Iterable[Tier]) -> str:
    """Return a TextGrid in Praat's long format.

    Parameters
    ----------
    end
        End of all tiers in seconds.
    tiers
        Tiers whose intervals are in order and do not overlap; gaps become intervals without text.
    """
    tiers = [*tiers]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += [*_render_times(0.0, end), "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, tier in enumerate(tiers, start=1):
        entries = [*_fill(tier.entries, end)]
        lines += [f"    item [{number}]:", f'        class = "{INTERVALS}"']
        lines += [f"        name = {_escape(tier.name)}", *_render_times(0.0, end, 8)]
        lines.append(f"        intervals: size = {len(entries)}")
        for index, (first, last, text) in enumerate(entries, start=1):
            lines += [f"        intervals [{index}]:", *_render_times(first, last, 12)]
            lines.append(f"            text = {_escape(text)}")
    return "\n".join(lines) + "\n"


def _fill(
    entries: Iterable[tuple[float, float, str]], end: float
) -> Iterator[tuple[float, float, str]]:
    """Yield intervals, and those without text between them."""
    reached = 0.0
    for one in (*entries, (end, end, "")):
        if one[0] > reached:
            yield reached, one[0], ""
        if one[1] > one[0]:
            yield one
        reached = one[1]


def _render_times(start: float, end: float, indent: int = 0) -> list[str]:
    # All digits, but no exponents, which not every program reads.
    return [
        f"{' ' * indent}{name} = {Decimal(repr(float(time))):f}".removesuffix(".0")
        for name, time in (("xmin", start), ("xmax", end))
    ]


def _escape(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
