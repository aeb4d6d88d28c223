"""The comparison of speeds among the examples: what it refuses, and what it tells."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES


@pytest.fixture
def script() -> Any:
    spec: Any = importlib.util.spec_from_file_location(
        "compare_speed", EXAMPLES / "compare_speed.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wrong_usage_is_refused_before_anything_is_compared(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "compare", lambda *_: pytest.fail("compared"))
    gone = tmp_path / "gone.wav"
    silence, memo = EXAMPLES / "silence.wav", EXAMPLES / "memo.m4a"
    for arguments, told in (
        ([memo, "--runs", "0"], "--runs is 0; expected 1 or more"),
        ([tmp_path], f"{tmp_path}: found no recording with speech"),
        ([silence], f"{silence}: found no recording with speech"),
        ([memo, gone], f"{gone}: does not exist; expected recordings that can be read in full"),
    ):
        monkeypatch.setattr(sys, "argv", ["compare_speed.py", *map(str, arguments)])
        monkeypatch.setattr(script, "find_spec", lambda _: "installed")
        with pytest.raises(SystemExit, match="2"):
            script.main()
        assert capsys.readouterr().err.endswith(f"error: {told}\n")


def test_only_packages_of_chosen_comparisons_have_to_be_installed(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compared: list[str] = []

    def compare(one: Any, *_: Any) -> dict[str, Any]:
        compared.append(one.name)
        return {"model": one.model, "compared": one.name, "ratio": 1.0, "model_ratio": 1.0}

    monkeypatch.setattr(script, "compare", compare)
    monkeypatch.setattr(script, "find_spec", lambda name: None if name == "opensmile" else name)
    command = ["compare_speed.py", str(EXAMPLES / "memo.m4a")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="2"):
        script.main()
    error = capsys.readouterr().err
    assert "opensmile eGeMAPS needs opensmile, which is not installed" in error
    assert "pip install -e '.[compare]'" in error
    monkeypatch.setattr(sys, "argv", [*command, "--only", "transformers.pipeline"])
    script.main()
    assert compared == ["transformers.pipeline"]


def test_a_comparison_tells_the_settings_that_were_chosen(script: Any) -> None:
    paths = [EXAMPLES / "memo.m4a"]
    segments = script.find_segments(paths)
    sizes: list[int] = []
    way = script.Way(lambda waveforms: sizes.append(len(waveforms)), {"batch_size": 4})
    one = script.Comparison("other", "svm", lambda: way, 1)
    found = script.compare(one, paths, segments, 1)
    assert (found["compared"], found["their_settings"]) == ("other", {"batch_size": 4})
    assert sizes == [1, 1]
