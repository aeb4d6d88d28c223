import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from sercli import calibration as module
from sercli.calibration import (
    Calibration,
    choose_calibration,
    fit_temperature,
    fit_vector_scaling,
)
from sercli.errors import ModelError


def draw(rng: np.random.Generator, logits: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
    """Draw classes so that softmax(logits) is what is true of them."""
    return np.array([rng.choice(len(row), p=row) for row in softmax(logits, axis=1)])


def test_probabilities_are_the_softmax_of_an_affine_map(rng: np.random.Generator) -> None:
    scores, weights = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    bias = rng.normal(size=4)
    calibration = Calibration("logistic", weights, bias)
    expected = softmax(scores @ weights + bias, axis=1)
    np.testing.assert_allclose(calibration.probabilities(scores), expected, rtol=1e-12)


def test_huge_scores_stay_finite() -> None:
    calibration = Calibration("temperature", np.eye(2), np.zeros(2))
    np.testing.assert_array_equal(calibration.probabilities(np.array([[1e6, -1e6]])), [[1, 0]])


def test_temperature_is_recovered(rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(20_000, 4))
    classes = draw(rng, logits)
    calibration = fit_temperature(logits * 3, classes)  # overconfident threefold
    np.testing.assert_allclose(calibration.weights, np.eye(4) / 3, atol=0.02)
    np.testing.assert_array_equal(calibration.bias, np.zeros(4))


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_temperature_does_not_depend_on_the_unit(unit: float, rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(2_000, 4))
    classes = draw(rng, logits)
    expected = fit_temperature(logits, classes).probabilities(logits)
    found = fit_temperature(unit * logits, classes).probabilities(unit * logits)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_vector_scaling_is_recovered(rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(40_000, 3))
    factors, bias = np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    classes = draw(rng, logits)
    calibration = fit_vector_scaling((logits - bias) / factors, classes)
    assert calibration.method == "vector scaling"
    np.testing.assert_allclose(calibration.weights, np.diag(factors), atol=0.06)
    # A bias that all labels share changes nothing.
    np.testing.assert_allclose(calibration.bias - calibration.bias.mean(), bias, atol=0.06)


def test_vector_scaling_has_the_least_penalised_loss(rng: np.random.Generator) -> None:
    scores = rng.normal(scale=2, size=(60, 3))
    classes = draw(rng, scores * [0.5, 1, 2])
    factor = fit_temperature(scores, classes).weights[0, 0]
    found = fit_vector_scaling(scores, classes)

    def loss(factors: NDArray[np.float64], bias: NDArray[np.float64]) -> float:
        likelihoods = softmax(scores * factors + bias, axis=1)[np.arange(60), classes]
        penalty = np.square(factors / factor - 1).sum() + np.square(bias).sum()
        return float(penalty - np.log(likelihoods).sum())

    factors, bias = np.diag(found.weights), found.bias
    least = loss(factors, bias)
    assert least < loss(np.full(3, factor), np.zeros(3))
    for step in 0.03 * np.eye(3):
        for sign in (1, -1):
            assert loss(factors + sign * step, bias) > least
            assert loss(factors, bias + sign * step) > least


def test_few_segments_stay_near_the_temperature() -> None:
    # One segment of each of two labels: without the penalty, the third's bias would have no end.
    scores = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.9, 1.0, 0.5]])
    classes = np.array([0, 1, 0])
    assert np.abs(fit_vector_scaling(scores, classes).bias).max() < 1


@pytest.mark.parametrize(
    "scores",
    [
        np.full((6, 2), 3.0),  # that tell nothing
        np.full((6, 2), 0.0),
        np.eye(2)[[0, 1] * 3] * 1e30,  # always right
        np.eye(2)[[1, 0] * 3] * 1e30,  # never right
        np.eye(2, dtype=np.float32)[[0, 1] * 3] * np.float32(3e38),
        np.eye(2)[[0, 1, 1, 0, 0, 1]] * 1e-30,
        np.eye(2)[[0, 1, 1, 0, 0, 1]] + 1e9,
    ],
)
def test_extreme_scores_are_fitted(scores: NDArray[np.floating[Any]]) -> None:
    classes = np.array([0, 1] * 3)
    for fit in (fit_temperature, fit_vector_scaling):
        calibration = fit(scores, classes)
        assert np.isfinite(calibration.weights).all()
        assert np.isfinite(calibration.bias).all()
        probabilities = calibration.probabilities(scores)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        # Never so sure as to be worse than not knowing.
        assert -np.log(probabilities[np.arange(6), classes]).mean() < np.log(2) + 0.01


def test_choice_is_vector_scaling_where_labels_differ(rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(3_000, 3))
    scores, classes = logits - [1.5, 0, 0], draw(rng, logits)
    found = choose_calibration(scores, classes, np.repeat(np.arange(10), 300))
    expected = fit_vector_scaling(scores, classes)  # on all
    assert found.method == "vector scaling"
    np.testing.assert_array_equal(found.weights, expected.weights)
    np.testing.assert_array_equal(found.bias, expected.bias)


def test_choice_is_temperature_where_a_label_s_bias_is_the_speaker_s(
    rng: np.random.Generator,
) -> None:
    # Within each speaker's segments a bias helps, but on other speakers it is wrong.
    logits = rng.normal(scale=2, size=(400, 3))
    speakers = np.repeat(["a", "b", "c", "d"], 100)
    own = np.array([[2, 0, -2], [-2, 2, 0], [0, -2, 2], [2, -2, 0]]).repeat(100, axis=0)
    classes = draw(rng, logits + own)
    assert choose_calibration(logits, classes, np.arange(400) % 4).method == "vector scaling"
    found = choose_calibration(logits, classes, speakers)
    assert found.method == "temperature"
    np.testing.assert_array_equal(found.weights, fit_temperature(logits, classes).weights)


def test_choice_is_temperature_where_a_label_is_missing(rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(3_000, 3))
    scores, classes = logits - [1.5, 0, 0], draw(rng, logits)
    known = classes != 1
    found = choose_calibration(scores[known], classes[known], np.arange(known.sum()) % 10)
    assert found.method == "temperature"
    # It is found as often as before it was calibrated.
    scored = found.probabilities(scores).argmax(axis=1)
    np.testing.assert_array_equal(scored, scores.argmax(axis=1))


def test_choice_needs_two_groups(rng: np.random.Generator) -> None:
    logits = rng.normal(scale=2, size=(1_000, 3))
    scores, classes = logits - [3, 0, 0], draw(rng, logits)
    assert choose_calibration(scores, classes, np.zeros(1_000)).method == "temperature"
    # Fewer groups than folds.
    assert choose_calibration(scores, classes, np.arange(1_000) % 2).method == "vector scaling"


def test_choice_is_temperature_where_neither_is_better() -> None:
    scores, classes = np.zeros((8, 2)), np.array([0, 1] * 4)
    found = choose_calibration(scores, classes, np.repeat(np.arange(4), 2))
    assert found.method == "temperature"


def test_choice_is_made_in_five_folds_or_one_per_group(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def fit(scores: NDArray[np.float64], classes: NDArray[np.int64]) -> Calibration:
        sizes.append(len(scores))
        return fit_temperature(scores, classes)

    monkeypatch.setattr(module, "fit_vector_scaling", fit)
    scores, classes = rng.normal(size=(120, 3)), rng.integers(3, size=120)
    for n_groups, expected in ((12, [90, 90, 100, 100, 100]), (3, [80] * 3)):
        sizes.clear()
        choose_calibration(scores, classes, np.arange(120) % n_groups)
        assert sorted(sizes) == expected


def test_json_round_trip_is_exact(rng: np.random.Generator) -> None:
    calibration = Calibration("logistic", rng.normal(size=(3, 2)), rng.normal(size=2))
    copy = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    np.testing.assert_array_equal(copy.weights, calibration.weights)
    np.testing.assert_array_equal(copy.bias, calibration.bias)
    assert copy.method == "logistic"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"method": "x", "weights": [[1]]}, "has the keys"),
        ({"method": "x", "weights": [[1]], "bias": [0], "code": "os"}, "has the keys"),
        ({"method": "x", "weights": [["a"]], "bias": [0]}, "not arrays of numbers"),
        ({"method": "x", "weights": [[1, 2]], "bias": [0]}, r"shape \(1, 2\), bias \(1,\)"),
    ],
)
def test_malformed(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Calibration.from_dict(data)


def test_shares_count_like_as_many_segments(rng: np.random.Generator) -> None:
    scores, counts = rng.normal(size=(60, 3)), rng.integers(0, 4, size=(60, 3))
    counts[:, 0] = 4 - counts[:, 1:].clip(0, 2).sum(axis=1)
    counts[:, 1:] = counts[:, 1:].clip(0, 2)  # four votes on each
    repeated = np.repeat(scores, 4, axis=0)
    classes = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    shares, groups = counts / 4, np.arange(60) % 4
    expected = fit_temperature(repeated, classes).probabilities(scores)
    found = fit_temperature(scores, shares).probabilities(scores)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    vector = fit_vector_scaling(scores, shares)
    assert abs(vector.probabilities(scores).mean(axis=0) - shares.mean(axis=0)).max() < 0.02
    chosen = choose_calibration(scores, shares, groups)
    assert chosen.method == "vector scaling"  # the shares lean to the first label, scores do not
    # That nobody names a label is known; that no clip of it is there is not.
    unnamed = np.stack((shares[:, 0] + shares[:, 2], shares[:, 1], np.zeros(60)), axis=1)
    assert choose_calibration(scores, unnamed, groups).method == "vector scaling"
    assert choose_calibration(scores, unnamed.argmax(axis=1), groups).method == "temperature"


def test_widened_calibrations_use_their_own_scores_only(rng: np.random.Generator) -> None:
    calibration = fit_temperature(rng.normal(size=(50, 3)), rng.integers(3, size=50))
    scores = rng.normal(size=(5, 8))
    wide = calibration.widen(4, 8)
    assert wide.weights.shape == (8, 3)
    expected = calibration.probabilities(scores[:, 4:7])
    np.testing.assert_allclose(wide.probabilities(scores), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["weights", "bias"])
def test_calibrations_that_are_not_finite(name: str, bad: float) -> None:
    data = {"method": "x", "weights": [[1.0]], "bias": [0.0]}
    data[name] = [[bad]] if name == "weights" else [bad]
    with pytest.raises(ModelError, match="are not all finite; expected numbers"):
        Calibration.from_dict(data)
