import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sercli.datasets import Clip
from sercli.errors import DatasetError
from sercli.evaluation.comparison import compare_predictions
from sercli.evaluation.predictions import COLUMNS, Predictions

LABELS = ("anger", "fear", "neutral")


def make_clip(name: str, emotion: str = "anger", speaker: str | None = "ann") -> Clip:
    return Clip(Path(f"{name}.wav"), emotion, speaker, name=name, corpus="plays")


def make_predictions(*clips: Clip) -> Predictions:
    values = np.random.default_rng(0).dirichlet(np.ones(3), len(clips))
    return Predictions("svm", LABELS, clips, values)


@pytest.fixture
def predictions() -> Predictions:
    clips = (
        make_clip("x", "fear"),
        make_clip("y", "anger", "bob"),
        make_clip("z", "neutral", None),
    )
    probabilities = np.array([[0.1, 0.7, 0.2], [0.25, 0.25, 0.5], [0.4, 0.4, 0.2]])
    return Predictions("svm", LABELS, clips, probabilities)


def read_back(folder: Path, predictions: Predictions) -> Predictions:
    table = folder / "predictions.csv"
    predictions.write(table)
    return Predictions.read(table, predictions.model)


def test_labels_as_numbers(predictions: Predictions) -> None:
    assert predictions.y_true.tolist() == [1, 0, 2]
    # Of equal probabilities, the first counts.
    assert predictions.y_pred.tolist() == [1, 2, 0]


def test_table_of_predictions(tmp_path: Path, predictions: Predictions) -> None:
    first, second, third = predictions.clips
    clips = (first, replace(second, start=1.5, end=2.25, channel=1, namespace="table"), third)
    replace(predictions, clips=clips, hashes=("ab12", "", "cd34")).write(
        tmp_path / "predictions.csv"
    )
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*COLUMNS, "prob_anger", "prob_fear", "prob_neutral"]
    read = Predictions.read(tmp_path / "predictions.csv", "svm")
    assert [clip.channel for clip in read.clips] == [None, 1, None]
    assert [clip.namespace for clip in read.clips] == [None, "table", None]
    assert read.hashes == ("ab12", "", "cd34")
    assert read.take(read.keys()[:0:-1]).hashes == ("cd34", "")
    assert rows == [
        "plays x x.wav  0.000  ab12 ann  fear fear 0.7 0.1 0.7 0.2".split(" "),
        "plays y y.wav 1 1.500 2.250  bob table anger neutral 0.5 0.25 0.25 0.5".split(" "),
        "plays z z.wav  0.000  cd34   neutral anger 0.4 0.4 0.4 0.2".split(" "),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "Ärger 怒り",
        "a,b",
        'say "no"',
        "two\nlines",
        "two\r\nlines",
        " spaces ",
        "-1",
        "=A1",
    ],
)
def test_table_survives_any_name(tmp_path: Path, name: str) -> None:
    clips = (
        replace(make_clip(name, "fear", name), corpus=name),
        replace(make_clip(f"{name}/2"), path=Path("folder", name, "x.wav"), start=0.125, end=3.5),
        make_clip("other", speaker=None),
    )
    predictions = make_predictions(*clips)
    found = read_back(tmp_path, predictions)
    assert found.clips == clips
    assert (found.model, found.labels) == ("svm", LABELS)
    assert found.keys() == predictions.keys()


def test_probabilities_survive_to_six_digits(tmp_path: Path) -> None:
    predictions = make_predictions(*(make_clip(str(i)) for i in range(200)))
    found = read_back(tmp_path, predictions)
    np.testing.assert_allclose(found.probabilities, predictions.probabilities, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.y_pred, predictions.y_pred)


def test_probabilities_that_are_almost_equal_keep_their_order(tmp_path: Path) -> None:
    rows = np.array([[0.375, 0.375 + 1e-12, 0.25 - 1e-12], [0.1, 0.2, 0.7]])
    predictions = Predictions("svm", LABELS, (make_clip("x"), make_clip("y")), rows)
    found = read_back(tmp_path, predictions)
    assert found.probabilities.tolist() == rows.tolist()
    assert found.y_pred.tolist() == [1, 2]


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    # The byte FF, as Python holds it in a name.
    odd, plain = make_clip("odd\udcff", speaker="\udcff"), make_clip("plain")
    predictions = make_predictions(odd, plain)
    found = read_back(tmp_path, predictions)
    assert found.clips[0] == make_clip("odd\\udcff", speaker="\\udcff")
    assert found.clips[1] == plain
    # Predictions from a table are those of the same clips as before.
    assert found.keys() == predictions.keys() == [("plays", "odd\\udcff"), ("plays", "plain")]
    assert found.take(predictions.keys()[:1]).clips == found.clips[:1]
    assert predictions.take(found.keys()[:1]).clips == (odd,)


def test_unknown_speakers_stay_unknown(tmp_path: Path, predictions: Predictions) -> None:
    found = read_back(tmp_path, predictions)
    assert [clip.speaker for clip in found.clips] == ["ann", "bob", None]
    assert found.clips[2].voice is None


def test_what_is_resampled(predictions: Predictions) -> None:
    sample, kind = predictions.resampled()
    assert (kind, sample.n_units) == ("segments", 3)
    clips = tuple(make_clip(str(i), speaker="aab"[i]) for i in range(3))
    sample, kind = make_predictions(*clips).resampled()
    assert (kind, sample.n_units) == ("speakers", 2)
    # Who may be a speaker of a published corpus is drawn with that one.
    published = tuple(replace(clip, corpus="emodb", name=f"{clip.name}2") for clip in clips)
    sample, kind = make_predictions(*clips, *published).resampled()
    assert (kind, sample.n_units) == ("speakers", 2)


@pytest.mark.parametrize(
    ("corpora", "n_speakers"),
    [
        # A name in two tables is one speaker, whatever they are called.
        ({"plays": "table", "films": "table"}, 1),
        ({"plays": None, "films": None}, 2),
        # A table of the name of a published corpus may list clips of another.
        ({"cremad": "table", "emodb": None}, 1),
        ({"cremad": None, "emodb": None}, 2),
    ],
)
def test_speakers_are_the_same_when_read_back(
    tmp_path: Path, corpora: dict[str, str | None], n_speakers: int
) -> None:
    clips = [
        replace(make_clip(corpus), corpus=corpus, namespace=namespace)
        for corpus, namespace in corpora.items()
    ]
    predictions = make_predictions(*clips)
    found = read_back(tmp_path, predictions)
    assert predictions.resampled()[0].n_units == found.resampled()[0].n_units == n_speakers
    assert compare_predictions([found, found])["warnings"][-2] == (
        "There are no intervals: all clips are of one speaker."
        if n_speakers == 1
        else "Intervals from 2 speakers are too narrow."
    )


def test_take_gives_clips_in_the_order_asked_for(predictions: Predictions) -> None:
    part = predictions.take([("plays", "z"), ("plays", "x")])
    assert [clip.name for clip in part.clips] == ["z", "x"]
    assert part.probabilities.tolist() == [[0.4, 0.4, 0.2], [0.1, 0.7, 0.2]]
    assert part.y_true.tolist() == [2, 1]
    assert (part.model, part.labels) == ("svm", LABELS)
    with pytest.raises(KeyError):
        predictions.take([("films", "x")])


def test_label_that_was_not_scored(predictions: Predictions) -> None:
    odd = replace(predictions, clips=(make_clip("x", "joy"), *predictions.clips[1:]))
    with pytest.raises(
        DatasetError, match=r"labels \['joy'\] of the corpus are not labels of the model"
    ):
        _ = odd.y_true


@pytest.mark.parametrize(
    ("content", "found"),
    [
        # What `ser annotate` writes.
        (
            b"file,channel,start,end,emotion,confidence,prob_anger\nx.wav,0,0,1,anger,1,1\n",
            "KeyErr",
        ),
        (b"", "IndexError"),
        (",".join((*COLUMNS, "prob_anger")).encode() + b"\n", "IndexError"),
        (",".join((*COLUMNS, "prob_anger")).encode() + b"\nplays,x\n", "TypeError"),
        (
            ",".join((*COLUMNS, "prob_anger")).encode()
            + b"\nplays,x,x.wav,,soon,,,,,anger,anger,1,1",
            "ValueError.*soon",
        ),
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b'a,b\n"' + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_another_kind_of_table(tmp_path: Path, content: bytes, found: str) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    with pytest.raises(
        DatasetError,
        match=rf"table\.csv: cannot be read as a table of predictions \(.*{found}.*\); expected "
        "one that `ser eval -o DIR` wrote",
    ):
        Predictions.read(table, "svm")


def test_small_probabilities_keep_their_logarithms(tmp_path: Path) -> None:
    clips = tuple(Clip(Path(f"{name}.wav"), "anger", name=name, corpus="plays") for name in "ab")
    rows = np.array([[2e-9, 1 - 2e-9], [0.4999996, 0.5000004]])
    Predictions("m", ("anger", "fear"), clips, rows).write(tmp_path / "table.csv")
    read = Predictions.read(tmp_path / "table.csv", "m")
    np.testing.assert_allclose(np.log(read.probabilities), np.log(rows), atol=1e-6)
    assert read.y_pred.tolist() == [1, 1]


def test_of_equal_probabilities_either_may_be_the_label(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    told = dict.fromkeys(COLUMNS, "") | {"corpus": "plays", "clip": "x", "file": "x.wav"}
    told |= {
        "start": "0",
        "speaker": "ann",
        "expected": "anger",
        "emotion": "fear",
        "confidence": "0.5",
    }
    header, row = (
        ",".join((*told, "prob_anger", "prob_fear")),
        ",".join((*told.values(), "0.5,0.5")),
    )
    table.write_text(f"{header}\n{row}\n")
    found = Predictions.read(table, "svm")
    assert (found.clips[0].channel, found.hashes) == (None, ("",))
    assert found.clips[0].voice == "plays/ann"


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv: cannot be read as a table of predictions"):
        Predictions.read(tmp_path / "none.csv", "svm")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("x,anger,0.5,0.4",), r"of x are \[0\.5, 0\.4\]; expected numbers from 0 to 1 whose sum"),
        (("x,anger,1,0", "y,fear,nan,1"), r"of y are \[nan, 1\.0\]; expected numbers"),
        (("x,anger,0.5,0.501",), r"of x are \[0\.5, 0\.501\]; expected numbers"),
        (("x,anger,1.5,-0.5",), r"of x are \[1\.5, -0\.5\]; expected numbers"),
        (("x,anger,1,0", "x,anger,1,0"), "has x in two rows; expected one row per clip"),
        (
            ("x,anger,0.5,0.5,fear,0.6",),
            "of x is fear, with a confidence of 0.6; expected the most",
        ),
        (("x,anger,0.4,0.6,anger,0.4",), "of x is anger, with a confidence of 0.4; expected the m"),
        (
            ("x,anger,0.4,0.6,fear,nan",),
            "of x is fear, with a confidence of nan; expected the most",
        ),
        (("x,anger,0.4,0.6,joy,0.6",), "of x is joy, with a confidence of 0.6; expected the most"),
        (("x,anger,0.4,0.6,fear,much",), "cannot be read as a table of predictions .*much"),
        (("x,joy,1,0",), r"labels \['joy'\] of the corpus are not labels of the model,"),
    ],
)
def test_tables_that_somebody_changed(tmp_path: Path, rows: Sequence[str], message: str) -> None:
    lines = [",".join((*COLUMNS, "prob_anger", "prob_fear"))]
    for row in rows:
        name, label, of_anger, of_fear, *told = row.split(",")
        told = told or ["anger", "1"]
        told = ["plays", name, f"{name}.wav", "", "0", "", "", "", "", label, *told]
        lines.append(",".join((*told, of_anger, of_fear)))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=message):
        Predictions.read(table, "svm")


def test_table_without_probabilities(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    row = "plays,x,x.wav,,0,,,,,anger,anger,1"
    table.write_text("\n".join((",".join(COLUMNS), row)))
    with pytest.raises(
        DatasetError, match=r"of x are \[\]; expected numbers from 0 to 1 whose sum"
    ):
        Predictions.read(table, "svm")
