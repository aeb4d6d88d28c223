"""Interface of the decoders of recordings."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from sercli.arrays import FloatArray

# Samples of a block, all channels together: 2 s of a mono file at 48 kHz. Small enough to keep
# memory flat, large enough to make the cost of a call negligible.
BLOCK_SIZE = 96_000


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
