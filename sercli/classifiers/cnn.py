"""A convolutional neural network on log-mel frames."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import Classifier, ModelSpec, Tensors
from sercli.errors import ConfigError, ModelError
from sercli.neural.batching import group_by_length, pad
from sercli.neural.cnn import Cnn, CnnSettings
from sercli.neural.devices import choose_device

FloatArray = NDArray[np.float32]

# Audio that runs through the network at once, padding included: more gains nothing on a CPU.
BATCH_S = 60.0


class CnnClassifier(Classifier):
    """Seven convolutional layers, see `sercli.neural.cnn.Cnn`.

    Parameters
    ----------
    spec
        ``settings`` holds those of `CnnSettings`.
    network
        With its weights.
    device
        Where it runs; see `sercli.neural.devices.choose_device`.
    """

    family = "cnn"
    in_workers = False

    def __init__(self, spec: ModelSpec, network: Cnn, device: str = "auto") -> None:
        super().__init__(spec)
        self._device = choose_device(device)
        self.network = network.eval().requires_grad_(False).to(self._device)

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
            network = Cnn(CnnSettings.from_dict(spec.settings), len(spec.labels))
        except ConfigError as error:
            raise ModelError(str(error)) from error
        limit = network.settings.log_mel.f_max
        if spec.band_limit != limit:
            raise ModelError(f"band_limit is {spec.band_limit} Hz; its mel bands end at {limit} Hz")
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
        """Return pooled statistics of the last layer, shape (n_segments, n_features)."""
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


def _weights(network: Cnn) -> dict[str, torch.Tensor]:
    """Return what is learned; windows and filters follow from the settings."""
    learned = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("front_end.") and tensor.dtype.is_floating_point
    }
    return learned
