"""Cards, word by word: they are what a person reads of a model."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sercli.calibration import Calibration
from sercli.classifiers.base import ModelSpec
from sercli.reporting.cards import write_card
from sercli.reporting.families import DEVELOPMENT_SPEAKERS
from sercli.training.config import NeuralConfig


def figures_of(uar: float) -> dict[str, float]:
    return {"uar": uar, "accuracy": uar + 0.01, "macro_f1": uar - 0.01, "ece": 0.04}


TRAINING: dict[str, Any] = {
    "corpus": "toy",
    "licence": "CC0",
    "splits": ["train", "dev"],
    "protocol": "speakers apart",
    "clips": 5389,
    "speakers": 66,
    "seed": 3,
    "command": "ser train --data toy --columns file=FILENAME -o NAME",
    "held_out": {"whole": figures_of(0.637), "varied": figures_of(0.579)},
}
SVM = ModelSpec(
    "svm",
    ("anger", "fear"),
    16_000,
    4_000.0,
    Calibration("temperature", np.eye(2), np.zeros(2)),
    {"gamma": 0.80261},
    {
        **TRAINING,
        "versions": ["whole", "varied", "varied"],
        "folds": 5,
        "group_by": "speaker",
        "search": [{}] * 9,
        "chosen": {"C": 3.0},
    },
)
CNN = replace(
    SVM,
    family="cnn",
    calibration=Calibration("vector scaling", np.eye(2), np.zeros(2)),
    settings={},
    training={
        **TRAINING,
        "splits": ["train"],
        "config": asdict(NeuralConfig(epochs=60, optimiser="muon", voice_share=0.5)),
        "best_epoch": 31,
        "parameters": 812_345,
        "votes": True,
        "calibration_on": DEVELOPMENT_SPEAKERS,
    },
)
FUSION = replace(
    SVM,
    family="fusion",
    calibration=Calibration("vector scaling", np.eye(2), np.zeros(2)),
    settings={
        "members": [
            {"name": "cnn", "sha256": "0", "weight": 0.61},
            {"name": "rf", "sha256": "1", "weight": 0.2895},
            {"name": "svm", "sha256": "2", "weight": 0.1005},
        ]
    },
    training={
        **TRAINING,
        "folds": 5,
        "group_by": "speaker",
        "members": {
            "cnn": {"uar": 0.671, "nll": 0.9},
            "rf": {"uar": 0.61, "nll": 1.1},
            "svm": {"uar": 0.637, "nll": 1.01},
        },
        "held_out": {"whole": figures_of(0.7)},
    },
)
FIGURES: dict[str, Any] = {
    "n_segments": 1064,
    "split": "test",
    "corpus": "toy",
    "speakers": ["a", "b"],
    "protocol": "speakers apart",
    "precision": "fp32",
    "uar": 0.565,
    "accuracy": 0.566,
    "macro_f1": 0.564,
    "ece": 0.063,
    "exact_ece": {"mean": 0.051, "interval": [0.032, 0.075]},
    "nll": 1.165,
    "brier": 0.578,
    "intervals": {
        "level": 0.95,
        "resampled": "speakers",
        "figures": {
            "uar": [0.524, 0.609],
            "accuracy": [0.523, 0.611],
            "macro_f1": None,
            "ece": [0.039, 0.074],
            "nll": [1.041, 1.292],
            "brier": [0.521, 0.627],
        },
    },
    "classes": {
        "anger": {"precision": 0.736, "recall": 0.703, "f1": 0.719, "support": 182},
        "fear": {"precision": 0.459, "recall": 0.643, "f1": 0.535, "support": 182},
    },
}

SVM_CARD = """\
# toy-svm

An RBF support vector machine on spectral statistics of speech below 4000 Hz, for segments of
0.1 to 30 s. It returns a calibrated probability for each of anger, fear.

## Training

| | |
|---|---|
| corpus | toy (CC0) |
| trained on | 5,389 clips of 66 speakers; splits: `train` and `dev` |
| protocol | speakers apart |
| versions of each clip | the original, 2 augmented with another voice, room, microphone or noise |
| settings | C 3, gamma 0.8026: the best of 9 in 5-fold cross-validation |
| calibration | temperature, fitted on the held-out scores of the folds |
| seed | 3 |
| command | `ser train --data toy --columns file=FILENAME -o toy-svm` |

No speaker is in two folds. `manifest.csv` holds a hash of each clip and speaker that the
model was trained on, so that `ser eval` can warn when it is evaluated on any of them.

## Figures

From cross-validation on the training clips: each speaker was scored and calibrated by models that
were not trained on it; one training run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
| whole | 0.637 | 0.647 | 0.627 | 0.040 |
| varied | 0.579 | 0.589 | 0.569 | 0.040 |

On 1,064 clips of toy, split `test` (2 speakers; speakers apart), in fp32,
with 95% bootstrap intervals over speakers; one training run. More figures are in
`metrics.json`.

| UAR | accuracy | macro-F1 | ECE | NLL | Brier |
|---|---|---|---|---|---|
| 0.565 | 0.566 | 0.564 | 0.063 | 1.165 | 0.578 |
| 0.524 to 0.609 | 0.523 to 0.611 | - | 0.039 to 0.074 | 1.041 to 1.292 | 0.521 to 0.627 |

On this many clips, perfectly calibrated probabilities would have an ECE of 0.051 (0.032 to 0.075) \
by chance.

| emotion | precision | recall | F1 | clips |
|---|---|---|---|---|
| anger | 0.736 | 0.703 | 0.719 | 182 |
| fear | 0.459 | 0.643 | 0.535 | 182 |

## Limits

- How well the model generalises to other speech (spontaneous speech, other languages, ages and
  cultures) is not known. Acted emotions differ from spontaneous ones. If all speakers of the corpus
  say the same texts, expect lower figures on other texts.
- On recordings unlike its training data, it may be wrong more often, and report too much emotion.
  Check it on a sample of your own recordings.
- A label describes how speech sounds, not what a person feels. Do not base decisions about people
  on it.
"""


def card(spec: ModelSpec, folder: Path, figures: dict[str, Any] | None = None) -> str:
    write_card(spec, folder, figures)
    return (folder / "README.md").read_bytes().decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "toy-svm"
    path.mkdir()
    return path


def test_card_of_an_svm(folder: Path) -> None:
    assert card(SVM, folder, FIGURES) == SVM_CARD


def test_what_is_not_known_is_said(folder: Path) -> None:
    unknown = {"licence": None, "speakers": 0, "command": "", "group_by": "clip"}
    text = card(replace(SVM, training={**SVM.training, **unknown}), folder)
    assert "| corpus | toy (licence unknown) |\n" in text
    assert "clips of unknown speakers" in text
    assert "| command | `none: trained from Python` |" in text
    assert "No clip is in two folds. " in text
    assert "split `test`" not in text  # for it was not measured
    assert "labels left out" not in text


def test_card_tells_which_labels_were_not_learned(folder: Path) -> None:
    left_out = {"labels_left_out": {"boredom": 81, "calm": 1}}
    text = card(replace(SVM, training={**SVM.training, **left_out}), folder)
    assert "\n| labels left out | 81 clips of boredom, 1 clip of calm |\n| trained on | " in text


def test_card_of_a_cnn(folder: Path) -> None:
    text = card(CNN, folder, FIGURES)
    assert text.startswith(
        """\
# toy-svm

A convolutional neural network of seven layers on log-mel spectrograms of speech below
4000 Hz, with 812,345 parameters, for segments of
0.1 to 30 s. It returns a calibrated probability for each of anger, fear.

## Training

| | |
|---|---|
| corpus | toy (CC0) |
| trained on | 5,389 clips of 66 speakers; splits: `train` |
| protocol | speakers apart |
| epochs | 31, the best of up to 60 |
| optimiser | Muon for the convolutions, AdamW for all other weights |
| batch size | 32 clips |
| learning rate | 0.001 at its peak |
| votes | learned, for `--target perceived` |
| auxiliary task | prediction of up to 128 principal components of the spectral statistics of the \
clip before augmentation |
| augmentation | 25% without augmentation (but 50% of these in another voice), the others \
augmented with another voice, room, microphone or noise; crops of up to 2 s |
| calibration | vector scaling, fitted on the scores of the development speakers |
| seed | 3 |
| command | `ser train --data toy --columns file=FILENAME -o toy-svm` |

`manifest.csv` holds a hash"""
    )
    assert (
        """
On the development speakers, who were also used to choose the epoch, so these figures are a little
too good; one training run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
| whole | 0.637 | 0.647 | 0.627 | 0.040 |
| varied | 0.579 | 0.589 | 0.569 | 0.040 |
"""
        in text
    )
    for word in ("vector machine", "gamma", "Folds", "held-out", "number type"):
        assert word not in text
    # Common to all families: what was measured, and the limits.
    common = "\nOn 1,064 clips of toy, split `test`"
    assert text[text.index(common) :] == SVM_CARD[SVM_CARD.index(common) :]


def test_card_tells_what_other_number_types_change(folder: Path) -> None:
    bf16 = {"uar": 0.555, "drop": 0.0113, "unchanged": 0.9916, "change": 0.0274}
    int8 = {"uar": 0.566, "drop": 0.0001, "unchanged": 1.0, "change": 0.1}
    measured = FIGURES | {"precisions": {"bf16": bf16, "int8": int8}}
    text = card(CNN, folder, measured)
    assert (
        """
On the same clips, with number types other than fp32. Rounding depends on the CPU or GPU that
was used:

| number type | UAR (difference) | labels that stay the same | largest change in a probability |
|---|---|---|---|
| bf16 | 0.555 (-0.011) | 99.2% | 0.027 |
| int8 | 0.566 (+0.000) | 100.0% | 0.100 |

## Limits
"""
        in text
    )


def test_card_of_a_cnn_without_development_speakers(folder: Path) -> None:
    changes = {
        "calibration_on": "3 folds of the training speakers",
        "votes": False,
        "config": {**CNN.training["config"], "guide_weight": 0.0},
    }
    text = card(replace(CNN, training={**CNN.training, **changes}), folder)
    assert "| epochs | 31 |\n" in text
    assert "| votes | not used |\n| auxiliary task | none |\n" in text
    assert "| vector scaling, fitted on the scores of 3 folds of the training speakers |" in text
    assert (
        "\nOn 3 folds of the training speakers, each scored by a network that was not trained on "
        "it; one training run:" in text
    )
    assert "development" not in text


def test_card_of_a_fusion(folder: Path) -> None:
    text = card(FUSION, folder, FIGURES)
    assert text.startswith(
        """\
# toy-svm

The weighted mean of the calibrated probabilities of its members cnn, rf and svm, for segments of
0.1 to 30 s. It returns a calibrated probability for each of anger, fear.

## Training

| | |
|---|---|
| corpus | toy (CC0) |
| trained on | 5,389 clips of 66 speakers; splits: `train` and `dev` |
| protocol | speakers apart |
| member cnn | weight 0.610; alone, on the same clips: UAR 0.671, NLL 0.900 |
| member rf | weight 0.289; alone, on the same clips: UAR 0.610, NLL 1.100 |
| member svm | weight 0.101; alone, on the same clips: UAR 0.637, NLL 1.010 |
| calibration | vector scaling, fitted on the weighted mean of the members' probabilities for \
clips that they were not trained on |
| seed | 3 |
| command | `ser train --data toy --columns file=FILENAME -o toy-svm` |

No speaker is in two folds. Members are searched for beside this folder, then by name, and must
be the ones that the fusion was fitted with. Their training data count as its own:
`manifest.csv` holds a hash of each clip and speaker that the
model was trained on, so that `ser eval` can warn when it is evaluated on any of them.

## Figures

From cross-validation on the training clips: each speaker was scored with weights and a calibration
fitted on the others, and by members that were not trained on the clip; one training run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
| whole | 0.700 | 0.710 | 0.690 | 0.040 |
"""
    )
    common = "\nOn 1,064 clips of toy, split `test`"
    assert text[text.index(common) :] == SVM_CARD[SVM_CARD.index(common) :]


@pytest.mark.parametrize("safe", [True, False])
def test_card_tells_what_a_baseline_is_worth(folder: Path, safe: bool) -> None:
    mixes = [
        {
            "mix": mix,
            "mean_size": size,
            "figure": "uar",
            "alone": {"uar": 0.6, "ece": 0.05},
            "adapted": {"uar": 0.65, "ece": 0.04},
            "interval": interval,
        }
        for mix, size, interval in (("even", 12.5, [0.02, 0.08]), ("one", 3.0, None))
    ]
    record = {"least": 5, "safe": safe, "mixes": mixes, "command": "ser train -o NAME"}
    text = card(replace(SVM, training={**SVM.training, "adapter": record}), folder, None)
    assert "| even | 12.5 | UAR | 0.600 | 0.650 (+0.020 to +0.080) | 0.040 |" in text
    assert "| one | 3 | UAR | 0.600 | 0.650 (-) | 0.040 |" in text
    assert ("`--adapt auto` uses no baseline" in text) is not safe
    assert "`ser train -o toy-svm`" in text


def test_limits_are_those_of_the_corpus(folder: Path) -> None:
    for corpus, told in (("cremad", True), ("toy+cremad", True), ("cremad2", False)):
        text = card(replace(SVM, training={**SVM.training, "corpus": corpus}), folder)
        assert ("All speakers of CREMA-D say the same 12 sentences" in text) == told
        assert ("If all speakers of the corpus\n  say the same texts" in text) != told
