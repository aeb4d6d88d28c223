"""Unicode forms of words, and counts and durations as text."""

import unicodedata


def compose(word: str) -> str:
    """Return a word in Unicode's composed form (NFC), in which all words are compared.

    Some systems store letters with accents in decomposed form.

    Parameters
    ----------
    word
        The word, in any Unicode form.
    """
    return unicodedata.normalize("NFC", word)


def list_spellings(name: str) -> list[str]:
    """Return the different Unicode forms of a name: as given, composed and decomposed.

    Parameters
    ----------
    name
        The name, in any Unicode form.
    """
    return [*dict.fromkeys((name, compose(name), unicodedata.normalize("NFD", name)))]


def format_count(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is 1.

    Parameters
    ----------
    number
        The number of things.
    noun
        The noun in the singular.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, whichever reads best.

    Parameters
    ----------
    seconds
        The duration in seconds, not negative.
    """
    # What counts is the number as it is written: 59.96 s are a minute.
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds / 60, 1) < 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"
