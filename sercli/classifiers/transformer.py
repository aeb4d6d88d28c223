"""A pre-trained speech encoder with an emotion classification head."""

from collections.abc import Mapping
from typing import ClassVar, Self

from sercli.arrays import Tensors
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.families import ENCODER_FILE
from sercli.classifiers.neural import TrainedNetworkClassifier
from sercli.errors import ModelError
from sercli.neural.transformer import Transformer, TransformerSettings


class TransformerClassifier(TrainedNetworkClassifier):
    """An encoder and a head, see `sercli.neural.transformer.Transformer`."""

    family = "transformer"
    weight_files: ClassVar[Mapping[str, str]] = {ENCODER_FILE: "encoder."}

    @classmethod
    def create_network(cls, spec: ModelSpec) -> Transformer:
        """Return a network with random weights.

        Raises
        ------
        ModelError, ConfigError
            If the settings are invalid.
        """
        network = Transformer(TransformerSettings.from_dict(spec.settings), spec.n_scores)
        if spec.band_limit != network.settings.band_limit:
            raise ModelError(
                f"band_limit is {spec.band_limit} Hz; its settings say "
                f"{network.settings.band_limit} Hz"
            )
        return network

    @classmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights; see `TrainedNetworkClassifier.from_tensors`."""
        model = super().from_tensors(spec, tensors, device)
        model.network.round_encoder()
        return model
