"""Estimated duration of what damage in an MP3 replaces, in frames of made-up sizes."""

from types import SimpleNamespace
from typing import Any

import pytest

from sercli.audio.containers import Mp3Index
from sercli.audio.damage import LostSound

RATE = 44_100
# Twenty seconds.
N_SAMPLES = 20 * RATE


def lose(index: Mp3Index, end: int, *pieces: tuple[str, float, int, int]) -> float:
    """Return the lost seconds of packets, each with its seconds, its size and its position."""
    lost = LostSound(index, end, RATE)
    for kind, seconds, size, position in pieces:
        packet: Any = SimpleNamespace(duration=seconds, time_base=1.0, size=size, pos=position)
        getattr(lost, kind)(packet)
    return lost.seconds


def test_without_a_size_in_the_index_what_follows_is_not_missing() -> None:
    index = Mp3Index(N_SAMPLES, 0, None)
    pieces = [("keep", 10, 10_000, 0), ("lose", 0, 4_000, 10_000)]
    assert lose(index, 20_000, *pieces) == pytest.approx(4)


def test_two_losses_are_no_more_than_is_missing() -> None:
    index = Mp3Index(N_SAMPLES, 0, 20_000)
    pieces = [("keep", 15, 15_000, 0), ("lose", 0, 4_000, 15_000), ("lose", 0, 4_000, 19_000)]
    assert lose(index, 20_000, *pieces) == pytest.approx(5)


def test_the_time_of_a_damaged_packet_has_passed() -> None:
    index = Mp3Index(N_SAMPLES, 0, 20_000)
    pieces = [("keep", 15, 15_000, 0), ("lose", 2, 9_000, 15_000)]
    assert lose(index, 20_000, *pieces) == pytest.approx(3)


def test_what_follows_the_recording_takes_nothing_back() -> None:
    index = Mp3Index(N_SAMPLES, 0, 20_000)
    assert lose(index, 50_000, ("keep", 20, 20_000, 0), ("lose", 0, 10_000, 20_000)) == 0


def test_tags_before_the_sound_make_it_no_longer() -> None:
    index = Mp3Index(N_SAMPLES, 100_000, 38_000)
    pieces = [("keep", 10, 10_000, 100_000), ("lose", 0, 4_000, 110_000)]
    assert lose(index, 138_000, *pieces) == pytest.approx(4)


@pytest.mark.parametrize("n_bytes", [None, 20_000])
def test_bytes_that_were_inserted_take_no_time(n_bytes: int | None) -> None:
    index = Mp3Index(N_SAMPLES, 0, n_bytes)
    assert lose(index, 30_000, ("keep", 10, 10_000, 0), ("lose", 0, 10_000, 10_000)) == 0
