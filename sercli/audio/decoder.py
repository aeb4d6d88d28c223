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
    """Base class of decoders, which are created from an open file.

    The file may be open at any position, and stays open. `DecodeError` is raised if the library
    does not decode it.
    """

    sample_rate: int
    channels: int
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self) -> Iterator[FloatArray]:
        """Yield arrays of shape (n_samples, channels); raise DecodeError at a defect."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the library, but leave the file open."""
