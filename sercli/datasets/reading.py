"""Reading of corpora: recognition, clips and labels."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shorten

from sercli.datasets.annotated import read_iemocap, read_meld
from sercli.datasets.audformat import HEADER, read_audformat
from sercli.datasets.corpus import Corpus, merge
from sercli.datasets.facts import load_facts
from sercli.datasets.label_files import (
    LABEL_FILES,
    TEXTGRID,
    find_label_files,
    name_emotions,
    read_label_files,
)
from sercli.datasets.labelling import canonical_label, common_label, translate
from sercli.datasets.media import MediaFolder, list_media, scan_folder
from sercli.datasets.names import read_named
from sercli.datasets.schemes import SCHEMES
from sercli.datasets.tables import find_class_depth, join_rows, read_folders, read_manifest
from sercli.errors import ConfigError, DatasetError
from sercli.text import format_count

MANIFEST_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
# A corpus is ignored if its files are no more than this share of those of the corpus with most.
STRAY_SHARE = 0.1
# Least share of a folder's files by which a corpus is recognised.
LEAST_SHARE = 0.5

_ANNOTATED: Mapping[str, Callable[[MediaFolder], Corpus]] = {
    "iemocap": read_iemocap,
    "meld": read_meld,
}
# Examples of the dicts of names, for error messages.
EXAMPLES = {"mapping": {"happy": "happiness"}, "columns": {"file": "path"}}
# Options that name a reader, for error messages.
BY_NAME = "--corpus NAME (to train: --data NAME:PATH)"
# Names of the readers.
CORPORA = (*SCHEMES, "folders", "manifest", "audformat", *LABEL_FILES)
# Readers of the user's own rows, which may repeat or contradict each other; those of named columns.
WITH_ROWS, WITH_COLUMNS = {"manifest", *LABEL_FILES}, {"manifest", "audformat", TEXTGRID}


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
        Path of the corpus's release, of its recordings, of a manifest (CSV or TSV file), or of
        TextGrids or label tracks of Audacity (a file or a folder).
    kind
        Name of a reader, one of `CORPORA`; ``"auto"`` to recognise it by the names of the files.
    mapping
        New labels, by the corpus's own words or the canonical labels.
    columns
        Names of the columns of a manifest or an audformat database, or of the tier of TextGrids, by
        the standard names, such as ``emotion``; see `sercli.datasets.tables.read_manifest`,
        `sercli.datasets.audformat.read_audformat` and
        `sercli.datasets.label_files.read_label_files`.
    song
        Whether to read the sung clips of RAVDESS.

    Returns
    -------
    Corpus
        Clips in the order of their names, with canonical labels as far as there are any.

    Raises
    ------
    ConfigError
        If there is no such reader, it does not use `columns` or `song`, or `mapping` or `columns`
        is no dict of names.
    DatasetError
        If the path is not such a corpus, or is recognised as none or as two, no clip is left, or no
        clip has a label of the mapping.
    """
    return read_corpora([(Path(path), kind)], mapping=mapping, columns=columns, song=song)


def read_corpora(
    sources: Sequence[tuple[Path, str]],
    *,
    mapping: Mapping[str, str] = {},
    columns: Mapping[str, str] = {},
    song: bool = False,
) -> Corpus:
    """Read several corpora as one.

    Parameters
    ----------
    sources
        Path and kind of each corpus, as for `read_corpus`.
    mapping, columns, song
        As for `read_corpus`; each has to apply to at least one of the corpora.

    Returns
    -------
    Corpus
        Clips of all corpora.

    Raises
    ------
    ConfigError, DatasetError
        As for `read_corpus`; also if two corpora have the same name.
    """
    _check_names("mapping", mapping)
    _check_names("columns", columns)
    corpora, kinds = [], []
    unused = set(mapping)
    for path, kind in sources:
        corpus, found = _read(path, kind, columns, mapping, song)
        corpus, ignored = translate(corpus, found, mapping)
        unused &= ignored
        if found in WITH_ROWS:
            corpus = join_rows(corpus)
        if not corpus.clips:
            raise DatasetError(f"{path}: has no usable clip: {corpus.describe()}")
        clips = tuple(sorted(corpus.clips, key=lambda clip: clip.name))
        corpora.append(replace(corpus, clips=clips))
        kinds.append(found)
    merged = replace(merge(corpora), mapping=mapping)
    if unused:
        labels = sorted({clip.emotion for clip in merged.clips})
        raise DatasetError(
            f"{merged.name}: no clip is labelled {' or '.join(sorted(unused))}, which --map "
            f"names; found {', '.join(labels)}"
        )
    if columns and not {*kinds} & WITH_COLUMNS:
        raise ConfigError(
            f"{merged.name}: is not a table whose columns can be named; leave --columns out"
        )
    if song and "ravdess" not in kinds:
        raise ConfigError(f"{merged.name}: has no sung clips; leave --song out")
    return merged


def _check_names(name: str, value: Mapping[str, str]) -> None:
    """Raise if a value, of any type, is no mapping of names."""
    named = isinstance(value, Mapping) and all(
        isinstance(one, str) for pair in value.items() for one in pair
    )
    if not named:
        raise ConfigError(
            f"{name} is {shorten(value)}; expected a dict of names, such as {EXAMPLES[name]!r}"
        )


def _read(
    path: Path, kind: str, columns: Mapping[str, str], mapping: Mapping[str, str], song: bool
) -> tuple[Corpus, str]:
    if kind not in ("auto", *CORPORA):
        raise ConfigError(f"corpus is {kind!r}; expected auto or one of {', '.join(CORPORA)}")
    files = find_label_files(path) if kind == "auto" else {}
    if kind == "auto" and path.is_file():
        kind = next(iter(files), "manifest")
    if kind == "manifest":
        return _read_file(path, columns), kind
    if path.is_file() and kind in LABEL_FILES:
        folder = list_media(path.parent, ".")
    else:
        folder = list_media(path) if files or kind in LABEL_FILES else scan_folder(path)
    kind = recognise(folder, files) if kind == "auto" else kind
    if kind in LABEL_FILES:
        corpus = read_label_files(path, kind, folder, columns, mapping)
    else:
        corpus = _read_folder(folder, kind, columns, song)
    return replace(corpus, skipped={**folder.problems, **corpus.skipped}), kind


def recognise(folder: MediaFolder, files: Mapping[str, Sequence[Path]] = {}) -> str:
    """Return the name of the reader for a folder.

    Parameters
    ----------
    folder
        Folder with its media files.
    files
        Label files in it, by the names of their readers. Those that may hold no emotions count
        only if nothing else is recognised.

    Raises
    ------
    DatasetError
        If no reader is recognised, or several are.
    """
    total = len(folder.media)
    counts = {kind: sum(_is_named_like(kind, path) for path in folder.media) for kind in SCHEMES}
    most = max(counts.values())
    evidence = {
        kind: f"{count} of {total} files are named like {SCHEMES[kind].example}"
        for kind, count in counts.items()
        if count > STRAY_SHARE * most
    }
    none = f"none of {total} files is named like those of {', '.join(SCHEMES)}"
    tried = "; ".join(evidence.values()) or none
    if len(evidence) == 1 and most < LEAST_SHARE * total:
        evidence = {}
    classes = _find_classes(folder)
    if classes and (not evidence or _is_sorted_anew(folder, [*evidence])):
        evidence["folders"] = f"sub-folders {', '.join(classes)}"
    if (folder.root / HEADER).is_file():
        evidence["audformat"] = HEADER
    # Label files that name emotions say more than a folder around those of classes.
    named = name_emotions(files)
    if not evidence and not named and (classes := _find_classes(_unwrap(folder))):
        evidence["folders"] = f"sub-folders {', '.join(classes)}"
    for one in named if evidence else files:
        evidence[one] = f"{format_count(len(files[one]), 'file')} such as {files[one][0].name}"
    if len(evidence) == 1:
        return next(iter(evidence))
    if evidence:
        told = " and like ".join(f"{kind} ({why})" for kind, why in evidence.items())
        raise DatasetError(f"{folder.root}: looks like {told}; name the corpus with {BY_NAME}")
    raise DatasetError(
        f"{folder.root}: is none of the known corpora: {tried}, it has no {HEADER} and no "
        f"sub-folders named after emotions; name the corpus with {BY_NAME}, or give a table "
        "with the columns file, emotion and, if known, speaker"
    )


def _is_named_like(kind: str, path: Path) -> bool:
    """Return whether a file is named like those of a corpus, with an emotion that it has."""
    match = SCHEMES[kind].match(path)
    word = match and match.groupdict().get("emotion")
    return match is not None and (word is None or canonical_label(word, kind) is not None)


def _is_sorted_anew(folder: MediaFolder, kinds: Sequence[str]) -> bool:
    """Return whether sub-folders name other emotions than the files that are named like corpora."""
    depth = find_class_depth(map(folder.name, folder.media))
    for path in folder.media:
        folders = folder.name(path).split("/")[:-1]
        if len(folders) <= depth:  # in no folder of a class
            continue
        place = folders[depth]
        for kind in kinds:
            match = SCHEMES[kind].match(path)
            word = match and match.groupdict().get("emotion")
            label = word and canonical_label(word, kind)
            if label and common_label(place) not in (None, label):
                return True
    return False


def _unwrap(folder: MediaFolder) -> MediaFolder:
    """Return the only sub-folder with media if only that has sub-folders named after emotions.

    An unpacked archive often has one folder around all.
    """
    names = {folder.name(path).split("/")[0] for path in folder.media}
    if len(names) != 1 or _find_classes(folder):
        return folder
    inner = replace(folder, root=folder.root / names.pop())
    return list_media(inner.root) if _find_classes(inner) else folder


def _find_classes(folder: MediaFolder) -> list[str]:
    """Return the sub-folders named after emotions, if two or more hold at least half the files."""
    words = load_facts("labels")["common"]
    paths = [*map(folder.name, folder.media)]
    depth = find_class_depth(paths)
    names = Counter(path.split("/")[depth] for path in paths if path.count("/") > depth)
    classes = {name: count for name, count in names.items() if name.casefold() in words}
    most = sum(classes.values()) >= LEAST_SHARE * len(folder.media)
    return sorted(classes) if most and len(classes) > 1 else []


def _read_file(path: Path, columns: Mapping[str, str]) -> Corpus:
    if not path.is_file() or path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DatasetError(
            f"{path}: is not a table of clips; expected a file with the suffix "
            f"{', '.join(MANIFEST_SUFFIXES)}, a TextGrid, or the folder of a corpus"
        )
    return read_manifest(path, columns)


def _read_folder(folder: MediaFolder, kind: str, columns: Mapping[str, str], song: bool) -> Corpus:
    if kind == "folders":
        return read_folders(_unwrap(folder))
    if kind == "audformat":
        return read_audformat(folder, columns)
    return _ANNOTATED[kind](folder) if kind in _ANNOTATED else read_named(folder, kind, song=song)
