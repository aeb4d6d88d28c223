"""Check whether a model was trained on the clips or speakers that it is evaluated on.

A model's folder holds a manifest of its training data: a hash of each clip's decoded audio and one
of its speaker's name, or of the audio alone for unlabelled speech. It also lists the development
clips by which the model was selected and calibrated. Hashes reveal only whether a given clip or
speaker is among them.
"""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from sercli.datasets.clip import Clip
from sercli.datasets.decoding import HASH_BYTES
from sercli.datasets.matching import count_speakers, speaker_names
from sercli.errors import ModelError
from sercli.registry.description import MANIFEST_FILE
from sercli.text import format_count

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier

# Stands for the speaker, label and corpus of unlabelled speech.
UNLABELLED = "unlabelled"
HEADER = ["audio", "speaker"]
# Third column and its values, if some clips were used to select the model.
USE, FIT, CHOSEN = "use", "fit", "chosen"


@dataclass(frozen=True)
class TrainingManifest:
    """Hashes of a model's training data.

    Parameters
    ----------
    rows
        For each training clip, the hash of its audio (see `sercli.datasets.decoding.hash_audio`)
        and the hash of its speaker, which is empty if unknown, or `UNLABELLED` if the clip has no
        label either.
    chosen
        The same for clips that only served to select and calibrate the model.
    corpora
        Names of the training corpora, if known; they are not in the file.
    """

    rows: tuple[tuple[str, str], ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()
    corpora: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def from_clips(cls, clips: Sequence[Clip], hashes: Sequence[str]) -> "TrainingManifest":
        """Build the manifest from clips and the hashes of their audio."""
        rows = ((audio, hash_speaker(clip)) for clip, audio in zip(clips, hashes, strict=True))
        return cls(tuple(sorted(rows)))

    @classmethod
    def from_unlabelled(cls, hashes: Iterable[str]) -> "TrainingManifest":
        """Build the manifest from the hashes of unlabelled training audio, without duplicates."""
        return cls(tuple((audio, UNLABELLED) for audio in sorted(set(hashes))))

    @property
    def fitted(self) -> "TrainingManifest":
        """The manifest of the training clips alone."""
        return replace(self, chosen=())

    def choose_by(self, clips: Sequence[Clip], hashes: Sequence[str]) -> "TrainingManifest":
        """Return the manifest with more clips by which the model was selected.

        Parameters
        ----------
        clips, hashes
            Clips and the hashes of their audio, as for `from_clips`.
        """
        added = TrainingManifest.from_clips(clips, hashes).rows
        return replace(self, chosen=tuple(sorted({*self.chosen, *added} - {*self.rows})))

    def join(self, others: Iterable["TrainingManifest"]) -> "TrainingManifest":
        """Return the union of this manifest and others, each clip once.

        Unlabelled audio is dropped where another manifest names its speaker.
        """
        others = tuple(others)
        rows = {*self.rows}.union(*(other.rows for other in others))
        chosen = {*self.chosen}.union(*(other.chosen for other in others))
        named = {audio for audio, speaker in rows if speaker not in ("", UNLABELLED)}
        rows = {row for row in rows if row[1] != UNLABELLED or row[0] not in named}
        corpora = {*self.corpora}.union(*(other.corpora for other in others))
        return TrainingManifest(
            tuple(sorted(rows)), tuple(sorted(chosen - rows)), tuple(sorted(corpora))
        )

    def encode(self) -> bytes:
        """Return the content of ``manifest.csv``."""
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._table())
        return text.getvalue().encode()

    @classmethod
    def read(cls, folder: Path) -> "TrainingManifest | None":
        """Read the manifest in a folder; None if there is none.

        Raises
        ------
        ModelError
            If the file is not a valid manifest.
        """
        path = folder / MANIFEST_FILE
        if not path.is_file():
            return None
        try:
            with path.open(encoding="utf-8", newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ModelError(
                f"{path}: cannot be read as CSV: {error}; copy the model's folder again"
            ) from error
        known = header == HEADER or header == [*HEADER, USE]
        if not known or any(len(row) != len(header) for row in rows):
            raise ModelError(
                f"{path}: is not a manifest; expected a CSV file with the columns audio and "
                "speaker; copy the model's folder again"
            )
        chosen = tuple((row[0], row[1]) for row in rows if row[2:] == [CHOSEN])
        return cls(tuple((row[0], row[1]) for row in rows if row[2:] != [CHOSEN]), chosen)

    @classmethod
    def of(cls, classifier: "Classifier") -> "TrainingManifest | None":
        """Read the manifest of a loaded model; None if it has none.

        Parameters
        ----------
        classifier
            The model.

        Raises
        ------
        ModelError
            If the file is not a valid manifest, or not the one that the model was saved with.
        """
        manifest = cls.read(classifier.folder) if classifier.folder else None
        if manifest is None:
            return None
        training = classifier.spec.training
        if manifest.digest() != training.get("manifest_sha256"):
            raise ModelError(
                f"{classifier.folder}: {MANIFEST_FILE} is not the one that the model was saved "
                "with; copy the folder again"
            )
        corpora = training.get("corpora") or str(training.get("corpus", "")).split("+")
        return replace(manifest, corpora=tuple(corpora))

    def digest(self) -> str:
        """Return the SHA-256 of the rows, which ``model.json`` records."""
        _, *rows = self._table()
        return hashlib.sha256("\n".join(map(",".join, rows)).encode()).hexdigest()

    def _table(self) -> list[Sequence[str]]:
        if not self.chosen:
            return [HEADER, *self.rows]
        fitted = [(*row, FIT) for row in self.rows]
        return [[*HEADER, USE], *fitted, *((*row, CHOSEN) for row in self.chosen)]

    def explain_unknown(self) -> str | None:
        """Return a sentence on clips of unknown speakers; None if all speakers are known."""
        speakers = {speaker for _, speaker in self.rows}
        if "" in speakers:
            return (
                "The model was trained on clips of unknown speakers: these speakers may be among "
                "them."
            )
        if UNLABELLED in speakers:
            return (
                "The model was also trained on unlabelled speech of unknown speakers: these "
                "speakers may be among them."
            )
        if "" in {speaker for _, speaker in self.chosen}:
            return (
                "The model was selected and calibrated on clips of unknown speakers: these "
                "speakers may be among them."
            )
        return None

    def find_speakers(self, clips: Sequence[Clip]) -> list[str]:
        """Return the speakers of clips who are in the manifest, by any of their `speaker_names`."""
        known = {speaker for _, speaker in (*self.rows, *self.chosen)}
        voices = {clip.voice: clip for clip in clips if clip.voice is not None}
        return sorted(
            voice
            for voice, clip in voices.items()
            if not known.isdisjoint(map(hash_name, speaker_names(clip, self.corpora)))
        )

    def count_speakers(self, clips: Sequence[Clip]) -> int:
        """Return how many speakers of clips are in the manifest.

        Names that may be one speaker count once; see `sercli.datasets.matching.join_voices`.
        """
        known = {*self.find_speakers(clips)}
        return count_speakers([clip for clip in clips if clip.voice in known])

    def count_clips(self, hashes: Sequence[str]) -> int:
        """Return how many of the hashes of audio are in the manifest."""
        known = {audio for audio, _ in (*self.rows, *self.chosen)} - {""}
        return sum(audio in known for audio in hashes)

    def describe_known(self, clips: Sequence[Clip], hashes: Sequence[str]) -> str:
        """Return the overlap in words, such as ``"trained on 2 speakers"``; empty if there is none.

        Parameters
        ----------
        clips
            Clips to evaluate on.
        hashes
            Hashes of their audio, as far as they are known.
        """
        for manifest, how in ((self.fitted, "trained on"), (self, "selected and calibrated on")):
            n_speakers, n_clips = manifest.count_speakers(clips), manifest.count_clips(hashes)
            if n_speakers or n_clips:
                return f"{how} {describe_overlap(n_speakers, n_clips)}"
        return ""


def hash_speaker(clip: Clip) -> str:
    """Return a hash of a clip's speaker; empty if the speaker is unknown."""
    return "" if clip.voice is None else hash_name(clip.voice)


def hash_name(voice: str) -> str:
    """Return a hash of a speaker's name, which includes the corpus (see `Clip.voice`)."""
    # A speaker's name that comes from a folder may contain undecodable bytes.
    name = voice.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=HASH_BYTES).hexdigest()


def describe_overlap(n_speakers: int, n_clips: int) -> str:
    """Return numbers of speakers and clips in words, such as ``"2 speakers and 1 clip"``."""
    counts = ((n_speakers, "speaker"), (n_clips, "clip"))
    return " and ".join(format_count(n, noun) for n, noun in counts if n)
