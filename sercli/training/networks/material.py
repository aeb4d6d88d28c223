"""Clips for training or scoring, with the rows that a family of networks computed for each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sercli.arrays import FloatArray, IntArray, RealArray
from sercli.training.cache import CachedClips


@dataclass(frozen=True, eq=False)
class Material:
    """Clips, with the rows that a family computed for each.

    Parameters
    ----------
    cached
        The clips.
    rows
        One or more rows of features per clip, shape (n_clips, ...), or None.
    unlabelled
        Unlabelled speech for training, or None. It is not part of `cached`: none of it is held out
        or scored.
    strangers
        Mean calm speech of each stranger, shape (n_strangers, n_features), or None; see
        `sercli.training.transposition`.
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
        """All training material: the clips, then the unlabelled speech if there is any."""
        return (self,) if self.unlabelled is None else (self, self.unlabelled)

    @property
    def all_clips(self) -> CachedClips:
        """The clips of all parts."""
        return CachedClips.join([part.cached for part in self.parts])

    def take(self, indices: Sequence[int] | IntArray) -> Self:
        """Return a selection of the clips, with the same unlabelled speech and strangers."""
        chosen = np.asarray(indices)
        rows = None if self.rows is None else self.rows[chosen]
        return replace(self, cached=self.cached.take(chosen.tolist()), rows=rows)

    def meet(self, number: int, n_parts: int, *, others: bool) -> Self:
        """Return the same material with one part of the strangers, or with all other parts.

        So networks are trained on other strangers than they are scored on.

        Parameters
        ----------
        number
            Number of the part used for scoring, from 1.
        n_parts
            Number of parts into which the strangers are divided.
        others
            Whether to keep the strangers of all other parts, for training, instead.
        """
        if self.strangers is None:
            return self
        here = np.arange(len(self.strangers)) % n_parts == number - 1
        return replace(self, strangers=self.strangers[here != others])
