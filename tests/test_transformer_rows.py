"""Rows of features that heads of transformers are trained on: which are computed and kept."""

import errno
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from checkpoints import save_checkpoint

from sercli.datasets.clip import Clip
from sercli.errors import OutputError, TrainingError
from sercli.neural.bases import load_base
from sercli.neural.devices import choose_precision
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import TransformerConfig
from sercli.training.networks import batches, loop, rows
from sercli.training.networks import transformer as module
from sercli.training.networks.digests import digest, digest_audio
from sercli.training.networks.fitting import fit_model
from sercli.training.networks.rows import embed_versions
from sercli.training.networks.transformer import TransformerCourse

LABELS = ("anger", "fear", "neutral")
CONFIG = TransformerConfig(epochs=1, batch_size=4, versions=2, folds=2, device="cpu", jobs=1)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TransformerCourse:
    monkeypatch.setattr(loop, "write_curves", lambda *given: (given[2] / "curves.png").touch())
    save_checkpoint("whisper", tmp_path / "tiny", init_std=0.1)
    base = load_base(str(tmp_path / "tiny"))
    return TransformerCourse(CONFIG, LABELS, base=base, rows=tmp_path / "rows")


def make_clips(folder: Path, speakers: Sequence[str], rng: np.random.Generator) -> CachedClips:
    """A clip of each label by every speaker."""
    clips = []
    for speaker in speakers:
        for label in LABELS:
            path = folder / f"{speaker}-{label}.wav"
            sf.write(path, rng.normal(0, 0.1, 9_000), 16_000)
            clips.append(Clip(path, label, speaker, path.stem, "toy"))
    return cache_clips(clips, folder / "cache", jobs=1)


def test_versions_for_scoring_are_computed_only_where_clips_are_scored(
    course: TransformerCourse,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedded: list[tuple[int, int]] = []

    def count(network: Any, n_clips: int, versions: Sequence[Any], *others: Any) -> Any:
        embedded.append((n_clips, len(versions)))
        return embed_versions(network, n_clips, versions, *others)

    monkeypatch.setattr(module, "embed_versions", count)
    learned = make_clips(tmp_path, ("ann", "bob", "cid"), rng)
    dev = make_clips(tmp_path, ("dan", "eve"), rng)
    fit_model(learned, course, tmp_path / "chosen", dev=dev)
    # Training clips unchanged and in two versions; development clips unchanged and augmented.
    assert embedded == [(9, 3), (6, 2)]
    embedded.clear()
    fit_model(learned, course, tmp_path / "folds")
    assert embedded == [(9, 4)]

    def teach(name: str, is_scored: bool) -> dict[str, torch.Tensor]:
        material = course.prepare(learned, lambda _: None, scored=is_scored)
        return course.teach(name, material, tmp_path / name).network.state_dict()

    plain, scored = teach("plain", is_scored=False), teach("scored", is_scored=True)
    assert all(torch.equal(plain[name], scored[name]) for name in scored)
    # Where there are other versions, the weights are others.
    other = replace(course, config=replace(CONFIG, versions=1))
    material = other.prepare(learned, lambda _: None)
    weights = other.teach("other", material, tmp_path / "other").network.state_dict()
    assert not all(torch.equal(plain[name], weights[name]) for name in scored)


def test_rows_made_without_a_codec_are_not_those_with_it(
    course: TransformerCourse,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "CODEC_PROBABILITY", 1.0)
    cached = make_clips(tmp_path, ("ann",), rng)

    def prepare(*available: str, **use: bool) -> Any:
        monkeypatch.setattr(batches, "codec_available", lambda name: name in available)
        return course.prepare(cached, lambda _: None, **use).rows

    few, more = prepare("mulaw"), prepare("mulaw", "gsm")
    np.testing.assert_array_equal(few[:, 0], more[:, 0])
    assert (few[:, 1:] != more[:, 1:]).any()
    assert len(list((tmp_path / "rows").iterdir())) == 2
    np.testing.assert_array_equal(prepare("mulaw"), few)
    np.testing.assert_array_equal(prepare("gsm", "mulaw"), more)
    assert len(list((tmp_path / "rows").iterdir())) == 2
    # Unchanged clips go through none.
    prepare("mulaw", learned=False, scored=False)
    prepare("gsm", learned=False, scored=False)
    assert len(list((tmp_path / "rows").iterdir())) == 3


def test_keys_stay_as_they_were_unless_rows_change(
    course: TransformerCourse,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "codec_available", lambda _: True)
    cached = make_clips(tmp_path, ("ann",), rng)
    key = course._find_key(cached, 2, scored=True)
    facts = (
        module.ROWS_FORMAT,
        course.base.digest,
        course.band_limit,
        str(choose_precision(torch.device("cpu"))),
        (0, CONFIG.clean_share, CONFIG.voice_share, 2),
        [(clip.name, clip.voice, clip.emotion) for clip in cached.clips],
        digest_audio(cached),
    )
    assert key == digest(repr(facts).encode())
    # What may be joined with a clip changes it: here, two tables have a speaker of one name.
    two = [
        replace(clip, namespace="table", corpus=corpus)
        for clip, corpus in zip(cached.clips, "aab", strict=True)
    ]
    one = [replace(clip, corpus="a") for clip in two]
    keys = [
        course._find_key(replace(cached, clips=tuple(some)), 2, scored=True) for some in (one, two)
    ]
    assert keys[0] != keys[1]


def test_held_out_clips_are_compared_with_calm_clips_of_training(
    course: TransformerCourse, tmp_path: Path, rng: np.random.Generator
) -> None:
    material = course.prepare(make_clips(tmp_path, ("ann", "bob"), rng), lambda _: None)
    n_features = course._network.n_features
    strangers = rng.normal(0, 1, (6, n_features)).astype(np.float32)
    material = replace(material, strangers=strangers)
    # Bob is held out, and none of what is left of him is calm.
    learned, held_out = material.take([0, 1, 2]), material.take([3, 4])
    assert [clip.emotion for clip in held_out.cached.clips] == ["anger", "fear"]
    found = course._transpose(held_out, learned)
    assert found is not None
    (own,) = course._transpose(learned, learned).calm  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.calm, own[None])
    network = course.teach("network", learned, tmp_path / "network").network
    assert course.score(network, held_out, learned).shape == (3, 2, 3)


def test_a_later_training_leaves_an_earlier_network_as_it_was(
    course: TransformerCourse, tmp_path: Path, rng: np.random.Generator
) -> None:
    material = course.prepare(make_clips(tmp_path, ("ann", "bob"), rng), lambda _: None)
    first = course.teach("first", material.take([0, 1, 2]), tmp_path / "first").network
    before = course.score(first, material, material)
    second = course.teach("second", material, tmp_path / "second").network
    np.testing.assert_array_equal(course.score(first, material, material), before)
    assert np.abs(course.score(second, material, material) - before).max() > 0
    assert first.encoder is second.encoder  # there may be no memory for two


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_half_precision_cannot_hold_is_told(
    course: TransformerCourse, tmp_path: Path, rng: np.random.Generator, value: float
) -> None:
    network = course._network

    def embed(waveforms: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(len(waveforms), network.n_features)
        rows[0, 3] = value
        return rows

    network.embed = embed  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"output .* not finite, or above 65504"):
        course.prepare(make_clips(tmp_path, ("ann",), rng), lambda _: None)


class Full(io.FileIO):
    """A file on a full disk."""

    def write(self, piece: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_rows_that_a_full_disk_did_not_take_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows" / "key.npy"
    path.parent.mkdir()
    killed = path.with_name(f".{path.name}.0123abcd.tmp")
    killed.touch()
    os.utime(killed, (1, 1))
    computed: list[range] = []

    def embed(_: object, versions: Sequence[Any], clips: range) -> Any:
        computed.append(clips)
        return np.repeat(np.array(clips, np.float16)[:, None, None], 3, axis=2)

    monkeypatch.setattr(rows, "_embed", embed)
    monkeypatch.setattr(rows, "CLIPS_AT_ONCE", 4)
    network: Any = SimpleNamespace(n_features=3)
    versions: Any = [None]
    opened = Path.open

    def open_full(self: Path, mode: str = "r", **options: Any) -> Any:
        full = self.name.startswith(f".{path.name}.")
        return Full(self, mode) if full else opened(self, mode, **options)

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = rf"key\.npy: cannot be written: {os.strerror(errno.ENOSPC)}$"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(OutputError, match=told):
            embed_versions(network, 6, versions, path)
    with monkeypatch.context() as patch:  # as where a quota is found to be full at the end
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OutputError, match=told):
            embed_versions(network, 6, versions, path)
    assert [one.name for one in path.parent.iterdir()] == ["key.npy.parts"]
    found = embed_versions(network, 6, versions, path)
    assert found[:, 0].tolist() == [[number] * 3 for number in range(6)]
    assert computed == [range(4), range(4, 6)]
    assert [one.name for one in path.parent.iterdir()] == ["key.npy"]
