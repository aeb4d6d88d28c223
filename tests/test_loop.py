"""The training loop: what each step does, and that a training can go on where it was killed."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom
from torch import Tensor, nn

from sercli.errors import ConfigError, ModelError, OutputError, TrainingError
from sercli.training.config import CnnConfig, NeuralConfig
from sercli.training.networks import course, loop
from sercli.training.networks.checkpoints import load_checkpoint
from sercli.training.networks.cnn import CnnCourse
from sercli.training.networks.history import CHECKPOINT_FILE, EpochRecord, draw_history
from sercli.training.networks.loop import (
    Fitted,
    TrainingBatch,
    TrainingProgress,
    Validation,
    cross_entropy,
    fit_network,
    mix,
    schedule,
    update_average,
)
from sercli.training.networks.optimiser import Optimiser

CONFIG = NeuralConfig(
    epochs=6, batch_size=8, learning_rate=0.02, averaging=0.9, mixup=0.5, device="cpu"
)
N_BATCHES = 5
FINGERPRINT = {"clips": "abc", "strides": (1, 2)}


class Toy(nn.Module):
    """Tells loud beginnings from loud ends; with all that a resumed training must carry on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
        )

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        assert int(lengths.max()) <= waveforms.shape[1]
        halves = [half.square().mean(dim=1) for half in waveforms.chunk(2, dim=1)]
        scores: Tensor = self.layers(torch.stack(halves, dim=1))
        return scores


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer to draw than these networks to train."""
    monkeypatch.setattr(loop, "write_curves", lambda *_: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toy() -> Toy:
    torch.manual_seed(3)
    return Toy()


def toy_batches(epoch: int) -> Iterator[TrainingBatch]:
    rng = np.random.default_rng([7, epoch])
    for _ in range(N_BATCHES):
        classes = rng.integers(2, size=8)
        waveforms = rng.standard_normal((8, 40)).astype(np.float32)
        waveforms[classes == 0, :20] *= 2
        waveforms[classes == 1, 20:] *= 2
        targets = np.eye(2, dtype=np.float32)[classes]
        yield TrainingBatch(
            torch.from_numpy(waveforms), torch.full((8,), 40), torch.from_numpy(targets)
        )


@dataclass(frozen=True)
class Batches:
    make: Callable[[int], Iterable[TrainingBatch]]
    number: int

    def __len__(self) -> int:
        return self.number

    def __call__(self, epoch: int) -> Iterable[TrainingBatch]:
        return self.make(epoch)


TOY_BATCHES = Batches(toy_batches, N_BATCHES)


def validate(network: nn.Module) -> Validation:
    assert not network.training
    losses, right = [], []
    with torch.inference_mode():
        for batch in toy_batches(1000):
            logits = network(batch.waveforms, batch.lengths)
            losses.append(cross_entropy(logits, batch.targets).item())
            right.append((logits.argmax(1) == batch.targets.argmax(1)).float().mean().item())
    return Validation(float(np.mean(losses)), float(np.mean(right)))


def fit(folder: Path, config: NeuralConfig = CONFIG, *, resume: bool = False) -> Fitted:
    return fit_network(
        toy(),
        TOY_BATCHES,
        config,
        folder,
        validate=validate,
        fingerprint=FINGERPRINT,
        resume=resume,
    )


def test_schedule_rises_along_a_line_and_falls_along_a_cosine() -> None:
    factors = [schedule(step, 10, 0.2) for step in range(10)]
    assert factors[:3] == pytest.approx([0.5, 1, 1])
    assert factors[6] == pytest.approx(0.5)  # half of the way down
    assert factors[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert schedule(0, 10, 0) == 1


def test_cross_entropy_of_soft_targets() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25) + math.log(0.8)) / 2
    assert cross_entropy(logits, targets).item() == pytest.approx(expected)


def test_mixing_levels_first() -> None:
    batch = TrainingBatch(
        torch.tensor([[3.0, -3.0, 0.0, 0.0], [0.1, 0.1, 0.1, -0.1]]),
        torch.tensor([2, 4]),
        torch.eye(2),
    )
    mixed = mix(batch, torch.tensor([1, 0]), 0.75)
    first, second = torch.tensor([1.0, -1, 0, 0]), torch.tensor([1.0, 1, 1, -1])
    torch.testing.assert_close(mixed.waveforms[0], 0.75 * first + 0.25 * second, atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed.waveforms[1], 0.75 * second + 0.25 * first, atol=1e-4, rtol=0)
    assert mixed.lengths.tolist() == [4, 4]
    assert mixed.targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_mixing_keeps_the_scale_of_rows() -> None:
    rows = torch.tensor([[3.0, -3.0], [0.0, 1.0]])
    mixed = mix(TrainingBatch(rows, torch.ones(2), torch.eye(2)), torch.tensor([1, 0]), 0.75)
    torch.testing.assert_close(mixed.waveforms, torch.tensor([[2.25, -2.0], [0.75, 0.0]]))


def test_average_moves_towards_the_network() -> None:
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(average.weight, 1.0)
    nn.init.constant_(network.weight, 3.0)
    assert network.running_var is not None
    assert network.num_batches_tracked is not None
    network.running_var.fill_(11.0)
    network.num_batches_tracked.fill_(5)
    update_average(average, network, 0.9)
    state = average.state_dict()
    assert state["weight"].item() == pytest.approx(1.2)
    assert state["running_var"].item() == pytest.approx(2.0)
    assert state["num_batches_tracked"].item() == 5


def test_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    network = toy()
    state = torch.random.get_rng_state()
    fitted = fit_network(
        network, TOY_BATCHES, CONFIG, tmp_path, validate=validate, report=seen.append
    )
    uars = [record.dev_uar for record in fitted.records]
    assert len(uars) == 6
    assert uars[fitted.best_epoch - 1] == max(uar or 0 for uar in uars) > 0.9
    # The weights are those of the best epoch, not of the last.
    assert validate(fitted.network).uar == uars[fitted.best_epoch - 1]
    assert (seen[0].epoch, seen[0].step, seen[0].n_steps, seen[0].dev_uar) == (1, 1, 5, None)
    assert (seen[-1].epoch, seen[-1].step, seen[-1].best_uar) == (6, 5, max(u or 0 for u in uars))
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,learning_rate,loss,dev_loss,dev_uar,seconds"
    assert [float(row.split(",")[4]) for row in rows[1:]] == uars
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert torch.equal(torch.random.get_rng_state(), state)


class Flat(nn.Module):
    """Scores by the first two samples, so that every step can be done again by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        scores: Tensor = self.layer(waveforms[:, :2])
        return scores

    def flat(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()])


@pytest.mark.usefixtures("undrawn")
def test_steps_follow_their_own_gradients_and_the_average_follows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = Flat()
    config = replace(CONFIG, epochs=3, mixup=0, max_norm=0.4, warmup=0.2, averaging=0.3)
    batches = [batch for epoch in range(3) for batch in toy_batches(epoch)]
    average = network.flat()
    averages: list[Tensor] = []
    rates: list[float] = []
    norms: list[float] = []
    losses: list[float] = []
    step = Optimiser.step

    def follow(self: Optimiser) -> None:
        nonlocal average
        batch, parameters = batches[len(rates)], list(network.parameters())
        loss = cross_entropy(network(*batch[:2]), batch.targets)
        losses.append(loss.item())
        fresh = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        norms.append(float(fresh.norm()))
        given = torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])
        torch.testing.assert_close(given, fresh * min(1, 0.4 / norms[-1]), rtol=1e-4, atol=1e-6)
        rates.append(self._parts["adamw"].param_groups[0]["lr"])
        step(self)
        # At first, the average forgets the random weights faster than later.
        decay = min(0.3, (1 + len(rates)) / (10 + len(rates)))
        average = decay * average + (1 - decay) * network.flat()
        averages.append(average)

    def compare(found: nn.Module) -> Validation:
        assert isinstance(found, Flat)
        torch.testing.assert_close(found.flat(), average)
        return Validation(1.0, (0.5, 0.7, 0.6)[len(rates) // N_BATCHES - 1])

    monkeypatch.setattr(Optimiser, "step", follow)
    monkeypatch.setattr(loop, "choose_precision", lambda _: torch.float32)
    fitted = fit_network(network, TOY_BATCHES, config, tmp_path, validate=compare)
    assert rates == pytest.approx([0.02 * schedule(number, 15, 0.2) for number in range(15)])
    assert min(norms) < 0.4 < max(norms)
    assert fitted.best_epoch == 2
    assert isinstance(fitted.network, Flat)
    torch.testing.assert_close(fitted.network.flat(), averages[9])
    found = [record.loss for record in fitted.records]
    assert found == pytest.approx(np.reshape(losses, (3, 5)).mean(axis=1), rel=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_share_of_batches_is_mixed_mostly_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    def watch(batch: TrainingBatch, order: Tensor, share: float) -> TrainingBatch:
        assert sorted(order.tolist()) == list(range(8))
        shares.append(share)
        return batch

    monkeypatch.setattr(loop, "mix", watch)
    one = list(toy_batches(0)) * 60
    config = replace(CONFIG, epochs=1, mixup=0.7)
    fit_network(Flat(), Batches(lambda _: one, 300), config, tmp_path)
    low, high = binom.interval(0.999, 300, 0.7)
    assert low <= len(shares) <= high
    # The weight of the clip itself is the greater of two that sum to 1.
    assert 0.5 <= min(shares) < 0.55
    low, high = binom.interval(0.999, len(shares), 2 * beta.cdf(0.1, 0.4, 0.4))
    assert low <= sum(share > 0.9 for share in shares) <= high


@pytest.fixture(params=["mps"])
def other_device(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> list[tuple[str, object]]:
    """A GPU, as far as the loop knows: what was moved there, and seeded."""
    there = torch.device(request.param)
    told: list[tuple[str, object]] = []
    move = Tensor.to

    def spy(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if args[:1] != (there,):
            return move(self, *args, **options)
        told.append(("waits", not (options.get("non_blocking") or args[2:3] == (True,))))
        return self

    @contextmanager
    def seed(_: int, device: torch.device) -> Iterator[None]:
        told.append(("seeded", device))
        yield

    monkeypatch.setattr(Tensor, "to", spy)
    monkeypatch.setattr(loop, "seeded", seed)
    monkeypatch.setattr(loop, "choose_device", lambda _: there)
    monkeypatch.setattr(loop, "choose_precision", lambda _: torch.float32)
    return told


@pytest.mark.usefixtures("undrawn")
def test_a_gpu_has_read_what_was_drawn_before_that_is_freed(
    tmp_path: Path, other_device: list[tuple[str, object]]
) -> None:
    config = replace(CONFIG, epochs=1, mixup=0)
    fit_network(toy(), TOY_BATCHES, config, tmp_path)
    n_weights = len(toy().state_dict())
    assert other_device.count(("seeded", torch.device("mps"))) == 1
    assert other_device.count(("waits", True)) == n_weights + 3 * N_BATCHES
    assert len(other_device) == n_weights + 3 * N_BATCHES + 1


@pytest.mark.usefixtures("undrawn", "other_device")
@pytest.mark.parametrize(
    ("other_device", "is_cuda"), [("cuda:1", True), ("mps", False)], indirect=["other_device"]
)
def test_steps_and_their_gradients_are_repeatable(tmp_path: Path, is_cuda: bool) -> None:
    cudnn: Any = torch.backends.cudnn
    seen: list[tuple[bool, str]] = []

    def look(*_: object) -> None:
        seen.append((cudnn.deterministic, cudnn.conv.fp32_precision))

    def find_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        look()
        outputs.register_hook(look)  # type: ignore[no-untyped-call]
        return cross_entropy(outputs, targets)

    def validate_too(network: nn.Module) -> Validation:
        look()
        return validate(network)

    config = replace(CONFIG, epochs=2, mixup=0)
    fit_network(toy(), TOY_BATCHES, config, tmp_path, loss=find_loss, validate=validate_too)
    during = (True, "ieee") if is_cuda else (False, "tf32")
    assert seen == [during] * 2 * (2 * N_BATCHES + 1)
    look()
    assert seen[-1] == (False, "tf32")


def test_scores_of_clips_are_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.device, torch.dtype]] = []

    @contextmanager
    def spy(device: torch.device, precision: torch.dtype) -> Iterator[None]:
        asked.append((device, precision))
        yield
        asked.append((device, precision))

    monkeypatch.setattr(course, "computing", spy)
    waveforms = [np.full(n, n, np.float32) for n in (40, 60, 50)]

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            assert len(asked) == 1
            return self.weight * waveforms.sum(dim=1, keepdim=True) / lengths[:, None]

    clips: Any = SimpleNamespace(lengths=[40, 60, 50])
    scores = course.score_clips(Mean(), clips, waveforms.__getitem__)
    assert scores.ravel().tolist() == [40, 60, 50]
    assert asked == [(torch.device("cpu"), torch.float32)] * 2


def test_scores_of_a_long_clip_are_the_mean_of_its_pieces() -> None:
    class Longest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            assert lengths.max() <= 30 * 16_000
            return self.weight + waveforms.amax(dim=1, keepdim=True)

    # Augmentation may have lengthened them.
    waveforms = [np.repeat([1.0, 2.0, 6.0], 170_000), np.repeat([5.0, 4.0], 100)]
    clips: Any = SimpleNamespace(lengths=[470_000, 200])
    found = course.score_clips(Longest(), clips, lambda i: waveforms[i].astype(np.float32))
    assert found.tolist() == [[4.0], [5.0]]


@pytest.mark.usefixtures("undrawn", "idle_gpus")
def test_a_training_on_the_cpu_leaves_gpus_alone(tmp_path: Path) -> None:
    fitted = [fit(tmp_path / name, replace(CONFIG, epochs=2)) for name in ("one", "two")]
    assert same_weights(*fitted)
    cnn = CnnCourse(CnnConfig(seed=5, device="cpu"))
    state = torch.random.get_rng_state()
    drawn = [cnn.create(lambda: nn.Linear(2, 2)).state_dict()["weight"] for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(drawn[0], nn.Linear(2, 2).weight)
    assert torch.equal(*drawn)


@pytest.mark.usefixtures("undrawn")
def test_only_what_is_multiplied_with_decays_and_groups_have_rates(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network

        def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            scores: Tensor = self.layers(waveforms[:, :2]) * 0.0  # only decay is left
            return scores

    config = replace(
        CONFIG, epochs=1, warmup=0, weight_decay=0.5, learning_rate=0.1, mixup=0, averaging=0
    )
    before = [parameter.detach().clone() for parameter in network.parameters()]
    groups = [(list(network[0].parameters()), 1.0), (list(network[1].parameters()), 0.0)]
    one = list(toy_batches(0))[:1]
    fit_network(Still(), Batches(lambda _: one, 1), config, tmp_path, groups=groups)
    after = list(network.parameters())
    torch.testing.assert_close(after[0], before[0] * (1 - 0.1 * 0.5))
    for index in (1, 2, 3):  # a bias, and the group whose rate is 0
        assert torch.equal(after[index], before[index])


@pytest.mark.usefixtures("undrawn")
def test_stops_early_without_better_uar(tmp_path: Path) -> None:
    uars = iter([0.5, 0.7, 0.7, 0.6, 0.6, 0.9])
    losses = iter([1.0, 1.0, 0.9, 0.8, 0.8, 0.1])
    config = replace(CONFIG, patience=2)
    fitted = fit_network(
        toy(),
        TOY_BATCHES,
        config,
        tmp_path,
        validate=lambda _: Validation(next(losses), next(uars)),
    )
    assert [record.dev_uar for record in fitted.records] == [0.5, 0.7, 0.7, 0.6, 0.6]
    assert fitted.best_epoch == 3  # of equal UAR, the one with the lower loss


@pytest.mark.usefixtures("undrawn")
def test_without_development_clips_the_last_epoch_counts(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=3, patience=1)
    fitted = fit_network(toy(), TOY_BATCHES, config, tmp_path)
    assert (len(fitted.records), fitted.best_epoch) == (3, 3)
    assert (tmp_path / "history.csv").read_text().splitlines()[1].split(",")[3:5] == ["", ""]


@pytest.mark.usefixtures("undrawn")
def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    def broken(epoch: int) -> Iterator[TrainingBatch]:
        for number, batch in enumerate(toy_batches(epoch)):
            bad = epoch == 1 and number == 2
            yield batch._replace(waveforms=batch.waveforms * math.inf) if bad else batch

    config = replace(CONFIG, mixup=0)
    with pytest.raises(
        TrainingError, match=r"epoch 2, step 3: the loss is nan.*Lower --learning-rate.*0\.02"
    ):
        fit_network(toy(), Batches(broken, N_BATCHES), config, tmp_path)
    assert len(load_checkpoint(tmp_path / CHECKPOINT_FILE).records) == 1


def fit_to_fail(folder: Path, error: RuntimeError) -> None:
    def fail(*_: Tensor) -> Tensor:
        raise error

    fit_network(toy(), TOY_BATCHES, CONFIG, folder, loss=fail)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.89 GiB)"),
    ],
)
def test_a_batch_that_does_not_fit_into_memory(tmp_path: Path, error: RuntimeError) -> None:
    with pytest.raises(
        TrainingError,
        match=r"epoch 1, step 1: 8 clips of up to 40 samples do not fit in the memory of cpu; "
        "lower --batch-size",
    ) as raised:
        fit_to_fail(tmp_path, error)
    assert raised.value.__cause__ is error


def test_an_optimiser_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Optimiser, "step", fail)
    with pytest.raises(TrainingError, match="epoch 1, step 1: 8 clips of up to 40 samples do not"):
        fit_network(toy(), TOY_BATCHES, CONFIG, tmp_path)


def test_a_network_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network = toy()
    monkeypatch.setattr(network, "to", fail)
    with pytest.raises(ConfigError, match="the network does not fit in the free memory of cpu"):
        fit_network(network, TOY_BATCHES, CONFIG, tmp_path)


def test_another_error_of_a_step_stays_what_it_is(tmp_path: Path) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as raised:
        fit_to_fail(tmp_path, error)
    assert raised.value is error


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
torch.set_num_threads(1)
import test_loop as toys
from sercli.training.networks import loop

loop.write_curves = lambda *_: None
place, when = sys.argv[2].split()
if place == "validate":
    def validate(network):
        validate.calls += 1
        if validate.calls == int(when):
            os._exit(9)
        return original(network)
    validate.calls, original, toys.validate = 0, toys.validate, validate
elif place == "saved":
    def save(checkpoint, *more):
        original(checkpoint, *more)
        if len(checkpoint.records) == int(when):
            os._exit(9)
    original, loop.save_checkpoint = loop.save_checkpoint, save
toys.fit(Path(sys.argv[1]))
"""


def same_weights(first: Fitted, second: Fitted) -> bool:
    states = first.network.state_dict(), second.network.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


@pytest.mark.usefixtures("undrawn", "one_thread")
@pytest.mark.parametrize("moment", ["validate 4", "saved 3"])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, moment: str) -> None:
    expected = fit(tmp_path / "whole")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), moment, here]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == 9
    assert len(load_checkpoint(tmp_path / "killed" / CHECKPOINT_FILE, FINGERPRINT).records) == 3
    found = fit(tmp_path / "killed", resume=True)
    assert same_weights(found, expected)
    assert [replace(r, seconds=0) for r in found.records] == [
        replace(r, seconds=0) for r in expected.records
    ]
    # And it would not be the same by itself: another seed ends elsewhere.
    other = fit(tmp_path / "other", replace(CONFIG, seed=1))
    assert not same_weights(other, expected)


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, replace(CONFIG, epochs=1))
    path = tmp_path / CHECKPOINT_FILE
    assert load_checkpoint(path, FINGERPRINT).step == N_BATCHES
    with pytest.raises(ConfigError, match=r"clips is 'xyz', expected 'abc'; use the same"):
        load_checkpoint(path, FINGERPRINT | {"clips": "xyz"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"is not a checkpoint of this version, or is damaged"):
        load_checkpoint(path, FINGERPRINT)
    with pytest.raises(ModelError, match=r": no checkpoint to resume from"):
        fit(tmp_path / "none", resume=True)


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_that_cannot_be_written_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path, replace(CONFIG, epochs=1))
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    names = sorted(os.listdir(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoint.*cannot be written: No space left"):
        fit(tmp_path)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == names


def test_curves_mark_the_best_epoch() -> None:
    records = [EpochRecord(i + 1, 0.1, 2 - 0.1 * i, 1.5, 0.3 + 0.1 * i, 1.0) for i in range(4)]
    left, right = draw_history(records, 3).axes
    losses: Any = left.lines[0].get_xydata()
    marked: Any = right.lines[1].get_xydata()
    np.testing.assert_allclose(losses, [[1.0, 2.0], [2.0, 1.9], [3.0, 1.8], [4.0, 1.7]])
    assert marked.ravel().tolist() == pytest.approx([3, 0.5])
    bare = [replace(record, dev_loss=None, dev_uar=None) for record in records]
    assert len(draw_history(bare, 4).axes) == 1
