"""What classifiers that are neural networks share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import ModelSpec, TensorClassifier, Tensors
from sercli.errors import ConfigError, ModelError
from sercli.neural.batching import group_by_length, pad
from sercli.neural.devices import choose_device

FloatArray = NDArray[np.float32]

# Audio that runs through a network at once, padding included: more gains nothing on a CPU.
BATCH_S = 60.0
# Where windows and filters are in a network: they follow from the settings.
FRONT_END = "front_end."


class Embedder(Protocol):
    """A network in two parts, between which there is one row per segment."""

    n_features: int

    @property
    def head(self) -> torch.nn.Module:
        """Return what judges the rows."""

    def embed(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return rows, shape (n_segments, n_features)."""


class NeuralClassifier(TensorClassifier):
    """A neural network.

    Parameters
    ----------
    spec
        ``settings`` holds those of the network.
    network
        With its weights; an `Embedder`.
    device
        Where it runs; see `sercli.neural.devices.choose_device`.
    """

    in_workers = False

    def __init__(self, spec: ModelSpec, network: torch.nn.Module, device: str = "auto") -> None:
        super().__init__(spec)
        self._device = choose_device(device)
        self.network: Any = network.eval().requires_grad_(False).to(self._device)

    @classmethod
    @abstractmethod
    def create_network(cls, spec: ModelSpec) -> torch.nn.Module:
        """Return a network of random weights.

        Raises
        ------
        ModelError, ConfigError
            If the settings are not understood.
        """

    @classmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights.

        Raises
        ------
        ModelError
            If the settings are not understood, or the tensors do not fit.
        ConfigError
            If there is no such device.
        """
        try:
            network = cls.create_network(spec)
        except ConfigError as error:
            raise ModelError(str(error)) from error
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
        """Return the weights as they are stored: what is multiplied with in half precision."""
        return {
            name: tensor.numpy(force=True).astype(np.float16 if tensor.ndim > 1 else np.float32)
            for name, tensor in _weights(self.network).items()
        }

    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return one row per segment, which its head judges, shape (n_segments, n_features)."""
        rows = np.empty((len(waveforms), self.network.n_features), np.float32)
        lengths = [len(waveform) for waveform in waveforms]
        with torch.inference_mode():
            for group in group_by_length(lengths, int(BATCH_S * SAMPLE_RATE)):
                batch = pad([waveforms[index] for index in group])
                embedded = self.network.embed(*(part.to(self._device) for part in batch))
                rows[group] = embedded.numpy(force=True)
        return rows

    def score(self, features: FloatArray) -> FloatArray:
        """Return logits, shape (n_segments, n_labels)."""
        with torch.inference_mode():
            logits = self.network.head(torch.from_numpy(features).to(self._device))
        result: FloatArray = logits.numpy(force=True)
        return result


def _weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what is learned."""
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if FRONT_END not in name and tensor.dtype.is_floating_point
    }
