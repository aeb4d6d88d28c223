"""A convolutional neural network on log-mel frames."""

from sercli.classifiers.base import ModelSpec
from sercli.classifiers.neural import TrainedNetworkClassifier
from sercli.errors import ModelError
from sercli.neural.cnn import Cnn, CnnSettings


class CnnClassifier(TrainedNetworkClassifier):
    """Seven convolutional layers, see `sercli.neural.cnn.Cnn`; ``settings`` are `CnnSettings`."""

    family = "cnn"
    # Its layers take so little time that workers would mostly wait for each other between them.
    cpu_batch_s = 48.0

    @classmethod
    def create_network(cls, spec: ModelSpec) -> Cnn:
        """Return a network with random weights.

        Raises
        ------
        ModelError, ConfigError
            If the settings are invalid.
        """
        network = Cnn(CnnSettings.from_dict(spec.settings), spec.n_scores)
        limit = network.settings.log_mel.f_max
        if spec.band_limit != limit:
            raise ModelError(f"band_limit is {spec.band_limit} Hz; its mel bands end at {limit} Hz")
        return network
