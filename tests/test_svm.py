from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVC

from sercli.calibration import Calibration
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.svm import SvmClassifier, pair_votes, project, rbf_kernel
from sercli.datasets import Clip
from sercli.datasets.extraction import ClipFeatures
from sercli.errors import ConfigError, DatasetError, ModelError
from sercli.features.vector import FEATURE_SET, feature_names
from sercli.labels import EMOTIONS
from sercli.training import transposition
from sercli.training.config import SvmConfig
from sercli.training.folds import cross_fitted_figures, split_groups
from sercli.training.svm import fitting as training
from sercli.training.svm import rows as svm_rows
from sercli.training.svm import trainer
from sercli.training.svm.machine import (
    fill_kernel,
    find_gamma,
    fit_machine,
    fit_projection,
    read_machine,
)
from sercli.training.svm.versions import TRANSPOSED, VERSIONS

CONFIG = SvmConfig(regularisations=(1.0, 10.0), gamma_scales=(0.8,), components=8, folds=3, jobs=1)


# None of which is calm.
LABELS = ("anger", "disgust", "fear", "happiness", "boredom", "sadness")

TRIAL = training.Trial(3.0, 0.8, np.empty(0, int), np.empty((0, 6), np.float32), [])


@pytest.fixture(scope="module")
def rows() -> svm_rows.Rows:
    """Six clouds that overlap, of nine speakers."""
    rng = np.random.default_rng(0)
    classes = np.tile(np.arange(6), 60)
    centres = rng.normal(size=(6, len(feature_names())))
    features = 5 + 3 * (rng.normal(size=(360, centres.shape[1])) + 0.15 * centres[classes])
    speakers = np.repeat([str(i) for i in range(9)], 40)
    return svm_rows.Rows(features.astype(np.float32), classes, speakers, EMOTIONS)


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "family": "svm",
        "labels": EMOTIONS,
        "sample_rate": 16_000,
        "band_limit": 4_000.0,
        "calibration": Calibration("temperature", np.eye(6), np.zeros(6)),
        "settings": {"feature_set": FEATURE_SET, "gamma": 0.01},
    }
    return ModelSpec(**(values | changes))


def test_held_out_clips_do_not_change_what_is_learned(
    rows: svm_rows.Rows, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Speakers without calm clips are compared with those of others.
    whose = np.unique(rows.groups)[::2]
    classes = rows.classes.copy()
    classes[np.isin(rows.groups, whose) & (classes == EMOTIONS.index("neutral"))] = 0
    clips = tuple(
        Clip(Path(f"{i}.wav"), EMOTIONS[label], speaker, corpus="toy")
        for i, (label, speaker) in enumerate(zip(classes, rows.groups, strict=True))
    )
    features = np.stack([rows.features + k for k in range(4)], axis=1)
    strangers = rng.normal(0, 300, (20, features.shape[2])).astype(np.float32)
    learned: list[np.ndarray] = []

    def note(given: Any, *others: Any) -> Any:
        learned.append(given)
        return fit_projection(given, *others)

    monkeypatch.setattr(training, "fit_projection", note)
    _, outside = next(iter(GroupKFold(3).split(classes, groups=rows.groups)))
    other = features.copy()
    other[outside] += rng.normal(0, 5, (len(outside), 1, features.shape[2]))
    for some in (features, other):
        found = ClipFeatures(clips, tuple(some), ("",) * len(clips), {})
        training.fit_svm(found, EMOTIONS, CONFIG, strangers=strangers)
    assert len(learned) == 2 * 4  # three folds, and all clips
    np.testing.assert_array_equal(learned[0], learned[4])  # without the first fold
    assert np.abs(learned[1] - learned[5]).max() > 1


def test_decisions_are_those_of_scikit_learn(rows: svm_rows.Rows) -> None:
    tensors, gamma = training._fit(rows, TRIAL, 8)
    settings = {"feature_set": FEATURE_SET, "gamma": gamma}
    classifier = SvmClassifier.from_tensors(spec(settings=settings), tensors)
    _, components = fit_projection(rows.features, 8)
    machine = SVC(C=3.0, gamma=gamma, class_weight="balanced", decision_function_shape="ovo")
    machine.fit(components, rows.classes)
    decisions = classifier.decide(rows.features)
    np.testing.assert_allclose(decisions, machine.decision_function(components), atol=0.02)
    # Votes agree except where pairs tie.
    same = classifier.score(rows.features).argmax(axis=1) == machine.predict(components)
    assert same.mean() > 0.97


@pytest.mark.parametrize("n_classes", [2, 3])
def test_machines_are_read_as_scikit_learn_does(n_classes: int, rng: np.random.Generator) -> None:
    classes = np.arange(60) % n_classes
    rows = (rng.normal(size=(60, 4)) + 3 * np.eye(4)[classes]).astype(np.float32)
    kernel = rbf_kernel(rows, rows, 0.1).astype(np.float64)
    machine = fit_machine(kernel, classes, 1.0)
    coefficients, intercepts = read_machine(machine)
    decisions = kernel[:, machine.support_] @ coefficients + intercepts
    np.testing.assert_array_equal(
        (np.sign(decisions) @ pair_votes(n_classes)).argmax(axis=1), machine.predict(kernel)
    )
    # Above 0 for the first of each pair.
    column = decisions[:, 0]
    assert column[classes == 0].min() > 0 > column[classes == 1].max()


def test_rare_classes_weigh_as_much_as_frequent_ones(rng: np.random.Generator) -> None:
    classes = np.repeat([0, 1, 2], [30, 20, 10])
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    machine = fit_machine(rbf_kernel(rows, rows, 0.1).astype(np.float64), classes, 1.0)
    np.testing.assert_allclose(machine.class_weight_, [60 / 90, 60 / 60, 60 / 30])


def test_gamma_is_in_units_of_the_whole_variance() -> None:
    # Of two components of the variances 1 and 3.
    components = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]]) + np.sqrt(3) * np.array(
        [[0, 1], [0, 1], [0, -1], [0, -1]]
    )
    assert find_gamma(components.astype(np.float32), 0.8) == pytest.approx(0.2)


def test_a_feature_that_never_changes_has_no_say(rows: svm_rows.Rows) -> None:
    constant = np.full((len(rows.features), 1), 7, np.float32)
    projection, components = fit_projection(np.hstack((rows.features, constant)), 8)
    _, expected = fit_projection(rows.features, 8)
    assert (projection.mean[-1], projection.scale[-1]) == (7, 1)
    np.testing.assert_allclose(np.abs(components), np.abs(expected), atol=1e-3)


def test_kernel(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    expected = [[np.exp(-0.3 * np.sum((x - y) ** 2)) for y in b] for x in a]
    np.testing.assert_allclose(rbf_kernel(a, b, 0.3), expected, rtol=1e-5)
    known = rbf_kernel(a, b, 0.3, np.square(b).sum(axis=1))
    np.testing.assert_array_equal(known, rbf_kernel(a, b, 0.3))


def test_kernel_matrix_is_filled_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sercli.training.svm.machine.ROWS_PER_BLOCK", 3)
    rows = rng.normal(size=(8, 4)).astype(np.float32)
    kernel = fill_kernel(rows, 0.3)
    assert kernel.dtype == np.float64
    np.testing.assert_allclose(kernel, rbf_kernel(rows, rows, 0.3), rtol=1e-5)
    again = fill_kernel(rows, 0.1, kernel)
    assert again is kernel
    np.testing.assert_allclose(kernel, rbf_kernel(rows, rows, 0.1), rtol=1e-5)


def test_votes_of_pairs() -> None:
    # Pairs (0, 1), (0, 2), (1, 2): class 2 wins both of its own.
    decisions = np.array([[1.0, -1.0, -1.0]])
    np.testing.assert_array_equal(decisions @ pair_votes(3), [[0, -2, 2]])


def test_search_keeps_speakers_apart(rows: svm_rows.Rows) -> None:
    trials = training.search_settings(rows, CONFIG)
    settings = [(trial.regularisation, trial.gamma_scale) for trial in trials]
    assert settings == [(1.0, 0.8), (10.0, 0.8)]
    for trial in trials:
        folds = [set(rows.groups[fold]) for fold in trial.folds]
        assert len(folds) == 3
        assert sum(map(len, folds)) == len(set.union(*folds)) == 9
        expected = [
            balanced_accuracy_score(rows.classes[fold], trial.scores[fold].argmax(axis=1))
            for fold in trial.folds
        ]
        assert trial.fold_uars == pytest.approx(expected)
        assert trial.uar == pytest.approx(np.mean(expected))
        assert 0.5 < trial.uar < 1


def test_scores_of_a_fold_are_those_of_a_machine_of_the_others(rows: svm_rows.Rows) -> None:
    trials = training.search_settings(rows, CONFIG)
    inside, outside = split_groups(rows.groups, 3)[1]
    projection, components = fit_projection(rows.features[inside], 8)
    gamma = 0.8 / components.var(axis=0).sum()
    machine = SVC(C=10.0, gamma=gamma, class_weight="balanced", decision_function_shape="ovo")
    machine.fit(components, rows.classes[inside])
    axes = projection.axes.astype(np.float32)
    held_out = project(rows.features[outside], projection.mean, projection.scale, axes)
    expected = np.tanh(machine.decision_function(held_out)) @ pair_votes(6)
    np.testing.assert_allclose(trials[1].scores[outside], expected, atol=0.01)


def test_what_tells_the_speaker_is_worth_nothing_on_others(rows: svm_rows.Rows) -> None:
    # A mark for each speaker and class: in those who were heard, it tells the class perfectly.
    mark = rows.groups.astype(int) * 6 + rows.classes
    features = np.random.default_rng(1).normal(size=rows.features.shape).astype(np.float32)
    features[:, :54] = 20 * np.eye(54)[mark]
    marked = svm_rows.Rows(features, rows.classes, rows.groups, EMOTIONS)
    assert max(trial.uar for trial in training.search_settings(marked, CONFIG)) < 0.3


def test_folds_need_all_emotions(rows: svm_rows.Rows) -> None:
    few = svm_rows.Rows(rows.features, rows.groups.astype(int) % 6, rows.groups, EMOTIONS)
    with pytest.raises(
        DatasetError, match=r"without the speakers of a fold, no training clips of .* left"
    ):
        training.search_settings(few, CONFIG)


def test_directions_have_length_one_and_do_not_depend_on_distance(rows: svm_rows.Rows) -> None:
    projection, components = fit_projection(rows.features, 8)
    np.testing.assert_allclose(np.linalg.norm(components, axis=1), 1, atol=1e-3)
    near = projection.mean + 0.1 * projection.scale * np.sign(rows.features[:5] - projection.mean)
    far = projection.mean + 2.0 * projection.scale * np.sign(rows.features[:5] - projection.mean)
    axes = projection.axes.astype(np.float32)
    a, b = (project(row, projection.mean, projection.scale, axes) for row in (near, far))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_versions_of_clips_stay_with_their_class_and_speaker() -> None:
    clips = tuple(Clip(Path(f"{i}"), EMOTIONS[i % 6], f"s{i}", corpus="c") for i in range(100))
    # A feature that says which clip and which version it is.
    features = (np.arange(100)[:, None] * 10 + np.arange(3))[:, :, None].astype(np.float32)
    found = ClipFeatures(clips, tuple(features), ("",) * 100, {})
    rows = svm_rows.as_rows(found, EMOTIONS)
    clip, version = np.divmod(rows.features[:, 0].astype(int), 10)
    np.testing.assert_array_equal(version, np.repeat([0, 1, 2], 100))
    np.testing.assert_array_equal(rows.classes, clip % 6)
    np.testing.assert_array_equal(rows.groups, [f"c/s{i}" for i in clip])
    by_clip = svm_rows.as_rows(found, EMOTIONS, "clip")
    np.testing.assert_array_equal(by_clip.groups, clip.astype(str))


def test_unknown_speakers_cannot_be_kept_apart() -> None:
    clips = tuple(Clip(Path(f"{i}"), EMOTIONS[i % 6]) for i in range(12))
    found = ClipFeatures(clips, tuple(np.zeros((12, 1, 2), np.float32)), ("",) * 12, {})
    with pytest.raises(DatasetError, match="speakers are unknown; expected a speaker for every"):
        svm_rows.as_rows(found, EMOTIONS)


def test_few_speakers_are_a_fold_each(rows: svm_rows.Rows) -> None:
    def found(n_speakers: int) -> ClipFeatures:
        clips = tuple(
            Clip(Path(f"{i}"), EMOTIONS[label], f"s{i % n_speakers}")
            for i, label in enumerate(rows.classes[:72])
        )
        features = tuple(np.repeat(rows.features[:72, None], len(VERSIONS), axis=1))
        return ClipFeatures(clips, features, ("",) * 72, {})

    with pytest.raises(DatasetError, match="clips are of one speaker; expected 2 or more"):
        training.fit_svm(found(1), EMOTIONS, CONFIG)
    with pytest.raises(DatasetError, match="without the speakers of a fold"):
        training.fit_svm(found(2), EMOTIONS, CONFIG)  # of which each has only three emotions
    classifier, _ = training.fit_svm(found(5), EMOTIONS, SvmConfig(folds=9, jobs=1))
    facts = classifier.spec.training
    assert (facts["folds"], len(facts["chosen"]["folds"])) == (5, 5)


def test_what_was_held_out_is_told_of_each_version(rows: svm_rows.Rows) -> None:
    clips = tuple(
        Clip(Path(f"{i}"), EMOTIONS[label], speaker)
        for i, (label, speaker) in enumerate(zip(rows.classes, rows.groups, strict=True))
    )
    # As they are, they tell the emotion; varied, nothing.
    noise = np.random.default_rng(1).normal(5, 3, (len(clips), 3, rows.features.shape[1]))
    features = np.concatenate((rows.features[:, None], noise.astype(np.float32)), axis=1)
    found = ClipFeatures(clips, tuple(features), ("",) * len(clips), {})
    classifier, held_out = training.fit_svm(found, EMOTIONS, CONFIG)
    assert held_out.shape == (4, 360, 6)
    np.testing.assert_allclose(held_out.sum(axis=2), 1)
    facts = classifier.spec.training
    tried = [trial["uar"] for trial in facts["search"]]
    assert tried[0] != tried[1]
    assert facts["chosen"] == facts["search"][int(np.argmax(tried))]
    # Each fold has a temperature of its own there, by which no label changes.
    uar, *varied = (balanced_accuracy_score(rows.classes, p.argmax(axis=1)) for p in held_out)
    assert max(varied) < 0.5 < uar
    assert uar == pytest.approx(facts["held_out"]["whole"]["uar"])
    assert uar > facts["held_out"]["varied"]["uar"] + 0.2
    # They are not those of the model itself, which learned from the clips.
    own = classifier.spec.calibration.probabilities(classifier.score(rows.features))
    assert balanced_accuracy_score(rows.classes, own.argmax(axis=1)) > uar


def test_trainer_keeps_what_is_not_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["whole", "varied", "varied", TRANSPOSED]
    model = SimpleNamespace(spec=spec(training={"versions": names}), score=lambda rows: rows)
    held_out = np.arange(4.0)[:, None, None] * np.ones((4, 3, 6))
    monkeypatch.setattr(trainer, "fit_svm", lambda *_, **__: (model, held_out))
    found = ClipFeatures((), tuple(held_out.swapaxes(0, 1)), (), {})
    svm_trainer = trainer.SvmTrainer(CONFIG, cache=Path())
    learned = svm_trainer.fit(found, EMOTIONS, Path())
    # Whom a clip is transposed to differs, so that there is no baseline.
    np.testing.assert_array_equal(learned.held_out, held_out[:3])
    scored = svm_trainer.classify(model, found)  # type: ignore[arg-type]
    np.testing.assert_allclose(scored, np.full((3, 6), 1 / 6))
    scores = np.eye(6)[:3]
    found = replace(found, features=tuple(np.stack((row, row[::-1])) for row in scores))
    scored = svm_trainer.classify(model, found)  # type: ignore[arg-type]
    assert scored.argmax(axis=1).tolist() == [0, 1, 2]


def test_stored_weights_give_the_same_model(rows: svm_rows.Rows) -> None:
    tensors, gamma = training._fit(rows, TRIAL, 8)
    settings = {"feature_set": FEATURE_SET, "gamma": gamma}
    classifier = SvmClassifier.from_tensors(spec(settings=settings), tensors)
    again = SvmClassifier.from_tensors(classifier.spec, classifier.tensors())
    np.testing.assert_array_equal(again.score(rows.features), classifier.score(rows.features))
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("f2"), np.dtype("f4")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"feature_set": "spectral-0", "gamma": 1}}, "features 'spectral-0'"),
        ({"settings": {"feature_set": FEATURE_SET}}, "gamma is None; expected a number above 0"),
        ({"band_limit": 8_000.0}, r"band_limit is 8000\.0 Hz"),
        ({"labels": EMOTIONS[:5]}, "its weights have the shapes"),
    ],
)
def test_specifications_that_do_not_fit(
    rows: svm_rows.Rows, changes: dict[str, Any], message: str
) -> None:
    tensors, _ = training._fit(rows, TRIAL, 8)
    with pytest.raises(ModelError, match=message):
        SvmClassifier.from_tensors(spec(**changes), tensors)


# The shipped model.


def test_the_last_version_is_as_strangers_might_say_it(
    rows: svm_rows.Rows, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transposition, "CONTRAST", (1.0, 1.0))
    # Nine speakers, each with forty clips; whole, and three times varied.
    features = np.stack([rows.features + k for k in range(4)], axis=1)
    clips = tuple(
        Clip(Path(f"{i}.wav"), EMOTIONS[label], speaker, corpus="toy")
        for i, (label, speaker) in enumerate(zip(rows.classes, rows.groups, strict=True))
    )
    found = ClipFeatures(clips, tuple(features), ("",) * len(clips), {})
    strangers = rng.normal(0, 300, (20, features.shape[2])).astype(np.float32)
    every = svm_rows.as_rows(found, EMOTIONS)
    moved = svm_rows.transpose_rows(every, clips, strangers, CONFIG).features
    np.testing.assert_array_equal(moved[: 3 * 360], every.features[: 3 * 360])
    steps = moved[3 * 360 :] - every.features[3 * 360 :]
    met: dict[str, set[int]] = {}
    for step, label, speaker in zip(steps, rows.classes, rows.groups, strict=True):
        mine = (rows.groups == speaker) & (rows.classes == EMOTIONS.index("neutral"))
        ways = strangers - features[mine, 0].mean(axis=0)
        # Some part of the way to one stranger.
        likeness = (ways @ step) / np.linalg.norm(ways, axis=1) / np.linalg.norm(step)
        assert likeness.max() == pytest.approx(1, abs=1e-4), label
        met.setdefault(speaker, set()).add(int(likeness.argmax()))
    # Who is held out with each other meets strangers whom nobody else meets.
    folds = GroupKFold(3).split(rows.features, groups=rows.groups)
    theirs = [set().union(*(met[one] for one in set(rows.groups[out]))) for _, out in folds]
    assert sorted(number for some in theirs for number in some) == list(range(20))
    classifier, _ = training.fit_svm(found, EMOTIONS, CONFIG, strangers=strangers)
    facts = classifier.spec.training
    assert facts["versions"] == ["whole", "varied", "varied", "transposed"]
    counts = {name: row["n_segments"] for name, row in facts["held_out"].items()}
    assert counts == {"whole": 360, "varied": 720, "transposed": 360}
    with pytest.raises(ConfigError, match="expected neutral among them"):
        svm_rows.transpose_rows(replace(every, labels=LABELS), clips, strangers, CONFIG)


def test_no_calibration_has_seen_what_it_gives_figures_of(rng: np.random.Generator) -> None:
    groups = np.repeat([f"speaker {number}" for number in range(6)], 10)
    classes = np.tile([0, 1], 30)
    scores = rng.normal(size=(60, 2)).astype(np.float32)
    seen: list[set[str]] = []

    def calibrate(scores: Any, classes: Any, of: Any) -> Calibration:
        seen.append({*of})
        return Calibration("temperature", np.eye(2) * len(seen), np.zeros(2))

    figures = cross_fitted_figures(scores, classes, groups, ("a", "b"), 3, calibrate, ("whole",))
    held_out = [{*groups} - one for one in seen]
    assert [len(one) for one in held_out] == [2, 2, 2]
    assert set().union(*held_out) == {*groups}
    nll = []
    for factor, names in enumerate(held_out, start=1):
        rows = np.isin(groups, [*names])
        logits = factor * scores[rows].astype(np.float64)
        chosen = logits[np.arange(20), classes[rows]]
        nll += [*(np.log(np.exp(logits).sum(axis=1)) - chosen)]
    assert figures["whole"]["nll"] == pytest.approx(np.mean(nll), rel=1e-5)


def test_figures_of_versions_are_of_their_own_rows() -> None:
    groups = np.tile(np.repeat([f"speaker {number}" for number in range(6)], 2), 2)
    classes = np.tile([0, 1], 12)
    scores = np.eye(2, dtype=np.float32)[classes]
    scores[12:] *= -1  # the second version of each clip is always wrong

    def calibrate(*_: Any) -> Calibration:
        return Calibration("temperature", np.eye(2), np.zeros(2))

    figures = cross_fitted_figures(
        scores, classes, groups, ("a", "b"), 3, calibrate, ("whole", "varied")
    )
    assert {name: row["accuracy"] for name, row in figures.items()} == {"whole": 1, "varied": 0}
