"""Summaries of labels: how emotions share the time of a recording, channel, speaker, or of all."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from operator import mul
from typing import Literal, get_args

from sercli.errors import ConfigError
from sercli.files import AnyPath
from sercli.output.results import read_results
from sercli.schema import FileResult, Segment

By = Literal["recording", "channel", "speaker", "corpus"]

# The name of a column of shares is this and the label.
SHARE_PREFIX = "share_"
# Columns that name a group and, for those of one recording, tell what became of it.
NAMES: Mapping[str, tuple[str, ...]] = {
    "recording": ("file", "status"),
    "channel": ("file", "channel", "status"),
    "speaker": ("speaker",),
    "corpus": (),
}


@dataclass(frozen=True)
class Summary:
    """Summary of the segments of a group.

    Parameters
    ----------
    name
        Columns that name the group, by `NAMES`: its recording, channel or speaker, and the status
        of the recording. A value is None if it is unknown.
    recordings
        Number of recordings with segments.
    duration
        Duration of these recordings in seconds, or of the one recording that it is about, even if
        it has no segments; None if unknown.
    segments
        Number of segments.
    seconds
        Their total duration in seconds; where segments overlap, the time counts for each.
    shares
        Expected share of that time of each label, in ``[0, 1]``: the mean of the probabilities of
        all segments, weighted by their durations. Empty without segments.
    """

    name: Mapping[str, str | None]
    recordings: int
    duration: float | None
    segments: int
    seconds: float
    shares: Mapping[str, float]

    @property
    def emotion(self) -> str | None:
        """The label with the largest share; None without segments."""
        return max(self.shares, key=lambda label: self.shares[label], default=None)


def summarise(results: Iterable[FileResult] | AnyPath, by: By = "recording") -> list[Summary]:
    """Return how emotions share the time of each recording, channel or speaker, or of all.

    Shares are expected values. A count of the most probable labels would never show an emotion
    that is, say, the second in each segment; the mean of calibrated probabilities does.

    Parameters
    ----------
    results
        Results of `sercli.annotate`, or the path of an output of `ser annotate`, see
        `sercli.read_results`.
    by
        ``"recording"``; ``"channel"`` of a recording; ``"speaker"``, in all recordings; or
        ``"corpus"``, all together.

    Returns
    -------
    list of Summary
        Recordings in the order of the results, also those without any segment; their channels, and
        all speakers, sorted by name; segments of unknown speakers last.

    Raises
    ------
    ConfigError
        If there is no such kind of group, no speaker is known, segments lack probabilities, or the
        results are of models with different labels.
    DatasetError
        If the output of `ser annotate` cannot be read.
    """
    if by not in NAMES:
        raise ConfigError(f"by is {by!r}; expected one of {', '.join(get_args(By))}")
    if isinstance(results, str | os.PathLike):
        results = read_results(results)
    results = list(results)
    labels = {result.labels for result in results if result.segments}
    if len(labels) > 1:
        first, second = (", ".join(some) for some in sorted(labels)[:2])
        raise ConfigError(
            f"the labels of some results are {first}, and those of others {second}; "
            "expected results of one model"
        )
    names = next(iter(labels), ())
    for result in results:
        if any(not names or len(one.probabilities) != len(names) for one in result.segments):
            raise ConfigError(
                f"segments of {result.path} lack probabilities; expected one of each label"
            )
    if by in ("recording", "channel"):
        return [one for result in results for one in _summarise_file(result, names, by)]
    if by == "corpus":
        return [_summarise({}, results, names)]
    voices: dict[str | None, list[FileResult]] = {}
    for result in results:
        for speaker, part in _divide(result, "speaker"):
            voices.setdefault(speaker, []).append(part)
    if voices.keys() == {None}:
        raise ConfigError(
            "no segment has a speaker; expected labels that were made with --speakers, or with "
            "--segments that say who speaks"
        )
    return [
        _summarise({"speaker": speaker}, voices[speaker], names)
        for speaker in sorted(voices, key=lambda name: (name is None, name))
    ]


def _summarise_file(result: FileResult, labels: Sequence[str], by: By) -> Iterator[Summary]:
    if by == "recording":
        yield _summarise({"file": result.path, "status": result.status}, [result], labels)
        return
    parts = _divide(result, "channel") or [(None, result)]
    # Indices by their value: 2 before 10.
    for channel, part in sorted(parts, key=lambda one: (len(one[0] or ""), one[0])):
        name = {"file": result.path, "channel": channel, "status": result.status}
        yield _summarise(name, [part], labels)


def _divide(result: FileResult, field: str) -> list[tuple[str | None, FileResult]]:
    """Return the parts of a result whose segments share a value, and the values."""
    segments: dict[str | None, list[Segment]] = {}
    for segment in result.segments:
        segments.setdefault(getattr(segment, field), []).append(segment)
    return [(value, replace(result, segments=tuple(some))) for value, some in segments.items()]


def _summarise(
    name: Mapping[str, str | None], results: Sequence[FileResult], labels: Sequence[str]
) -> Summary:
    concerned = results if "file" in name else [result for result in results if result.segments]
    durations = [result.duration for result in concerned]
    segments = [segment for result in concerned for segment in result.segments]
    seconds = [segment.end - segment.start for segment in segments]
    total = fsum(seconds)
    columns = zip(*(segment.probabilities for segment in segments), strict=True)
    sums = [fsum(map(mul, seconds, column)) for column in columns]
    return Summary(
        name,
        sum(bool(result.segments) for result in concerned),
        # A recording of no length was not opened, or is not in a run record.
        fsum(durations) if all(durations) else None,
        len(segments),
        total,
        {label: one / total for label, one in zip(labels, sums, strict=bool(segments))},
    )
