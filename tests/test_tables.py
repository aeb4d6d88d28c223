import os
import re
from pathlib import Path
from typing import Any

import pytest
from trees import make_tree, summary

from sercli.datasets import read_corpora, read_corpus
from sercli.datasets.matching import is_published
from sercli.errors import ConfigError, DatasetError


def test_folders_of_classes(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    make_tree(root, "Angry/deep/a.wav", "Angry/deep/a.mp3", "happy/b.flac", "shrug/c.wav", "d.wav")
    make_tree(root, ".cache/happy/e.wav")
    corpus = read_corpus(root)
    assert corpus.name == "mine"
    assert summary(corpus) == [
        ("Angry/deep/a.wav", None, "anger"),
        ("happy/b.flac", None, "happiness"),
        ("shrug/c.wav", None, "shrug"),
    ]
    assert corpus.skipped == {
        "Angry/deep/a.mp3": "another copy of a clip",
        "d.wav": "not in a sub-folder of a class",
    }
    mapped = read_corpus(root, "folders", mapping={"ANGRY": "upset", "happiness": "fine"})
    assert [clip.emotion for clip in mapped.clips] == ["upset", "fine", "shrug"]


def test_folders_of_classes_in_those_of_splits(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    make_tree(
        root,
        *(
            f"{split}/{label}/1.wav"
            for split in ("train", "Validation")
            for label in ("angry", "sad")
        ),
    )
    make_tree(root, "train/stray.wav")
    for kind in ("auto", "folders"):
        corpus = read_corpus(root, kind)
        assert [(clip.name, clip.emotion, clip.split) for clip in corpus.clips] == [
            ("Validation/angry/1.wav", "anger", "dev"),
            ("Validation/sad/1.wav", "sadness", "dev"),
            ("train/angry/1.wav", "anger", "train"),
            ("train/sad/1.wav", "sadness", "train"),
        ]
        assert corpus.skipped == {"train/stray.wav": "not in a sub-folder of a class"}


@pytest.mark.parametrize("kind", ["auto", "folders"])
def test_folders_of_classes_may_be_wrapped_in_a_folder(tmp_path: Path, kind: str) -> None:
    inner = tmp_path / "AESDD" / "Acted Speech"
    make_tree(inner, "anger/a.wav", "fear/deep/b.wav", "shrug/c.wav")
    make_tree(tmp_path / "AESDD", "papers/readme.pdf")
    corpus = read_corpus(tmp_path / "AESDD", kind)
    assert corpus == read_corpus(inner, kind)
    assert corpus.name == "Acted Speech"
    assert summary(corpus) == [
        ("anger/a.wav", None, "anger"),
        ("fear/deep/b.wav", None, "fear"),
        ("shrug/c.wav", None, "shrug"),
    ]
    # With those of splits, too.
    make_tree(tmp_path / "both" / "inner", "train/sad/a.wav", "test/sad/b.wav", "test/angry/c.wav")
    assert {clip.split for clip in read_corpus(tmp_path / "both", kind).clips} == {"train", "test"}


def test_a_wrapped_corpus_is_still_recognised_by_its_other_marks(tmp_path: Path) -> None:
    make_tree(tmp_path, "AudioWAV/anger/1001_DFA_ANG_XX.wav", "AudioWAV/fear/1001_DFA_FEA_XX.wav")
    assert read_corpus(tmp_path).name == "cremad"
    # A single folder that is named as a split is no wrapper.
    split = make_tree(tmp_path / "mine", "train/sad/a.wav", "train/angry/b.wav")
    assert {clip.split for clip in read_corpus(split).clips} == {"train"}


def test_labels_beside_wrapped_recordings_go_before_their_folders(tmp_path: Path) -> None:
    make_tree(tmp_path, "audio/anger/a.wav", "audio/fear/b.wav")
    (tmp_path / "audio/anger/a.txt").write_text("0\t1\tsadness\n")
    (tmp_path / "audio/fear/b.txt").write_text("1\t2\tneutral\n")
    assert {clip.emotion for clip in read_corpus(tmp_path).clips} == {"sadness", "neutral"}
    for name in ("anger/a", "fear/b"):
        (tmp_path / "audio" / f"{name}.txt").write_text("0\t1\twell then\n")
    assert {clip.emotion for clip in read_corpus(tmp_path).clips} == {"anger", "fear"}


def test_a_recording_beside_folders_of_splits_is_in_no_class(tmp_path: Path) -> None:
    make_tree(
        tmp_path, "train/angry/1001_DFA_ANG_XX.wav", "test/happy/1002_DFA_HAP_XX.wav", "x.wav"
    )
    corpus = read_corpus(tmp_path)
    assert corpus.name == "cremad"
    assert {clip.emotion for clip in corpus.clips} == {"anger", "happiness"}
    assert corpus.skipped == {"x.wav": "not named like 1001_DFA_ANG_XX.wav"}


@pytest.mark.parametrize("beside", ["d.wav", "Inbox/d.wav"])
def test_a_folder_with_other_recordings_is_no_wrapper(tmp_path: Path, beside: str) -> None:
    make_tree(tmp_path, "inner/anger/a.wav", "inner/fear/b.wav", beside)
    with pytest.raises(DatasetError, match="is none of the known corpora"):
        read_corpus(tmp_path)


def test_folders_of_classes_of_which_one_is_named_as_a_split(tmp_path: Path) -> None:
    make_tree(tmp_path, "sad/a.wav", "test/b.wav")
    assert [
        (clip.name, clip.emotion, clip.split) for clip in read_corpus(tmp_path, "folders").clips
    ] == [
        ("sad/a.wav", "sadness", None),
        ("test/b.wav", "test", None),
    ]


def test_folders_that_are_named_as_a_published_corpus_are_not_that(tmp_path: Path) -> None:
    make_tree(tmp_path / "cremad", "sad/a.wav")
    (clip,) = read_corpus(tmp_path / "cremad", "folders").clips
    assert clip.corpus == "cremad"
    assert not is_published(clip)


def test_clips_whose_annotators_disagreed_have_no_label(tmp_path: Path) -> None:
    text = "file,emotion\na.wav,Xxx\nsub/b.wav,oth\n"
    path = write_manifest(tmp_path, text)
    corpus = read_corpus(path)
    assert [clip.emotion for clip in corpus.clips] == ["other"]
    assert [*corpus.skipped.values()] == ["no agreement among the annotators"]
    mapped = read_corpus(path, mapping={"xxx": "unclear"})
    assert [clip.emotion for clip in mapped.clips] == ["unclear", "other"]


def test_folders_named_otherwise_are_to_be_asked_for(tmp_path: Path) -> None:
    make_tree(tmp_path, "Inbox/a.wav", "Sent/b.wav", "happy/c.wav")
    with pytest.raises(DatasetError, match="is none of the known corpora"):
        read_corpus(tmp_path)
    assert len(read_corpus(tmp_path, "folders").clips) == 3


def write_manifest(root: Path, text: str, name: str = "calls.csv") -> Path:
    make_tree(root, "a.wav", "sub/b.wav")
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_spaces_around_a_name_count_if_the_file_has_them(tmp_path: Path) -> None:
    (tmp_path / "c.wav ").touch()
    corpus = read_corpus(write_manifest(tmp_path, "file,emotion\n a.wav, sad\nc.wav ,happy\n"))
    assert [clip.path.name for clip in corpus.clips] == ["a.wav", "c.wav "]


def test_manifest(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path,
        "\ufefffile,emotion,speaker,start,end,split,channel,room\n"
        'sub/b.wav,Sad,Ann,,,val,mix,"hall, small"\n'
        "a.wav,happy,Bob,0.5,1.25,train,1,\n"
        "a.wav,sad,Cem,0.5,1.25,train,0,\n"
        "a.wav,angry,,2,,TEST,,cell\n\n"
        "gone.wav,happy,Bob,,,,,\n"
        "./a.wav,,Bob,9,10,,,\n",
    )
    corpus = read_corpus(path)
    assert corpus.name == "calls"
    assert summary(corpus) == [
        ("a.wav#0.5-1.25@0", "Cem", "sadness"),
        ("a.wav#0.5-1.25@1", "Bob", "happiness"),
        ("a.wav#2-", None, "anger"),
        ("sub/b.wav", "Ann", "sadness"),
    ]
    assert [(clip.start, clip.end, clip.channel) for clip in corpus.clips] == [
        (0.5, 1.25, 0),
        (0.5, 1.25, 1),
        (2.0, None, None),
        (0, None, None),
    ]
    assert [clip.split for clip in corpus.clips] == ["train", "train", "test", "dev"]
    rooms = [{}, {}, {"room": "cell"}, {"room": "hall, small"}]
    assert [clip.traits for clip in corpus.clips] == rooms
    assert corpus.clips[3].path == tmp_path / "sub/b.wav"
    assert corpus.clips[0].place == f"{tmp_path / 'a.wav'}#0.5-1.25@0"
    assert corpus.skipped == {
        "gone.wav": "annotated, but the file is missing, such as gone.wav, which is neither in the "
        "table's folder nor in the working directory",
        "a.wav#9-10": "no emotion given",
    }


def test_paths_in_the_output_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undecodable = os.fsdecode(b"calls/caf\xe9.wav")
    make_tree(tmp_path, "calls/a.wav", "calls/b.wav", "out/calls/b.wav", undecodable)
    path = tmp_path / "out" / "labels.csv"
    rows = ("calls/a.wav,0,1,anger", "calls/b.wav,0,1,anger", r"calls/caf\xe9.wav,0,1,anger")
    path.write_text("\n".join(("file,start,end,emotion", *rows)))
    monkeypatch.chdir(tmp_path)
    found = [clip.path.resolve() for clip in read_corpus(path).clips]
    assert found == [tmp_path / name for name in ("calls/a.wav", "out/calls/b.wav", undecodable)]


def test_rows_that_differ_in_words_which_become_one_label(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path,
        "file,emotion\na.wav,pleased\na.wav,Joy\nsub/b.wav,pleased\nsub/b.wav,sad\n",
    )
    corpus = read_corpus(path, mapping={"pleased": "joy", "happiness": "joy"})
    assert summary(corpus) == [("a.wav", None, "joy")]
    assert corpus.skipped == {
        "a.wav (copy 2)": "a duplicate row",
        "sub/b.wav": "in several rows: labelled joy and sadness",
    }


def test_words_in_any_form_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = "fr\u00f6hlich", "fro\u0308hlich"
    path = write_manifest(
        tmp_path,
        f"file,emotion,speaker\na.wav,{composed},Zo\u00eb\nsub/b.wav,{decomposed},Zoe\u0308\n",
    )
    corpus = read_corpus(path)
    assert summary(corpus) == [
        ("a.wav", "Zo\u00eb", composed),
        ("sub/b.wav", "Zo\u00eb", composed),
    ]
    for key in (composed, decomposed):
        named = read_corpus(path, mapping={key: "happiness"})
        assert {clip.emotion for clip in named.clips} == {"happiness"}


def test_rows_that_repeat_or_contradict(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path,
        "file;emotion\na.wav;happy\n./a.wav;happiness\nsub/b.wav;sad\nsub/../sub/b.wav;angry\n",
    )
    told = write_manifest(
        tmp_path,
        "file,emotion,speaker,split\na.wav,sad,s1,train\na.wav,sad,s2,test\nsub/b.wav,sad,,\n",
        "told.csv",
    )
    # Which of two rows is right, where one tells less, nobody knows.
    partly = write_manifest(
        tmp_path,
        "file,emotion,speaker,split\na.wav,sad,s1,\na.wav,sad,,test\nsub/b.wav,sad,,\n",
        "partly.csv",
    )
    corpus = read_corpus(path)
    assert summary(corpus) == [("a.wav", None, "happiness")]
    assert corpus.skipped == {
        "a.wav (copy 2)": "a duplicate row",
        "sub/b.wav": "in several rows: labelled anger and sadness",
    }
    assert read_corpus(told).skipped == {
        "a.wav": "in several rows: of the split test and train, by the speaker s1 and s2"
    }
    assert read_corpus(partly).skipped == {
        "a.wav": "in several rows: of the split none and test, by the speaker s1 and unknown"
    }


def test_two_tables_of_the_same_name_have_to_be_renamed(tmp_path: Path) -> None:
    text = "file,emotion\na.wav,sad\n"
    tables = [(write_manifest(tmp_path / day, text), "auto") for day in ("monday", "tuesday")]
    with pytest.raises(
        DatasetError, match=r"same name: calls, calls; .* or rename a folder or table of your own"
    ):
        read_corpora(tables)


def test_clips_that_are_in_two_corpora(tmp_path: Path) -> None:
    names = [f"1001_DFA_{code}_XX.wav" for code in ("ANG", "SAD", "FEA")]
    make_tree(tmp_path, *names, "1002_DFA_HAP_XX.wav")
    rows = f"{names[0]},anger,", f"{names[1]},fear,", f"{names[2]},fear,dev", "a.wav,sad,test"
    table = write_manifest(tmp_path, "\n".join(("file,emotion,split", *rows)))
    (tmp_path / "linked").symlink_to(tmp_path)
    sources = [(tmp_path, "cremad"), (tmp_path / "linked" / table.name, "auto")]
    corpus = read_corpora(sources)
    assert [(clip.corpus, clip.name, clip.emotion, clip.split) for clip in corpus.clips] == [
        ("cremad", "1001_DFA_ANG_XX", "anger", "train"),
        ("cremad", "1002_DFA_HAP_XX", "happiness", "train"),
        ("calls", "a.wav", "sadness", "test"),
    ]
    skipped = {name: why for name, why in corpus.skipped.items() if "in " in why}
    label, split = "labelled fear and sadness", "of the split dev and train"
    assert skipped == {
        "calls/1001_DFA_ANG_XX.wav": "also in cremad",
        **dict.fromkeys(
            ("cremad/1001_DFA_SAD_XX", "calls/1001_DFA_SAD_XX.wav"),
            f"in several corpora: {label}",
        ),
        **dict.fromkeys(
            ("cremad/1001_DFA_FEA_XX", "calls/1001_DFA_FEA_XX.wav"),
            f"in several corpora: {split}",
        ),
    }
    # The split that only the second one tells.
    first = read_corpora([*reversed(sources)]).clips
    assert [(clip.corpus, clip.split) for clip in first if clip.emotion == "anger"] == [
        ("calls", "train")
    ]


def test_words_for_the_split_to_choose_settings_on(tmp_path: Path) -> None:
    text = "file,emotion,split\na.wav,sad,Train\nsub/b.wav,sad,Development\n"
    splits = {clip.split for clip in read_corpus(write_manifest(tmp_path, text)).clips}
    assert splits == {"train", "dev"}
    make_tree(tmp_path / "mine", "development/angry/a.wav", "development/sad/b.wav")
    corpus = read_corpus(tmp_path / "mine")
    assert [(clip.emotion, clip.split) for clip in corpus.clips] == [
        ("anger", "dev"),
        ("sadness", "dev"),
    ]
    wrong = write_manifest(tmp_path, "file,emotion,split\na.wav,sad,Test1\n")
    with pytest.raises(DatasetError, match="line 2: split is 'Test1'; expected train"):
        read_corpus(wrong)


def test_rows_that_spell_the_path_of_one_file_in_several_ways(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "sub/b.wav")
    make_tree(tmp_path, "c.wav")
    whole, b = ((tmp_path / name).as_posix() for name in ("a.wav", "sub/b.wav"))
    rows = (
        *("a.wav,anger,", f"{whole},angry,", f"{whole},joy,1"),
        *("sub/b.wav,anger,", f"{b},sadness,", "link.wav,anger,"),
        "c.wav,fear,",
    )
    path = write_manifest(tmp_path, "\n".join(("file,emotion,start", *rows)))
    corpus = read_corpus(path)
    assert summary(corpus) == [
        (f"{whole}#1-", None, "happiness"),
        ("a.wav", None, "anger"),
        ("c.wav", None, "fear"),
    ]
    doubt = "in several rows: labelled anger and sadness"
    assert corpus.skipped == {
        "a.wav (copy 2)": "a duplicate row",
        **dict.fromkeys(("sub/b.wav", b, "link.wav"), doubt),
    }


def test_a_table_that_was_made_on_windows(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "file,emotion\nsub\\b.wav,sad\n.\\a.wav,sad\nsub\\c.wav,sad\n")
    corpus = read_corpus(path)
    found = [(clip.name, clip.path.relative_to(tmp_path).as_posix()) for clip in corpus.clips]
    assert sorted(found) == [("a.wav", "a.wav"), ("sub/b.wav", "sub/b.wav")]
    assert list(corpus.skipped) == ["sub\\c.wav"]


def test_speakers_who_are_called_unknown_are_not_one_person(tmp_path: Path) -> None:
    rows = "a.wav,sad,Unknown,train", "sub/b.wav,sad,unknown,test"
    clips = read_corpus(
        write_manifest(tmp_path, "\n".join(("file,emotion,speaker,split", *rows)))
    ).clips
    assert [(clip.speaker, clip.split) for clip in clips] == [(None, "train"), (None, "test")]


def test_files_in_any_form_of_unicode(tmp_path: Path) -> None:
    decomposed, composed = "Zoe\u0308.wav", "Zo\u00eb.wav"
    path = write_manifest(tmp_path, f"file,emotion\n{composed},sad\n")
    (tmp_path / decomposed).touch()
    (clip,) = read_corpus(path).clips
    assert clip.path == tmp_path / decomposed
    # Where both are there, each is itself.
    (tmp_path / composed).touch()
    (clip,) = read_corpus(path).clips
    assert clip.path == tmp_path / composed


@pytest.mark.parametrize("name", ["calls.tsv", "calls.txt"])
def test_columns_of_other_names(tmp_path: Path, name: str) -> None:
    text = "path\tlabel\temotion\tgender\na.wav\tfearful\told\tfemale\n"
    path = write_manifest(tmp_path, text, name)
    columns = {"file": "path", "emotion": "label", "sex": "gender"}
    (clip,) = read_corpus(path, columns=columns).clips
    assert clip.emotion == "fear"
    assert clip.traits == {"their emotion": "old", "sex": "female"}
    with pytest.raises(DatasetError, match=r"columns path, label, .*expected file; .*--columns"):
        read_corpus(path)
    with pytest.raises(DatasetError, match="expected speaker_id"):
        read_corpus(path, columns={**columns, "speaker": "speaker_id"})


@pytest.mark.parametrize("header", ["E\u0301motion", "\u00c9motion"])
def test_columns_in_any_form_of_unicode(tmp_path: Path, header: str) -> None:
    path = write_manifest(tmp_path, f"file,{header}\na.wav,sad\n")
    for name in ("E\u0301motion", "\u00c9motion"):
        (clip,) = read_corpus(path, columns={"emotion": name}).clips
        assert clip.emotion == "sadness"


@pytest.mark.parametrize("wrong", ["angry=x", ["angry"], {"angry": 1}, {1: "angry"}, None])
def test_names_that_are_no_mapping(tmp_path: Path, wrong: Any) -> None:
    path = write_manifest(tmp_path, "file,emotion\na.wav,sad\n")
    found = re.escape(repr(wrong))
    with pytest.raises(ConfigError, match=rf"^mapping is {found}; expected a dict .*'happiness'"):
        read_corpus(path, mapping=wrong)
    with pytest.raises(ConfigError, match=rf"^columns is {found}; expected a dict .*'path'"):
        read_corpus(path, columns=wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected CSV, or TSV, in UTF-8, with the names of the columns first"),
        ("file,emotion,start\na.wav,sad,soon\n", "line 2: start is 'soon'; expected seconds"),
        ("file,emotion,start\na.wav,sad,nan\n", "line 2: start is 'nan'"),
        ("file,emotion,start\na.wav,sad,1_0\n", "line 2: start is '1_0'; expected seconds"),
        ("file,emotion,end\na.wav,sad,1\na.wav,sad,-1\n", "line 3: end is '-1'"),
        ("file,emotion,start,end\na.wav,sad,2,2\n", "line 2: ends at 2 s and starts at 2 s"),
        ("file,emotion,split\na.wav,sad,holdout\n", "line 2: split is 'holdout'; expected train"),
        ("file,emotion,channel\na.wav,sad,left\n", "line 2: channel is 'left'; expected its index"),
        ("file,emotion,channel\na.wav,sad,-1\n", "line 2: channel is '-1'; expected its index"),
        ("file,emotion\na.wav,sad,x\n", "line 2: has 3 cells; expected 2"),
        ("file,emotion\n,sad\n", "line 2: names no file"),
        ("file,emotion,x,x\na.wav,sad,1,2\n", "two columns 'x'"),
        (
            "file,emotion,end\na.wav,sad,1e308\n",
            "line 2: end is '1e308'; expected seconds, with a decimal point, from 0",
        ),
        (f"file,emotion,end\na.wav,sad,{'9' * 5_000}\n", r"line 2: end is '9+\.\.\.9+'; expected"),
        (f"file,emotion,channel\na.wav,sad,{'9' * 5_000}\n", r"line 2: channel is '9+\.\.\.9+'; e"),
        ("file,emotion\ngone.wav,sad\n", "no usable clip: .*the file is missing"),
    ],
)
def test_manifests_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_corpus(write_manifest(tmp_path, text))
