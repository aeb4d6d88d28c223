"""Files by the names that tables and the parts of a corpus give them."""

import os
from pathlib import Path

from sercli.schema import parse_path
from sercli.text import list_spellings


def find_file(folder: Path, name: str) -> Path | None:
    """Return the path of an existing file whatever the Unicode form of its name, or None.

    Parameters
    ----------
    folder
        Folder to search.
    name
        Path of the file relative to the folder, in any Unicode form.
    """
    places = (folder / one for one in list_spellings(name))
    return next(filter(os.path.lexists, places), None)


def find_listed(folder: Path, name: str) -> Path | None:
    """Return the path of a file that a table lists, or None if there is no such file.

    As in the output of `ser annotate`, the name may be relative to the working directory, and have
    undecodable bytes escaped; there, only the unescaped name can be meant.

    Parameters
    ----------
    folder
        Folder of the table, where the file is looked for first.
    name
        Path of the file in the table.
    """
    plain = parse_path(name)
    places = ((folder, plain), (Path(), plain), (folder, name), (Path(), name))
    return next(filter(None, (find_file(*place) for place in places)), None)


def tidy_listed(folder: Path, name: str) -> str:
    """Return the name of a file in a table as it is meant.

    That is without spaces around it and, in a table made on Windows, with ``/`` between its
    folders, unless a file is called as the table says. On Windows, no file is, but looking for it
    finds the other.

    Parameters
    ----------
    folder, name
        As for `find_listed`.
    """
    stripped = name.strip()
    meant = dict.fromkeys((name, stripped, stripped.replace("\\", "/")))
    if os.name == "nt" or len(meant) == 1:
        return stripped
    return next((one for one in meant if find_listed(folder, one)), stripped)
