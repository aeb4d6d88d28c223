"""Decoded clips, as tests compare them."""

from sercli.arrays import FloatArray
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import decode_clip


def load_clip(clip: Clip) -> FloatArray:
    return decode_clip(clip).waveform
