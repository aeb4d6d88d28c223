import pytest

from sercli.text import format_count, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1.0 min"),
        (90, "1.5 min"),
        (3596.9, "59.9 min"),
        (3599.9, "1.00 h"),
        (5400, "1.50 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts() -> None:
    assert [format_count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
