"""Measuring with a classifier whose answers are known: long clips are long, the others short."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from clips import load_clip
from conftest import FakeClassifier, LocalClassifier, MakeWav
from numpy.typing import NDArray

import sercli
from sercli.adaptation import AdapterSettings
from sercli.annotation.annotator import Annotator
from sercli.calibration import Calibration
from sercli.classifiers.base import Classifier
from sercli.config import EvalConfig, Precision
from sercli.datasets import Clip, Corpus, read_corpus
from sercli.datasets.decoding import hash_audio
from sercli.datasets.votes import match_votes, suggest_name
from sercli.errors import ConfigError, DatasetError, ModelError
from sercli.evaluation.caveats import find_limits_of
from sercli.evaluation.classification import choose_adaptation, name_groups, renormalise
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.measurement import break_down
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.run import evaluate, evaluate_all
from sercli.evaluation.talkers import Pool
from sercli.registry.description import MANIFEST_FILE
from sercli.registry.store import load_model

MakeCorpus = Callable[..., Corpus]
CONFIG = EvalConfig(jobs=1)


@pytest.fixture
def make_corpus(make_wav: MakeWav) -> MakeCorpus:
    def make(*clips: tuple[str, float, str | None], **traits: str) -> Corpus:
        """Clips of (label, seconds, speaker)."""
        made = tuple(
            Clip(make_wav(f"{i}.wav", duration), label, speaker, f"c{i}", "toy", traits=traits)
            for i, (label, duration, speaker) in enumerate(clips)
        )
        return Corpus("toy", "", made)

    return make


def test_figures_of_known_answers(fake_classifier: FakeClassifier, make_corpus: MakeCorpus) -> None:
    # The probability of `short` is 1 / (1 + duration).
    corpus = make_corpus(
        ("short", 0.25, "a"), ("short", 4.0, "a"), ("long", 4.0, "b"), ("long", 3.0, "b")
    )
    result = evaluate(fake_classifier, corpus, "all", CONFIG)
    figures = result.figures
    np.testing.assert_allclose(result.predictions.probabilities[:, 0], [0.8, 0.2, 0.2, 0.25])
    assert figures["confusion"] == [[1, 1], [0, 2]]
    assert (figures["accuracy"], figures["uar"]) == (0.75, 0.75)
    assert figures["nll"] == pytest.approx(-np.mean(np.log([0.8, 0.2, 0.8, 0.75])))
    assert figures["breakdown"]["speaker"]["a"]["accuracy"] == 0.5
    assert figures["breakdown"]["speaker"]["b"]["accuracy"] == 1
    assert figures["worst_speakers"] == ["a"]
    assert figures["protocol"] == "speakers unknown"
    assert figures["overlap"] is None
    assert "has no record of its training data" in figures["warnings"][0]
    assert figures["stress"] is figures["listeners"] is figures["baselines"] is None


def test_none_of_the_clips_that_are_scored(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus(("anger", 1.0, "a"), ("sadness", 1.0, "b"), ("boredom", 1.0, "a"))
    for clip in corpus.clips[:2]:
        clip.path.write_text("no audio")
    with pytest.raises(DatasetError, match=r"^none of 2 clips could be decoded; the first: .*0\.w"):
        evaluate("svm", corpus, "all", EvalConfig(jobs=1, adapt="recording"))


def test_probabilities_that_are_no_numbers_are_not_measured(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(features: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.hstack((np.zeros_like(features), np.log(features)))
        scores[features[:, 0] > 3] = np.nan
        return scores

    monkeypatch.setattr(fake_classifier, "score", score)
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    for precision, advice in (("fp32", "Copy its folder again"), ("fp16", "Try --precision fp32")):
        monkeypatch.setattr(FakeClassifier, "precision", precision)
        with pytest.raises(ModelError, match=f"model fake: .*that are not finite .*{advice}"):
            sercli.evaluate(fake_classifier, corpus, "all", CONFIG)


@pytest.mark.parametrize(
    ("trained_on", "protocol"),
    [
        (("c", "toy"), "speakers apart"),
        (("c", "other"), "speakers apart"),
        (("a", "toy"), "speakers shared"),
        (("a", "other"), "speakers apart"),
        ((None, "toy"), "speakers unknown"),
    ],
)
def test_protocol_tells_what_the_model_knows(
    trained_on: tuple[str | None, str],
    protocol: str,
    fake_classifier: FakeClassifier,
    make_corpus: MakeCorpus,
    tmp_path: Path,
) -> None:
    speaker, corpus = trained_on
    clip = Clip(tmp_path / "x.wav", "long", speaker, "x", corpus)
    manifest = TrainingManifest.from_clips([clip], ["0" * 16])
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest()}
    fake_classifier.spec = replace(fake_classifier.spec, training=training)
    fake_classifier.folder = tmp_path
    (tmp_path / "model.json").write_text("{}")
    measured = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    figures = evaluate(fake_classifier, measured, "all", CONFIG).figures
    assert figures["protocol"] == protocol
    known = ["toy/a"] if protocol == "speakers shared" else []
    assert figures["overlap"] == {"speakers": known, "clips": 0}

    # Speakers of what nobody labelled are unknown, and that is what is told.
    manifest = manifest.join([TrainingManifest.from_unlabelled(["1" * 16])])
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest()}
    fake_classifier.spec = replace(fake_classifier.spec, training=training)
    figures = evaluate(fake_classifier, measured, "all", CONFIG).figures
    shared = protocol == "speakers shared"
    assert figures["protocol"] == (protocol if shared else "speakers unknown")
    told = any("unlabelled speech" in warning for warning in figures["warnings"])
    assert told == (protocol == "speakers apart")

    fake_classifier.spec = replace(fake_classifier.spec, training={"manifest_sha256": "other"})
    with pytest.raises(ModelError, match=r"manifest\.csv is not the one that the model was saved"):
        evaluate(fake_classifier, measured, "all", CONFIG)


def test_a_model_and_a_corpus_may_be_named(tmp_path: Path, make_wav: MakeWav) -> None:
    for number, label in enumerate(("anger", "fear")):
        make_wav(f"{number}.wav", 1.0)
        with (tmp_path / "clips.csv").open("a") as table:
            table.write(("" if number else "file,emotion\n") + f"{number}.wav,{label}\n")
    named = evaluate("svm", tmp_path / "clips.csv", config=CONFIG)
    loaded = evaluate(load_model("svm"), read_corpus(tmp_path / "clips.csv"), config=CONFIG)
    assert named.figures == loaded.figures
    assert named.figures["n_segments"] == 2


def test_a_copy_under_the_name_of_another_speaker_is_known(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, tmp_path: Path
) -> None:
    measured = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    audio, _ = sf.read(measured.clips[1].path, dtype="float32")
    copied = replace(measured.clips[1], speaker="c", name="copy")
    manifest = TrainingManifest.from_clips([copied], [hash_audio(audio)])
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest()}
    fake_classifier.spec = replace(fake_classifier.spec, training=training)
    fake_classifier.folder = tmp_path
    figures = evaluate(fake_classifier, measured, "all", CONFIG).figures
    assert figures["overlap"] == {"speakers": [], "clips": 1}
    assert figures["protocol"] == "speakers shared"
    with pytest.raises(DatasetError, match="was trained on 1 clip of the evaluation data"):
        evaluate(fake_classifier, measured, "all", replace(CONFIG, strict=True))


def test_nobody_talks_behind_their_own_speech(make_wav: MakeWav) -> None:
    # Clips that are told apart by their length, in samples.
    path = make_wav("talk.wav", duration=8.0)
    first, again, second, third, stranger, long = [
        Clip(path, "fear", speaker, name=str(i), start=i / 10, end=i / 10 + length)
        for i, (speaker, length) in enumerate(
            [("a", 0.1), ("a", 0.2), ("b", 0.3), ("c", 0.4), (None, 0.5), ("b", 7.0)]
        )
    ]

    def find(clips: Sequence[Clip], clip: Clip) -> list[int]:
        return [len(waveform) // 1_600 for waveform in Pool(clips, 0).find_talkers(clip)]

    clips = (first, third, again, second, stranger)
    assert find(clips, first) == find(clips, again) == [4, 3]
    # Who is unknown may be anybody, but not the clip itself.
    assert find(clips, stranger) == [1, 2, 4, 3]
    assert find([first, again], first) == [2]
    assert find([first], first) == [1]
    assert find([first, long], first) == [60]  # no more than 6 s of one
    (received,) = Pool([first, second], 0).find_talkers(first)
    np.testing.assert_array_equal(received, load_clip(second))


def test_nobody_talks_behind_their_own_speech_under_another_name(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    # The first two are one person, whom a published corpus and a table name.
    corpus = make_corpus(*(("short", 0.25 + i, one) for i, one in enumerate(("1", "1", "2"))))
    first, again, other = corpus.clips
    first = replace(first, corpus="cremad")
    again = replace(again, corpus="mine", namespace="table")
    clips = (first, again, replace(other, corpus="mine", namespace="table"))
    for clip, expected in zip(clips, ([2], [2], [0, 1]), strict=True):
        received = Pool(clips, 0).find_talkers(clip)
        lengths = [len(load_clip(clips[i])) for i in expected]
        assert [len(one) for one in received] == lengths
    config = replace(CONFIG, stress=("babble10",))
    for some, n_alone in ((clips[:2], 2), (clips, 0)):
        warnings = evaluate(fake_classifier, replace(corpus, clips=some), "all", config).figures[
            "warnings"
        ]
        told = [
            one
            for one in warnings
            if one.startswith(f"For {n_alone} of {len(some)} clips, the babble")
        ]
        assert len(told) == bool(n_alone)


@pytest.mark.parametrize(
    ("speakers", "n_alone"),
    [
        ((None, None), 2),
        (("a", "a"), 2),
        (("a",), 1),
        (("a", None), 2),
        (("a", "b", None), 1),
        (("a", "b"), 0),
    ],
)
def test_babble_of_who_may_be_the_speaker_is_told(
    fake_classifier: FakeClassifier,
    make_corpus: MakeCorpus,
    speakers: tuple[str | None, ...],
    n_alone: int,
) -> None:
    corpus = make_corpus(*(("short", 0.25 + i, one) for i, one in enumerate(speakers)))
    told = {
        stress: evaluate(fake_classifier, corpus, "all", replace(CONFIG, stress=(stress,))).figures[
            "warnings"
        ]
        for stress in ("babble10", "noise10")
    }
    clips = f"{len(speakers)} clip" + "s" * (len(speakers) > 1)
    expected = (
        f"For {n_alone} of {clips}, the babble may contain the same speaker or the clip itself: no "
        "other speaker is known."
    )
    assert [one for one in told["babble10"] if "babble" in one] == [expected] * bool(n_alone)
    assert not [one for one in told["noise10"] if "babble" in one]


def test_few_of_very_many_clips_talk(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sercli.evaluation.talkers.MAX_TALKERS", 20)
    path = make_wav(duration=3.0)
    clips = [
        Clip(path, "fear", f"{i % 5}", name=str(i), start=i / 100, end=i / 100 + (i + 100) / 1000)
        for i in range(100)
    ]
    drawn = [
        {len(one) // 16 - 100 for one in Pool(clips, seed).find_talkers(clips[0])}
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert not any(length % 5 == 0 for length in drawn[0])  # that speaker's own
    assert 10 <= len(drawn[0]) <= 20


def test_groups_of_clips_of_which_some_speakers_are_unknown(make_corpus: MakeCorpus) -> None:
    clips = make_corpus(("short", 0.25, "a"), ("long", 4.0, "a"), ("long", 2.0, None)).clips
    stranger = clips[2]
    assert name_groups(clips, "recording").tolist() == [str(clip.path) for clip in clips]
    assert name_groups(clips, "speaker").tolist() == ["toy/a", "toy/a", str(stranger.path)]
    assert name_groups(clips, "corpus").tolist() == ["corpus"] * 3
    apart = [replace(stranger, channel=1), replace(stranger, channel=0)]
    assert len(set(name_groups(apart, "channel").tolist())) == 2
    assert len(set(name_groups(apart, "recording").tolist())) == 1
    released = [*clips, replace(clips[0], corpus="emodb"), replace(clips[0], corpus="ravdess")]
    groups = name_groups(released, "speaker").tolist()
    assert groups == ["emodb/a", "emodb/a", str(stranger.path), "emodb/a", "emodb/a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": "speakers"}, "adapt is 'speakers'; expected one of none, recording, channel"),
        ({"target": "meant"}, "target is 'meant'; expected one of intended, perceived"),
        ({"precisions": ("fp8",)}, "precision is 'fp8'; expected one of auto, fp32, bf16"),
        ({"seed": -1}, "seed is -1; expected 0 to"),
        ({"seed": 2.5}, r"seed is 2\.5; expected a whole number"),
        ({"jobs": "2"}, "jobs is '2'; expected a whole number"),
        (
            {"target_precision": "0.9"},
            r"target precision is '0\.9'; expected a number from 0\.01 to",
        ),
        ({"jobs": 0}, "jobs is 0; expected 1 to .*, or -1 for one per core"),
    ],
)
def test_settings_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvalConfig(**options)


def test_a_single_condition_is_one() -> None:
    config = EvalConfig(stress="phone", precisions="bf16")  # type: ignore[arg-type]
    assert (config.stress, config.precisions) == (("phone",), ("bf16",))


def test_only_shared_labels_are_scored(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("dull", 1.0, "a"), ("long", 4.0, "b"))
    figures = evaluate(fake_classifier, corpus, "all", CONFIG).figures
    assert figures["n_segments"] == 2
    assert figures["labels_left_out"] == {"model": [], "corpus": {"dull": 1}}
    with pytest.raises(
        DatasetError,
        match=r"labels \['dull'\]; expected some that the model has, .*'short', 'long'",
    ):
        evaluate(fake_classifier, make_corpus(("dull", 1.0, "a")), "all", CONFIG)


class DullClassifier(LocalClassifier):
    """Knows a third label: of d seconds, it says short, long and dull like 1 to d to 2."""

    def __init__(self) -> None:
        super().__init__()
        calibration = Calibration("none", np.eye(3), np.zeros(3))
        self.spec = replace(self.spec, labels=("short", "long", "dull"), calibration=calibration)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        dull = np.full_like(features, np.log(2))
        return np.hstack((super().score(features), dull))


def train_on(classifier: Classifier, manifest: TrainingManifest, folder: Path) -> Classifier:
    """Return a model whose folder says that it was trained on some clips."""
    folder.mkdir()
    (folder / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest()}
    classifier.spec = replace(classifier.spec, training=training)
    classifier.folder = folder
    return classifier


def test_a_split_of_speakers_whom_no_model_knows(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, tmp_path: Path
) -> None:
    corpus = make_corpus(
        *((label, 1.0, speaker) for speaker in "abc" for label in ("short", "long")),
        ("short", 1.0, None),
    )
    of = {clip.voice: clip for clip in corpus.clips}
    knows = TrainingManifest.from_clips([of["toy/a"]], ["1"]).choose_by([of["toy/b"]], ["2"])
    trained = train_on(fake_classifier, knows, tmp_path / "fake")
    figures = evaluate(trained, corpus, "new", CONFIG).figures
    assert (figures["split"], figures["speakers"], figures["n_segments"]) == ("new", ["c"], 2)
    assert figures["protocol"] == "speakers apart"
    knows_all = TrainingManifest.from_clips([of["toy/c"]], ["3"])
    both = [trained, train_on(DullClassifier(), knows_all, tmp_path / "dull")]
    with pytest.raises(DatasetError, match="toy: the models were trained on all 3 named speakers"):
        evaluate_all(both, corpus, "new", CONFIG)
    with pytest.raises(DatasetError, match="another split, or all, or new: speakers that no"):
        evaluate(trained, corpus, "test", CONFIG)
    unnamed = replace(corpus, clips=tuple(replace(clip, speaker=None) for clip in corpus.clips))
    with pytest.raises(DatasetError, match="toy: speakers are unknown; expected those of some"):
        evaluate(trained, unnamed, "new", CONFIG)


def test_models_that_share_no_label_are_not_compared(make_corpus: MakeCorpus) -> None:
    models = [load_model("svm"), DullClassifier()]
    with pytest.raises(DatasetError, match=r"two labels \(svm: anger, .*; fake: short, long, dull"):
        evaluate_all(models, make_corpus(("short", 1.0, "a")), "all", CONFIG)
    # Here the labels of the clips can be translated: to those that both have.
    models = [FakeClassifier(), DullClassifier()]
    with pytest.raises(
        DatasetError, match=r"some that all models have, \['short', 'long'\]; map th"
    ):
        evaluate_all(models, make_corpus(("dull", 1.0, "a")), "all", CONFIG)
    with pytest.raises(DatasetError, match=r"the model has, \['short', 'long', 'dull'\]; map them"):
        evaluate_all(models[1:], make_corpus(("brief", 1.0, "a")), "all", CONFIG)


def test_a_threshold_holds_where_all_labels_compete(make_corpus: MakeCorpus) -> None:
    # Short clips would be written as dull, which none of the corpus is.
    corpus = make_corpus(*(("short", 0.25, "a"),) * 20, *(("long", 6.0, "b"),) * 20)
    classifier = DullClassifier()
    result = evaluate(classifier, corpus, "all", replace(CONFIG, target_precision=0.9))
    figures = result.figures
    assert (figures["accuracy"], figures["labels_left_out"]["model"]) == (1, ["dull"])
    scored = result.predictions.probabilities[[0, -1]]
    np.testing.assert_allclose(scored, [[4 / 5, 1 / 5], [1 / 7, 6 / 7]])
    written = classifier.predict_proba([np.zeros(96_000, np.float32)])
    assert figures["target_precision"] == {
        "target": 0.9,
        "threshold": pytest.approx(written[0, 1]),
        "coverage": 0.5,
        "precision": 1,
    }
    assert figures["coverage"] == [
        {"threshold": pytest.approx(2 / 3.25), "coverage": 1, "accuracy": 0.5},
        {"threshold": pytest.approx(6 / 9), "coverage": 0.5, "accuracy": 1},
    ]


def test_a_single_label_is_scored_among_all(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("long", 0.25, None), ("long", 4.0, None))
    figures = evaluate(fake_classifier, corpus, "all", CONFIG).figures
    assert figures["labels"] == ["short", "long"]
    assert figures["accuracy"] == 0.5
    assert "All clips have the same label, so UAR is its recall." in figures["warnings"]
    assert figures["intervals"]["resampled"] == "segments"
    assert any("Speakers are unknown" in warning for warning in figures["warnings"])


def test_renormalised_probabilities() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    found = renormalise(probabilities, ("a", "b", "c"), ("c", "b"))
    np.testing.assert_allclose(found, [[0.4, 0.6], [0.5, 0.5]])


def test_clips_that_fail_are_told_and_not_scored(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"), ("long", 2.0, "b"))
    corpus.clips[1].path.write_bytes(b"RIFF and no more")
    figures = evaluate(fake_classifier, corpus, "all", CONFIG).figures
    assert figures["n_segments"] == 2
    assert list(figures["failed"]) == [str(corpus.clips[1].path)]
    assert "1 clip failed and had to be left out." in figures["warnings"]


def test_long_clips_are_scored_in_pieces_and_short_ones_refused(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 70.0, "b"), ("long", 0.05, "b"))
    result = evaluate(fake_classifier, corpus, "all", CONFIG)
    assert [len(waveform) for waveform in fake_classifier.received[1:]] == [
        373_334,
        373_333,
        373_333,
    ]
    np.testing.assert_allclose(result.predictions.probabilities[1, 0], 1 / (1 + 70 / 3), rtol=1e-4)
    assert "lasts 0.050 s; expected 0.1 s or more" in result.figures["failed"].popitem()[1]


@pytest.mark.usefixtures("eager_parallel")
def test_a_model_that_stays_in_this_process_classifies_alike(
    fake_classifier: FakeClassifier, local_classifier: LocalClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(
        ("short", 0.25, "a"), ("long", 70.0, "b"), ("long", 0.05, "b"), ("long", 4.0, "b")
    )
    config = EvalConfig(stress=("gain-20", "noise20"), jobs=2)
    here = evaluate(local_classifier, corpus, "all", config)
    there = evaluate(fake_classifier, corpus, "all", config)
    assert fake_classifier.batches == []  # a copy of it was asked
    assert local_classifier.batches == [5, 5, 5]  # all pieces at once, for each condition
    lengths = [len(waveform) for waveform in local_classifier.received]
    assert lengths == [4_000, 373_334, 373_333, 373_333, 64_000] * 3
    clean, quiet, noisy = local_classifier.received[2::5]
    np.testing.assert_allclose(quiet, 0.1 * clean, atol=1e-7)
    assert not np.allclose(noisy, clean, atol=1e-3)
    np.testing.assert_array_equal(here.predictions.probabilities, there.predictions.probabilities)
    assert here.figures == there.figures


def test_stress_gives_other_waveforms_and_counts_changed_labels(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    config = EvalConfig(stress=("clean", "gain-20"), jobs=1)
    calls: list[int] = []
    figures = evaluate(fake_classifier, corpus, "all", config, progress=calls.append).figures
    assert sum(calls) == 4  # twice, for the clips as they are are heard once
    received = fake_classifier.received
    np.testing.assert_allclose(received[2], 0.1 * received[0], atol=1e-7)
    # This classifier hears the duration alone.
    for row in figures["stress"]["conditions"].values():
        assert row == {
            "uar": 1,
            "accuracy": 1,
            "ece": pytest.approx(0.2),
            "drop": 0,
            "unchanged": 1,
        }


class RoundingClassifier(LocalClassifier):
    """Takes speech for longer by a fifth with bf16, and has no int8."""

    number_type: Precision = "fp32"

    @property
    def precision(self) -> Precision:
        return self.number_type

    def use_precision(self, precision: Precision) -> None:
        if precision == "int8":
            raise ConfigError("precision is 'int8'")
        self.number_type = precision

    def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return super().extract_features(waveforms) * (1.2 if self.precision == "bf16" else 1)


def test_labels_that_stay_with_another_number_type(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus(("short", 0.9, "a"), ("long", 4.0, "b"))
    classifier = RoundingClassifier()
    calls: list[int] = []
    config = EvalConfig(precisions=("bf16", "fp32"), stress=("gain-20",), jobs=1)
    figures = evaluate(classifier, corpus, "all", config, progress=calls.append).figures
    assert sum(calls) == 8
    assert classifier.precision == figures["precision"] == "fp32"
    # 1 / (1 + 0.9) is a label, 1 / (1 + 1.08) the other.
    assert figures["precisions"] == {
        "bf16": {
            "uar": 0.5,
            "accuracy": 0.5,
            "ece": pytest.approx((1.08 / 2.08 + (1 - 4.8 / 5.8)) / 2, abs=1e-6),
            "drop": 0.5,
            "unchanged": 0.5,
            "change": pytest.approx(1 / 1.9 - 1 / 2.08, abs=1e-6),
        },
        "fp32": {
            "uar": 1,
            "accuracy": 1,
            "ece": pytest.approx(figures["ece"]),
            "drop": 0,
            "unchanged": 1,
            "change": 0,
        },
    }
    assert figures["stress"]["conditions"]["gain-20"]["uar"] == 1
    with pytest.raises(ConfigError, match=r"precision is 'int8'"):
        evaluate(classifier, corpus, "all", EvalConfig(precisions=("bf16", "int8"), jobs=1))
    assert (classifier.precision, len(classifier.batches)) == ("fp32", 4)


def test_baselines_are_those_of_the_shares(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(*(("short", 0.25, "a"),) * 3, ("long", 4.0, "b"))
    config = EvalConfig(baselines=True, jobs=1)
    majority = evaluate(fake_classifier, corpus, "all", config).figures["baselines"]["majority"]
    assert (majority["accuracy"], majority["uar"]) == (0.75, 0.5)
    assert majority["ece"] == pytest.approx(0)
    assert majority["nll"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert majority["brier"] == pytest.approx(2 * 0.75 * 0.25)


def test_votes_are_advised_only_where_there_are_none(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    fake_classifier.spec = replace(
        fake_classifier.spec, perceived=Calibration("none", np.eye(2), np.zeros(2))
    )
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    config = replace(CONFIG, target="perceived")
    for votes, is_advised in ((None, True), ({"c1": {"long": 3}}, False)):
        figures = evaluate(fake_classifier, corpus, "all", config, votes=votes).figures
        (told,) = (one for one in figures["warnings"] if "that listeners perceive" in one)
        assert told.endswith("the labels are the intended emotions.") is not is_advised
        assert told.endswith("Compare them with listeners' votes (--votes).") is is_advised


def test_votes_of_other_clips_are_an_error(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    votes = {"c1": {"short": 1, "long": 3, "dull": 9}}
    figures = evaluate(fake_classifier, corpus, "all", CONFIG, votes=votes).figures["listeners"]
    assert (figures["n_segments"], figures["n_votes"]) == (1, 13)
    assert figures["listener"]["accuracy"] == 3 / 13
    assert figures["other_votes"] == {"dull": 9}
    with pytest.raises(DatasetError, match=r"none of 2 clips has votes; expected .* named like c0"):
        evaluate(fake_classifier, corpus, "all", CONFIG, votes={"other": {"short": 1}})


def test_votes_for_what_is_no_label_are_told(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"), ("dull", 1.0, "b"))
    known = {"short": 1, "long": 0, "dull": 0, "fear": 0}
    votes = {"c0": known, "c1": {**known, "lnog": 2}}
    figures = evaluate(fake_classifier, corpus, "all", CONFIG, votes=votes).figures
    told = (
        "The table of votes has columns that are not labels: lnog. Votes for these count as wrong"
    )
    assert any(warning.startswith(told) for warning in figures["warnings"])
    assert figures["listeners"]["other_votes"] == {"lnog": 2}
    del votes["c1"]["lnog"]
    figures = evaluate(fake_classifier, corpus, "all", CONFIG, votes=votes).figures
    assert not any("table of votes" in warning for warning in figures["warnings"])
    assert figures["listeners"]["other_votes"] == {}
    with pytest.raises(
        DatasetError, match="all votes on these clips are for lnog; expected votes for short, long"
    ):
        evaluate(fake_classifier, corpus, "all", CONFIG, votes={"c1": {"short": 0, "lnog": 1}})


def test_breakdown_leaves_out_traits_that_group_nothing() -> None:
    def clip(index: int, sex: str) -> Clip:
        traits = {"sex": sex, "take": str(index), "language": "German"}
        return Clip(Path(f"{index}"), "ab"[index % 2], f"s{index % 2}", traits=traits)

    clips = (clip(0, "female"), clip(1, "male"), clip(2, "male"), clip(3, "male"))
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    found = break_down(Predictions("m", ("a", "b"), clips, probabilities))
    assert set(found) == {"speaker", "sex"}
    assert found["sex"]["male"] == {
        "n_segments": 3,
        "accuracy": pytest.approx(2 / 3),
        "uar": pytest.approx(0.75),
        "macro_f1": pytest.approx(2 / 3),
    }


def test_splits_of_a_corpus_without_splits(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    with pytest.raises(
        DatasetError, match="toy: has no clips in the split 'test': it has no splits"
    ):
        evaluate(fake_classifier, make_corpus(("short", 0.25, "a")), "test")
    corpus = make_corpus(("short", 0.25, "a"), ("long", 2.0, "b"))
    assert evaluate(fake_classifier, corpus).figures["split"] == "all"
    first, second = corpus.clips
    split = replace(corpus, clips=(replace(first, split="test"), second))
    assert evaluate(fake_classifier, split).figures["n_segments"] == 1


def test_votes_are_found_by_names_with_and_without_suffix() -> None:
    votes = {"a": {"anger": 2}, "b.wav": {"fear": 1}}
    for name, found in (("a", 2), ("a.wav", 2), ("sub/a.flac", 2), ("b.wav", 0), ("c", 0)):
        clip = Clip(Path(name), "anger", name=name)
        assert match_votes(votes, [clip])[0].get("anger", 0) == found
    assert match_votes(votes, [Clip(Path("b.wav"), "fear", name="b.wav")]) == [{"fear": 1}]


def test_votes_are_those_of_one_clip() -> None:
    names = ("a/000.wav", "b/000.wav", "Ä.wav")
    clips = [Clip(Path("data", name), "anger", name=name) for name in names]
    with pytest.raises(
        DatasetError, match=r"table of votes: 000 is of data/a/000\.wav and of data/b/000\.wav; exp"
    ):
        match_votes({"000": {"anger": 1}}, clips)
    # Exact names go before those that several have; the form of Unicode does not matter.
    votes = {"000": {"anger": 1}, "b/000": {"anger": 2}, "A\u0308": {"anger": 3}}
    found = match_votes(votes, clips)
    assert [row["anger"] for row in found] == [1, 2, 3]
    # The advised name has folders, and a suffix, only where they are needed.
    twins = [
        replace(clips[0], name=name, path=Path("/c", name)) for name in ("a/x.wav", "a/x.flac")
    ]
    assert suggest_name(twins) == "a/x.wav"
    assert [suggest_name(clips[n:]) for n in range(3)] == ["a/000", "000", "Ä"]
    stretches = [Clip(Path("a/b.wav"), "anger", name=f"a/b.wav#{n}", end=n) for n in (1.0, 2.0)]
    assert suggest_name(stretches) == "a/b.wav#1.0"
    exact = {"data/a/000.wav": {"anger": 4}, "a/000.wav": {"anger": 5}, "000": {"anger": 6}}
    assert [row.get("anger") for row in match_votes(exact, clips)] == [5, 6, None]


@pytest.mark.parametrize(
    ("votes", "mixes", "message"),
    [
        ({"other": {"anger": 1}}, False, "none of 2 clips has votes; expected clips named like c0"),
        (None, True, "speakers are unknown; expected a speaker for every clip, to draw groups"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_decoded(
    votes: Any,
    mixes: bool,
    message: str,
    fake_classifier: FakeClassifier,
    make_corpus: MakeCorpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeClassifier, "find_adapter", lambda *_: None)
    corpus = make_corpus(("short", 0.25, None), ("long", 2.0, "ann"))
    with pytest.raises(DatasetError, match=message):
        evaluate(fake_classifier, corpus, "all", replace(CONFIG, mixes=mixes), votes=votes)
    assert fake_classifier.batches == []


def test_a_baseline_of_speakers_needs_speakers(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeClassifier, "find_adapter", lambda *_: None)
    corpus = make_corpus(("short", 0.25, None), ("long", 2.0, None))
    config = replace(CONFIG, adapt="speaker")
    with pytest.raises(DatasetError, match="speakers are unknown, and adapt is 'speaker'"):
        evaluate(fake_classifier, corpus, "all", config)


def test_a_baseline_is_of_clips_that_are_not_scored_too(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ByMean:
        """Gives every segment of a group the group's mean."""

        def adapt(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.tile(probabilities.mean(axis=0), (len(probabilities), 1))

    monkeypatch.setattr(FakeClassifier, "find_adapter", lambda *_: ByMean())
    # The probability of `short` is 1 / (1 + duration): 0.8, 0.5, 0.2 of speaker a.
    corpus = make_corpus(
        ("short", 0.25, "a"), ("boredom", 1.0, "a"), ("long", 4.0, "a"), ("long", 3.0, "b")
    )
    config = replace(CONFIG, adapt="speaker", stress=("clean",))
    result = evaluate(fake_classifier, corpus, "all", config)
    np.testing.assert_allclose(result.predictions.probabilities[:, 0], [0.5, 0.5, 0.25])
    assert [clip.emotion for clip in result.predictions.clips] == ["short", "long", "long"]
    assert result.figures["stress"]["conditions"]["clean"]["drop"] == 0
    assert result.figures["labels_left_out"]["corpus"] == {"boredom": 1}
    # What would not have been scored is missed by nobody.
    gone = replace(corpus.clips[1], path=corpus.clips[1].path.with_name("gone.wav"))
    broken = replace(corpus, clips=(corpus.clips[0], gone, *corpus.clips[2:]))
    result = evaluate(fake_classifier, broken, "all", config)
    assert result.figures["failed"] == {}
    np.testing.assert_allclose(result.predictions.probabilities[:2, 0], [0.5, 0.5])
    lower = make_corpus(("short", 0.25, "a"), ("boredom", 9.0, "a"), ("long", 4.0, "b"))
    result = evaluate(fake_classifier, lower, "all", config)
    np.testing.assert_allclose(result.predictions.probabilities[:, 0], [0.45, 0.2])


def test_a_long_clip_has_the_mean_of_its_pieces(make_corpus: MakeCorpus) -> None:
    class Loudest(FakeClassifier):
        """Gives a segment the score of its greatest sample, and its negative."""

        def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            return np.array([[np.exp(waveform.max())] for waveform in waveforms], np.float32)

    corpus = make_corpus(("long", 1.0, "a"), ("short", 1.0, "b"))
    sound = np.concatenate([np.full(166_400, level, np.float32) for level in (0.1, 0.2, 0.9)])
    sf.write(corpus.clips[0].path, sound, 16_000, subtype="FLOAT")
    result = evaluate(Loudest(), corpus, "all", CONFIG)
    # Each of two pieces of 15.6 s: up to 0.2, and 0.9.
    expected = np.mean(1 / (1 + np.exp(-np.array([0.2, 0.9]))))
    np.testing.assert_allclose(result.predictions.probabilities[0, 1], expected, rtol=1e-3)


def test_what_is_perceived_has_its_own_calibration(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    perceived = Calibration("none", 2 * np.eye(2), np.zeros(2))
    fake_classifier.spec = replace(fake_classifier.spec, perceived=perceived)
    corpus = make_corpus(("short", 0.25, "a"), ("long", 3.0, "b"))
    for power, config in enumerate((CONFIG, replace(CONFIG, target="perceived")), 1):
        found = evaluate(fake_classifier, corpus, "all", config).predictions.probabilities
        np.testing.assert_allclose(found[:, 0], [1 / (1 + 0.25**power), 1 / (1 + 3**power)])
    fake_classifier.adapter = Turning(safe=True)  # type: ignore[assignment]
    config = replace(CONFIG, target="perceived", adapt="speaker")
    with pytest.raises(
        ConfigError, match="only the intended emotion is predicted, and not the perceived one"
    ):
        evaluate(fake_classifier, corpus, "all", config)


def test_the_kind_of_group_depends_on_clips_that_are_not_scored_too(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    class ByMean(Turning):
        def adapt(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.tile(probabilities.mean(axis=0), (len(probabilities), 1))

    fake_classifier.adapter = ByMean(safe=True)  # type: ignore[assignment]
    config = replace(CONFIG, adapt="auto")
    for speaker, expected in (("a", [0.5, 0.5]), (None, [0.8, 0.2])):
        corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "a"), ("boredom", 1.0, speaker))
        result = evaluate(fake_classifier, corpus, "all", config)
        assert result.figures["adapt"] == ("speaker" if speaker else "recording")
        np.testing.assert_allclose(result.predictions.probabilities[:, 0], expected)


def test_groups_of_mixes_are_adapted_before_labels_are_left_out(
    make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Three(FakeClassifier):
        """Gives labels the odds 1, the duration in seconds, and 2."""

        def __init__(self) -> None:
            super().__init__()
            labels = ("short", "long", "boredom")
            calibration = Calibration("none", np.eye(3), np.zeros(3))
            self.spec = replace(self.spec, labels=labels, calibration=calibration)

        def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.log(np.hstack((features**0, features, 2 * features**0)))

    seen: dict[str, Any] = {}

    def measure(adapt: Any, alone: Any, classes: Any, *_: object) -> list[dict[str, Any]]:
        seen.update(alone=alone, adapted=adapt(np.array([0, 1])), classes=classes.tolist())
        return []

    monkeypatch.setattr("sercli.evaluation.classification.measure_mixes", measure)
    classifier = Three()
    classifier.adapter = Turning(safe=True)  # type: ignore[assignment]
    corpus = make_corpus(("short", 0.25, "a"), ("joy", 1.0, "a"), ("long", 3.0, "b"))
    evaluate(classifier, corpus, "all", replace(CONFIG, mixes=True, adapt="speaker"))
    np.testing.assert_allclose(seen["alone"], [[0.8, 0.2], [0.25, 0.75]])
    # The odds of the first label are then those of the last.
    np.testing.assert_allclose(seen["adapted"], [[8 / 9, 1 / 9], [0.4, 0.6]])
    assert seen["classes"] == [0, 1]


def test_every_clip_has_noise_of_its_own(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 0.25, "b"))
    evaluate(fake_classifier, corpus, "all", replace(CONFIG, stress=("noise10",)))
    first, second, *noisy = fake_classifier.received
    np.testing.assert_array_equal(first, second)
    ratio = np.corrcoef([one - first for one in noisy])[0, 1]
    assert abs(ratio) < 0.1


def test_names_of_ones_own_corpus_are_told_to_be_names(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, tmp_path: Path
) -> None:
    corpus = make_corpus(("short", 0.25, "1001"), ("long", 4.0, "b"))
    actor = replace(corpus.clips[0], corpus="cremad")
    manifest = TrainingManifest.from_clips([actor], ["0" * 16])
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.encode())
    training = {"manifest_sha256": manifest.digest()}
    fake_classifier.spec = replace(fake_classifier.spec, training=training)
    fake_classifier.folder = tmp_path
    told = "if these are different people, rename them"
    figures = evaluate(fake_classifier, corpus, "all", CONFIG).figures
    assert figures["protocol"] == "speakers shared"
    assert figures["overlap"] == {"speakers": ["toy/1001"], "clips": 0}
    assert any(told in warning for warning in figures["warnings"])
    with pytest.raises(DatasetError, match="was trained on 1 speaker of the evaluation data"):
        evaluate(fake_classifier, corpus, "all", replace(CONFIG, strict=True))
    release = replace(corpus, clips=tuple(replace(clip, corpus="cremad") for clip in corpus.clips))
    figures = evaluate(fake_classifier, release, "all", CONFIG).figures
    assert figures["protocol"] == "speakers shared"
    assert not any(told in warning for warning in figures["warnings"])


class Turning:
    """An adapter that turns everything round."""

    def __init__(self, *, safe: bool) -> None:
        self.settings = AdapterSettings(safe=safe)

    def adapt(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities[:, ::-1]


@pytest.mark.parametrize(("adapter", "n_decoded"), [(None, 2), (Turning(safe=True), 3)])
def test_progress_ends_at_the_number_that_was_expected(
    adapter: Any, n_decoded: int, fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    # A clip of a label that the models lack is decoded only for the baselines.
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"), ("boredom", 1.0, "c"))
    fake_classifier.adapter = adapter
    models = [fake_classifier, RoundingClassifier()]
    config = replace(CONFIG, adapt="auto", stress=("clean", "gain-20"), precisions=("fp32",))
    counted: list[int] = []
    expected: list[int] = []
    evaluate_all(models, corpus, "all", config, progress=counted.append, expect=expected.append)
    n_front_ends = len({one.front_end for one in models})
    assert expected == [sum(counted)] == [n_decoded * (2 * n_front_ends + 2)]


@pytest.mark.parametrize("adapter", [None, Turning(safe=False), Turning(safe=True)])
def test_a_model_is_measured_by_the_baselines_that_it_annotates_by(
    adapter: Any, fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    # One that is not scored does not babble either.
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"), ("boredom", 1.0, "c"))
    fake_classifier.adapter = adapter
    config = replace(CONFIG, adapt="auto", stress=("babble10",))
    by_itself = evaluate(fake_classifier, corpus, "all", replace(config, adapt="none")).figures
    figures = evaluate(fake_classifier, corpus, "all", config).figures
    safe = adapter is not None and adapter.settings.safe
    assert Annotator(fake_classifier, adapt="auto").adapt == ("recording" if safe else "none")
    assert figures["adapt"] == ("speaker" if safe else "none")
    stranger = replace(corpus.clips[0], speaker=None)
    for clips, adapt in (
        (corpus.clips, "speaker"),
        ((*corpus.clips, stranger), "recording"),
        ((*corpus.clips, replace(stranger, channel=1)), "channel"),
    ):
        assert choose_adaptation(fake_classifier, config, clips) == (adapt if safe else "none")
    assert figures["accuracy"] == (0 if safe else 1)
    assert safe or figures == by_itself
    received = replace(config, target="perceived")
    # Which no baseline tells.
    assert choose_adaptation(fake_classifier, received, corpus.clips) == "none"
    if adapter is None:
        with pytest.raises(ConfigError, match="has no adapter, so it cannot use a baseline"):
            evaluate(fake_classifier, corpus, "all", replace(CONFIG, adapt="recording"))


def test_an_unknown_condition_is_told_before_anything_is_decoded(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus = make_corpus(("short", 0.25, "a"), ("long", 4.0, "b"))
    with pytest.raises(ConfigError, match="unknown condition 'fog'"):
        evaluate(fake_classifier, corpus, "all", replace(CONFIG, stress=("gain-20", "fog")))
    assert not fake_classifier.received


def test_speakers_of_one_name_in_two_corpora_are_two() -> None:
    clips = tuple(
        Clip(Path(f"{corpus}{n}.wav"), "anger", "03", name=f"{corpus}{n}", corpus=corpus)
        for corpus in ("emodb", "ravdess")
        for n in range(2)
    )
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = ("anger", "fear")
    found = break_down(Predictions("m", labels, clips, rows))["speaker"]
    assert {name: row["accuracy"] for name, row in found.items()} == {
        "emodb/03": 1.0,
        "ravdess/03": 0.0,
    }
    one = break_down(Predictions("m", labels, clips[:2], rows[:2]))
    assert list(one["speaker"]) == ["03"]
    # A table has either: who that is counts once.
    listed = replace(clips[0], corpus="mine", namespace="table")
    named = Predictions("m", labels, (*clips[:2], listed), rows[:3])
    assert {name: row["n_segments"] for name, row in break_down(named)["speaker"].items()} == {
        "03": 3
    }
    assert find_limits_of(clips)[0] == "Intervals from 2 speakers are too narrow."
    assert find_limits_of((*clips, listed))[0].startswith("There are no intervals")
    unknown = replace(clips[0], speaker=None)
    assert find_limits_of((*clips, unknown))[0].startswith("Speakers of 1 clip are unknown, so")
    assert find_limits_of((unknown,))[0].startswith("Speakers are unknown, so intervals")


def test_a_recording_that_changed_is_decoded_anew(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus, make_wav: MakeWav
) -> None:
    corpus = make_corpus(("short", 1.0, "a"))
    first = evaluate(fake_classifier, corpus, "all", CONFIG).predictions.probabilities
    assert make_wav("0.wav", 3.0) == corpus.clips[0].path
    again = evaluate(fake_classifier, corpus, "all", CONFIG).predictions.probabilities
    np.testing.assert_allclose((first[0, 0], again[0, 0]), (0.5, 0.25))


def test_conditions_that_are_no_single_one_are_refused_before_anything_is_decoded(
    fake_classifier: FakeClassifier, make_corpus: MakeCorpus
) -> None:
    corpus, decoded = make_corpus(("short", 1.0, "a"), ("long", 1.0, "b")), list[int]()
    config = replace(CONFIG, stress=("noise10,phone",))
    with pytest.raises(ConfigError, match="unknown condition 'noise10,phone'; there are clean"):
        evaluate(fake_classifier, corpus, "all", config, progress=decoded.append)
    assert not decoded
