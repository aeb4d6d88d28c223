"""Translation of a corpus's own words for emotions to canonical labels and to the user's labels.

The words are in a data file. Each corpus with codes has its own table, and clips of a code that is
not in it are left out. Manifests, folders of classes and audformat share a table of English words,
and a word that is not in it is kept as the label. Case and Unicode form do not matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.facts import load_facts
from sercli.errors import ConfigError
from sercli.text import compose

# Name of the table of English words.
COMMON = "common"
# Words of tables for clips whose annotators disagreed, and the reason for which they are left out.
NO_AGREEMENT = frozenset(("xxx", "no_agreement", "no agreement"))
DISAGREED = "no agreement among the annotators"
# Form and example of the options that map names, for error messages.
FORMS = {
    "--map": "THEIRS=OURS, separated by commas, such as happy=happiness,calm=neutral",
    "--columns": "OURS=THEIRS, separated by commas, such as file=path,emotion=label",
}


def parse_mapping(text: str, option: str = "--map") -> dict[str, str]:
    """Parse a mapping of names given by the user.

    Parameters
    ----------
    text
        Pairs, such as ``happy=happiness,calm=neutral``.
    option
        Option that it is the value of, one of `FORMS`, for error messages.

    Returns
    -------
    dict of str to str
        The second name of each pair by its first.

    Raises
    ------
    ConfigError
        If a part is no pair, or a name is mapped to two.
    """
    mapping, given = dict[str, str](), dict[str, str]()
    for part in compose(text).split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or "=" in value:
            raise ConfigError(
                f"{option} is {text!r}: found {part.strip()!r}; expected {FORMS[option]}"
            )
        # Keys of `--map` match whatever their case.
        same = key.casefold() if option == "--map" else key
        if given.setdefault(same, value) != value:
            raise ConfigError(f"{option} is {text!r}: gives {key} twice; expected it once")
        mapping[key] = value
    return mapping


def canonical_label(word: str, kind: str = COMMON) -> str | None:
    """Return the canonical label of a corpus's own word.

    Parameters
    ----------
    word
        Word or code of the corpus for an emotion, in any case.
    kind
        Name of a corpus with its own table; for any other, the table of English words is used.

    Returns
    -------
    str or None
        Canonical label, or the word itself if it is not among the English words. None for an
        unknown code of a corpus with its own table, and for `NO_AGREEMENT`.
    """
    if kind not in load_facts("labels") or kind == COMMON:
        return None if word.casefold() in NO_AGREEMENT else common_label(word) or compose(word)
    return _look_up(word, kind)


def common_label(word: str) -> str | None:
    """Return the canonical label of an English word or abbreviation, or None if unknown.

    Parameters
    ----------
    word
        Word in any case.
    """
    return _look_up(word, COMMON)


def fold(word: str) -> str:
    """Return a word in the form in which words for emotions are compared.

    Parameters
    ----------
    word
        Word in any case and Unicode form.
    """
    return compose(word).casefold()


def _look_up(word: str, table: str) -> str | None:
    labels = {theirs.casefold(): ours for theirs, ours in load_facts("labels")[table].items()}
    return labels.get(fold(word))


def translate_words(
    words: Iterable[str], kind: str, mapping: Mapping[str, str]
) -> tuple[dict[str, str | None], frozenset[str]]:
    """Return the label of each word, None if it is unknown; and the unused keys of the mapping.

    Parameters
    ----------
    words
        Words or codes for emotions.
    kind, mapping
        As for `translate`.
    """
    wanted = {fold(theirs): compose(ours) for theirs, ours in mapping.items()}
    label_of: dict[str, str | None] = {}
    used = set()
    for word in words:
        label_of[word] = label = canonical_label(word, kind)
        names = [fold(name) for name in (word, label) if name is not None]
        key = next((name for name in names if name in wanted), None)
        if key is not None:
            label_of[word] = wanted[key]
            used.add(key)
    unused = frozenset(theirs for theirs in mapping if fold(theirs) not in used)
    return label_of, unused


def translate(
    corpus: Corpus, kind: str, mapping: Mapping[str, str]
) -> tuple[Corpus, frozenset[str]]:
    """Replace the labels of a corpus by canonical labels, or by those that the user maps them to.

    Parameters
    ----------
    corpus
        Corpus whose clips have its own words as labels.
    kind
        Name of the reader.
    mapping
        The user's labels, by the corpus's own words or by canonical labels, in any case; the
        corpus's own words take precedence.

    Returns
    -------
    corpus : Corpus
        Corpus with the new labels; clips with unknown words are left out.
    unused : frozenset of str
        Keys of the mapping that match no clip.
    """
    label_of, unused = translate_words({clip.emotion for clip in corpus.clips}, kind, mapping)
    clips: list[Clip] = []
    skipped = dict(corpus.skipped)
    for clip in corpus.clips:
        label = label_of[clip.emotion]
        if label is not None:
            clips.append(replace(clip, emotion=label))
        else:
            is_open = clip.emotion.casefold() in NO_AGREEMENT
            skipped[clip.name] = DISAGREED if is_open else f"unknown emotion {clip.emotion}"
    return replace(corpus, clips=tuple(clips), skipped=skipped), unused
