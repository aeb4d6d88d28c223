"""Encoding and decoding of waveforms with lossy codecs, in memory.

libsndfile has µ-law and GSM built in; FFmpeg, through PyAV, has the others, as far as it was built
with them. µ-law of libsndfile is bit-exact with the ITU reference; that of FFmpeg is not.
"""

import math
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.filters import telephone_band
from sercli.errors import ConfigError

# Silence after the signal, so that codecs with a delay return all of it.
PADDING_S: Final = 0.02
INT16_SCALE: Final = 32_768


class _Decoded(NamedTuple):
    samples: FloatArray  # shape (n_samples,), starting where the encoder's input starts
    sample_rate: int


class _SndfileCodec(NamedTuple):
    """A codec of libsndfile, without delay.

    Parameters
    ----------
    subtype
        Name of the codec in libsndfile.
    sample_rate
        Sample rate in Hz.
    """

    subtype: str
    sample_rate: int

    def is_available(self) -> bool:
        """Return whether libsndfile has the codec."""
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
        Names of the encoder and the decoder in FFmpeg.
    sample_rate
        Sample rate of the encoder in Hz; the decoder reports its own.
    sample_format
        FFmpeg's name of the sample format of the encoder.
    bit_rate
        Bit rate in bit/s.
    options
        Options of the encoder.
    delay
        Delay of the decoder's output in samples, beyond those that the decoder drops itself.
    """

    encoder: str
    decoder: str
    sample_rate: int
    sample_format: str
    bit_rate: int
    options: dict[str, str]
    delay: int

    def is_available(self) -> bool:
        """Return whether PyAV's FFmpeg has the encoder and the decoder."""
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
        frame.pts = 0  # the encoder counts its delay from here and passes it to the decoder
        packets = [*encoder.encode(frame), *encoder.encode(None)]

        decoder = Codec(self.decoder, "r").create("audio")
        decoder.sample_rate = self.sample_rate
        decoder.layout = "mono"
        decoder.extradata = encoder.extradata
        frames = [one for packet in packets for one in decoder.decode(packet)]
        frames += decoder.decode(None)
        decoded = np.concatenate([one.to_ndarray()[0] for one in frames])
        return _Decoded(decoded[self.delay :], frames[0].sample_rate)


# The bit rates of MP3 and Opus are about the lowest in use for speech.
_CODECS: Final[dict[str, _SndfileCodec | _FfmpegCodec]] = {
    "mulaw": _SndfileCodec("ULAW", 8_000),
    "gsm": _SndfileCodec("GSM610", 8_000),
    # FFmpeg does not compensate for the encoder's look-ahead of 5 ms.
    "amr": _FfmpegCodec("libopencore_amrnb", "amrnb", 8_000, "s16", 12_200, {}, 40),
    "mp3": _FfmpegCodec("libmp3lame", "mp3float", 16_000, "fltp", 16_000, {}, 0),
    "opus": _FfmpegCodec("libopus", "opus", 16_000, "flt", 12_000, {"application": "voip"}, 0),
}
CODECS: Final = tuple(_CODECS)
# Codecs of telephone lines, which also limit the band.
LINES: Final = frozenset(("mulaw", "gsm", "amr"))


def codec_available(codec: str) -> bool:
    """Return whether the installed libraries can both encode and decode a codec.

    Parameters
    ----------
    codec
        Name of the codec, one of `CODECS`; any other is not available.
    """
    return codec in _CODECS and _CODECS[codec].is_available()


def encode_decode(waveform: FloatArray, codec: str) -> FloatArray:
    """Return a waveform after encoding and decoding it with a lossy codec.

    The output is deterministic for given libraries on a given machine. A waveform that exceeds full
    scale is scaled down for the codec and back afterwards, since integer codecs would clip it.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,), with finite values.
    codec
        Name of the codec: ``"mulaw"`` (ITU-T G.711), ``"gsm"`` (GSM 06.10 full rate) or ``"amr"``
        (AMR narrowband at 12.2 kbit/s), all at 8 kHz; ``"mp3"`` (16 kbit/s) or ``"opus"``
        (12 kbit/s), at 16 kHz.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Decoded waveform at 16 kHz, aligned with the input to within a millisecond.

    Raises
    ------
    ConfigError
        If the codec does not exist or is not available.
    """
    if not codec_available(codec):
        at_hand = ", ".join(filter(codec_available, CODECS))
        reason = "is in none of the installed libraries" if codec in CODECS else "does not exist"
        raise ConfigError(f"codec {codec!r} {reason}; choose one of {at_hand}")
    if not len(waveform):
        return waveform.copy()
    coder = _CODECS[codec]
    samples: FloatArray = soxr.resample(waveform, SAMPLE_RATE, coder.sample_rate)
    samples = np.pad(samples, (0, math.ceil(PADDING_S * coder.sample_rate)))
    # The peak after resampling, which overshoots.
    peak = np.float32(max(1.0, np.abs(samples).max()))
    decoded = coder.encode_decode(samples / peak)
    result: FloatArray = soxr.resample(decoded.samples, decoded.sample_rate, SAMPLE_RATE)
    result = result[: len(waveform)]
    return np.pad(result, (0, len(waveform) - len(result))) * peak


def transmit(waveform: FloatArray, codec: str, peak: float | None = None) -> FloatArray:
    """Return a waveform after a codec; for telephone codecs, limited to the telephone band first.

    Parameters
    ----------
    waveform, codec
        As for `encode_decode`.
    peak
        Peak to which the waveform is scaled before the codec, unless it is silent; None: it is not
        scaled.
    """
    if codec in LINES:
        waveform = telephone_band(waveform)
    if peak is not None:
        found = float(np.abs(waveform).max())
        if not found:
            return waveform
        waveform = waveform * np.float32(peak / found)
    return encode_decode(waveform, codec)


def _to_int16(samples: FloatArray) -> NDArray[np.int16]:
    scaled = np.round(samples * INT16_SCALE)
    return np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
