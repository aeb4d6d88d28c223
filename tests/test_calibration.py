import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from sercli.calibration import Calibration, fit_temperature
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
