"""Search for the input files of a run: from paths, directories and lists, in a stable order."""

import codecs
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePath
from reprlib import repr as shorten
from typing import BinaryIO

from sercli.errors import ConfigError
from sercli.files import AnyPath

# Inside a directory only these are taken; a path named directly is taken whatever its suffix.
MEDIA_SUFFIXES = frozenset(
    ".3g2 .3ga .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .awb .caf .dsf .dts "
    ".eac3 .f4v .flac .flv .gsm .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg "
    ".mpga .mts .mxf .nut .oga .ogg .ogv .opus .ra .rf64 .rm .snd .sph .spx .tta .vob .voc "
    ".w64 .wav .wav49 .wave .weba .webm .wma .wmv .wv".split()
)


# Beginnings of names that are skipped in directories: hidden files, and locks of office programs.
HIDDEN = (".", "~$")


@dataclass(frozen=True)
class Found:
    """File to annotate, or directory that could not be listed.

    Parameters
    ----------
    path
        Path as given, or the given directory joined with the path below it.
    error
        Why a directory could not be listed; None for a file.
    file
        Open unbuffered file with the content, if that is not at the path; it is closed once it has
        been read.
    """

    path: str
    error: str | None = None
    file: BinaryIO | None = None


def find_inputs(
    paths: AnyPath | Iterable[AnyPath | Found],
    *,
    recursive: bool = True,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    on_idle: Callable[[str], None] | None = None,
) -> Iterator[Found]:
    """Expand files and directories into the files to annotate.

    Directories are walked in the order of the names of their entries, files and sub-folders mixed.
    Links are followed, but below a given directory none is walked twice, so that loops end. Hidden
    entries are skipped. A path that is found twice is yielded once, at its first place.

    Parameters
    ----------
    paths
        A file or directory, or several; `Found` objects among them are yielded unchanged.
    recursive
        Whether to walk sub-folders.
    include, exclude
        Shell patterns for files found in directories. A pattern is matched against the name, the
        path below the directory and, if it contains a folder and does not begin with ``*``, the
        whole path. An include pattern also admits suffixes that are not those of audio or video;
        an exclude pattern also leaves out sub-folders.
    on_idle
        Called at the end, once with each pattern that nothing matched.

    Yields
    ------
    Found
        Files, and directories that cannot be listed.
    """
    if isinstance(paths, str | os.PathLike):
        paths = (paths,)
    elif not isinstance(paths, Iterable) or hasattr(paths, "read"):  # a file would yield its lines
        raise ConfigError(f"the inputs are {shorten(paths)}; expected paths")
    included, excluded = _Patterns(_list(include)), _Patterns(_list(exclude))
    walk = _Walk(recursive, included, excluded)
    seen: set[str] = set()
    for path in paths:
        if isinstance(path, Found):
            yield path
            continue
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"an input is {shorten(path)}; expected a path as text or a Path")
        found = walk.run(os.fspath(path)) if os.path.isdir(path) else (Found(os.fspath(path)),)
        for item in found:
            key = os.path.abspath(item.path)
            if key not in seen:
                seen.add(key)
                yield item
    if on_idle is not None:
        for pattern in dict.fromkeys((*included.idle, *excluded.idle)):
            on_idle(pattern)


def read_path_list(stream: BinaryIO, *, nul: bool = False) -> list[str]:
    r"""Read a list of paths, one per line or separated by NUL.

    Parameters
    ----------
    stream
        Binary stream, since file names need not be valid text.
    nul
        Whether NUL separates the paths, as ``find -print0`` writes them.

    Returns
    -------
    list of str
        The paths without empty entries, decoded by `os.fsdecode`: undecodable bytes become
        surrogates.

    Raises
    ------
    ConfigError
        If lines should separate the paths, but the list contains NUL, or it cannot be decoded.
    """
    separator = b"\0" if nul else b"\n"
    listed = stream.read().removeprefix(codecs.BOM_UTF8)
    if not nul and b"\0" in listed:
        raise ConfigError(
            "the list of files contains a NUL byte; expected one path per line, or use -0 for the "
            "output of find -print0"
        )
    entries = listed.split(separator)
    if not nul:
        entries = [entry.removesuffix(b"\r") for entry in entries]
    try:
        return [os.fsdecode(entry) for entry in entries if entry]
    except UnicodeDecodeError as error:  # on Windows only
        raise ConfigError(f"the list of files is not UTF-8: {error}; save it as UTF-8") from error


def _list(patterns: str | Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself or to a forbidden place: opening it will report why
        return False


class _Patterns:
    """Shell patterns, and those of them that nothing has matched so far.

    Parameters
    ----------
    patterns
        Patterns as the user wrote them.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._of_names = {one: one.rstrip("/") for one in patterns}
        # A pattern that begins with * is meant for paths below the folder, not for those above it.
        self._of_paths = {
            one: os.path.normpath(one)
            for one in patterns
            if os.path.dirname(one.rstrip("/")) and not one.startswith("*")
        }
        self.idle = dict.fromkeys(patterns)

    def __bool__(self) -> bool:
        return bool(self._of_names)

    def match(self, name: str, relative: str, path: str) -> bool:
        """Return whether any pattern matches a file or folder.

        Parameters
        ----------
        name
            Its name.
        relative
            Its path below the directory that is searched.
        path
            Its whole path.
        """
        found = {
            one
            for one, pattern in self._of_names.items()
            if fnmatch(name, pattern) or fnmatch(relative, pattern)
        }
        if self._of_paths:
            path = os.path.normpath(path)
            # Also compared literally: a path may have brackets that are not meant as a pattern.
            found |= {
                one
                for one, pattern in self._of_paths.items()
                if path == pattern or fnmatch(path, pattern)
            }
        for one in found:
            self.idle.pop(one, None)
        return bool(found)


@dataclass(frozen=True)
class _Walk:
    recursive: bool
    include: _Patterns
    exclude: _Patterns

    def run(self, root: str) -> Iterator[Found]:
        visited: set[tuple[int, int]] = set()
        # Links come last: a folder that is also there under its own name keeps that.
        folders = deque([(root, "")])
        while folders:
            # Entries that are left of each folder from the first to the current one, and the path
            # below the first. Not by recursion: folders may be nested a thousand deep.
            nested = [self._open(*folders.popleft(), visited)]
            while nested:
                entry, below = next(nested[-1], (None, ""))
                if entry is None:
                    nested.pop()
                    continue
                if isinstance(entry, Found):
                    yield entry
                    continue
                relative = f"{below}{entry.name}"
                if self.exclude.match(entry.name, relative, entry.path):
                    continue
                if not _is_folder(entry):
                    if self._wanted(entry, relative):
                        yield Found(entry.path)
                elif self.recursive and entry.is_symlink():
                    folders.append((entry.path, f"{relative}/"))
                elif self.recursive:
                    nested.append(self._open(entry.path, f"{relative}/", visited))

    @staticmethod
    def _open(
        folder: str, below: str, visited: set[tuple[int, int]]
    ) -> Iterator[tuple["os.DirEntry[str] | Found", str]]:
        """Return the entries of a folder in order, each with `below`; none if it was visited."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                return iter(())
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            return iter([(Found(folder, f"folder cannot be listed: {error.strerror}"), below)])
        return iter([(entry, below) for entry in entries if not entry.name.startswith(HIDDEN)])

    def _wanted(self, entry: os.DirEntry[str], relative: str) -> bool:
        if self.include:
            return self.include.match(entry.name, relative, entry.path)
        return PurePath(entry.name).suffix.lower() in MEDIA_SUFFIXES
