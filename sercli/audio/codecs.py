"""Sending a waveform through a lossy codec and back, in memory.

libsndfile has the codecs of telephone exchanges and of GSM built in; FFmpeg, through PyAV, has
the others, as far as it was built with them. libsndfile's µ-law is that of the ITU reference bit by
bit, FFmpeg's is not.
"""

import math
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from sercli.arrays import FloatArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.errors import ConfigError

# Silence behind the signal: brings the end of it out of a codec that answers late.
PADDING_S: Final = 0.02
INT16_SCALE: Final = 32_768


class _Decoded(NamedTuple):
    samples: FloatArray  # shape (n_samples,), starting where the encoder's input starts
    sample_rate: int


class _SndfileCodec(NamedTuple):
    """A codec of libsndfile, which answers without delay.

    Parameters
    ----------
    subtype
        libsndfile's name of it.
    sample_rate
        In Hz.
    """

    subtype: str
    sample_rate: int

    def is_available(self) -> bool:
        """Tell whether libsndfile has it."""
        return bool(sf.check_format("RAW", self.subtype))

    def encode_decode(self, samples: FloatArray) -> _Decoded:
        """Encode and decode samples of at most full scale."""
        stream = BytesIO()
        kind = {"samplerate": self.sample_rate, "format": "RAW", "subtype": self.subtype}
        with sf.SoundFile(stream, "w", channels=1, **kind) as file:
            file.write(_to_int16(samples))
        stream.seek(0)
        with sf.SoundFile(stream, "r", channels=1, **kind) as file:
            return _Decoded(file.read(len(samples), dtype="float32"), self.sample_rate)


class _FfmpegCodec(NamedTuple):
    """A codec of FFmpeg.

    Parameters
    ----------
    encoder, decoder
        FFmpeg's names.
    sample_rate
        In Hz, of the encoder; the decoder tells its own.
    sample_format
        Of the encoder, FFmpeg's name.
    bit_rate
        In bit/s.
    options
        Of the encoder.
    delay
        Samples by which the decoder's output is late, beyond those that it drops itself.
    """

    encoder: str
    decoder: str
    sample_rate: int
    sample_format: str
    bit_rate: int
    options: dict[str, str]
    delay: int

    def is_available(self) -> bool:
        """Tell whether PyAV's FFmpeg has the encoder and the decoder."""
        from av.codec import Codec
        from av.codec.codec import UnknownCodecError

        try:
            Codec(self.encoder, "w")
            Codec(self.decoder, "r")
        except UnknownCodecError:
            return False
        return True

    def encode_decode(self, samples: FloatArray) -> _Decoded:
        """Encode and decode samples of at most full scale."""
        from av import AudioFrame
        from av.codec import Codec

        encoder = Codec(self.encoder, "w").create("audio")
        encoder.sample_rate = self.sample_rate
        encoder.layout = "mono"
        encoder.format = self.sample_format
        encoder.bit_rate = self.bit_rate
        encoder.options = self.options
        values = samples if self.sample_format.startswith("flt") else _to_int16(samples)
        frame = AudioFrame.from_ndarray(values[None], format=self.sample_format, layout="mono")
        frame.sample_rate = self.sample_rate
        frame.pts = 0  # the encoder counts its delay from here, and tells the decoder
        packets = [*encoder.encode(frame), *encoder.encode(None)]

        decoder = Codec(self.decoder, "r").create("audio")
        decoder.sample_rate = self.sample_rate
        decoder.layout = "mono"
        decoder.extradata = encoder.extradata
        frames = [one for packet in packets for one in decoder.decode(packet)]
        frames += decoder.decode(None)
        decoded = np.concatenate([one.to_ndarray()[0] for one in frames])
        return _Decoded(decoded[self.delay :], frames[0].sample_rate)


# The rates of MP3 and Opus are about the lowest in use for speech.
_CODECS: Final[dict[str, _SndfileCodec | _FfmpegCodec]] = {
    "mulaw": _SndfileCodec("ULAW", 8_000),
    "gsm": _SndfileCodec("GSM610", 8_000),
    # The encoder looks 5 ms ahead: FFmpeg does not make up for it.
    "amr": _FfmpegCodec("libopencore_amrnb", "amrnb", 8_000, "s16", 12_200, {}, 40),
    "mp3": _FfmpegCodec("libmp3lame", "mp3float", 16_000, "fltp", 16_000, {}, 0),
    "opus": _FfmpegCodec("libopus", "opus", 16_000, "flt", 12_000, {"application": "voip"}, 0),
}
CODECS: Final = tuple(_CODECS)


def codec_available(codec: str) -> bool:
    """Tell whether the libraries at hand can both encode and decode a codec.

    Parameters
    ----------
    codec
        One of `CODECS`; anything else is not available.
    """
    return codec in _CODECS and _CODECS[codec].is_available()


def encode_decode(waveform: FloatArray, codec: str) -> FloatArray:
    """Return what is left of a waveform behind an encoder and its decoder.

    The same input gives the same output as long as the libraries and the machine stay the same.
    A waveform that exceeds full scale is encoded at a level that fits, and its own is restored:
    codecs of whole numbers would clip it.

    Parameters
    ----------
    waveform
        At 16 kHz, shape (n_samples,), finite.
    codec
        ``"mulaw"`` (ITU-T G.711), ``"gsm"`` (GSM 06.10 full rate), ``"amr"`` (AMR narrowband at
        12.2 kbit/s), all at 8 kHz; ``"mp3"`` (16 kbit/s) and ``"opus"`` (12 kbit/s), at 16 kHz.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        At 16 kHz, aligned with the input to within a millisecond.

    Raises
    ------
    ConfigError
        If there is no such codec, or it is not at hand.
    """
    if not codec_available(codec):
        at_hand = ", ".join(filter(codec_available, CODECS))
        reason = "is in none of the libraries at hand" if codec in CODECS else "does not exist"
        raise ConfigError(f"codec {codec!r} {reason}; choose one of {at_hand}")
    if not len(waveform):
        return waveform.copy()
    coder = _CODECS[codec]
    samples = _resample(waveform, SAMPLE_RATE, coder.sample_rate)
    samples = np.pad(samples, (0, math.ceil(PADDING_S * coder.sample_rate)))
    # Of what the codec gets: resampling overshoots.
    peak = np.float32(max(1.0, np.abs(samples).max()))
    decoded = coder.encode_decode(samples / peak)
    result = _resample(decoded.samples, decoded.sample_rate, SAMPLE_RATE)[: len(waveform)]
    return np.pad(result, (0, len(waveform) - len(result))) * peak


def _resample(samples: FloatArray, source: int, target: int) -> FloatArray:
    resampled: FloatArray = soxr.resample(samples, source, target)
    return resampled


def _to_int16(samples: FloatArray) -> NDArray[np.int16]:
    scaled = np.round(samples * INT16_SCALE)
    return np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
