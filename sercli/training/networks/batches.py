"""Training batches: clips drawn equally often from all labels, each augmented anew.

Every draw is seeded by the seed, the epoch, the clip, and how often the clip was drawn before in
the epoch, so that the result does not depend on the order of the draws or the number of threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from typing import Final

import numpy as np
import torch

from sercli.arrays import FloatArray, IntArray
from sercli.audio.augment import Utterance, crop, draw_voice, record, vary
from sercli.audio.codecs import codec_available, transmit
from sercli.neural.batching import pad
from sercli.training.cache import CachedClips, Talkers
from sercli.training.config import NeuralConfig
from sercli.training.networks.loop import TrainingBatch
from sercli.training.partners import Partners

CODEC_PROBABILITY: Final = 0.1
# Codecs with their weights: those of telephones degrade speech more than those of files.
CODECS: Final = {"mulaw": 1, "gsm": 2, "amr": 2, "mp3": 1, "opus": 1}
# Peak before a codec, which rounds to 16 bits and clips at 1.
CODEC_PEAK: Final = 0.5

# Number of batches prepared ahead of the one that is being trained on.
LOOKAHEAD: Final = 4

# Class of clips without a label; less k for those that a teacher gives the label with index k.
NO_LABEL: Final = -1

# Function from the index of a clip to its waveform.
Load = Callable[[int], FloatArray]

# Index of a drawn clip, and the random generator of its version.
Draw = tuple[int, np.random.Generator]


class Augmenter:
    """Random versions of cached clips.

    Parameters
    ----------
    cached
        The clips; they are also the source of background talkers.
    config
        Training settings, of which `clean_share` and `voice_share` are used.
    """

    def __init__(self, cached: CachedClips, config: NeuralConfig) -> None:
        self._cached, self._config = cached, config
        self._talkers = Talkers(cached.entries)
        self._partners = Partners(cached.clips)
        missing = missing_codecs()
        self._codecs = [name for name in CODECS if name not in missing]
        weights = np.array([CODECS[name] for name in self._codecs], float)
        self._weights = weights / weights.sum() if len(weights) else weights

    def augment(self, index: int, rng: np.random.Generator) -> FloatArray:
        """Return an augmented version of a clip, shape (n_samples,).

        Parameters
        ----------
        index
            Index of the clip.
        rng
            Random generator of all draws.
        """
        alike = self._partners.find_alike(index)

        def find_partner() -> Utterance:
            return self._cached.utterance(alike[rng.integers(len(alike))])

        waveform = vary(self._cached.utterance(index), find_partner, self._talkers, rng)
        return self._send(waveform, rng)

    def record(self, waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return a waveform with random room, microphone, noise and channel.

        Voice and timing are kept: samples stay aligned, unless a codec changes the length.

        Parameters
        ----------
        waveform
            Waveform at 16 kHz, shape (n_samples,).
        rng
            Random generator of all draws.
        """
        return self._send(record(waveform, self._talkers, rng), rng)

    def draw(self, index: int, rng: np.random.Generator) -> FloatArray:
        """Return a training version of a clip, shape (n_samples,).

        A share `clean_share` of the draws is not augmented but for a possible change of voice.

        Parameters
        ----------
        index, rng
            As for `augment`.
        """
        if rng.random() >= self._config.clean_share:
            return self.augment(index, rng)
        waveform, start, end = self._cached.utterance(index)
        waveform = waveform if rng.random() < 0.5 else waveform[start:end]
        if self._config.voice_share and rng.random() < self._config.voice_share:
            return draw_voice(waveform, rng)
        return waveform

    def _send(self, waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return a waveform, passed through a codec with probability `CODEC_PROBABILITY`."""
        if self._codecs and rng.random() < CODEC_PROBABILITY:
            return transmit(waveform, str(rng.choice(self._codecs, p=self._weights)), CODEC_PEAK)
        return waveform


class DrawnBatches:
    """Which clips are in which batch of an epoch; see `draw_order`.

    Parameters
    ----------
    classes
        Indices of the labels, `NO_LABEL` or less without one, shape (n_clips,).
    config
        Training settings, of which seed, batch size and the ratio of unlabelled clips are used.
    """

    def __init__(self, classes: IntArray, config: NeuralConfig) -> None:
        self._classes, self._seed = np.asarray(classes), config.seed
        self._ratio = config.ratio_of_unlabelled
        self._n_draws = count_draws(self._classes, self._ratio)
        self._size = min(config.batch_size, self._n_draws)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return self._n_draws // self._size

    def draw(self, epoch: int) -> list[list[tuple[int, int]]]:
        """Return the clips of each batch of an epoch, counted from 0, as `draw_order` does."""
        order = draw_order(self._classes, self._seed, epoch, self._ratio)
        return [order[i * self._size : (i + 1) * self._size] for i in range(len(self))]


class ClipBatches(DrawnBatches, ABC):
    """Batches of waveforms of clips, for `sercli.training.networks.loop.fit_network`.

    Parameters
    ----------
    classes, config
        As for `DrawnBatches`.
    threads
        Number of threads that prepare batches ahead.
    stage
        Number of the stage of a training. Those after the first, 0, have other draws than all
        before, and than versions of clips that are drawn by seed, number and index.
    """

    def __init__(
        self, classes: IntArray, config: NeuralConfig, threads: int = 2, stage: int = 0
    ) -> None:
        super().__init__(classes, config)
        self._threads, self._stage = threads, stage

    @abstractmethod
    def make(self, draws: Sequence[Draw]) -> TrainingBatch:
        """Return the batch of some draws."""

    def __call__(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, counted from 0."""
        pool = ThreadPoolExecutor(self._threads)
        try:
            waiting: list[Future[TrainingBatch]] = []
            for part in self.draw(epoch):
                waiting.append(pool.submit(self._make, part, epoch))
                if len(waiting) > LOOKAHEAD:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, order: Sequence[tuple[int, int]], epoch: int) -> TrainingBatch:
        # NumPy ignores a fourth number that is 0, as `turn` mostly is.
        stage = [self._stage] if self._stage else []
        seeds = [(index, [self._seed, epoch, index, turn, *stage]) for index, turn in order]
        return self.make([(index, np.random.default_rng(seed)) for index, seed in seeds])


class TrainingBatches(ClipBatches):
    """Batches of training versions of clips with their targets.

    Parameters
    ----------
    cached
        The clips; they are also the source of background talkers in the augmentation.
    targets
        Targets of the clips, shape (n_clips, n_targets).
    classes, threads, stage
        As for `ClipBatches`.
    config
        Training settings, of which seed, batch size and the settings of augmentation are used.
    """

    def __init__(
        self,
        cached: CachedClips,
        targets: FloatArray,
        classes: IntArray,
        config: NeuralConfig,
        *,
        threads: int = 2,
        stage: int = 0,
    ) -> None:
        super().__init__(classes, config, threads, stage)
        self._targets, self._max_crop = targets, config.max_crop
        self._augmenter = Augmenter(cached, config)

    def make(self, draws: Sequence[Draw]) -> TrainingBatch:
        """Return the batch of some draws."""
        versions = [
            crop(self._augmenter.draw(index, rng), self._max_crop, rng) for index, rng in draws
        ]
        padded, lengths = pad(versions)
        targets = torch.from_numpy(self._targets[[index for index, _ in draws]])
        return TrainingBatch(padded, lengths, targets)


def missing_codecs() -> tuple[str, ...]:
    """Return those of `CODECS` that the installed libraries lack, so that no clip goes through."""
    return tuple(name for name in CODECS if not codec_available(name))


def draw_order(
    classes: IntArray, seed: int, epoch: int, ratio: float = 1.0
) -> list[tuple[int, int]]:
    """Return indices of clips, each with how often it was drawn before; all labels equally often.

    Clips without a label, whose targets come from a teacher, are drawn `ratio` times as often as
    those of one label, however many they are, and equally often for all labels that it gives
    them: else a network learns that other recordings have the emotion that most of them have.

    Parameters
    ----------
    classes
        Indices of the clips' labels, `NO_LABEL` or less without one, shape (n_clips,).
    seed, epoch
        Seed and number of the epoch, which decide the draw.
    ratio
        Draws of unlabelled clips in units of the draws of one label.
    """
    rng = np.random.default_rng([seed, epoch])
    drawn: list[tuple[int, int]] = []
    n_given = len(np.unique(classes[classes <= NO_LABEL]))
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        n_draws = _count_each(classes, 1.0 if label > NO_LABEL else ratio / n_given)
        rounds = -(-n_draws // len(members))
        order = [(int(i), turn) for turn in range(rounds) for i in rng.permutation(members)]
        drawn += order[:n_draws]
    return [drawn[place] for place in rng.permutation(len(drawn))]


def count_draws(classes: IntArray, ratio: float = 1.0) -> int:
    """Return the minimum number of draws per epoch.

    It is the number of labelled clips and, if there are unlabelled ones, the draws of these.

    Parameters
    ----------
    classes, ratio
        As for `draw_order`.
    """
    n_labelled = int((classes > NO_LABEL).sum())
    return n_labelled if n_labelled == len(classes) else n_labelled + _count_each(classes, ratio)


def _count_each(classes: IntArray, ratio: float) -> int:
    """Return `ratio` times the draws per label: labelled clips by labels, both rounded up."""
    labelled = classes[classes > NO_LABEL]
    return ceil(ratio * ceil(len(labelled) / len(np.unique(labelled))))
