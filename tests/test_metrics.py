from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from sercli.evaluation.metrics import (
    MAX_CURVE_POINTS,
    MIN_KEPT,
    coverage_curve,
    evaluate_probabilities,
    exact_calibration_error,
    expected_calibration_error,
    reliability_bins,
    segment_brier,
    segment_nll,
    threshold_for_precision,
    unweighted_average_recall,
)

LABELS = ("anger", "neutral", "sadness")

Truth = tuple[NDArray[np.int64], NDArray[np.float64]]


def of_two_labels(confidence: Sequence[float], correct: Sequence[int]) -> Truth:
    """Predict the first of two labels, which is true where `correct` is 1."""
    probabilities = np.array([(one, 1 - one) for one in confidence])
    return 1 - np.array(correct), probabilities


def in_steps(*steps: tuple[float, int, int]) -> Truth:
    """Of each step: a confidence, the number of segments that have it, how many are right."""
    confidence, correct = [], []
    for value, n, n_right in steps:
        confidence += [value] * n
        correct += [1] * n_right + [0] * (n - n_right)
    return of_two_labels(confidence, correct)


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
    # Six segments make six bins of one; half of the two at 0.5, and of the two at 0.7, are right.
    assert figures["ece"] == pytest.approx(np.mean([0.2, 0.4, 0, 0, 0.2, 0.2]))


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


def test_what_exact_probabilities_would_have(rng: np.random.Generator) -> None:
    # Ten segments in each of 15 bins, all of confidence 0.75 or next to it: the mean distance of a
    # binomial share from what is expected of it is what a bin has.
    confidence = 0.75 + 1e-9 * np.arange(150)
    probabilities = np.stack((confidence, 1 - confidence), axis=1)
    found = exact_calibration_error(probabilities, 0.95, seed=0)
    counts = np.arange(11)
    expected = binom.pmf(counts, 10, 0.75) @ np.abs(counts / 10 - 0.75)
    assert found["mean"] == pytest.approx(expected, abs=0.003)
    low, high = found["interval"]
    deviation = np.sqrt(
        (binom.pmf(counts, 10, 0.75) @ np.square(counts / 10 - 0.75) - expected**2) / 15
    )
    assert low == pytest.approx(expected - 1.96 * deviation, abs=0.01)
    assert high == pytest.approx(expected + 1.96 * deviation, abs=0.01)


def test_exact_probabilities_that_are_equal_are_taken_together() -> None:
    # All in one: the error is that of the share of 600 that are right, a half-normal.
    probabilities = np.tile([0.7, 0.3], (600, 1))
    found = exact_calibration_error(probabilities, 0.95, seed=0)
    assert found["mean"] == pytest.approx(np.sqrt(2 / np.pi * 0.7 * 0.3 / 600), rel=0.1)


def test_exact_probabilities_stay_within_what_they_would_have(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.ones(6), 900)
    y_true = np.array([rng.choice(6, p=row) for row in probabilities])
    low, high = exact_calibration_error(probabilities, 0.999, seed=1)["interval"]
    assert low < expected_calibration_error(y_true, probabilities) < high


def test_figures_against_sklearn(rng: np.random.Generator) -> None:
    labels = ("anger", "fear", "neutral", "sadness")
    probabilities = rng.dirichlet(np.ones(4), 500)
    # Fear is never true, though often predicted.
    y_true = rng.choice([0, 2, 3], 500, p=[0.6, 0.3, 0.1])
    y_pred = probabilities.argmax(axis=1)
    assert (y_pred == 1).sum() > 50
    figures = evaluate_probabilities(y_true, probabilities, labels)
    assert figures["n_segments"] == 500
    assert figures["accuracy"] == pytest.approx(accuracy_score(y_true, y_pred))
    assert figures["nll"] == pytest.approx(log_loss(y_true, probabilities, labels=range(4)))
    assert figures["brier"] == pytest.approx(((probabilities - np.eye(4)[y_true]) ** 2).sum() / 500)
    scores = precision_recall_fscore_support(y_true, y_pred, labels=range(4), zero_division=0)
    for index, label in enumerate(labels):
        found = [figures["classes"][label][one] for one in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([values[index] for values in scores])
    assert figures["uar"] == pytest.approx(scores[1][[0, 2, 3]].mean())
    assert figures["macro_f1"] == pytest.approx(scores[2][[0, 2, 3]].mean())
    assert figures["uar"] == unweighted_average_recall(y_true, y_pred)
    confusion = np.array(figures["confusion"])
    assert confusion.sum(axis=1).tolist() == np.bincount(y_true, minlength=4).tolist()
    assert confusion.sum(axis=0).tolist() == np.bincount(y_pred, minlength=4).tolist()
    assert np.trace(confusion) == (y_true == y_pred).sum()


def test_label_neither_true_nor_predicted() -> None:
    figures = evaluate_probabilities(np.array([0, 1]), np.eye(3)[:2], LABELS)
    assert figures["classes"]["sadness"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert (figures["uar"], figures["macro_f1"], figures["ece"]) == (1, 1, 0)


def test_brier_score_by_hand() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    before = probabilities.copy()
    found = segment_brier(np.array([1, 1, 2]), probabilities)
    assert found == pytest.approx([0.25 + 0.49 + 0.04, 0, 2])
    assert (probabilities == before).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_likelihood_of_probability_zero_is_finite(dtype: type[np.floating[Any]]) -> None:
    probabilities = np.array([[0, 1], [0.25, 0.75]], dtype)
    found = segment_nll(np.array([0, 0]), probabilities)
    assert found == pytest.approx([1022 * np.log(2), 2 * np.log(2)])


def test_bins_of_calibration_by_hand() -> None:
    # 1 of 3 right at 0.6, all at 0.9. The second of four bins holds one segment of each.
    y_true, probabilities = in_steps((0.6, 3, 1), (0.9, 3, 3))
    bins = reliability_bins(y_true, probabilities, 4)
    assert [one["n"] for one in bins] == [2, 2, 1, 1]
    assert [one["confidence"] for one in bins] == pytest.approx([0.6, 0.75, 0.9, 0.9])
    assert [one["accuracy"] for one in bins] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    expected = (2 * (0.6 - 1 / 3) + 2 * (0.75 - 2 / 3) + 0.1 + 0.1) / 6
    assert expected_calibration_error(y_true, probabilities, 4) == pytest.approx(expected)


def test_bins_are_of_equal_mass_and_not_of_equal_width() -> None:
    # Bins of equal width would put all but the last segment into one.
    confidence = [0.51, 0.52, 0.53, 0.54, 0.55, 0.99]
    y_true, probabilities = of_two_labels(confidence, [0, 0, 1, 1, 1, 1])
    bins = reliability_bins(y_true, probabilities, 3)
    assert [one["n"] for one in bins] == [2, 2, 2]
    assert [one["confidence"] for one in bins] == pytest.approx([0.515, 0.535, 0.77])
    assert [one["accuracy"] for one in bins] == [0, 1, 1]
    expected = (0.515 + 0.465 + 0.23) / 3
    assert expected_calibration_error(y_true, probabilities, 3) == pytest.approx(expected)
    # The order of the bins is that of confidence, not that of the segments.
    turned = reliability_bins(y_true[::-1], probabilities[::-1], 3)
    assert [one["accuracy"] for one in turned] == [0, 1, 1]


def test_constant_that_knows_the_shares_is_calibrated() -> None:
    # In this order, bins that went by single segments would be all right or all wrong.
    y_true = np.repeat([0, 1, 2], [60, 25, 15])
    probabilities = np.tile([0.6, 0.25, 0.15], (100, 1))
    assert expected_calibration_error(y_true, probabilities) == 0
    for one in reliability_bins(y_true, probabilities):
        assert one["accuracy"] == pytest.approx(0.6)


def test_calibration_error_does_not_depend_on_the_order(rng: np.random.Generator) -> None:
    confidence = rng.choice([0.55, 0.7, 0.85], 200)
    probabilities = np.stack((confidence, 1 - confidence), axis=1)
    y_true = rng.integers(0, 2, 200)
    expected = expected_calibration_error(y_true, probabilities)
    for _ in range(20):
        order = rng.permutation(200)
        found = expected_calibration_error(y_true[order], probabilities[order])
        assert found == pytest.approx(expected, abs=1e-12)


def test_coverage_curve_by_hand() -> None:
    confidence = [0.7, 0.9, 0.6, 0.8, 0.9]
    curve = coverage_curve(*of_two_labels(confidence, [1, 1, 0, 1, 0]))
    assert [one["threshold"] for one in curve] == [0.6, 0.7, 0.8, 0.9]
    assert [one["coverage"] for one in curve] == pytest.approx([1, 0.8, 0.6, 0.4])
    assert [one["accuracy"] for one in curve] == pytest.approx([3 / 5, 3 / 4, 2 / 3, 1 / 2])


def test_long_coverage_curve(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.ones(3), 5_000)
    y_true = rng.integers(0, 3, 5_000)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y_true
    curve = coverage_curve(y_true, probabilities)
    assert len(curve) == MAX_CURVE_POINTS
    assert curve[0]["threshold"] == confidence.min()
    assert curve[0]["coverage"] == 1
    assert curve[0]["accuracy"] == correct.mean()
    assert curve[-1]["threshold"] == confidence.max()
    coverage = np.array([one["coverage"] for one in curve])
    # Points lie evenly over coverage.
    assert -np.diff(coverage) == pytest.approx(1 / (MAX_CURVE_POINTS - 1), abs=2 / 5_000)
    for one in curve:
        kept = confidence >= one["threshold"]
        assert one["coverage"] == pytest.approx(kept.mean())
        assert one["accuracy"] == pytest.approx(correct[kept].mean())


def test_a_long_curve_ends_where_the_most_confident_are_equal() -> None:
    confidence = np.concatenate((np.linspace(0.5, 0.9, 400), np.full(600, 0.95)))
    curve = coverage_curve(*of_two_labels(confidence.tolist(), [1] * 1_000))
    coverage = [one["coverage"] for one in curve]
    assert coverage == pytest.approx(np.linspace(1, 0.6, 201))


def test_a_long_curve_has_each_point_once() -> None:
    # Half of all segments have the same confidence: no threshold keeps some of them.
    confidence = np.concatenate((np.linspace(0.5, 0.6, 200), np.full(800, 0.7), [0.8] * 200))
    confidence = np.concatenate((confidence, np.linspace(0.9, 0.99, 400)))
    curve = coverage_curve(*of_two_labels(confidence.tolist(), [1] * len(confidence)))
    thresholds = [one["threshold"] for one in curve]
    assert thresholds == sorted(set(thresholds))
    assert {0.5, 0.7, 0.8, 0.99} <= set(thresholds)


def test_threshold_for_precision_by_hand() -> None:
    # Right from each confidence on: 31 of 40, 26 of 30, 19 of 20, 5 of 5.
    truth = in_steps((0.6, 10, 5), (0.7, 10, 7), (0.8, 15, 14), (0.9, 5, 5))

    def find(target: float) -> list[float | None]:
        found = threshold_for_precision(*truth, target)
        assert found["target"] == target
        return [found[key] for key in ("threshold", "coverage", "precision")]

    assert find(0.5) == [0.6, 1.0, 31 / 40]
    assert find(31 / 40) == [0.6, 1.0, 31 / 40]
    assert find(0.8) == [0.7, 0.75, 26 / 30]
    assert find(0.95) == [0.8, 0.5, 19 / 20]
    # All five of the highest confidence are right, which are too few to go by.
    assert find(0.96) == [None, None, None]


def test_threshold_needs_enough_segments() -> None:
    enough = in_steps((0.9, MIN_KEPT, MIN_KEPT))
    assert threshold_for_precision(*enough, 1.0)["threshold"] == 0.9
    too_few = in_steps((0.9, MIN_KEPT - 1, MIN_KEPT - 1))
    assert threshold_for_precision(*too_few, 0.5)["threshold"] is None
