"""Rows of a frozen encoder, and what a head hears of them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sercli.errors import ConfigError, OutputError
from sercli.training.config import NeuralConfig
from sercli.training.networks import rows as module
from sercli.training.networks.rows import RowBatches, embed_versions

# Lists the files that are mapped into memory, on Linux.
MAPS = Path("/proc/self/maps")


class Sums(nn.Module):
    """Embeds a segment as the sum of its samples, and their number."""

    n_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        return torch.stack((waveforms.sum(dim=1), lengths.float()), dim=1)


def load(index: int) -> np.ndarray:
    return np.full(100 + 7 * (index % 3), index, np.float32)


def load_louder(index: int) -> np.ndarray:
    return 2 * load(index)


def test_every_version_of_every_clip_has_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIPS_AT_ONCE", 4)
    monkeypatch.setattr(module, "BATCH_S", 250 / 16_000)
    told: list[tuple[int, int]] = []
    path = tmp_path / "new" / "rows.npy"
    found = embed_versions(Sums(), 10, [load, load_louder], path, lambda *at: told.append(at))
    expected = [[[load(i).sum(), 100 + 7 * (i % 3)] for i in range(10)]]
    np.testing.assert_allclose(found[:, 0], expected[0], rtol=1e-3)
    np.testing.assert_allclose(found[:, 1, 0], 2 * found[:, 0, 0], rtol=1e-3)
    assert told == [(4, 10), (8, 10), (10, 10)]
    # They are not computed again.
    never: Any = None
    again = embed_versions(Sums(), 10, [never, never], path)
    np.testing.assert_array_equal(again, found)
    # But where a power cut has left half of them, or zeros.
    content, found = path.read_bytes(), np.array(found)
    for damaged in (content[:-100], bytes(len(content)), b""):
        path.write_bytes(damaged)
        told.clear()
        again = embed_versions(Sums(), 10, [load, load_louder], path, lambda *at: told.append(at))
        np.testing.assert_array_equal(again, found)
        assert told[-1] == (10, 10)


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not list what is mapped")
def test_rows_are_not_mapped_when_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to rename a file that is mapped."""
    replace, named = os.replace, []

    def rename(source: Path, target: Path) -> None:
        if target.name == "rows.npy":
            named.append(target)
            assert os.fspath(source) not in MAPS.read_text(encoding="utf-8")
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    found = embed_versions(Sums(), 3, [load], tmp_path / "rows.npy")
    assert found[:, 0, 1].tolist() == [100, 107, 114]
    assert named == [tmp_path / "rows.npy"]
    assert os.fspath(named[0]) in MAPS.read_text(encoding="utf-8")


def test_of_long_clips_no_more_is_encoded_than_encoders_can(tmp_path: Path) -> None:
    class Seconds(Sums):
        def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            return super().embed(waveforms, lengths / 16_000)

    def load_long(index: int) -> np.ndarray:
        return np.full((29 + index) * 16_000, 1e-3, np.float32)

    found = embed_versions(Seconds(), 4, [load_long], tmp_path / "rows.npy")
    np.testing.assert_allclose(found[:, 0, 0], [464, 480, 480, 480], rtol=1e-3)
    assert found[:, 0, 1].tolist() == [29, 30, 30, 30]


def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIPS_AT_ONCE", 4)
    path = tmp_path / "rows.npy"
    received: list[int] = []

    def stop(index: int) -> np.ndarray:
        if index == 9 and index not in received:
            received.append(index)
            raise KeyboardInterrupt
        received.append(index)
        return load(index)

    with pytest.raises(KeyboardInterrupt):
        embed_versions(Sums(), 10, [stop, load_louder], path)
    assert not path.exists()
    assert received == list(range(10))
    kept = sorted(part.name for part in (tmp_path / "rows.npy.parts").iterdir())
    assert kept == ["0-4.npy", "4-8.npy"]
    found = embed_versions(Sums(), 10, [stop, load_louder], path)
    assert received[10:] == [8, 9]
    whole = embed_versions(Sums(), 10, [load, load_louder], tmp_path / "whole.npy")
    np.testing.assert_array_equal(found, whole)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.npy", "whole.npy"]


def test_what_another_run_has_computed_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    theirs = embed_versions(Sums(), 3, [load], tmp_path / "theirs.npy")

    def find_ready(index: int) -> np.ndarray:
        if not path.exists():
            (tmp_path / "theirs.npy").rename(path)
            (tmp_path / "rows.npy.parts").rmdir()
        return load_louder(index)

    found = embed_versions(Sums(), 3, [find_ready], path)
    np.testing.assert_array_equal(found, theirs)
    assert [kept.name for kept in tmp_path.iterdir()] == ["rows.npy"]


def test_rows_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"rows\.npy: cannot be written"):
        embed_versions(Sums(), 3, [load], tmp_path / "file" / "rows.npy")


def test_clips_that_memory_does_not_suffice_for_are_told(tmp_path: Path) -> None:
    class Large(Sums):
        def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(ConfigError, match="a batch of clips does not fit in the free memory of"):
        embed_versions(Large(), 3, [load], tmp_path / "rows.npy")


def test_a_head_gets_all_classes_and_versions() -> None:
    rows = np.arange(9 * 3, dtype=np.float16).reshape(9, 3, 1)
    classes = np.array([0] * 6 + [1] * 3)
    targets = np.eye(2, dtype=np.float32)[classes]
    config = NeuralConfig(batch_size=4, seed=3)
    batches = RowBatches([rows], targets, classes, config)
    assert len(batches) == 2
    received, said = [], []
    for epoch in range(40):
        for values, lengths, given in batches(epoch):
            assert (values.shape, len(lengths)) == ((4, 1), 4)
            numbers = values[:, 0].numpy().astype(int)
            np.testing.assert_array_equal(given.argmax(dim=1), classes[numbers // 3])
            received += numbers.tolist()
            said += given.argmax(dim=1).tolist()
    assert set(received) == set(range(27))
    assert np.mean(said) == pytest.approx(0.5, abs=0.05)
    # The same from arrays that are not joined.
    apart = RowBatches([rows[:2], rows[2:7], rows[7:]], targets, classes, config)
    for epoch in range(3):
        for whole, parts in zip(batches(epoch), apart(epoch), strict=True):
            assert all(a.equal(b) for a, b in zip(whole, parts, strict=True))
    first, again = (next(iter(batches(5))) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
