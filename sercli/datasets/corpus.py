"""Common form of all corpora: labelled clips, and the reasons why files were left out."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from sercli.config import Split
from sercli.datasets.clip import Clip, group_by_place
from sercli.datasets.matching import count_speakers
from sercli.errors import DatasetError
from sercli.text import format_count

# If more files than this are left out for the same reason, they are counted instead of named.
MAX_NAMED = 3


@dataclass(frozen=True)
class Corpus:
    """Clips of one or several corpora, and the files that were left out.

    Parameters
    ----------
    name, licence
        Name and licence of the corpus.
    clips
        Clips in the order of their names.
    skipped
        Reason why a file was left out, for each, by file name.
    mapping
        The user's labels, by the corpus's own words or canonical labels, which the clips have.
    """

    name: str
    licence: str
    clips: tuple[Clip, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    mapping: Mapping[str, str] = field(default_factory=dict)

    @property
    def default_split(self) -> Split:
        """Split that is evaluated by default: ``test``, or ``all`` if there are no test clips."""
        return "test" if any(clip.split == "test" for clip in self.clips) else "all"

    def select(self, split: Split) -> tuple[Clip, ...]:
        """Return the clips of a split.

        Parameters
        ----------
        split
            Name of the split, or ``"all"``.

        Raises
        ------
        DatasetError
            If there are none.
        """
        if split == "all":
            return self.clips
        clips = tuple(clip for clip in self.clips if clip.split == split)
        if not clips:
            found = sorted({clip.split for clip in self.clips if clip.split})
            known = f"has clips of {', '.join(found)}" if found else "has no splits of its own"
            raise DatasetError(
                f"{self.name}: has no clips in the split {split!r}: it {known}; choose another "
                "split, or all"
            )
        return clips

    def keep(self, labels: Collection[str]) -> Self:
        """Return the corpus with the clips of some labels only; the others count as left out.

        Parameters
        ----------
        labels
            Labels to keep.

        Raises
        ------
        DatasetError
            If no clip is left.
        """
        dropped = Counter(clip.emotion for clip in self.clips if clip.emotion not in labels)
        clips = tuple(clip for clip in self.clips if clip.emotion in labels)
        if not clips:
            raise DatasetError(
                f"{self.name}: has the labels {sorted(dropped)}; expected some of "
                f"{sorted(labels)}; map its labels with --map THEIRS=OURS"
            )
        reasons = {
            self.find_name(clip): f"the label {clip.emotion} is not one of the labels to learn"
            for clip in self.clips
            if clip.emotion in dropped
        }
        return replace(self, clips=clips, skipped={**self.skipped, **reasons})

    def find_name(self, clip: Clip) -> str:
        """Return the name of a clip among those left out: of several corpora, with its own."""
        return clip.name if clip.corpus in ("", self.name) else f"{clip.corpus}/{clip.name}"

    def count_skipped(self) -> dict[str, int]:
        """Return the number of files left out for each reason, most frequent first."""
        return dict(Counter(self.skipped.values()).most_common())

    def describe(self) -> str:
        """Return a one-line summary of the clips and of the files that were left out."""
        n_speakers = count_speakers(self.clips)
        text = f"{self.name}: {format_count(len(self.clips), 'clip')} of " + (
            format_count(n_speakers, "speaker") if n_speakers else "unknown speakers"
        )
        if self.skipped:
            groups: dict[str, list[str]] = {}
            for name, reason in sorted(self.skipped.items()):
                groups.setdefault(reason, []).append(name)
            reasons = (
                f"{', '.join(names) if len(names) <= MAX_NAMED else len(names)}: {reason}"
                for reason, names in groups.items()
            )
            text += f"; {format_count(len(self.skipped), 'file')} left out ({'; '.join(reasons)})"
        return text


def merge(corpora: Sequence[Corpus]) -> Corpus:
    """Merge several corpora into one.

    A clip that several of them contain is taken from the first, with the split that any of them
    tells, or left out if their labels or splits contradict each other.

    Parameters
    ----------
    corpora
        One or more corpora; a single one is returned unchanged.

    Raises
    ------
    DatasetError
        If two have the same name, so that their speakers could not be distinguished.
    """
    if len(corpora) == 1:
        return corpora[0]
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise DatasetError(
            f"two corpora have the same name: {', '.join(names)}; expected different ones: join "
            "the parts of one corpus in one folder, or rename a folder or table of your own or the "
            "database in its db.yaml"
        )
    clips, repeated = _join(corpora)
    skipped = {
        f"{corpus.name}/{name}": reason
        for corpus in corpora
        for name, reason in corpus.skipped.items()
    }
    return Corpus(
        "+".join(names),
        "; ".join(f"{corpus.name}: {corpus.licence}" for corpus in corpora),
        clips,
        {**skipped, **repeated},
    )


def _join(corpora: Sequence[Corpus]) -> tuple[tuple[Clip, ...], dict[str, str]]:
    """Return the clips of all corpora, each once, and the reasons why others were left out."""
    given = [clip for corpus in corpora for clip in corpus.clips]
    clips, skipped = list[Clip](), dict[str, str]()
    for first, *others in group_by_place(given):
        labels = sorted({clip.emotion for clip in (first, *others)})
        splits = sorted({clip.split for clip in (first, *others) if clip.split})
        told = {"labelled": labels, "of the split": splits}
        if doubts := [f"{what} {' and '.join(of)}" for what, of in told.items() if len(of) > 1]:
            reason, dropped = f"in several corpora: {', '.join(doubts)}", [first, *others]
        else:
            clips.append(replace(first, split=splits[0] if splits else None))
            reason, dropped = f"also in {first.corpus}", others
        skipped |= {f"{clip.corpus}/{clip.name}": reason for clip in dropped}
    return tuple(clips), skipped


def class_indices(clips: Sequence[Clip], labels: Sequence[str]) -> list[int]:
    """Return the index of each clip's label.

    Parameters
    ----------
    clips
        Labelled clips.
    labels
        All labels in order.

    Raises
    ------
    DatasetError
        If a clip has another label.
    """
    order = {label: index for index, label in enumerate(labels)}
    unknown = sorted({clip.emotion for clip in clips} - set(order))
    if unknown:
        raise DatasetError(
            f"the labels {unknown} of the corpus are not labels of the model, {list(labels)}"
        )
    return [order[clip.emotion] for clip in clips]
