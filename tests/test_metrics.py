import numpy as np
import pytest

from sercli.metrics import evaluate_probabilities, expected_calibration_error

LABELS = ("anger", "neutral", "sadness")


def test_figures_computed_by_hand() -> None:
    y_true = np.array([0, 0, 0, 0, 1, 1])
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.6, 0.3, 0.1],
            [0.4, 0.5, 0.1],
            [0.5, 0.3, 0.2],
            [0.2, 0.7, 0.1],
            [0.1, 0.2, 0.7],
        ]
    )
    figures = evaluate_probabilities(y_true, probabilities, LABELS)
    assert figures["n_segments"] == 6
    assert figures["accuracy"] == pytest.approx(4 / 6)
    # Sadness does not occur: it is wrongly predicted once, but has no recall to average.
    assert figures["uar"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert figures["classes"]["anger"] == {
        "precision": 1.0,
        "recall": 0.75,
        "f1": pytest.approx(6 / 7),
        "support": 4,
    }
    assert figures["classes"]["neutral"]["f1"] == pytest.approx(0.5)
    assert figures["macro_f1"] == pytest.approx((6 / 7 + 1 / 2) / 2)
    assert figures["confusion"] == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    expected = -np.log([0.8, 0.6, 0.4, 0.5, 0.7, 0.2]).mean()
    assert figures["nll"] == pytest.approx(expected)
    # Six segments make six bins of one.
    assert figures["ece"] == pytest.approx(np.mean([0.2, 0.4, 0.5, 0.5, 0.3, 0.7]))


def test_calibration_error_averages_over_bins_of_equal_mass() -> None:
    confidence = np.array([0.6, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9, 0.9])
    probabilities = np.stack((confidence, 1 - confidence), axis=1)
    y_true = np.array([0, 0, 1, 1, 0, 0, 0, 1])
    # 0.6 against 0.5, and 0.9 against 0.75.
    assert expected_calibration_error(y_true, probabilities, 2) == pytest.approx(0.125)
    assert expected_calibration_error(y_true, probabilities, 1) == pytest.approx(0.125)


def test_perfect_calibration(rng: np.random.Generator) -> None:
    confidence = rng.uniform(0.5, 1, 200_000)
    probabilities = np.stack((confidence, 1 - confidence), axis=1)
    y_true = (rng.random(200_000) > confidence).astype(int)
    assert expected_calibration_error(y_true, probabilities) < 0.01
