"""Decoder of what libsndfile reads: WAV of every kind, FLAC, Ogg, Opus, AIFF, AU and others."""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile as sf

from sercli.arrays import FloatArray
from sercli.audio.containers import find_wrapped_size, is_mp3, is_whole_ogg
from sercli.audio.decoder import BLOCK_SIZE, DecodeError, Decoder

# libsndfile estimates the length of some lossy files; only more than this missing is a truncation.
LENGTH_TOLERANCE_S = 0.1
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
# Size of a WAV file that was never closed, in its header; that of its sound is 0 then.
UNCLOSED_SIZE = 8


class SndfileDecoder(Decoder):
    """Decoder by libsndfile, of files that it reads in full; see `Decoder`."""

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
        """Yield blocks; see `Decoder.blocks`."""
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
        """Release the resources; see `Decoder.close`."""
        self._sound.close()


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
