"""Which training clips may be joined with each other."""

from collections import defaultdict
from collections.abc import Sequence

from sercli.datasets.clip import Clip


class Partners:
    """Indices of the clips of each clip's speaker and emotion, found when needed.

    Only clips of the same corpus are surely of one speaker: others may have speakers of the same
    name. A clip of an unknown speaker has no partner but itself.

    Parameters
    ----------
    pool
        All training clips.
    """

    def __init__(self, pool: Sequence[Clip]) -> None:
        self._pool = pool
        self._alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for index, clip in enumerate(pool):
            if clip.speaker is not None:
                self._alike[clip.corpus, clip.speaker, clip.emotion].append(index)

    def find_alike(self, index: int) -> list[int]:
        """Return the indices of a clip's partners and of the clip itself.

        Parameters
        ----------
        index
            Index of the clip in the pool.
        """
        clip = self._pool[index]
        if clip.speaker is None:
            return [index]
        return self._alike[clip.corpus, clip.speaker, clip.emotion]

    def find_others(self, index: int) -> list[int]:
        """Return the indices of a clip's partners; of the clip itself if it has none.

        Parameters
        ----------
        index
            As for `find_alike`.
        """
        return [other for other in self.find_alike(index) if other != index] or [index]
