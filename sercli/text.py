"""Numbers and words as people say and spell them."""

import unicodedata


def compose(word: str) -> str:
    """Return a word in the one form in which all are compared: some systems decompose letters.

    Parameters
    ----------
    word
        In any form of Unicode.
    """
    return unicodedata.normalize("NFC", word)


def list_spellings(name: str) -> list[str]:
    """Return a name as it is, and as systems may have it that compose or decompose letters.

    Parameters
    ----------
    name
        In any form of Unicode.
    """
    return [*dict.fromkeys((name, compose(name), unicodedata.normalize("NFD", name)))]


def format_count(number: int, noun: str) -> str:
    """Return a number of things, in the plural where there is not just one.

    Parameters
    ----------
    number
        How many.
    noun
        In the singular.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_duration(seconds: float) -> str:
    """Return a duration as people say it.

    Parameters
    ----------
    seconds
        Not negative.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"
