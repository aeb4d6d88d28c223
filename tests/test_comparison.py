from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sercli.datasets import Clip
from sercli.errors import DatasetError
from sercli.evaluation.comparison import compare_predictions
from sercli.evaluation.predictions import Predictions

LABELS = ("anger", "fear")


def make_clip(name: str, emotion: str, speaker: str | None = None) -> Clip:
    return Clip(Path(f"{name}.wav"), emotion, speaker or f"by {name}", name=name, corpus="plays")


# Of the clips below, and of three of them.
FEW, FEWER = (f"Intervals from {n} speakers are too narrow." for n in (4, 3))

CLIPS = (
    make_clip("w", "anger"),
    make_clip("x", "anger"),
    make_clip("y", "anger"),
    make_clip("z", "fear"),
)


def make_predictions(
    model: str, of_anger: Sequence[float] | NDArray[Any], clips: tuple[Clip, ...] = CLIPS
) -> Predictions:
    anger = np.array(of_anger)
    hashes = tuple(f"audio of {clip.corpus}/{clip.name}" for clip in clips)
    return Predictions(model, LABELS, clips, np.stack((anger, 1 - anger), axis=1), hashes)


@pytest.fixture
def first() -> Predictions:
    # Wrong for y alone.
    return make_predictions("first", [0.8, 0.6, 0.4, 0.3])


@pytest.fixture
def second() -> Predictions:
    # Wrong for z alone.
    return make_predictions("second", [0.9, 0.9, 0.9, 0.8])


def test_differences_by_hand(first: Predictions, second: Predictions) -> None:
    comparison = compare_predictions([first, second], seed=3)
    assert comparison["labels"] == ["anger", "fear"]
    assert (comparison["n_segments"], comparison["resampled"]) == (4, "speakers")
    assert (comparison["level"], comparison["n_resamples"], comparison["seed"]) == (0.95, 2000, 3)
    one, other = comparison["models"]
    assert (one["name"], other["name"]) == ("first", "second")
    expected = {
        "accuracy": (3 / 4, 3 / 4),
        "uar": ((2 / 3 + 1) / 2, (1 + 0) / 2),
        "macro_f1": ((4 / 5 + 2 / 3) / 2, (6 / 7 + 0) / 2),
        "brier": (2 * (0.04 + 0.16 + 0.36 + 0.09) / 4, 2 * (3 * 0.01 + 0.64) / 4),
        "nll": (-log(0.8 * 0.6 * 0.4 * 0.7) / 4, -log(0.9**3 * 0.2) / 4),
    }
    (difference,) = comparison["differences"]
    assert (difference["of"], difference["from"]) == ("second", "first")
    assert difference["figures"].keys() == {*expected, "ece"}
    for figure, (earlier, later) in expected.items():
        assert one[figure] == pytest.approx(earlier)
        assert other[figure] == pytest.approx(later)
        found = difference["figures"][figure]
        assert found["difference"] == pytest.approx(later - earlier)
        low, high = found["interval"]
        assert low <= later - earlier <= high
    ece = difference["figures"]["ece"]["difference"]
    assert ece == pytest.approx(other["ece"] - one["ece"])


def test_intervals_are_paired() -> None:
    # The better model errs only where the weak one does: in no draw of clips is it worse. With
    # draws of its own, it would be worse in many.
    clips = tuple(make_clip(str(i), LABELS[i % 2]) for i in range(40))
    right = np.array([float(clip.emotion == "anger") for clip in clips])
    weak = np.where(np.arange(40) < 20, right, 1 - right) * 0.8 + 0.1
    better = np.where(np.arange(40) < 22, right, 1 - right) * 0.8 + 0.1
    comparison = compare_predictions(
        [make_predictions("weak", weak, clips), make_predictions("better", better, clips)]
    )
    accuracy = comparison["differences"][0]["figures"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(2 / 40)
    low, high = accuracy["interval"]
    assert 0 <= low < 0.05 < high <= 0.2
    equal = compare_predictions([make_predictions(name, weak, clips) for name in ("a", "b")])
    for figure in equal["differences"][0]["figures"].values():
        assert figure == {"difference": 0.0, "interval": (0.0, 0.0)}


def test_intervals_are_drawn_from_the_seed() -> None:
    clips = tuple(make_clip(str(i), LABELS[i % 2]) for i in range(40))
    of_anger = np.random.default_rng(0).uniform(size=40)
    both = [make_predictions(name, of_anger, clips) for name in ("a", "b")]
    found = [compare_predictions(both, seed=seed)["models"][0]["intervals"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert compare_predictions(both)["models"][0]["intervals"] == found[0]


def test_every_pair_is_compared_later_minus_earlier(
    first: Predictions, second: Predictions
) -> None:
    third = make_predictions("third", [0.9, 0.9, 0.9, 0.1])
    comparison = compare_predictions([first, second, third])
    found = [
        (one["of"], one["from"], one["figures"]["accuracy"]["difference"])
        for one in comparison["differences"]
    ]
    assert found == [
        ("second", "first", 0.0),
        ("third", "first", 0.25),
        ("third", "second", 0.25),
    ]


def test_order_of_the_clips_does_not_matter(first: Predictions, second: Predictions) -> None:
    shuffled = second.take([second.keys()[i] for i in (2, 0, 3, 1)])
    assert compare_predictions([first, shuffled]) == compare_predictions([first, second])


def test_only_common_clips_are_compared(first: Predictions, second: Predictions) -> None:
    # w is in the first alone, v in the second alone, and that of another corpus is another clip.
    odd = replace(CLIPS[0], corpus="films")
    clips = (odd, make_clip("v", "fear"), *CLIPS[1:])
    wider = make_predictions("second", [0.1, 0.9, 0.9, 0.9, 0.8], clips)
    expected = compare_predictions([first.take(first.keys()[1:]), second.take(second.keys()[1:])])
    assert expected["n_segments"] == 3
    found = compare_predictions([first, wider])
    assert found.pop("warnings") == [
        "first: 1 clip left out, since not all models scored them or have their label.",
        "second: 2 clips left out, since not all models scored them or have their label.",
        FEWER,
    ]
    assert expected.pop("warnings") == [FEWER]
    assert found == expected


def test_common_labels_are_renormalised(first: Predictions) -> None:
    # Another order, another label, and a clip of that label, which stays out.
    clips = (make_clip("v", "joy"), *CLIPS)
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.5, 0.1, 0.4], [0.0, 0.2, 0.8], [0.9, 0.04, 0.06], [0.2, 0.2, 0.6]]
    )
    wider = Predictions("wider", ("joy", "fear", "anger"), clips, probabilities)
    more = replace(
        first,
        labels=("anger", "fear", "calm"),
        probabilities=np.hstack((first.probabilities / 2, np.full((4, 1), 0.5))),
    )
    comparison = compare_predictions([more, wider])
    assert comparison["labels"] == ["anger", "fear"]
    assert comparison["n_segments"] == 4
    one, other = comparison["models"]
    assert one["nll"] == pytest.approx(-log(0.8 * 0.6 * 0.4 * 0.7) / 4)
    assert other["nll"] == pytest.approx(-log(0.8 * 0.8 * 0.6 * 0.25) / 4)
    assert other["accuracy"] == 0.75


def test_clips_of_a_label_that_one_model_lacks_are_left_out(second: Predictions) -> None:
    # As corpora are mapped otherwise, both have a label for w.
    clips = (replace(CLIPS[0], emotion="joy"), *CLIPS[1:])
    sure = np.eye(3)[[2, 0, 0, 1]]
    wider = Predictions("wider", (*LABELS, "joy"), clips, sure, second.hashes)
    found = compare_predictions([wider, second])
    assert (found["labels"], found["n_segments"]) == (["anger", "fear"], 3)
    left_out = "1 clip left out, since not all models scored them or have their label."
    assert found["warnings"] == [f"wider: {left_out}", f"second: {left_out}", FEWER]


@pytest.mark.parametrize("speaker", [None, "zoe"])
def test_speakers_are_those_of_the_first(
    first: Predictions, second: Predictions, speaker: str | None
) -> None:
    # What one report does not know, or names otherwise, must not break the pairs.
    named = tuple(replace(clip, speaker=speaker) for clip in CLIPS)
    comparison = compare_predictions([first, replace(second, clips=named)])
    assert comparison == compare_predictions([first, second])


def test_unknown_speakers_are_resampled_by_clip(first: Predictions, second: Predictions) -> None:
    unknown = tuple(replace(clip, speaker=None) for clip in CLIPS)
    comparison = compare_predictions([replace(first, clips=unknown), second])
    assert comparison["resampled"] == "segments"
    assert comparison["warnings"] == [
        "Speakers are unknown, so intervals are bootstrapped over clips, and too narrow."
    ]


def test_intervals_of_many_speakers_and_of_one() -> None:
    for n_speakers, warning in ((10, None), (1, "There are no intervals: all clips are of one")):
        clips = tuple(make_clip(str(i), LABELS[i % 2], f"s{i % n_speakers}") for i in range(20))
        pair = [make_predictions(name, np.full(20, 0.6), clips) for name in ("a", "b")]
        told = compare_predictions(pair)["warnings"]
        assert told == [] if warning is None else told[0].startswith(warning)


def test_clips_of_one_name_and_other_audio_are_not_paired(
    first: Predictions, second: Predictions
) -> None:
    expected = compare_predictions([first.take(first.keys()[1:]), second.take(second.keys()[1:])])
    other = replace(second, hashes=("other", *second.hashes[1:]))
    # That of a third, too, which agrees with the first.
    for of in ([first, other], [first, first, other]):
        found = compare_predictions(of)
        assert found["n_segments"] == 3
        assert found["warnings"] == [
            "1 clip left out, since their names agree, but not their audio or times.",
            FEWER,
        ]
    assert found["differences"][1]["figures"] == expected["differences"][0]["figures"]
    with pytest.raises(
        DatasetError,
        match=r"^first, second: have 4 clips with the same names, but different audio or times",
    ):
        compare_predictions([first, replace(second, hashes=tuple("abcd"))])


def test_clips_whose_audio_is_not_known(first: Predictions, second: Predictions) -> None:
    unknown = replace(second, hashes=())
    by_name = "second: has no hashes of its audio, so its clips are matched by name only."
    assert compare_predictions([first, unknown])["warnings"] == [by_name, FEW]
    partly = replace(second, hashes=("", *second.hashes[1:]))
    assert compare_predictions([first, partly])["warnings"] == [FEW]
    # By the stretch, of which tables of before do not tell the channel.
    w, x, y, z = CLIPS
    clips = (replace(w, start=0.5), replace(x, end=1.0), replace(y, channel=1), z)
    moved = compare_predictions([first, replace(unknown, clips=clips)])
    assert moved["n_segments"] == 2
    assert moved["warnings"][0].startswith("2 clips left out, since their names agree")
    sides = [
        replace(one, clips=(w, x, replace(y, channel=n), z))
        for n, one in enumerate((first, unknown))
    ]
    assert compare_predictions(sides)["n_segments"] == 3
    # The same audio is the same clip, wherever it lies.
    assert compare_predictions([first, replace(second, clips=clips)])["n_segments"] == 4
    stretch = replace(x, start=0.0001, end=1.23456)
    rounded = replace(x, start=0.0, end=1.235)
    pair = [replace(first, clips=(w, stretch, y, z)), replace(unknown, clips=(w, rounded, y, z))]
    assert compare_predictions(pair)["n_segments"] == 4
    # By who speaks, where both tell.
    named = (replace(w, speaker="zoe"), replace(x, speaker=None), y, z)
    assert compare_predictions([first, replace(unknown, clips=named)])["warnings"] == [
        by_name,
        "second: 1 clip with other speakers than in first: these may be other recordings of the "
        "same name.",
        FEW,
    ]


def test_models_of_one_name_are_numbered(first: Predictions, second: Predictions) -> None:
    models = [first, second, replace(second, model="first")]
    comparison = compare_predictions(models)
    assert [one["name"] for one in comparison["models"]] == ["first (1)", "second", "first (2)"]
    pairs = [(one["of"], one["from"]) for one in comparison["differences"]]
    assert pairs == [
        ("second", "first (1)"),
        ("first (2)", "first (1)"),
        ("first (2)", "second"),
    ]


def test_true_labels_must_agree(first: Predictions, second: Predictions) -> None:
    relabelled = (replace(CLIPS[0], emotion="fear"), *CLIPS[1:])
    with pytest.raises(
        DatasetError,
        match=r"^first and second: have different true labels for the same clips; expected pred",
    ):
        compare_predictions([first, replace(second, clips=relabelled)])


def test_nothing_in_common(first: Predictions, second: Predictions) -> None:
    moved = tuple(replace(clip, corpus="films") for clip in CLIPS)
    with pytest.raises(
        DatasetError,
        match=r"^first, second: have 0 clips and the labels \['anger', 'fear'\] in common; expec",
    ):
        compare_predictions([first, replace(second, clips=moved)])
    with pytest.raises(DatasetError, match=r"have 4 clips and the labels \['anger'\] in common"):
        compare_predictions([first, replace(second, labels=("anger", "joy"))])


def test_nothing_to_compare(first: Predictions) -> None:
    for few in ([], [first]):
        with pytest.raises(DatasetError, match="expected two or more models or reports"):
            compare_predictions(few)


def test_ways_of_measuring_that_differ_are_told(first: Predictions, second: Predictions) -> None:
    way = {"target": "intended", "adapt": "none", "precision": "fp32", "protocol": "speakers apart"}
    pair = [first, second]
    alike = compare_predictions(pair, measured=[way, way])
    assert alike["warnings"] == [FEW]
    assert [one["adapt"] for one in alike["models"]] == ["none", "none"]
    other = {"adapt": "speaker", "precision": "fp32", "protocol": "speakers shared"}
    assert compare_predictions(pair, measured=[way, other])["warnings"] == [
        "They were measured with different settings: adapt is none (first), speaker (second).",
        "second: speakers shared: its figures may be too good.",
        FEW,
    ]
    # Of a report without figures, nothing is known.
    unknown = compare_predictions(pair, measured=[way, {}])
    assert unknown["warnings"] == [
        "second: the settings that it was measured with are not known.",
        FEW,
    ]
    assert unknown["models"][1]["target"] is None
