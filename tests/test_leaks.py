import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sercli.datasets import Clip
from sercli.datasets.protocols import find_protocol
from sercli.datasets.tables import read_manifest
from sercli.errors import ModelError
from sercli.evaluation.caveats import find_caveats, find_limits
from sercli.evaluation.leaks import UNLABELLED, TrainingManifest, hash_speaker
from sercli.evaluation.measurement import ClassifiedClips
from sercli.evaluation.predictions import Predictions
from sercli.registry.description import MANIFEST_FILE
from sercli.registry.store import load_model

HASHES = ("00000000000000b1", "00000000000000a0", "")


def make_clip(speaker: str | None, name: str = "hello") -> Clip:
    return Clip(Path(f"/secret/{name}.wav"), "anger", speaker, name=name, corpus="plays")


@pytest.fixture
def manifest() -> TrainingManifest:
    clips = (make_clip("ann", "first"), make_clip("bob", "second"), make_clip(None, "third"))
    return TrainingManifest.from_clips(clips, HASHES)


def test_manifest_survives_its_file(tmp_path: Path, manifest: TrainingManifest) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    found = TrainingManifest.read(tmp_path)
    assert found == manifest
    assert found is not None
    assert found.digest() == manifest.digest()
    (tmp_path / MANIFEST_FILE).write_bytes(TrainingManifest(()).encode())
    assert TrainingManifest.read(tmp_path) == TrainingManifest(())


def test_manifest_holds_hashes_alone(tmp_path: Path, manifest: TrainingManifest) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    ann = hashlib.blake2b(b"plays/ann", digest_size=8).hexdigest()
    bob = hashlib.blake2b(b"plays/bob", digest_size=8).hexdigest()
    # Sorted by the hash of the audio, so that their order does not tell either.
    rows = f"audio,speaker\n,\n00000000000000a0,{bob}\n00000000000000b1,{ann}\n"
    assert (tmp_path / MANIFEST_FILE).read_text() == rows


def test_manifest_needs_a_hash_of_each_clip() -> None:
    with pytest.raises(ValueError, match="zip"):
        TrainingManifest.from_clips([make_clip("ann")], HASHES)


def test_speakers_are_found_by_name_and_corpus(manifest: TrainingManifest) -> None:
    ann, bob, cid = make_clip("ann"), make_clip("bob"), make_clip("cid")
    assert manifest.find_speakers([cid, bob, ann, bob]) == ["plays/ann", "plays/bob"]
    assert manifest.find_speakers([cid, replace(ann, corpus="films")]) == []


def test_unknown_speakers_are_never_found(manifest: TrainingManifest) -> None:
    assert hash_speaker(make_clip(None)) == ""
    assert manifest.find_speakers([make_clip(None)]) == []


def test_audio_is_found_by_its_hash(manifest: TrainingManifest) -> None:
    known, other = HASHES[0], "00000000000000c2"
    assert manifest.count_clips([known, other, known, HASHES[1]]) == 3
    assert manifest.count_clips([other]) == 0


def test_silence_is_never_found(manifest: TrainingManifest) -> None:
    assert "" in {audio for audio, _ in manifest.rows}
    assert manifest.count_clips(["", ""]) == 0


def test_speaker_whose_name_is_no_text() -> None:
    # Of a folder whose name is the byte FF.
    clip = make_clip("\udcff")
    assert hash_speaker(clip) == hashlib.blake2b(b"plays/\xff", digest_size=8).hexdigest()
    assert TrainingManifest.from_clips([clip], ["a"]).find_speakers([clip]) == ["plays/\udcff"]


def test_unlabelled_audio_is_found_and_its_speakers_are_nobodys(
    tmp_path: Path, manifest: TrainingManifest
) -> None:
    unlabelled = TrainingManifest.from_unlabelled(["c3", "d4", "c3"])
    assert unlabelled.rows == (("c3", "unlabelled"), ("d4", "unlabelled"))
    known = TrainingManifest.from_clips([make_clip("ann"), make_clip("ann", "again")], ["a1", "a1"])
    both = known.join([unlabelled])
    assert len(both.rows) == 3
    (tmp_path / MANIFEST_FILE).write_bytes(both.encode())
    assert TrainingManifest.read(tmp_path) == both
    assert both.count_clips(["a1", "c3", "d4", "e5"]) == 3
    assert both.find_speakers([make_clip("ann"), make_clip("unlabelled")]) == ["plays/ann"]
    # It is told apart whether speakers of labelled clips are unknown, or only those of others.
    assert known.explain_unknown() is None
    assert "unlabelled speech" in str(both.explain_unknown())
    for unknown in (manifest, manifest.join([unlabelled])):
        assert "clips of unknown speakers" in str(unknown.explain_unknown())


def test_who_speaks_in_unlabelled_audio_may_be_known_from_elsewhere() -> None:
    unlabelled = TrainingManifest.from_unlabelled(["a1", "b2"])
    known = TrainingManifest.from_clips([make_clip("ann")], ["a1"])
    assert (
        unlabelled.join([known]).rows == known.join([TrainingManifest((("b2", UNLABELLED),))]).rows
    )
    both = TrainingManifest.from_clips([make_clip("ann"), make_clip("bob")], ["a1", "b2"])
    assert unlabelled.join([both]) == both
    # An unknown speaker of a labelled clip says no more.
    unknown = TrainingManifest.from_clips([make_clip(None)], ["b2"])
    assert set(unlabelled.join([unknown]).rows) == {*unlabelled.rows, *unknown.rows}


def test_who_a_model_was_chosen_by_may_be_unknown() -> None:
    ann, eve = make_clip("ann"), make_clip("eve")
    known = TrainingManifest.from_clips([ann], HASHES[:1])
    by_known = known.choose_by([eve], HASHES[1:2])
    by_unknown = by_known.choose_by([make_clip(None)], ["00000000000000c2"])
    sentence = (
        "The model was selected and calibrated on clips of unknown speakers: these speakers may be "
        "among them."
    )
    assert by_unknown.find_speakers([ann, eve]) == [ann.voice, eve.voice]
    assert by_known.explain_unknown() is None
    assert by_unknown.explain_unknown() == sentence
    assert by_unknown.fitted.explain_unknown() is None
    assert known.join([by_unknown]).explain_unknown() == sentence
    # What it learned from says more.
    learned = TrainingManifest.from_clips([make_clip(None)], ["00000000000000d3"])
    assert "was trained on clips of unknown" in str(by_unknown.join([learned]).explain_unknown())
    cid = replace(make_clip("cid"), emotion="short")
    said = ClassifiedClips(
        Predictions("fake", ("short", "long"), (cid,), np.array([[0.9, 0.1]])), {}, {}
    )
    found = find_caveats(by_unknown, said, "intended", ())
    assert found["protocol"] == "speakers unknown"
    assert found["overlap"] == {"speakers": [], "clips": 0}
    assert found["warnings"][0] == sentence
    assert find_caveats(by_known, said, "intended", ())["protocol"] == "speakers apart"


@pytest.mark.parametrize("name", ["svm", "cnn", "transformer", "best"])
def test_whom_the_shipped_models_know_is_known(name: str) -> None:
    manifest = TrainingManifest.of(load_model(name, "cpu"))
    assert manifest is not None
    assert manifest.explain_unknown() is None
    # Actors of CREMA-D who are learned from, and who are measured.
    cremad = [replace(make_clip(actor), corpus="cremad") for actor in ("1001", "1048")]
    assert manifest.find_speakers(cremad) == ["cremad/1001"]


def test_digest_tells_any_change() -> None:
    rows = (("a", "x"), ("b", "y"))
    digest = TrainingManifest(rows).digest()
    assert digest == hashlib.sha256(b"a,x\nb,y").hexdigest()
    changed = (
        (("a", "x"), ("b", "z")),
        (("c", "x"), ("b", "y")),
        (("a", "y"), ("b", "x")),
        (("a", "x"),),
        (*rows, ("", "")),
    )
    digests = {TrainingManifest(one).digest() for one in changed}
    assert len(digests | {digest}) == 6


def test_model_without_manifest(tmp_path: Path) -> None:
    assert TrainingManifest.read(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a manifest; expected a CSV file with the columns audio and speaker"),
        (
            b"speaker,audio\nx,a\n",
            "is not a manifest; expected a CSV file with the columns audio and speaker",
        ),
        (
            b"audio,speaker\na,x\nb\n",
            "is not a manifest; expected a CSV file with the columns audio and speaker",
        ),
        (
            b"audio,speaker\na,x,1\n",
            "is not a manifest; expected a CSV file with the columns audio and speaker",
        ),
        (b"\xff\xfe\x00", "cannot be read as CSV: .*utf-8.*; copy the model's folder again"),
    ],
)
def test_file_that_is_no_manifest(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=f"manifest.csv: {message}"):
        TrainingManifest.read(tmp_path)


def test_a_speaker_of_two_tables_is_one(tmp_path: Path) -> None:
    clips = []
    for name in ("train", "test"):
        (tmp_path / f"{name}.wav").touch()
        table = tmp_path / f"{name}.csv"
        table.write_text(f"file,emotion,speaker\n{name}.wav,anger,agent7\n")
        clips.append(read_manifest(table, {}).clips[0])
    train, test = clips
    manifest = TrainingManifest.from_clips([train], HASHES[:1])
    assert manifest.find_speakers([test]) == ["table/agent7"]
    assert find_protocol([train], [test]) == "speakers shared"


def test_speakers_of_a_published_corpus_are_known_from_a_table_and_a_database(
    tmp_path: Path,
) -> None:
    actor = replace(make_clip("1001"), corpus="cremad")
    listed = replace(actor, corpus="mine", namespace="table")
    stored = replace(actor, corpus="crema-d")
    manifest = TrainingManifest.from_clips([actor], HASHES[:1])
    other = replace(listed, speaker="1002")
    assert manifest.find_speakers([listed, stored, other]) == ["crema-d/1001", "table/1001"]
    # Three names, and one speaker.
    assert manifest.describe_known([actor, listed, stored, other], []) == "trained on 1 speaker"
    # Who trained by a table is told of the release, too; two releases have no speaker in common.
    by_table = TrainingManifest.from_clips([listed], HASHES[:1])
    assert by_table.find_speakers([actor]) == ["cremad/1001"]
    assert by_table.find_speakers([stored]) == ["crema-d/1001"]
    assert manifest.find_speakers([replace(actor, corpus="emodb")]) == []
    # Of a database, the model tells the name.
    by_database = TrainingManifest.from_clips([stored], HASHES[:1])
    assert by_database.find_speakers([actor, listed]) == []
    named = replace(by_database, corpora=("crema-d", "emodb"))
    assert named.find_speakers([actor, listed]) == ["cremad/1001", "table/1001"]
    assert manifest.join([named.fitted]).corpora == ("crema-d", "emodb")
    for train, test in ((actor, listed), (listed, actor), (actor, stored), (stored, actor)):
        assert find_protocol([train], [test]) == "speakers shared"
    assert find_protocol([actor], [replace(actor, corpus="emodb"), other]) == "speakers apart"


def test_clips_that_a_model_was_chosen_by(tmp_path: Path, manifest: TrainingManifest) -> None:
    ann, eve = make_clip("ann", "first"), make_clip("eve", "fourth")
    chosen = manifest.choose_by([eve, ann], ["00000000000000d3", HASHES[0]])
    assert chosen.fitted == manifest
    assert len(chosen.chosen) == 1  # what was learned from is no more than that
    (tmp_path / MANIFEST_FILE).write_bytes(chosen.encode())
    assert (tmp_path / MANIFEST_FILE).read_text().splitlines()[0] == "audio,speaker,use"
    assert TrainingManifest.read(tmp_path) == chosen
    assert chosen.digest() != manifest.digest()
    assert chosen.find_speakers([eve, ann]) == ["plays/ann", "plays/eve"]
    assert chosen.count_clips(["00000000000000d3"]) == 1
    assert manifest.find_speakers([eve]) == []
    assert chosen.describe_known([eve], []) == "selected and calibrated on 1 speaker"
    assert chosen.describe_known([eve, ann], HASHES[:1]) == "trained on 1 speaker and 1 clip"
    assert chosen.describe_known([make_clip("cid")], ["e"]) == ""
    # What one learned from, another may have been chosen by.
    both = TrainingManifest.from_clips([eve], ["00000000000000d3"]).join([chosen])
    assert both.chosen == ()
    assert len(both.rows) == 4


def test_a_clip_that_counts_twice_is_told() -> None:
    clips = tuple(make_clip(name) for name in ("ann", "bea", "cid", "dan"))
    clips = tuple(replace(clip, emotion=label) for clip, label in zip(clips, "abab", strict=True))
    rows = np.full((4, 2), 0.5)
    once = Predictions("fake", ("a", "b"), clips, rows, ("x", "y", "", ""))
    twice = replace(once, hashes=("x", "y", "x", "x"))
    assert not any("same audio" in one for one in find_limits(ClassifiedClips(once, {}, {})))
    told = "2 clips with the same audio as another, which count again."
    assert told in find_limits(ClassifiedClips(twice, {}, {}))


def test_corpora_of_models_that_name_them_in_one_word(
    tmp_path: Path, manifest: TrainingManifest
) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest(), "corpus": "crema-d+emodb"}
    model: Any = SimpleNamespace(folder=tmp_path, spec=SimpleNamespace(training=training))
    read = TrainingManifest.of(model)
    assert read is not None
    assert read.corpora == ("crema-d", "emodb")
    training["corpora"] = ["a+b"]  # type: ignore[assignment]
    again = TrainingManifest.of(model)
    assert again is not None
    assert again.corpora == ("a+b",)
