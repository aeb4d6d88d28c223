"""Settings: what is theirs, and what depends on the machine."""

import json
import os
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sercli
from sercli import config


@pytest.mark.parametrize(
    ("files", "n_cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": ""}, 8),
        ({}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "0"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000"}, 8),
    ],
)
def test_a_container_with_a_quota_has_as_many_cores(
    files: dict[str, str], n_cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(config, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert config.count_cores() == n_cores


def test_settings_are_values_that_json_has() -> None:
    one: Any = np.int64(2)
    share: Any = np.float32(0.25)
    for settings in (
        sercli.SegmentConfig(mode="window", window=one, hop=share),
        sercli.SegmentConfig(max_segment=Fraction(5, 2)),  # type: ignore[arg-type]
        sercli.Effort(one, one, share * 8),
        sercli.EvalConfig(seed=one, target_precision=share),
        sercli.SvmConfig((share,), (share, one), one, one, seed=one),
        sercli.CnnConfig(epochs=one, mixup=share, seed=one),
        sercli.AdapterConfig(folds=one, single_shares=(share,)),
        sercli.TrainConfig("cnn", folds=one),
    ):
        json.dumps(asdict(settings))
    assert sercli.SegmentConfig(max_segment=Fraction(5, 2)).max_segment == 2.5  # type: ignore[arg-type]


def test_values_that_could_be_read_only_once_are_kept(tmp_path: Path) -> None:
    settings: Any = sercli.EvalConfig(
        stress=(one for one in ["phone"]),  # type: ignore[arg-type]
        precisions=iter(["fp32"]),  # type: ignore[arg-type]
    )
    assert (settings.stress, settings.precisions) == (("phone",), ("fp32",))
    (tmp_path / "calm.wav").touch()
    given: Any = {
        "fit_on": iter(["train", "dev"]),
        "emotions": ["a", "b"],
        "calm": tmp_path.glob("*"),
    }
    training = sercli.TrainConfig("svm", **given)
    assert training.splits == ("train", "dev")
    assert (training.emotions, training.calm) == (("a", "b"), (tmp_path / "calm.wav",))
    assert isinstance(hash(training), int)
    svm = sercli.SvmConfig(regularisations=np.array([1.0, 3.0]))  # type: ignore[arg-type]
    assert svm.regularisations == (1.0, 3.0)


def test_limits_are_told_exactly() -> None:
    with pytest.raises(sercli.ConfigError, match=r"^seed is 4294969000; expected 0 to 4294967295$"):
        sercli.EvalConfig(seed=4294969000)


def test_truth_values_of_other_libraries() -> None:
    one: Any = np.True_
    assert sercli.TrainConfig("svm", adapter=one).adapter is True
    assert sercli.EvalConfig(strict=one).strict is True


@pytest.mark.parametrize(
    ("create", "settings", "message"),
    [
        (sercli.EvalConfig, {"strict": "no"}, "^strict is 'no'; expected True or False$"),
        (sercli.EvalConfig, {"mixes": None}, "^mixes is None; expected True or False$"),
        (sercli.TrainConfig, {"test": 0}, "^test is 0; expected True or False$"),
        (
            sercli.FusionConfig,
            {"equal_weights": ("svm", "cnn")},
            r"^equal_weights is \('svm', 'cnn'\); expected True or False$",
        ),
    ],
)
def test_what_is_neither_true_nor_false(
    create: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(sercli.ConfigError, match=message):
        create(**settings)


@pytest.mark.parametrize("stress", [5, 1.5, True, None])
def test_a_value_where_several_are_expected(stress: Any) -> None:
    with pytest.raises(sercli.ConfigError, match=f"^stress is {stress}; expected a sequence of"):
        sercli.EvalConfig(stress=stress)
