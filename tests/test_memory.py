import ctypes
from typing import Any

import pytest

from sercli.memory import share_arena


def test_glibc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Glibc:
        @staticmethod
        def mallopt(*given: int) -> None:
            asked.append(given)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Glibc)
    share_arena()
    assert asked == [(-8, 1)]


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_other_libraries_are_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    share_arena()
