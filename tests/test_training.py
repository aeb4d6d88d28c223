"""Training networks, from a corpus to a model folder: what is learned, scored and kept."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from checkpoints import save_checkpoint
from click.testing import CliRunner, Result
from clips import load_clip
from conftest import ACTORS, EXAMPLES
from runs import Killed
from safetensors.torch import load_file

import sercli
from sercli.classifiers.base import Classifier
from sercli.classifiers.cnn import CnnClassifier
from sercli.cli import main
from sercli.cli.console import Progress
from sercli.cli.view import TrainingView
from sercli.config import EvalConfig, SegmentConfig, Split
from sercli.datasets import Clip, Corpus, read_corpus
from sercli.datasets.corpus import merge
from sercli.datasets.decoding import decode_clip
from sercli.datasets.protocols import split_by_speaker
from sercli.errors import ConfigError, DatasetError, ModelError, OutputError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import unweighted_average_recall
from sercli.evaluation.run import evaluate
from sercli.neural.bases import load_base
from sercli.neural.cnn import CnnSettings
from sercli.neural.devices import limit_threads
from sercli.neural.front_end import LogMelSettings
from sercli.registry.store import load_model
from sercli.reporting.families import DEVELOPMENT_SPEAKERS
from sercli.reporting.folder import REPORT_FILES
from sercli.system.locking import keep_out
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import NeuralConfig, SvmConfig, TransformerConfig
from sercli.training.networks import cnn as courses
from sercli.training.networks import loop
from sercli.training.networks.cnn import CnnCourse
from sercli.training.networks.fitting import fit_model
from sercli.training.networks.history import has_checkpoints
from sercli.training.networks.loop import Fitted, TrainingProgress
from sercli.training.networks.material import Material
from sercli.training.networks.trainer import NeuralTrainer, clear_training
from sercli.training.networks.transformer import TransformerCourse
from sercli.training.run import Training, choose_training_labels, cross_validate, train_on_splits
from sercli.training.substitutes import find_substitute
from sercli.training.svm.trainer import SvmTrainer
from sercli.training.teachers import Teacher, read_held_out
from sercli.training.trainer import AnyTrainer, Learned
from sercli.training.unlabelled import FoundSpeech, Unlabelled

SMALL = CnnSettings(LogMelSettings(n_mels=16), channels=(4, 4, 6, 6, 8, 8, 8))
CONFIG = NeuralConfig(
    epochs=3,
    prosodies=0,
    batch_size=9,
    learning_rate=0.02,
    optimiser="adamw",  # in so few steps
    averaging=0.5,
    voice_share=0.0,
    folds=2,
    device="cpu",
    jobs=1,
)
KEPT = ["README.md", "curves.png", "history.csv", "manifest.csv", "model.json"]
KEPT += ["weights.safetensors"]
KEPT_OF_FOLDS = sorted([*KEPT, "held_out.csv"])


@pytest.fixture(scope="module")
def folder(hisses: Path) -> Path:
    return hisses


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return split_by_speaker(read_corpus(folder))


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    """Curves take longer to draw than these networks to train; threads change the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_curves", lambda *given: (given[2] / "curves.png").touch())
        yield
    torch.set_num_threads(before)


def trainer(cache: Path, config: NeuralConfig = CONFIG, **changes: Any) -> NeuralTrainer:
    return NeuralTrainer(CnnCourse(config, settings=SMALL, **changes), cache=cache)


@pytest.fixture(scope="module")
def chosen(
    corpus: Corpus, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Training, Path]:
    """A model whose epoch was chosen on development clips."""
    path = tmp_path_factory.mktemp("models") / "chosen"
    return train_on_splits(corpus, path, trainer(cache), test=False), path


def read_json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def read_training(path: Path) -> dict[str, Any]:
    """Return what a model says of its training, but for the time that it took."""
    training: dict[str, Any] = read_json(path / "model.json")["training"]
    assert training.pop("seconds") > 0
    return training


def test_epoch_and_calibration_come_from_development_clips(
    chosen: tuple[Training, Path], corpus: Corpus, cache: Path
) -> None:
    result, path = chosen
    assert sorted(os.listdir(path)) == KEPT
    facts = read_training(path)
    assert (facts["clips"], facts["speakers"], facts["splits"]) == (27, 3, ["train"])
    assert (facts["calibration_on"], facts["votes"]) == (DEVELOPMENT_SPEAKERS, False)
    assert facts["config"]["learning_rate"] == 0.02
    model = load_model(path, "cpu", precision="fp32")
    assert isinstance(model, CnnClassifier)
    assert isinstance(result.classifier, CnnClassifier)
    assert facts["parameters"] == sum(one.numel() for one in model.network.parameters())
    rows = [row.split(",") for row in (path / "history.csv").read_text().splitlines()[1:]]
    uars = [float(row[4]) for row in rows]
    assert len(uars) == 3
    assert uars[facts["best_epoch"] - 1] == max(uars)
    # What the folder holds reaches, on the development clips, what was noted of its epoch.
    dev = cache_clips(corpus.select("dev"), cache, jobs=1)
    waveforms = [dev.utterance(index).waveform for index in range(len(dev))]
    scores = model.score(model.extract_features(waveforms))
    course = CnnCourse(CONFIG, model.spec.labels, settings=SMALL)
    classes = course.find_classes(dev)
    assert unweighted_average_recall(classes, scores.argmax(axis=1)) == max(uars)
    # Clips are scored by length, and stay in their order.
    whole, varied = course.score(model.network, Material(dev), Material(dev))
    np.testing.assert_allclose(whole, scores, atol=1e-4)
    # By as much as clips differ, which in a network of the first epoch is little.
    assert np.abs(varied - whole).max() > np.ptp(whole, axis=0).max() / 2
    np.testing.assert_array_equal(
        course.score(model.network, Material(dev), Material(dev))[1], varied
    )
    for part in ("whole", "varied"):
        assert facts["held_out"][part]["n_segments"] == 18
    assert model.spec.band_limit == 4_000
    assert CnnSettings.from_dict(model.spec.settings) == SMALL
    assert {"torch", "torchaudio", "sercli", "silero-vad"} < set(model.spec.versions)


def test_same_seed_same_bytes(
    chosen: tuple[Training, Path], corpus: Corpus, cache: Path, tmp_path: Path
) -> None:
    train_on_splits(corpus, tmp_path / "again", trainer(cache), test=False)
    train_on_splits(corpus, tmp_path / "other", trainer(cache, replace(CONFIG, seed=1)), test=False)
    name = "weights.safetensors"
    expected = (chosen[1] / name).read_bytes()
    assert (tmp_path / "again" / name).read_bytes() == expected
    assert (tmp_path / "other" / name).read_bytes() != expected
    assert read_training(tmp_path / "again") == read_training(chosen[1])


def test_without_weight_there_are_no_guides(
    corpus: Corpus, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courses, "extract_clean_features", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_on_splits(corpus, tmp_path / "with", trainer(cache), test=False)
    config = replace(CONFIG, guide_weight=0.0, epochs=1)
    train_on_splits(corpus, tmp_path / "without", trainer(cache, config), test=False)
    assert sorted(os.listdir(tmp_path / "without")) == KEPT


@dataclass
class Spy:
    """Notes of whom each network learned, and whom it scored."""

    taught: list[tuple[str, set[str | None], set[str | None]]] = field(default_factory=list)
    scored: list[set[str | None]] = field(default_factory=list)
    unlabelled: list[int] = field(default_factory=list)


def voices(cached: CachedClips | None) -> set[str | None]:
    return {clip.speaker for clip in cached.clips} if cached else set()


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    noted = Spy()
    teach, score, classify = CnnCourse.teach, CnnCourse.score, NeuralTrainer.classify

    def see_teach(
        self: CnnCourse, name: str, material: Material, place: Path, dev: Any = None
    ) -> Any:
        noted.taught.append((name, voices(material.cached), voices(dev and dev.cached)))
        assert material.rows is None or len(material.rows) == len(material)
        noted.unlabelled.append(len(material.all_clips) - len(material))
        return teach(self, name, material, place, dev)

    def see_score(self: CnnCourse, network: Any, material: Material, learned: Material) -> Any:
        noted.scored.append(voices(material.cached))
        assert voices(learned.cached) == noted.taught[-1][1]
        return score(self, network, material, learned)

    def see_classify(self: NeuralTrainer, model: Any, found: CachedClips) -> Any:
        noted.scored.append(voices(found))
        return classify(self, model, found)

    monkeypatch.setattr(CnnCourse, "teach", see_teach)
    monkeypatch.setattr(CnnCourse, "score", see_score)
    monkeypatch.setattr(NeuralTrainer, "classify", see_classify)
    return noted


def test_development_clips_are_known(corpus: Corpus, cache: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    model = train_on_splits(corpus, tmp_path / "m", trainer(cache, config), test=False).classifier
    settings = EvalConfig(strict=True, jobs=1)
    assert evaluate(model, corpus, "test", settings).figures["protocol"] == "speakers apart"
    with pytest.raises(DatasetError, match=r"was selected and calibrated on 2 speakers"):
        evaluate(model, corpus, "dev", settings)
    figures = evaluate(model, corpus, "dev").figures
    assert figures["protocol"] == "speakers shared"
    assert any("was selected and calibrated on" in line for line in figures["warnings"])
    assert read_training(tmp_path / "m")["protocol"] == "speakers apart"
    # They are not told from those who are measured, where nobody knows who they are.
    unknown = tuple(
        replace(clip, speaker=None) if clip.split == "dev" else clip for clip in corpus.clips
    )
    learner = trainer(cache, replace(config, group_by="clip"))
    result = train_on_splits(replace(corpus, clips=unknown), tmp_path / "u", learner)
    assert result.evaluation is not None
    figures = result.evaluation.figures
    assert (figures["protocol"], figures["overlap"]["speakers"]) == ("speakers unknown", [])
    assert any(
        "was selected and calibrated on clips of unk" in line for line in figures["warnings"]
    )
    assert read_training(tmp_path / "u")["protocol"] == "speakers unknown"


def test_without_development_clips_folds_calibrate(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy
) -> None:
    config = replace(CONFIG, epochs=1, patience=1)
    fit_on: tuple[Split, ...] = ("train", "dev")
    result = train_on_splits(
        corpus, tmp_path / "all", trainer(cache, config), fit_on=fit_on, test=False
    )
    every = {"1001", "1002", "1003", "1049", "1053"}
    assert [name for name, *_ in spy.taught] == ["fold 1 of 2", "fold 2 of 2", "all clips"]
    assert [known for _, known, _ in spy.taught] == [*(every - part for part in spy.scored), every]
    assert set.union(*spy.scored) == every
    assert not set.intersection(*spy.scored)
    facts = read_training(tmp_path / "all")
    assert facts["calibration_on"] == "2 folds of speakers"
    assert (facts["clips"], facts["best_epoch"]) == (45, 1)
    assert facts["held_out"]["varied"]["n_segments"] == 45
    # What each network said of its fold is kept, for those who learn from it.
    scored = read_held_out(tmp_path / "all", result.classifier.spec.labels)
    cached = cache_clips([*corpus.select("train"), *corpus.select("dev")], cache, jobs=1)
    assert scored.keys() == set(cached.hashes)
    classes = CnnCourse(config, result.classifier.spec.labels).find_classes(cached)
    said = np.array([scored[audio].argmax() for audio in cached.hashes])
    uar = unweighted_average_recall(classes, said)
    assert uar == pytest.approx(facts["held_out"]["whole"]["uar"], abs=0.1)  # calibrated on all
    card = (tmp_path / "all" / "README.md").read_text(encoding="utf-8")
    assert "On 2 folds of speakers, each scored by a network that was not trained on it" in card


def test_folds_are_checked_before_any_is_learned_without(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy
) -> None:
    label = choose_training_labels(corpus)[-1]
    # All clips of a label are by one speaker, who is held out once.
    clips = tuple(one for one in corpus.clips if one.emotion != label or one.speaker == "1053")
    rare = replace(corpus, clips=clips)
    message = rf"without the speakers of a fold, no training clips of {label} are left"
    fit_on: tuple[Split, ...] = ("train", "dev")
    with pytest.raises(DatasetError, match=message):
        train_on_splits(rare, tmp_path / "a", trainer(cache, CONFIG), fit_on=fit_on, test=False)
    with pytest.raises(DatasetError, match=message):
        cross_validate(rare, tmp_path / "b", trainer(cache, CONFIG), 2)
    assert spy.taught == []


@pytest.mark.parametrize("family", ["svm", "cnn"])
def test_folds_within_folds_are_checked_before_anything_is_decoded(
    family: str, cache: Path, tmp_path: Path
) -> None:
    def clips_of(**emotions: str) -> Corpus:
        # There is no such audio: whoever listened would say so.
        clips = [
            Clip(tmp_path / f"{speaker}{i}.wav", emotion, speaker, f"{speaker}{i}", "gone")
            for speaker, words in emotions.items()
            for i, emotion in enumerate(words.split())
        ]
        return Corpus("gone", "", tuple(clips))

    learner: AnyTrainer = trainer(cache, CONFIG)
    if family == "svm":
        learner = SvmTrainer(SvmConfig(folds=2, jobs=1), cache=cache)
    # Without any one of the four there is fear, but not without a and c.
    rare = clips_of(a="anger fear", b="anger anger", c="anger fear", d="anger anger")
    with pytest.raises(
        DatasetError, match="without the speakers of a fold, no training clips of fear are"
    ):
        cross_validate(rare, tmp_path / "a", learner, 4)
    # Without b and d, there is one clip of each.
    few = clips_of(a="anger", b="anger", c="fear", d="fear")
    message = {"svm": "without the speakers of a fold", "cnn": "found 1 development clip"}
    with pytest.raises(DatasetError, match=message[family]):
        cross_validate(few, tmp_path / "b", learner, 2)
    train = tuple(replace(clip, split="train") for clip in rare.clips)
    with pytest.raises(
        DatasetError, match="without the speakers of a fold, no training clips of fear are"
    ):
        train_on_splits(replace(rare, clips=train), tmp_path / "c", learner)


@pytest.mark.parametrize("family", ["svm", "cnn"])
def test_labels_that_nobody_learns_are_told_before_anything_is_decoded(
    family: str, cache: Path, tmp_path: Path
) -> None:
    def clips_of(split: Split | None = None, **emotions: str) -> tuple[Clip, ...]:
        # There is no such audio: whoever listened would say so.
        return tuple(
            Clip(tmp_path / f"{who}{i}", word, who, f"{who}{i}", "gone", split=split)
            for who, words in emotions.items()
            for i, word in enumerate(words.split())
        )

    learner: AnyTrainer = trainer(cache, CONFIG)
    if family == "svm":
        learner = SvmTrainer(SvmConfig(folds=2, jobs=1), cache=cache)
    train = clips_of("train", a="anger happiness", b="anger happiness", c="anger happiness")
    dev = clips_of("dev", d="anger fear", e="anger fear happiness")
    test = clips_of("test", f="anger fear sadness")
    alone: tuple[Split, ...] = ("train",)
    both: tuple[Split, ...] = ("train", "dev")
    for clips, fit_on, missing in (
        (train + dev, alone, "fear"),
        (train + dev + test, alone, "fear, sadness"),
        (train + dev + test, both, "sadness"),
    ):
        message = f"^the training clips include none of {missing}; expected clips of every"
        with pytest.raises(DatasetError, match=message):
            train_on_splits(Corpus("gone", "", clips), tmp_path / "a", learner, fit_on=fit_on)

    # There are two speakers with fear; where one is in a fold, the other is all that is left.
    often = "anger anger anger sadness sadness sadness"
    fearful = f"{often} fear fear fear"
    clips = clips_of(a=fearful, b=often, c=often, d=often, e=often, f=fearful)
    by_whom = {"svm": "", "cnn": " and the development speakers"}[family]
    message = rf"^without the speakers of a fold{by_whom}, no training clips of fear are left;"
    with pytest.raises(DatasetError, match=message):
        cross_validate(Corpus("gone", "", clips), tmp_path / "b", learner, 3)

    # Where speakers are shared, folds are of clips.
    learner = trainer(cache, replace(CONFIG, group_by="clip"))
    if family == "svm":
        learner = SvmTrainer(SvmConfig(folds=2, jobs=1, group_by="clip"), cache=cache)
    rare = Corpus("gone", "", clips_of("train", a="anger anger anger fear"))
    message = (
        "^without the clips of a fold, no training clips of fear .*; expected clips of every em"
    )
    with pytest.raises(DatasetError, match=message):
        train_on_splits(rare, tmp_path / "c", learner)
    assert not [*tmp_path.iterdir()]


def test_development_clips_that_do_not_suffice(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy
) -> None:
    others = tuple(clip for clip in corpus.clips if clip.split != "dev")
    dev = corpus.select("dev")
    few = replace(corpus, clips=(*others, dev[0]))
    with pytest.raises(DatasetError, match="found 1 development clip; expected 2 or more"):
        train_on_splits(few, tmp_path / "a", trainer(cache, CONFIG), test=False)
    assert spy.taught == []
    label = dev[0].emotion
    rest = tuple(clip for clip in dev if clip.emotion != label)
    said: list[str] = []
    told = replace(trainer(cache, replace(CONFIG, epochs=1)), say=said.append)
    train_on_splits(replace(corpus, clips=(*others, *rest)), tmp_path / "b", told, test=False)
    assert any(f"no development clip is labelled {label}" in line for line in said)


def test_a_refused_training_leaves_what_was_there(
    corpus: Corpus, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, epochs=1, patience=1)
    fit_on: tuple[Split, ...] = ("train", "dev")
    train_on_splits(corpus, tmp_path / "all", trainer(cache, config), fit_on=fit_on, test=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}
    assert "held_out.csv" in before

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("sercli.training.networks.fitting._calibrate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_on_splits(corpus, tmp_path / "all", trainer(cache, config), fit_on=fit_on, test=False)
    for name, content in before.items():
        assert (tmp_path / "all" / name).read_bytes() == content


def test_cross_validation_classifies_speakers_that_nothing_was_chosen_by(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy
) -> None:
    config = replace(CONFIG, epochs=1)
    result = cross_validate(corpus, tmp_path / "folds", trainer(cache, config), 2)
    every = set(map(str, ACTORS))
    for number in (0, 1):
        _, known, dev = spy.taught[number]
        calibrated_on, scored = spy.scored[2 * number : 2 * number + 2]
        assert dev == calibrated_on
        assert len(dev) == 1
        assert known | dev | scored == every
        assert len(known) + len(dev) + len(scored) == len(every)
    assert [known for _, known, _ in spy.taught][4] == every
    assert result.evaluation is not None
    assert result.evaluation.figures["n_segments"] == 48
    written = {*os.listdir(tmp_path / "folds")}
    assert written - {*REPORT_FILES} == {*KEPT_OF_FOLDS}
    assert written >= {"metrics.json", "predictions.csv", "report.md", "report.html"}


def list_some(corpus: Corpus) -> Corpus:
    """Return a corpus of which one clip in three is in a table, that has the same speakers."""
    return replace(
        corpus,
        clips=tuple(
            clip if number % 3 else replace(clip, corpus="calls", namespace="table")
            for number, clip in enumerate(corpus.clips)
        ),
    )


def test_who_is_in_a_table_and_in_a_corpus_is_scored_by_strangers(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, listed = replace(CONFIG, epochs=1), list_some(corpus)
    assert len({clip.voice for clip in listed.clips}) == 12
    result = cross_validate(listed, tmp_path / "folds", trainer(cache, config), 3)
    every = set(map(str, ACTORS))
    for number in range(3):
        _, known, dev = spy.taught[number]
        scored = spy.scored[2 * number + 1]
        assert known | dev | scored == every
        assert len(known) + len(dev) + len(scored) == len(every)
    # Those by whom the last is calibrated, too.
    assert [name for name, *_ in spy.taught[3:5]] == ["fold 1 of 2", "fold 2 of 2"]
    for (_, known, _), scored in zip(spy.taught[3:5], spy.scored[6:], strict=True):
        assert known == every - scored
    assert result.evaluation is not None
    figures = result.evaluation.figures
    assert (figures["protocol"], figures["speakers"]) == ("speakers apart", sorted(every))
    assert "Intervals from 6 speakers are too narrow." in figures["warnings"]
    facts = read_training(tmp_path / "folds")
    assert (facts["speakers"], facts["protocol"]) == (6, "speakers apart, 3 folds")

    # What is told of folds is found out, and not taken for granted.
    halves = [list(range(0, 48, 2)), list(range(1, 48, 2))]
    monkeypatch.setattr("sercli.training.run.fold_by_speaker", lambda *_: halves)
    result = cross_validate(listed, tmp_path / "mixed", trainer(cache, config), 2)
    assert result.evaluation is not None
    assert result.evaluation.figures["protocol"] == "speakers shared"
    assert read_training(tmp_path / "mixed")["protocol"] == "speakers shared, 2 folds"


def test_copies_under_another_name_are_told(
    corpus: Corpus, cache: Path, tmp_path: Path, spy: Spy
) -> None:
    # Two more speakers, who are one of the others each.
    first, second = sorted({clip.speaker for clip in corpus.clips if clip.speaker})[:2]
    copies = tuple(
        replace(clip, speaker=f"not {clip.speaker}", name=f"{clip.name} again")
        for clip in corpus.clips
        if clip.speaker in (first, second)
    )
    doubled = replace(corpus, clips=corpus.clips + copies)
    config = replace(CONFIG, epochs=1)
    result = cross_validate(doubled, tmp_path / "folds", trainer(cache, config), 4)
    assert result.evaluation is not None
    figures = result.evaluation.figures
    assert (figures["protocol"], figures["overlap"]["clips"]) == (
        "speakers shared",
        2 * len(copies),
    )
    assert any(
        f"{2 * len(copies)} clips with the same audio as clips in another" in one
        for one in figures["warnings"]
    )
    assert read_training(tmp_path / "folds")["protocol"] == "speakers shared, 4 folds"


def test_one_recording_with_two_labels_is_told_before_it_is_learned(
    corpus: Corpus, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DatasetError("enough")

    monkeypatch.setattr(NeuralTrainer, "fit", refuse)
    monkeypatch.setattr(NeuralTrainer, "fit_fold", refuse)
    clips = {clip.name: clip for clip in corpus.clips}
    again = replace(clips["1001_IEO_ANG_LO"], name="again")
    other = replace(clips["1002_IEO_ANG_LO"], name="other", emotion="sadness")
    told = (
        "warning: 1 recording with several labels, such as "
        "1002_IEO_ANG_LO (anger) and other (sadness): correct the labels, or leave copies out"
    )
    for added, expected in (((again,), []), ((again, other), [told])):
        doubled = replace(corpus, clips=(*corpus.clips, *added))
        said: list[str] = []
        learner = replace(trainer(cache), say=said.append)
        with pytest.raises(DatasetError, match="enough"):
            train_on_splits(doubled, tmp_path / "a", learner)
        assert [line for line in said if "label" in line] == expected
        said.clear()
        with pytest.raises(DatasetError, match="enough"):
            cross_validate(doubled, tmp_path / "b", learner, 4)
        assert [line for line in said if "label" in line] == expected


@pytest.mark.parametrize("n_labels", [1, 2])
def test_one_label_is_nothing_to_learn(corpus: Corpus, n_labels: int) -> None:
    labels = sorted({clip.emotion for clip in corpus.clips})[:n_labels]
    few = corpus.keep(labels)
    if n_labels > 1:
        assert set(choose_training_labels(few)) == set(labels)
        return
    with pytest.raises(
        DatasetError, match=f"clips are labelled {labels[0]}; expected two or more labels"
    ):
        choose_training_labels(few)


def test_which_labels_are_learned() -> None:
    def corpus(name: str, *labels: str, namespace: str | None = None) -> Corpus:
        clips = (
            Clip(Path(f"{name}{n}.wav"), label, "a", f"{name}{n}", name, namespace=namespace)
            for n, label in enumerate(labels)
        )
        return Corpus(name, "", tuple(clips))

    published = corpus("emodb", "sadness", "boredom", "anger")
    own = corpus("calls", "satisfied", "anger", "frustrated", "neutral", namespace="table")
    assert choose_training_labels(published) == ("anger", "sadness")
    assert choose_training_labels(own) == ("anger", "neutral", "frustrated", "satisfied")
    both = ("anger", "neutral", "sadness", "frustrated", "satisfied")
    assert choose_training_labels(merge([published, own])) == both
    assert choose_training_labels(corpus("emodb", "boredom", "anger")) == ("anger", "boredom")
    assert choose_training_labels(own, ["Angry", "satisfied"]) == ("anger", "satisfied")
    assert choose_training_labels(published, ["boredom", "anger"]) == ("anger", "boredom")
    # What a label of a published corpus was mapped to is wanted; a folder is one's own by any name.
    mapped = corpus("emodb", "negative", "boredom", "happiness", "neutral")
    assert choose_training_labels(mapped) == ("happiness", "neutral", "negative")
    named = corpus("emodb", "sadness", "boredom", "anger", namespace="table")
    assert choose_training_labels(named) == ("anger", "sadness", "boredom")
    for wanted, found in (
        (["anger"], ", found only anger$"),
        (["anger", "joy"], " and no others, but it has no clips of happiness; name"),
        (["anger", "joy", "neutral"], " and no others, but it has no clips of happiness; name"),
    ):
        with pytest.raises(
            DatasetError, match=f"satisfied; expected two or more of them in --emotions{found}"
        ):
            choose_training_labels(own, wanted)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Unlabelled:
    return Unlabelled((EXAMPLES,), tmp_path_factory.mktemp("spoken"), jobs=1)


def test_a_teacher_of_other_labels_is_refused_before_speech_is_looked_for(
    corpus: Corpus, tmp_path: Path
) -> None:
    teacher = Teacher(load_model("svm"), {}, TrainingManifest(()))
    nowhere = Unlabelled((tmp_path / "nowhere",), tmp_path / "cache", jobs=1)
    learner = trainer(tmp_path / "cache", teacher=teacher, unlabelled=nowhere)
    few = ", ".join(sorted({clip.emotion for clip in corpus.clips}))
    message = f"the teacher svm has the labels anger, .*, sadness; expected {few}, those of the cl"
    with pytest.raises(ConfigError, match=message):
        train_on_splits(corpus, tmp_path / "model", learner, test=False)
    assert not (tmp_path / "cache").exists()


def test_nothing_unlabelled_is_held_out_or_scored(
    chosen: tuple[Training, Path],
    corpus: Corpus,
    cache: Path,
    spoken: Unlabelled,
    tmp_path: Path,
    spy: Spy,
) -> None:
    teacher = Teacher.load(chosen[1], "cpu")
    learner = trainer(cache, replace(CONFIG, epochs=1), teacher=teacher, unlabelled=spoken)
    n_segments = len(spoken.cached)
    fit_on: tuple[Split, ...] = ("train", "dev")
    result = train_on_splits(corpus, tmp_path / "all", learner, fit_on=fit_on, test=False)
    every = {"1001", "1002", "1003", "1049", "1053"}
    # All of it, in every fold; what calibrates, and is kept as held out, are labelled clips.
    assert spy.unlabelled == [n_segments] * 3
    assert set.union(*spy.scored) == every
    facts = read_training(tmp_path / "all")
    assert facts["clips"] == facts["held_out"]["whole"]["n_segments"] == 45
    assert facts["unlabelled"] == {
        "clips": n_segments,
        "seconds": pytest.approx(spoken.cached.duration, abs=1e-3),
        "prosodies": 0,
        "ratio": 1.0,
    }
    assert len(read_held_out(tmp_path / "all", result.classifier.spec.labels)) == 45
    known = TrainingManifest.read(tmp_path / "all")
    assert known is not None
    assert known.count_clips(spoken.cached.hashes) == n_segments
    assert known.count_clips([*spoken.found.recordings.values()]) == 3

    # By cross-validation, too: and whether they know the speakers of a fold is not known.
    teacher = Teacher(chosen[0].classifier, {}, TrainingManifest(()))
    learner = trainer(cache, replace(CONFIG, epochs=1), teacher=teacher, unlabelled=spoken)
    spy.unlabelled.clear()
    crossed = cross_validate(corpus, tmp_path / "folds", learner, 2).evaluation
    assert crossed is not None
    assert spy.unlabelled == [n_segments] * 5
    assert (crossed.figures["n_segments"], crossed.figures["failed"]) == (48, {})
    assert crossed.figures["protocol"] == "speakers unknown"
    assert any("unlabelled speech" in one for one in crossed.figures["warnings"])


@pytest.mark.parametrize(
    ("name", "fit_on", "is_scored"),
    [
        ("1048_IEO_ANG_LO", ("train",), True),
        ("1049_IEO_ANG_LO", ("train",), True),
        ("1049_IEO_ANG_LO", ("train", "dev"), True),  # by the network of another fold
        ("1001_IEO_ANG_LO", ("train", "dev"), True),
        ("1001_IEO_ANG_LO", ("train",), False),
    ],
)
def test_clips_that_are_scored_are_not_learned_from_unlabelled(
    chosen: tuple[Training, Path],
    corpus: Corpus,
    folder: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fit_on: tuple[Split, ...],
    is_scored: bool,
) -> None:
    audio = decode_clip(Clip(folder / f"{name}.wav", "anger")).audio_hash
    # As if somebody spoke in a copy of the clip, which is a hiss.
    segment = Clip(EXAMPLES / "memo.m4a", "unlabelled", end=1.0)
    found = FoundSpeech((segment,), {"copy.wav": audio}, {}, 1)
    monkeypatch.setattr("sercli.training.unlabelled.find_unlabelled", lambda *_, **__: found)
    learner = trainer(
        cache,
        replace(CONFIG, epochs=1),
        teacher=Teacher(chosen[0].classifier, {}, TrainingManifest(())),
        unlabelled=Unlabelled((Path("copy.wav"),), tmp_path, jobs=1),
    )
    message = rf"{name}\.wav: is to be scored, but is also in"
    with pytest.raises(ConfigError, match=message) if is_scored else nullcontext():
        train_on_splits(corpus, tmp_path / "model", learner, fit_on=fit_on, test=False)


def test_what_does_not_suffice_is_told(corpus: Corpus, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has none of 45 clips; expected names such as 1001_"):
        train_on_splits(corpus, tmp_path / "votes", trainer(cache, votes={"other": {"anger": 3}}))
    # Nothing is decoded before that: there is no such audio, and whoever listened would say so.
    gone = tuple(
        replace(clip, path=tmp_path / "gone.wav", name=f"calls/{clip.name}.wav")
        for clip in corpus.clips
    )
    message = r"such as 1001_IEO_ANG_HI, found \['other'\]$"
    with pytest.raises(DatasetError, match=message):
        train_on_splits(
            replace(corpus, clips=gone),
            tmp_path / "votes",
            trainer(cache, votes={"other": {"anger": 3}}),
        )
    alone = [clip for clip in corpus.select("train") if clip.speaker == "1001"]
    with pytest.raises(DatasetError, match=r"clips are of one speaker; expected 2 or more"):
        train_on_splits(replace(corpus, clips=tuple(alone)), tmp_path / "alone", trainer(cache))
    few = [clip for clip in corpus.select("train") if clip.speaker == "1001" or clip.emotion < "h"]
    with pytest.raises(DatasetError, match=r"no training clips of happiness, sadness are left"):
        train_on_splits(replace(corpus, clips=tuple(few)), tmp_path / "few", trainer(cache))
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        trainer(cache, replace(CONFIG, device="tpu"))


# The command line.


def ser(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the command line are small, too."""

    def fit_small(found: Any, course: Any, *given: Any, **told: Any) -> Learned:
        if isinstance(course, CnnCourse):
            log_mel = replace(course.settings.log_mel, n_mels=SMALL.log_mel.n_mels)
            course = replace(course, settings=replace(SMALL, log_mel=log_mel))
        return fit_model(found, course, *given, **told)

    monkeypatch.setattr("sercli.training.networks.trainer.fit_model", fit_small)


def test_device_of_an_svm_is_the_cpu(folder: Path) -> None:
    for command in ("annotate", "eval"):
        result = ser(command, folder, "--model", "svm", "--device", "cuda")
        assert result.exit_code == 2
        assert "device is 'cuda'; a model of the family svm runs on the CPU" in result.stderr
    assert load_model("svm", "cpu").family == "svm"


def test_options_that_would_do_nothing(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    for option in (
        ("--epochs", "3"),
        ("--batch-size", "8"),
        ("--learning-rate", "0.1"),
        ("--patience", "3"),
        ("--votes", "x.csv"),
        ("--teacher", "svm"),
        ("--unlabelled", "x"),
        ("--prosodies", "2"),
        ("--resume",),
        ("--device", "cpu"),
    ):
        result = ser("train", "--data", folder, "-o", model, *option)
        assert result.exit_code == 2
        assert f"{option[0]} goes with --model cnn or transformer" in result.stderr
    for family in ("svm", "cnn"):
        for option in (
            ("--base", "x"),
            ("--revision", "x"),
            ("--hearing-epochs", "2"),
            ("--layers", "1"),
            ("--lora", "2"),
        ):
            result = ser("train", "--data", folder, "-o", model, "--model", family, *option)
            assert result.exit_code == 2
            assert f"{option[0]} goes with --model transformer" in result.stderr
    base = ("--model", "transformer", "--base", folder, "--revision", "x")
    result = ser("train", "--data", folder, "-o", model, *base)
    assert result.exit_code == 2
    assert "--revision goes with a --base on the hub" in result.stderr
    adapter = ("train", "--data", folder, "-o", model, "--model", "adapter", "--members", "cnn")
    for option in (("--epochs", "3"), ("--learning-rate", "0.1"), ("--patience", "3")):
        result = ser(*adapter, *option)
        assert result.exit_code == 2
        assert f"{option[0]} goes with --model cnn or transformer." in result.stderr
    transformer = ("train", "--data", folder, "-o", model, "--model", "transformer")
    result = ser(*transformer, "--lora", "4")
    assert (result.exit_code, "--lora goes with --layers N" in result.stderr) == (2, True)
    result = ser(*transformer, "--hearing-epochs", "2")
    assert (result.exit_code, "--hearing-epochs goes with --calm" in result.stderr) == (2, True)
    fused = ("train", "--data", folder, "-o", model, "--model", "fusion", "--members", "svm,cnn")
    for option in (("--calm", "x"), ("--calm-speakers", "(x)")):
        result = ser(*fused, *option)
        assert result.exit_code == 2
        assert f"{option[0]} goes with --model svm or cnn or transformer" in result.stderr
    result = ser(*transformer, "--calm", "x", "--layers", "1")
    assert (result.exit_code, "--calm and --layers do not go" in result.stderr) == (2, True)
    cnn = ("train", "--data", folder, "-o", model, "--model", "cnn")
    for options, message in (
        (("--fit-on", "train+dev", "--patience", "2"), "--patience would do nothing"),
        (("--split", "random", "--patience", "2"), "--patience would do nothing"),
        (("--split", "random", "--no-adapter"), "--no-adapter would do nothing"),
        (("--no-adapter",), "--no-adapter would do nothing: with development clips, a network has"),
        (("--unlabelled", "x"), "--unlabelled goes with --teacher MODEL"),
        (("--prosodies", "2"), "--prosodies goes with --unlabelled PATH"),
        (("--calm-speakers", "(x)"), "--calm-speakers goes with --calm PATH"),
        (("--calm", "x"), "--calm goes with --model svm or transformer, or with --teacher MODEL"),
        (
            ("--calm", str(EXAMPLES), "--teacher", "cnn", "--cache", str(tmp_path)),
            "--calm would do nothing: with a cnn, only the teachers of folds are trained on calm",
        ),
        (
            ("--calm", str(EXAMPLES), "--teacher", "cnn", "--fit-on", "train+dev"),
            "--calm would do nothing: the teacher cnn was not trained with --calm",
        ),
        (("--resume",), "has no checkpoint to resume from; start without --resume"),
        (("--device", "tpu"), "device is 'tpu'; expected auto"),
        (("--epochs", "0"), "epochs is 0; expected 1 to 10000"),
    ):
        result = ser(*cnn, *options)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    result = ser("eval", "--compare", model, model, "--device", "cpu")
    assert result.exit_code == 2


CNN = ("--model", "cnn", "--jobs", "1", "--batch-size", "9", "--learning-rate", "0.02")


@pytest.mark.usefixtures("small")
def test_a_cnn_from_training_to_labels(folder: Path, cache: Path, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    names = [path.stem for path in sorted(folder.glob("*.wav"))]
    votes.write_text("\n".join(("clip,anger,fear", *(f"{name},1,3" for name in names[:30]))))
    learning = ("--epochs", "2", "--dynamic-range", "60", "--device", "cpu")
    options = (*learning, "--votes", votes, "--cache", cache)
    result = ser("train", "--data", folder, "-o", tmp_path / "none", *CNN, *options)
    assert result.exit_code == 2
    assert "the table of votes has none of the 18 calibration clips" in result.stderr
    assert "epoch" not in result.stderr  # nothing was learned before that
    votes.write_text("\n".join(("clip,anger,fear", *(f"{name},1,3" for name in names[::2]))))
    model = tmp_path / "mine"
    result = ser("train", "--data", folder, "-o", model, *CNN, *options)
    assert result.exit_code == 0, result.stderr
    n_bytes = sum(path.stat().st_size for path in cache.rglob("*.safetensors"))
    assert f"21 s of audio in {cache}, {n_bytes / 1e6:.0f} MB" in result.stderr
    assert "votes on 23 of 45 clips" in result.stderr
    assert "warning: votes for fear do not count: no clip has this label" in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert [line[:16] for line in lines] == ["epoch 1/2, loss ", "epoch 2/2, loss "]
    assert all("development UAR 0." in line for line in lines)
    training = read_training(model)
    uar = training["held_out"]["whole"]["uar"]
    assert f"UAR {uar:.3f} on the development speakers" in result.stderr
    assert training["votes"] is True
    card = (model / "README.md").read_text(encoding="utf-8")
    command = "ser train --data cremad:PATH --model cnn --split speaker --fit-on train --votes FILE"
    more = "--epochs 2 --batch-size 9 --learning-rate 0.02 --device cpu --seed 0 -o mine"
    assert f"`{command} --dynamic-range 60.0 {more}`" in card
    assert read_json(model / "model.json")["settings"]["log_mel"]["floor"] == 60.0
    assert str(tmp_path) not in card + (model / "model.json").read_text()
    assert not has_checkpoints(model)
    figures = read_json(model / "metrics.json")
    assert (figures["n_segments"], figures["protocol"]) == (3, "speakers apart")

    result = ser("eval", folder, "-m", model, "--json", "--jobs", "1", "--device", "cpu", "-q")
    assert json.loads(result.stdout)["uar"] == figures["uar"]
    target = tmp_path / "labels.jsonl"
    shape = ("--segment", "file", "--device", "cpu")
    speech = EXAMPLES / "statement.flac"
    result = ser("annotate", speech, "-m", model, *shape, "-o", target)
    assert result.exit_code == 0, result.stderr
    row = json.loads(target.read_text())
    probabilities = {name: row[f"prob_{name}"] for name in ("anger", "happiness", "sadness")}
    assert row["emotion"] == max(probabilities, key=lambda name: probabilities[name])
    assert read_json(tmp_path / "labels.jsonl.run.json")["options"]["device"] == "cpu"
    (found,) = sercli.annotate(speech, model, segments=SegmentConfig("file"), device="cpu")
    assert found.segments[0].confidence == pytest.approx(row["confidence"], abs=1e-6)
    with pytest.raises(ConfigError, match="expected none for a model that is already loaded"):
        next(sercli.annotate(folder, load_model(model, "cpu"), device="cpu"))
    result = ser("annotate", folder, "-m", model, "--device", "cuda:7")
    assert (result.exit_code, "device is 'cuda:7'; expected auto" in result.stderr) == (2, True)


def assert_rounded(model: Classifier) -> None:
    """What the encoder multiplies is what bfloat16 can hold."""
    state = model.network.encoder.model.state_dict()  # type: ignore[attr-defined]
    products = {n: w for n, w in state.items() if w.ndim > 1 and "positions" not in n}
    assert len(products) > 10
    assert all(weights.equal(weights.bfloat16().float()) for weights in products.values())


@pytest.mark.usefixtures("small")
def test_a_transformer_from_training_to_labels(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint("whisper", tmp_path / "tiny")
    model = tmp_path / "mine"
    shared = ("--model", "transformer", "--base", tmp_path / "tiny", "--jobs", "1", "--epochs", "3")
    options = (*shared, "--batch-size", "9", "--cache", cache, "--device", "cpu")
    result = ser("train", "--data", folder, "-o", model, *options)
    assert result.exit_code == 0, result.stderr
    assert "tiny encodes 7 versions of 27 clips" in result.stderr
    assert "tiny encodes 2 versions of 18 clips" in result.stderr
    training = read_training(model)
    assert (training["base"], training["best_epoch"] > 0) == ("tiny", True)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "The pre-trained encoder of tiny with a small head" in card
    assert "ser train --data cremad:PATH --model transformer --split speaker --fit-on train" in card
    assert "--base tiny --epochs 3 --batch-size 9 --device cpu --seed 0 -o mine`" in card
    description = read_json(model / "model.json")
    assert description["band_limit"] == description["settings"]["band_limit"] == 4000
    loaded = load_model(model, "cpu", precision="fp32")
    base = load_base(str(tmp_path / "tiny"))
    for name, tensor in base.weights.items():
        found = loaded.network.encoder.model.state_dict()[name]  # type: ignore[attr-defined]
        torch.testing.assert_close(found, tensor, atol=1e-3, rtol=1e-3)
    assert_rounded(loaded)
    # The rows that the head learned from are those that the model has of the same clips.
    clips = split_by_speaker(read_corpus(folder)).select("dev")
    waveforms = [load_clip(clip) for clip in clips]
    (path,) = (path for path in (cache / "rows").glob("*.npy") if np.load(path).shape[0] == 18)
    rows = np.load(path)[:, 0].astype(np.float32)
    np.testing.assert_allclose(loaded.extract_features(waveforms), rows, atol=0.05)
    result = ser("eval", folder, "-m", model, "--json", "--jobs", "1", "--device", "cpu", "-q")
    assert json.loads(result.stdout)["uar"] == read_json(model / "metrics.json")["uar"]

    # The same once more, from rows that are there; and by folds.
    before = sorted((cache / "rows").iterdir())
    assert ser("train", "--data", folder, "-o", tmp_path / "again", *options).exit_code == 0
    assert sorted((cache / "rows").iterdir()) == before
    name = "weights.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()
    more = ("--fit-on", "train+dev", "--no-test")
    result = ser("train", "--data", folder, "-o", tmp_path / "folds", *options, *more)
    assert result.exit_code == 0, result.stderr
    assert read_training(tmp_path / "folds")["calibration_on"] == "3 folds of speakers"

    result = ser("train", "--data", folder, "-o", tmp_path / "folds", *options, "--overwrite")
    assert "held_out.csv" not in os.listdir(tmp_path / "folds")
    result = ser(
        "train", "--data", folder, "-o", tmp_path / "folds", *options, *more, "--overwrite"
    )
    assert result.exit_code == 0, result.stderr

    # It teaches a CNN, but not one that is scored by whom it knows.
    learning = ("--model", "cnn", "--teacher", tmp_path / "folds", "--cache", cache, "--jobs", "1")
    pupil = ("train", "--data", folder, "-o", tmp_path / "pupil", *learning, "--epochs", "1")
    result = ser(*pupil)
    assert (result.exit_code, "the teacher folds was trained on 2 of" in result.stderr) == (2, True)
    taught: dict[str, tuple[Teacher | None, set[str]]] = {}
    teach = CnnCourse.teach

    def watch(self: CnnCourse, name: str, material: Material, *given: Any) -> Fitted:
        taught[name] = (self.teacher, set(material.cached.hashes))
        return teach(self, name, material, *given)

    monkeypatch.setattr(CnnCourse, "teach", watch)
    n_rows = len(os.listdir(cache / "rows"))
    result = ser(*pupil, *more)
    assert result.exit_code == 0, result.stderr
    card = (tmp_path / "pupil/README.md").read_text()
    assert "| teacher | folds; its probabilities make up 80% of each target |" in card
    assert "--teacher folds" in card
    assert "whose teacher, trained for this fold, was not either" in card
    # Who is scored by a fold is known neither to the pupil nor to its teacher; of all others, the
    # teacher says what it did not learn.
    assert len(os.listdir(cache / "rows")) == n_rows + 1  # of an encoder in half precision
    first_teacher, everything = taught.pop("all clips")
    assert len(taught) == 3
    for teacher, learned in taught.values():
        assert teacher is not None
        assert first_teacher is not None
        assert len(learned) < len(everything)
        assert set(teacher.held_out) == learned
        told = [teacher.held_out[audio] for audio in sorted(learned)]
        assert not np.allclose(told, [first_teacher.held_out[audio] for audio in sorted(learned)])

    # By low-rank matrices, of which nothing is left but in the weights of the linear maps.
    adapted = tmp_path / "adapted"
    lora = ("--layers", "1", "--lora", "2", "--tuning-epochs", "2", "--tuning-rate", "0.01")
    result = ser("train", "--data", folder, "-o", adapted, *options, *lora, "--no-test")
    assert result.exit_code == 0, result.stderr
    found = load_model(adapted, "cpu", precision="fp32").network.state_dict()  # type: ignore[attr-defined]
    adapted_parts = {
        ".".join(name.split(".")[2:])
        for name, tensor in loaded.network.state_dict().items()  # type: ignore[attr-defined]
        if name.startswith("encoder.model") and not tensor.equal(found[name])
    }
    parts = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")] + ["fc1", "fc2"]
    assert adapted_parts == {f"layers.1.{part}.weight" for part in parts}
    card = (adapted / "README.md").read_text()
    assert "upper 1 layers by low-rank matrices of rank 2, for up to 2 epochs with a peak" in card
    assert "learning rate of 0.01" in card
    assert "--layers 1 --tuning-epochs 2 --tuning-rate 0.01 --lora 2 --epochs 3" in card

    # What an encoder has learned is gone on with, but not to score whom it knows.
    further = tmp_path / "further"
    train_on = ("train", "--data", folder, "-o", further, *options, "--base", adapted)
    result = ser(*train_on, "--fit-on", "train+dev")
    assert result.exit_code == 2
    assert "the base was trained on 3 of the speakers to be scored, such as cre" in (result.stderr)
    result = ser(*train_on)
    assert result.exit_code == 0, result.stderr
    assert "adapted encodes 7 versions of 27 clips" in result.stderr
    name = "encoder.safetensors"
    assert (further / name).read_bytes() == (adapted / name).read_bytes()
    assert (further / name).read_bytes() != (model / name).read_bytes()
    assert read_training(further)["base"] == "adapted"
    assert "--base adapted --epochs 3" in (further / "README.md").read_text()

    # Only the upper layer learns, and the head; what is below stays.
    tuned = tmp_path / "tuned"
    result = ser("train", "--data", folder, "-o", tuned, *options, "--layers", "1", "--no-test")
    assert result.exit_code == 0, result.stderr
    found = load_model(tuned, "cpu", precision="fp32").network.state_dict()  # type: ignore[attr-defined]
    moved = {
        name.split(".")[2:4] == ["layers", "1"]
        for name, tensor in loaded.network.state_dict().items()  # type: ignore[attr-defined]
        if name.startswith("encoder.model") and not tensor.equal(found[name])
    }
    assert moved == {True}
    assert_rounded(load_model(tuned, "cpu", precision="fp32"))
    assert not has_checkpoints(tuned)
    histories = [(tuned / name).read_text() for name in ("history.csv", "encoder-history.csv")]
    assert [len(history.splitlines()) for history in histories] == [1 + 3, 1 + 4]
    assert (tuned / "encoder-curves.png").exists()
    card = (tuned / "README.md").read_text()
    assert "the head, then the head and the upper 1 layers, for up to 4 epochs with" in card
    assert "the best of up to 3 |" in (tuned / "README.md").read_text()
    result = ser("train", "--data", folder, "-o", tuned, *options, "--layers", "3", "--overwrite")
    assert "layers is 3; expected at most 2, the number of layers" in result.stderr
    assert "versions" not in result.stderr  # nothing was heard before that


@pytest.mark.usefixtures("small")
def test_a_training_killed_at_its_end_goes_on_and_leaves_nothing_of_others(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "mine"
    options = (*CNN, "--epochs", "1", "--device", "cpu", "--cache", cache)
    command = ("train", "--data", folder, "-o", model, *options)
    assert ser(*command).exit_code == 0
    whole, weights = sorted(os.listdir(model)), (model / "weights.safetensors").read_bytes()
    (model / "held_out.csv").write_text("of another model")
    left = [model / f".{name}.0123abcd.tmp" for name in ("weights.safetensors", "report.html")]
    mine = model / ".mine.0123abcd.tmp"
    for path in (*left, mine):
        path.touch()
    replace_file = os.replace

    def die_after(source: Path, target: Path) -> None:
        replace_file(source, target)
        if target.name == "model.json":
            raise Killed

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("sercli.files.os.replace", die_after)
        with pytest.raises(Killed):
            ser(*command, "--overwrite")
    # Nothing tells of the model that was here.
    names = {path.name for path in model.iterdir() if not path.name.startswith(".")}
    assert names == {"manifest.csv", "model.json", "training", "weights.safetensors"}
    with monkeypatch.context() as patch:
        patch.setattr("sercli.reporting.folder.write_json", die)
        with pytest.raises(Killed):
            ser(*command, "--resume")
    assert not (model / "metrics.json").exists()
    result = ser(*command, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "epoch" not in result.stderr  # all were done
    assert sorted(os.listdir(model)) == sorted([*whole, mine.name])
    assert (model / "weights.safetensors").read_bytes() == weights


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_learned(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "mine"
    model.mkdir()
    command = ("train", "--data", folder, "-o", model, *CNN, "--cache", cache, "--device", "cpu")
    with monkeypatch.context() as patch:  # whoever runs the tests may write anything
        patch.setattr("sercli.training.plan.os.access", lambda *given: given != (model, os.W_OK))
        result = ser(*command)
    assert (result.exit_code, "of audio in" in result.stderr) == (2, False)
    assert f"{model}: is read-only, but the model is written there; allow" in result.stderr
    (model / "training").touch()
    batches: Any = ()
    with pytest.raises(OutputError, match=r"mine/training: the folder cannot be created: File ex"):
        loop.fit_network(torch.nn.Linear(1, 1), batches, CONFIG, model / "training")


@pytest.mark.parametrize("name", ["predictions.csv", "curves.png", "encoder-history.csv"])
def test_a_file_that_is_open_elsewhere_is_told_before_anything_is_learned(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = tmp_path / "mine"
    model.mkdir()
    table = model / name
    table.touch()
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:  # as Windows does
        if source == table:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    command = ("--data", folder, "-o", model, *CNN, "--cache", cache, "--device", "cpu")
    result = ser("train", *command, "--overwrite")
    assert (result.exit_code, "of audio in" in result.stderr) == (2, False)
    assert f"{table}: cannot be replaced: Permission denied; close the program" in result.stderr
    assert table.exists()


@pytest.mark.parametrize("name", ["README.md", "weights.safetensors", "curves.png"])
def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_learned(
    folder: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    model = tmp_path / "mine"
    (model / name).mkdir(parents=True)
    command = ("--data", folder, "-o", model, *CNN, "--cache", cache, "--device", "cpu")
    result = ser("train", *command, "--overwrite")
    assert (result.exit_code, "of audio in" in result.stderr) == (2, False)
    assert f"{model / name}: is a directory; expected a file name" in result.stderr


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_an_interrupt_tells_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    model = tmp_path / "mine"
    (model / "training").mkdir(parents=True)
    (model / "training" / "checkpoint.safetensors").touch()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sercli.training.plan.Plan.run", interrupt)
    result = ser("train", "--data", folder, "-o", model, *CNN, option)
    told = " instead of --overwrite" if option == "--overwrite" else ""
    assert result.exit_code == 130
    assert f"continue with the same command and --resume{told}\n" in result.stderr


def test_a_folder_in_which_another_training_is_at_work_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fcntl", reason="Windows does not lock folders")
    model = tmp_path / "mine"
    command = ("train", "--data", folder, "-o", model, *CNN)
    (model / "training").mkdir(parents=True)
    (model / "training" / "checkpoint.safetensors").touch()
    with keep_out(model):
        for option in ((), ("--overwrite",), ("--resume",)):
            result = ser(*command, *option)
            assert result.exit_code == 2
            assert f"{model}: another training is writing it; wait until it ends" in result.stderr
    assert has_checkpoints(model)
    assert "holds an interrupted training" in ser(*command).stderr


def test_a_folder_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl", reason="Windows does not lock folders")

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sercli.system.locking.os.open", refuse)
    told = f"{tmp_path}: cannot be read: Permission denied; allow reading, or name another folder"
    with pytest.raises(OutputError, match=f"^{re.escape(told)}$"), keep_out(tmp_path):
        pytest.fail("a folder that is not locked")


@pytest.mark.usefixtures("small")
def test_learning_from_what_nobody_labelled(
    chosen: tuple[Training, Path], folder: Path, spoken: Unlabelled, tmp_path: Path
) -> None:
    save_checkpoint("whisper", tmp_path / "tiny")
    votes, model, broken = tmp_path / "votes.csv", tmp_path / "mine", tmp_path / "broken.wav"
    names = [path.stem for path in sorted(folder.glob("*.wav"))]
    votes.write_text("\n".join(("clip,anger,happiness", *(f"{name},1,3" for name in names))))
    broken.write_text("no audio")
    base = (
        "--model",
        "transformer",
        "--base",
        tmp_path / "tiny",
        "--epochs",
        "2",
        "--votes",
        votes,
    )
    tuning = ("--layers", "1", "--tuning-epochs", "1")
    speech = ("--unlabelled", EXAMPLES, "--unlabelled", broken, "--prosodies", "1")
    teaching = ("--teacher", chosen[1], *speech)
    shared = ("--jobs", "1", "--cache", tmp_path / "cache", "--device", "cpu")
    options = (*base, *tuning, *teaching, *shared)
    result = ser("train", "--data", folder, "-o", model, *options)
    assert result.exit_code == 1, result.stderr
    n_segments = len(spoken.cached)
    for line in (
        f"{spoken.describe().replace('of 4', 'of 5')}; 1 failed",
        f"making 1 version of {n_segments} unlabelled segments with other pitch, tempo and voice "
        "quality",
        f"chosen classifies {2 * n_segments} unlabelled segments",
        "tiny encodes 7 versions of 27 clips",
        f"tiny encodes 7 versions of {2 * n_segments} clips",
        "warning: The model was also trained on unlabelled speech of unknown speakers: these "
        "speakers may be among them.",
        f"failed: {broken}: libsndfile does not know the format; FFmpeg cannot open it "
        "(Invalid data found when processing input); expected an audio or video file",
    ):
        assert line in result.stderr.splitlines(), result.stderr
    training = read_training(model)
    assert training["config"]["prosodies"] == training["unlabelled"]["prosodies"] == 1
    assert (training["unlabelled"]["clips"], training["unlabelled"]["ratio"]) == (n_segments, 2)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert (
        f"| unlabelled speech | {n_segments} segments, {spoken.cached.duration:.1f} s, and 1 "
        "version of each with other pitch, tempo and voice quality, with the teacher's "
        "probabilities as targets; drawn 2 times as often as the clips of one label |"
    ) in card
    command = "--votes FILE --teacher chosen --unlabelled PATH --unlabelled PATH --base tiny"
    assert command in card
    assert "--tuning-epochs 1 --prosodies 1 --epochs 2" in card
    assert str(EXAMPLES) not in card + (model / "model.json").read_text()
    assert str(EXAMPLES) not in (model / "manifest.csv").read_text()
    figures = read_json(model / "metrics.json")
    assert (figures["protocol"], figures["failed"]) == ("speakers unknown", {})

    # A model is measured on what it learned from: a recording, or a segment, that has a label now.
    first = spoken.found.clips[0]
    table = tmp_path / "calls.csv"
    rows = (f"{first.path},anger,{first.start},{first.end}", f"{EXAMPLES / 'memo.m4a'},sadness,,")
    table.write_text("\n".join(("file,emotion,start,end", *rows)))
    result = ser("eval", table, "-m", model, "--json", "--jobs", "1", "--device", "cpu", "-q")
    figures = json.loads(result.stdout)
    assert figures["overlap"] == {"speakers": [], "clips": 2}
    assert figures["protocol"] == "speakers shared"


@pytest.mark.usefixtures("small")
def test_learning_clips_as_strangers_might_say_them(
    folder: Path, spoken: Unlabelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint("whisper", tmp_path / "tiny")
    # The corpus has nothing neutral.
    names = [path.stem for path in sorted(folder.glob("*.wav"))]
    clips = [clip for clip in read_corpus(folder).clips if clip.speaker != "1048"]
    emotions = {"sadness": "neutral"}
    table = tmp_path / "clips.csv"
    lines = [
        f"{clip.path},{emotions.get(clip.emotion, clip.emotion)},{clip.speaker}" for clip in clips
    ]
    table.write_text("\n".join(("file,emotion,speaker", *lines)))
    assert len(lines) < len(names)
    # Of the segments of examples/, each is said by another stranger.
    segments = spoken.found.clips
    who = tmp_path / "who.csv"
    turns = [f"{clip.path},s{i},{clip.start},{clip.end}" for i, clip in enumerate(segments)]
    who.write_text("\n".join(("file,speaker,start,end", *turns)))
    met: list[tuple[int, int]] = []
    teach, score = TransformerCourse.teach, TransformerCourse.score
    taught: list[Material] = []

    def watch(self: TransformerCourse, name: str, material: Material, *given: Any) -> Fitted:
        taught.append(material)
        return teach(self, name, material, *given)

    def see_score(
        self: TransformerCourse, network: Any, material: Material, given: Material
    ) -> Any:
        learned = taught[-1].strangers
        if learned is None or material.strangers is None:
            return score(self, network, material, given)
        assert not set(map(tuple, learned)) & set(map(tuple, material.strangers))
        met.append((len(learned), len(material.strangers)))
        scores = score(self, network, material, given)
        assert scores.shape[:2] == (3, len(material))
        # A stranger's calm clip is another row than the speaker's own.
        assert not np.allclose(scores[0], scores[2])
        return scores

    monkeypatch.setattr(TransformerCourse, "teach", watch)
    monkeypatch.setattr(TransformerCourse, "score", see_score)
    base = ("--model", "transformer", "--base", tmp_path / "tiny", "--epochs", "2")
    shared = ("--jobs", "1", "--cache", tmp_path / "cache", "--device", "cpu", "--no-test")
    options = ("train", "--data", table, *base, *shared)
    calm = ("--calm", EXAMPLES)
    everything = ("--fit-on", "train+dev")
    result = ser(*options, *calm, *everything, "-o", tmp_path / "few")
    assert result.exit_code == 2
    assert "calm speech: found 3 recordings (or speakers, where they are known); expected 6" in (
        result.stderr
    )
    assert "encodes" not in result.stderr  # it is known before anything is computed
    excited = ("--emotions", "anger,happiness", "-o", tmp_path / "few")
    result = ser(*options, *calm, *everything, *excited)
    assert "expected neutral among them" in result.stderr
    assert "of audio in" not in result.stderr
    known = (*calm, "--calm-speakers", who)
    model = tmp_path / "mine"
    result = ser(*options, *known, *everything, "-o", model)
    assert result.exit_code == 0, result.stderr
    n = len(segments)
    assert f"calm: {n} segments, {spoken.cached.duration:.1f} s of speech" in result.stderr
    parts = [len(range(number, n, 3)) for number in range(3)]
    assert met == [(n - part, part) for part in parts]
    assert taught[-1].strangers is not None
    assert len(taught[-1].strangers) == n
    training = read_training(model)
    assert training["calm"] == {
        "clips": n,
        "recordings": 3,
        "seconds": pytest.approx(spoken.cached.duration, abs=1e-3),
    }
    assert list(training["held_out"]) == ["whole", "varied", "transposed"]
    assert training["held_out"]["transposed"]["n_segments"] == training["clips"]
    card = (model / "README.md").read_text(encoding="utf-8")
    assert f"| calm speech | {n} unlabelled segments of 3 recordings, " in card
    assert ": 50% of the training examples are clips transposed to these voices" in card
    assert "--calm PATH --calm-speakers FILE --base tiny" in card
    # Whoever speaks there is known, and is nobody of these.
    manifest = TrainingManifest.read(model)
    assert manifest is not None
    assert manifest.explain_unknown() is None
    assert manifest.count_clips(spoken.cached.hashes) == n
    other = tmp_path / "other.csv"
    rest = [clip for clip in read_corpus(folder).clips if clip.speaker == "1048"]
    others = [f"{clip.path},anger,{clip.speaker}" for clip in rest]
    other.write_text("\n".join(("file,emotion,speaker", *others)))
    measure = ("eval", other, "-m", model, "--json", "--jobs", "1", "--device", "cpu", "-q")
    assert json.loads(ser(*measure).stdout)["protocol"] == "speakers apart"

    # With development clips, a fifth of the strangers is theirs.
    met.clear()
    result = ser(*options, *known, "-o", tmp_path / "chosen")
    assert result.exit_code == 0, result.stderr
    assert met == [(n - len(range(0, n, 5)), len(range(0, n, 5)))]
    # It learned something else than without them.
    assert ser(*options, "-o", tmp_path / "without").exit_code == 0
    weights = "weights.safetensors"
    assert (tmp_path / "chosen" / weights).read_bytes() != (
        tmp_path / "without" / weights
    ).read_bytes()

    # The encoder may learn by them first to hear through noise; its teachers of folds then have.
    robust = (*options, *known, *everything, "--hearing-epochs", "1", "--no-adapter")
    result = ser(*robust, "-o", tmp_path / "robust")
    assert result.exit_code == 0, result.stderr
    encoder = "encoder.safetensors"
    learned = load_file(tmp_path / "robust" / encoder)
    before = load_file(model / encoder)
    assert learned.keys() == before.keys()
    assert max(float((learned[name] - before[name]).abs().max()) for name in learned) > 1e-4
    assert read_training(tmp_path / "robust")["config"]["hearing_epochs"] == 1
    card = (tmp_path / "robust" / "README.md").read_text(encoding="utf-8")
    assert "--base tiny --hearing-epochs 1" in card
    assert "the same output for calm speech with random rooms, noise and lines" in card
    assert "as for the clean speech: 1 epoch with a peak learning rate of " in card
    substitute = find_substitute(
        Teacher.load(tmp_path / "robust", "cpu"), CONFIG, None, spoken, rows=tmp_path
    )
    assert isinstance(substitute, TransformerCourse)
    assert substitute.config.hearing_epochs == 0
    assert all(
        torch.equal(one, substitute.base.weights[name.removeprefix("encoder.model.")])
        for name, one in load_file(tmp_path / "robust" / encoder).items()
        if name.startswith("encoder.model.")
    )

    # An SVM learns so, too.
    machine = ("train", "--data", table, "--model", "svm", *everything, "--no-test", "--jobs", "1")
    result = ser(*machine, *known, "--cache", tmp_path / "cache", "-o", tmp_path / "svm")
    assert result.exit_code == 0, result.stderr
    training = read_json(tmp_path / "svm" / "model.json")["training"]
    assert training["calm"]["clips"] == n
    assert list(training["held_out"]) == ["whole", "varied", "transposed"]
    card = (tmp_path / "svm" / "README.md").read_text(encoding="utf-8")
    assert f"| calm speech | {n} unlabelled segments of 3 recordings, " in card
    assert "2 augmented with another voice, room, microphone or noise, and 1 transposed to" in card
    assert "--fit-on train+dev --calm PATH --calm-speakers FILE --seed 0 -o svm`" in card
    manifest = TrainingManifest.read(tmp_path / "svm")
    assert manifest is not None
    assert manifest.count_clips(spoken.cached.hashes) == n

    # A teacher like it needs them, too.
    teacher = Teacher.load(model, "cpu")
    assert find_substitute(teacher, CONFIG, None, rows=tmp_path) is None
    substitute = find_substitute(teacher, CONFIG, None, spoken, rows=tmp_path)
    assert substitute is not None
    assert substitute.calm is spoken
    plain = Teacher.load(tmp_path / "without", "cpu")
    substitute = find_substitute(plain, CONFIG, None, spoken, rows=tmp_path)
    assert substitute is not None
    assert substitute.calm is None
    # So does a pupil whose folds are scored: their teachers meet strangers, too.
    pupil = ("train", "--data", table, "--model", "cnn", "--teacher", model, "--epochs", "1")
    taught.clear()
    result = ser(*pupil, *shared, *everything, "-o", tmp_path / "alone")
    assert (
        "warning: the networks of the folds learn from mine, which was trained on" in result.stderr
    )
    assert not taught
    more = (*known, "--unlabelled", EXAMPLES, "--prosodies", "0")
    result = ser(*pupil, *more, *shared, *everything, "-o", tmp_path / "pupil")
    assert result.exit_code == 0, result.stderr
    assert "teacher, trained for this fold" in (tmp_path / "pupil" / "README.md").read_text()
    assert taught
    assert all(material.strangers is not None for material in taught)
    # It knows by its teacher what that learned from.
    knows = TrainingManifest.read(tmp_path / "pupil")
    assert knows is not None
    assert set(teacher.manifest.rows) <= set(knows.rows)
    assert knows.count_clips(spoken.cached.hashes) == n
    assert knows.explain_unknown() is None


def test_teachers_that_cannot_be_trained_anew_for_each_fold_are_told(
    chosen: tuple[Training, Path], corpus: Corpus, cache: Path
) -> None:
    teacher = Teacher.load(chosen[1], "cpu")
    assert find_substitute(teacher, CONFIG, None, rows=cache) is None
    said: list[str] = []
    learner = replace(trainer(cache, teacher=teacher), say=said.append)
    learner.prepare([corpus.select("train"), corpus.select("dev")])
    assert not any("networks of the folds learn" in line for line in said)
    learner.prepare([corpus.select("train")])
    assert any(
        "the networks of the folds learn from chosen, which was trained on" in one for one in said
    )


@pytest.mark.usefixtures("small")
def test_threads_matter_where_teachers_of_folds_are_made_anew(
    corpus: Corpus, cache: Path, tmp_path: Path
) -> None:
    cached = cache_clips(corpus.select("train"), cache, jobs=1)
    labels = tuple(sorted({clip.emotion for clip in cached.clips}))
    alone = CnnCourse(replace(CONFIG, epochs=1, guide_weight=0.0), labels, resume=True)
    taught = replace(alone, substitute=alone)

    def teach(course: CnnCourse, name: str, n_threads: int) -> Fitted:
        with limit_threads(n_threads):
            return course.teach(name, course.gather(cached, lambda _: None), tmp_path / name)

    teach(taught, "taught", 2)
    with pytest.raises(ConfigError, match=r"other settings or data: threads is 1, expected 2;"):
        teach(taught, "taught", 1)
    assert [len(teach(alone, "alone", number).records) for number in (2, 1)] == [1, 1]


@pytest.mark.usefixtures("small")
def test_a_training_goes_on_with_the_same_speakers_and_labels(
    corpus: Corpus, cache: Path, tmp_path: Path
) -> None:
    learned, scored = (
        cache_clips(corpus.select(split), cache, jobs=1) for split in ("train", "dev")
    )
    labels = tuple(sorted({clip.emotion for clip in learned.clips}))
    course = CnnCourse(replace(CONFIG, epochs=1, guide_weight=0.0), labels, resume=True)

    def teach(learned: CachedClips, scored: CachedClips) -> Fitted:
        both = [course.prepare(one, lambda _: None) for one in (learned, scored)]
        return course.teach("one", both[0], tmp_path / "one", both[1])

    def change(cached: CachedClips, **facts: Any) -> CachedClips:
        return replace(cached, clips=(replace(cached.clips[0], **facts), *cached.clips[1:]))

    first = teach(learned, scored)
    assert len(teach(learned, scored).records) == len(first.records) == 1
    other = next(label for label in labels if label != scored.clips[0].emotion)
    with pytest.raises(ConfigError, match="other settings or data: development labels is "):
        teach(learned, change(scored, emotion=other))
    with pytest.raises(ConfigError, match="data: names, speakers and labels is "):
        teach(change(learned, speaker="somebody else"), scored)


def test_the_same_samples_at_another_rate_are_other_audio(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [0.1 * rng.standard_normal(9_000) for _ in range(4)]
    clips = [
        Clip(tmp_path / f"{i}.wav", ("anger", "fear")[i % 2], f"s{i}", str(i)) for i in range(4)
    ]

    def record(rate: int) -> CachedClips:
        for clip, sound in zip(clips, samples, strict=True):
            sf.write(clip.path, sound, rate)
        return cache_clips(clips, tmp_path / "cache", jobs=1)

    slow, fast = record(8_000), record(16_000)
    assert slow.hashes == fast.hashes
    assert slow.lengths == (18_000,) * 4
    labels = ("anger", "fear")
    # What an encoder made of the one is not what it makes of the other.
    save_checkpoint("whisper", tmp_path / "tiny")
    config = TransformerConfig(versions=1, device="cpu", jobs=1)
    rows: dict[str, list[Any]] = {"shared": [], "own": []}
    for cached in (slow, fast):
        for name in rows:
            place = tmp_path / (name if name == "shared" else f"{name}{len(rows[name])}")
            base = load_base(str(tmp_path / "tiny"))
            course = TransformerCourse(config, labels, base=base, rows=place)
            rows[name].append(np.array(course.prepare(cached, lambda _: None).rows))
    np.testing.assert_array_equal(rows["shared"], rows["own"])
    own_slow, own_fast = rows["own"]
    assert not np.allclose(own_slow, own_fast, atol=0.01)
    # A training of the one does not go on with the other, neither to learn nor to choose by.
    alone = replace(CONFIG, epochs=1, guide_weight=0.0)

    def teach(cached: CachedClips, dev: CachedClips) -> Fitted:
        course = CnnCourse(alone, labels, settings=SMALL, resume=True)
        return course.teach("network", Material(cached), tmp_path / "network", Material(dev))

    teach(slow, slow)
    assert len(teach(slow, slow).records) == 1
    for cached, dev, other in ((fast, slow, "clips"), (slow, fast, "development clips")):
        with pytest.raises(ConfigError, match=rf"other settings or data: {other} is '\w+', expec"):
            teach(cached, dev)


def test_loss_of_what_is_perceived(cache: Path) -> None:
    config = replace(CONFIG, perceived_weight=0.5)
    course = CnnCourse(config, ("anger", "sadness"), {"a": {"anger": 1, "sadness": 3}})
    assert (course.tells_perceived, course.n_scores) == (True, 4)
    assert CnnCourse(config, ("anger", "sadness")).n_scores == 2
    outputs = torch.log(torch.tensor([[0.2, 0.8, 0.6, 0.4], [0.5, 0.5, 0.9, 0.1]]))
    # The second clip has no votes.
    targets = torch.tensor([[1.0, 0.0, 0.25, 0.75], [0.5, 0.5, 0.0, 0.0]])
    intended = -(np.log(0.2) + np.log(0.5)) / 2
    perceived = -(0.25 * np.log(0.6) + 0.75 * np.log(0.4)) / 2
    found = course.find_loss(outputs, targets).item()
    assert found == pytest.approx(intended + 0.5 * perceived)


@pytest.mark.usefixtures("small")
def test_a_transformer_tells_what_is_perceived(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same with any hardware: what so small a network learns hangs on little.
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    save_checkpoint("whisper", tmp_path / "tiny")
    votes, model = tmp_path / "votes.csv", tmp_path / "mine"
    names = [path.stem for path in sorted(folder.glob("*.wav"))]
    votes.write_text("\n".join(("clip,anger,happiness", *(f"{name},1,3" for name in names[:-4]))))
    options = ("--base", tmp_path / "tiny", "--jobs", "1", "--epochs", "3", "--cache", cache)
    shared = ("--data", folder, "--model", "transformer", *options, "--device", "cpu")
    result = ser("train", "-o", model, *shared, "--votes", votes, "--no-test")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir(model)) == sorted([*KEPT, "encoder.safetensors"])
    loaded = load_model(model, "cpu")
    assert loaded.spec.n_scores == 6
    clips = read_corpus(folder).clips
    waveforms = [load_clip(clip) for clip in clips]
    perceived = loaded.predict_proba(waveforms, "perceived")
    # Every clip is heard alike, whatever is meant by it.
    np.testing.assert_allclose(perceived.mean(axis=0), [0.25, 0.75, 0.0], atol=0.06)
    assert abs(loaded.predict_proba(waveforms).mean(axis=0) - 1 / 3).max() < 0.1
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "--target perceived" in card

    chosen = ("-m", model, "--device", "cpu", "-q", "--target", "perceived")
    result = ser("eval", folder, *chosen, "--votes", votes, "--jobs", "1", "--json")
    figures = json.loads(result.stdout)
    assert figures["target"] == "perceived"
    assert any("that listeners perceive" in warning for warning in figures["warnings"])
    assert not any("--votes" in warning for warning in figures["warnings"])
    assert figures["listeners"]["model"]["cross_entropy"] < 0.7
    # Whatever is meant by them; and labels are those of segments that are no speech, too.
    segments = tmp_path / "segments.csv"
    rows = "\n".join(f"{folder / name}.wav,0,10" for name in names)
    segments.write_text(f"file,start,end\n{rows}\n")
    result = ser("annotate", folder, *chosen, "--segments", segments, "--format", "jsonl")
    told = [json.loads(line)["emotion"] for line in result.stdout.splitlines()]
    assert told == ["happiness"] * len(names)

    # Without votes there is no such output, and the encoder's file is the same.
    other = tmp_path / "other"
    assert ser("train", "-o", other, *shared, "--no-test").exit_code == 0
    name = "encoder.safetensors"
    assert (other / name).read_bytes() == (model / name).read_bytes()
    result = ser("annotate", EXAMPLES / "statement.flac", "-m", other, "--target", "perceived")
    assert result.exit_code == 2
    assert "transformer model predicts only the intended emotion" in result.stderr
    (other / name).write_bytes((other / name).read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"encoder\.safetensors is altered or damaged"):
        load_model(other)


@pytest.mark.usefixtures("small")
def test_an_interrupted_training_goes_on_to_the_same_bits(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_epoch = loop._run_epoch
    places: list[int] = []
    stop_at = 3

    def count(run: Any, *given: Any) -> float:
        places.append(run.epoch)
        if len(places) > stop_at:
            raise KeyboardInterrupt
        return run_epoch(run, *given)

    monkeypatch.setattr(loop, "_run_epoch", count)

    def run(name: str, *more: str) -> Result:
        options = ("--epochs", "2", "--fit-on", "train+dev", "--no-test", "--cache", cache)
        return ser("train", "--data", folder, "-o", tmp_path / name, *CNN, *options, *more)

    result = run("model")
    assert result.exit_code == 130
    assert "interrupted; continue with the same command and --resume" in result.stderr
    assert has_checkpoints(tmp_path / "model")
    # An epoch into the second fold, which must not be lost by starting anew or with other settings.
    again = run("model")
    assert again.exit_code == 2
    assert "holds an interrupted training; continue it with --resume" in again.stderr
    other = run("model", "--resume", "--seed", "1")
    assert other.exit_code == 2
    assert "is from a training with other settings or data: seed is 1, expected 0;" in other.stderr

    places.clear()
    stop_at = 99
    result = run("model", "--resume")
    assert result.exit_code == 0, result.stderr
    assert places == [1, 0, 1, 0, 1]  # of the second fold, of the third, of all clips
    assert "UAR" in result.stderr
    assert "on 3 folds of speakers" in result.stderr
    assert sorted(os.listdir(tmp_path / "model")) == KEPT_OF_FOLDS
    assert run("whole").exit_code == 0
    weights = [tmp_path / name / "weights.safetensors" for name in ("model", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    found, expected = (read_json(tmp_path / name / "model.json") for name in ("model", "whole"))
    assert found["calibration"] == expected["calibration"]
    assert read_training(tmp_path / "model") == read_training(tmp_path / "whole")


@pytest.mark.usefixtures("small")
def test_starting_again_leaves_nothing_of_before(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    place = model / "training" / "fold2"
    place.mkdir(parents=True)
    (place / "checkpoint.safetensors").write_bytes(b"of another training")
    (place / ".checkpoint.safetensors.x1.tmp").write_bytes(b"half of one")
    (model / "training" / "notes.txt").write_text("mine")
    (model / "training" / "my-history.csv").write_text("mine")
    (model / "training" / "empty").mkdir()
    options = ("--epochs", "1", "--no-test", "--cache", cache, "--overwrite", "-q")
    result = ser("train", "--data", folder, "-o", model, *CNN, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(os.listdir(model)) == sorted([*KEPT, "training"])
    assert sorted(os.listdir(model / "training")) == ["empty", "my-history.csv", "notes.txt"]
    # A model of another family has no history.
    result = ser("train", "--data", folder, "-o", model, *options[2:])
    assert (result.exit_code, result.stderr) == (0, "")
    assert {"curves.png", "history.csv"}.isdisjoint(os.listdir(model))


def test_the_checkpoint_of_the_first_network_is_removed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["outer2", "fold1/encoder", "", "outer1", "fold1"]
    for second, name in enumerate(names):
        path = tmp_path / "training" / name / "checkpoint.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (second, second))
    removed: list[str] = []
    unlink = Path.unlink

    def note(path: Path) -> None:
        removed.append(path.parent.relative_to(tmp_path / "training").as_posix())
        unlink(path)

    monkeypatch.setattr(Path, "unlink", note)
    clear_training(tmp_path)
    assert removed == ["outer2", "fold1/encoder", ".", "outer1", "fold1"]
    assert not (tmp_path / "training").exists()


def test_what_is_told_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    for module in ("console", "view"):
        monkeypatch.setattr(f"sercli.cli.{module}.monotonic", lambda: now)
    said: list[str] = []
    progress = Progress("clips", 3)
    monkeypatch.setattr(progress, "say", said.append)
    view = TrainingView(progress, 2)

    def report(epoch: int, step: int, uar: float | None, *, ends: bool = False) -> None:
        view.report(TrainingProgress(epoch, 4, step, 5, 1.25, uar, uar, ends))

    now = 60.0
    view.begin("the encoder", apart=True)  # its time is its own, and it is not one of the two
    report(1, 5, None)
    now = 80.0
    report(2, 5, None, ends=True)
    assert said == ["the encoder: epoch 2/4, loss 1.250, 40.0 s left"]
    said.clear()
    now = 100.0
    view.begin("fold 1 of 1")  # which is finished: nothing more is heard of it
    view.begin("all clips")
    report(3, 1, 0.4)  # goes on where it was interrupted
    now = 130.0
    report(3, 5, 0.4)
    report(3, 5, 0.5, ends=True)
    assert said == [
        "all clips: epoch 3/4, loss 1.250, development UAR 0.500 (best 0.500), 37.5 s left"
    ]
    report(4, 5, None, ends=True)
    assert said[1:] == ["all clips: epoch 4/4, loss 1.250"]
    view.search(2, 9)
    view.search(3, 9)  # too soon after that
    now = 161.0
    view.extract(4, 8)
    assert said[2:] == ["2/9 recordings searched", "4/8 clips with features"]
