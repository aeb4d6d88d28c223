"""The annotator: from a recording to its labelled segments, in one streaming pass.

A file is decoded block by block and resampled once; each channel that is judged runs through
speech detection and a segmenter, which hands over segments as soon as they are final; segments are
judged in batches. Memory holds a few blocks, the open segment of each channel and one batch.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sercli.audio import SAMPLE_RATE, AudioFile, resample_stream
from sercli.classifiers.base import Classifier
from sercli.config import SegmentConfig, Target
from sercli.discovery import Found, find_inputs
from sercli.errors import AudioError, ConfigError
from sercli.schema import MIX, FileResult, Segment
from sercli.segmentation import Span, create_segmenter
from sercli.store import DEFAULT_MODEL, load_model
from sercli.vad import SpeechDetector, SpeechFrames

# Segments are judged together from this much audio on.
BATCH_S = 120.0

# Setting of `channels` under which each channel is judged by itself.
SPLIT = "split"

Progress = Callable[[float], None]


def annotate(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | os.PathLike[str] | Classifier = DEFAULT_MODEL,
    *,
    segments: SegmentConfig | None = None,
    channels: str = MIX,
    device: str | None = None,
    target: Target = "intended",
    recursive: bool = True,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> Iterator[FileResult]:
    """Label the emotion of every segment of recordings.

    Parameters
    ----------
    paths
        A file or directory, or several.
    model
        A model by name, its folder, or a loaded one; see `sercli.load_model`.
    segments
        How recordings are cut; speech segments of at most 6 s by default.
    channels
        ``"mix"``: the mean of all channels; ``"split"``: each by itself; or indices from 0,
        such as ``"0,1"``.
    device
        Where a model that is loaded here runs, see `sercli.load_model`; ``"auto"`` by default.
    target
        ``"intended"``: what speakers want to express; ``"perceived"``: what listeners hear, each
        probability being the expected share of listeners who hear it.
    recursive, include, exclude
        Which files of directories are taken; see `sercli.find_inputs`.

    Yields
    ------
    FileResult
        One per file in the order of the inputs, also for files that fail.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    ConfigError
        If `channels` is not understood, or the model does not run on the device or does not tell
        `target`.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if isinstance(model, Classifier):
        if device is not None:
            raise ConfigError(f"device is {device!r}; a model that is loaded has one already")
        classifier = model
    else:
        classifier = load_model(model, device or "auto")
    annotator = Annotator(classifier, segments or SegmentConfig(), channels, target)
    for found in find_inputs(paths, recursive=recursive, include=include, exclude=exclude):
        yield annotator.annotate_found(found)


class Annotator:
    """A model with its settings, ready for any number of files.

    Parameters
    ----------
    classifier
        The model.
    config
        How recordings are cut.
    channels, target
        As in `annotate`.

    Raises
    ------
    ConfigError
        If `channels` is not understood, or the model does not tell `target`.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: SegmentConfig,
        channels: str = MIX,
        target: Target = "intended",
    ) -> None:
        classifier.spec.find_calibration(target)
        self.classifier = classifier
        self.config = config
        self.target = target
        self.channels = parse_channels(channels)
        self._detector = SpeechDetector()
        self._blas = ThreadpoolController().select(user_api="blas")

    def annotate_found(self, found: Found, progress: Progress | None = None) -> FileResult:
        """Annotate what a search gave: a file, or a folder that could not be searched."""
        if found.error is not None:
            return FileResult(found.path, "failed", error=f"{found.path}: {found.error}")
        return self.annotate_file(found.path, progress)

    def annotate_file(
        self, path: str | os.PathLike[str], progress: Progress | None = None
    ) -> FileResult:
        """Annotate one file.

        Parameters
        ----------
        path
            An audio or video file.
        progress
            Called with the seconds of each block that was decoded.

        Returns
        -------
        FileResult
            With status ``"failed"`` and the reason if the file cannot be decoded to its end;
            what was decoded before is annotated all the same.
        """
        name = os.fspath(path)
        try:
            audio = AudioFile(path)
        except AudioError as error:
            return FileResult(name, "failed", error=str(error))
        # The matrices of a segment are small: threads would wait for each other, and where the
        # machine is busy with something else, for that, too.
        with audio, self._blas.limit(limits=1):
            judged, reason = self._judge(audio, progress)
            return FileResult(
                name,
                "failed" if reason else "ok" if judged else "no speech",
                tuple(self._segment(item, audio) for item in judged),
                audio.duration,
                audio.sample_rate,
                audio.channels,
                reason,
                audio.warnings,
            )

    def _judge(
        self, audio: AudioFile, progress: Progress | None
    ) -> tuple[list["_Judged"], str | None]:
        """Return what was judged, in order of time, and why decoding ended early, if it did."""
        try:
            names, mixer = _select_channels(self.channels, audio.channels)
        except AudioError as error:
            return [], f"{audio.path}: {error}"
        tracks = [_Track(name, self._detector, self.config) for name in names]
        batch = _Batch(self.classifier, self.target)
        reason = None

        def blocks() -> Iterator[NDArray[np.float32]]:
            for block in audio.blocks():
                if progress is not None:
                    progress(len(block) / audio.sample_rate)
                yield block @ mixer

        try:
            for block in resample_stream(blocks(), audio.sample_rate, len(tracks)):
                for track, waveform in zip(tracks, block.T, strict=True):
                    batch.add(track.name, track.push(waveform))
        except AudioError as error:
            reason = str(error)
        for track in tracks:
            batch.add(track.name, track.finish())
        judged = batch.finish()
        if self.config.mode == "file":
            judged = [_average(judged, track) for track in tracks if _of(judged, track)]
        order = {name: index for index, name in enumerate(names)}
        return sorted(judged, key=lambda item: (*item.span[:2], order[item.channel])), reason

    def _segment(self, judged: "_Judged", audio: AudioFile) -> Segment:
        labels = self.classifier.spec.labels
        winner = int(np.argmax(judged.probabilities))
        start, end = (audio.seconds_at(sample) for sample in judged.span[:2])
        probabilities = tuple(judged.probabilities.tolist())
        return Segment(
            judged.channel, start, end, labels[winner], probabilities[winner], probabilities
        )


def parse_channels(channels: str) -> str | tuple[int, ...]:
    """Return ``"mix"``, ``"split"`` or the indices that a setting names.

    Parameters
    ----------
    channels
        As in `annotate`.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if channels in (MIX, SPLIT):
        return channels
    try:
        indices = tuple(int(index) for index in channels.split(","))
    except ValueError:
        indices = ()
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise ConfigError(
            f"channels is {channels!r}; expected mix, split, or different indices from 0: 0,1"
        )
    return indices


def _select_channels(
    channels: str | tuple[int, ...], n_channels: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names of the tracks, and the matrix (n_channels, n_tracks) that makes them."""
    if channels == MIX:
        name = "0" if n_channels == 1 else MIX
        return [name], np.full((n_channels, 1), 1 / n_channels, np.float32)
    indices = range(n_channels) if channels == SPLIT else [int(index) for index in channels]
    if max(indices) >= n_channels:
        raise AudioError(f"has {n_channels} channels; asked for channel {max(indices)}")
    return [str(index) for index in indices], np.eye(n_channels, dtype=np.float32)[:, indices]


class _Judged(NamedTuple):
    channel: str
    span: Span
    probabilities: NDArray[np.float64]


class _Track:
    """One channel on its way: speech detection, segmenter, and the audio not yet given away."""

    def __init__(self, name: str, detector: SpeechDetector, config: SegmentConfig) -> None:
        self.name = name
        self.n_samples = 0
        self._stream = detector.stream()
        self._segmenter = create_segmenter(config)
        self._audio = np.empty(0, np.float32)
        self._first = 0  # sample of the recording that _audio starts with

    def push(self, waveform: NDArray[np.float32]) -> list[tuple[Span, NDArray[np.float32]]]:
        self.n_samples += len(waveform)
        self._audio = np.concatenate((self._audio, waveform))
        return self._take(self._stream.push(waveform))

    def finish(self) -> list[tuple[Span, NDArray[np.float32]]]:
        final = self._take(self._stream.finish())
        return final + self._cut(self._segmenter.finish(self.n_samples))

    def _take(self, frames: SpeechFrames) -> list[tuple[Span, NDArray[np.float32]]]:
        final = self._cut(self._segmenter.push(frames))
        needed = min(self._segmenter.needed_from, self.n_samples)
        self._audio = self._audio[max(needed - self._first, 0) :]
        self._first = max(needed, self._first)
        return final

    def _cut(self, spans: list[Span]) -> list[tuple[Span, NDArray[np.float32]]]:
        first = self._first
        return [(span, self._audio[span.start - first : span.end - first]) for span in spans]


class _Batch:
    """Segments that wait to be judged together, and those that were."""

    def __init__(self, classifier: Classifier, target: Target) -> None:
        self._classifier, self._target = classifier, target
        self._waiting: list[tuple[str, Span, NDArray[np.float32]]] = []
        self._duration = 0.0
        self._judged: list[_Judged] = []

    def add(self, channel: str, pieces: list[tuple[Span, NDArray[np.float32]]]) -> None:
        for span, waveform in pieces:
            # A copy, or the segment would keep the whole buffer that it was cut from.
            self._waiting.append((channel, span, waveform.copy()))
            self._duration += len(waveform) / SAMPLE_RATE
        if self._duration >= BATCH_S:
            self._run()

    def finish(self) -> list[_Judged]:
        self._run()
        return self._judged

    def _run(self) -> None:
        waveforms = [waveform for _, _, waveform in self._waiting]
        rows = self._classifier.predict_proba(waveforms, self._target)
        for (channel, span, _), row in zip(self._waiting, rows, strict=True):
            self._judged.append(_Judged(channel, span, row))
        self._waiting = []
        self._duration = 0.0


def _of(judged: list[_Judged], track: _Track) -> list[_Judged]:
    return [item for item in judged if item.channel == track.name]


def _average(judged: list[_Judged], track: _Track) -> _Judged:
    """Return one label for a whole channel: its pieces' mean, weighted by the speech in them."""
    pieces = _of(judged, track)
    speech = np.array([piece.span.speech for piece in pieces])
    mean = speech @ np.stack([piece.probabilities for piece in pieces]) / speech.sum()
    return _Judged(track.name, Span(0, track.n_samples, float(speech.sum())), mean)
