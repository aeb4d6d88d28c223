"""Labels in files of each recording, for programs in which people listen and look."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid

from sercli.errors import OutputError
from sercli.files import AtomicFile, check_target, make_folder
from sercli.schema import MIX, FileResult, Segment


class Format(NamedTuple):
    """A format of such files.

    Parameters
    ----------
    suffix
        Of their names.
    write
        Writes what a file holds of a recording.
    """

    suffix: str
    write: Callable[[FileResult, AtomicFile], None]


def export_labels(
    results: Iterable[FileResult],
    folder: str | os.PathLike[str],
    format_: str,
    *,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the labels of each recording to a file of its own.

    The files lie below each other as the recordings do, from the folder on that holds them all. A
    recording without speech gets a file without labels; one of which nothing could be decoded gets
    none.

    Parameters
    ----------
    results
        Of `sercli.annotate`, or of `sercli.read_results`.
    folder
        Where they are written; it is made if need be.
    format_
        ``"textgrid"`` (Praat), ``"audacity"`` (a label track) or ``"srt"`` (subtitles).
    overwrite
        Whether files that are there may be replaced.

    Returns
    -------
    dict of str to Path
        The file of each recording, by its path.

    Raises
    ------
    OutputError
        If there is no such format, a file is there already, or cannot be written.
    """
    if format_ not in FORMATS:
        raise OutputError(f"format is {format_!r}; expected one of {', '.join(FORMATS)}")
    suffix, write = FORMATS[format_]
    heard = {result.path: result for result in results if result.duration or result.segments}
    paths = _place(list(heard), Path(folder), suffix)
    for path in paths.values():
        make_folder(path.parent)
        check_target(path, overwrite=overwrite)
    for recording, path in paths.items():
        file = AtomicFile(path, overwrite=overwrite)
        try:
            write(heard[recording], file)
            file.close()
        except OSError as error:
            file.leave()
            file.temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return paths


def _place(recordings: Sequence[str], folder: Path, suffix: str) -> dict[str, Path]:
    """Return the file of each recording; recordings that differ by their suffix keep it."""
    full = [os.path.abspath(recording) for recording in recordings]
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in full]) if full else ""
    except ValueError as error:
        raise OutputError(
            f"the recordings lie on different drives ({error}); export each drive by itself"
        ) from error
    relative = [Path(os.path.relpath(path, root)) for path in full]
    counts = Counter(path.with_suffix("") for path in relative)
    return {
        recording: folder / f"{path if counts[path.with_suffix('')] > 1 else path.with_suffix('')}"
        f"{suffix}"
        for recording, path in zip(recordings, relative, strict=True)
    }


def _write_textgrid(result: FileResult, file: AtomicFile) -> None:
    """Write two tiers for each voice: its emotions, and how sure they are."""
    end = max([result.duration, *(segment.end for segment in result.segments)])
    grid = Textgrid(0, end)
    voices: dict[str, list[Segment]] = {}
    for segment in result.segments:
        voices.setdefault(_name_voice(segment), []).append(segment)
    for voice, segments in voices.items() or [("", [])]:
        for number, layer in enumerate(_separate(segments), 1):
            which = f" {voice}" * bool(voice) + f" ({number})" * (number > 1)
            for what in ("emotion", "confidence"):
                rows = [(one.start, one.end, _tell(one, what)) for one in layer]
                grid.addTier(IntervalTier(what + which, rows, 0, end))
    grid.save(str(file.temporary), "long_textgrid", includeBlankSpaces=True)


def _tell(segment: Segment, what: str) -> str:
    return segment.emotion if what == "emotion" else f"{segment.confidence:.2f}"


def _separate(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Divide segments into layers, in none of which they overlap; at least one."""
    layers: list[list[Segment]] = [[]]
    for segment in sorted(segments, key=lambda one: (one.start, one.end)):
        for layer in layers:
            if not layer or layer[-1].end <= segment.start:
                layer.append(segment)
                break
        else:
            layers.append([segment])
    return layers


def _write_audacity(result: FileResult, file: AtomicFile) -> None:
    for one in result.segments:
        file.stream.write(f"{one.start:.3f}\t{one.end:.3f}\t{_caption(one)}\n")


def _write_srt(result: FileResult, file: AtomicFile) -> None:
    for number, one in enumerate(result.segments, 1):
        times = f"{_clock(one.start)} --> {_clock(one.end)}"
        file.stream.write(f"{number}\n{times}\n{_caption(one)}\n\n")


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def _caption(segment: Segment) -> str:
    voice = _name_voice(segment)
    caption = f"{voice}: " * bool(voice) + f"{segment.emotion} {segment.confidence:.2f}"
    return " ".join(caption.split())  # in a line


def _name_voice(segment: Segment) -> str:
    """Return the speaker, or else the channel if each is judged by itself."""
    return segment.speaker or ("" if segment.channel == MIX else f"channel {segment.channel}")


FORMATS: Mapping[str, Format] = {
    "textgrid": Format(".TextGrid", _write_textgrid),
    "audacity": Format(".txt", _write_audacity),
    "srt": Format(".srt", _write_srt),
}
