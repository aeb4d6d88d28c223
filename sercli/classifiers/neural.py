"""Base classes of classifiers that are neural networks."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sercli.arrays import FloatArray, Tensors, store_weights
from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import BATCH_S, Classifier, ModelSpec, TensorClassifier
from sercli.classifiers.batches import group_by_length
from sercli.config import Precision
from sercli.errors import ConfigError, ModelError
from sercli.neural.batching import WaveformBatch, pad
from sercli.neural.devices import (
    CPU,
    TYPES,
    choose_devices,
    computing,
    find_precision,
    fitting,
    is_out_of_memory,
    limit_threads,
    replicate,
    store_as,
)
from sercli.neural.packed import can_pack, pack
from sercli.neural.quantised import quantise
from sercli.system.room import Room

# Seconds of audio in a batch on a GPU, padding included.
GPU_BATCH_S = 240.0
# In the names of windows and filters, which follow from the settings and are not stored.
FRONT_END = "front_end."
# The memory of each device, which all workers on it share.
_ROOMS: dict[torch.device, Room] = {}


class Embedder(Protocol):
    """A network in two parts: an embedding of one row per segment, and a head."""

    n_features: int

    @property
    def head(self) -> torch.nn.Module:
        """Return the head, which maps rows to logits."""

    def embed(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return rows, shape (n_segments, n_features)."""


class NetworkClassifier(Classifier):
    """A classifier that is a PyTorch network.

    Parameters
    ----------
    spec
        Specification of the model.
    network
        Network with its weights.
    device
        Device to run on; see `sercli.neural.devices.choose_devices`.

    Attributes
    ----------
    cpu_batch_s
        Best batch size on a CPU, in seconds of audio, padding included.
    devices
        Devices that it runs on.
    """

    in_workers = False
    cpu_batch_s: ClassVar[float] = BATCH_S

    def __init__(self, spec: ModelSpec, network: torch.nn.Module, device: str = "auto") -> None:
        super().__init__(spec)
        self.devices = choose_devices(device)
        self._device = self.devices[0]
        with fitting("the network", self._device):
            self._exact: Any = network.eval().requires_grad_(False).to(self._device)
        self.network: Any = self._exact
        self._precision: Precision = "fp32"
        self._batch_s = self.cpu_batch_s if self._device.type == "cpu" else GPU_BATCH_S

    @property
    def batch_seconds(self) -> float:
        """Best batch size of one worker, in seconds of audio, padding included."""
        return self._batch_s

    @property
    def precision(self) -> Precision:
        """Number type of its matrix products."""
        return self._precision

    def use_precision(self, precision: Precision) -> None:
        """Change the number type of the matrix products; see `Classifier`."""
        found = find_precision(precision, *self.devices)
        if found == "fp32":
            with fitting("the network", self._device):
                self.network = self._exact.to(self._device)
        else:
            # The exact weights wait on the CPU, or a GPU would hold them beside the converted ones.
            exact = self._exact.to(CPU)
            converted = quantise(exact) if found == "int8" else store_as(exact, TYPES[found])
            if found == "bf16" and self._device == CPU and can_pack():
                converted = pack(converted)
            if self._device != CPU:
                with fitting("the network", self._device):
                    converted = copy.deepcopy(converted).to(self._device)  # shares none of them
            self.network = converted
        self._precision = found

    @contextmanager
    def using_threads(self, n_threads: int) -> Iterator[None]:
        """Limit the threads of each worker; see `Classifier`."""
        with super().using_threads(n_threads), limit_threads(n_threads):
            yield

    @contextmanager
    def replicas(
        self, n_workers: int, n_threads: int, batch_seconds: float
    ) -> Iterator[Sequence[Self]]:
        """Yield models that may be used at the same time, on all devices; see `Classifier`."""
        found = []
        for network, device in replicate(self.network, self.devices, n_workers):
            replica = copy.copy(self)
            replica.network, replica._device = network, device
            replica._batch_s = batch_seconds
            found.append(replica)
        with self.using_threads(n_threads):
            yield found

    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return the input of the network's head, shape (n_segments, n_features).

        If a GPU runs out of memory, all further batches are half as large as the failed one, but
        of one segment at least, and the next is computed while no other worker uses that GPU, which
        may have held the memory.

        Raises
        ------
        ConfigError
            If the memory of the device does not suffice for a single segment.
        """
        found, alone = dict[int, FloatArray](), False
        room = _ROOMS.setdefault(self._device, Room())
        while len(found) < len(waveforms):
            left = [index for index in range(len(waveforms)) if index not in found]
            lengths = [self.length(waveforms[index]) for index in left]
            for group in group_by_length(lengths, int(self._batch_s * SAMPLE_RATE)):
                indices = [left[place] for place in group]
                with room.enter(alone=alone):
                    rows = self._try_batch([waveforms[i] for i in indices], alone=alone)
                alone = rows is None
                if rows is None:
                    if len(group) > 1:
                        self._batch_s = sum(lengths[place] for place in group) / SAMPLE_RATE / 2
                    break
                found.update(zip(indices, rows, strict=True))
        return np.stack([found[index] for index in range(len(waveforms))])

    def _try_batch(self, waveforms: Sequence[FloatArray], *, alone: bool) -> FloatArray | None:
        """Return the rows of a batch, or None if the memory of the device does not suffice."""
        type_ = TYPES.get(self._precision, torch.float32)
        try:
            with torch.inference_mode(), computing(self._device, type_):
                rows: FloatArray = self.compute_rows(waveforms).float().numpy(force=True)
                return rows
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if alone and len(waveforms) == 1:
                seconds = len(waveforms[0]) / SAMPLE_RATE
                with fitting(f"a segment of {seconds:.2f} s", self._device):
                    raise
        return None

    def length(self, waveform: FloatArray) -> int:
        """Return the number of samples of a segment in the network's input."""
        return len(waveform)

    @abstractmethod
    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        """Return one row per segment.

        Parameters
        ----------
        waveforms
            The segments of a batch.
        """


class TrainedNetworkClassifier(NetworkClassifier, TensorClassifier):
    """A network of this package, with weights that were trained by it.

    Parameters
    ----------
    spec
        Specification, whose ``settings`` are those of the network.
    network
        Network with its weights; an `Embedder`.
    device
        Device to run on; see `sercli.neural.devices.choose_devices`.
    """

    @classmethod
    @abstractmethod
    def create_network(cls, spec: ModelSpec) -> torch.nn.Module:
        """Return a network with random weights.

        Raises
        ------
        ModelError, ConfigError
            If the settings are invalid.
        """

    @classmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights.

        Raises
        ------
        ModelError
            If the settings are invalid, or the tensors do not fit.
        ConfigError
            If there is no such device.
        """
        try:
            # The random weights are replaced: creating them must not advance the generator.
            with torch.random.fork_rng(devices=()):
                network = cls.create_network(spec)
        except (ConfigError, ModelError) as error:
            raise ModelError(str(error)) from error
        except Exception as error:  # altered settings can raise anything
            raise ModelError(
                f"its settings do not describe a network: {error!r}; copy it again"
            ) from error
        expected = {name: tuple(tensor.shape) for name, tensor in _weights(network).items()}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected:
            wrong = sorted(
                name for name in shapes.keys() | expected if shapes.get(name) != expected.get(name)
            )
            raise ModelError(
                f"its weights do not fit its settings: {', '.join(wrong[:3])} "
                f"{'are' if len(wrong) > 1 else 'is'} missing, unknown or of another shape "
                f"({len(wrong)} of {len(expected)} tensors)"
            )
        found = {
            name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items()
        }
        network.load_state_dict(found, strict=False)
        return cls(spec, network, device)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights in their stored form; see `sercli.arrays.store_weights`."""
        return {
            name: store_weights(tensor.numpy(force=True))
            for name, tensor in _weights(self._exact).items()
        }

    def compute_rows(self, waveforms: Sequence[FloatArray]) -> torch.Tensor:
        """Return the input of the head, one row per segment."""
        batch = pad(waveforms)
        # Pinned memory is kept until a CUDA device has read it. An Apple GPU copies asynchronously
        # from memory that may have been freed and reused by then, so that copy must block.
        pinned = self._device.type == "cuda"
        if pinned:
            batch = WaveformBatch(*(part.pin_memory() for part in batch))
        rows: torch.Tensor = self.network.embed(
            *(part.to(self._device, non_blocking=pinned) for part in batch)
        )
        return rows

    def score(self, features: FloatArray) -> FloatArray:
        """Return logits, shape (n_segments, n_labels)."""
        room = _ROOMS.setdefault(self._device, Room())
        try:
            with room.enter(alone=False):
                return self._try_head(features)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Another worker may have held the memory.
        with room.enter(alone=True), fitting("the head's input", self._device):
            return self._try_head(features)

    def _try_head(self, features: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits = self.network.head(torch.from_numpy(features).to(self._device))
            result: FloatArray = logits.float().numpy(force=True)  # bf16 under a caller's autocast
        return result


def _weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights to store: all floating-point tensors outside of the front end."""
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if FRONT_END not in name and tensor.dtype.is_floating_point
    }
