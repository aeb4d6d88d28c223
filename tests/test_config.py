"""Settings that depend on the machine."""

import os
from pathlib import Path

import pytest

from sercli import config


@pytest.mark.parametrize(
    ("quota", "n_cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("max 100000", 8),
        ("", 8),
        (None, 8),
    ],
)
def test_a_container_with_a_quota_has_as_many_cores(
    quota: str | None, n_cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(f"{quota}\n")
    monkeypatch.setattr(config, "CPU_QUOTA", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert config.count_cores() == n_cores
