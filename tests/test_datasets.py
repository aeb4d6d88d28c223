import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from trees import make_tree

from sercli.datasets import (
    CORPORA,
    Clip,
    Corpus,
    class_indices,
    parse_mapping,
    read_corpora,
    read_corpus,
)
from sercli.datasets.corpus import merge
from sercli.datasets.facts import age_group, load_facts
from sercli.datasets.labelling import canonical_label
from sercli.datasets.votes import read_votes
from sercli.errors import ConfigError, DatasetError
from sercli.labels import EMOTIONS

# The head of CREMA-D's own table, without the columns that follow.
CREMAD_VOTES = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'


def test_cremad_names(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioWAV/1001_IEO_FEA_LO.flac",
        "AudioWAV/1049_IEO_HAP_MD.wav",
        "AudioWAV/1048_IEO_NEU_HI.mp3",
        "AudioWAV/1040_ITH_SAD_X.wav",
        "AudioWAV/1040_ITH_ZZZ_X.wav",
        "AudioWAV/notes.wav",
        "AudioWAV/.hidden/1001_DFA_DIS_XX.wav",
        "AudioWAV/._1001_DFA_ANG_XX.wav",
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "processedResults/1001_DFA_DIS_XX.txt",
    )
    corpus = read_corpus(tmp_path)
    assert [(clip.path.name, clip.speaker, clip.emotion) for clip in corpus.clips] == [
        ("1001_DFA_ANG_XX.wav", "1001", "anger"),
        ("1001_IEO_FEA_LO.flac", "1001", "fear"),
        ("1040_ITH_SAD_X.wav", "1040", "sadness"),
        ("1048_IEO_NEU_HI.mp3", "1048", "neutral"),
        ("1049_IEO_HAP_MD.wav", "1049", "happiness"),
    ]
    assert [clip.name for clip in corpus.clips] == [clip.path.stem for clip in corpus.clips]
    assert [clip.voice for clip in corpus.select("dev")] == ["cremad/1049"]
    assert [clip.speaker for clip in corpus.select("train")] == ["1001", "1001", "1040"]
    assert [clip.speaker for clip in corpus.select("test")] == ["1048"]
    assert len(corpus.select("all")) == 5
    assert corpus.describe() == (
        "cremad: 5 clips of 4 speakers; 3 files left out (1040_ITH_ZZZ_X: unknown emotion ZZZ; "
        "AudioWAV/notes.wav: not named like 1001_DFA_ANG_XX.wav; "
        "VideoFlash/1001_DFA_ANG_XX.flv: another copy of a clip)"
    )
    assert [clip.traits["intensity"] for clip in corpus.clips] == [
        "unspecified",
        "low",
        "unspecified",
        "high",
        "medium",
    ]
    assert corpus.clips[0].traits == {
        "language": "English",
        "sentence": "Don't forget a jacket",
        "intensity": "unspecified",
    }


@pytest.mark.parametrize("place", ["AudioWAV", "."])
def test_cremad_speakers_are_described_by_their_table(tmp_path: Path, place: str) -> None:
    make_tree(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_DFA_ANG_XX.wav")
    table = tmp_path / "VideoDemographics.csv"
    table.write_text('"ActorID","Age","Sex","Race"\n1001,51,"Male","Caucasian"\n')
    first, second = read_corpus(tmp_path / place).clips
    assert (first.traits["sex"], first.traits["age_group"]) == ("male", "45 to 59")
    assert "sex" not in second.traits
    for wrong in ("actor;age\n1001;51\n", *(f"ActorID,Age,Sex\n1,{n},x\n" for n in ("nan", "-1"))):
        table.write_text(wrong)
        message = r"VideoDemographics.csv, line 2: .*ActorID, Age, Sex"
        with pytest.raises(DatasetError, match=message):
            read_corpus(tmp_path)


def test_many_files_left_out_are_counted(tmp_path: Path) -> None:
    names = [f"{actor}_DFA_ANG_XX" for actor in range(1001, 1011)]
    make_tree(tmp_path, *(f"wav/{name}.wav" for name in names))
    make_tree(tmp_path, *(f"mp3/{name}.mp3" for name in names))
    corpus = read_corpus(tmp_path)
    assert {clip.path.suffix for clip in corpus.clips} == {".wav"}
    assert corpus.describe().endswith("; 10 files left out (10: another copy of a clip)")


def test_speakers_under_several_names_are_counted_once(tmp_path: Path) -> None:
    names = ["1001_DFA_ANG_XX", "1002_DFA_ANG_XX"]
    make_tree(tmp_path, *(f"CREMA-D/{name}.wav" for name in names), "a.wav", "b.wav", "c.wav")
    # 1001 may be the actor; 1003 is in two tables, and nobody else's name.
    tables = [tmp_path / "plays.csv", tmp_path / "films.csv"]
    tables[0].write_text("file,emotion,speaker\na.wav,anger,1001\nb.wav,anger,1003\n")
    tables[1].write_text("file,emotion,speaker\nc.wav,anger,1003\n")
    sources = [(path, "auto") for path in (tmp_path / "CREMA-D", *tables)]
    assert read_corpora(sources[:1]).describe() == "cremad: 2 clips of 2 speakers"
    assert read_corpora(sources[:2]).describe() == "cremad+plays: 4 clips of 3 speakers"
    assert read_corpora(sources[1:]).describe() == "plays+films: 3 clips of 2 speakers"
    assert read_corpora(sources).describe() == "cremad+plays+films: 5 clips of 3 speakers"


def test_known_faults_are_left_out_and_told(tmp_path: Path) -> None:
    make_tree(tmp_path, "1076_MTI_SAD_XX.wav", "1006_TIE_HAP_XX.wav", "1006_TIE_ANG_XX.wav")
    corpus = read_corpus(tmp_path)
    assert [clip.path.name for clip in corpus.clips] == ["1006_TIE_ANG_XX.wav"]
    assert corpus.describe() == (
        "cremad: 1 clip of 1 speaker; 2 files left out (1006_TIE_HAP_XX: the same recording as "
        "1006_TIE_NEU_XX; 1076_MTI_SAD_XX: digital silence)"
    )


def test_partition_is_disjoint_and_whole(tmp_path: Path) -> None:
    actors = [str(actor) for actor in range(1001, 1092)]
    corpus = read_corpus(make_tree(tmp_path, *(f"{actor}_DFA_ANG_XX.wav" for actor in actors)))
    splits = Counter(clip.split for clip in corpus.clips)
    assert splits == {"train": 56, "dev": 18, "test": 17}
    partition = load_facts("cremad")["partition"]
    assert sorted(partition["train"] + partition["dev"] + partition["test"]) == actors


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="missing: does not exist"):
        read_corpus(tmp_path / "missing")
    with pytest.raises(DatasetError, match="found no audio or video files"):
        read_corpus(tmp_path)
    make_tree(tmp_path, "a.wav")
    with pytest.raises(DatasetError, match=r"found no audio file named like CREMA-D's 1001_DFA"):
        read_corpus(tmp_path, "cremad")
    with pytest.raises(ConfigError, match=r"corpus is 'crema'; expected auto or one of cremad, ra"):
        read_corpus(tmp_path, "crema")
    with pytest.raises(DatasetError, match=r"a\.wav: is not a table of clips"):
        read_corpus(tmp_path / "a.wav")
    faulty = make_tree(tmp_path / "faulty", "1076_MTI_SAD_XX.wav")
    with pytest.raises(DatasetError, match=r"no usable clip: .*digital silence"):
        read_corpus(faulty)
    corpus = read_corpus(make_tree(tmp_path / "good", "1001_DFA_ANG_XX.wav"))
    with pytest.raises(DatasetError, match="no clips in the split 'test'"):
        corpus.select("test")
    with pytest.raises(DatasetError, match=r"labels \['anger'\] of the corpus are not labels"):
        class_indices(corpus.clips, ("joy", "grief"))
    assert class_indices(corpus.clips, EMOTIONS) == [0]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cremad", "AudioMP3/1001_DFA_ANG_XX.mp3"),
        ("ravdess", "Actor_12/03-01-05-01-02-01-12.wav"),
        ("tess", "OAF_angry/OAF_back_angry.wav"),
        ("savee", "AudioData/DC/a01.wav"),
        ("emodb", "wav/03a01Fa.wav"),
        ("emovo", "f1/dis-f1-b1.wav"),
        ("esd", "0011/Angry/train/0011_000351.wav"),
    ],
)
def test_corpora_are_recognised_by_their_names(tmp_path: Path, kind: str, name: str) -> None:
    make_tree(tmp_path, "jingle.wav", name)
    assert {clip.corpus for clip in read_corpus(tmp_path).clips} == {kind}
    assert {clip.corpus for clip in read_corpus((tmp_path / name).parent).clips} == {kind}
    assert kind in CORPORA


def test_laryngograms_are_no_speech(tmp_path: Path) -> None:
    make_tree(tmp_path, "laryngo/03a01Fa.wav", "wav/03a01Fa.wav", "laryngo/03a01Na.wav")
    corpus = read_corpus(tmp_path / ".", "emodb")
    assert [clip.path.relative_to(tmp_path).as_posix() for clip in corpus.clips] == [
        "wav/03a01Fa.wav"
    ]
    assert corpus.skipped == dict.fromkeys(
        ("laryngo/03a01Fa.wav", "laryngo/03a01Na.wav"), "no speech, but another signal"
    )


def test_strays_do_not_confuse_but_two_corpora_are_told(tmp_path: Path) -> None:
    make_tree(tmp_path, *(f"{actor}_DFA_ANG_XX.wav" for actor in range(1001, 1021)))
    make_tree(tmp_path, "03a01Fa.wav", "03a01Na.wav")
    assert read_corpus(tmp_path).name == "cremad"
    make_tree(tmp_path, "03a01Wa.wav")
    with pytest.raises(
        DatasetError,
        match=r"looks like cremad \(20 of 23 .*\) and like emodb \(3 of 23 .*\); .*--corpus NAME",
    ):
        read_corpus(tmp_path)
    assert len(read_corpus(tmp_path, "emodb").clips) == 3


def test_a_few_fitting_names_do_not_make_a_corpus(tmp_path: Path) -> None:
    make_tree(tmp_path, "1001_DFA_ANG_XX.wav", "a.wav", "b.wav")
    with pytest.raises(DatasetError, match=r"1 of 3 files are named like 1001_DFA_ANG_XX\.wav"):
        read_corpus(tmp_path)


def test_names_with_emotions_that_a_corpus_does_not_have_are_not_those_of_it(
    tmp_path: Path,
) -> None:
    # A French corpus is named as EmoDB is, but for its own letters; two of them are in both.
    names = [f"{who}a01{letter}a.wav" for who in ("01", "02") for letter in "CDJPSNT"]
    make_tree(tmp_path, *names)
    with pytest.raises(
        DatasetError,
        match=r"none of the known corpora: 4 of 14 files are named like 03a01Fa\.wav, .*"
        r"; name the corpus with .*, or give a table with the columns file, emotion and, if known, "
        r"speaker$",
    ):
        read_corpus(tmp_path)
    named = read_corpus(tmp_path, "emodb")
    assert [clip.emotion for clip in named.clips] == ["neutral", "sadness"] * 2
    assert named.count_skipped()["unknown emotion C"] == 2


def test_clips_that_were_sorted_anew_are_told(tmp_path: Path) -> None:
    names = "1001_DFA_ANG_XX.wav", "1002_DFA_HAP_XX.wav"
    make_tree(tmp_path, f"angry/{names[0]}", f"happy/{names[1]}")
    assert read_corpus(tmp_path).name == "cremad"
    make_tree(tmp_path, "sad/1003_DFA_ANG_XX.wav")
    with pytest.raises(
        DatasetError,
        match=r"looks like cremad \(3 of 3 .*\) and like folders \(sub-folders angry, happy, sad\)",
    ):
        read_corpus(tmp_path)
    labels = [clip.emotion for clip in read_corpus(tmp_path, "folders").clips]
    assert labels == ["anger", "happiness", "sadness"]
    assert len(read_corpus(tmp_path, "cremad").clips) == 3


def test_mapping_by_own_and_by_canonical_words(tmp_path: Path) -> None:
    make_tree(tmp_path, "03a01Fa.wav", "03a01La.wav", "03a01Wa.wav", "03a01Xa.wav")
    corpus = read_corpus(tmp_path, mapping={"l": "neutral", "Happiness": "joy", "X": "odd"})
    assert [clip.emotion for clip in corpus.clips] == ["joy", "neutral", "anger", "odd"]
    composed = read_corpus(tmp_path, mapping={"W": "A\u0308rger"})
    assert "\u00c4rger" in {clip.emotion for clip in composed.clips}
    with pytest.raises(
        DatasetError, match=r"labelled calm, which --map names; found anger, boredom, happiness$"
    ):
        read_corpus(tmp_path, mapping={"calm": "neutral", "W": "anger"})
    # A corpus's own word comes first; the canonical label is then left without a clip.
    with pytest.raises(DatasetError, match="labelled boredom"):
        read_corpus(tmp_path, mapping={"L": "neutral", "boredom": "anger"})


def test_mapping_as_text() -> None:
    assert parse_mapping("happy=happiness, calm = neutral") == {
        "happy": "happiness",
        "calm": "neutral",
    }
    assert parse_mapping("a\u0308=o\u0308") == {"\u00e4": "\u00f6"}
    for text in ("", "happy", "happy=", "=x", "a=b=c", "a=b,,c=d"):
        with pytest.raises(ConfigError, match=r"^--map is '.*expected THEIRS=OURS.*happy=happ"):
            parse_mapping(text)
    with pytest.raises(ConfigError, match="--map is 'a=b,a=c': gives a twice; expected it once"):
        parse_mapping("a=b,a=c")
    with pytest.raises(ConfigError, match="gives a twice; expected it once"):
        parse_mapping("A=b,a=c")
    assert parse_mapping("file=A,File=b", "--columns") == {"file": "A", "File": "b"}
    with pytest.raises(ConfigError, match=r"^--columns is .foo.: .*expected OURS=THEIRS.*file=p"):
        parse_mapping("foo", "--columns")


def test_words_and_labels() -> None:
    assert [canonical_label(word) for word in ("Angry", "JOY", "fearful", "Pensive")] == [
        "anger",
        "happiness",
        "fear",
        "Pensive",
    ]
    # Labels are written alike, whatever the form of the word.
    assert canonical_label("Versta\u0308ndnis") == "Verst\u00e4ndnis"
    assert canonical_label("ang", "cremad") == "anger"
    assert canonical_label("angry", "cremad") is None
    for kind, table in load_facts("labels").items():
        known = set(EMOTIONS) & set(table.values())
        assert len(known) >= 4, kind
        assert len({word.casefold() for word in table}) == len(table), kind


def test_age_groups() -> None:
    assert [age_group(age) for age in (29.9, 30, 44, 45, 59, 60, 80)] == [
        "under 30",
        *["30 to 44"] * 2,
        *["45 to 59"] * 2,
        *["60 and over"] * 2,
    ]


def test_clips_of_other_labels_are_left_out() -> None:
    clips = tuple(Clip(Path(word), word, name=word) for word in ("anger", "calm"))
    clips += (replace(clips[1], corpus="films"),)
    before = dict.fromkeys("zb", "too short")
    kept = Corpus("mine", "none", clips, before).keep(EMOTIONS)
    assert [clip.name for clip in kept.clips] == ["anger"]
    why = "the label calm is not one of the labels to learn"
    assert kept.skipped == {**before, "calm": why, "films/calm": why}
    assert f"4 files left out (b, z: too short; calm, films/calm: {why})" in kept.describe()
    more = replace(kept, skipped={**kept.skipped, "a": why})
    assert list(more.count_skipped().items()) == [(why, 3), ("too short", 2)]


def test_what_each_of_several_corpora_left_out_is_known() -> None:
    plays = Corpus("plays", "CC0", (Clip(Path("a"), "anger", name="a"),), {"b": "too short"})
    both = merge([plays, Corpus("films", "unknown", (), {"b": "too long"})])
    assert both.skipped == {"plays/b": "too short", "films/b": "too long"}
    assert (both.name, both.licence) == ("plays+films", "plays: CC0; films: unknown")


def test_votes_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    table.write_text("clip,happy,anger,calm\nb,1,2,0\na,0,0,3\n")
    votes = read_votes(table)
    assert votes == {
        "b": {"happiness": 1, "anger": 2, "calm": 0},
        "a": {"happiness": 0, "anger": 0, "calm": 3},
    }


def test_names_of_clips_with_votes_are_composed_and_stripped(tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    table.write_text("clip,anger\n e\u0301.opus ,1\n", encoding="utf-8")
    assert read_votes(table) == {"\u00e9.opus": {"anger": 1}}


def test_votes_have_the_labels_of_the_corpus(tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    table.write_text("clip,Wut,Ärger,ruhig,happy\na,1,2,4,8\n", encoding="utf-8")
    mapping = {"wut": "anger", "ärger": "anger", "ruhig": "neutral", "happiness": "joy"}
    assert read_votes(table, mapping) == {"a": {"anger": 3, "neutral": 4, "joy": 8}}
    make_tree(tmp_path, "03a01La.wav", "03a01Wa.wav")
    mapping = {"L": "neutral"}
    assert read_corpus(tmp_path, mapping=mapping).mapping == mapping
    cremad = tmp_path / "tabulatedVotes.csv"
    cremad.write_text(CREMAD_VOTES + '"100001",6,2,0,0,1,0,"1001_DFA_ANG_XX",9,0.67,"A"\n')
    for theirs in ("disgust", "dis"):
        votes = read_votes(cremad, {theirs: "anger"})["1001_DFA_ANG_XX"]
        assert votes == {"anger": 8, "fear": 0, "happiness": 0, "neutral": 1, "sadness": 0}
    table.write_text("clip,happy,happiness,joy\na,1,2,4\n")
    assert read_votes(table, {"happy": "happiness", "joy": "fun"}) == {
        "a": {"happiness": 3, "fun": 4}
    }
    with pytest.raises(DatasetError, match="two columns for happiness"):
        read_votes(table, {"happy": "happiness"})
    assert read_votes(table, {"happiness": "fun"}) == {"a": {"fun": 7}}


def test_votes_on_the_voice_in_cremads_own_table(tmp_path: Path) -> None:
    table = tmp_path / "tabulatedVotes.csv"
    table.write_text(
        CREMAD_VOTES
        + '"100001",6,2,0,0,1,0,"1001_DFA_ANG_XX",9,0.67,"A"\n'
        + '"107442",0,6,1,0,0,2,"1091_WSI_DIS_XX",9,0.67,"D"\n'
        + '"200001",0,0,0,0,9,0,"1001_DFA_ANG_XX",9,1,"N"\n'
        + '"300001",9,0,0,0,0,0,"1001_DFA_ANG_XX",9,1,"A"\n'
    )
    votes = read_votes(table)
    assert list(votes) == ["1001_DFA_ANG_XX", "1091_WSI_DIS_XX"]
    assert votes["1091_WSI_DIS_XX"] == dict(zip(EMOTIONS, (0, 6, 1, 0, 0, 2), strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected CSV"),
        ("file,anger\na,1\n", "begins with 'file,anger'"),
        ("clip,anger,\na,1,2\n", "begins with 'clip,anger,'"),
        ("clip,happy,joy\na,1,2\n", "two columns for happiness"),
        ("clip,anger\na,-1\n", "line 2: anger is '-1'; expected a count"),
        ("clip,anger\na,1.5\n", r"line 2: anger is '1\.5'"),
        ("clip,anger\na,1\na,1\n", "line 3: names the clip a again"),
        ("clip,anger\na,1\n a ,1\n", "line 3: names the clip a again"),
        ("clip,anger\n\u00e9,1\ne\u0301,1\n", "line 3: names the clip \u00e9 again"),
        ("clip,anger\na,1\n ,1\n", "line 3: names no clip; expected the name of one"),
        ("clip,anger\na\n", "line 2: has 1 cell; expected 2"),
        ("clip,anger\n", "has no row below its header"),
        ("clip;anger\na;1\na;2\n", "line 3: names the clip a again"),
        ('clip,anger\n"a,1\nb,2\n', "line 2: cannot be read: unexpected end of data"),
        (f"clip,anger\na,{'9' * 5_000}\n", r"line 2: anger is '9+\.\.\.9+'; expected a count"),
        (f'{CREMAD_VOTES}"200001",0,0,0,0,9,0,"a",9,1,"N"\n', "has no row of votes"),
    ],
)
def test_other_tables_are_no_votes(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "votes.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_votes(table)


@pytest.mark.corpus
@pytest.mark.skipif("SER_CREMAD" not in os.environ, reason="SER_CREMAD names no copy of CREMA-D")
def test_the_real_cremad() -> None:
    folder = Path(os.environ["SER_CREMAD"])
    corpus = read_corpus(folder)
    speakers = {clip.speaker for clip in corpus.clips}
    assert {clip.emotion for clip in corpus.clips} == set(EMOTIONS)
    assert len(corpus.clips) + len(corpus.skipped) >= 80 * len(speakers)
    assert sum(len(corpus.select(split)) for split in ("train", "dev", "test")) == len(corpus.clips)
    assert "1076_MTI_SAD_XX" in corpus.skipped
    if (folder / "VideoDemographics.csv").is_file():
        assert all({"sex", "age_group", "sentence"} <= set(clip.traits) for clip in corpus.clips)
    if (folder / "voice_votes.csv").is_file():
        votes = read_votes(folder / "voice_votes.csv")
        assert {clip.name for clip in corpus.clips} <= set(votes)
        assert set(votes["1001_DFA_ANG_XX"]) == set(EMOTIONS)


@pytest.mark.corpus
@pytest.mark.skipif("SER_EMODB" not in os.environ, reason="SER_EMODB names no copy of EmoDB")
def test_the_real_emodb() -> None:
    corpus = read_corpus(Path(os.environ["SER_EMODB"]))
    assert corpus.name == "emodb"
    assert not corpus.skipped
    assert {clip.emotion for clip in corpus.clips} == {*EMOTIONS, "boredom"}
    known = load_facts("emodb")["speakers"]
    for clip in corpus.clips:
        assert clip.traits["sex"] == known[clip.speaker]["sex"]
        assert " " in clip.traits["sentence"]


def test_a_mapping_may_be_for_any_of_several_corpora(tmp_path: Path) -> None:
    make_tree(tmp_path / "emodb", "03a01Fa.wav", "03a01La.wav", "03a01Wa.wav")
    make_tree(tmp_path / "cremad", "1001_DFA_ANG_XX.wav", "1001_DFA_SAD_XX.wav")
    emodb, cremad = (tmp_path / "emodb", "emodb"), (tmp_path / "cremad", "cremad")
    for sources in ([emodb, cremad], [cremad, emodb]):
        corpus = read_corpora(sources, mapping={"boredom": "neutral"})
        assert "neutral" in {clip.emotion for clip in corpus.clips}
