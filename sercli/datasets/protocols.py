"""Protocols, which assign the clips of a corpus to the splits train, dev and test, and folds.

Only ``speaker`` guarantees that the speakers of the test clips are not in training; ``own`` and
``random`` are there for comparison with work that did not keep them apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from sercli.config import APART, SHARED, SPLITS, UNKNOWN
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.matching import (
    clip_names,
    join_voices,
    match_rows,
    speaker_names,
    spell_speaker,
)
from sercli.delimited import read_table
from sercli.errors import DatasetError
from sercli.text import compose

# Shares of speakers held out of a corpus without splits of its own.
DEV_SHARE = 0.15
TEST_SHARE = 0.15
# Share of clips held out in a random split.
RANDOM_TEST_SHARE = 0.2


def split_by_speaker(corpus: Corpus, seed: int = 0) -> Corpus:
    """Return a corpus in which every clip has a split and no speaker is in two.

    Clips keep the split of their corpus, and other clips of their speakers get the same, unless a
    speaker of that corpus is in several of its splits, which are then ignored. Of the speakers
    without a split, 70 % are drawn for ``train`` and 15 % each, but at least one, for ``dev`` and
    ``test``, corpus by corpus; the first draw counts for a speaker of several corpora. Names that
    may be the same speaker are kept in one split; see `sercli.datasets.matching.join_voices`.

    Parameters
    ----------
    corpus
        One or several corpora.
    seed
        Seed of the draw.

    Raises
    ------
    DatasetError
        If clips without a split have unknown speakers or, in a corpus, fewer than three, or two
        corpora give a speaker different splits.
    """
    everybody, sharing = join_voices(corpus.clips), find_sharing(corpus)
    whole = [replace(one, split=None) if one.corpus in sharing else one for one in corpus.clips]
    split_of = _find_given(corpus.name, whole, everybody)
    bare: dict[str, set[str | None]] = {}
    for clip, voice in zip(whole, everybody, strict=True):
        if not clip.split and voice not in split_of:
            bare.setdefault(clip.corpus, set()).add(voice)
    # Corpora with few such speakers come last: these may all be drawn with another corpus by then.
    for name in sorted(bare, key=lambda one: (len(bare[one]) < len(SPLITS), one)):
        voices = sorted(voice for voice in bare[name] if voice is not None)
        if None in bare[name] or len(voices) < len(SPLITS):
            if bare[name] <= split_of.keys():
                continue
            raise _too_few(name, bare[name], shares=name in sharing)
        split_of |= _draw(voices, split_of, seed)
    return replace(
        corpus,
        clips=tuple(
            clip if clip.split else replace(clip, split=split_of[voice or ""])
            for clip, voice in zip(whole, everybody, strict=True)
        ),
    )


def find_sharing(corpus: Corpus) -> frozenset[str]:
    """Return the names of corpora whose own splits share speakers.

    Parameters
    ----------
    corpus
        One or several corpora.
    """
    given = {
        (clip.corpus, voice, clip.split)
        for clip, voice in zip(corpus.clips, join_voices(corpus.clips), strict=True)
        if voice and clip.split
    }
    counts = Counter((name, voice) for name, voice, _ in given)
    return frozenset(name for (name, _), n_splits in counts.items() if n_splits > 1)


def _find_given(
    name: str, clips: Sequence[Clip], voices: Sequence[str | None]
) -> dict[str, str | None]:
    """Return the split of each speaker that has one; raise if a speaker has two."""
    first_of: dict[str, Clip] = {}
    for clip, voice in zip(clips, voices, strict=True):
        if not voice or not clip.split:
            continue
        first = first_of.setdefault(voice, clip)
        if first.split != clip.split:
            raise DatasetError(
                f"{name}: {first.voice} is of the split {first.split} in {first.corpus}, and "
                f"{clip.voice}, who counts as the same speaker, of {clip.split} in {clip.corpus}; "
                "expected one split; assign the speakers with --split FILE.csv or, if these are "
                "two people, give one of them another name"
            )
    return {voice: clip.split for voice, clip in first_of.items()}


def _too_few(name: str, voices: Set[str | None], *, shares: bool) -> DatasetError:
    """Return the error for a corpus that has too few known speakers to draw from."""
    known = ", ".join(sorted(voice for voice in voices if voice is not None))
    found = "and unknown speakers" if None in voices else f"and the speakers {known}"
    has, own = ("splits that share speakers", "own, ") if shares else ("no splits", "")
    return DatasetError(
        f"{name}: has {has} {found}; expected three known speakers or more; name the speakers in a "
        f"manifest, or choose --split {own}random or FILE.csv"
    )


def _draw(
    voices: Sequence[str], split_of: Mapping[str, str | None], seed: int
) -> dict[str, str | None]:
    """Draw the splits of a corpus's speakers who have none; the others count for the shares."""
    n_given = Counter(split_of[voice] for voice in voices if voice in split_of)
    shuffled = np.random.default_rng(seed).permutation(voices).tolist()
    drawn = [voice for voice in shuffled if voice not in split_of]
    n_dev = max(0, max(1, round(DEV_SHARE * len(voices))) - n_given["dev"])
    n_test = max(0, max(1, round(TEST_SHARE * len(voices))) - n_given["test"])
    return {
        **dict.fromkeys(drawn, "train"),
        **dict.fromkeys(drawn[:n_test], "test"),
        **dict.fromkeys(drawn[n_test : n_test + n_dev], "dev"),
    }


def split_as_given(corpus: Corpus) -> Corpus:
    """Return a corpus with its own splits, which may share speakers.

    Parameters
    ----------
    corpus
        One or several corpora.

    Raises
    ------
    DatasetError
        If some clips have no split.
    """
    bare = [clip for clip in corpus.clips if not clip.split]
    if bare:
        raise DatasetError(
            f"{corpus.name}: {len(bare)} of {len(corpus.clips)} clips have no split in the "
            f"corpus, such as {bare[0].name}; choose --split speaker, random or FILE.csv"
        )
    return corpus


def split_at_random(corpus: Corpus, seed: int = 0) -> Corpus:
    """Return a corpus with 80 % of the clips of each emotion in ``train``, the rest in ``test``.

    Speakers are in both: results on this split do not hold for new speakers.

    Parameters
    ----------
    corpus
        One or several corpora.
    seed
        Seed of the draw.

    Raises
    ------
    DatasetError
        If an emotion has fewer than two clips, or there are too few clips to have one of each
        emotion in ``test``.
    """
    from sklearn.model_selection import train_test_split

    emotions = [clip.emotion for clip in corpus.clips]
    rare = sorted(emotion for emotion, n in Counter(emotions).items() if n < 2)
    if rare:
        raise DatasetError(f"{corpus.name}: has a single clip of {', '.join(rare)}; expected two")
    n_emotions = len(set(emotions))
    if RANDOM_TEST_SHARE * len(emotions) <= n_emotions - 1:  # the share is rounded up
        raise DatasetError(
            f"{corpus.name}: has {len(emotions)} clips of {n_emotions} emotions; expected five "
            "of each or more for a random split"
        )
    _, test = train_test_split(
        range(len(emotions)), test_size=RANDOM_TEST_SHARE, stratify=emotions, random_state=seed
    )
    chosen = set(test)
    return replace(
        corpus,
        clips=tuple(
            replace(clip, split="test" if index in chosen else "train")
            for index, clip in enumerate(corpus.clips)
        ),
    )


def split_by_file(corpus: Corpus, path: Path) -> Corpus:
    """Return a corpus with the splits of a CSV file.

    Parameters
    ----------
    corpus
        One or several corpora.
    path
        Path of a file with the columns ``split`` (``train``, ``dev`` or ``test``) and either
        ``speaker`` or ``file``: the name or path of a clip, with or without folders and suffix, of
        which the most exact counts. Clips that the file does not list count as left out, and so do
        its rows that match no clip.

    Raises
    ------
    DatasetError
        If the file cannot be read, has other columns or splits, gives a name or speaker two splits,
        lists none of the clips, or has a name that matches several files or speakers.
    """
    split_of, key = _read_splits(path, corpus.clips)
    clips: list[Clip] = []
    left_out = dict(corpus.skipped)
    of_files = key == "file"
    names = [clip_names(clip) if of_files else spell_speaker(clip) for clip in corpus.clips]
    things = [str(one.path) for one in corpus.clips] if of_files else join_voices(corpus.clips)
    rows = match_rows(names, split_of, things, str(path))
    if not of_files:
        _refuse_two_splits(path, split_of, rows, things)
    for clip, row in zip(corpus.clips, rows, strict=True):
        if row is None:
            left_out[corpus.find_name(clip)] = f"not in {path.name}"
        else:
            clips.append(replace(clip, split=split_of[row]))
    if not clips:
        raise DatasetError(f"{path}: lists no {key} of {corpus.name}; expected its {key} names")
    left_out |= dict.fromkeys(split_of.keys() - {*rows}, f"in {path.name}, but without clips")
    return replace(corpus, clips=tuple(clips), skipped=left_out)


def _refuse_two_splits(
    path: Path,
    split_of: Mapping[str, str],
    rows: Sequence[str | None],
    voices: Sequence[str | None],
) -> None:
    """Raise if two rows give a speaker two splits under two names."""
    first_of: dict[str | None, str] = {}
    for row, voice in zip(rows, voices, strict=True):
        if row is None:
            continue
        first = first_of.setdefault(voice, row)
        if split_of[first] != split_of[row]:
            raise DatasetError(
                f"{path}: lists the speaker {first} as {split_of[first]}, and {row}, who counts "
                f"as the same speaker, as {split_of[row]}; expected one split; if these are two "
                "people, give one of them another name"
            )


def fold_by_speaker(clips: Sequence[Clip], n_folds: int) -> list[list[int]]:
    """Return the indices of the clips of each fold; every speaker is in one fold.

    Names that may be the same speaker are kept in one fold; see
    `sercli.datasets.matching.join_voices`.

    Parameters
    ----------
    clips
        Clips of known speakers.
    n_folds
        Number of folds, at least 2.

    Raises
    ------
    DatasetError
        If a speaker is unknown, or there are fewer speakers than folds.
    """
    from sklearn.model_selection import GroupKFold

    voices = join_voices(clips)
    n_voices = len(set(voices))
    if None in voices or n_voices < n_folds:
        found = "unknown speakers" if None in voices else f"{n_voices} speakers"
        raise DatasetError(
            f"found {found}; expected at least {n_folds} known speakers for {n_folds} folds"
        )
    folds = GroupKFold(n_folds).split(voices, groups=voices)
    return [outside.tolist() for _, outside in folds]


def find_protocol(train: Sequence[Clip], test: Sequence[Clip]) -> str:
    """Return whether two sets share speakers: `APART`, `SHARED` or `UNKNOWN`."""
    sets = [{clip.voice: clip for clip in clips} for clips in (train, test)]
    if any(None in clips for clips in sets):
        return UNKNOWN
    for clips, others in (sets, sets[::-1]):
        names = {name for clip in clips.values() for name in speaker_names(clip)}
        if not names.isdisjoint(others):
            return SHARED
    return APART


def _read_splits(path: Path, clips: Sequence[Clip]) -> tuple[dict[str, str], str]:
    """Return the split of each name in a table, and whether they are of files or speakers."""
    columns, rows = read_table(path, DatasetError)
    key = next((name for name in ("file", "speaker") if name in columns), None)
    if key is None or "split" not in columns:
        raise DatasetError(
            f"{path}: has the columns {', '.join(columns)}; expected split and file or speaker"
        )
    known = {compose(name) for clip in clips for name in clip_names(clip)}
    split_of: dict[str, str] = {}
    for where, cells in rows:
        name, split = compose(cells[key].strip()), cells["split"].strip()
        if key == "file" and name not in known:
            name = name.replace("\\", "/")  # made on Windows
        if split not in SPLITS:
            raise DatasetError(f"{where}: split is {split!r}; expected {', '.join(SPLITS)}")
        # A clip of an unknown speaker must not match an empty cell.
        if name and split_of.setdefault(name, split) != split:
            raise DatasetError(
                f"{where}: lists {key} {name} as {split}, a row before as {split_of[name]}; "
                "expected one split"
            )
    return split_of, key
