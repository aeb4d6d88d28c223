"""Clips that networks learn from or judge, and what was computed of each for their family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sercli.arrays import FloatArray, IntArray, RealArray
from sercli.training.cache import CachedClips


@dataclass(frozen=True, eq=False)
class Material:
    """Clips, and what was computed of each for a family.

    Parameters
    ----------
    cached
        The clips.
    rows
        One or more for each clip, of shape (n_clips, ...), or None.
    unlabelled
        Speech that nobody labelled, which is learned from, too, or None. It is no clip of these:
        nothing is held out of it, and nothing is judged on it.
    strangers
        What the calm speech of strangers has in common, shape (n_strangers, n_features), or None;
        see `sercli.training.transposition`.
    """

    cached: CachedClips
    rows: RealArray | None = None
    unlabelled: "Material | None" = None
    strangers: FloatArray | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.cached)

    @property
    def parts(self) -> tuple["Material", ...]:
        """What is learned from: the clips, then the speech that nobody labelled."""
        return (self,) if self.unlabelled is None else (self, self.unlabelled)

    @property
    def heard(self) -> CachedClips:
        """The clips of all parts."""
        return CachedClips.join([part.cached for part in self.parts])

    def take(self, indices: Sequence[int] | IntArray) -> Self:
        """Return those clips alone, and all else that is learned from."""
        chosen = np.asarray(indices)
        rows = None if self.rows is None else self.rows[chosen]
        return replace(self, cached=self.cached.take(chosen.tolist()), rows=rows)

    def meet(self, number: int, n_parts: int, *, others: bool) -> Self:
        """Return the same with some of the strangers: judged by others than it learned from.

        Parameters
        ----------
        number
            Of the part that is judged by, from 1.
        n_parts
            Of the strangers.
        others
            Whether it is the strangers of all other parts, who are learned from.
        """
        if self.strangers is None:
            return self
        here = np.arange(len(self.strangers)) % n_parts == number - 1
        return replace(self, strangers=self.strangers[here != others])
