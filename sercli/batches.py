"""Batches of segments of similar lengths."""

from collections.abc import Iterator, Sequence


def group_by_length(lengths: Sequence[int], n_samples: int) -> Iterator[list[int]]:
    """Divide segments into batches of similar lengths, so that little of a batch is padding.

    Parameters
    ----------
    lengths
        Samples of each segment.
    n_samples
        Most samples of a batch, padding included; a longer segment is a batch by itself.

    Yields
    ------
    list of int
        Indices of the segments of a batch; longest first, so that memory is at its peak at once.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, n_samples // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
