import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from sercli import memory


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    memory._find_library.cache_clear()
    yield
    memory._find_library.cache_clear()


def test_glibc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Glibc:
        @staticmethod
        def mallopt(*given: int) -> None:
            asked.append(given)

        @staticmethod
        def malloc_trim(*given: int) -> None:
            asked.append(given)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Glibc)
    memory.share_arena()
    memory.release()
    assert asked == [(-8, 1), (0,)]


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_other_libraries_are_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    memory.share_arena()
    memory.release()
