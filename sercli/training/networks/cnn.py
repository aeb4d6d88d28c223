"""Training of convolutional networks, from waveforms and with guides."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from sercli.arrays import FloatArray
from sercli.classifiers.cnn import CnnClassifier
from sercli.neural.cnn import Cnn, CnnSettings
from sercli.training.cache import CachedClips
from sercli.training.clean_features import extract_clean_features
from sercli.training.networks.batches import TrainingBatches
from sercli.training.networks.course import Course, score_clips
from sercli.training.networks.guides import GuidedNetwork, guided_loss, make_guides
from sercli.training.networks.loop import Fitted, Loss
from sercli.training.networks.material import Material
from sercli.training.trainer import Say


@dataclass(frozen=True, eq=False)
class CnnCourse(Course):
    """Course of networks that are trained on a new augmentation of each clip in every epoch.

    The other parameters are those of `Course`.

    Parameters
    ----------
    settings
        Settings of the networks' architecture.
    """

    classifier = CnnClassifier
    packages = ("torch", "torchaudio", "numpy", "soxr", "soundfile", "silero-vad")

    settings: CnnSettings = field(default_factory=CnnSettings)

    @property
    def network_settings(self) -> CnnSettings:
        """Settings of the networks' architecture."""
        return self.settings

    @property
    def band_limit(self) -> float:
        """Upper frequency limit of the audio, in Hz."""
        return self.settings.log_mel.f_max

    def prepare(
        self, cached: CachedClips, say: Say, *, learned: bool = True, scored: bool = True
    ) -> Material:
        """Extract the features from which the guides are computed, if guides are used."""
        if not (learned and self.config.guide_weight):
            return Material(cached)
        say(f"extracting features for the auxiliary task from {len(cached):,} clips")
        return Material(cached, extract_clean_features(cached, self.band_limit, self.config.jobs))

    def teach(
        self, name: str, material: Material, folder: Path, dev: Material | None = None
    ) -> Fitted:
        """Train a network; see `Course.teach`."""
        config, clips = self.config, material.all_clips
        guides = np.empty((len(clips), 0), np.float32)
        features = [part.rows for part in material.parts if part.rows is not None]
        if features:
            guides = make_guides(np.concatenate(features), config.guide_components)
        targets = np.hstack((self.find_targets(material), guides))
        batches = TrainingBatches(clips, targets, self.find_draws(material), config)
        loss: Loss = self.find_loss
        if guides.size:
            loss = guided_loss(self.find_loss, self.n_scores, config.guide_weight)
        fitted = self.fit(
            name,
            self.create(lambda: self._create_network(guides.shape[1])),
            batches,
            material,
            folder,
            dev,
            loss=loss,
            score=lambda network, clips: score_clips(network, clips.cached),
            facts={"guides": guides.shape[1]},
        )
        kept = fitted.network
        return replace(fitted, network=kept.network if isinstance(kept, GuidedNetwork) else kept)

    def score(self, network: nn.Module, material: Material, learned: Material) -> FloatArray:
        """Return scores of clips, unchanged and augmented; see `Course.score`."""
        return self.score_varied(network, material.cached)

    def _create_network(self, n_guides: int) -> nn.Module:
        network = Cnn(self.settings, self.n_scores)
        return GuidedNetwork(network, n_guides) if n_guides else network
