"""Decoders of recordings: libsndfile and FFmpeg behind a common interface.

libsndfile reads what it can (WAV of every kind, FLAC, Ogg, Opus, AIFF, AU, ...). FFmpeg, through
PyAV, reads the rest (m4a, mp4, webm, mkv, wma, amr, ...), files that libsndfile would read only in
part (see `sercli.audio.containers`), and MP3s: the decoder within libsndfile stops at the first
damage, and prints messages on standard error, even for some files that are sound. Both recognise a
format by its content: they get an open file without its name, so that no suffix can mislead them.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile as sf

from sercli.arrays import FloatArray
from sercli.audio.containers import (
    find_mp3_end,
    find_wrapped_size,
    is_mp3,
    is_whole_ogg,
    read_mp3_index,
)
from sercli.audio.damage import LostSound
from sercli.text import format_count

if TYPE_CHECKING:
    from av import AudioFrame

# Samples of a block, all channels together: 2 s of a mono file at 48 kHz. Small enough to keep
# memory flat, large enough to make the cost of a call negligible.
BLOCK_SIZE = 96_000
# libsndfile estimates the length of some lossy files; only more than this missing is a truncation.
LENGTH_TOLERANCE_S = 0.1
# Containers round their length up by a packet or two; more than this missing is a truncation.
CONTAINER_TOLERANCE_S = 0.5
# Containers whose headers have the duration of each stream, or of the whole file; for others,
# FFmpeg estimates it from the size of the file.
TELLING_STREAMS, TELLING_CONTAINERS = "mov", frozenset(("matroska", "flv", "asf"))
# Lines of libsndfile's log on a header that promises more, or fewer, bytes than the file has.
PROMISE = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE
)
# Sizes in bytes that are placeholders, by programs that cannot seek back to write the size, such as
# SoX, arecord or FFmpeg in a pipe: just above these, or any from `UNKNOWN_LENGTH` on.
UNKNOWN_SIZES = (0x7F000000, 0x7FFF0000, 0x80000000, 0xFFFF0000)
UNKNOWN_SIZES_RANGE = 0x10000
# Numbers of samples from here on are placeholders, too.
UNKNOWN_LENGTH = 1 << 62
# Containers mark pauses in transmission by a jump in time stamps; less than this is jitter.
MIN_TIMESTAMP_GAP_S = 0.1
# Beginnings of tags of MP3s.
MP3_TAGS = (b"ID3", b"TAG", b"APETAGEX")
# Size of a WAV file that was never closed, in its header; that of its sound is 0 then.
UNCLOSED_SIZE = 8
# At the start, there is no jitter: where sound begins after the video, it is by more than this.
MIN_START_GAP_S = 0.002
# FFmpeg drops the first packets of WMA, but counts them in its time stamps.
LATE_CONTAINERS = frozenset(("asf",))
# A longer gap is reported.
MAX_PAUSE_S = 0.5
# A longer jump is an error of the time stamp: filling it would insert hours of silence.
MAX_TIMESTAMP_GAP_S = 3600.0


class DecodeError(Exception):
    """Error of a decoder, without the path, which `AudioFile` adds."""


class Decoder(ABC):
    """Base class of decoders of an open file."""

    sample_rate: int
    channels: int
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self) -> Iterator[FloatArray]:
        """Yield arrays of shape (n_samples, channels); raise DecodeError at a defect."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the library, but leave the file open."""


def open_decoder(file: BinaryIO) -> Decoder:
    """Return a decoder of the first library that can decode a file.

    Parameters
    ----------
    file
        File open at any position; it stays open.

    Raises
    ------
    DecodeError
        If no library can.
    """
    reasons = []
    for decoder in (_SndfileDecoder, _FfmpegDecoder):
        file.seek(0)
        try:
            return decoder(file)
        except DecodeError as error:
            reasons.append(str(error))
    raise DecodeError("; ".join(reasons) + "; expected an audio or video file")


class _SndfileDecoder(Decoder):
    def __init__(self, file: BinaryIO) -> None:
        n_bytes = os.fstat(file.fileno()).st_size
        # Before libsndfile opens the file, as it relies on the position staying where it left it.
        if is_mp3(file):
            raise DecodeError("libsndfile is not tried for what begins like an MP3")
        if not is_whole_ogg(file):
            raise DecodeError("libsndfile would read only the first part of this Ogg file")
        place = find_wrapped_size(file)
        file.seek(0)
        try:
            source = file.fileno() if place is None else _Unwrapped(file, place)
            self._sound = sf.SoundFile(source, closefd=False)
        except (sf.LibsndfileError, TypeError) as error:
            raise DecodeError("libsndfile does not know the format") from error
        if not self._sound.frames:
            self._sound.close()
            raise DecodeError("libsndfile finds no samples in it")
        self.sample_rate = self._sound.samplerate
        self.channels = self._sound.channels
        self._promised = _find_promise(self._sound, n_bytes)

    def blocks(self) -> Iterator[FloatArray]:
        expected, read = self._promised or 0, 0
        size = max(1, BLOCK_SIZE // self.channels)
        defect = "the file ends early"
        whole = True
        while whole:
            # If the file breaks off, the call fails without reporting how much it has decoded:
            # those samples are no longer NaN.
            block = np.full((size, self.channels), np.nan, np.float32)
            try:
                block = self._sound.read(out=block)
            except sf.LibsndfileError as error:
                whole, defect = False, error.error_string.removeprefix("Error : ").rstrip(".")
                decoded = np.flatnonzero(~np.isnan(block).all(axis=1))
                n_decoded = int(decoded[-1]) + 1 if len(decoded) else 0
                # For some formats, libsndfile fills the rest with zeros.
                block = block[: min(n_decoded, max(expected - read, 0)) if expected else n_decoded]
            if not len(block):
                break
            read += len(block)
            yield block
        if read < expected - LENGTH_TOLERANCE_S * self.sample_rate:
            raise DecodeError(
                f"decoding stops at {read / self.sample_rate:.3f} s of the "
                f"{expected / self.sample_rate:.3f} s that the header promises ({defect})"
            )

    def close(self) -> None:
        self._sound.close()


def _parse_clock(text: str) -> float | None:
    """Return a time in seconds, such as ``00:01:00.008``, or None if it is none."""
    parts = text.strip("\0 ").split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _find_promise(sound: sf.SoundFile, n_bytes: int) -> int | None:
    """Return the number of samples per channel that the header promises, or None."""
    n_samples: int = sound.frames
    if n_samples >= UNKNOWN_LENGTH:
        return None
    # libsndfile trusts the size of a file more than its header. It reports that in its log only,
    # which also has the comments of the file, which may look the same.
    for promised, found in PROMISE.findall(sound.extra_info):
        if n_bytes / 2 < int(found) < int(promised) and _is_known(int(promised)):
            return round(n_samples * int(promised) / int(found))
    return n_samples


def _is_known(size: int) -> bool:
    """Return whether a size in a header is not a placeholder."""
    return size < UNKNOWN_LENGTH and not any(
        0 <= size - one < UNKNOWN_SIZES_RANGE for one in UNKNOWN_SIZES
    )


class _Unwrapped:
    """File interface for libsndfile to a WAV file whose sizes look as if it was never closed.

    Of such a file, libsndfile takes all that there is for sound.

    Parameters
    ----------
    file
        The file.
    place
        Position of the size of its sound.
    """

    def __init__(self, file: BinaryIO, place: int) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file = file
        sizes = ((4, UNCLOSED_SIZE), (place, 0))
        self._bytes = {
            at: byte
            for first, size in sizes
            for at, byte in enumerate(size.to_bytes(4, "little"), start=first)
        }

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        content = bytearray(self._file.read(size))
        for at, byte in self._bytes.items():
            if start <= at < start + len(content):
                content[at - start] = byte
        return bytes(content)


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


class _FfmpegDecoder(Decoder):
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
        self._container.close()
