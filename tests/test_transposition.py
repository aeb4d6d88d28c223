"""Clips as strangers might say them: what is moved, where to, and what stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sercli.datasets.clip import Clip
from sercli.errors import ConfigError, DatasetError
from sercli.training import transposition
from sercli.training import transposition as module
from sercli.training.networks.material import Material
from sercli.training.transposition import Transposition, average_calm, find_strangers

LABELS = ("anger", "neutral")
# Of four features, the last two are deviations.
DEVIATIONS = np.array([False, False, True, True])
WHO = ("ann", "ann", "ann", "bob", "bob", None, "cem")
WHAT = ("neutral", "neutral", "anger", "neutral", "anger", "anger", "anger")
FloatArray = NDArray[np.float32]


def make_clips(who: Any = WHO, what: Any = WHAT) -> list[Clip]:
    names = enumerate(zip(who, what, strict=True))
    return [Clip(Path(f"{i}.wav"), label, speaker, corpus="toy") for i, (speaker, label) in names]


@pytest.fixture
def rows(rng: np.random.Generator) -> FloatArray:
    found = rng.normal(0, 1, (len(WHO), 4)).astype(np.float32)
    found[:, 2:] = np.exp(found[:, 2:])
    return found


@pytest.fixture
def strangers(rng: np.random.Generator) -> FloatArray:
    return rng.normal(0, 3, (5, 4)).astype(np.float32)


def transpose(rows: FloatArray, strangers: FloatArray, **changes: Any) -> Transposition:
    clips = make_clips(**changes)
    everybody = average_calm(clips, LABELS, rows, DEVIATIONS)
    return Transposition.of(clips, LABELS, rows, strangers, DEVIATIONS, everybody)


def straighten(rows: FloatArray) -> FloatArray:
    return np.hstack((rows[:, :2], np.log(rows[:, 2:])))


def test_what_is_calm_of_a_speaker_becomes_what_is_calm_of_a_stranger(
    rows: FloatArray, strangers: FloatArray
) -> None:
    moved, before = straighten(transpose(rows, strangers).move(rows)), straighten(rows)
    everybody = before[[0, 1, 3]].mean(axis=0)
    # Whose speaker is unknown, or never calm, differs from what is calm of all.
    own = {"ann": before[:2].mean(axis=0), "bob": before[3], None: everybody, "cem": everybody}
    found = np.stack([moved[i] - (before[i] - own[speaker]) for i, speaker in enumerate(WHO)])
    for i, speaker in enumerate(WHO):
        distances = np.abs(strangers - found[i]).max(axis=1)
        assert distances.min() < 1e-5, speaker
        assert np.sort(distances)[1] > 0.1
    # All of a speaker are moved to one stranger, whoever else is there.
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
    alone = transpose(rows[3:5], strangers, who=WHO[3:5], what=WHAT[3:5]).move(rows[3:5])
    np.testing.assert_allclose(straighten(alone), moved[3:5], atol=1e-5)


def test_speakers_without_calm_clips_are_compared_with_those_of_training(
    rows: FloatArray, strangers: FloatArray
) -> None:
    everybody = np.full(4, 2.0, np.float32)
    clips, calm = make_clips(), straighten(rows)[:2].mean(axis=0)
    found = Transposition.of(clips, LABELS, rows, strangers, DEVIATIONS, everybody)
    by_name = dict(zip(found.names, found.calm, strict=True))
    np.testing.assert_array_equal(by_name["toy/cem"], everybody)
    np.testing.assert_array_equal(by_name[""], everybody)
    np.testing.assert_allclose(by_name["toy/ann"], calm, atol=1e-6)
    # Of clips to be scored, none needs to be calm.
    alone = Transposition.of(clips[5:], LABELS, rows[5:], strangers, DEVIATIONS, everybody)
    np.testing.assert_array_equal(alone.calm, [everybody] * 2)


def test_the_same_name_in_another_table_is_another_speaker(
    rows: FloatArray, strangers: FloatArray
) -> None:
    clips = make_clips(("ann",) * 7, ("neutral",) * 7)
    clips = [replace(clip, corpus="ab"[i % 2], namespace="table") for i, clip in enumerate(clips)]
    everybody = average_calm(clips, LABELS, rows, DEVIATIONS)
    found = Transposition.of(clips, LABELS, rows, strangers, DEVIATIONS, everybody)
    assert found.names == ["table/ann", "table/ann"]
    for i in range(7):
        own = straighten(rows)[i % 2 :: 2].mean(axis=0)
        np.testing.assert_allclose(found.calm[found.speakers[i]], own, atol=1e-6)


def test_what_is_learned_is_somewhere_on_the_way(
    rows: FloatArray, strangers: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    transposition = transpose(rows, strangers)
    clips = np.array([2, 4, 2, 7, 0] * 200)  # there is no seventh: nobody labelled it
    given = np.vstack((rows, np.ones((1, 4), np.float32)))[clips]
    np.testing.assert_array_equal(transposition.draw(given, clips, [1], 0.0), given)
    monkeypatch.setattr(module, "CONTRAST", (1.0, 1.0))
    drawn = transposition.draw(given, clips, [1, 2], 0.5)
    changed = (drawn != given).any(axis=1)
    assert not changed[clips == 7].any()
    assert changed[clips != 7].mean() == pytest.approx(0.5, abs=0.06)
    # Of clip 2, which is ann's: a part of the way from her calm speech to a stranger's.
    mine = np.flatnonzero(changed & (clips == 2))
    calm = straighten(rows[:2]).mean(axis=0)
    steps = straighten(drawn[mine]) - straighten(given[mine])
    ways = strangers - calm
    parts = steps @ ways.T / np.square(ways).sum(axis=1)
    left = np.abs(steps[:, None] - parts[:, :, None] * ways).max(axis=2)
    chosen = left.argmin(axis=1)
    assert left.min(axis=1).max() < 1e-4
    assert set(chosen) == set(range(5))
    found = parts[np.arange(len(mine)), chosen]
    assert (found.min() > -1e-5, found.max() < 1 + 1e-5) == (True, True)
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    # The same draws from the same seed alone.
    np.testing.assert_array_equal(transposition.draw(given, clips, [1, 2], 0.5), drawn)
    assert (transposition.draw(given, clips, [1, 3], 0.5) != drawn).any()


def test_emotions_are_shown_more_or_less_strongly(
    rows: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To a stranger who is ann: what changes is the contrast alone.
    calm = straighten(rows[:2]).mean(axis=0)
    transposition = transpose(rows, calm[None])
    clips = np.full(400, 2)
    drawn = straighten(transposition.draw(rows[clips], clips, [0], 1.0)) - calm
    contrast = drawn / (straighten(rows[2:3]) - calm)
    np.testing.assert_allclose(contrast, contrast[:, :1] * np.ones(4), rtol=1e-3)
    least, most = contrast.min(), contrast.max()
    assert (least, most) == (pytest.approx(0.7, abs=0.02), pytest.approx(1.2, abs=0.02))


def test_strangers_are_recordings_or_speakers(
    rows: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [
        Clip(Path(path), "unlabelled", speaker, corpus="unlabelled")
        for path, speaker in (("a", None), ("b", None), ("a", None), ("c", "x"), ("d", "x"))
    ]
    with pytest.raises(DatasetError, match=r"found 3 recordings \(or speakers, .*; expected 6 or"):
        find_strangers(clips, rows[:5], DEVIATIONS, 3)
    monkeypatch.setattr(transposition, "MIN_STRANGERS", 2)
    with pytest.raises(DatasetError, match=r"found 3 recordings .*; expected 4 or"):
        find_strangers(clips, rows[:5], DEVIATIONS, 4)
    found = find_strangers(clips, rows[:5], DEVIATIONS, 3)
    before = straighten(rows)
    expected = [before[[0, 2]].mean(axis=0), before[1], before[3:5].mean(axis=0)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_calm_clips_nothing_is_known(rows: FloatArray, strangers: FloatArray) -> None:
    with pytest.raises(ConfigError, match=r"labels are anger, fear; expected neutral among them"):
        average_calm(make_clips(), ("anger", "fear"), rows, DEVIATIONS)
    with pytest.raises(
        DatasetError, match=r"no clip is neutral, .*; expected neutral clips of every"
    ):
        transpose(rows, strangers, what=("anger",) * len(WHO))


def test_scored_by_other_strangers_than_learned_from(strangers: FloatArray) -> None:
    material = Material(None, strangers=strangers)  # type: ignore[arg-type]
    for number in (1, 2, 3):
        learned = material.meet(number, 3, others=True).strangers
        scored = material.meet(number, 3, others=False).strangers
        assert learned is not None
        assert scored is not None
        np.testing.assert_array_equal(scored, strangers[number - 1 :: 3])
        both = np.vstack((learned, scored))
        assert sorted(map(tuple, both)) == sorted(map(tuple, strangers))
    nobody = Material(None)  # type: ignore[arg-type]
    assert nobody.meet(1, 3, others=True) is nobody


def test_what_never_varies_has_a_logarithm(rows: FloatArray, strangers: FloatArray) -> None:
    rows[:, 3] = 0  # as of digital silence
    straight = transposition.straighten(rows, DEVIATIONS)
    np.testing.assert_allclose(straight[:, 3], np.log(1e-3), rtol=1e-5)
    assert np.isfinite(transpose(rows, strangers).move(rows)).all()


def test_speakers_whose_names_are_no_text(rows: FloatArray, strangers: FloatArray) -> None:
    clips = make_clips(("\udcff",) * 7)
    everybody = average_calm(clips, LABELS, rows, DEVIATIONS)
    found = Transposition.of(clips, LABELS, rows, strangers, DEVIATIONS, everybody)
    assert np.isfinite(found.move(rows)).all()
