"""The annotator: from recordings to labelled segments, in one streaming pass.

`sercli.annotation.pipeline` reads files and scores their segments. With baselines, the model's
probabilities for each segment by itself, less than a hundred bytes, are kept until all segments of
the group are scored.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Self, get_args

import numpy as np

from sercli.annotation.given import Given
from sercli.annotation.grouping import WaitingFiles, choose_adaptation
from sercli.annotation.pipeline import Progress, score_recordings
from sercli.annotation.recording import Recording, parse_channels
from sercli.annotation.scored import ScoredFile, find_piece_type
from sercli.annotation.spool import RowStore
from sercli.annotation.timing import Stopwatch
from sercli.arrays import DoubleArray, FloatArray
from sercli.classifiers.base import Classifier
from sercli.config import (
    ACROSS_FILES,
    Adaptation,
    Effort,
    OnError,
    Precision,
    SegmentConfig,
    Target,
)
from sercli.discovery import Found, find_inputs
from sercli.errors import ConfigError
from sercli.files import AnyPath
from sercli.registry.catalogue import DEFAULT_MODEL
from sercli.registry.store import load_model
from sercli.schema import MIX, FileResult, Segment
from sercli.speech.speakers import Speakers
from sercli.speech.turn import TIMES
from sercli.speech.turns import Turns
from sercli.speech.vad import open_detector
from sercli.system.memory import IdleMemory

OnScored = Callable[[], None]


def annotate(
    paths: AnyPath | Iterable[AnyPath],
    model: AnyPath | Classifier = DEFAULT_MODEL,
    *,
    segments: SegmentConfig | Turns | AnyPath | None = None,
    channels: str | Iterable[int] = MIX,
    device: str | None = None,
    precision: Precision | None = None,
    target: Target = "intended",
    adapt: Adaptation = "auto",
    speakers: AnyPath | Speakers | None = None,
    effort: Effort | None = None,
    recursive: bool = True,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
) -> Generator[FileResult, None, None]:
    """Label the emotion of every segment of recordings.

    Parameters
    ----------
    paths
        Path of a file or directory, or several paths. An iterable is read at once.
    model
        Name of a model, path of its folder, or a loaded model; see `sercli.load_model`.
    segments
        Settings of how recordings are cut; speech segments of at most 6 s by default. Or the
        segments themselves: a table, a diarisation or TextGrids, see
        `sercli.speech.turns.Turns.read`. Each given segment gets a label, whether or not it
        contains speech; one of more than 30 s is scored in equal parts, whose probabilities are
        averaged.
    channels
        ``"mix"``: the mean of all channels; ``"split"``: each channel by itself; or channel
        indices from 0, such as ``"0,1"`` or ``(0, 1)``.
    device
        Device of a model that is loaded here, see `sercli.load_model`; ``"auto"`` by default.
    precision
        Number type in which a model that is loaded here computes, see `sercli.load_model`;
        ``"auto"`` by default.
    target
        ``"intended"``: the emotion that speakers want to express; ``"perceived"``: the emotion that
        listeners perceive, each probability being the expected share of listeners.
    adapt
        The group whose segments share a baseline: the ``"channel"`` of a file, the file
        (``"recording"``), the ``"speaker"``, all files (``"corpus"``), or ``"none"``. ``"auto"``:
        the channel if channels are labelled separately, else the recording; none if the model has
        no adapter or not a safe one, or if `target` is ``"perceived"``. Groups of few segments have
        no baseline. With ``"speaker"`` and ``"corpus"``, results come after all files are read.
    speakers
        Speakers of the recordings, for ``adapt="speaker"`` and the results, see
        `sercli.speech.speakers.Speakers.parse`; not needed if `segments` name them. They take
        precedence over the speakers of `segments`, which fill the gaps. The segments of a file
        whose speaker is unknown are one group.
    effort
        Number of threads and workers, and size of batches; all cores by default. During the run,
        other computations of this process are limited to the threads of one worker.
    recursive, include, exclude
        Which files of directories are taken; see `sercli.find_inputs`.

    Returns
    -------
    generator of FileResult
        One result per file, also for files that fail, in the order of the inputs and as soon as it
        is known.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    ConfigError
        If `channels` is not valid; if `segments` or `speakers` cannot be read, or may belong to
        several recordings; or if the model does not run on the device, does not predict `target`,
        or has no adapter for the baseline that `adapt` asks for.
    """
    annotator = Annotator.load(
        model,
        segments=segments,
        channels=channels,
        device=device,
        precision=precision,
        target=target,
        adapt=adapt,
        speakers=speakers,
        effort=effort,
    )
    if not isinstance(paths, str | os.PathLike):
        paths = list(paths)  # here: files are looked for in another thread
    return annotator.annotate(
        find_inputs(paths, recursive=recursive, include=include, exclude=exclude)
    )


class Annotator:
    """Model with its settings, ready to annotate any number of files.

    Parameters
    ----------
    classifier
        The model.
    segments
        Settings of how recordings are cut, or the segments themselves; speech segments of at most
        6 s by default.
    channels, target, adapt
        As in `annotate`.
    speakers
        Speakers of the recordings; needed for ``adapt="speaker"`` if `segments` do not name them.
    effort
        Number of threads and workers, and size of batches; all cores by default.

    Attributes
    ----------
    config
        Settings of how recordings are cut; the defaults if the segments were given.
    adapt
        The group whose segments share a baseline, with ``"auto"`` resolved.
    turns
        The given segments, or None.
    stopwatch
        Time that each stage has taken so far.
    tells_speakers
        Whether results name speakers.

    Raises
    ------
    ConfigError
        If `channels` is not valid, given segments lack their times, the model does not predict
        `target` or has no adapter for the baseline that `adapt` asks for, speakers are missing for
        ``adapt="speaker"``, or those of channels are given and these are mixed.
    """

    def __init__(
        self,
        classifier: Classifier,
        segments: SegmentConfig | Turns | None = None,
        channels: str | Iterable[int] = MIX,
        target: Target = "intended",
        adapt: Adaptation = "auto",
        speakers: Speakers | None = None,
        effort: Effort | None = None,
    ) -> None:
        if not isinstance(segments, SegmentConfig | Turns | None):
            raise ConfigError(
                f"segments are {segments!r}; expected a SegmentConfig, or Turns, which "
                "Annotator.load reads"
            )
        if not isinstance(speakers, Speakers | None):
            raise ConfigError(
                f"speakers are {speakers!r}; expected a table or pattern, which Annotator.load "
                "reads"
            )
        if not isinstance(effort, Effort | None):
            raise ConfigError(f"effort is {effort!r}; expected an Effort")
        self._calibration = classifier.spec.find_calibration(target)
        self.turns = segments if isinstance(segments, Turns) else None
        if self.turns is not None and not self.turns.tells_times:
            raise ConfigError(
                f"{self.turns.path}: has segments without a start or an end; expected both for each"
            )
        self.config = segments if isinstance(segments, SegmentConfig) else SegmentConfig()
        self.classifier = classifier
        self.target = target
        self.channels = parse_channels(channels)
        source = speakers.source if speakers else None
        if self.channels == MIX and isinstance(source, Turns) and source.everywhere:
            raise ConfigError(
                f"{source.path}: says who speaks in the channels of each recording, but these are "
                "mixed; label each by itself with --channels split"
            )
        self.speakers = speakers
        of_segments = self.turns is not None and self.turns.tells_speakers
        self.tells_speakers = of_segments or speakers is not None
        self.adapt = choose_adaptation(
            adapt, classifier, target, self.channels, tells_speakers=self.tells_speakers
        )
        self.effort = effort or Effort()
        self.stopwatch = Stopwatch()
        if self.turns is None:
            open_detector()  # here, so that an error of it comes before the first file
        self._idle = IdleMemory()

    @classmethod
    def load(
        cls,
        model: AnyPath | Classifier = DEFAULT_MODEL,
        *,
        segments: SegmentConfig | Turns | AnyPath | None = None,
        channels: str | Iterable[int] = MIX,
        device: str | None = None,
        precision: Precision | None = None,
        target: Target = "intended",
        adapt: Adaptation = "auto",
        speakers: AnyPath | Speakers | None = None,
        effort: Effort | None = None,
    ) -> Self:
        """Load a model, and read segments and speakers that are given as paths.

        Parameters and errors are those of `annotate`. A `device` or `precision` given for a model
        that is already loaded raises `ConfigError`.
        """
        if isinstance(model, Classifier):
            for name, value in (("device", device), ("precision", precision)):
                if value is not None:
                    raise ConfigError(
                        f"{name} is {value!r}; expected none for a model that is already loaded"
                    )
            classifier = model
        else:
            classifier = load_model(
                model,
                "auto" if device is None else device,
                precision="auto" if precision is None else precision,
            )
        if isinstance(speakers, str | os.PathLike):
            speakers = Speakers.parse(os.fspath(speakers))
        if isinstance(segments, str | os.PathLike):
            segments = Turns.read(segments, *TIMES)
        return cls(classifier, segments, channels, target, adapt, speakers, effort)

    def annotate(
        self,
        inputs: AnyPath | Iterable[AnyPath | Found],
        progress: Progress | None = None,
        on_error: OnError = "continue",
        on_scored: OnScored | None = None,
        given: Given | None = None,
    ) -> Generator[FileResult, None, None]:
        """Annotate files, in their order.

        Parameters
        ----------
        inputs
            Path of a file or directory, several paths, or the results of `sercli.find_inputs`. An
            iterable is consumed by the reading threads as they need files; if segments or speakers
            are given, it is listed at once, to match them.
        progress
            Called with the seconds of audio decoded since the last call.
        on_error
            Whether to ``"continue"`` or ``"stop"`` after a file that failed.
        on_scored
            Called once for each file whose segments are scored; its result may have to wait for
            other files of its groups.
        given
            The given segments and speakers, matched to all recordings of the run, if the inputs
            are only some of them.

        Returns
        -------
        generator of FileResult
            One result per file. A file that cannot be decoded to its end has the status
            ``"failed"``, the reason, and the segments decoded before.

        Raises
        ------
        ConfigError
            If `on_error` is invalid, or it is unclear which of the given segments or speakers
            belong to an input.
        """
        if on_error not in get_args(OnError):
            expected = " or ".join(get_args(OnError))
            raise ConfigError(f"on_error is {on_error!r}; expected {expected}")
        if given is None and (self.turns is not None or self.speakers is not None):
            listed = [*find_inputs(inputs)]
            given = Given.match(self.turns, self.speakers, [found.path for found in listed])
            inputs = listed
        return self._finish_all(
            self._score_all(
                inputs, given or Given(), progress, on_error, on_scored or (lambda: None)
            )
        )

    def _finish_all(self, scored: Iterator[ScoredFile]) -> Generator[FileResult, None, None]:
        if self.adapt == "none":
            yield from map(self._finish, scored)
            return
        with RowStore(find_piece_type(len(self.classifier.spec.labels))) as store:
            adapter = self.classifier.find_adapter()
            waiting = WaitingFiles(adapter, store, self.adapt)
            for one in scored:
                waiting.add(one)
                if self.adapt not in ACROSS_FILES:
                    yield from map(self._finish, waiting.rescore())
            yield from map(self._finish, waiting.rescore())

    def _score_all(
        self,
        inputs: AnyPath | Iterable[AnyPath | Found],
        given: Given,
        progress: Progress | None,
        on_error: OnError,
        on_scored: OnScored,
    ) -> Iterator[ScoredFile]:
        """Yield each file with the model's probabilities for each of its pieces by itself."""
        (segments, speakers), mixed = given, self.channels == MIX
        effort, n_labels = self.effort, len(self.classifier.spec.labels)
        seconds = effort.batch_seconds or self.classifier.batch_seconds
        recordings = (
            Recording(
                found,
                self.channels,
                self.config,
                self.stopwatch,
                None if segments is None else segments.find(found.path, mixed=mixed),
            )
            for found in find_inputs(inputs)
        )
        with self.classifier.replicas(effort.n_workers, effort.threads_each, seconds) as replicas:
            scorers = [partial(self._score, replica) for replica in replicas]
            scored = score_recordings(
                recordings, scorers, n_labels, effort.n_workers, seconds, progress
            )
            with closing(scored):
                for recording, probabilities in scored:
                    on_scored()
                    path, alone = recording.found.path, recording.result.channels == 1
                    whose = speakers.find(path, mixed=mixed, alone=alone) if speakers else ()
                    yield ScoredFile.gather(recording, probabilities, whose)
                    if recording.result.status == "failed" and on_error == "stop":
                        return

    def _score(self, classifier: Classifier, waveforms: Sequence[FloatArray]) -> DoubleArray:
        with self.stopwatch.measure("features"):
            features = classifier.extract_features(waveforms)
            # Here, as seconds pass between two reads, in which idle memory may grow by much.
            self._idle.check()
        with self.stopwatch.measure("model"):
            probabilities = self._calibration.probabilities(classifier.score(features))
        return classifier.check_finite(probabilities)

    def _finish(self, scored: ScoredFile) -> FileResult:
        """Return the result of a file with its segments, in order of time."""
        if self.config.mode == "file" or self.turns is not None:
            scored = scored.join()
        pieces = scored.pieces
        order = np.lexsort((pieces["channel"], pieces["end"], pieces["start"]))
        segments = tuple(self._label(scored, piece) for piece in pieces[order])
        return replace(scored.result, segments=segments, labels=self.classifier.spec.labels)

    def _label(self, scored: ScoredFile, piece: np.void) -> Segment:
        probabilities = tuple(piece["probabilities"].tolist())
        winner = int(np.argmax(probabilities))
        return Segment(
            scored.channels[piece["channel"]],
            float(piece["start"]),
            float(piece["end"]),
            self.classifier.spec.labels[winner],
            probabilities[winner],
            probabilities,
            scored.find_speaker(piece),
        )
