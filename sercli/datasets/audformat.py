"""Databases in audformat, the format of audEERING's published corpora."""

import math
import warnings
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from sercli.datasets.clip import Clip, stretch_name
from sercli.datasets.corpus import Corpus
from sercli.datasets.facts import is_known, person_traits
from sercli.datasets.labelling import canonical_label
from sercli.datasets.media import MISSING, NOT_ANNOTATED, MediaFolder
from sercli.datasets.schemes import LARYNGO
from sercli.datasets.tables import LICENCE, SPLIT_WORDS, parse_split
from sercli.errors import DatasetError
from sercli.text import compose

HEADER = "db.yaml"
# Facts about a speaker, by their names in databases.
PERSON = {"sex": "sex", "gender": "sex", "age": "age", "language": "language"}

# A file, and the start and end of a stretch of it in seconds.
Stretch = tuple[str, float, float | None]


@dataclass
class _Found:
    words: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)


def read_audformat(folder: MediaFolder, columns: Mapping[str, str]) -> Corpus:
    """Read a database in audformat.

    All tables with a column of emotions are read. A stretch with different labels is left out.

    Parameters
    ----------
    folder
        Folder with ``db.yaml``.
    columns
        Names in the database for ``emotion``, ``speaker`` and ``split``: each the name of a column
        or of its scheme, or ``TABLE/COLUMN``, in which ``*`` stands for any part of the table's
        name.

    Returns
    -------
    Corpus
        Clips of the database, whose name is that of the corpus.

    Raises
    ------
    DatasetError
        If the package `audformat` is missing, the folder is no such database, no column matches, or
        several columns of a table do.
    """
    # The package uses deprecated parts of pandas: the user can do nothing about these warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return _read_database(folder, _load(folder), columns)


def _load(folder: MediaFolder) -> Any:
    try:
        import audformat
    except ImportError as error:
        raise DatasetError(
            f"databases in audformat need a package that is missing ({error.name}); install it "
            "with: pip install 'sercli[audformat]'"
        ) from error
    if not (folder.root / HEADER).is_file():
        raise DatasetError(f"{folder.root}: has no {HEADER}; expected a database in audformat")
    try:
        return audformat.Database.load(str(folder.root), load_data=True)
    except Exception as error:  # the package reads YAML, CSV and Parquet, each with its own errors
        raise DatasetError(f"{folder.root}: audformat cannot load it: {error}") from error


def _read_database(folder: MediaFolder, database: Any, columns: Mapping[str, str]) -> Corpus:
    found = _find_labels(folder, database, columns)
    speakers = {
        key: str(value)
        for key, value, _ in _cells(database, "speaker", columns)
        if value not in (None, "")  # 0 is a speaker
    }
    people = _read_people(database, columns)
    language = _name_languages(database)
    clips = []
    skipped = {}
    for key, entry in found.items():
        file, start, end = key
        name = stretch_name(*key)
        labels = sorted({canonical_label(word) or "no agreement" for word in entry.words})
        if not labels:
            skipped[name] = "no emotion given"
        elif len(labels) > 1:
            skipped[name] = f"labelled both {' and '.join(labels)}"
        elif len(entry.splits) > 1:
            skipped[name] = f"in the splits {' and '.join(sorted(entry.splits))}"
        elif not (folder.root / file).is_file():
            skipped[name] = MISSING
        else:
            speaker = speakers.get(key) or speakers.get((file, 0.0, None))
            clips.append(
                Clip(
                    folder.root / file,
                    min(entry.words),
                    speaker,
                    name=name,
                    corpus=database.name,
                    start=start,
                    end=end,
                    split=next(iter(entry.splits), None),
                    traits={**language, **people.get(speaker or "", {})},
                )
            )
    used = {PurePosixPath(file).as_posix() for file, _, _ in found}
    names = {folder.name(path) for path in folder.media}
    skipped |= dict.fromkeys(sorted(names - used), NOT_ANNOTATED)
    return Corpus(database.name, database.license or LICENCE, tuple(clips), skipped)


def _find_labels(
    folder: MediaFolder, database: Any, columns: Mapping[str, str]
) -> dict[Stretch, _Found]:
    """Return the words and the splits of each stretch."""
    splits = {
        key: parse_split(str(value), f"{folder.root}: {stretch_name(*key)}")
        for key, value, _ in _cells(database, "split", columns)
        if value not in (None, "")
    }
    found: dict[Stretch, _Found] = {}
    for key, value, table in _cells(database, "emotion", columns):
        entry = found.setdefault(key, _Found())
        if value is None:
            continue
        entry.words.add(str(value))
        split = splits.get(key) or splits.get((key[0], 0.0, None)) or _split_of(database, table)
        entry.splits |= {split} if split else set()
    if not found:
        wanted = columns.get("emotion", "emotion")
        tables = database.tables.items()
        have = [f"{name}/{column}" for name, table in tables for column in table.columns]
        raise DatasetError(
            f"{folder.root}: no table has a column {wanted!r} with rows; found "
            f"{', '.join(have) or 'none'}; name it with --columns emotion=COLUMN or "
            "emotion=TABLE/COLUMN"
        )
    return found


def _tables_of(database: Any, role: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the column for a role in each table that has one."""
    wanted = columns.get(role, role)
    pattern, slash, name = compose(wanted).rpartition("/")
    columns_of = {}
    for table_id, table in database.tables.items():
        if slash and not fnmatchcase(compose(table_id), pattern):
            continue
        if not slash and table_id.split(".")[0] == LARYNGO:  # EmoDB's, which have no speech
            continue
        names = {key: compose(key) for key in table.columns}
        fitting = [key for key in names if names[key] == name] or [
            key for key in names if compose(table.columns[key].scheme_id or "") == name
        ]
        if len(fitting) > 1:
            raise DatasetError(
                f"{database.name}: the table {table_id} has the columns {', '.join(fitting)} for "
                f"{role}; expected one; name it with --columns {role}=COLUMN"
            )
        if fitting:
            columns_of[table_id] = fitting[0]
    return columns_of


def _cells(
    database: Any, role: str, columns: Mapping[str, str]
) -> Iterator[tuple[Stretch, Hashable | None, str]]:
    """Yield the stretch, value or None, and table of each cell of a role's columns."""
    from audformat.utils import to_segmented_index

    for table_id, column in _tables_of(database, role, columns).items():
        values = database.tables[table_id][column].get().dropna()
        index = to_segmented_index(database.tables[table_id].index)
        present = to_segmented_index(values.index)
        known = dict(zip(present, values.tolist(), strict=True))
        for row in index:
            file, start, end = row
            length = end.total_seconds()
            key = (file, start.total_seconds(), None if math.isnan(length) else length)
            yield key, known.get(row), table_id


def _split_of(database: Any, table_id: str) -> str | None:
    """Return the split that a table belongs to, or that is in its name."""
    split_id = database.tables[table_id].split_id
    words = [database.splits[split_id].type] if split_id else table_id.split(".")
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _read_people(database: Any, columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the traits of the speakers that the scheme of their column describes."""
    people = {}
    for table_id, column in _tables_of(database, "speaker", columns).items():
        scheme = database.schemes.get(database.tables[table_id].columns[column].scheme_id)
        labels = getattr(scheme, "labels", None)
        if scheme is not None and scheme.uses_table:
            labels = database.misc_tables[labels].df.to_dict("index")
        for speaker, facts in labels.items() if isinstance(labels, dict) else ():
            known = facts.items() if isinstance(facts, dict) else ()
            # Unknown values are left out, or one might replace the same fact under another name.
            people[str(speaker)] = person_traits(
                {PERSON[key]: value for key, value in known if key in PERSON and is_known(value)}
            )
    return people


def _name_languages(database: Any) -> dict[str, str]:
    """Return the language as a trait if the database has exactly one, else no trait."""
    import iso639

    languages = database.languages
    if len(languages) != 1:
        return {}
    try:
        return {"language": iso639.Lang(languages[0]).name}
    except iso639.exceptions.InvalidLanguageValue:
        return {"language": languages[0]}
