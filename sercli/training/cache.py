"""Cache of decoded audio, which trainings read as often as they need it, memory-mapped.

The cache is a folder with one file per clip: its waveform, a hash of the decoded audio, and the
bounds of the speech. A file's name is derived from the content of the recording, so that a renamed
or copied recording is found again, and a changed one is not.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.augment import Utterance
from sercli.config import LONGEST_SEGMENT_S
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import ClipError, DecodedClip, decode_clip, order_by_source
from sercli.datasets.extraction import Progress, run_tasks
from sercli.datasets.notes import Notes, join_notes
from sercli.errors import DatasetError
from sercli.files import make_folder, write_bytes
from sercli.speech.segmentation import find_speech

# Version of the files: those of other versions are not found, and their clips decoded again.
FORMAT = 1
# Largest 16-bit sample: half the size of float32, with an error 96 dB below the peak of the clip.
PEAK = 32_767
# Samples of a clip that is heard in the background of others; the rest of longer ones is left out.
MAX_SAMPLES = round(LONGEST_SEGMENT_S * SAMPLE_RATE)
TAG_FILE = "CACHEDIR.TAG"
# Marks the folder as a cache that backups can skip: https://bford.info/cachedir/
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Decoded audio of `ser train`.\n"


class Entry(NamedTuple):
    """Metadata of a file in the cache."""

    path: Path
    offset: int  # of the first sample, in bytes
    n_samples: int
    scale: float
    audio_hash: str
    start: int
    end: int
    notes: Notes = Notes()

    def load(self) -> Utterance:
        """Return the waveform at 16 kHz, with the bounds of its speech."""
        return Utterance(self.read(0, self.n_samples), self.start, self.end)

    def read(self, start: int, end: int) -> FloatArray:
        """Return some samples of the waveform at 16 kHz, as float32."""
        samples = np.memmap(self.path, "<i2", "r", self.offset, (self.n_samples,))
        return samples[start:end].astype(np.float32) * np.float32(self.scale)


class _Failure(NamedTuple):
    """Why there is no file of a clip."""

    error: str
    notes: Notes


@dataclass(frozen=True, eq=False)
class CachedClips:
    """Clips whose audio is in the cache.

    Parameters
    ----------
    clips
        Clips that could be decoded, in order.
    entries
        Metadata of each clip's file in the cache.
    failed
        Error of each clip that could not be decoded, by its place.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    clips: tuple[Clip, ...]
    entries: tuple[Entry, ...]
    failed: dict[str, str]
    notes: Mapping[str, Notes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Hash of the decoded audio of each clip; see `sercli.datasets.decoding.hash_audio`."""
        return tuple(entry.audio_hash for entry in self.entries)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Number of samples of each clip, at 16 kHz."""
        return tuple(entry.n_samples for entry in self.entries)

    @property
    def duration(self) -> float:
        """Total duration of all clips, in seconds."""
        return sum(self.lengths) / SAMPLE_RATE

    @property
    def n_bytes(self) -> int:
        """Size of the files of all clips in the cache, in bytes."""
        return sum(entry.path.stat().st_size for entry in set(self.entries))

    def utterance(self, index: int) -> Utterance:
        """Return a clip's waveform at 16 kHz, with the bounds of its speech."""
        return self.entries[index].load()

    @classmethod
    def join(cls, parts: "Sequence[CachedClips]") -> Self:
        """Return the clips of several parts as one."""
        return cls(
            tuple(clip for part in parts for clip in part.clips),
            tuple(entry for part in parts for entry in part.entries),
            {place: error for part in parts for place, error in part.failed.items()},
            join_notes(part.notes for part in parts),
        )

    def take(self, indices: Sequence[int]) -> Self:
        """Return some of the clips."""
        return type(self)(
            tuple(self.clips[index] for index in indices),
            tuple(self.entries[index] for index in indices),
            self.failed,
            self.notes,
        )


class Talkers(Sequence[FloatArray]):
    """Waveforms of clips that may be heard in the background of others, read on access.

    Of a clip longer than 30 s, these are the 30 s from the start of its speech.

    Parameters
    ----------
    entries
        The clips.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        """Return the waveform of a clip at 16 kHz, shape (n_samples,)."""
        entry = self._entries[index]
        # A long clip may begin with silence.
        start = entry.start if entry.n_samples > MAX_SAMPLES else 0
        return entry.read(start, start + MAX_SAMPLES)


def find_cache() -> Path:
    """Return the default folder of decoded audio, in the user's cache."""
    from platformdirs import user_cache_path

    return user_cache_path("ser", appauthor=False) / "audio"


def cache_clips(
    clips: Sequence[Clip], folder: Path, *, jobs: int = -1, progress: Progress | None = None
) -> CachedClips:
    """Decode clips into the cache unless they are there, with several processes.

    Parameters
    ----------
    clips
        The clips.
    folder
        Folder of the cache; created if missing. Several trainings can share it.
    jobs
        Number of processes; -1 for one per core.
    progress
        Called with the number of newly processed clips.

    Returns
    -------
    CachedClips
        Clips that could be decoded, and errors of the others.

    Raises
    ------
    DatasetError
        If no clip can be decoded.
    OutputError
        If the cache cannot be written.
    """
    make_folder(folder, "cache")
    if not (folder / TAG_FILE).exists():
        write_bytes(folder / TAG_FILE, TAG.encode())
    order = order_by_source(clips)
    in_order = [clips[place] for place in order]
    found: list[Entry | _Failure] = []
    for result in run_tasks(partial(_cache_clip, folder=folder), in_order, jobs):
        found += result
        if progress is not None:
            progress(len(result))
    outcome_of = dict(zip(order, found, strict=True))
    outcomes = [(clip, outcome_of[place]) for place, clip in enumerate(clips)]
    done = [(clip, one) for clip, one in outcomes if not isinstance(one, _Failure)]
    failed = {clip.place: one.error for clip, one in outcomes if isinstance(one, _Failure)}
    if not done:
        first = next(iter(failed.values()), "there are no clips")
        raise DatasetError(f"none of {len(clips)} clips could be decoded; the first: {first}")
    clips, entries = zip(*done, strict=True)
    notes = join_notes({str(clip.path): one.notes} for clip, one in outcomes)
    return CachedClips(clips, entries, failed, notes)


def _cache_clip(clip: Clip, folder: Path) -> Entry | _Failure:
    try:
        path = _path(clip, folder)
        return read_entry(path) or write_entry(decode_clip(clip), path)
    except ClipError as error:
        return _Failure(str(error), error.notes)


def _path(clip: Clip, folder: Path) -> Path:
    """Return the path of a clip's file in the cache, whether it exists or not."""
    try:
        status = clip.path.stat()
        digest = _hash_file(str(clip.path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ClipError(f"{clip.path}: cannot be read: {error.strerror}") from error
    facts: list[object] = [digest, clip.start, clip.end]
    return find_place(facts if clip.channel is None else [*facts, clip.channel], folder)


def find_place(facts: Sequence[object], folder: Path) -> Path:
    """Return the path of a file in the cache, whether it exists or not.

    Parameters
    ----------
    facts
        Everything that decides the content of the file, as JSON values.
    folder
        Folder of the cache.
    """
    part = json.dumps([FORMAT, *facts])
    key = hashlib.blake2b(part.encode(), digest_size=16).hexdigest()
    # Subfolders, as some file systems and tools are slow with thousands of files in one folder.
    return folder / key[:2] / f"{key}.safetensors"


# One entry suffices: the clips of a recording follow each other. Size and time of modification are
# part of the key, since the file may change between two runs in the same process.
@lru_cache(maxsize=1)
def _hash_file(path: str, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()


def read_entry(path: Path) -> Entry | None:
    """Return the metadata of a file in the cache; None if it is missing or damaged.

    Parameters
    ----------
    path
        Path of the file.
    """
    try:
        with safe_open(path, "numpy") as file:
            facts = file.metadata()
            n_samples = file.get_slice("samples").get_shape()[0]
        return Entry(
            path,
            path.stat().st_size - 2 * n_samples,  # the only tensor ends where the file ends
            n_samples,
            float(facts["scale"]),
            facts["audio_hash"],
            int(facts["start"]),
            int(facts["end"]),
            Notes(int(facts["decoded"]), tuple(json.loads(facts["warnings"]))),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def write_entry(decoded: DecodedClip, path: Path) -> Entry:
    """Write a clip into the cache, and return the metadata of its file.

    Parameters
    ----------
    decoded
        Waveform of the clip, with the hash of its audio.
    path
        Path of the file; its folder is created if missing, but not the cache.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    waveform, audio_hash, notes = decoded
    start, end = find_bounds(waveform)
    scale = float(np.abs(waveform).max()) / PEAK or 1.0  # digital silence has no peak
    facts = {
        "scale": repr(scale),
        "audio_hash": audio_hash,
        "start": str(start),
        "end": str(end),
        "decoded": str(notes.n_samples),
        "warnings": json.dumps(notes.warnings),
    }
    samples = np.rint(waveform / scale).astype("<i2")
    make_folder(path.parent, "cache")
    write_bytes(path, save({"samples": samples}, facts))
    entry = read_entry(path)
    assert entry is not None
    return entry


def find_bounds(waveform: FloatArray) -> tuple[int, int]:
    """Return where the speech of a waveform starts and ends; all of it if there is none.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).

    Returns
    -------
    start, end : int
        First sample of the speech, and the one after its last.
    """
    spans = find_speech([waveform])
    return (spans[0].start, spans[-1].end) if spans else (0, len(waveform))
