"""Summaries of labels: how emotions share the time of a recording, channel, speaker, or of all."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    segments
        Number of segments.
    seconds
        Their total duration in seconds; where segments overlap, the time counts for each.
    shares
        Expected share of that time of each label, in ``[0, 1]``: the mean of the probabilities of
        all segments, weighted by their durations. Empty without segments.
    """

    name: Mapping[str, str | None]
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
        If there is no such kind of group, no speaker is known, or the results are of models with
        different labels.
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
    if by in ("recording", "channel"):
        return [one for result in results for one in _summarise_file(result, names, by)]
    segments = [segment for result in results for segment in result.segments]
    if by == "corpus":
        return [_summarise({}, segments, names)]
    if segments and not any(segment.speaker for segment in segments):
        raise ConfigError(
            "no segment has a speaker; expected labels that were made with --speakers, "
            "or with --segments that say who speaks"
        )
    voices = _divide(segments, "speaker")
    return [
        _summarise({"speaker": speaker}, voices[speaker], names)
        for speaker in sorted(voices, key=lambda name: (name is None, name))
    ]


def _summarise_file(result: FileResult, labels: Sequence[str], by: By) -> Iterator[Summary]:
    voices: Mapping[str | None, Sequence[Segment]] = {None: result.segments}
    if by == "channel" and result.segments:
        voices = _divide(result.segments, "channel")
    # Indices by their value: 2 before 10.
    for channel in sorted(voices, key=lambda name: (len(name or ""), name)):
        told = {"file": result.path, "channel": channel, "status": result.status}
        yield _summarise({column: told[column] for column in NAMES[by]}, voices[channel], labels)


def _divide(segments: Iterable[Segment], field: str) -> dict[str | None, list[Segment]]:
    divided: dict[str | None, list[Segment]] = {}
    for segment in segments:
        divided.setdefault(getattr(segment, field) or None, []).append(segment)
    return divided


def _summarise(
    name: Mapping[str, str | None], segments: Sequence[Segment], labels: Sequence[str]
) -> Summary:
    durations = [segment.end - segment.start for segment in segments]
    total = fsum(durations)
    columns = zip(*(segment.probabilities for segment in segments), strict=True)
    sums = [fsum(map(mul, durations, column)) for column in columns]
    shares = {label: one / total for label, one in zip(labels, sums, strict=bool(segments))}
    return Summary(name, len(segments), total, shares)
