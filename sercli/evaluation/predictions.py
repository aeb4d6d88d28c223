"""A model's predictions for labelled clips, and the table ``predictions.csv`` that stores them.

One row per clip: ``corpus``, ``clip``, ``file``, ``channel`` (empty for the mean of all channels),
``start``, ``end`` (seconds; empty for the end of the file), ``audio`` (a hash of the decoded audio;
empty for silence), ``speaker`` (empty if unknown), ``namespace`` (the scope within which speaker
names are unique: ``table`` for those of the user's own tables, empty for the corpus), ``expected``
(the corpus's label), ``emotion`` (the model's label), ``confidence`` and ``prob_<label>`` for each
scored label.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.matching import join_voices
from sercli.errors import DatasetError
from sercli.evaluation.resampling import Resampled, number_units
from sercli.files import write_bytes
from sercli.schema import PROBABILITY_PREFIX

PREDICTIONS_FILE = "predictions.csv"
# Error handler for bytes that are not valid text, which Python holds as lone surrogates.
ESCAPE = "backslashreplace"
# Largest rounding error of a written probability.
ROUNDING = 1e-6
COLUMNS = (
    "corpus",
    "clip",
    "file",
    "channel",
    "start",
    "end",
    "audio",
    "speaker",
    "namespace",
    "expected",
    "emotion",
    "confidence",
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's probabilities for clips whose labels are known.

    Parameters
    ----------
    model
        Name of the model.
    labels
        Scored labels, in the order of the probabilities.
    clips
        Classified clips; the label of each is one of `labels`.
    probabilities
        Predicted probabilities, shape (n_clips, n_labels), rows summing to 1.
    hashes
        Hash of each clip's audio, empty where unknown; see `sercli.datasets.decoding.hash_audio`.
        An empty tuple means that all are unknown.
    """

    model: str
    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    probabilities: DoubleArray
    hashes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in empty hashes if none are given."""
        if not self.hashes:
            object.__setattr__(self, "hashes", ("",) * len(self.clips))

    @cached_property
    def y_true(self) -> NDArray[np.int64]:
        """Indices of the true labels, shape (n_clips,)."""
        return np.array(class_indices(self.clips, self.labels))

    @cached_property
    def y_pred(self) -> NDArray[np.int64]:
        """Indices of the most probable labels, shape (n_clips,)."""
        indices: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return indices

    def resampled(self) -> tuple[Resampled, str]:
        """Return the statistics for confidence intervals, and the kind of resampling unit."""
        units, kind = number_units(join_voices(self.clips))
        return Resampled(self.y_true, self.probabilities, units), kind

    def take(self, keys: Sequence[tuple[str, str]]) -> "Predictions":
        """Return the predictions for the clips with the given keys, in that order."""
        index = {key: i for i, key in enumerate(self.keys())}
        rows = [index[key] for key in keys]
        clips = tuple(self.clips[i] for i in rows)
        hashes = tuple(self.hashes[i] for i in rows)
        return Predictions(self.model, self.labels, clips, self.probabilities[rows], hashes)

    def keys(self) -> list[tuple[str, str]]:
        """Return the corpus and name of each clip, as `write` writes them."""
        return [(_escape(clip.corpus), _escape(clip.name)) for clip in self.clips]

    def write(self, path: Path) -> None:
        """Write the table; undecodable bytes in names are escaped, so that any program can read it.

        Parameters
        ----------
        path
            Path of the table; replaced if it exists.

        Raises
        ------
        OutputError
            If the table cannot be written.
        """
        text = StringIO()
        writer = csv.writer(text)
        probabilities = (PROBABILITY_PREFIX + label for label in self.labels)
        writer.writerow((*COLUMNS, *probabilities))
        rows = zip(self.clips, self.hashes, self.y_pred, self.probabilities, strict=True)
        for clip, audio, label, row in rows:
            writer.writerow(
                (
                    clip.corpus,
                    clip.name,
                    clip.path,
                    "" if clip.channel is None else clip.channel,
                    f"{clip.start:.3f}",
                    "" if clip.end is None else f"{clip.end:.3f}",
                    audio,
                    clip.speaker or "",
                    clip.namespace or "",
                    clip.emotion,
                    self.labels[label],
                    # With all digits, so that the same label is the most probable when read.
                    *map(float, (row[label], *row)),
                )
            )
        write_bytes(path, text.getvalue().encode("utf-8", ESCAPE))

    @classmethod
    def read(cls, path: Path, model: str) -> "Predictions":
        """Read a table that `write` made.

        Parameters
        ----------
        path
            Path of the table.
        model
            Name of the model whose predictions it holds.

        Raises
        ------
        DatasetError
            If the file cannot be read or is not such a table, a clip is in two rows, values are not
            valid probabilities, a predicted label is not the most probable one, or an expected
            label has no probability.
        """
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            labels = tuple(
                column.removeprefix(PROBABILITY_PREFIX)
                for column in rows[0]
                if column.startswith(PROBABILITY_PREFIX)
            )
            clips = tuple(_read_clip(row) for row in rows)
            values = [[float(row[PROBABILITY_PREFIX + name]) for name in labels] for row in rows]
            told = [(row["emotion"], float(row["confidence"])) for row in rows]
            hashes = tuple(row["audio"] for row in rows)
        except (
            OSError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            csv.Error,
        ) as error:
            raise DatasetError(
                f"{path}: cannot be read as a table of predictions ({error!r}); "
                "expected one that `ser eval -o DIR` wrote"
            ) from error
        probabilities = np.array(values)
        sums = probabilities.sum(axis=1)
        # Probabilities rounded to six digits need not sum to exactly 1. False for NaN, too.
        possible = (probabilities >= 0).all(axis=1) & (abs(sums - 1) <= ROUNDING * len(labels))
        if not possible.all():
            row = int(possible.argmin())
            raise DatasetError(
                f"{path}: the probabilities of {clips[row].name} are {values[row]}; expected "
                "numbers from 0 to 1 whose sum is 1"
            )
        for clip, (label, confidence), numbers in zip(clips, told, values, strict=True):
            of = dict(zip(labels, numbers, strict=True))
            is_best = of.get(label, -1.0) >= max(numbers) - ROUNDING
            if not (is_best and abs(of[label] - confidence) <= ROUNDING):  # also true for NaN
                raise DatasetError(
                    f"{path}: the label of {clip.name} is {label}, with a confidence of "
                    f"{confidence:g}; expected the most probable label of {of}, and its "
                    "probability"
                )
        found = cls(model, labels, clips, probabilities / sums[:, None], hashes)
        if twice := [key for key, n in Counter(found.keys()).items() if n > 1]:
            raise DatasetError(f"{path}: has {twice[0][1]} in two rows; expected one row per clip")
        class_indices(clips, labels)  # raises if an expected label was not scored
        return found


def _escape(text: str) -> str:
    return text.encode("utf-8", ESCAPE).decode("utf-8")


def _read_clip(row: dict[str, Any]) -> Clip:
    return Clip(
        path=Path(row["file"]),
        emotion=row["expected"],
        speaker=row["speaker"] or None,
        name=row["clip"],
        corpus=row["corpus"],
        start=float(row["start"]),
        end=float(row["end"]) if row["end"] else None,
        channel=int(row["channel"]) if row["channel"] else None,
        namespace=row["namespace"] or None,
    )
