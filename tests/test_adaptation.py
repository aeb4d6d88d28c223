"""Baselines: the mix of a group, what is made of it, how that is learned, and what it is worth."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from sercli import adaptation
from sercli.adaptation import (
    MAX_SHARPENING,
    Adapter,
    AdapterSettings,
    centre_log_probabilities,
    describe_mix,
    explain,
    find_concentration,
    find_likely_shares,
    measure_moments,
)
from sercli.calibration import Calibration, fit_temperature
from sercli.datasets import Clip
from sercli.errors import ConfigError, DatasetError, ModelError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.mixes import EVEN, SINGLE, draw_group, list_mixes, measure_mixes
from sercli.labels import EMOTIONS
from sercli.training.adapters.adaptation import MAX_CHANGE, add_adapter, fit_adapter, fit_sharpening
from sercli.training.adapters.groups import Examples, draw_groups, lean
from sercli.training.adapters.network import AdapterNetwork, describe_group
from sercli.training.adapters.trainer import AdapterTrainer
from sercli.training.cache import CachedClips, Entry
from sercli.training.config import AdapterConfig, SvmConfig
from sercli.training.run import _learn
from sercli.training.teachers import Teacher
from sercli.training.trainer import Learned

NEUTRAL = EMOTIONS.index("neutral")
SMALL = AdapterConfig(
    n_hidden=16,
    n_trust=8,
    n_context=8,
    epochs=40,
    learning_rate=1e-2,
    calibration_groups=200,
    single_shares=(0.1,),
)

FloatArray = NDArray[np.float64]


def draw_probabilities(rng: np.random.Generator, n: int, n_labels: int = 6) -> FloatArray:
    return rng.dirichlet(np.full(n_labels, 0.5), n)


def create_network(
    rng: np.random.Generator, n_labels: int = 6, shrinkage: float = AdapterSettings().shrinkage
) -> AdapterNetwork:
    """Return one of random weights, none of them zero, whose layers all have different widths."""
    config = AdapterConfig(n_hidden=5, n_trust=4, n_context=7)
    centres = torch.from_numpy(rng.normal(0, 1, (n_labels, n_labels)).astype(np.float32))
    network = AdapterNetwork(centres, config, shrinkage)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.5, parameter.shape)))
    return network


def create_adapter(
    rng: np.random.Generator,
    n_labels: int = 6,
    settings: AdapterSettings | None = None,
    network: AdapterNetwork | None = None,
) -> Adapter:
    """Return one with the weights of a network as it is trained, by default of a random one."""
    settings = settings or AdapterSettings()
    network = network or create_network(rng, n_labels, settings.shrinkage)
    scaling = {"mean": rng.normal(0, 0.5, n_labels), "scale": rng.uniform(0.5, 1.5, n_labels)}
    calibration = Calibration("temperature", 2 * np.eye(n_labels), np.zeros(n_labels))
    return Adapter(settings, calibration, {**scaling, **network.tensors()})


# The mix of a group.


def test_likely_shares_are_those_of_the_mix(rng: np.random.Generator) -> None:
    # Of each segment, its label has half of the probability, whatever the others are.
    classes = rng.permutation(np.repeat([0, 1, 2], [900, 90, 10]))
    probabilities = np.where(classes[:, None] == np.arange(3), 0.5, 0.25)
    alone = probabilities.mean(axis=0)
    likely = find_likely_shares(probabilities)
    assert likely.sum() == pytest.approx(1)
    assert alone[0] == pytest.approx(0.475)
    assert 0.8 < likely[0] < 0.95


def test_a_few_segments_say_little_of_the_mix() -> None:
    one = find_likely_shares(np.array([[0.8, 0.1, 0.1]]))
    many = find_likely_shares(np.tile([0.8, 0.1, 0.1], (50, 1)))
    assert 0.8 < one[0] < many[0]
    assert many[0] > 0.97
    # One segment of odds of 4 to 1, and one of each label that is there before: five rounds.
    share = 0.8
    for _ in range(5):
        odds = 4 * (1 + share) / (1 + (1 - share))
        share = odds / (1 + odds)
    found = find_likely_shares(np.array([[0.8, 0.2]]))
    np.testing.assert_allclose(found, [share, 1 - share], rtol=1e-9)


def test_what_is_impossible_has_a_bound() -> None:
    """Adapters are trained with these numbers: with others, those that are stored would be off."""
    certain = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(
        centre_log_probabilities(certain), [[4 * np.log(10), -4 * np.log(10)]], rtol=1e-6
    )
    expected = [1, 0, np.log(1.02 / 0.52), np.log(0.02 / 0.52), 0]
    np.testing.assert_allclose(describe_mix(certain), expected)


def test_explanations_are_alone_likely_and_even() -> None:
    probabilities = np.array([[0.6, 0.4], [0.2, 0.8]])
    found = explain(probabilities, np.array([0.3, 0.7]))
    np.testing.assert_allclose(found, [[0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])


def test_an_even_mix_has_logarithms_of_zero() -> None:
    described = describe_mix(np.full((20, 4), 0.25))
    np.testing.assert_allclose(described, [0.25] * 4 + [0] * 4 + [np.log(20) / 4], atol=1e-12)
    # More than are learned from are trusted no more.
    assert describe_mix(np.full((5_000, 4), 0.25))[-1] == describe_mix(np.full((80, 4), 0.25))[-1]


def test_moments_of_parts_are_those_of_the_whole(rng: np.random.Generator) -> None:
    rows = rng.normal(1e6, 0.01, (100, 3))
    mean, deviation = measure_moments([rows[:7], rows[7:80], rows[80:]])
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(deviation, rows.std(axis=0), rtol=1e-6)


# What is made of it.


@pytest.mark.parametrize("n_labels", [2, 6])
def test_an_adapter_computes_what_was_trained(rng: np.random.Generator, n_labels: int) -> None:
    network = create_network(rng, n_labels)
    adapter = create_adapter(rng, n_labels, network=network)
    stored = adapter.tensors()
    groups = [draw_probabilities(rng, n, n_labels) for n in (1, 9, 40)]
    scaled = [(centre_log_probabilities(one) - stored["mean"]) / stored["scale"] for one in groups]
    described = [
        describe_group(inputs.clip(-5, 5).astype(np.float32), one)
        for inputs, one in zip(scaled, groups, strict=True)
    ]
    with torch.inference_mode():
        expected = network(described).numpy()
    found = np.concatenate([adapter.score(one) for one in groups])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Groups of the same segments in other company have other scores.
    assert np.abs(adapter.score(groups[2][:9])[0] - found[10]).max() > 0.01


def test_a_group_of_equal_segments_can_be_trained_on(rng: np.random.Generator) -> None:
    network, equal = create_network(rng), np.repeat(draw_probabilities(rng, 1), 7, axis=0)
    inputs = [rng.normal(0, 1, (5, 6)), np.full((7, 6), 0.5)]
    groups = [draw_probabilities(rng, 5), equal]
    described = [
        describe_group(one.astype(np.float32), group)
        for one, group in zip(inputs, groups, strict=True)
    ]
    network(described).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_every_length_of_every_tensor_counts(rng: np.random.Generator) -> None:
    adapter = create_adapter(rng)
    tensors = adapter.tensors()
    for name, tensor in tensors.items():
        for axis in range(tensor.ndim):
            longer = np.concatenate((tensor, tensor.take([0], axis)), axis)
            with pytest.raises(ModelError, match=f"has the shapes .*'{name}'"):
                Adapter(adapter.settings, adapter.calibration, {**tensors, name: longer})


def test_neither_order_nor_blocks_matter(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, probabilities = create_adapter(rng), draw_probabilities(rng, 30)
    expected = adapter.adapt(probabilities)
    assert np.abs(expected - probabilities).max() > 0.05
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    order = rng.permutation(30)
    np.testing.assert_allclose(adapter.adapt(probabilities[order]), expected[order], atol=1e-12)
    monkeypatch.setattr(adaptation, "BLOCK_SEGMENTS", 7)
    np.testing.assert_allclose(adapter.adapt(probabilities), expected, atol=1e-12)


class Watched:
    """Rows of a group, of which only slices can be had."""

    def __init__(self, probabilities: FloatArray) -> None:
        self.rows = probabilities.copy()
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> FloatArray:
        found = self.rows[part]
        self.sizes.append(len(found))
        return found

    def __setitem__(self, part: slice, rows: FloatArray) -> None:
        self.rows[part] = rows


def test_of_a_group_one_block_is_had_at_a_time(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(least=4, sharpening=0.7))
    probabilities = draw_probabilities(rng, 30)
    expected = adapter.adapt(probabilities)
    monkeypatch.setattr(adaptation, "BLOCK_SEGMENTS", 7)
    group = Watched(probabilities)
    adapter.rescore(group)
    assert set(group.sizes) == {7, 2}
    np.testing.assert_allclose(group.rows, expected, atol=1e-12)
    few = Watched(probabilities[:3])
    adapter.rescore(few)
    np.testing.assert_array_equal(few.rows, probabilities[:3])


def test_what_was_given_stays_as_it_is(rng: np.random.Generator) -> None:
    probabilities = draw_probabilities(rng, 30)
    before = probabilities.copy()
    create_adapter(rng).adapt(probabilities)
    np.testing.assert_array_equal(probabilities, before)


def test_small_groups_stay_as_they_are(rng: np.random.Generator) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(least=4))
    for n, same in ((0, True), (3, True), (4, False)):
        probabilities = draw_probabilities(rng, n)
        assert np.array_equal(adapter.adapt(probabilities), probabilities) is same


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.full((8, 3), 1 / 3), r"of the shape \(8, 3\)"),
        (np.full((2, 7), 1 / 7), r"of the shape \(2, 7\)"),
        (np.full(6, 1 / 6), r"of the shape \(6,\)"),
        ([[1.0] * 6, [1.0]], r"\[\[1\.0, .*\], \[1\.0\]\]"),
        ("neutral", "'neutral'"),
    ],
)
def test_probabilities_of_another_shape_are_refused(
    given: Any, found: str, rng: np.random.Generator
) -> None:
    adapter = create_adapter(rng)
    with pytest.raises(
        ConfigError,
        match=f"^probabilities are {found}; expected rows of 6 numbers from 0 to 1, one for each",
    ):
        adapter.adapt(given)


@pytest.mark.parametrize(
    "row", [[np.nan] * 6, [100.0, 0, 0, 0, 0, 0], [1.5, -0.5, 0, 0, 0, 0], [0] * 6]
)
def test_rows_that_are_no_probabilities_are_refused(
    row: list[float], rng: np.random.Generator
) -> None:
    adapter, probabilities = create_adapter(rng), draw_probabilities(rng, 10)
    for row_of_table in adapter.adapt(probabilities.round(3)).sum(axis=1):
        assert row_of_table == pytest.approx(1)
    probabilities[3] = row
    with pytest.raises(ConfigError, match=r"in row 3; expected rows of 6 numbers from 0 to 1"):
        adapter.adapt(probabilities)


def test_its_calibration_comes_last(rng: np.random.Generator) -> None:
    adapter, probabilities = create_adapter(rng), draw_probabilities(rng, 10)
    scores = 2 * adapter.score(probabilities)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.adapt(probabilities), expected)


def test_concentration_is_one_less_the_relative_entropy() -> None:
    shares = np.array([np.full(6, 1 / 6), np.eye(6)[2], [0.5, 0, 0.5, 0, 0, 0]])
    expected = [0, 1, 1 - np.log(2) / np.log(6)]
    np.testing.assert_allclose(find_concentration(shares), expected, atol=1e-6)


def test_a_group_of_one_label_is_classified_more_surely(rng: np.random.Generator) -> None:
    settings = AdapterSettings(sharpening=0.7)
    adapter = create_adapter(rng, settings=settings)
    even = np.tile(np.eye(6), (4, 1))
    alike = np.tile(np.eye(6)[3], (24, 1))
    assert adapter.find_sharpness([even]) == pytest.approx(1)
    factor = np.exp(0.7 * find_concentration(softmax(2 * alike[0])))
    assert factor > 1.2
    assert adapter.find_sharpness([alike[:5], alike[5:]]) == pytest.approx(factor)
    # Its scores are multiplied before they are calibrated.
    probabilities = draw_probabilities(rng, 24)
    scores = adapter.score(probabilities)
    expected = softmax(adapter.find_sharpness([scores]) * 2 * scores, axis=1)
    np.testing.assert_allclose(adapter.adapt(probabilities), expected, atol=1e-12)
    assert np.abs(expected - softmax(2 * scores, axis=1)).max() > 0.01


def test_sharpening_is_found_by_the_likelihood(rng: np.random.Generator) -> None:
    # What is true is drawn from the probabilities of an adapter that is to be found.
    truth = create_adapter(rng, settings=AdapterSettings(sharpening=0.8))
    scores, classes = [], []
    for number in range(400):
        favour = np.eye(6)[number % 6] * rng.choice([0, 2])
        group = rng.normal(0, 0.5, (30, 6)) + favour
        probabilities = softmax(truth.find_sharpness([group]) * 2 * group, axis=1)
        scores.append(group)
        classes.append([rng.choice(6, p=row) for row in probabilities])
    calibration, sharpening = fit_sharpening(
        np.concatenate(scores), np.concatenate(classes), [30] * 400
    )
    assert sharpening == pytest.approx(0.8, abs=0.1)
    np.testing.assert_allclose(calibration.weights, 2 * np.eye(6), atol=0.1)


def test_labels_that_are_all_right_make_nothing_certain(rng: np.random.Generator) -> None:
    # Groups of one label each, and an even one; each label is right by a little.
    classes = np.concatenate((np.repeat(np.arange(6), 10), np.arange(60) % 6))
    scores = rng.normal(0, 1, (120, 6))
    scores[np.arange(120), classes] = scores.max(axis=1) + 0.01
    calibration, sharpening = fit_sharpening(scores, classes, [10] * 6 + [60])
    plain = fit_temperature(scores, classes).weights[0, 0]
    assert abs(sharpening) <= MAX_SHARPENING
    assert abs(np.log(calibration.weights[0, 0] / plain)) <= MAX_CHANGE + 1e-9


def test_stored_and_read_back(rng: np.random.Generator) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(sharpening=0.7))
    probabilities = draw_probabilities(rng, 10)
    stored, data = adapter.tensors(), json.loads(json.dumps(adapter.to_dict()))
    assert {stored[name].dtype for name in ("first.weight", "centres")} == {np.dtype(np.float16)}
    again = Adapter.from_dict(data, stored)
    np.testing.assert_allclose(again.adapt(probabilities), adapter.adapt(probabilities), atol=5e-3)
    assert again.to_dict() == adapter.to_dict()
    assert again.settings == adapter.settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last.bias": np.zeros(3)}, "has the shapes .*last.bias"),
        ({"more": np.zeros(3)}, "has the shapes .*more"),
        ({"context.1.weight": np.zeros(3)}, "has the shapes"),
        ({"first.weight": np.zeros(3)}, "no matrix first.weight"),
    ],
)
def test_tensors_that_do_not_fit(
    change: dict[str, Any], message: str, rng: np.random.Generator
) -> None:
    adapter = create_adapter(rng)
    with pytest.raises(ModelError, match=message):
        Adapter(adapter.settings, adapter.calibration, adapter.tensors() | change)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"settings": {"least": 0}},
        {"settings": {"shrinkage": -1.0}},
        {"settings": {"shrinkage": math.nan}},
        {"settings": {"shrinkage": math.inf}},
        {"settings": {"sharpening": float("nan")}},
        {"settings": {"unknown": 1}},
    ],
)
def test_descriptions_that_are_damaged(data: dict[str, Any], rng: np.random.Generator) -> None:
    adapter = create_adapter(rng)
    described = {**adapter.to_dict(), **data} if data else {}
    with pytest.raises(ModelError, match="its adapter"):
        Adapter.from_dict(described, adapter.tensors())


# Groups.


def test_drawn_groups_have_the_shares(rng: np.random.Generator) -> None:
    classes = np.repeat(np.arange(6), [30, 10, 10, 10, 10, 10])
    shares = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    group = draw_group(classes, shares, 20, rng)
    assert len(set(group.tolist())) == 20
    assert np.bincount(classes[group], minlength=6).tolist() == [10, 2, 2, 2, 2, 2]
    # Who lacks the last label has as many clips, of the others in their proportion.
    lacking = draw_group(np.repeat(np.arange(5), 30), shares, 45, rng)
    assert np.bincount(lacking // 30).tolist() == [25, 5, 5, 5, 5]
    # Ten of each of five labels are there, for shares of 2 %: 30 of the first are too few for more.
    shares = np.array([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
    assert len(draw_group(classes, shares, 80, rng)) == 33
    assert not len(draw_group(classes[classes > 0], shares, 80, rng))


def test_clips_that_are_no_whole_number_are_drawn_by_lot() -> None:
    classes = np.repeat(np.arange(6), 10)
    rng = np.random.default_rng(0)
    counts = np.zeros(6)
    for _ in range(600):
        group = draw_group(classes, np.full(6, 1 / 6), 3, rng)
        assert len(group) == 3
        counts += np.bincount(classes[group], minlength=6)
    np.testing.assert_allclose(counts, 300, atol=50)
    # Of 2.1 and 0.9 clips, two are certain, and the third is mostly one of the second label.
    counts = np.zeros(2)
    for _ in range(600):
        group = draw_group(classes[:20], np.array([0.7, 0.3]), 3, rng)
        counts += np.bincount(classes[group], minlength=2)
    np.testing.assert_allclose(counts, [1_260, 540], atol=30)


def test_speakers_who_lack_a_label_have_groups_of_the_others(rng: np.random.Generator) -> None:
    # Each of six speakers lacks another label.
    labels = [np.delete(np.arange(6), lacking) for lacking in range(6)]
    classes = np.concatenate([np.repeat(own, 20) for own in labels])
    sources = np.repeat(np.arange(6), 100)
    draws = draw_groups(classes, sources, EMOTIONS, 0.2, rng, calm_share=0.5)
    groups = [next(draws) for _ in range(600)]
    assert {sources[group[0]] for group in groups} == set(range(6))
    n_labels = [len(set(classes[group])) for group in groups if len(group) >= 15]
    assert np.mean(np.array(n_labels) == 1) == pytest.approx(0.2, abs=0.08)
    assert np.mean(np.array(n_labels) == 5) > 0.3
    # No group is only of a label that its speaker lacks, which would be looked for without end.
    calm = draw_groups(classes[:100] % 2, sources[:100], EMOTIONS, 1.0, rng, calm_share=1.0)
    assert {*(classes[:100] % 2)[next(calm)]} <= {0, 1}
    # Of a single label, there is no mix.
    assert not len(draw_group(np.zeros(20, int), np.full(6, 1 / 6), 6, rng))
    assert len(draw_group(np.zeros(20, int), np.eye(6)[0], 6, rng)) == 6
    right = np.eye(6)[classes]
    rows = measure_mixes(
        lambda group: right[group], right, classes, [*map(str, sources)], EMOTIONS, 0
    )
    even = [row for row in rows if row["mix"] == EVEN]
    assert [row["groups"] for row in even] == [6 * 20] * len(even)
    calm_rows = [row for row in rows if row["mix"] == "80% neutral"]
    assert {row["groups"] for row in calm_rows} == {5 * 20}


def test_figures_of_mixes_are_those_without_and_with_the_baseline() -> None:
    # Alone, one label is always right and the others never; with a baseline, half of the speakers
    # have all right.
    classes = np.tile(np.repeat(np.arange(6), 6), 16)
    sources = np.repeat(np.arange(16), 36)
    known = EMOTIONS.index("sadness")
    alone = np.full((len(classes), 6), 0.08)
    alone[np.arange(len(classes)), np.where(classes == known, known, (classes + 1) % 6)] = 0.6
    adapted = np.where((sources < 8)[:, None], np.eye(6)[classes], alone)
    rows = measure_mixes(
        lambda group: adapted[group], alone, classes, [*map(str, sources)], EMOTIONS, 0
    )
    found = {(row["mix"], row["size"]): row for row in rows}
    # Of more than the six clips that there are, there is no row.
    assert [size for mix, size in found if mix == SINGLE] == [3, 10]
    calm = found["100% neutral", 10]
    assert (calm["figure"], calm["mean_size"], calm["groups"]) == ("accuracy", 6, 16 * 20)
    assert calm["alone"] == {"accuracy": 0, "ece": pytest.approx(0.6)}
    assert calm["adapted"] == {"accuracy": 0.5, "ece": pytest.approx(0.3)}
    # Of 16 speakers that are drawn, 4 to 12 are of a half: quantiles of the binomial distribution.
    assert (calm["difference"], calm["interval"]) == (0.5, [4 / 16, 12 / 16])
    even, single = found[EVEN, 30], found[SINGLE, 3]
    assert (even["figure"], even["alone"]["uar"]) == ("uar", pytest.approx(1 / 6))
    assert even["difference"] == pytest.approx(2.5 / 6)
    assert single["alone"]["accuracy"] == pytest.approx(1 / 5)
    assert single["adapted"]["accuracy"] == pytest.approx(3 / 5)
    one = measure_mixes(lambda group: adapted[group], alone, classes, ["0"] * 576, EMOTIONS, 0)
    assert {row["interval"] for row in one} == {None}


def test_an_adapter_that_was_never_measured_in_a_mix_is_not_safe(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sercli.training.adapters.adaptation.MIN_STEPS", 3)
    # Each speaker has clips of one label.
    examples = Examples(
        draw_probabilities(rng, 18 * 12),
        np.repeat(np.arange(6), 36),
        np.repeat(np.array([f"{number:02}" for number in range(18)]), 12),
        np.zeros(18 * 12, int),
    )
    config = AdapterConfig(
        epochs=1, calibration_groups=30, folds=2, single_shares=(0.5,), max_loss=1.0
    )
    fitted = fit_adapter(examples, EMOTIONS, config)
    assert {row["mix"] for row in fitted.figures} <= {"100% neutral", SINGLE}
    assert not fitted.adapter.settings.safe


def test_nothing_to_draw_groups_from_is_told(rng: np.random.Generator) -> None:
    examples = Examples(
        draw_probabilities(rng, 36),
        np.tile(np.arange(6), 6),
        np.repeat(np.array([*"abcdef"]), 6),
        np.zeros(36, int),
    )
    config = AdapterConfig(epochs=1, calibration_groups=1, folds=2, single_shares=(1.0,))
    with pytest.raises(DatasetError, match="enough clips for groups of 6 or more; none could be"):
        fit_adapter(examples, EMOTIONS, config)


def test_groups_to_learn_from_are_of_one_speaker_and_any_mix(rng: np.random.Generator) -> None:
    classes = np.tile(np.repeat(np.arange(6), 13), 4)
    voices = np.repeat(np.array(["a", "b", "c", "d"]), 78)
    sources = np.unique(voices, return_inverse=True)[1]
    draws = draw_groups(classes, sources, EMOTIONS, 0.2, rng)
    groups = [next(draws) for _ in range(400)]
    assert all(len(set(voices[group])) == 1 for group in groups)
    assert {voices[group[0]] for group in groups} == {"a", "b", "c", "d"}
    sizes = np.array([len(group) for group in groups])
    assert (sizes.min(), sizes.max() > 60) == (1, True)
    large = [np.bincount(classes[group], minlength=6) for group in groups if len(group) >= 12]
    calm = np.array([counts[NEUTRAL] / counts.sum() for counts in large])
    assert min(np.mean(calm < 0.1), np.mean(calm > 0.5)) > 0.05
    single = [np.count_nonzero(counts) == 1 for counts in large]
    assert np.mean(single) == pytest.approx(0.2, abs=0.1)
    draws = draw_groups(classes, sources, EMOTIONS, 1.0, rng, 0.5)
    labels = [set(classes[next(draws)]) for _ in range(400)]
    assert all(len(own) == 1 for own in labels)
    assert np.mean([own == {NEUTRAL} for own in labels]) == pytest.approx(0.5 + 0.5 / 6, abs=0.1)
    assert max(len(next(draws)) for _ in range(400)) == 13
    draws = draw_groups(classes, sources, EMOTIONS, 1.0, rng, 0.5, 1 / 3)
    # A third of those for which there are not clips enough are as large as any: each comes once, at
    # first.
    groups = [next(draws) for _ in range(1200)]
    larger = [group for group in groups if len(group) > 13]
    assert {len(set(group[:13])) for group in larger} == {13}
    assert max(map(len, larger)) > 60
    n_short = len(larger) + sum(len(group) == 13 for group in groups)
    assert len(larger) / n_short == pytest.approx(1 / 3, abs=0.06)


def test_a_model_that_leans_has_the_same_odds_of_two_segments(rng: np.random.Generator) -> None:
    probabilities = draw_probabilities(rng, 50) * 0.5 + 0.5 / 6
    leaning = lean(probabilities, 2.0, 1.0, rng)
    np.testing.assert_allclose(leaning.sum(axis=1), 1)
    shift = np.log(
        (leaning[:, 1:] / leaning[:, :1]) / (probabilities[:, 1:] / probabilities[:, :1])
    )
    assert np.abs(shift).max() > 0.01
    assert np.ptp(shift, axis=0).max() < 1e-6
    np.testing.assert_allclose(lean(probabilities, 0.0, 1.0, rng), probabilities, atol=1e-7)


def test_a_model_that_leans_may_tell_segments_less_apart(rng: np.random.Generator) -> None:
    probabilities = draw_probabilities(rng, 50) * 0.5 + 0.5 / 6
    logits = centre_log_probabilities(probabilities)
    contrasts = []
    for _ in range(200):
        factors = centre_log_probabilities(lean(probabilities, 0.0, 0.25, rng)) / logits
        np.testing.assert_allclose(factors, factors[0, 0], atol=1e-4)
        contrasts.append(factors[0, 0])
    assert 0.25 <= min(contrasts) < 0.3
    assert 0.95 < max(contrasts) <= 1


# Learning.


def draw_speakers(rng: np.random.Generator, n_speakers: int, n_clips: int = 60) -> Examples:
    """Return what a model says of speakers of whom each leans his own way."""
    classes = np.tile(np.arange(6), n_speakers * n_clips // 6)
    voices = np.repeat([f"s{number}" for number in range(n_speakers)], n_clips)
    logits = 2.0 * np.eye(6)[classes] + rng.normal(0, 1, (len(classes), 6))
    logits += np.repeat(rng.normal(0, 2, (n_speakers, 6)), n_clips, axis=0)
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return Examples(probabilities, classes, np.array(voices), np.zeros(len(classes), int))


def test_learned_baselines_help_speakers_who_are_new() -> None:
    rng = np.random.default_rng(1)
    fitted = fit_adapter(draw_speakers(rng, 24), EMOTIONS, SMALL)
    rows = {(row["mix"], row["size"]): row for row in fitted.figures}
    assert rows[EVEN, 30]["difference"] > 0.25
    assert rows[EVEN, 30]["interval"][0] > 0.2
    assert rows[EVEN, 3]["difference"] == 0
    assert rows["80% neutral", 30]["difference"] > 0.05
    assert rows[EVEN, 30]["adapted"]["ece"] < 0.1 < rows[EVEN, 30]["alone"]["ece"]
    # As many strangers, scored by the adapter that learned from all.
    probabilities, classes, voices, _ = draw_speakers(rng, 24)
    adapted = np.concatenate(
        [fitted.adapter.adapt(probabilities[voices == voice]) for voice in dict.fromkeys(voices)]
    )
    alone = np.mean(probabilities.argmax(axis=1) == classes)
    assert np.mean(adapted.argmax(axis=1) == classes) > alone + 0.15
    confidence = adapted.max(axis=1)
    assert np.mean(adapted.argmax(axis=1) == classes) == pytest.approx(confidence.mean(), abs=0.08)


def test_moods_are_learned_until_no_mix_is_hurt(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[list[dict[str, Any]]] = []

    def spy(*given: Any) -> list[dict[str, Any]]:
        measured.append(measure_mixes(*given))
        return measured[-1]

    monkeypatch.setattr("sercli.training.adapters.adaptation.measure_mixes", spy)
    examples = draw_speakers(np.random.default_rng(2), 9, 48)
    config = replace(SMALL, epochs=10, leaning_share=0.0, single_shares=(0.0, 0.9), max_loss=1.0)
    fitted = fit_adapter(examples, EMOTIONS, config)
    assert (len(measured), fitted.single_share, fitted.adapter.settings.safe) == (1, 0.0, True)
    fitted = fit_adapter(examples, EMOTIONS, replace(config, max_loss=0.0))
    single = [
        next(row["difference"] for row in rows if row["mix"] == SINGLE and row["size"] == 10)
        for rows in measured[1:]
    ]
    assert single[0] < -0.05
    assert (len(single), fitted.single_share) == (2, 0.9)
    assert single[1] > single[0] + 0.05
    worst = min(row["difference"] for row in fitted.figures)
    assert fitted.adapter.settings.safe == (worst >= 0)


@pytest.mark.usefixtures("idle_gpus")
def test_the_same_seed_learns_the_same(rng: np.random.Generator) -> None:
    examples = draw_speakers(rng, 6, 12)
    config = replace(SMALL, epochs=2)
    first, again, other = (
        fit_adapter(examples, EMOTIONS, replace(config, seed=seed)) for seed in (0, 0, 1)
    )
    for name, tensor in first.adapter.tensors().items():
        np.testing.assert_array_equal(again.adapter.tensors()[name], tensor)
    assert first.figures == again.figures
    assert (other.adapter.tensors()["last.weight"] != first.adapter.tensors()["last.weight"]).any()


def test_what_is_not_finite_is_refused(rng: np.random.Generator) -> None:
    adapter = fit_adapter(draw_speakers(rng, 12, 12), EMOTIONS, replace(SMALL, epochs=1)).adapter
    tensors = adapter.tensors()
    tensors["centres"][2, 0] = np.nan
    with pytest.raises(ModelError, match="has values in centres that are not finite"):
        Adapter(adapter.settings, adapter.calibration, tensors)
    data = adapter.calibration.to_dict() | {"bias": [float("inf")] * 6}
    with pytest.raises(ModelError, match="are not all finite"):
        Calibration.from_dict(data)


def test_too_little_to_learn_from(rng: np.random.Generator) -> None:
    def refuse(examples: Examples, reason: str) -> None:
        with pytest.raises(DatasetError, match=reason):
            fit_adapter(examples, EMOTIONS, SMALL)

    refuse(draw_speakers(rng, 5, 12), "clips of 6 speakers or more; found 5 known speakers")
    refuse(
        draw_speakers(rng, 12, 5), "a speaker with 6 clips or more; found at most 5 clips of any"
    )
    examples = draw_speakers(rng, 6, 12)
    fear = examples.classes == 2
    by_one = "all labels in every fold; all clips of fear are by the speakers of one"
    refuse(examples.take(np.flatnonzero(~fear)), by_one)
    # One of them is always held out, and nobody else has any.
    by_two = fear & (examples.voices != examples.voices[0])
    refuse(examples.take(np.flatnonzero(~by_two)), by_one)


def test_a_group_is_of_one_version(rng: np.random.Generator) -> None:
    clips = [Clip(Path(f"{n}.wav"), EMOTIONS[n % 6], "ab"[n % 2]) for n in range(24)]
    whole, varied = draw_probabilities(rng, 24), draw_probabilities(rng, 24)
    examples = Examples.gather(clips, EMOTIONS, whole, varied)
    assert examples.versions.tolist() == [0] * 24 + [1] * 24
    np.testing.assert_array_equal(examples.probabilities, np.concatenate((whole, varied)))
    pairs = {*zip(examples.voices.tolist(), examples.versions.tolist(), strict=True)}
    assert len(pairs) == 4
    for source in range(4):
        own = examples.sources == source
        assert len({*zip(examples.voices[own], examples.versions[own], strict=True)}) == 1


def test_versions_are_learned_from_and_not_measured(rng: np.random.Generator) -> None:
    examples = draw_speakers(rng, 6, 12)
    doubled = examples.take(np.tile(np.arange(72), 2))._replace(versions=np.repeat([0, 1], 72))
    fitted = fit_adapter(doubled, EMOTIONS, replace(SMALL, epochs=1))
    row = next(row for row in fitted.figures if (row["mix"], row["size"]) == (EVEN, 30))
    assert (row["groups"], row["mean_size"]) == (6 * 20, 12.0)


def test_clips_of_unknown_speakers_are_left_out(
    rng: np.random.Generator, fake_classifier: Any
) -> None:
    clips = [
        Clip(Path(f"{number}.wav"), ("short", "long")[number % 2], speaker)
        for number, speaker in enumerate(["a", None, "b", "b"])
    ]
    probabilities = draw_probabilities(rng, 4, 2)
    examples = Examples.gather(clips, ("short", "long"), probabilities)
    np.testing.assert_array_equal(examples.probabilities, probabilities[[0, 2, 3]])
    assert examples.classes.tolist() == [0, 0, 1]
    assert examples.voices.tolist() == ["/a", "/b", "/b"]
    listed = [replace(clip, corpus="mine", namespace="table") for clip in clips]
    released = [replace(clip, corpus="emodb") for clip in clips]
    both = Examples.gather([*listed, *released], ("short", "long"), np.tile(probabilities, (2, 1)))
    assert both.voices.tolist() == ["emodb/a", "emodb/b", "emodb/b"] * 2
    said: list[str] = []
    assert not add_adapter(fake_classifier, examples, SMALL, said.append)
    assert said[0].endswith("expected clips of 6 speakers or more; found 2 known speakers")
    assert fake_classifier.adapter is None


@pytest.mark.parametrize(
    ("calm", "share", "expected_share"),
    # By default, only a model that learned as strangers is taught by groups as large as theirs.
    [(None, None, 0.0), ({"clips": 9}, None, 1 / 3), (None, 0.4, 0.4), ({"clips": 9}, 0.0, 0.0)],
)
def test_all_settings_of_an_adapter_count(
    rng: np.random.Generator,
    fake_classifier: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calm: Any,
    share: float | None,
    expected_share: float,
) -> None:
    # How well it learns is not the point.
    monkeypatch.setattr("sercli.training.adapters.adaptation.MIN_STEPS", 3)
    monkeypatch.setattr(
        "sercli.training.adapters.adaptation.measure_mixes",
        lambda *_: [{"difference": -0.5, "mix": EVEN}],
    )
    examples = draw_speakers(rng, 8, 12)
    names = [str(number) for number in range(len(examples.classes))]
    clips = tuple(
        Clip(Path(name), EMOTIONS[label], voice.item(), name)
        for name, label, voice in zip(names, examples.classes, examples.voices, strict=True)
    )
    entries = tuple(Entry(Path(name), 0, 16_000, 1.0, name, 0, 16_000) for name in names)
    held_out = dict(zip(names, examples.probabilities, strict=True))
    fake_classifier.spec = replace(
        fake_classifier.spec, labels=EMOTIONS, training={"seed": 9, "calm": calm}
    )
    teacher = Teacher(fake_classifier, held_out, TrainingManifest())
    asked = replace(
        SMALL,
        n_hidden=5,
        epochs=1,
        single_shares=(0.7,),
        max_loss=0.9,
        repeated_share=share,
        folds=2,
        seed=3,
        device="cpu",
        jobs=1,
    )
    said: list[str] = []
    trainer = AdapterTrainer(asked, teacher, cache=tmp_path, say=said.append)
    trainer.check_fit(clips, EMOTIONS)
    calm = [clip for clip in clips if clip.emotion not in ("fear", "anger")]
    with pytest.raises(DatasetError, match=r"none of the .* clips is labelled anger or fear; exp"):
        trainer.check_fit(calm, EMOTIONS)
    found = CachedClips(clips, entries, {})
    model = trainer.fit(found, EMOTIONS, tmp_path / "model").classifier
    used = replace(asked, repeated_share=expected_share)
    told = model.spec.training["adapter"]
    assert (told["config"], told["single_share"]) == (asdict(used), 0.7)
    assert (model.spec.training["seed"], "of fold 2 of 2" in said[2]) == (9, True)
    expected = fit_adapter(
        Examples.gather(clips, EMOTIONS, examples.probabilities), EMOTIONS, used
    ).adapter.tensors()
    assert model.adapter is not None
    tensors = model.adapter.tensors()
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor)


@pytest.mark.parametrize("data", [5, [], {"settings": {}}])
def test_a_description_that_is_no_adapter(data: Any) -> None:
    with pytest.raises(ModelError, match="; expected settings and calibration"):
        Adapter.from_dict(data, {})


# What it is worth.


def test_mixes_are_those_of_the_protocol() -> None:
    mixes = list_mixes(EMOTIONS)
    assert list(mixes) == ["100% neutral", "80% neutral", "50% neutral", EVEN, SINGLE]
    assert mixes["80% neutral"][0][NEUTRAL] == 0.8
    assert all(shares.sum() == pytest.approx(1) for turns in mixes.values() for shares in turns)
    assert len(mixes[SINGLE]) == 5
    assert all(shares[NEUTRAL] == 0 for shares in mixes[SINGLE])
    assert list(list_mixes(("joy", "anger"))) == [EVEN, SINGLE]


def test_figures_of_groups() -> None:
    # Of each label 13 clips of two speakers, of which all but the last are recognised alone.
    classes = np.repeat(np.arange(6), 13)
    classes = np.concatenate((classes, np.roll(classes, -13)))
    voices = ["a"] * 78 + ["b"] * 78
    right = np.eye(6)[classes] * 0.9 + 0.1 / 6
    alone = right.copy()
    alone[classes == 5] = right[classes == 0][0]
    rows = measure_mixes(lambda group: right[group], alone, classes, voices, EMOTIONS, 0)
    found = {(row["mix"], row["size"]): row for row in rows}
    # 13 neutral clips are all there are: a size of 30 or 80 would be the same group.
    assert [key[1] for key in found if key[0] == "100% neutral"] == [3, 10, 30]
    row = found[EVEN, 30]
    assert (row["figure"], row["groups"], row["mean_size"]) == ("uar", 40, 30.0)
    assert (row["alone"]["uar"], row["adapted"]["uar"]) == (pytest.approx(5 / 6), 1)
    assert row["difference"] == pytest.approx(1 / 6)
    assert row["interval"] == pytest.approx([1 / 6, 1 / 6])
    assert row["adapted"]["ece"] == pytest.approx(0.1 - 0.1 / 6)
    # One emotion in turn: each of the five in 8 of the 40 groups.
    assert EMOTIONS[5] != "neutral"
    assert found[SINGLE, 10]["alone"]["accuracy"] == pytest.approx(0.8)
    assert found[SINGLE, 10]["difference"] == pytest.approx(0.2)
    assert found["100% neutral", 10]["difference"] == 0


def test_intervals_of_groups_are_those_of_speakers() -> None:
    # Of three speakers, one is understood with a baseline alone. Of three draws, none is that one
    # in 8 of 27 cases, all are in one: more than 2.5 %, less than 5 %.
    classes = np.tile(np.repeat([0, 1], 10), 3)
    voices = np.repeat(["a", "b", "c"], 20).tolist()
    right = np.eye(2)[classes]
    alone = right.copy()
    alone[:20] = right[:20, ::-1]
    rows = measure_mixes(lambda group: right[group], alone, classes, voices, ("joy", "anger"), 0)
    assert {row["mix"] for row in rows} == {EVEN, SINGLE}
    for row in rows:
        # Of three clips, one label has two, drawn by lot for each group.
        assert row["difference"] == pytest.approx(1 / 3, abs=0.01)
        assert row["interval"] == pytest.approx([0, 1], abs=0.01)


def test_a_single_speaker_of_many_labels_has_figures_and_no_interval() -> None:
    # Groups of three never get to some of 40 labels, whose recall must not count as none.
    classes, labels = np.repeat(np.arange(40), 2), [f"label {index}" for index in range(40)]
    right = np.eye(40)[classes]
    rows = measure_mixes(lambda group: right[group], right, classes, ["a"] * 80, labels, 0)
    assert {row["figure"] for row in rows} == {"uar", "accuracy"}
    for row in rows:
        assert row["alone"][row["figure"]] == 1
        assert row["interval"] is None


def test_versions_have_the_classes_and_voices_of_their_clips(rng: np.random.Generator) -> None:
    clips = [
        Clip(Path(f"{number}.wav"), label, speaker)
        for number, (label, speaker) in enumerate((("short", "a"), ("long", "b"), ("long", "b")))
    ]
    first, second = draw_probabilities(rng, 3, 2), draw_probabilities(rng, 3, 2)
    examples = Examples.gather(clips, ("short", "long"), first, second)
    np.testing.assert_array_equal(examples.probabilities, np.vstack((first, second)))
    assert examples.classes.tolist() == [0, 1, 1] * 2
    assert examples.voices.tolist() == ["/a", "/b", "/b"] * 2
    assert examples.versions.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("adapter", [True, False])
def test_an_adapter_learns_from_every_version_that_was_held_out(
    monkeypatch: pytest.MonkeyPatch, fake_classifier: Any, adapter: bool
) -> None:
    clips = [Clip(Path("a"), "anger", "ann"), Clip(Path("b"), "fear", "bob")]
    learned = Learned(fake_classifier, (np.eye(6)[:2], np.eye(6)[2:4]))
    given: list[Any] = []
    monkeypatch.setattr(
        "sercli.training.adapters.adaptation.add_adapter", lambda *those: given.append(those)
    )
    trainer: Any = SimpleNamespace(
        adapter=adapter, config=SvmConfig(seed=3), say=print, fit=lambda *_: learned
    )
    found: Any = SimpleNamespace(clips=clips)
    assert _learn(found, EMOTIONS, Path(), trainer) is learned
    assert len(given) == adapter
    for model, examples, config, say in given:
        assert (model, config, say) == (fake_classifier, AdapterConfig(seed=3), print)
        assert examples.versions.tolist() == [0, 0, 1, 1]
        np.testing.assert_array_equal(examples.probabilities, np.eye(6)[:4])
    # Nothing is held out of a network with development clips.
    trainer.fit = lambda *_: Learned(fake_classifier)
    _learn(found, EMOTIONS, Path(), trainer)
    assert len(given) == adapter
