"""Tests of trainings as one call: what is refused, who is learned from, how much is trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sercli
from sercli.datasets import Clip, Corpus
from sercli.errors import ConfigError, DatasetError, ModelError, OutputError
from sercli.registry.description import WEIGHTS_FILES
from sercli.training.plan import Plan
from sercli.training.train_config import Settings, TrainConfig, find_families


@pytest.fixture
def corpus() -> Corpus:
    """Ten speakers of two emotions, none of whom has a split."""
    clips = tuple(
        Clip(
            path=Path(f"{speaker}{emotion}.wav"),
            name=f"{speaker}{emotion}",
            emotion=emotion,
            speaker=f"s{speaker}",
            corpus="own",
        )
        for speaker in range(10)
        for emotion in ("anger", "sadness", "love")
    )
    return Corpus("own", "", clips)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "hmm"}, "family is 'hmm'; expected one of svm, cnn, transformer, fusion, adap"),
        ({"model": sercli.CnnConfig}, "expected one of svm, cnn, .*, or its settings"),
        ({"model": None}, "family is None; expected one of svm"),
        ({"votes": "v.csv"}, "--votes goes with --model cnn or transformer"),
        ({"model": "cnn", "base": "x"}, "--base goes with --model transformer"),
        ({"model": "cnn", "unlabelled": "x"}, "--unlabelled goes with --teacher MODEL"),
        ({"model": "cnn", "calm": "x"}, "--calm goes with --model svm or transformer, or with"),
        ({"calm_speakers": "(x)"}, "--calm-speakers goes with --calm"),
        ({"model": sercli.TransformerConfig(hearing_epochs=1)}, "--hearing-epochs goes with --cal"),
        ({"model": sercli.TransformerConfig(layers=1), "calm": "x"}, "--calm and --layers do not"),
        ({"model": "fusion"}, "none are named; expected two or more"),
        ({"model": "adapter", "members": ("a", "b")}, "2 are named; expected one"),
        ({"members": "a"}, "--members goes with --model fusion or adapter"),
        ({"model": "adapter", "members": "a", "adapter": False}, "--no-adapter does not go with"),
        ({"split": "random", "adapter": False}, "--no-adapter would do nothing"),
        ({"folds": 1}, "folds is 1; expected 2 or more"),
        ({"folds": 2.5}, r"folds is 2\.5; expected a whole number"),
        ({"folds": "3"}, "folds is '3'; expected a whole number"),
        (
            {"folds": 3, "split": "own"},
            "--folds keeps speakers apart, so --split own would do nothing",
        ),
        ({"folds": 3, "test": False}, "--fit-on and --no-test would do nothing"),
        ({"fit_on": ("train", "test")}, r"fit_on is \('train', 'test'\); expected train, dev, or"),
        ({"fit_on": ()}, "expected train, dev, or both"),
        ({"fit_on": ("train", "train")}, "expected train, dev, or both"),
    ],
)
def test_what_would_do_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds is 1; expected 2 to 100"),
        ({"gamma_scales": ()}, "gamma has no values to search"),
        ({"regularisations": (-1.0,)}, "C is -1; expected 1e-09 to 1e"),
        ({"components": 0}, "components is 0; expected 1 to"),
        ({"seed": -1}, "seed is -1; expected 0 to"),
        ({"jobs": 0}, r"jobs is 0; expected 1 to \d+, or -1"),
        ({"group_by": "room"}, "group_by is 'room'; expected speaker or clip"),
    ],
)
def test_settings_out_of_their_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sercli.SvmConfig(**settings)


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (sercli.SvmConfig, "folds"),
        (sercli.CnnConfig, "epochs"),
        (sercli.TransformerConfig, "layers"),
        (sercli.AdapterConfig, "n_hidden"),
    ],
)
def test_what_is_counted_is_whole(create: Callable[..., Settings], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is 2\.5; expected a whole number"):
        create(**{name: 2.5})
    assert getattr(create(**{name: 2}), name) == 2


def test_one_by_itself_need_not_be_in_a_list() -> None:
    config = TrainConfig("adapter", members="mine", fit_on="dev")  # type: ignore[arg-type]
    assert (config.members, config.splits) == (("mine",), ("dev",))
    calm = TrainConfig(calm=Path("calls"))  # type: ignore[arg-type]
    assert calm.calm == (Path("calls"),)


def test_families_and_what_they_learn_from() -> None:
    settings: dict[str, Settings] = {
        "svm": sercli.SvmConfig(seed=1),
        "cnn": sercli.CnnConfig(epochs=3),
        "transformer": sercli.TransformerConfig(epochs=3),
    }
    for family, own in settings.items():
        assert (TrainConfig(own).family, TrainConfig(own).settings) == (family, own)
        assert TrainConfig(own).splits == ("train",)
    for family in ("fusion", "adapter"):
        config = TrainConfig(family, members="a")  # type: ignore[arg-type]
        assert (config.family, config.splits) == (family, ("dev",))


def test_a_plan_keeps_speakers_apart_and_knows_whose_clips_are_decoded(corpus: Corpus) -> None:
    assert {clip.emotion for clip in Plan.make(corpus, TrainConfig()).corpus.clips} == {
        "anger", "love", "sadness",
    }  # fmt: skip
    plan = Plan.make(corpus, TrainConfig(emotions=("anger", "sadness")))
    assert {clip.emotion for clip in plan.corpus.clips} == {"anger", "sadness"}
    assert "the label love is not one of the labels to learn" in plan.corpus.describe()
    who = {one: {c.speaker for c in plan.corpus.select(one)} for one in ("train", "dev", "test")}
    assert [len(speakers) for speakers in who.values()] == [6, 2, 2]
    assert len(set.union(*who.values())) == 10
    # Only a network is chosen by development clips.
    assert {clip.speaker for clip in plan.clips} == who["train"]
    network = Plan.make(corpus, TrainConfig("cnn"))
    assert {clip.speaker for clip in network.clips} == who["train"] | who["dev"]
    folds = TrainConfig("cnn", folds=3, emotions=("anger", "sadness"))
    assert len(Plan.make(corpus, folds).clips) == 20
    other = Plan.make(corpus, TrainConfig(sercli.SvmConfig(seed=4)))
    assert {clip.speaker for clip in other.clips} != who["train"]
    drawn = [TrainConfig(sercli.SvmConfig(seed=seed), split="random") for seed in (0, 0, 4)]
    first, again, changed = (Plan.make(corpus, config).clips for config in drawn)
    assert first == again != changed


def test_labels_that_are_left_out_are_told(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(plan: Plan) -> str:
        said: list[str] = []
        with pytest.raises(DatasetError):  # there is no such audio
            plan.run(tmp_path / "model", say=said.append)
        return said[0]

    asked = Plan.make(corpus, TrainConfig(emotions=("angry", "sadness")))
    assert asked.left_out == {"love": 10}
    assert told(asked) == "labels left out, not named by --emotions: love (10 clips)"
    renamed = {"love": "boredom"}
    bored = (replace(one, emotion=renamed.get(one.emotion, one.emotion)) for one in corpus.clips)
    published = Corpus("emodb", "", tuple(replace(one, corpus="emodb") for one in bored))
    plan = Plan.make(published, TrainConfig())
    assert told(plan).startswith(
        "warning: labels left out, not among the six emotions: boredom (10 clips); name all"
    )
    # A pupil has the labels of its teacher.
    pupil = Plan.make(corpus, TrainConfig("cnn", teacher="transformer", cache=tmp_path))
    assert {clip.emotion for clip in pupil.corpus.clips} == {"anger", "sadness"}
    assert pupil._tell_left_out() == (
        "warning: labels left out, not labels of transformer: love (10 clips)"
    )
    # But for those that are asked for.
    some = TrainConfig("cnn", teacher="transformer", emotions=("anger", "love"), cache=tmp_path)
    assert {clip.emotion for clip in Plan.make(corpus, some).corpus.clips} == {"anger", "love"}
    recorded = {}

    def train(*_: Any, details: dict[str, Any], **__: Any) -> None:
        recorded.update(details)
        raise DatasetError("enough")

    monkeypatch.setattr("sercli.training.run.train_on_splits", train)
    with pytest.raises(DatasetError, match="enough"):
        asked.run(tmp_path / "model", details={"command": "ser"})
    assert recorded == {"command": "ser", "labels_left_out": {"love": 10}}
    with pytest.raises(DatasetError, match="enough"):
        Plan.make(corpus, TrainConfig()).run(tmp_path / "model")
    assert Plan.make(corpus, TrainConfig()).left_out == {}


def test_labels_that_are_new_are_told(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DatasetError("enough")

    monkeypatch.setattr("sercli.training.run.train_on_splits", refuse)

    def told(corpus: Corpus, *emotions: str) -> list[str]:
        said: list[str] = []
        plan = Plan.make(corpus, TrainConfig(emotions=emotions))
        with pytest.raises(DatasetError, match="enough"):
            plan.run(tmp_path / "model", say=said.append)
        return said

    assert told(corpus) == [
        "labels learned: anger, love, sadness; not among the six emotions: love; if one is another "
        "word for an emotion, rename it with --map THEIRS=OURS"
    ]
    # Not where all are known, or the user asked for them.
    ours = replace(corpus, clips=tuple(one for one in corpus.clips if one.emotion != "love"))
    assert told(ours) == []
    assert told(replace(corpus, mapping={"Liebe": "love"})) == []
    renamed = tuple(
        replace(one, emotion=one.emotion.replace("sadness", "sad")) for one in corpus.clips
    )
    assert "not among the six emotions: love, sad; if" in "".join(
        told(replace(corpus, clips=renamed, mapping={"traurig": "sad"}))
    )
    assert told(corpus, "anger", "love", "sadness") == []


def test_an_adapter_that_no_network_would_have(corpus: Corpus) -> None:
    config = TrainConfig("cnn", adapter=False)
    message = "--no-adapter would do nothing: with development clips, a network has no adapter"
    with pytest.raises(ConfigError, match=message):
        Plan.make(corpus, config)
    # An SVM has one, and so have networks that are calibrated by folds.
    Plan.make(corpus, TrainConfig(adapter=False))
    Plan.make(corpus, replace(config, folds=3))
    Plan.make(corpus, replace(config, fit_on=("train", "dev")))
    bare = replace(corpus, clips=tuple(replace(clip, split="train") for clip in corpus.clips))
    Plan.make(bare, config)


def test_calm_speech_that_no_cnn_would_learn_from(corpus: Corpus) -> None:
    config = TrainConfig("cnn", teacher="transformer", calm=("calls",))
    with pytest.raises(ConfigError, match="--calm would do nothing: with a cnn, only the teachers"):
        Plan.make(corpus, config)
    Plan.make(corpus, replace(config, fit_on=("train", "dev")))


def test_number_of_networks_that_are_trained(corpus: Corpus) -> None:
    three = sercli.CnnConfig(folds=3)
    for config, n_networks in (
        (TrainConfig(), 0),
        (TrainConfig(three), 1),  # the development clips calibrate it
        (TrainConfig(three, fit_on=("train", "dev")), 4),
        (TrainConfig(three, split="random"), 4),
        (TrainConfig(three, folds=5), 9),
        (TrainConfig(sercli.TransformerConfig(layers=1)), 2),
        (TrainConfig(sercli.TransformerConfig(layers=1, folds=3), folds=5), 18),
    ):
        assert Plan.make(corpus, config).n_networks == n_networks, config
    bare = replace(corpus, clips=tuple(replace(clip, split="train") for clip in corpus.clips))
    assert Plan.make(bare, TrainConfig(three)).n_networks == 4


def test_splits_that_are_not_taken_are_told(corpus: Corpus, tmp_path: Path) -> None:
    splits = ("train", "dev", "test")
    given = [replace(clip, split=splits[int(clip.name[0]) % 3]) for clip in corpus.clips]
    assert not Plan.make(Corpus("own", "", tuple(given)), TrainConfig()).redrawn
    # Of another corpus, a speaker is in two.
    others = [replace(clip, corpus="shared") for clip in given]
    others[0] = replace(others[0], split="dev")
    both = Corpus("own+shared", "", (*given, *others))
    plan = Plan.make(both, TrainConfig())
    assert plan.redrawn == {"shared"}
    for split in ("own", "random"):
        assert not Plan.make(both, TrainConfig(split=split)).redrawn
    told: list[str] = []
    with pytest.raises(DatasetError):  # there is no such audio
        plan.run(tmp_path / "model", say=told.append)
    assert told[0].startswith(
        "warning: shared: its own splits share speakers, so new ones are drawn"
    )


def test_which_families_something_is_of_use_to() -> None:
    networks = ("cnn", "transformer")
    expected = {
        "teacher": networks,
        "batch_size": networks,
        "patience": networks,
        # An adapter has settings of these names, which are others.
        "epochs": networks,
        "learning_rate": networks,
        "tuning_rate": ("transformer",),
        "dynamic_range": ("cnn",),
        "equal_weights": ("fusion",),
        "device": (*networks, "fusion", "adapter"),
        "calm": ("svm", *networks),
        "seed": ("svm", *networks, "fusion", "adapter"),
        "overwrite": ("svm", *networks, "fusion", "adapter"),
    }
    assert {name: find_families(name) for name in expected} == expected


def test_members_of_others_are_refused_as_what_they_are(corpus: Corpus, tmp_path: Path) -> None:
    plan = Plan.make(corpus, TrainConfig("fusion", members=("hub:a/b", "svm")))
    with pytest.raises(ModelError, match="hub:a/b: is a classifier of Hugging Face, whose"):
        plan.run(tmp_path / "both")


def test_a_split_that_is_neither_a_name_nor_a_table(corpus: Corpus) -> None:
    message = "--split is 'Speaker'; expected speaker, own, random, or a table that exists"
    with pytest.raises(ConfigError, match=message):
        Plan.make(corpus, TrainConfig(split="Speaker"))


def test_what_links_in_a_folder_lead_to_is_not_replaced(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("of another model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").symlink_to(tmp_path / "store")
    with pytest.raises(OutputError, match=r"weights\.safetensors: is a link, and what it leads to"):
        Plan.make(corpus, TrainConfig()).run(tmp_path / "model", overwrite=True)
    assert (tmp_path / "store").read_text() == "of another model"


@pytest.mark.parametrize("name", ["model.json", "README.md", "manifest.csv", "held_out.csv"])
def test_what_any_link_in_a_folder_leads_to_is_not_replaced(
    name: str, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("of another model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).symlink_to(tmp_path / "store")
    with pytest.raises(OutputError, match=rf"{name}: is a link, and what it leads to"):
        Plan.make(corpus, TrainConfig()).run(tmp_path / "model", overwrite=True)
    assert (tmp_path / "store").read_text() == "of another model"


def test_resuming_and_overwriting_exclude_each_other(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume and --overwrite exclude each other"):
        Plan.make(corpus, TrainConfig()).run(tmp_path / "model", overwrite=True, resume=True)


@pytest.mark.parametrize("place", ["", "encoder", "fold1", "fold1/teacher/fold1", "outer1"])
@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, [""]),
        ({"fit_on": ("train", "dev")}, ["fold1", "fold1/teacher/fold1"]),
        ({"folds": 2}, ["outer1"]),
    ],
)
def test_checkpoints_of_other_splits_or_folds_are_refused_at_once(
    settings: dict[str, Any],
    own: list[str],
    place: str,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tell(*_: object, **__: object) -> None:
        raise ConfigError("not refused")

    monkeypatch.setattr("sercli.training.creation.create_trainer", tell)
    path = tmp_path / "model" / "training" / place / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    told = "not refused" if place in own else "model/training: has checkpoints, but none of the ne"
    plan = Plan.make(corpus, TrainConfig("cnn", emotions=("anger", "sadness"), **settings))
    with pytest.raises(ConfigError, match=told):
        plan.run(tmp_path / "model", resume=True)
    assert path.exists()


@pytest.mark.parametrize("is_new", [True, False])
def test_an_interrupt_leaves_no_new_folder(
    is_new: bool, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sercli.training.creation.create_trainer", interrupt)
    folder = tmp_path / "model"
    if not is_new:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        Plan.make(corpus, TrainConfig()).run(folder)
    assert folder.exists() is not is_new


@pytest.mark.parametrize(
    "name",
    ["README.md", "manifest.csv", "model.json", "predictions.csv", *WEIGHTS_FILES, "history.csv"],
)
def test_what_is_not_of_a_model_is_not_replaced(name: str, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / name).write_text("the only copy")
    with pytest.raises(OutputError, match=rf"{name}: already exists"):
        Plan.make(corpus, TrainConfig()).run(tmp_path)
    assert (tmp_path / name).read_text() == "the only copy"
