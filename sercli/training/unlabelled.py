"""Unlabelled speech: segments of recordings, used with a teacher's probabilities or as calm speech.

They are the segments that `ser annotate` would label, without those too short to be useful.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from joblib import Parallel, delayed

from sercli.arrays import FloatArray
from sercli.audio.reading import AudioFile, resample_stream
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import AudioHash
from sercli.datasets.extraction import limit_jobs
from sercli.datasets.notes import Notes, join_notes
from sercli.discovery import find_inputs
from sercli.errors import AudioError, ConfigError, DatasetError
from sercli.evaluation.leaks import UNLABELLED, TrainingManifest
from sercli.schema import MIX
from sercli.speech.segmentation import find_speech
from sercli.speech.speakers import Speakers, Timeline
from sercli.text import format_count, format_duration
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.trainer import Prepared
from sercli.training.variations import vary_clips
from sercli.training.watcher import Watcher

# Shorter segments are only a word or two.
MIN_SEGMENT_S = 1.0


@dataclass(frozen=True)
class FoundSpeech:
    """Result of a search for speech.

    Parameters
    ----------
    clips
        Segments of at least `MIN_SEGMENT_S`, ordered by recording and time.
    recordings
        Hash of the audio of each recording that has segments, by path; see
        `sercli.datasets.decoding.hash_audio`.
    failed
        Error of each recording that cannot be fully decoded, and of each folder that cannot be
        listed, by path.
    n_searched
        Number of recordings, those included in which nobody speaks, and those that failed.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    clips: tuple[Clip, ...]
    recordings: Mapping[str, str]
    failed: Mapping[str, str]
    n_searched: int
    notes: Mapping[str, Notes] = field(default_factory=dict)


def find_unlabelled(
    paths: Iterable[str | os.PathLike[str]],
    *,
    speakers: Speakers | None = None,
    jobs: int = -1,
    report: Callable[[int, int], None] = lambda *_: None,
) -> FoundSpeech:
    """Find the speech in recordings, with several processes that stream the audio.

    Parameters
    ----------
    paths
        Files and directories; see `sercli.discovery.find_inputs`.
    speakers
        Speakers of the recordings, if known.
    jobs
        Number of processes; -1 for one per core.
    report
        Called with the number of recordings searched, and of all recordings.

    Raises
    ------
    ConfigError
        If a recording may have the speakers of several; see `sercli.speech.matching.match_turns`.
    """
    every = list(find_inputs(paths))
    failed = {found.path: f"{found.path}: {found.error}" for found in every if found.error}
    files = [found.path for found in every if not found.error]
    clips: list[Clip] = []
    recordings: dict[str, str] = {}
    notes: list[dict[str, Notes]] = []
    match = speakers.match(files) if speakers else None
    parallel = Parallel(n_jobs=limit_jobs(jobs), return_as="generator")
    results = parallel(delayed(_search)(path) for path in files)
    for number, (path, (outcome, told)) in enumerate(zip(files, results, strict=True), 1):
        notes.append({path: told})
        if isinstance(outcome, str):
            failed[path] = outcome
        else:
            times, audio_hash = outcome
            timeline = Timeline(match.find(path, mixed=True) if match else ())
            long = [
                _make_clip(path, start, end, timeline)
                for start, end in times
                if end - start >= MIN_SEGMENT_S
            ]
            if long:
                clips += long
                recordings[path] = audio_hash
        report(number, len(files))
    return FoundSpeech(tuple(clips), recordings, failed, len(every), join_notes(notes))


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Unlabelled speech, searched for and decoded when it is first accessed.

    Parameters
    ----------
    paths
        Files and directories.
    cache
        Folder of the decoded audio; created if missing.
    name
        Kind of speech, for messages.
    speakers, jobs
        As for `find_unlabelled`.
    prosodies
        Number of versions of each segment with another prosody, in addition to the segment; see
        `sercli.training.variations`.
    seed
        Seed of these versions.
    watcher
        Receiver of progress reports: of the search, and of the making of these versions.
    """

    paths: tuple[Path, ...]
    cache: Path
    name: str = UNLABELLED
    speakers: Speakers | None = None
    jobs: int = -1
    prosodies: int = 0
    seed: int = 0
    watcher: Watcher = field(default_factory=Watcher)

    @cached_property
    def found(self) -> FoundSpeech:
        """Result of the search.

        Raises
        ------
        DatasetError
            If no speech was found.
        """
        found = find_unlabelled(
            self.paths, speakers=self.speakers, jobs=self.jobs, report=self.watcher.search
        )
        if not found.clips:
            reason = next(iter(found.failed.values()), "no speech was found in them")
            raise DatasetError(
                f"{', '.join(map(str, self.paths))}: found no speech of {MIN_SEGMENT_S:g} s or "
                f"more in {format_count(found.n_searched, 'recording')} for training as "
                f"{self.name}: {reason}"
            )
        return found

    @cached_property
    def segments(self) -> CachedClips:
        """Segments with their audio in the cache."""
        return cache_clips(self.found.clips, self.cache, jobs=self.jobs)

    @cached_property
    def cached(self) -> CachedClips:
        """All clips for training: the segments, then their versions with another prosody."""
        if not self.prosodies:
            return self.segments
        varied = vary_clips(
            self.segments,
            self.cache,
            self.prosodies,
            self.seed,
            jobs=self.jobs,
            report=self.watcher.vary,
        )
        return CachedClips.join((self.segments, varied))

    @property
    def failed(self) -> dict[str, str]:
        """Error of each recording, segment or folder that could not be read, by its place."""
        return {**self.found.failed, **self.segments.failed}

    @property
    def notes(self) -> dict[str, Notes]:
        """Notes on its recordings that were repaired or are not read in full, by their paths."""
        return join_notes((self.found.notes, self.segments.notes))

    @property
    def manifest(self) -> TrainingManifest:
        """Manifest with the hashes of the segments and of their recordings.

        Recordings are included since one may be a clip of some corpus: the hash of the clip differs
        from those of its segments.
        """
        clips = self.segments.clips
        whose = {str(clip.path): clip for clip in clips}
        audio = [
            *zip(self.segments.hashes, clips, strict=True),
            *((one, whose.get(path)) for path, one in self.found.recordings.items()),
        ]
        known = [(clip, one) for one, clip in audio if clip is not None and clip.voice]
        unknown = [one for one, clip in audio if clip is None or not clip.voice]
        return TrainingManifest.from_unlabelled(unknown).join(
            [TrainingManifest.from_clips([clip], [one]) for clip, one in known]
        )

    @property
    def facts(self) -> dict[str, float]:
        """Facts for a model's record: number of segments and recordings, and seconds of speech."""
        return {
            "clips": len(self.segments),
            "recordings": len(self.found.recordings),
            "seconds": round(self.segments.duration, 3),
        }

    def describe(self) -> str:
        """Return a summary of the found speech in one line."""
        found = self.found
        duration = sum((clip.end or 0.0) - clip.start for clip in found.clips)
        text = (
            f"{self.name}: {len(found.clips):,} segments, {format_duration(duration)} of speech, "
            f"in {len(found.recordings):,} of {format_count(found.n_searched, 'recording')}"
        )
        return f"{text}; {len(found.failed):,} failed" if found.failed else text

    def refuse_held_out(self, held_out: Prepared) -> None:
        """Raise if the speech contains held-out clips.

        Parameters
        ----------
        held_out
            Held-out clips.

        Raises
        ------
        ConfigError
            If a clip has the same audio as a segment or recording, or is from one of the
            recordings; the message names the first.
        """
        known = {audio for audio, _ in self.manifest.rows} - {""}
        files = {os.path.realpath(path) for path in self.found.recordings}
        for clip, audio in zip(held_out.clips, held_out.hashes, strict=True):
            if audio in known or os.path.realpath(clip.path) in files:
                raise ConfigError(
                    f"{clip.place}: is to be scored, but is also in the {self.name} training "
                    "speech; expected other recordings: leave it out of these"
                )


def _make_clip(path: str, start: float, end: float, speakers: Timeline) -> Clip:
    name, speaker = f"{path}#{start:.3f}", speakers.find(MIX, start, end)
    return Clip(Path(path), UNLABELLED, speaker, name, UNLABELLED, start, end)


# When somebody speaks in a recording and the hash of its audio.
_Times = tuple[list[tuple[float, float]], str]


def _search(path: str) -> tuple[_Times | str, Notes]:
    """Return what was found in a recording, or the error, and what is to be known of it."""
    found: _Times | str
    try:
        with AudioFile(path) as audio:
            try:
                found = _listen(audio)
            except AudioError as error:
                found = str(error)
            return found, Notes(audio.n_samples, audio.warnings)
    except AudioError as error:  # it cannot be opened
        return str(error), Notes()


def _listen(audio: AudioFile) -> _Times:
    audio_hash = AudioHash()

    def mix() -> Iterator[FloatArray]:
        for block in audio.blocks():
            mean = block.mean(axis=1, keepdims=True)
            audio_hash.push(mean[:, 0])
            yield mean

    blocks = resample_stream(mix(), audio.sample_rate, 1)
    spans = find_speech(block[:, 0] for block in blocks)
    times = [(audio.seconds_at(span.start), audio.seconds_at(span.end)) for span in spans]
    return times, audio_hash.finish()
