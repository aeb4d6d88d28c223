"""Decoder of what FFmpeg reads, through PyAV: m4a, mp4, webm, mkv, wma, amr, MP3 and others."""

import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.containers import find_mp3_end, is_mp3, read_mp3_index
from sercli.audio.damage import LostSound
from sercli.audio.decoder import BLOCK_SIZE, DecodeError, Decoder
from sercli.text import format_count

if TYPE_CHECKING:
    from av import AudioFrame

# Containers round their length up by a packet or two; more than this missing is a truncation.
CONTAINER_TOLERANCE_S = 0.5
# Containers whose headers have the duration of each stream, or of the whole file; for others,
# FFmpeg estimates it from the size of the file.
TELLING_STREAMS, TELLING_CONTAINERS = "mov", frozenset(("matroska", "flv", "asf"))
# Containers mark pauses in transmission by a jump in time stamps; less than this is jitter.
MIN_TIMESTAMP_GAP_S = 0.1
# Beginnings of tags of MP3s.
MP3_TAGS = (b"ID3", b"TAG", b"APETAGEX")
# At the start, there is no jitter: where sound begins after the video, it is by more than this.
MIN_START_GAP_S = 0.002
# FFmpeg drops the first packets of WMA, but counts them in its time stamps.
LATE_CONTAINERS = frozenset(("asf",))
# A longer gap is reported.
MAX_PAUSE_S = 0.5
# A longer jump is an error of the time stamp: filling it would insert hours of silence.
MAX_TIMESTAMP_GAP_S = 3600.0


class _Source:
    """File interface for FFmpeg: ends at a position, and returns -1 if a seek fails.

    A damaged container makes FFmpeg seek to positions that do not exist. It expects -1 for those;
    an exception would be dropped, with a message on standard error.
    """

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.tell = file.tell
        self._file, self._end = file, end

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._end - self.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._end + offset, os.SEEK_SET
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1


class FfmpegDecoder(Decoder):
    """Decoder by FFmpeg; see `Decoder`."""

    def __init__(self, file: BinaryIO) -> None:
        import av  # loads FFmpeg, which most runs never need

        self._av = av
        index = read_mp3_index(file)
        self._n_promised = None if index is None else index.n_samples
        # FFmpeg would take tags at the end of an MP3 for sound, or for damage.
        end = find_mp3_end(file) if is_mp3(file) else file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            # Tags in an unknown encoding are ignored, as the sound may be fine. A file may refer to
            # others, or to the network, for its content: nothing but the file itself is read.
            self._container = av.open(
                _Source(file, end),
                "r",
                options={"protocol_whitelist": "none"},
                metadata_errors="ignore",
            )
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(f"FFmpeg cannot open it ({error.strerror})") from error
        self._n_corrupt = 0
        self._lost: LostSound | None = None  # only if an index tells what is missing
        self._end = 0  # end of the packets so far, in units of the stream's time base
        try:
            # Some codecs decode to another rate than that of the header: take it from a frame.
            self._frames = self._decode()
            self._first = next(self._frames)
        except (DecodeError, StopIteration) as error:
            self._container.close()
            raise DecodeError(str(error) or "FFmpeg decodes no audio from it") from error
        self.sample_rate = self._first.sample_rate
        self.channels = self._first.layout.nb_channels
        if index is not None:
            self._lost = LostSound(index, end, self.sample_rate)
        length = self._container.duration
        self._duration = None if length is None else length / av.time_base
        self._jumps: list[str] = []
        self._pauses: list[float] = []  # in seconds, silence now
        # The first time stamp of sound alone may only tell of the codec.
        has_others = len(self._container.streams) > 1
        trusts = has_others and self._container.format.name not in LATE_CONTAINERS
        self._least_start = MIN_START_GAP_S if trusts else MIN_TIMESTAMP_GAP_S
        self._skipped = 0.0  # jumps of the time stamps that were not filled, in seconds

    @property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]
        """Sentences on what was repaired so far, and on what is not read."""
        notes = []
        if (n_streams := len(self._container.streams.audio)) > 1:
            notes.append(f"has {n_streams} audio streams; only the first is read")
        if self._n_corrupt:
            is_estimated = self._lost is not None and self._lost.seconds > MIN_TIMESTAMP_GAP_S
            notes.append(
                f"{format_count(self._n_corrupt, 'damaged packet')} left out"
                + ("; times behind them are estimated" if is_estimated else "")
            )
        if self._pauses:
            notes.append(
                f"{format_count(len(self._pauses), 'gap')} became silence, {sum(self._pauses):.1f} "
                "s in all"
            )
        return (*notes, *self._jumps)

    def blocks(self) -> Iterator[FloatArray]:
        """Yield blocks; see `Decoder.blocks`."""
        # Frames are joined, as each is but some milliseconds long.
        held, n_held, defect = list[FloatArray](), 0, None
        try:
            for samples in self._convert():
                held.append(samples)
                n_held += samples.size
                if n_held >= BLOCK_SIZE:
                    yield np.concatenate(held)
                    held, n_held = [], 0
        except DecodeError as error:
            defect = error
        if held:
            yield np.concatenate(held)
        if defect is not None:
            raise defect

    def _convert(self) -> Iterator[FloatArray]:
        """Yield the samples of each frame, and silence in gaps."""
        position = 0
        # Planar float32, as most codecs decode to, only has to be transposed.
        plain = ("fltp", self._first.layout.name, self.sample_rate)
        resampler, kind = None, None
        for frame in chain((self._first,), self._frames):
            for silence in self._gap(frame, position):
                position += len(silence)
                yield silence
            frame.pts = None  # or the resampler would insist on time stamps without jumps
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                # "flt" is interleaved float32; rate and layout stay those of the first frame.
                resampler = self._av.AudioResampler("flt", self._first.layout, self.sample_rate)
            assert resampler is not None
            try:
                if kind == plain:
                    converted = [np.ascontiguousarray(frame.to_ndarray().T)]
                else:
                    converted = [piece.to_ndarray() for piece in resampler.resample(frame)]
            except (self._av.FFmpegError, ValueError):  # a frame of an impossible kind
                self._n_corrupt += 1
                kind = None
                continue
            for samples in converted:
                block = samples.astype(np.float32, copy=False).reshape(-1, self.channels)
                position += len(block)
                yield block
        # The last packet may be short of samples, but have a duration up to the promised end.
        promised = self._find_promise()
        end = max(position / self.sample_rate, self._find_end())
        if end < promised - CONTAINER_TOLERANCE_S:
            reason = "the file ends early"
            if self._n_corrupt:
                reason = "damaged packets are missing: times behind them are early"
            raise DecodeError(
                f"decoding stops at {position / self.sample_rate:.3f} s of the {promised:.3f} s "
                f"that the header promises ({reason})"
            )

    def _find_end(self) -> float:
        """Return the end of the packets so far in seconds from the start."""
        unit = self._container.streams.audio[0].time_base or 0
        return float(self._end * unit) - self._start

    @property
    def _start(self) -> float:
        """Time stamp of the start in seconds."""
        return (self._container.start_time or 0) / self._av.time_base

    def _find_promise(self) -> float:
        """Return the duration that the header promises for the sound, in seconds; 0 if none."""
        names = {*self._container.format.name.split(",")}
        stream = self._container.streams.audio[0]
        if self._jumps:
            return 0.0
        if "mp3" in names and self._n_promised is not None:
            return self._n_promised / self.sample_rate
        if TELLING_STREAMS in names and stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if self._duration is None:
            return 0.0
        told = _parse_clock(stream.metadata.get("DURATION", "")) if "matroska" in names else None
        if told is not None:
            return min(told, self._duration) - self._start
        # The duration of the file is the end of its longest stream, which need not be the sound.
        alone = len(self._container.streams) == 1
        return self._duration - self._start if alone and TELLING_CONTAINERS & names else 0.0

    def _decode(self) -> Iterator["AudioFrame"]:
        if not self._container.streams.audio:
            raise DecodeError("FFmpeg finds no audio stream in it")
        stream = self._container.streams.audio[0]
        if stream.codec_context is None:
            raise DecodeError("FFmpeg does not know the codec of its audio stream")
        try:
            for packet in self._container.demux(stream):
                if packet.pts is not None and packet.duration:
                    self._end = max(self._end, packet.pts + packet.duration)
                try:
                    yield from packet.decode()
                    if self._lost is not None:
                        self._lost.keep(packet)
                except self._av.FFmpegError:  # the error for damaged data varies by codec
                    # Between two MP3s in a file, there may be a tag.
                    self._n_corrupt += not bytes(packet).startswith(MP3_TAGS)
                    if self._lost is not None:
                        self._lost.lose(packet)
        except (self._av.FFmpegError, OSError) as error:
            raise DecodeError(f"FFmpeg stops decoding it ({error.strerror})") from error
        except IndexError as error:  # PyAV does not support streams that begin midway
            raise DecodeError("FFmpeg finds a stream that is not in its header") from error

    def _gap(self, frame: "AudioFrame", position: int) -> Iterator[FloatArray]:
        """Yield silence that fills the gap between the decoded samples and a frame's time stamp."""
        if frame.time is None:
            return
        lost = 0.0 if self._lost is None else self._lost.seconds
        stamp = frame.time - self._start
        missing = stamp + lost - position / self.sample_rate
        if abs(missing) <= MIN_TIMESTAMP_GAP_S:
            self._skipped = 0.0
        gap = missing - self._skipped
        if gap <= (MIN_TIMESTAMP_GAP_S if position else self._least_start):
            return
        beyond = self._duration is not None and stamp > self._duration
        if beyond or gap > MAX_TIMESTAMP_GAP_S:
            # From here on, the promised end is not reliable either: see `_find_promise`.
            self._skipped = missing
            self._jumps.append(
                f"its time stamps jump by {gap:.0f} s at {position / self.sample_rate:.3f} s; the "
                "times from there on do not follow the stamps"
            )
            return
        if gap > MAX_PAUSE_S and position:  # at the start, the sound only begins later
            self._pauses.append(gap)
        remaining = round(gap * self.sample_rate)
        while remaining > 0:
            n_samples = min(remaining, max(1, BLOCK_SIZE // self.channels))
            remaining -= n_samples
            yield np.zeros((n_samples, self.channels), np.float32)

    def close(self) -> None:
        """Release the resources; see `Decoder.close`."""
        self._container.close()


def _parse_clock(text: str) -> float | None:
    """Return a time in seconds, such as ``00:01:00.008``, or None if it is none."""
    parts = text.strip("\0 ").split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds
