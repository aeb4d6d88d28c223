"""Tests of limits of the whole process that several runs hold at once."""

from collections.abc import Callable

import torch
from conftest import EXAMPLES

import sercli
from sercli.system.shared_limit import SharedLimit


def test_what_was_before_comes_back_with_the_last() -> None:
    found = [8]

    def apply(limit: int) -> Callable[[], object]:
        before = found[0]
        found[0] = limit
        return lambda: found.__setitem__(0, before)

    limit = SharedLimit(apply)
    first, second = limit.hold(1), limit.hold(2)
    first.__enter__()
    second.__enter__()
    assert found == [2]
    first.__exit__(None, None, None)
    assert found == [2]
    second.__exit__(None, None, None)
    assert found == [8]
    with limit.hold(3):
        assert found == [3]
    assert found == [8]


def test_interleaved_runs_leave_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = sercli.load_model("cnn", "cpu")
        runs = [
            sercli.annotate([EXAMPLES / "memo.m4a", EXAMPLES / "statement.flac"], model)
            for _ in range(2)
        ]
        for run in runs:
            next(run)
        for run in runs:
            list(run)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
