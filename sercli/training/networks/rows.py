"""Rows of features (statistics of a frozen encoder) of each clip, unchanged and augmented."""

import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor, nn

from sercli.arrays import LARGEST_HALF, FloatArray, IntArray, RealArray
from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import BATCH_S
from sercli.classifiers.batches import group_by_length
from sercli.classifiers.neural import Embedder
from sercli.config import LONGEST_SEGMENT_S
from sercli.errors import OutputError, TrainingError
from sercli.files import AtomicFile, remove_orphans, write_bytes
from sercli.neural.batching import pad
from sercli.neural.devices import choose_precision, computing, fitting
from sercli.neural.whisper import FRAME_S, count_least_rows
from sercli.training.config import NeuralConfig
from sercli.training.networks.batches import DrawnBatches, Load
from sercli.training.networks.loop import TrainingBatch

HalfArray = NDArray[np.float16]

# Function from rows, the index of the clip of each row, and a seed, to the rows to train on.
Change = Callable[[FloatArray, NDArray[np.intp], Sequence[int]], FloatArray]

# Clips whose waveforms are in memory at once.
CLIPS_AT_ONCE = 256


def embed_versions(
    network: Embedder,
    n_clips: int,
    versions: Sequence[Load],
    path: Path,
    report: Callable[[int, int], None] = lambda *_: None,
) -> HalfArray:
    """Return rows of every version of every clip, shape (n_clips, n_versions, n_features).

    Rows are computed for `CLIPS_AT_ONCE` clips at a time and written to a folder beside ``path``
    until they are complete, so that an interrupted run resumes where it stopped.

    Parameters
    ----------
    network
        Network that computes the rows.
    n_clips
        Number of clips.
    versions
        For each version, a function from the index of a clip to its waveform. Only the first
        `LONGEST_SEGMENT_S` seconds are used, the maximum of some encoders.
    path
        File of the rows; if it exists, its rows are returned.
    report
        Called with the number of clips that are done, and of all clips.

    Raises
    ------
    OutputError
        If the rows cannot be written.
    """
    shape = (n_clips, len(versions), network.n_features)
    if not _is_whole(path, shape):
        parts = path.with_name(f"{path.name}.parts")
        starts = range(0, n_clips, CLIPS_AT_ONCE)
        # The names contain the end, since another release may use another block size.
        blocks = [range(start, min(start + CLIPS_AT_ONCE, n_clips)) for start in starts]
        files = [parts / f"{clips.start}-{clips.stop}.npy" for clips in blocks]
        try:
            parts.mkdir(parents=True, exist_ok=True)
            for clips, file in zip(blocks, files, strict=True):
                if not _is_whole(file, (len(clips), *shape[1:])):
                    _write(file, _embed(network, versions, clips))
                report(clips.stop, n_clips)
            remove_orphans(path)
            _join(files, path, shape)
            rmtree(parts, ignore_errors=True)
        except (OSError, OutputError) as error:
            if not _is_whole(path, shape):  # else another run was first, and has removed the parts
                reason = error.strerror if isinstance(error, OSError) else error
                raise OutputError(f"{path}: cannot be written: {reason}") from error
    return _read(path)


def _embed(network: Embedder, versions: Sequence[Load], clips: range) -> HalfArray:
    """Return rows of a range of clips, shape (n_clips, n_versions, n_features)."""
    rows = np.empty((len(clips), len(versions), network.n_features), np.float16)
    device = next(network.head.parameters()).device
    # A CPU computes so many frames in any case.
    seconds = max(BATCH_S, FRAME_S * count_least_rows()) if device.type == "cpu" else BATCH_S
    precision = choose_precision(device)
    memory = fitting("a batch of clips", device)
    with memory, torch.inference_mode(), computing(device, precision):
        for number, load in enumerate(versions):
            waveforms = [load(index)[: int(LONGEST_SEGMENT_S * SAMPLE_RATE)] for index in clips]
            lengths = [len(waveform) for waveform in waveforms]
            for group in group_by_length(lengths, int(seconds * SAMPLE_RATE)):
                batch = pad([waveforms[place] for place in group])
                embedded = network.embed(*(part.to(device) for part in batch)).numpy(force=True)
                if not np.abs(embedded).max() <= LARGEST_HALF:  # also true for NaN
                    raise TrainingError(
                        "the encoder's output for some clips is not finite, or above "
                        f"{LARGEST_HALF:g}; expected one of a magnitude that half precision can "
                        "hold. Take another --base"
                    )
                rows[group, number] = embedded
    return rows


def _write(path: Path, rows: HalfArray) -> None:
    content = BytesIO()
    np.save(content, rows, allow_pickle=False)
    write_bytes(path, content.getvalue())


def _join(files: Sequence[Path], path: Path, shape: tuple[int, ...]) -> None:
    """Write the rows of all parts into one file, which appears when it is complete.

    It is not memory-mapped: on a full disk, a write to a mapping ends the process.
    """
    form = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
    whole = AtomicFile(path, overwrite=True)
    try:
        write_array_header_1_0(whole.stream, form)
        for file in files:
            whole.stream.write(_read(file).tobytes())
        whole.stream.flush()
        os.fsync(whole.stream.fileno())  # if `close` failed to, it would tell where the rows are
        whole.close()
    finally:
        whole.discard()


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a file has rows of a shape: after a power cut, it may be cut or zero."""
    try:
        rows = _read(path)
    except (OSError, ValueError, EOFError):
        return False
    return rows.shape == shape and rows.dtype == np.float16


def _read(path: Path) -> HalfArray:
    rows: HalfArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows


class RowBatches(DrawnBatches):
    """Batches of rows of randomly drawn versions, for `fit_network`.

    Parameters
    ----------
    rows
        One or more arrays of shape (n_clips, n_versions, n_features). They are not concatenated,
        since they may be memory-mapped and larger than memory.
    targets
        Targets of the clips of all arrays, shape (n_clips, n_scores).
    classes, config
        As for `DrawnBatches`.
    change
        Function applied to the rows of each batch, or None.
    """

    def __init__(
        self,
        rows: Sequence[RealArray],
        targets: FloatArray,
        classes: IntArray,
        config: NeuralConfig,
        change: Change | None = None,
    ) -> None:
        super().__init__(classes, config)
        self._rows, self._targets, self._change = rows, targets, change
        self._firsts = np.cumsum([0, *map(len, rows)])[:-1]

    def __call__(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, counted from 0."""
        rng = np.random.default_rng([self._seed, epoch, 1])
        for number, draws in enumerate(self.draw(epoch)):
            chosen = np.array([index for index, _ in draws])
            versions = rng.integers(self._rows[0].shape[1], size=len(chosen))
            rows = self._take(chosen, versions)
            if self._change is not None:
                rows = self._change(rows, chosen, [self._seed, epoch, number])
            yield TrainingBatch(
                torch.from_numpy(rows),
                torch.ones(len(chosen), dtype=torch.int64),
                torch.from_numpy(self._targets[chosen]),
            )

    def _take(self, chosen: NDArray[np.intp], versions: IntArray) -> FloatArray:
        taken = np.empty((len(chosen), self._rows[0].shape[2]), np.float32)
        for first, rows in zip(self._firsts, self._rows, strict=True):
            here = (chosen >= first) & (chosen < first + len(rows))
            taken[here] = rows[chosen[here] - first, versions[here]]
        return taken


class RowNetwork(nn.Module):
    """A head without its encoder, which takes rows instead of waveforms.

    Parameters
    ----------
    head
        Module from rows to scores.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Return scores, shape (n_clips, n_scores).

        Parameters
        ----------
        rows
            Rows of features, shape (n_clips, n_features).
        lengths
            Ignored.
        """
        scores: Tensor = self.head(rows)
        return scores
