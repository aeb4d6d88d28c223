import sys
from pathlib import Path
from typing import Any

import audformat
import pytest
from trees import make_tree, summary

from sercli.datasets import read_corpus
from sercli.datasets.facts import person_traits
from sercli.errors import DatasetError


def make_database(root: Path) -> audformat.Database:
    make_tree(root, "a.wav", "b.wav", "c.wav", "spare.wav")
    database = audformat.Database("mydb", languages=["deu"], license="CC0-1.0")
    database.schemes["emotion"] = audformat.Scheme("str")
    database.schemes["speaker"] = audformat.Scheme(
        labels={"s1": {"gender": "female", "age": 31}, "s2": {"gender": "male"}}
    )
    database.splits["dev"] = audformat.Split("dev")
    files = audformat.filewise_index(["a.wav", "b.wav", "c.wav"])
    table = database["files"] = audformat.Table(files)
    table["speaker"] = audformat.Column(scheme_id="speaker")
    table["speaker"].set(["s1", "s2", "s2"])
    for name, split, rows in (
        ("emotion", None, {"a.wav": "happy", "b.wav": "angry", "c.wav": None, "gone.wav": "sad"}),
        ("emotion.train", None, {"a.wav": "happiness"}),
        ("emotion.held", "dev", {"b.wav": "anger"}),
    ):
        table = database[name] = audformat.Table(
            audformat.filewise_index(list(rows)), split_id=split
        )
        table["gold"] = audformat.Column(scheme_id="emotion")
        table["gold"].set(list(rows.values()))
    database.save(str(root))
    return database


def test_audformat(tmp_path: Path) -> None:
    make_database(tmp_path)
    corpus = read_corpus(tmp_path)
    assert (corpus.name, corpus.licence) == ("mydb", "CC0-1.0")
    assert summary(corpus) == [("a.wav", "s1", "happiness"), ("b.wav", "s2", "anger")]
    assert [clip.split for clip in corpus.clips] == ["train", "dev"]
    assert corpus.clips[0].traits == {
        "sex": "female",
        "age_group": "30 to 44",
        "language": "German",
    }
    assert corpus.skipped == {
        "c.wav": "no emotion given",
        "gone.wav": "annotated, but the file is missing",
        "spare.wav": "not annotated",
    }


def test_tables_of_laryngograms_are_no_speech(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    table = database["laryngo.emotion"] = audformat.Table(audformat.filewise_index(["spare.wav"]))
    table["emotion"] = audformat.Column(scheme_id="emotion")
    table["emotion"].set(["angry"])
    database.save(str(tmp_path))
    assert [clip.path.name for clip in read_corpus(tmp_path).clips] == ["a.wav", "b.wav"]
    named = read_corpus(tmp_path, columns={"emotion": "laryngo.emotion/emotion"})
    assert [clip.path.name for clip in named.clips] == ["spare.wav"]


def test_speaker_zero_is_a_speaker(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    database.schemes["number"] = audformat.Scheme("int")
    database["files"]["speaker"] = audformat.Column(scheme_id="number")
    database["files"]["speaker"].set([0, 1, 1])
    database.save(str(tmp_path))
    assert [clip.speaker for clip in read_corpus(tmp_path).clips] == ["0", "1"]


@pytest.mark.parametrize(
    ("age", "group"),
    [
        ("25-30", None),
        ("31", None),
        (None, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (0, "under 30"),
        (44.5, "30 to 44"),
        pytest.param(10**400, "60 and over", id="huge"),
    ],
)
def test_ages_that_are_none_are_left_out(
    tmp_path: Path, age: float | str | None, group: str | None
) -> None:
    database = make_database(tmp_path)
    people = {
        "s1": {"gender": "female", "sex": None, "age": age, "language": " "},
        "s2": {"gender": None, "age": 61},
    }
    database.schemes["speaker"] = audformat.Scheme(labels=people)
    database["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    database["files"]["speaker"].set(["s1", "s2", "s2"])
    database.save(str(tmp_path))
    told = {"sex": "female", "language": "German"} | ({"age_group": group} if group else {})
    traits = [clip.traits for clip in read_corpus(tmp_path).clips]
    assert traits == [told, {"age_group": "60 and over", "language": "German"}]
    # Whoever reads them.
    assert person_traits({"sex": None, "age": age}) == ({"age_group": group} if group else {})


def test_people_of_whom_a_table_lacks_something(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    people = database["people"] = audformat.MiscTable(
        audformat.filewise_index(["s1", "s2"]).rename("speaker")
    )
    for name, kind, cells in (("age", "int", [40, None]), ("sex", "str", [None, "male"])):
        database.schemes[name] = audformat.Scheme(kind)
        people[name] = audformat.Column(scheme_id=name)
        people[name].set(cells)
    database.schemes["speaker"] = audformat.Scheme("str", labels="people")
    database.save(str(tmp_path))
    traits = [clip.traits for clip in read_corpus(tmp_path).clips]
    assert traits == [
        {"age_group": "30 to 44", "language": "German"},
        {"sex": "male", "language": "German"},
    ]


def add_segments(database: audformat.Database, values: dict[str, Any]) -> None:
    index = audformat.segmented_index(["a.wav", "a.wav"], ["0.5s", "2s"], ["1.25s", "NaT"])
    table = database["segments"] = audformat.Table(index)
    for name, cells in values.items():
        table[name] = audformat.Column(scheme_id="emotion")
        table[name].set(cells)
    database.save(database.root)


def test_stretches_and_columns_of_audformat(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    add_segments(database, {"fe\u0301lt": ["sad", "fear"], "shown": ["neutral", "disgust"]})
    with pytest.raises(DatasetError, match=r"table segments has the columns f.+lt, shown for emot"):
        read_corpus(tmp_path)
    corpus = read_corpus(tmp_path, columns={"emotion": "f\u00e9lt"})
    assert summary(corpus) == [("a.wav#0.5-1.25", "s1", "sadness"), ("a.wav#2-", "s1", "fear")]
    assert [(clip.start, clip.end) for clip in corpus.clips] == [(0.5, 1.25), (2.0, None)]
    (clip,) = read_corpus(tmp_path, columns={"emotion": "*.held/gold"}).clips
    assert (clip.name, clip.split) == ("b.wav", "dev")
    with pytest.raises(
        DatasetError, match=r"no table has a column 'mood' with rows; found emotion/gold, "
    ):
        read_corpus(tmp_path, columns={"emotion": "mood"})


def test_speakers_and_splits_row_by_row_in_audformat(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    database["files"]["speaker"].set(["s1", None, None])
    database["files"]["split"] = audformat.Column()
    database["files"]["split"].set(["val", None, None])
    database.save(str(tmp_path))
    # The table emotion.train says otherwise of a.wav, but a column comes before tables.
    clips = read_corpus(tmp_path).clips
    assert [(clip.speaker, clip.split) for clip in clips] == [("s1", "dev"), (None, "dev")]


def test_labels_that_contradict_in_audformat(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    database["emotion.train"]["gold"].set(["sad"])
    database.save(str(tmp_path))
    assert read_corpus(tmp_path).skipped["a.wav"] == "labelled both happiness and sadness"
    database["emotion.train"]["gold"].set(["no_agreement"])
    database.save(str(tmp_path))
    assert read_corpus(tmp_path).skipped["a.wav"] == "labelled both happiness and no agreement"


def test_speakers_in_a_table_of_audformat(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    people = database["people"] = audformat.MiscTable(
        audformat.filewise_index(["s1", "s2"]).rename("speaker")
    )
    database.schemes["sex"] = audformat.Scheme(labels=["male", "female"])
    people["sex"] = audformat.Column(scheme_id="sex")
    people["sex"].set(["female", None])
    database.schemes["speaker"] = audformat.Scheme("str", labels="people")
    database.save(str(tmp_path))
    traits = [clip.traits for clip in read_corpus(tmp_path).clips]
    assert traits == [{"sex": "female", "language": "German"}, {"language": "German"}]


def test_a_known_corpus_in_audformat_is_told(tmp_path: Path) -> None:
    make_tree(tmp_path, "wav/03a01Fa.wav", "db.yaml")
    with pytest.raises(
        DatasetError, match=r"looks like emodb \(.*\) and like audformat \(db\.yaml\)"
    ):
        read_corpus(tmp_path)
    assert read_corpus(tmp_path, "emodb").clips[0].emotion == "happiness"


def test_audformat_that_is_missing_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path, "a.wav")
    with pytest.raises(DatasetError, match=r"has no db\.yaml"):
        read_corpus(tmp_path, "audformat")
    (tmp_path / "db.yaml").write_text("name: [")
    with pytest.raises(DatasetError, match="audformat cannot load it"):
        read_corpus(tmp_path)
    monkeypatch.setitem(sys.modules, "audformat", None)
    with pytest.raises(DatasetError, match=r"pip install 'sercli\[audformat\]'"):
        read_corpus(tmp_path)
