"""From a corpus's own words for emotions to the canonical labels, and to the user's.

The table of words is data. The corpora with codes have a table each, in which an unknown code is
no label; manifests, folders of classes and audformat share a table of English words, and a word
that is not in it stays what it is. Case does not matter.
"""

from collections.abc import Mapping
from dataclasses import replace

from sercli.datasets.base import Clip, Corpus
from sercli.datasets.facts import load_facts
from sercli.errors import ConfigError

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
    for part in text.split(","):
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
        return common_label(word) or word
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
    return labels.get(word.casefold())


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
    wanted = {theirs.casefold(): ours for theirs, ours in mapping.items()}
    words = sorted({clip.emotion for clip in corpus.clips})
    canonical = {word: canonical_label(word, kind) for word in words}
    label_of: dict[str, str] = {}
    used = set()
    for word, label in canonical.items():
        keys = [key.casefold() for key in (word, label) if key is not None]
        key = next((key for key in keys if key in wanted), None)
        used.add(key)
        if key is not None:
            label_of[word] = wanted[key]
        elif label is not None:
            label_of[word] = label
    unused = frozenset(theirs for theirs in mapping if theirs.casefold() not in used)
    clips: list[Clip] = []
    skipped = dict(corpus.skipped)
    for clip in corpus.clips:
        if clip.emotion in label_of:
            clips.append(replace(clip, emotion=label_of[clip.emotion]))
        else:
            skipped[clip.name] = f"unknown emotion {clip.emotion}"
    return replace(corpus, clips=tuple(clips), skipped=skipped), unused
