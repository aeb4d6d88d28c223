"""Export of labels to one file per recording, for audio editors and players."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sercli.errors import OutputError
from sercli.files import AnyPath, check_target, identify, make_folder, write_bytes
from sercli.output.results import read_results
from sercli.output.writers import identify_output
from sercli.schema import MIX, FileResult, Segment, printable
from sercli.speech.grids import name_voice
from sercli.speech.praat import Tier, render_grid

# Words in the name of a speaker at which praatio, by which others may read it, divides a grid.
GRID_PARTS = re.compile(r"(item|intervals|points) ?\[")


def export_labels(
    results: Iterable[FileResult] | AnyPath,
    folder: AnyPath,
    format_: str,
    *,
    overwrite: bool = False,
    source: AnyPath | None = None,
) -> dict[str, Path]:
    """Write the labels of each recording to a file of its own.

    The files are in the same sub-folders as the recordings, relative to the folder that all
    recordings share. A recording without speech gets a file without labels; one that could not be
    decoded at all gets no file.

    Parameters
    ----------
    results
        Results of `sercli.annotate`, or the path of an output of `ser annotate`, see
        `sercli.read_results`.
    folder
        Folder for the files; it is created if needed.
    format_
        ``"textgrid"`` (Praat), ``"audacity"`` (a label track) or ``"srt"`` (subtitles).
    overwrite
        Whether existing files may be replaced.
    source
        Output of `ser annotate` that the results are from, which is never replaced.

    Returns
    -------
    dict of str to Path
        Path of each file, by the path of its recording.

    Raises
    ------
    OutputError
        If there is no such format, or a file exists already, is the source, or cannot be written.
    DatasetError
        If the output of `ser annotate` cannot be read.
    """
    if format_ not in FORMATS:
        raise OutputError(f"format is {format_!r}; expected one of {', '.join(FORMATS)}")
    suffix, render = FORMATS[format_]
    if isinstance(results, str | os.PathLike):
        source = results
        results = read_results(results)
    found = {result.path: result for result in results if result.duration or result.segments}
    paths = _place(list(found), Path(folder), suffix)
    sources = set() if source is None else identify_output(source)
    for path in paths.values():
        make_folder(path.parent)
        check_target(path, overwrite=overwrite)
        if identify(path) in sources:
            raise OutputError(f"{path}: is what is exported; name another folder")
    for recording, path in paths.items():
        write_bytes(path, render(found[recording]).encode())
    return paths


def _place(recordings: Sequence[str], folder: Path, suffix: str) -> dict[str, Path]:
    """Return the path of each file; recordings that differ only by their suffix keep it."""
    full = [os.path.abspath(recording) for recording in recordings]
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in full]) if full else ""
    except ValueError as error:
        raise OutputError(
            f"the recordings are on different drives ({error}); export each drive separately"
        ) from error
    relative = [Path(os.path.relpath(path, root)) for path in full]
    short = [str(path.with_suffix("")) for path in relative]
    # Without case, as some file systems ignore it; with the full names, as a name without its
    # suffix may be that of another recording.
    counts = Counter(name.casefold() for name in (*short, *map(str, relative)))
    return {
        recording: folder / f"{name if counts[name.casefold()] == 1 else path}{suffix}"
        for recording, name, path in zip(recordings, short, relative, strict=True)
    }


def _render_textgrid(result: FileResult) -> str:
    """Return a TextGrid with two tiers for each voice: emotion and confidence.

    Overlapping segments of a voice are divided into several layers with two tiers each.
    """
    end = max([result.duration, *(segment.end for segment in result.segments)])
    tiers: list[Tier] = []
    voices: dict[tuple[str | None, str | None], list[Segment]] = {}
    for segment in result.segments:
        voices.setdefault(_find_voice(result, segment), []).append(segment)
    for voice, segments in voices.items() or [((None, None), [])]:
        for number, layer in enumerate(_separate(segments), start=1):
            for what in ("emotion", "confidence"):
                rows = [(one.start, one.end, _tell(one, what)) for one in layer]
                name = f"{what} {name_voice(*voice, number)}".rstrip()
                tiers.append(Tier(name, rows))
    return render_grid(end, tiers)


def _tell(segment: Segment, what: str) -> str:
    return _join_lines(segment.emotion) if what == "emotion" else f"{segment.confidence:.2f}"


def _separate(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Divide segments into layers without overlaps; there is at least one layer."""
    layers: list[list[Segment]] = [[]]
    for segment in sorted(segments, key=lambda one: (one.start, one.end)):
        for layer in layers:
            if not layer or layer[-1].end <= segment.start:
                layer.append(segment)
                break
        else:
            layers.append([segment])
    return layers


def _render_audacity(result: FileResult) -> str:
    return "".join(
        f"{start:.3f}\t{end:.3f}\t{_caption(result, one)}\n"
        for one in result.segments
        for start, end in [_round_times(one)]
    )


def _render_srt(result: FileResult) -> str:
    return "".join(
        f"{number}\n{_clock(start)} --> {_clock(end)}\n{_caption(result, one)}\n\n"
        for number, one in enumerate(result.segments, 1)
        for start, end in [_round_times(one)]
    )


def _round_times(segment: Segment) -> tuple[float, float]:
    """Return start and end in whole milliseconds, of which there is at least one between them."""
    start = round(segment.start, 3)
    return start, max(round(segment.end, 3), start + 0.001)


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def _caption(result: FileResult, segment: Segment) -> str:
    voice = name_voice(*_find_voice(result, segment), 1)
    caption = f"{voice}: " * bool(voice) + f"{segment.emotion} {segment.confidence:.2f}"
    return _join_lines(caption)


def _join_lines(text: str) -> str:
    """Return a text on a single line, with spaces for line ends and tabs."""
    return " ".join(text.split())


def _find_voice(result: FileResult, segment: Segment) -> tuple[str | None, str | None]:
    """Return the speaker, and the channel if several are labelled separately."""
    speaker = GRID_PARTS.sub(r"\1 (", _join_lines(printable(segment.speaker or "")))
    is_alone = segment.channel == MIX or result.channels == 1
    return speaker or None, None if is_alone else segment.channel


# Suffix of the files in each format, and the function that returns the content of one.
FORMATS: Mapping[str, tuple[str, Callable[[FileResult], str]]] = {
    "textgrid": (".TextGrid", _render_textgrid),
    "audacity": (".txt", _render_audacity),
    "srt": (".srt", _render_srt),
}
