from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy

from sercli.evaluation.listeners import compare_with_listeners, cross_entropy, jensen_shannon

# Four listeners, two who disagree, two who mistake the label, and one who is alone.
VOTES = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 2], [1, 0, 0]])
Y_TRUE = np.array([0, 1, 1, 0])
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def divergence(p: Sequence[float] | NDArray[Any], q: Sequence[float] | NDArray[Any]) -> float:
    """Return the Jensen-Shannon divergence as the entropy of the mean less the mean entropy."""
    p, q = np.asarray(p, float), np.asarray(q, float)
    together = entropy((p + q) / 2, base=2)
    return float(together - (entropy(p, base=2) + entropy(q, base=2)) / 2)


def test_listeners_by_hand() -> None:
    found = compare_with_listeners(VOTES, Y_TRUE, PROBABILITIES)
    assert found["n_segments"] == 4
    assert found["n_votes"] == 9
    # Of nine votes, 3 + 1 + 0 + 1 name the label.
    assert found["listener"]["accuracy"] == pytest.approx(5 / 9)
    # The second clip is a tie of two.
    assert found["majority"]["accuracy"] == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    floor = (entropy([0.75, 0.25]) + np.log(2) + 0 + 0) / 4
    assert found["floor"]["cross_entropy"] == pytest.approx(floor)


def test_votes_for_labels_that_are_not_scored_are_wrong_answers() -> None:
    # Two labels are scored, four could be heard. On the third clip, nobody heard one of the two.
    votes = np.array([[3.0, 1.0, 0.0, 4.0], [2.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.0, 2.0]])
    y_true = np.array([0, 1, 1])
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])
    found = compare_with_listeners(votes, y_true, probabilities)
    assert (found["n_segments"], found["n_votes"]) == (3, 15)
    assert found["listener"]["accuracy"] == 3 / 15
    assert found["majority"]["accuracy"] == 0
    assert found["model"]["accuracy"] == pytest.approx(2 / 3)
    # All else is as of the votes for the two, on the clips that have any.
    expected = compare_with_listeners(votes[:2, :2], y_true[:2], probabilities[:2])
    assert found["floor"] == expected["floor"]
    for who in ("model", "constant", "listener"):
        assert found[who]["jensen_shannon"] == expected[who]["jensen_shannon"]
    for who in ("model", "constant"):
        assert found[who]["cross_entropy"] == expected[who]["cross_entropy"]


def test_model_against_votes_by_hand() -> None:
    found = compare_with_listeners(VOTES[[0, 1, 3]], Y_TRUE[[0, 1, 3]], PROBABILITIES[[0, 1, 3]])
    # The model's tie on the second clip goes to its first label, as everywhere.
    assert found["model"]["accuracy"] == pytest.approx(2 / 3)
    # 0.75 ln 2 + 0.25 ln 4, ln 2 and 0.
    assert found["model"]["cross_entropy"] == pytest.approx((1.25 + 1 + 0) * np.log(2) / 3)
    expected = divergence([0.75, 0.25, 0], [0.5, 0.25, 0.25]) / 3
    assert found["model"]["jensen_shannon"] == pytest.approx(expected)


def test_sure_and_wrong_model_has_finite_cross_entropy() -> None:
    shares = np.array([[0.0, 0.0, 1.0]])
    assert cross_entropy(shares, np.array([[0.0, 1.0, 0.0]])) == pytest.approx([1022 * np.log(2)])


def test_cross_entropy_of_votes_under_themselves_is_their_entropy(
    rng: np.random.Generator,
) -> None:
    shares = rng.dirichlet(np.ones(5), 50)
    assert cross_entropy(shares, shares) == pytest.approx(entropy(shares, axis=1))
    assert (cross_entropy(shares, rng.dirichlet(np.ones(5), 50)) > entropy(shares, axis=1)).all()


def test_divergence_of_known_pairs() -> None:
    shares = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [1, 0, 0]], float)
    others = np.array([[0, 0, 1], [0, 0, 1], [0.2, 0.3, 0.5], [0.5, 0.5, 0]], float)
    # The last: entropy of (3/4, 1/4) is 0.8113 bits, less half of that of (1/2, 1/2).
    expected = [1, 1, 0, 2 - 0.75 * np.log2(3) - 0.5]
    assert jensen_shannon(shares, others) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(others, shares) == pytest.approx(expected, abs=1e-12)


def test_divergence_of_random_pairs(rng: np.random.Generator) -> None:
    shares, others = rng.dirichlet(np.ones(6), 50), rng.dirichlet(np.ones(6), 50)
    expected = [divergence(p, q) for p, q in zip(shares, others, strict=True)]
    assert jensen_shannon(shares, others) == pytest.approx(expected)


def test_divergence_of_rows_equal_but_for_rounding(rng: np.random.Generator) -> None:
    shares = rng.dirichlet(np.ones(6), 2_000)
    found = jensen_shannon(shares, shares * (1 + rng.uniform(-3e-16, 3e-16, shares.shape)))
    assert (found >= 0).all()
    assert found.max() < 1e-12


def test_divergence_from_what_is_no_number_is_none(rng: np.random.Generator) -> None:
    shares = rng.dirichlet(np.ones(6), 2_000)
    others = shares * (1 + rng.uniform(-3e-16, 3e-16, shares.shape))
    others[::2, 1] = np.nan
    found = jensen_shannon(shares, others)
    assert np.isnan(found[::2]).all()
    assert found[1::2].max() < 1e-12
    assert (found == 0).any()  # by rounding, some would be less


def test_divergence_of_a_listener_vote_by_vote(rng: np.random.Generator) -> None:
    votes = rng.poisson(0.8, (40, 4))
    votes[votes.sum(axis=1) == 0, 0] = 1
    assert (votes.sum(axis=1) == 1).sum() >= 2
    expected = []
    for row in votes:
        for label in np.repeat(np.arange(4), row):
            others = row - np.eye(4)[label]
            if others.sum():
                expected.append(divergence(np.eye(4)[label], others / others.sum()))
    found = compare_with_listeners(votes.astype(float), np.zeros(40, int), np.full((40, 4), 0.25))
    assert found["listener"]["jensen_shannon"] == pytest.approx(np.mean(expected))


def test_divergence_of_a_listener_by_hand() -> None:
    found = compare_with_listeners(VOTES, Y_TRUE, PROBABILITIES)["listener"]["jensen_shannon"]
    # Three of the first clip face (2/3, 1/3), the fourth is alone against them; the two of the
    # second clip contradict, those of the third agree; nobody else heard the last.
    expected = (3 * divergence([1, 0], [2 / 3, 1 / 3]) + 1 + 2 * 1 + 2 * 0) / 8
    assert found == pytest.approx(expected)


def test_listeners_who_are_all_alone() -> None:
    votes = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = compare_with_listeners(votes, np.array([0, 0]), PROBABILITIES[:2])
    assert found["listener"] == {"accuracy": 0.5, "jensen_shannon": None}
    assert found["floor"]["cross_entropy"] == 0


def test_no_constant_beats_the_mean_of_the_votes(rng: np.random.Generator) -> None:
    votes = rng.multinomial(rng.integers(1, 9, 60), [0.5, 0.3, 0.15, 0.05]).astype(float)
    y_true = rng.integers(0, 4, 60)
    shares = votes / votes.sum(axis=1, keepdims=True)
    found = compare_with_listeners(votes, y_true, shares)
    mean = shares.mean(axis=0)
    assert found["constant"]["cross_entropy"] == pytest.approx(entropy(mean))
    assert found["constant"]["accuracy"] == pytest.approx((y_true == mean.argmax()).mean())
    assert found["constant"]["jensen_shannon"] == pytest.approx(
        np.mean([divergence(row, mean) for row in shares])
    )
    # Whoever answers with the votes themselves reaches the floor.
    assert found["model"]["cross_entropy"] == found["floor"]["cross_entropy"]
    assert found["model"]["jensen_shannon"] == pytest.approx(0, abs=1e-12)
    for other in (*rng.dirichlet(np.ones(4), 200), *rng.dirichlet(1_000 * mean, 200)):
        constant = np.tile(other, (60, 1))
        rival = compare_with_listeners(votes, y_true, constant)["model"]["cross_entropy"]
        assert rival > found["constant"]["cross_entropy"]
