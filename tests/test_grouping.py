"""Files that wait for the baselines of their groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_adaptation import create_adapter, draw_probabilities

from sercli import adaptation
from sercli.adaptation import AdapterSettings
from sercli.annotation.grouping import WaitingFiles
from sercli.annotation.scored import ScoredFile, find_piece_type
from sercli.annotation.spool import RowStore
from sercli.config import Adaptation
from sercli.schema import FileResult, Group
from sercli.speech.turn import Turn

PIECE = find_piece_type(6)
TURNS = [Turn(speaker=f"group {n}") for n in range(3)]


class WatchedStore(RowStore):
    """Store that notes how many rows are read and written at once."""

    def __init__(self, limit: int) -> None:
        super().__init__(PIECE, limit)
        self.sizes: list[int] = []

    def read(self, numbers: Sequence[int]) -> NDArray[Any]:
        self.sizes.append(len(numbers))
        return super().read(numbers)

    def write(self, numbers: Sequence[int], rows: NDArray[Any]) -> None:
        self.sizes.append(len(numbers))
        super().write(numbers, rows)


@pytest.mark.parametrize("limit", [100, 1_000_000])
def test_no_more_of_a_group_than_a_block_is_in_memory(
    limit: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(least=4, sharpening=0.7))
    lengths = rng.integers(0, 4, 40)
    pieces = np.zeros(lengths.sum(), PIECE)
    # Two groups, mixed within the files; and a piece of its own.
    pieces["turn"] = rng.integers(0, 2, len(pieces))
    pieces["turn"][17] = 2
    pieces["probabilities"] = draw_probabilities(rng, len(pieces))
    expected = pieces["probabilities"].copy()
    for turn in (0, 1):
        is_own = pieces["turn"] == turn
        expected[is_own] = adapter.adapt(expected[is_own])
    assert np.abs(expected - pieces["probabilities"]).max() > 0.05

    monkeypatch.setattr(adaptation, "BLOCK_SEGMENTS", 5)
    with WatchedStore(limit) as store:
        waiting = WaitingFiles(adapter, store, "speaker")
        for number, own in enumerate(np.split(pieces, lengths.cumsum()[:-1])):
            waiting.add(ScoredFile(FileResult(str(number), "ok"), own, ("mix",), turns=TURNS))
        files = list(waiting.rescore())
        assert max(store.sizes) == 5
        assert store.append(pieces[:1]) == range(1)
        assert not list(waiting.rescore())
    assert [scored.result.path for scored in files] == [str(number) for number in range(40)]
    assert [len(scored.pieces) for scored in files] == lengths.tolist()
    found = np.concatenate([scored.pieces for scored in files])
    np.testing.assert_array_equal(found["turn"], pieces["turn"])
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-12)
    groups = {group for scored in files for group in scored.result.groups}
    sizes = np.bincount(pieces["turn"]).tolist()
    assert groups == {Group(f"group {n}", size, n < 2) for n, size in enumerate(sizes)}


def test_a_speaker_with_the_name_of_a_file_is_not_the_file(rng: np.random.Generator) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(least=4))
    pieces = np.zeros(5, PIECE)
    pieces["probabilities"] = draw_probabilities(rng, 5)
    with RowStore(PIECE) as store:
        waiting = WaitingFiles(adapter, store, "speaker")
        of_unknown = ScoredFile(FileResult("a.wav", "ok"), pieces[:3], ("mix",))
        waiting.add(of_unknown)
        waiting.add(
            of_unknown._replace(
                result=FileResult("b.wav", "ok"), pieces=pieces[3:], turns=[Turn(speaker="a.wav")]
            )
        )
        found = [scored.result.groups for scored in waiting.rescore()]
    assert found == [(Group("a.wav", 3, False),), (Group("a.wav", 2, False),)]


def test_a_group_of_just_enough_is_adapted_and_says_so(rng: np.random.Generator) -> None:
    adapter = create_adapter(rng, settings=AdapterSettings(least=4))
    pieces = np.zeros(7, PIECE)
    pieces["turn"] = [0, 1, 0, 1, 0, 1, 0]  # four of one, three of the other
    pieces["probabilities"] = draw_probabilities(rng, 7)
    with RowStore(PIECE) as store:
        waiting = WaitingFiles(adapter, store, "speaker")
        waiting.add(ScoredFile(FileResult("a", "ok"), pieces, ("mix",), turns=TURNS))
        (scored,) = waiting.rescore()
    assert scored.result.groups == (Group("group 0", 4, True), Group("group 1", 3, False))
    changed = (scored.pieces["probabilities"] != pieces["probabilities"]).any(axis=1)
    assert changed.tolist() == [True, False] * 3 + [True]


def test_groups_of_a_file_are_in_the_order_of_their_names(rng: np.random.Generator) -> None:
    pieces = np.zeros(9, PIECE)
    pieces["turn"] = range(8, -1, -1)
    pieces["probabilities"] = draw_probabilities(rng, 9)
    turns = [Turn(speaker=f"group {n}") for n in range(9)]
    with RowStore(PIECE) as store:
        waiting = WaitingFiles(create_adapter(rng), store, "speaker")
        waiting.add(ScoredFile(FileResult("a", "ok"), pieces, ("mix",), turns=turns))
        (scored,) = waiting.rescore()
    assert [group.name for group in scored.result.groups] == [f"group {n}" for n in range(9)]


@pytest.mark.parametrize(
    ("adapt", "groups"),
    [
        ("recording", [("call", False)] * 3),
        ("channel", [("call#0", False), ("call#1", False), ("call#1", False)]),
        ("speaker", [("ann", True), ("bob", True), ("call", False)]),
        ("corpus", [("corpus", False)] * 3),
    ],
)
def test_groups_are_of_the_kind_that_was_asked_for_even_if_speakers_are_known(
    adapt: Adaptation, groups: list[tuple[str, bool]]
) -> None:
    pieces = np.zeros(3, PIECE)
    pieces["channel"], pieces["turn"] = [0, 1, 1], [0, 1, 2]
    turns = [Turn(speaker="ann"), Turn(speaker="bob"), Turn()]
    scored = ScoredFile(FileResult("call", "ok"), pieces, ("0", "1"), turns=turns)
    assert [scored.find_group(adapt, piece) for piece in pieces] == groups
