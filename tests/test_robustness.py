"""An encoder that learns to make the same of speech in any recording."""

import gc
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import TINY, save_checkpoint
from conftest import EXAMPLES
from safetensors.torch import save_file
from torch import Tensor

from sercli.errors import ConfigError, OutputError
from sercli.neural.bases import Base, load_base
from sercli.neural.encoders import create_encoder
from sercli.neural.mel import NYQUIST
from sercli.training.cache import CachedClips
from sercli.training.config import TransformerConfig
from sercli.training.networks import batches, loop, robustness
from sercli.training.networks.loop import Fitted, TrainingBatch, TrainingProgress, fit_network
from sercli.training.networks.robustness import Imitation, PairedBatches, train_robust_encoder
from sercli.training.unlabelled import Unlabelled
from sercli.training.watcher import Watcher

CONFIG = TransformerConfig(hearing_epochs=4, hearing_rate=1e-3, batch_size=8, device="cpu")
LIMIT = 4000.0


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> CachedClips:
    return Unlabelled((EXAMPLES,), tmp_path_factory.mktemp("speech"), jobs=1).cached


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint("whisper", folder, init_std=0.1)  # by 0.02, it hardly hears
    return load_base(str(folder))


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "write_curves", lambda *given: (given[2] / "curves.png").touch())


def pair(speech: CachedClips, config: TransformerConfig = CONFIG) -> PairedBatches:
    return PairedBatches(speech, config)


def draw(speech: CachedClips, epoch: int = 0) -> list[TrainingBatch]:
    return list(pair(speech)(epoch))


def test_each_clip_is_there_as_it_is_and_in_another_recording(speech: CachedClips) -> None:
    batches = list(pair(speech, replace(CONFIG, voice_share=0.0, max_crop=30.0))(0))
    assert len(batches) == len(speech) // 8
    wholes = [speech.utterance(index).waveform for index in range(len(speech))]
    found, changed = [], 0
    for batch in batches:
        plain, other = batch.waveforms.chunk(2)
        for one, received, length, same in zip(plain, other, *batch.lengths.chunk(2), strict=True):
            assert length == same
            (index,) = (i for i, whole in enumerate(wholes) if same_samples(one[:length], whole))
            assert not received[length:].any()
            changed += not torch.equal(one, received)
            found.append(index)
    assert len(set(found)) == len(found)
    # One in nine or so is heard as it is.
    assert len(found) / 2 < changed


def same_samples(found: Tensor, whole: np.ndarray) -> bool:
    return np.array_equal(found.numpy(), whole)


def test_draws_depend_on_seed_epoch_and_clip_alone(speech: CachedClips) -> None:
    first, again, later = draw(speech), draw(speech), draw(speech, 1)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
    assert not any(
        torch.equal(one.lengths, two.lengths) for one, two in zip(first, later, strict=True)
    )


def test_the_distance_is_zero_of_what_is_the_same_and_not_of_anything_else(
    base: Base, speech: CachedClips
) -> None:
    encoder = create_encoder(base.settings, LIMIT).eval()
    encoder.model.load_state_dict(base.weights)
    scales = [torch.full((encoder.n_channels,), 2.0)] * encoder.n_states
    pooled = torch.full((2 * encoder.n_states * encoder.n_channels,), 0.5)
    imitation = Imitation(encoder, encoder, (*scales, pooled))
    batch = draw(speech)[0]
    plain, lengths = batch.waveforms.chunk(2)[0], batch.lengths.chunk(2)[0]
    twice = torch.cat((plain, plain)), torch.cat((lengths, lengths))
    with torch.inference_mode():
        assert imitation(*twice).item() == 0
        distance = imitation(batch.waveforms, batch.lengths).item()
        # Frame by frame and clip by clip, as the definition has it.
        told, spans = encoder(plain, lengths)
        received, _ = encoder(batch.waveforms.chunk(2)[1], lengths)
    rows = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    frames = [smooth((one - two)[rows] / 2).mean() for one, two in zip(received, told, strict=True)]

    def pool(states: list[Tensor]) -> Tensor:
        parts = [
            torch.cat(
                (state[span].mean(dim=0), state[span].var(dim=0, correction=0).add(1e-5).sqrt())
            )
            for span in spans
            for state in states
        ]
        return torch.stack(parts)

    statistics = smooth((pool(received) - pool(told)) / 0.5).mean()
    assert distance == pytest.approx(float(torch.stack(frames).mean() + statistics), rel=1e-4)


def smooth(values: Tensor) -> Tensor:
    return torch.where(values.abs() < 1, values.square() / 2, values.abs() - 0.5)


class LossWatcher(Watcher):
    """Notes the mean loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def report(self, progress: TrainingProgress) -> None:
        if progress.ends_epoch:
            self.losses.append(progress.loss)


def test_scales_are_those_of_all_clips_and_keep_one_batch(
    speech: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "BATCH_SIZE", 4)
    generator = torch.Generator().manual_seed(0)
    rows: list[np.ndarray] = []  # not tensors, which are counted
    in_memory: list[int] = []

    def listen(waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return two states of 100 frames for each clip, of which the last 10 are padding."""
        gc.collect()
        tensors = (one for one in gc.get_objects() if type(one) is Tensor)
        in_memory.append(sum(len(one) for one in tensors if one.shape[1:] == (50,)))
        spans = [slice(start, start + 90) for start in range(0, 100 * len(lengths), 100)]
        scales = torch.linspace(0.1, 9, 50)
        states = [
            50 + scales * torch.randn((100 * len(lengths), 50), generator=generator)
            for _ in range(2)
        ]
        rows.extend(np.stack([state[span].numpy() for state in states]) for span in spans)
        return states, spans

    *scales, _ = robustness._measure(listen, speech, CONFIG)
    every = torch.from_numpy(np.concatenate(rows, axis=1))
    for scale, whole in zip(scales, every, strict=True):
        assert torch.equal(scale, whole.std(dim=0) + robustness.TINY)
    # Later, there are no more rows than those of the two states of the batch before.
    assert len(in_memory) == 4
    assert in_memory[3] == in_memory[1] <= 2 * 400


def test_an_encoder_comes_nearer_to_its_states_without_noise(
    base: Base, speech: CachedClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = LossWatcher()
    learned = train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path / "kept", listener)
    assert len(listener.losses) == CONFIG.hearing_epochs
    assert (learned.name, learned.settings) == (base.name, base.settings)
    assert learned.digest != base.digest
    # As a model keeps it: in half precision, which loses nothing more.
    for name, weights in learned.weights.items():
        assert torch.equal(weights, weights.half().float()), name
        assert weights.shape == base.weights[name].shape

    def measure(one: Base) -> float:
        """How far it is in recordings of another epoch from the base without them."""
        encoders = []
        for weights in (one.weights, base.weights):
            encoders.append(create_encoder(base.settings, LIMIT).eval())
            encoders[-1].model.load_state_dict(weights)
        scales = robustness._measure(encoders[1], speech, CONFIG)
        imitation = Imitation(encoders[0], encoders[1], scales)
        with torch.inference_mode():
            return float(np.mean([imitation(*batch[:2]).item() for batch in draw(speech, 99)]))

    assert measure(learned) < 0.9 * measure(base)

    # What was damaged since is learned once more, and is the same.
    (kept,) = (tmp_path / "kept").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])
    again = train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path / "kept", listener)
    assert (again.digest, kept.read_bytes()) == (learned.digest, whole)

    # Nothing is learned twice, and nothing lies about.
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".safetensors"]
    monkeypatch.setattr(robustness, "fit_network", None)
    # Also not for another head, nor where clips are mixed for it.
    for config in (CONFIG, replace(CONFIG, epochs=7, versions=1, mixup=0.5, group_by="clip")):
        again = train_robust_encoder(base, LIMIT, speech, config, tmp_path / "kept", listener)
        assert again.digest == learned.digest
    with pytest.raises(TypeError):  # of None
        train_robust_encoder(
            base, LIMIT, speech, replace(CONFIG, seed=1), tmp_path / "kept", listener
        )


def test_what_was_interrupted_goes_on(base: Base, speech: CachedClips, tmp_path: Path) -> None:
    class Impatient(Watcher):
        def report(self, progress: TrainingProgress) -> None:
            if progress.ends_epoch and progress.epoch == 2:
                raise KeyboardInterrupt

    whole = train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path / "whole", Watcher())
    with pytest.raises(KeyboardInterrupt):
        train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path / "parts", Impatient())
    listener = LossWatcher()
    parts = train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path / "parts", listener)
    assert len(listener.losses) == CONFIG.hearing_epochs - 2
    assert parts.digest == whole.digest


@pytest.mark.parametrize(("epoch", "at_its_end"), [(2, False), (2, True), (4, True)])
def test_trainings_at_once_may_share_what_they_learn(
    base: Base, speech: CachedClips, tmp_path: Path, epoch: int, at_its_end: bool
) -> None:
    other: list[Base] = []

    class Overtaken(Watcher):
        """While this one is in an epoch, another learns the same, and is done."""

        def report(self, progress: TrainingProgress) -> None:
            if (progress.epoch, progress.ends_epoch, other) == (epoch, at_its_end, []):
                other.append(train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path, Watcher()))

    found = train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path, Overtaken())
    assert found.digest == other[0].digest != base.digest
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_who_is_done_later_takes_what_is_there(
    base: Base, speech: CachedClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, hearing_epochs=1)
    theirs = {name: one.half() for name, one in base.weights.items()}

    def overtake(*given: Any, **options: Any) -> Fitted:
        fitted = fit_network(*given, **options)
        save_file(theirs, given[3].with_suffix(".safetensors"))
        return fitted

    monkeypatch.setattr(robustness, "fit_network", overtake)
    found = train_robust_encoder(base, LIMIT, speech, config, tmp_path / "other", Watcher())
    assert all(torch.equal(found.weights[name], one.float()) for name, one in theirs.items())
    assert [path.suffix for path in (tmp_path / "other").iterdir()] == [".safetensors"]

    # Where nobody else was done, what cannot be written is told.
    def lose(*given: Any, report: Any, **options: Any) -> Fitted:
        def remove(_: TrainingProgress) -> None:
            rmtree(given[3], ignore_errors=True)

        return fit_network(*given, report=remove, **options)

    monkeypatch.setattr(robustness, "fit_network", lose)
    with pytest.raises(OutputError, match=r"checkpoint\.safetensors: cannot be written"):
        train_robust_encoder(base, LIMIT, speech, config, tmp_path / "gone", Watcher())


def test_the_same_samples_at_another_rate_are_other_speech(
    base: Base, speech: CachedClips, tmp_path: Path
) -> None:
    config = replace(CONFIG, hearing_epochs=1)
    entries = [one._replace(n_samples=2 * one.n_samples // 3) for one in speech.entries]
    shorter = replace(speech, entries=tuple(entries))
    assert shorter.hashes == speech.hashes
    learned = [
        train_robust_encoder(base, LIMIT, one, config, tmp_path, Watcher()).digest
        for one in (speech, shorter, speech)
    ]
    assert learned[0] == learned[2] != learned[1]


def test_weights_learned_without_a_codec_are_not_those_with_it(
    base: Base, speech: CachedClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CODEC_PROBABILITY", 1.0)
    config, learned = replace(CONFIG, hearing_epochs=1), []
    for available in (("mulaw",), ("mulaw", "gsm"), ("mulaw",)):
        monkeypatch.setattr(batches, "codec_available", available.__contains__)
        learned.append(
            train_robust_encoder(base, LIMIT, speech, config, tmp_path, Watcher()).digest
        )
    assert learned[0] == learned[2] != learned[1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", [kind for kind in TINY if kind != "whisper"])
def test_every_architecture_learns_so(kind: str, speech: CachedClips, tmp_path: Path) -> None:
    save_checkpoint(kind, tmp_path / "tiny")
    base = load_base(str(tmp_path / "tiny"))
    listener = LossWatcher()
    config = replace(CONFIG, hearing_epochs=3)
    learned = train_robust_encoder(base, NYQUIST, speech, config, tmp_path / "kept", listener)
    assert listener.losses[-1] < listener.losses[0]
    encoder = create_encoder(learned.settings)
    encoder.model.load_state_dict(learned.weights)


def test_memory_that_does_not_suffice_is_told(
    speech: CachedClips, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(robustness, "_find_rows", fail)
    with pytest.raises(ConfigError, match="the encoder does not fit in the free memory of cpu"):
        train_robust_encoder(base, LIMIT, speech, CONFIG, tmp_path, Watcher())
