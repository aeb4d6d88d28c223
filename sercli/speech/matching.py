"""Match of the recordings of a run to turns that are given for them."""

import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sercli.errors import ConfigError
from sercli.files import resolve_folder
from sercli.schema import printable_path
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns
from sercli.text import compose, list_spellings


@dataclass(frozen=True)
class Match:
    """The turns of each recording of a run.

    Parameters
    ----------
    by_recording
        Turns of each recording by its path, possibly none.
    source
        The turns of all recordings that were matched; None if they were made of the paths.
    others
        Names, sorted, that have turns but match none of the recordings.
    shared
        Names, sorted, whose turns are used for more than one recording.
    """

    by_recording: Mapping[str, tuple[Turn, ...]]
    source: Turns | None = None
    others: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def find(self, recording: str, *, mixed: bool = False, alone: bool = False) -> tuple[Turn, ...]:
        """Return the turns of a recording, possibly none.

        Parameters
        ----------
        recording
            Path of the recording, one of those that were matched.
        mixed
            Whether its channels are mixed down: the turns of a diarisation then apply to the mix,
            whatever their channels. (A table may have rows of the mix and of channels.)
        alone
            Whether it has only one channel: what is said of the channels of every recording is
            not said of it.
        """
        turns = self.by_recording[recording]
        if self.source is not None and not alone:
            turns += self.source.everywhere
        if mixed and self.source is not None and self.source.local:
            return tuple(turn._replace(channel=None) for turn in turns)
        return turns


def match_turns(turns: Turns, recordings: Iterable[str]) -> Match:
    """Match recordings to turns.

    Parameters
    ----------
    turns
        Turns of recordings.
    recordings
        Paths of all recordings of the run: which turns belong to one depends on the others.

    Raises
    ------
    ConfigError
        If a recording matches several names, and it is not clear which is meant. Such names differ
        in their folders, or one has a suffix and the other has none. If one of them matches another
        recording, by its folders or because that has another suffix, there is no doubt.
    """
    known = turns.by_recording
    keys = _match_names(turns, recordings) if turns.local else _match_paths(turns, recordings)
    counts = Counter(chain.from_iterable(keys.values()))
    used = {key: counts[key] for key, some in known.items() if some}
    return Match(
        {one: tuple(turn for key in own for turn in known[key]) for one, own in keys.items()},
        turns,
        tuple(sorted(printable_path(key) for key, count in used.items() if not count)),
        tuple(sorted(printable_path(key) for key, count in used.items() if count > 1)),
    )


def _match_paths(turns: Turns, recordings: Iterable[str]) -> dict[str, list[str]]:
    """Return the keys of the turns of each recording.

    It is its own path; if that has none, they are those of links to the same file that are no other
    recordings of the run.
    """
    known = turns.by_recording
    exact = {
        one: [path for path in list_spellings(resolve_folder(one)) if path in known][:1]
        for one in recordings
    }
    others: dict[str, list[str]] = {}
    for key in known.keys() - {*chain.from_iterable(exact.values())}:
        others.setdefault(os.path.realpath(key), []).append(key)
    return {
        one: own
        or sorted(
            key for path in list_spellings(os.path.realpath(one)) for key in others.get(path, ())
        )
        for one, own in exact.items()
    }


def _match_names(turns: Turns, recordings: Iterable[str]) -> dict[str, list[str]]:
    """Return the key of the turns of each recording, if any; raise if it is not clear."""
    known = turns.by_recording
    names = {recording: _spell_names(recording, known) for recording in recordings}
    exact = _find_exact(names, known)
    alike = _find_alike(names, known, exact)
    keys = exact | {recording: some[0] for recording, some in alike.items() if len(some) == 1}
    _refuse_doubt(turns, names, alike, keys)
    return {recording: [keys[recording]] if recording in keys else [] for recording in names}


def _spell_names(recording: str, known: Container[str]) -> list[str]:
    """Return the names that a recording may have, as it is printed if only these are known."""
    spellings = [_list_names(recording), _list_names(printable_path(recording))]
    return next((some for some in spellings if any(name in known for name in some)), spellings[0])


def _find_exact(names: Mapping[str, list[str]], known: Container[str]) -> dict[str, str]:
    """Return the longest name that is known of each recording that has one."""
    found = {one: [name for name in some if name in known] for one, some in names.items()}
    return {recording: some[0] for recording, some in found.items() if some}


def _find_alike(
    names: Mapping[str, list[str]], known: Iterable[str], exact: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the keys that other recordings may have whatever the folders, if they are no other's.

    They decide if there is only one.
    """
    taken = {*map(_drop_folders, exact.values())}
    by_name: dict[str, list[str]] = {}
    for key in known:
        by_name.setdefault(_drop_folders(key), []).append(key)
    return {
        recording: [key for name in dict.fromkeys(some[-2:]) for key in by_name.get(name, ())]
        for recording, some in names.items()
        if recording not in exact and taken.isdisjoint(some[-2:])
    }


def _refuse_doubt(
    turns: Turns,
    names: Mapping[str, list[str]],
    alike: Mapping[str, list[str]],
    keys: Mapping[str, str],
) -> None:
    """Raise if a recording may have another key, or one of several, that no other one has."""
    used = {*keys.values()}
    taken = {*map(_drop_folders, used)}
    for recording, candidates in names.items():
        chosen, meant = keys.get(recording), alike.get(recording, [])
        if chosen in candidates:
            # The same without suffix if it has one, otherwise with it.
            twin = candidates[candidates.index(chosen) ^ 1]
            if turns.by_recording.get(twin) and twin not in used:
                raise ConfigError(
                    f"{turns.path}: {recording} may be {_tell(turns, chosen)} or "
                    f"{_tell(turns, twin)}; expected one name for each recording"
                )
        elif len(meant) > 1 and taken.isdisjoint(candidates[-2:]):
            raise ConfigError(
                f"{turns.path}: {recording} may be {meant[0]} or {meant[1]}; expected the "
                "recordings in folders with these names, or different names"
            )


def _list_names(recording: str) -> list[str]:
    """Return the names that a recording may have: the ends of its path, each without suffix, too.

    The longest comes first, and the same without suffix comes after it.
    """
    path = Path(os.path.abspath(recording))
    folders = [*map(compose, path.parts[1:-1])]
    return [
        "/".join((*folders[first:], name))
        for first in range(len(folders) + 1)
        for name in map(compose, (path.name, path.stem))
    ]


def _drop_folders(key: str) -> str:
    return key.rpartition("/")[2]


def _tell(turns: Turns, name: str) -> str:
    return f"{name} (line {turns.lines[name]})" if name in turns.lines else name
