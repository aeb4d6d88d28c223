"""The shipped models: what they hear and do not hear, and that their figures can be measured."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLES
from numpy.typing import NDArray

from sercli.audio.reading import load_audio
from sercli.classifiers.base import Classifier
from sercli.config import EvalConfig
from sercli.datasets import read_corpus
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.run import evaluate
from sercli.labels import EMOTIONS
from sercli.registry.catalogue import shipped_folder
from sercli.registry.store import load_model
from sercli.reporting.documents import render_markdown

# Model to the least UAR that is to be measured on the test speakers, and on those held out of the
# clips that it learned from.
LEAST_UAR = {
    "svm": (0.56, 0.63),
    "cnn": (0.65, 0.69),
    "transformer": (0.68, 0.73),
    "best": (0.68, 0.74),
}
PERCEIVING = {"cnn", "transformer", "best"}
# By how much a probability may change with noise above the band limit: what begins and ends with
# the segment has a little of all frequencies there, and the window of a frame of the CNN smears a
# little of what is just above the limit to below it.
MAX_CHANGE = {"svm": 0.02, "cnn": 0.04, "transformer": 0.06, "best": 0.06}
NEEDS_CORPUS = "SER_CREMAD names no copy of CREMA-D"


@pytest.fixture(scope="module", params=LEAST_UAR)
def shipped(request: pytest.FixtureRequest) -> Classifier:
    return load_model(request.param, "cpu", precision="fp32")  # as its figures were measured


@pytest.fixture(scope="module")
def segments() -> list[NDArray[np.float32]]:
    waveform = load_audio(EXAMPLES / "statement.flac")
    return [waveform[a:b] for a, b in ((16_480, 44_000), (49_000, 88_500), (108_600, 153_000))]


def read_metrics(model: Classifier) -> dict[str, Any]:
    path = shipped_folder() / model.name / "metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metrics


def test_probabilities_do_not_depend_on_batch_or_order(
    shipped: Classifier, segments: list[NDArray[np.float32]]
) -> None:
    together = shipped.predict_proba(segments)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    np.testing.assert_allclose(shipped.predict_proba(segments[::-1])[::-1], together, atol=1e-4)
    alone = np.concatenate([shipped.predict_proba([segment]) for segment in segments])
    np.testing.assert_allclose(alone, together, atol=1e-4)
    assert shipped.predict_proba([]).shape == (0, 6)


def test_nothing_above_the_band_limit_counts(
    shipped: Classifier, segments: list[NDArray[np.float32]], rng: np.random.Generator
) -> None:
    assert shipped.spec.band_limit == 4_000
    for segment in segments:
        # Noise louder than the speech, cut from a longer stretch as speech is from a recording.
        noise = rng.standard_normal(2 * len(segment))
        spectrum = np.fft.rfft(noise)
        spectrum[np.fft.rfftfreq(len(noise), 1 / 16_000) < 4_000] = 0
        high = np.fft.irfft(spectrum)[1_000 : 1_000 + len(segment)]
        high *= 2 * segment.std() / high.std()
        clean, noisy = shipped.predict_proba([segment, segment + high.astype(np.float32)])
        np.testing.assert_allclose(noisy, clean, atol=MAX_CHANGE[shipped.name])


def test_level_does_not_matter(shipped: Classifier, segments: list[NDArray[np.float32]]) -> None:
    quiet = shipped.predict_proba([0.01 * segment for segment in segments])
    np.testing.assert_allclose(quiet, shipped.predict_proba(segments), atol=1e-3)


def test_what_is_perceived_is_told_by_those_who_learned_it(
    shipped: Classifier, segments: list[NDArray[np.float32]]
) -> None:
    if shipped.name not in PERCEIVING:
        with pytest.raises(ConfigError, match="predicts only the intended emotion"):
            shipped.predict_proba(segments, "perceived")
        return
    perceived = shipped.predict_proba(segments, "perceived")
    np.testing.assert_allclose(perceived.sum(axis=1), 1)
    # Listeners agree less on what they hear than a model is sure of what is meant, and hear much as
    # neutral that is meant otherwise.
    intended, neutral = shipped.predict_proba(segments), EMOTIONS.index("neutral")
    assert (perceived.max(axis=1) < intended.max(axis=1)).all()
    otherwise = intended.argmax(axis=1) != neutral
    assert (perceived[otherwise, neutral] > intended[otherwise, neutral]).all()


def test_a_shipped_report_is_of_the_shipped_figures(shipped: Classifier) -> None:
    report = (shipped_folder() / shipped.name / "report.md").read_text(encoding="utf-8")
    assert report == render_markdown(read_metrics(shipped))


def test_a_shipped_model_says_how_it_came_about(shipped: Classifier) -> None:
    facts, metrics = shipped.spec.training, read_metrics(shipped)
    least_on_test, least_held_out = LEAST_UAR[shipped.name]
    assert shipped.spec.labels == EMOTIONS
    assert metrics["split"] == "test"
    assert metrics["protocol"] == "speakers apart"
    assert metrics["overlap"] == {"speakers": [], "clips": 0}
    assert facts["splits"] == ["train", "dev"]
    assert metrics["uar"] > least_on_test
    assert facts["held_out"]["whole"]["uar"] > least_held_out


@pytest.mark.corpus
@pytest.mark.skipif("SER_CREMAD" not in os.environ, reason=NEEDS_CORPUS)
def test_measured_figures_can_be_reproduced(shipped: Classifier) -> None:
    stored = read_metrics(shipped)
    corpus = read_corpus(Path(os.environ["SER_CREMAD"]))
    figures = evaluate(shipped, corpus, "test", EvalConfig(strict=True)).figures
    assert figures["overlap"] == {"speakers": [], "clips": 0}
    assert figures["speakers"] == stored["speakers"]
    for name in ("uar", "accuracy", "macro_f1", "ece", "nll"):
        assert figures[name] == pytest.approx(stored[name], abs=0.003)
    assert figures["intervals"]["figures"]["uar"] == pytest.approx(
        stored["intervals"]["figures"]["uar"], abs=0.005
    )


@pytest.mark.corpus
@pytest.mark.skipif("SER_CREMAD" not in os.environ, reason=NEEDS_CORPUS)
def test_leak_guard_knows_the_speakers_and_clips_of_a_shipped_model(shipped: Classifier) -> None:
    corpus = read_corpus(Path(os.environ["SER_CREMAD"]))
    some = replace(corpus, clips=corpus.select("dev")[:40])
    figures = evaluate(shipped, some, "dev").figures
    assert figures["protocol"] == "speakers shared"
    assert figures["overlap"]["clips"] == 40
    assert figures["overlap"]["speakers"] == sorted({f"cremad/{c.speaker}" for c in some.clips})
    with pytest.raises(DatasetError, match=f"model {shipped.name}: was trained on 1 speaker"):
        evaluate(shipped, some, "dev", EvalConfig(strict=True))
