"""Batches of segments of similar lengths."""

from collections.abc import Iterator, Sequence
from typing import Final

# Once a batch is half full, a segment shorter than this share of its longest starts a new one.
MIN_SHARE: Final = 0.9


def group_by_length(lengths: Sequence[int], n_samples: int) -> Iterator[list[int]]:
    """Divide segments into batches of similar lengths, so that little of a batch is padding.

    Parameters
    ----------
    lengths
        Number of samples of each segment.
    n_samples
        Most samples of a batch, padding included; a longer segment is a batch by itself.

    Yields
    ------
    list of int
        Indices of the segments of a batch, longest first, so that memory peaks at the start.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch:
            longest = lengths[batch[0]]
            is_full = (len(batch) + 1) * longest > n_samples
            is_half_full = 2 * len(batch) * longest >= n_samples
            if is_full or (is_half_full and lengths[index] < MIN_SHARE * longest):
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch
