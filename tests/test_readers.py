from pathlib import Path

import pytest
from trees import make_tree, summary

from sercli.datasets import read_corpus
from sercli.datasets.annotated import _split_of_folder
from sercli.datasets.facts import load_facts
from sercli.errors import DatasetError

SESSION = "Session1"


def test_ravdess(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "Audio/Actor_12/03-01-05-02-02-01-12.wav",
        "Video/Actor_12/01-01-05-02-02-01-12.mp4",
        "Video/Actor_12/02-01-05-02-02-01-12.mp4",
        "Video/Actor_11/01-01-08-01-01-02-11.mp4",
        "Song/Actor_12/03-02-02-01-01-01-12.wav",
    )
    corpus = read_corpus(tmp_path)
    assert summary(corpus) == [
        ("01-01-08-01-01-02-11", "11", "surprise"),
        ("03-01-05-02-02-01-12", "12", "anger"),
    ]
    assert corpus.clips[0].traits["sex"] == "male"
    assert corpus.clips[1].traits == {
        "sex": "female",
        "language": "English",
        "sentence": "Dogs are sitting by the door",
        "intensity": "strong",
        "channel": "speech",
    }
    assert corpus.skipped == {
        "Video/Actor_12/01-01-05-02-02-01-12.mp4": "another copy of a clip",
        "02-01-05-02-02-01-12": "video without sound",
        "03-02-02-01-01-01-12": "song; --song reads it",
    }
    sung = read_corpus(tmp_path, song=True).clips[-1]
    assert (sung.emotion, sung.traits["channel"]) == ("calm", "song")


def test_tess(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "YAF_pleasant_surprised/YAF_home_ps.wav",
        "OAF_neutral/OA_bite_neutral.wav",
        "TESS/OAF_neutral/OAF_back_sad.wav",
        "OAF_neutral/OAF_back_sad.wav",
    )
    corpus = read_corpus(tmp_path)
    assert summary(corpus) == [
        ("OAF_back_sad", "OAF", "sadness"),
        ("OA_bite_neutral", "OAF", "neutral"),
        ("YAF_home_ps", "YAF", "surprise"),
    ]
    assert [clip.traits["age_group"] for clip in corpus.clips] == ["60 and over"] * 2 + ["under 30"]
    assert corpus.clips[2].traits["sentence"] == "home"
    assert corpus.skipped == {"TESS/OAF_neutral/OAF_back_sad.wav": "another copy of a clip"}


def test_savee_clips_are_named_with_their_speakers(tmp_path: Path) -> None:
    make_tree(tmp_path, "AudioData/DC/sa01.wav", "AudioData/JE/sa01.wav", "all/DC_sa01.wav")
    make_tree(tmp_path, "AudioData/KL/su15.wav", "AudioData/KL/n30.flac", "AudioData/XX/n30.flac")
    corpus = read_corpus(tmp_path)
    assert summary(corpus) == [
        ("DC_sa01", "DC", "sadness"),
        ("JE_sa01", "JE", "sadness"),
        ("KL_n30", "KL", "neutral"),
        ("KL_su15", "KL", "surprise"),
    ]
    assert {clip.traits["sex"] for clip in corpus.clips} == {"male"}
    assert corpus.skipped == {
        "all/DC_sa01.wav": "another copy of a clip",
        "AudioData/XX/n30.flac": "not named like DC/a01.wav",
    }


def test_emodb(tmp_path: Path) -> None:
    make_tree(tmp_path, "wav/08b03Lb.wav", "wav/11a02Tc.wav", "wav/03a01Nc.wav")
    corpus = read_corpus(tmp_path)
    assert summary(corpus) == [
        ("03a01Nc", "03", "neutral"),
        ("08b03Lb", "08", "boredom"),
        ("11a02Tc", "11", "sadness"),
    ]
    traits = [(clip.traits["sex"], clip.traits["age_group"]) for clip in corpus.clips]
    assert traits == [("male", "30 to 44"), ("female", "30 to 44"), ("male", "under 30")]
    assert corpus.clips[2].traits["sentence"] == "Das will sie am Mittwoch abgeben"


def test_emovo(tmp_path: Path) -> None:
    make_tree(tmp_path, "f2/gio-f2-l4.wav", "m3/rab-m3-n1.wav", "m3/pau-m3-n1.wav")
    corpus = read_corpus(tmp_path)
    assert [clip.emotion for clip in corpus.clips] == ["happiness", "fear", "anger"]
    assert corpus.clips[0].traits == {"sex": "female", "language": "Italian", "sentence": "l4"}


def test_esd(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "0011/Angry/train/0011_000351.wav",
        "0011/Happy/evaluation/0011_000701.wav",
        "0011/Surprise/test/0011_001401.wav",
        "0001/Neutral/0001_000001.wav",
        "0001/Humming/0001_000002.wav",
    )
    corpus = read_corpus(tmp_path)
    assert [(clip.emotion, clip.split) for clip in corpus.clips] == [
        ("neutral", None),
        ("anger", "train"),
        ("happiness", "dev"),
        ("surprise", "test"),
    ]
    # Of two copies, that whose split is known.
    make_tree(tmp_path, "0011/Angry/0011_000351.wav")
    assert read_corpus(tmp_path).clips[1].split == "train"
    assert corpus.clips[0].traits == {"sex": "female", "language": "Mandarin"}
    assert corpus.clips[1].traits == {"sex": "male", "language": "English"}
    assert corpus.skipped == {"0001_000002": "unknown emotion Humming"}
    languages = [speaker["language"] for speaker in load_facts("esd")["speakers"].values()]
    assert languages == ["Mandarin"] * 10 + ["English"] * 10


def make_iemocap(root: Path) -> Path:
    wav = f"{SESSION}/sentences/wav"
    make_tree(
        root,
        *(f"{wav}/Ses01F_impro01/Ses01F_impro01_{turn}.wav" for turn in ("F000", "M003", "F001")),
        f"{wav}/Ses01M_script01_1b/Ses01M_script01_1b_M002.wav",
        f"{wav}/Ses01F_impro01/Ses01F_impro01_F099.wav",
        f"{SESSION}/dialog/wav/Ses01F_impro01.wav",
    )
    folder = root / SESSION / "dialog/EmoEvaluation"
    folder.mkdir()
    (folder / "Ses01F_impro01.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_F001\txxx\t[2.5000, 2.5000, 2.5000]\n"
        "[14.8872 - 18.0175]\tSes01F_impro01_M003\tfru\t[2.5000, 2.5000, 2.5000]\n"
        "[19.2900 - 20.7875]\tSes01F_impro01_M004\tang\t[2.5000, 2.5000, 2.5000]\n"
    )
    (folder / "Ses01M_script01_1b.txt").write_text(
        "[1.0 - 2.5]\tSes01M_script01_1b_M002\texc\t[2.5, 2.5, 2.5]\n"
    )
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05")
    return root


def test_iemocap(tmp_path: Path) -> None:
    corpus = read_corpus(make_iemocap(tmp_path))
    # The one who speaks is told by the turn, not by the dialogue.
    assert summary(corpus) == [
        ("Ses01F_impro01_F000", "Ses01F", "neutral"),
        ("Ses01F_impro01_M003", "Ses01M", "frustration"),
        ("Ses01M_script01_1b_M002", "Ses01M", "excitement"),
    ]
    assert corpus.clips[1].traits == {"sex": "male", "language": "English", "type": "improvised"}
    assert corpus.clips[2].traits["type"] == "scripted"
    assert corpus.skipped == {
        "Ses01F_impro01_F001": "no agreement among the annotators",
        "Ses01F_impro01_M004": "annotated, but the file is missing",
        "Ses01F_impro01_F099": "not annotated",
        f"{SESSION}/dialog/wav/Ses01F_impro01.wav": "a whole dialogue",
    }
    utterances = read_corpus(tmp_path / SESSION / "sentences/wav")
    assert [clip.name for clip in utterances.clips] == [clip.name for clip in corpus.clips]


def test_iemocap_without_annotations(tmp_path: Path) -> None:
    make_tree(tmp_path, "Ses01F_impro01_F000.wav")
    with pytest.raises(DatasetError, match=r"expected IEMOCAP's SessionN/dialog/EmoEvaluation"):
        read_corpus(tmp_path)


def make_meld(root: Path) -> Path:
    make_tree(
        root,
        *(f"train/train_splits/dia{name}.mp4" for name in ("0_utt0", "0_utt1", "125_utt3")),
        "train/wav/train/dia0_utt0.wav",
        "dev_splits_complete/dia0_utt0.mp4",
        "dev_splits_complete/dia66_utt9.mp4",
        "output_repeated_splits_test/dia0_utt0.mp4",
        "output_repeated_splits_test/dia0_utt1.mp4",
        "output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
        "output_repeated_splits_test/._dia0_utt0.mp4",
    )
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,StartTime\n"
    rows = {
        "train/train": '1,"No, don\x92t",Chandler,joy,positive,0,0,"00:16:16,059"\n'
        "2,Oh,Rachel,surprise,positive,0,1,0\n3,Hm,Rachel,fear,negative,125,3,0\n",
        "dev": "1,What?,Waiter,anger,negative,0,0,0\n2,No,Ross,anger,negative,110,7,0\n",
        "test": "1,Why?,Monica,sadness,negative,0,0,0\n2,Yay!!,All,joy,positive,0,1,0\n",
    }
    for split, text in rows.items():
        (root / f"{split}_sent_emo.csv").write_text(
            head + text, encoding="cp1252", errors="replace"
        )
    return root


def test_meld(tmp_path: Path) -> None:
    corpus = read_corpus(make_meld(tmp_path))
    assert summary(corpus) == [
        ("dev/dia0_utt0", "Waiter", "anger"),
        ("test/dia0_utt0", "Monica", "sadness"),
        ("train/dia0_utt0", "Chandler", "happiness"),
        ("train/dia0_utt1", "Rachel", "surprise"),
    ]
    assert [clip.split for clip in corpus.clips] == ["dev", "test", "train", "train"]
    assert corpus.clips[2].path == tmp_path / "train/wav/train/dia0_utt0.wav"
    assert corpus.clips[0].traits == {"language": "English"}
    assert corpus.clips[1].traits == {"sex": "female", "language": "English"}
    assert corpus.skipped == {
        "dev/dia66_utt9": "not annotated",
        "dev/dia110_utt7": "annotated, but the file is missing",
        "train/dia125_utt3": "cannot be decoded",
        "test/dia0_utt1": "several speakers",
        "train/train_splits/dia0_utt0.mp4": "another copy of a clip",
        "output_repeated_splits_test/final_videos_testdia0_utt0.mp4": "another copy of a clip",
    }


def test_a_split_of_meld(tmp_path: Path) -> None:
    make_meld(tmp_path)
    corpus = read_corpus(tmp_path / "dev_splits_complete")
    assert [clip.name for clip in corpus.clips] == ["dev/dia0_utt0"]
    assert set(corpus.skipped) == {"dev/dia66_utt9", "dev/dia110_utt7"}
    (tmp_path / "dev_sent_emo.csv").unlink()
    with pytest.raises(DatasetError, match=r"no table of annotations; expected dev_sent_emo\.csv"):
        read_corpus(tmp_path / "dev_splits_complete")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_splits", "train"),
        ("dev_splits_complete", "dev"),
        ("output_repeated_splits_test", "test"),
        ("testset", "test"),
        ("TestSplits", "test"),
        ("DEV", "dev"),
        ("validation", "dev"),
        ("val", "dev"),
        ("valence", None),
        ("latest", None),
        ("device", None),
        ("contest", None),
    ],
)
def test_which_split_of_meld_a_folder_has(name: str, split: str | None) -> None:
    assert _split_of_folder(name) == split
    assert _split_of_folder(name, "train") == (split or "train")
