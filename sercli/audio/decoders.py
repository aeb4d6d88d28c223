"""Decoders of recordings: libsndfile and FFmpeg behind a common interface.

libsndfile reads what it can (WAV of every kind, FLAC, Ogg, Opus, AIFF, AU, ...). FFmpeg, through
PyAV, reads the rest (m4a, mp4, webm, mkv, wma, amr, ...), files that libsndfile would read only in
part (see `sercli.audio.containers`), and MP3s: the decoder within libsndfile stops at the first
damage, and prints messages on standard error, even for some files that are sound. Both recognise a
format by its content: they get an open file without its name, so that no suffix can mislead them.
"""

from typing import BinaryIO

from sercli.audio.decoder import DecodeError, Decoder
from sercli.audio.ffmpeg import FfmpegDecoder
from sercli.audio.sndfile import SndfileDecoder


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
    for decoder in (SndfileDecoder, FfmpegDecoder):
        file.seek(0)
        try:
            return decoder(file)
        except DecodeError as error:
            reasons.append(str(error))
    raise DecodeError("; ".join(reasons) + "; expected an audio or video file")
