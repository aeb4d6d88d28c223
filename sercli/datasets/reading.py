"""Reading a corpus: which one it is, its clips, their labels."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shorten

from sercli.datasets.annotated import read_iemocap, read_meld
from sercli.datasets.audformat import HEADER, read_audformat
from sercli.datasets.base import Corpus, merge
from sercli.datasets.facts import load_facts
from sercli.datasets.labelling import translate
from sercli.datasets.media import MediaFolder, scan_folder
from sercli.datasets.names import read_named
from sercli.datasets.schemes import SCHEMES
from sercli.datasets.tables import join_rows, read_folders, read_manifest
from sercli.errors import ConfigError, DatasetError

MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
# A corpus with fewer files than this, per file of the one that has most, is there by accident.
STRAY_SHARE = 0.1
# A corpus is recognised by this share of a folder's files, or more.
LEAST_SHARE = 0.5

_ANNOTATED: Mapping[str, Callable[[MediaFolder], Corpus]] = {
    "iemocap": read_iemocap,
    "meld": read_meld,
}
# Of what a user may name otherwise.
EXAMPLES = {"mapping": {"happy": "happiness"}, "columns": {"file": "path"}}
# How a user names a reader.
BY_NAME = "--corpus NAME (to train: --data NAME:PATH)"
# Names of the readers.
CORPORA = (*SCHEMES, "folders", "manifest", "audformat")


def read_corpus(
    path: str | os.PathLike[str],
    kind: str = "auto",
    *,
    mapping: Mapping[str, str] = {},
    columns: Mapping[str, str] = {},
    song: bool = False,
) -> Corpus:
    """Read a corpus.

    Parameters
    ----------
    path
        Folder of the corpus's release or of its recordings, or a manifest: a CSV or TSV file.
    kind
        Name of a reader, one of `CORPORA`; ``"auto"`` tells from the names of the files.
    mapping
        What labels are to be called, by the corpus's own words or the canonical labels.
    columns
        A manifest's or an audformat database's names of columns, by ours.
    song
        Whether to read what is sung in RAVDESS.

    Returns
    -------
    Corpus
        Clips in the order of their names, with canonical labels where there are any.

    Raises
    ------
    ConfigError
        If there is no such reader, it has no use for `columns` or `song`, or `mapping` or
        `columns` is no dict of names.
    DatasetError
        If the path is not such a corpus or tells of none or of two, no clip is left, or no clip
        has a label that the mapping names.
    """
    return read_corpora([(Path(path), kind)], mapping=mapping, columns=columns, song=song)


def read_corpora(
    sources: Sequence[tuple[Path, str]],
    *,
    mapping: Mapping[str, str] = {},
    columns: Mapping[str, str] = {},
    song: bool = False,
) -> Corpus:
    """Read several corpora as one; an option has to be of use to one of them at least.

    Parameters
    ----------
    sources
        Path and kind of each.
    mapping, columns, song
        As for `read_corpus`, which this raises the errors of, too.
    """
    _check_names("mapping", mapping)
    _check_names("columns", columns)
    corpora, kinds = [], []
    unused = set(mapping)
    for path, kind in sources:
        corpus, found = _read(path, kind, columns, song)
        corpus, ignored = translate(corpus, found, mapping)
        unused &= ignored
        if found == "manifest":
            corpus = join_rows(corpus)
        if not corpus.clips:
            raise DatasetError(f"{path}: has no clip to use: {corpus.describe()}")
        clips = tuple(sorted(corpus.clips, key=lambda clip: clip.name))
        corpora.append(replace(corpus, clips=clips))
        kinds.append(found)
    merged = merge(corpora)
    if unused:
        labels = sorted({clip.emotion for clip in merged.clips})
        raise DatasetError(
            f"{merged.name}: no clip is labelled {' or '.join(sorted(unused))}, which --map "
            f"names; found {', '.join(labels)}"
        )
    if columns and not {*kinds} & {"manifest", "audformat"}:
        raise ConfigError(f"{merged.name}: has no columns to be named; leave --columns out")
    if song and "ravdess" not in kinds:
        raise ConfigError(f"{merged.name}: has no songs; leave --song out")
    return merged


def _check_names(name: str, value: Mapping[str, str]) -> None:
    """Refuse what is no mapping of names; it may be anything."""
    named = isinstance(value, Mapping) and all(
        isinstance(one, str) for pair in value.items() for one in pair
    )
    if not named:
        raise ConfigError(
            f"{name} is {shorten(value)}; expected a dict of names, such as {EXAMPLES[name]!r}"
        )


def _read(path: Path, kind: str, columns: Mapping[str, str], song: bool) -> tuple[Corpus, str]:
    if kind not in ("auto", *CORPORA):
        raise ConfigError(f"corpus is {kind!r}; expected auto or one of {', '.join(CORPORA)}")
    if kind == "manifest" or (kind == "auto" and path.is_file()):
        return _read_file(path, columns), "manifest"
    folder = scan_folder(path)
    kind = recognise(folder) if kind == "auto" else kind
    corpus = _read_folder(folder, kind, columns, song)
    return replace(corpus, skipped={**folder.problems, **corpus.skipped}), kind


def recognise(folder: MediaFolder) -> str:
    """Return the name of the reader for a folder.

    Raises
    ------
    DatasetError
        If the files' names tell of no corpus, or of two.
    """
    total = len(folder.media)
    counts = {
        kind: sum(scheme.match(path) is not None for path in folder.media)
        for kind, scheme in SCHEMES.items()
    }
    most = max(counts.values())
    evidence = {
        kind: f"{count} of {total} files are named like {SCHEMES[kind].example}"
        for kind, count in counts.items()
        if count > STRAY_SHARE * most
    }
    none = f"none of {total} files is named as one of {', '.join(SCHEMES)} names them"
    tried = "; ".join(evidence.values()) or none
    if len(evidence) == 1 and most < LEAST_SHARE * total:
        evidence = {}
    if not evidence and (classes := _find_classes(folder)):
        evidence["folders"] = f"sub-folders {', '.join(classes)}"
    if (folder.root / HEADER).is_file():
        evidence["audformat"] = HEADER
    if len(evidence) == 1:
        return next(iter(evidence))
    if evidence:
        told = " and of ".join(f"{kind} ({why})" for kind, why in evidence.items())
        raise DatasetError(f"{folder.root}: tells of {told}; say which by {BY_NAME}")
    raise DatasetError(
        f"{folder.root}: is none of the known corpora: {tried}, it has no {HEADER} and no "
        f"sub-folders named after emotions; name its reader by {BY_NAME}, or give a manifest"
    )


def _find_classes(folder: MediaFolder) -> list[str]:
    """Return the sub-folders named after emotions, if most files lie in two or more of them."""
    words = load_facts("labels")["common"]
    names = Counter(folder.name(path).rpartition("/")[0].split("/")[0] for path in folder.media)
    classes = {name: count for name, count in names.items() if name.casefold() in words}
    most = sum(classes.values()) >= LEAST_SHARE * len(folder.media)
    return sorted(classes) if most and len(classes) > 1 else []


def _read_file(path: Path, columns: Mapping[str, str]) -> Corpus:
    if not path.is_file() or path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DatasetError(
            f"{path}: is no manifest; expected a file of a suffix {', '.join(MANIFEST_SUFFIXES)}, "
            "or the folder of a corpus"
        )
    return read_manifest(path, columns)


def _read_folder(folder: MediaFolder, kind: str, columns: Mapping[str, str], song: bool) -> Corpus:
    if kind == "folders":
        return read_folders(folder)
    if kind == "audformat":
        return read_audformat(folder, columns)
    return _ANNOTATED[kind](folder) if kind in _ANNOTATED else read_named(folder, kind, song=song)
