from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from sercli.evaluation.metrics import evaluate_probabilities, segment_brier, segment_nll
from sercli.evaluation.resampling import (
    FIGURES,
    MAX_ACCELERATED,
    Interval,
    Resampled,
    compare,
    find_intervals,
    number_units,
)

LABELS = ("anger", "fear", "neutral", "sadness")


def make_segments(
    rng: np.random.Generator, n_segments: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return random truth and probabilities that know a little of it."""
    y_true = rng.choice(4, n_segments, p=[0.4, 0.3, 0.2, 0.1])
    weights = rng.dirichlet(np.ones(4), n_segments) + 0.3 * np.eye(4)[y_true]
    return y_true, weights / weights.sum(axis=1, keepdims=True)


def from_correct(correct: NDArray[Any], units: NDArray[np.int64] | None = None) -> Resampled:
    """Return a sample that is right, with confidence 0.8, where `correct` is 1."""
    probabilities = np.tile([0.8, 0.2], (len(correct), 1))
    units = np.arange(len(correct)) if units is None else units
    return Resampled(1 - correct.astype(int), probabilities, units)


def accuracy_interval(sample: Resampled, **options: int) -> Interval:
    interval = find_intervals(sample, **options)["accuracy"]
    assert interval is not None
    return interval


def figures_of(sample: Resampled, counts: NDArray[np.float64]) -> list[dict[str, float]]:
    columns = {name: sample.figure(name, counts) for name in FIGURES}
    return [{name: columns[name][i].item() for name in FIGURES} for i in range(len(counts))]


def figures_by_hand(
    y_true: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    figures = evaluate_probabilities(y_true, probabilities, LABELS)
    return {name: figures[name] for name in FIGURES}


def first_right(n_right: list[int], n_clips: int) -> NDArray[np.int64]:
    """Return the clips of speakers who each have some right at first and then only wrong ones."""
    return np.concatenate([np.arange(n_clips) < n for n in n_right]).astype(int)


@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "no ties"])
def test_each_unit_once_gives_the_figures_themselves(
    rng: np.random.Generator, decimals: int
) -> None:
    y_true, probabilities = make_segments(rng, 300)
    probabilities = probabilities.round(decimals)
    units = rng.permutation(np.arange(300) % 12)
    sample = Resampled(y_true, probabilities, units)
    assert sample.n_units == 12
    expected = figures_by_hand(y_true, probabilities)
    assert figures_of(sample, np.ones((1, 12))) == [pytest.approx(expected)]


@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "no ties"])
def test_units_drawn_often_count_often(rng: np.random.Generator, decimals: int) -> None:
    y_true, probabilities = make_segments(rng, 200)
    probabilities = probabilities.round(decimals)
    units = rng.permutation(np.arange(200) % 10)
    # Only the first speaker is ever afraid: in draws without them, fear must not be averaged.
    y_true[(units != 0) & (y_true == 1)] = 2
    counts = rng.multinomial(10, np.full(10, 0.1), 8).astype(float)
    counts[:4, 0] = 0
    counts[4:, 0] = 3
    expected = []
    for row in counts.astype(int):
        rows = np.repeat(np.arange(200), row[units])
        expected.append(pytest.approx(figures_by_hand(y_true[rows], probabilities[rows])))
    assert figures_of(Resampled(y_true, probabilities, units), counts) == expected


def test_calibration_error_of_draws_does_not_depend_on_the_order() -> None:
    # Right in 80 of 100, all with confidence 0.8, and the wrong ones last.
    sample = from_correct(first_right([80], 100), np.arange(100) % 5)
    assert sample.figure("ece", np.ones((1, 5))) == pytest.approx([0], abs=1e-12)


def test_accuracy_of_segments_has_the_interval_of_a_proportion() -> None:
    low, high = accuracy_interval(from_correct(first_right([280], 400)))
    wilson = binomtest(280, 400).proportion_ci(method="wilson")
    assert low == pytest.approx(wilson.low, abs=0.01)
    assert high == pytest.approx(wilson.high, abs=0.01)


@pytest.mark.parametrize(
    ("n_segments", "method"), [(150, "BCa"), (MAX_ACCELERATED + 1, "percentile")]
)
def test_means_of_segments_have_the_interval_of_scipy(
    rng: np.random.Generator, n_segments: int, method: str
) -> None:
    y_true, probabilities = make_segments(rng, n_segments)
    sample = Resampled(y_true, probabilities, np.arange(n_segments))
    found = find_intervals(sample, seed=3, n_resamples=300)
    for name, values in (
        ("nll", segment_nll(y_true, probabilities)),
        ("brier", segment_brier(y_true, probabilities)),
        ("accuracy", (probabilities.argmax(axis=1) == y_true).astype(float)),
    ):
        expected = bootstrap(
            (values,), np.mean, n_resamples=300, method=method, rng=np.random.default_rng(3)
        )
        assert found[name] == pytest.approx(tuple(expected.confidence_interval))


def test_speakers_and_not_their_clips_are_drawn() -> None:
    # 28 of 40 speakers are always right, the others never: there are 40 facts, not 1,000.
    correct = np.repeat(first_right([28], 40), 25)
    low, high = accuracy_interval(from_correct(correct, np.repeat(np.arange(40), 25)))
    of_speakers = binomtest(28, 40).proportion_ci(method="wilson")
    assert low == pytest.approx(of_speakers.low, abs=0.03)
    assert high == pytest.approx(of_speakers.high, abs=0.03)
    of_clips = binomtest(700, 1_000).proportion_ci(method="wilson")
    assert high - low > 4 * (of_clips.high - of_clips.low)


def test_clips_of_a_speaker_are_drawn_together_in_any_order(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 120)
    units = np.arange(120) // 10
    expected = find_intervals(Resampled(y_true, probabilities, units), n_resamples=100)
    order = rng.permutation(120)
    sample = Resampled(y_true[order], probabilities[order], units[order])
    found = find_intervals(sample, n_resamples=100)
    for name in FIGURES:
        assert found[name] == pytest.approx(expected[name])


def test_intervals_repeat_with_their_seed(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 200)
    sample = Resampled(y_true, probabilities, np.arange(200) % 20)
    first, again, other = (find_intervals(sample, seed=n, n_resamples=200) for n in (1, 1, 2))
    assert list(first) == list(FIGURES)
    assert first == again
    for name in FIGURES:
        assert first[name] != other[name]


def test_intervals_hold_their_figures(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 400)
    sample = Resampled(y_true, probabilities, np.arange(400) % 40)
    figures = figures_by_hand(y_true, probabilities)
    for name, interval in find_intervals(sample, n_resamples=500).items():
        assert interval is not None
        low, high = interval
        assert low < figures[name] < high


def test_intervals_hold_a_calibration_error_that_all_draws_exceed() -> None:
    # Of ten speakers with 20 segments each, all of the confidence 0.8, 12 to 20 are right: 160.
    right = [12, 13, 14, 15, 16, 16, 17, 18, 19, 20]
    correct = np.concatenate([np.arange(20) < n for n in right])
    units = np.repeat(np.arange(10), 20)
    low, high = find_intervals(from_correct(correct, units))["ece"] or (1, 0)
    # Draws are |N(0, s)|, s = 0.05 * sqrt(6 / 10): their 97.5 % quantile less their mean.
    assert low == 0
    assert high == pytest.approx((2.24 - 0.80) * 0.05 * np.sqrt(0.6), rel=0.1)


def test_intervals_hold_a_figure_that_almost_all_draws_equal() -> None:
    # Four of 30 speakers have a label that is never found: the UAR is 1/2, and 1 without them.
    units = np.repeat(np.arange(30), 10)
    is_rare = (units < 4) & (np.arange(300) % 10 == 0)
    sample = from_correct(~is_rare, units)
    low, high = find_intervals(sample)["uar"] or (1, 0)
    assert low == pytest.approx(0.5 - 0.5 * (26 / 30) ** 30, abs=0.003)
    assert high == 0.5
    infallible = Resampled(is_rare.astype(int), np.eye(2)[is_rare.astype(int)], units)
    found = compare(infallible, sample)["uar"]
    assert found["difference"] == found["interval"][0] == 0.5
    assert found["interval"][1] == pytest.approx(1 - low)


def test_intervals_end_where_their_figures_can() -> None:
    # Always sure, and right once or never in 100.
    units, sure = np.arange(100) // 5, np.tile([1.0, 0.0], (100, 1))
    low, high = find_intervals(Resampled(1 - (np.arange(100) == 0), sure, units))["ece"] or (1, 0)
    assert low == pytest.approx(0.97, abs=0.005)
    assert high == 1
    never = find_intervals(Resampled(np.ones(100, int), sure, units))
    assert (never["ece"], never["brier"]) == ((1, 1), (2, 2))
    assert never["nll"] == pytest.approx(2 * (segment_nll(np.ones(1, int), sure[:1]).item(),))


def test_a_single_speaker_has_no_interval(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 30)
    sample = Resampled(y_true, probabilities, np.zeros(30, int))
    assert find_intervals(sample) == dict.fromkeys(FIGURES)
    for one in compare(sample, sample).values():
        assert one == {"difference": 0, "interval": None}


def test_interval_of_the_infallible_is_a_point() -> None:
    sample = from_correct(np.ones(50), np.arange(50) // 5)
    found = find_intervals(sample, n_resamples=100)
    assert [found[name] for name in ("accuracy", "uar", "macro_f1")] == [(1, 1)] * 3
    # Always right with confidence 0.8.
    assert found["ece"] == pytest.approx((0.2, 0.2))
    assert found["nll"] == pytest.approx((-np.log(0.8),) * 2)
    assert found["brier"] == pytest.approx((0.08, 0.08))


def test_identical_models_do_not_differ(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 200)
    units = np.arange(200) % 20
    one, same = (Resampled(y_true, probabilities.copy(), units) for _ in range(2))
    found = compare(one, same, n_resamples=100)
    assert found == {name: {"difference": 0, "interval": (0, 0)} for name in FIGURES}


@pytest.mark.parametrize("gains", [(1, 1), (1, 2)], ids=["same gain", "gains differ"])
def test_models_are_compared_on_the_same_speakers(gains: tuple[int, int]) -> None:
    # Speakers differ from 1 to 7 right of ten, and the better model has a few more right of each.
    n_right = [1 + i % 7 for i in range(20)]
    units = np.repeat(np.arange(20), 10)
    worse = from_correct(first_right(n_right, 10), units)
    n_better = [n + gains[i % 2] for i, n in enumerate(n_right)]
    better = from_correct(first_right(n_better, 10), units)
    found = compare(better, worse)["accuracy"]
    low, high = found["interval"]
    assert found["difference"] == pytest.approx(sum(gains) / 20)
    assert min(gains) / 10 - 1e-9 <= low <= found["difference"] + 1e-9
    assert found["difference"] - 1e-9 <= high <= max(gains) / 10 + 1e-9
    assert (high - low > 0.01) == (gains == (1, 2))
    alone = [accuracy_interval(sample) for sample in (better, worse)]
    # Unpaired, one could not tell them apart.
    assert alone[0][0] < alone[1][1]
    assert high - low < min(b - a for a, b in alone) / 2

    turned = compare(worse, better)["accuracy"]
    assert turned["difference"] == pytest.approx(-found["difference"])
    assert turned["interval"][1] < 0


def test_differences_are_those_of_the_figures(rng: np.random.Generator) -> None:
    y_true, probabilities = make_segments(rng, 200)
    _, others = make_segments(rng, 200)
    units = np.arange(200) % 20
    sample, other = (Resampled(y_true, one, units) for one in (probabilities, others))
    found = compare(sample, other, n_resamples=100)
    figures, figures_of_other = (figures_by_hand(y_true, one) for one in (probabilities, others))
    assert list(found) == list(FIGURES)
    for name in FIGURES:
        expected = figures[name] - figures_of_other[name]
        assert found[name]["difference"] == pytest.approx(expected)
        low, high = found[name]["interval"]
        assert low < expected < high


def test_units_are_speakers() -> None:
    units, kind = number_units(["b", "a", "b", "c", "a"])
    assert units.tolist() == [1, 0, 1, 2, 0]
    assert kind == "speakers"


def test_units_are_segments_if_a_speaker_is_unknown() -> None:
    units, kind = number_units(["b", None, "b"])
    assert units.tolist() == [0, 1, 2]
    assert kind == "segments"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Of each speaker another share is right, 0.7 on average.
    rng = np.random.default_rng(7)
    units = np.repeat(np.arange(30), 20)
    n_held, n_held_of_clips = 0, 0
    for _ in range(100):
        shares = rng.beta(3.5, 1.5, 30)
        correct = rng.random(600) < shares[units]
        low, high = accuracy_interval(from_correct(correct, units), n_resamples=200)
        n_held += low <= 0.7 <= high
        wilson = binomtest(int(correct.sum()), 600).proportion_ci(method="wilson")
        n_held_of_clips += wilson.low <= 0.7 <= wilson.high
    assert 88 <= n_held <= 100
    # As if clips were independent, which they are not.
    assert n_held_of_clips < 80
