"""From a corpus's own words for emotions to the canonical labels, and to the user's.

The table of words is data. The corpora with codes have a table each, in which an unknown code is
no label; manifests, folders of classes and audformat share a table of English words, and a word
that is not in it stays what it is. Neither case nor the form of Unicode matters.
"""

from collections.abc import Mapping
from dataclasses import replace

from sercli.datasets.base import Clip, Corpus
from sercli.datasets.facts import load_facts
from sercli.errors import ConfigError
from sercli.text import compose

# The table of English words.
COMMON = "common"


def parse_mapping(text: str) -> dict[str, str]:
    """Return what a user wants labels to be called.

    Parameters
    ----------
    text
        ``THEIRS=OURS,...``, such as ``happy=happiness,calm=neutral``.

    Raises
    ------
    ConfigError
        If a part is not of that form, or a label is to become two.
    """
    mapping: dict[str, str] = {}
    for part in compose(text).split(","):
        theirs, equals, ours = (piece.strip() for piece in part.partition("="))
        if not (theirs and equals and ours) or "=" in ours:
            raise ConfigError(
                f"the map is {text!r}: found {part.strip()!r}; expected THEIRS=OURS, "
                "separated by commas, such as happy=happiness,calm=neutral"
            )
        if mapping.setdefault(theirs, ours) != ours:
            raise ConfigError(f"the map is {text!r}: {theirs} is to become two labels; name one")
    return mapping


def canonical_label(word: str, kind: str = COMMON) -> str | None:
    """Return the canonical label of a corpus's own word.

    Parameters
    ----------
    word
        In any case.
    kind
        Name of a corpus with a table of its own; any other shares the table of English words.

    Returns
    -------
    str or None
        None for an unknown code of a corpus with a table of its own.
    """
    if kind not in load_facts("labels") or kind == COMMON:
        return common_label(word) or compose(word)
    return _look_up(word, kind)


def common_label(word: str) -> str | None:
    """Return the canonical label of an English word, or of its first letters; None if unknown.

    Parameters
    ----------
    word
        In any case.
    """
    return _look_up(word, COMMON)


def _look_up(word: str, table: str) -> str | None:
    labels = {theirs.casefold(): ours for theirs, ours in load_facts("labels")[table].items()}
    return labels.get(compose(word).casefold())


def translate(
    corpus: Corpus, kind: str, mapping: Mapping[str, str]
) -> tuple[Corpus, frozenset[str]]:
    """Return a corpus whose clips bear canonical labels, or those the user maps them to.

    Parameters
    ----------
    corpus
        Its clips bear the corpus's own words.
    kind
        Name of the reader.
    mapping
        The user's; keys are the corpus's own words or canonical labels, in any case, and the
        corpus's own come first.

    Returns
    -------
    corpus : Corpus
        Clips of unknown words are left out.
    unused : frozenset of str
        Keys of the mapping that no clip is labelled with.
    """
    words = sorted({clip.emotion for clip in corpus.clips})
    wanted = {compose(theirs).casefold(): compose(ours) for theirs, ours in mapping.items()}
    label_of: dict[str, str | None] = {}
    used = set()
    for word in words:
        label_of[word] = label = canonical_label(word, kind)
        names = [compose(name).casefold() for name in (word, label) if name is not None]
        key = next((name for name in names if name in wanted), None)
        if key is not None:
            label_of[word] = wanted[key]
            used.add(key)
    unused = frozenset(theirs for theirs in mapping if compose(theirs).casefold() not in used)
    clips: list[Clip] = []
    skipped = dict(corpus.skipped)
    for clip in corpus.clips:
        label = label_of[clip.emotion]
        if label is not None:
            clips.append(replace(clip, emotion=label))
        else:
            skipped[clip.name] = f"unknown emotion {clip.emotion}"
    return replace(corpus, clips=tuple(clips), skipped=skipped), unused
