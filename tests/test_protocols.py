from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sercli.config import APART, SHARED, UNKNOWN
from sercli.datasets import Clip, Corpus
from sercli.datasets.matching import count_speakers, join_voices
from sercli.datasets.protocols import (
    find_protocol,
    fold_by_speaker,
    split_as_given,
    split_at_random,
    split_by_file,
    split_by_speaker,
)
from sercli.errors import DatasetError
from sercli.training.folds import group_clips

# Three actors of CREMA-D.
GIVEN = (("1001", "train"), ("1049", "dev"), ("1048", "test"))


def make_clip(
    speaker: str | None, number: int = 0, emotion: str = "anger", split: str | None = None
) -> Clip:
    name = f"{speaker}_{number}"
    path = Path("data") / f"{name}.wav"
    return Clip(path, emotion, speaker, name=name, corpus="plays", split=split)


def make_corpus(clips: Sequence[Clip], **skipped: str) -> Corpus:
    return Corpus("plays", "none", tuple(clips), skipped)


def make_speakers(n_speakers: int, n_clips: int = 3) -> Corpus:
    return make_corpus(
        [make_clip(f"s{speaker}", i) for speaker in range(n_speakers) for i in range(n_clips)]
    )


def voices_of(corpus: Corpus) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for clip in corpus.clips:
        assert clip.split is not None
        found.setdefault(clip.split, set()).add(clip.voice)
    return found


def splits_of(corpus: Corpus) -> list[str | None]:
    return [clip.split for clip in corpus.clips]


def test_given_splits_are_kept() -> None:
    # Two speakers: what would be refused if it had to be drawn.
    corpus = make_corpus(
        [
            make_clip("a", split="test"),
            make_clip("a", 1, split="test"),
            make_clip("b", split="dev"),
        ]
    )
    assert split_by_speaker(corpus) == corpus
    assert split_as_given(corpus) == corpus


def test_given_splits_that_share_speakers() -> None:
    shared = [make_clip("a", split="test"), make_clip("a", 1, split="train")]
    others = [make_clip(name, 0, split="train") for name in "bcd"]
    corpus = make_corpus([*shared, *others])
    drawn = split_by_speaker(corpus)
    voices = voices_of(drawn)
    assert sum(map(len, voices.values())) == 4  # each in one
    assert {len(voices[split]) for split in ("dev", "test")} == {1}
    # Those of another corpus stay.
    films = tuple(replace(make_clip(f"f{n}", split="dev"), corpus="films") for n in range(9))
    both = split_by_speaker(replace(corpus, clips=corpus.clips + films))
    assert both.clips[-9:] == films
    assert both.clips[:-9] == drawn.clips
    assert split_as_given(corpus) == corpus
    few = (
        r"plays: has splits that share speakers and the speakers plays/a; expected three.*"
        r"choose --split own, random or FILE\.csv$"
    )
    with pytest.raises(DatasetError, match=few):
        split_by_speaker(make_corpus(shared))
    with pytest.raises(
        DatasetError, match=r"1 of 3 clips have no split in the corpus, such as e_0;"
    ):
        split_as_given(make_corpus([*shared, make_clip("e")]))


@pytest.mark.parametrize(
    ("n_speakers", "shares"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (20, (14, 3, 3)), (40, (28, 6, 6))]
)
def test_speakers_are_drawn_apart(n_speakers: int, shares: tuple[int, int, int]) -> None:
    corpus = make_speakers(n_speakers)
    drawn = split_by_speaker(corpus)
    voices = voices_of(drawn)
    assert tuple(len(voices[split]) for split in ("train", "dev", "test")) == shares
    # Disjoint sets of those sizes hold each speaker once.
    assert len(set.union(*voices.values())) == n_speakers
    assert [replace(clip, split=None) for clip in drawn.clips] == list(corpus.clips)


def test_draw_of_speakers_depends_on_the_seed_alone() -> None:
    corpus = make_speakers(20)
    first = voices_of(split_by_speaker(corpus, 1))
    assert voices_of(split_by_speaker(corpus, 1)) == first
    assert voices_of(split_by_speaker(corpus, 2)) != first
    backwards = replace(corpus, clips=corpus.clips[::-1])
    assert voices_of(split_by_speaker(backwards, 1)) == first


def test_corpora_are_drawn_from_one_by_one() -> None:
    split = make_corpus([make_clip("s0", split="test")])
    bare = tuple(replace(clip, corpus="films") for clip in make_speakers(3).clips)
    drawn = split_by_speaker(replace(split, name="plays+films", clips=split.clips + bare))
    assert drawn.clips[0].split == "test"
    # Speakers of one name in two corpora are two people.
    films = Counter(clip.split for clip in drawn.clips if clip.corpus == "films")
    assert films == {"train": 3, "dev": 3, "test": 3}


@pytest.mark.parametrize("seed", range(5))
def test_clips_without_split_follow_their_speaker(seed: int) -> None:
    given = [make_clip("known", 0, split="dev"), make_clip("known", 1)]
    drawn = split_by_speaker(make_corpus([*given, *make_speakers(3).clips]), seed)
    assert splits_of(drawn)[:2] == ["dev", "dev"]
    assert sorted(len(voices) for voices in voices_of(drawn).values()) == [1, 1, 2]
    # That alone needs no draw, so that three speakers are not asked for.
    assert splits_of(split_by_speaker(make_corpus(given), seed)) == ["dev", "dev"]


def test_too_few_speakers_to_draw_from() -> None:
    with pytest.raises(
        DatasetError,
        match=r"^plays: has no splits and the speakers plays/s0, plays/s1; expected three known "
        r"speakers or more; name the speakers in a manifest, or choose --split random or "
        r"FILE\.csv$",
    ):
        split_by_speaker(make_speakers(2))


@pytest.mark.parametrize("n_known", [0, 5])
def test_unknown_speakers_cannot_be_kept_apart(n_known: int) -> None:
    corpus = make_corpus([*make_speakers(n_known).clips, make_clip(None)])
    with pytest.raises(DatasetError, match=r"^plays: has no splits and unknown speak"):
        split_by_speaker(corpus)


def make_emotions(**counts: int) -> Corpus:
    return make_corpus(
        [make_clip("ab"[i % 2], i, emotion) for emotion, n in counts.items() for i in range(n)]
    )


def test_random_split_is_exact_for_each_emotion() -> None:
    corpus = make_emotions(anger=50, fear=20, neutral=5)
    drawn = split_at_random(corpus)
    assert Counter((clip.emotion, clip.split) for clip in drawn.clips) == {
        ("anger", "train"): 40,
        ("anger", "test"): 10,
        ("fear", "train"): 16,
        ("fear", "test"): 4,
        ("neutral", "train"): 4,
        ("neutral", "test"): 1,
    }
    assert voices_of(drawn) == {"train": {"plays/a", "plays/b"}, "test": {"plays/a", "plays/b"}}
    assert [replace(clip, split=None) for clip in drawn.clips] == list(corpus.clips)


def test_random_split_depends_on_the_seed_and_not_on_given_splits() -> None:
    corpus = make_emotions(anger=50, fear=20)
    first = splits_of(split_at_random(corpus, 1))
    assert splits_of(split_at_random(corpus, 1)) == first
    assert splits_of(split_at_random(corpus, 2)) != first
    given = replace(corpus, clips=tuple(replace(clip, split="dev") for clip in corpus.clips))
    assert splits_of(split_at_random(given, 1)) == first


def test_random_split_needs_clips_of_each_emotion() -> None:
    with pytest.raises(DatasetError, match="plays: has a single clip of fear, joy; expected two"):
        split_at_random(make_emotions(anger=50, joy=1, fear=1))
    with pytest.raises(DatasetError, match="plays: has 5 clips of 2 emotions; expected five of"):
        split_at_random(make_emotions(anger=3, fear=2))
    drawn = split_at_random(make_emotions(anger=3, fear=3))
    assert {clip.emotion for clip in drawn.clips if clip.split == "test"} == {"anger", "fear"}


@pytest.mark.parametrize("name", ["s0_1", "s0_1.wav", str(Path("data") / "s0_1.wav")])
def test_split_by_names_of_files(tmp_path: Path, name: str) -> None:
    table = tmp_path / "splits.csv"
    # As spreadsheets write it: with a byte order mark, another column and Windows line ends.
    table.write_bytes(f"split,note,file\r\ntest,x,{name}\r\ntrain,,s1_0\r\n".encode("utf-8-sig"))
    corpus = replace(make_speakers(2, 2), skipped={"odd": "broken"})
    split = split_by_file(corpus, table)
    assert [(clip.name, clip.split) for clip in split.clips] == [
        ("s0_1", "test"),
        ("s1_0", "train"),
    ]
    assert split.skipped == {
        "odd": "broken",
        "s0_0": "not in splits.csv",
        "s1_1": "not in splits.csv",
    }


def test_split_by_names_of_files_as_windows_writes_them(tmp_path: Path) -> None:
    names = ("sub/a.wav", "sub/b.wav", r"sub\b.wav", "sub/deep/c.wav")
    clips = [replace(make_clip("s"), path=Path("data", name), name=name) for name in names]
    table = tmp_path / "splits.csv"
    # A file may have a backslash in its name, elsewhere than on Windows.
    rows = (r"sub\a,test", r"sub\b.wav,train", r"data\sub\deep\c.wav,dev")
    table.write_text("\n".join(("file,split", *rows)))
    split = split_by_file(make_corpus(clips), table)
    assert [(clip.name, clip.split) for clip in split.clips] == [
        ("sub/a.wav", "test"),
        (r"sub\b.wav", "train"),
        ("sub/deep/c.wav", "dev"),
    ]
    assert split.skipped == {"sub/b.wav": "not in splits.csv"}
    table.write_text("file,split\nsub\\a.wav,test\nsub/a.wav,train\n")
    with pytest.raises(DatasetError, match=r"lists file sub/a\.wav as train, a row before as test"):
        split_by_file(make_corpus(clips), table)
    # Only paths are spelt in two ways.
    table.write_text("speaker,split\na\\b,test\n")
    split = split_by_file(make_corpus([make_clip("a\\b")]), table)
    assert splits_of(split) == ["test"]


def test_name_of_a_clip_goes_before_that_of_its_file(tmp_path: Path) -> None:
    # Stretches of one recording; the table gives one of them another split than the rest.
    clips = [replace(make_clip("a", i), path=Path("talk.wav")) for i in range(3)]
    table = tmp_path / "splits.csv"
    table.write_text("file,split\ntalk,train\na_1,dev\n")
    assert splits_of(split_by_file(make_corpus(clips), table)) == ["train", "dev", "train"]


def test_split_by_speakers_of_a_file(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    # The first by name, the second by name across corpora; an empty cell is no speaker.
    table.write_text("speaker,split\ns0,dev\nplays/s1,test\n,train\ns0,dev\ns11,train\n")
    corpus = make_corpus([*make_speakers(3, 1).clips, make_clip(None)])
    split = split_by_file(corpus, table)
    assert [(clip.speaker, clip.split) for clip in split.clips] == [("s0", "dev"), ("s1", "test")]
    assert split.skipped == {
        "s2_0": "not in splits.csv",
        "None_0": "not in splits.csv",
        "s11": "in splits.csv, but without clips",
    }


def test_a_name_that_several_have_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    names = ("a/000.wav", "b/000.wav")
    clips = [replace(make_clip(name[0]), path=Path(name), name=name) for name in names]
    corpus = make_corpus(clips)
    table.write_text("file,split\n000,test\n")
    several = r"splits\.csv: 000 is of a/000\.wav and of b/000\.wav; expected names that dist"
    with pytest.raises(DatasetError, match=several):
        split_by_file(corpus, table)
    table.write_text("file,split\n000,test\nb/000,dev\n")
    assert splits_of(split_by_file(corpus, table)) == ["test", "dev"]
    # A speaker of that name in another corpus is somebody else, and named by both.
    both = make_corpus([make_clip("s0"), replace(make_clip("s0"), corpus="films")])
    table.write_text("speaker,split\ns0,test\n")
    with pytest.raises(DatasetError, match="s0 is of plays/s0 and of films/s0; expected names"):
        split_by_file(both, table)
    table.write_text("speaker,split\ns0,test\nfilms/s0,dev\n")
    assert splits_of(split_by_file(both, table)) == ["test", "dev"]


def test_splits_of_a_file_go_before_given_ones(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("speaker,split\na,test\n")
    assert splits_of(split_by_file(make_corpus([make_clip("a", split="train")]), table)) == ["test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\na,test\n", ": has the columns name, split; expected split and file or"),
        ("speaker,part\na,test\n", ": has the columns speaker, part; expected split and"),
        ("", ": is empty; expected CSV"),
        ("speaker;split\ns0;Test\n", ", line 2: split is 'Test'; expected train, dev, test"),
        ("speaker,split\ns0\n", ", line 2: has 1 cell; expected 2"),
        ("speaker,split\nzoe,test\n", ": lists no speaker of plays; expected its speaker names"),
        ("file,split\nzoe,test\n", ": lists no file of plays; expected its file names"),
        (
            "speaker,split\ns0,test\ns1,dev\ns0,train\n",
            ", line 4: lists speaker s0 as train, a row before as test; expected one split",
        ),
        ("speaker,split\n\xe9,test\n", ", line 2: is not UTF-8: .*utf-8"),
        ('speaker,split\ns0,"test\n' + "x" * 200_000, ", line 2: cannot be read: field larger"),
    ],
)
def test_wrong_split_files(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "splits.csv"
    table.write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=f"splits.csv{message}"):
        split_by_file(make_speakers(2), table)


def test_missing_split_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv: cannot be read: No such file"):
        split_by_file(make_speakers(2), tmp_path / "none.csv")


def test_folds_hold_every_clip_once_and_no_speaker_twice() -> None:
    sizes = {"a": 4, "b": 1, "c": 3, "d": 2, "e": 2}
    clips = [make_clip(speaker, i) for i in range(4) for speaker, n in sizes.items() if i < n]
    folds = fold_by_speaker(clips, 3)
    assert sorted(index for fold in folds for index in fold) == list(range(12))
    voices = [{clips[index].speaker for index in fold} for fold in folds]
    assert sorted(speaker for fold in voices for speaker in fold if speaker) == list("abcde")
    # Filled from the largest speaker on: a | c and b | d and e.
    assert [len(fold) for fold in folds] == [4, 4, 4]


def test_folds_tell_speakers_of_two_corpora_apart() -> None:
    clips = [make_clip("a"), replace(make_clip("a"), corpus="films")]
    assert sorted(fold_by_speaker(clips, 2)) == [[0], [1]]


def make_everywhere(name: str, *corpora: str) -> list[Clip]:
    """Return a clip of somebody of a name in each of some corpora; "table" is a table of ours."""
    return [
        replace(
            make_clip(name),
            name=f"{corpus}/{name}",
            corpus=corpus,
            namespace="table" if corpus == "table" else None,
        )
        for corpus in corpora
    ]


@pytest.mark.parametrize(
    ("corpora", "joined"),
    [
        # A published corpus has its own speakers, and so has a database of somebody's.
        (("cremad", "emodb"), (0, 1)),
        (("plays", "films"), (0, 1)),
        # A name in a table or a database may be that of anybody in any published corpus.
        (("table", "cremad"), (1, 1)),
        (("plays", "cremad"), (1, 1)),
        (("table", "plays"), (1, 1)),
        # Whom two may be, they may be both.
        (("table", "emodb", "cremad"), (2, 2, 2)),
        (("plays", "films", "emodb"), (2, 2, 2)),
    ],
)
def test_voices_are_joined_that_may_be_one(corpora: Sequence[str], joined: Sequence[int]) -> None:
    clips = make_everywhere("03", *corpora)
    others = [make_clip(None), *make_everywhere("4", *corpora)[:1]]
    names = sorted(one.voice for one in clips if one.voice)
    expected = [names[0] if len({*joined}) == 1 else one.voice for one in clips]
    assert join_voices([*clips, *others]) == [*expected, None, others[1].voice]
    assert join_voices([*others, *clips[::-1]]) == [None, others[1].voice, *expected[::-1]]
    assert count_speakers([*clips, *others]) == len({*joined}) + 1


def test_folds_keep_those_together_who_may_be_one() -> None:
    sizes = {"03": (4, 2), "08": (3, 3), "09": (2, 4), "10": (1, 1)}
    clips = [
        replace(clip, name=f"{clip.name}/{number}")
        for name, counts in sizes.items()
        for clip, n_clips in zip(make_everywhere(name, "emodb", "table"), counts, strict=True)
        for number in range(n_clips)
    ]
    # By their names in each corpus, there would be eight.
    for n_folds in (2, 3, 4):
        folds = fold_by_speaker(clips, n_folds)
        assert sorted(index for fold in folds for index in fold) == list(range(20))
        people = [speaker for fold in folds for speaker in {clips[i].speaker for i in fold}]
        assert sorted(str(speaker) for speaker in people) == list(sizes)
        for fold in folds:
            rest = [clip for index, clip in enumerate(clips) if index not in fold]
            assert find_protocol(rest, [clips[index] for index in fold]) == APART
    with pytest.raises(
        DatasetError, match="found 4 speakers; expected at least 5 known speakers for"
    ):
        fold_by_speaker(clips, 5)
    groups = group_clips(clips, "speaker")
    assert len({*groups}) == 4
    assert len({(clip.speaker, group) for clip, group in zip(clips, groups, strict=True)}) == 4


def test_copies_stay_in_one_fold() -> None:
    names = "01", "01", "02", "03", "04", "05"
    clips = [make_everywhere(name, "emodb")[0] for name in names]
    clips = [replace(clip, name=str(number)) for number, clip in enumerate(clips)]
    # The second of 01 is 03's, whose other audio nobody has; two could not be decoded.
    hashes = ("a", "b", "c", "b", "", "")
    first, again, two, three, four, five = group_clips(clips, "speaker", hashes)
    assert first == again == three
    assert len({first, two, four, five}) == 4
    assert len({*group_clips(clips, "speaker")}) == 5
    assert len({*group_clips(clips, "clip", hashes)}) == 5
    # A beep of everybody's joins nobody, but copies of the only two do.
    assert len({*group_clips(clips, "speaker", ["beep"] * 6)}) == 5
    assert len({*group_clips(clips[1:3], "speaker", ("a", "a"))}) == 1
    # Through others, too: a speaker of two names with a copy each.
    assert len({*group_clips(clips[2:], "speaker", ("x", "x", "y", "y"))}) == 2
    assert len({*group_clips(clips, "speaker", ("a", "b", "b", "c", "c", "d"))}) == 3


@pytest.mark.parametrize("seed", range(4))
def test_who_may_be_one_is_drawn_once(seed: int) -> None:
    names = [f"{number:02}" for number in range(10)]
    released = [clip for name in names for clip in make_everywhere(name, "ravdess")]
    listed = [clip for name in names for clip in make_everywhere(name, "table")]
    # Even if those of the table are too few to be drawn, or some of the release are not in it.
    for n_listed, n_released in ((10, 10), (2, 10), (10, 2), (10, 3), (4, 10)):
        clips = [*listed[:n_listed], *released[:n_released]]
        drawn = split_by_speaker(make_corpus(clips), seed)
        people = {(clip.speaker, clip.split) for clip in drawn.clips}
        assert len(people) == max(n_listed, n_released)
        assert {split for _, split in people} == {"train", "dev", "test"}
        assert find_protocol(drawn.select("train"), drawn.select("test")) == APART
    # Alone, each is drawn as it was.
    for clips in (released, listed):
        assert splits_of(split_by_speaker(make_corpus(clips), seed)) == splits_of(
            split_by_speaker(make_speakers(10, 1), seed)
        )


def test_speakers_of_whom_one_is_in_no_other_corpus_are_too_few() -> None:
    listed = [clip for n in range(10) for clip in make_everywhere(f"{n:02}", "table")]
    released = [clip for name in ("00", "77") for clip in make_everywhere(name, "ravdess")]
    with pytest.raises(DatasetError, match=r"^ravdess: has no splits and the speakers ravd"):
        split_by_speaker(make_corpus([*listed, *released]))


def test_clips_without_split_follow_who_may_be_their_speaker() -> None:
    given = [replace(make_clip(name), corpus="cremad", split=split) for name, split in GIVEN]
    bare = [clip for name, _ in GIVEN for clip in make_everywhere(name, "table")]
    split = split_by_speaker(make_corpus([*bare, *given]))
    assert splits_of(split) == [split for _, split in GIVEN] * 2
    assert split.clips[3:] == tuple(given)


@pytest.mark.parametrize("seed", range(5))
def test_speakers_of_two_corpora_are_drawn_once(seed: int) -> None:
    shared = [clip for n in range(3) for clip in make_everywhere(f"s{n}", "emodb", "table")]
    others = [clip for n in range(3, 20) for clip in make_everywhere(f"s{n}", "table")]
    split = split_by_speaker(make_corpus([*shared, *others]), seed)
    splits = {name: Counter[str | None]() for name in ("emodb", "table")}
    for clip in split.clips:
        splits[clip.corpus][clip.split] += 1
    assert splits["emodb"] == {"train": 1, "dev": 1, "test": 1}
    assert splits["table"] == {"train": 14, "dev": 3, "test": 3}
    voices = join_voices(split.clips)
    assert len({*zip(voices, splits_of(split), strict=True)}) == 20


def test_splits_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    given = [replace(make_clip(name), corpus="cremad", split=split) for name, split in GIVEN]
    listed = [clip for name, _ in GIVEN for clip in make_everywhere(name, "table")]
    same = [replace(clip, split=split) for clip, (_, split) in zip(listed, GIVEN, strict=True)]
    both = make_corpus([*given, *same])
    assert split_by_speaker(both) == both
    other = [*same[:2], replace(same[2], split="train")]
    message = (
        "plays: cremad/1048 is of the split test in cremad, and table/1048, who counts as the same "
        "speaker, of train in table; expected one split; assign the speakers with --split FILE"
    )
    with pytest.raises(DatasetError, match=message):
        split_by_speaker(make_corpus([*given, *other]))
    # A table by itself is drawn from, whose speakers are in several splits; the release is not.
    shared = [*same, replace(same[2], name="again", split="train")]
    assert splits_of(split_by_speaker(make_corpus([*given, *shared]))) == [
        *(split for _, split in GIVEN * 2),
        "test",
    ]
    # Two tables, in which a name is one speaker, too.
    two = [same[0], replace(same[0], corpus="calls", split="dev")]
    with pytest.raises(DatasetError, match=r"table/1001 is of the split train in table, and table"):
        split_by_speaker(make_corpus(two))

    table, corpus = tmp_path / "splits.csv", make_corpus([*given, *listed])
    table.write_text("speaker,split\n1001,test\ntable/1049,dev\ncremad/1049,dev\n")
    assert splits_of(split_by_file(corpus, table)) == ["test", "dev", "test", "dev"]
    table.write_text("speaker,split\ntable/1049,dev\ncremad/1049,train\n")
    message = (
        r"splits\.csv: lists the speaker cremad/1049 as train, and table/1049, who counts as the "
        "same speaker, as dev; expected one split; if these are two people, give one of them "
        "another name"
    )
    with pytest.raises(DatasetError, match=message):
        split_by_file(corpus, table)


def test_too_few_speakers_for_folds() -> None:
    clips = make_speakers(3).clips
    with pytest.raises(
        DatasetError, match="found 3 speakers; expected at least 4 known speakers for"
    ):
        fold_by_speaker(clips, 4)
    with pytest.raises(DatasetError, match="found unknown speakers; expected at least 2 known"):
        fold_by_speaker([*clips, make_clip(None)], 2)


@pytest.mark.parametrize(
    ("train", "test", "outcome"),
    [
        ("ab", "cd", APART),
        ("ab", "bc", SHARED),
        (("a", None), "b", UNKNOWN),
        ("a", ("b", None), UNKNOWN),
        ("ab", ("b", None), UNKNOWN),
    ],
)
def test_protocol_tells_what_is_known_of_the_speakers(
    train: Sequence[str | None], test: Sequence[str | None], outcome: str
) -> None:
    assert find_protocol([*map(make_clip, train)], [*map(make_clip, test)]) == outcome


def test_speakers_of_one_name_in_two_corpora_are_apart() -> None:
    clip = make_clip("a")
    assert find_protocol([clip], [replace(clip, corpus="films")]) == APART


def test_numbers_of_speakers_may_lack_zeros() -> None:
    published = replace(make_clip("03"), corpus="emodb")
    for name in ("3", "03", "003"):
        own = replace(make_clip(name), corpus="mine", namespace="table")
        assert find_protocol([published], [own]) == find_protocol([own], [published]) == SHARED
    for name in ("30", "13", "x3", "0"):
        own = replace(make_clip(name), corpus="mine", namespace="table")
        assert find_protocol([published], [own]) == APART


def test_who_may_be_of_a_published_corpus_is_shared_with_it() -> None:
    own, published = make_everywhere("a", "plays", "emodb")
    assert find_protocol([own], [published]) == SHARED
    assert find_protocol([published], [own]) == SHARED


def test_a_less_exact_name_takes_no_row_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    whole = [
        Clip(folder / name, "anger", f"s{number}", name=name)
        for number, name in enumerate(("001.wav", "sub/001.wav", "sub/002.wav"))
    ]
    table = tmp_path / "splits.csv"
    table.write_text("file, split\n001.wav, train\n002,dev,\n")
    split = split_by_file(make_corpus(whole), table)
    assert [(clip.name, clip.split) for clip in split.clips] == [
        ("001.wav", "train"),
        ("sub/002.wav", "dev"),
    ]
    assert split.skipped == {"sub/001.wav": "not in splits.csv"}
    # Times are no suffix: the second stretch is not the first.
    parts = [
        Clip(folder / "a.wav", "anger", "s", name=f"a.wav#0.5-{end:g}", start=0.5, end=end)
        for end in (1.0, 1.2)
    ]
    table.write_text("file,split\na.wav#0.5-1,train\n")
    split = split_by_file(make_corpus(parts), table)
    assert [clip.end for clip in split.clips] == [1.0]
    # What is of the file is of all its parts.
    table.write_text("file,split\na,test\n")
    assert splits_of(split_by_file(make_corpus(parts), table)) == ["test", "test"]


def test_a_split_by_numbers_that_lost_their_zeros(tmp_path: Path) -> None:
    clips = [make_everywhere(name, "emodb")[0] for name in ("03", "08", "10", "11")]
    path = tmp_path / "split.csv"
    path.write_text("speaker,split\n3,train\n8,train\n10,dev\n11,test\n")
    found = split_by_file(make_corpus(clips), path)
    assert [clip.split for clip in found.clips] == ["train", "train", "dev", "test"]
    assert not found.skipped
    # As in the folders of RAVDESS.
    listed = make_everywhere("Actor_03", "table")[0]
    published = make_everywhere("03", "ravdess")[0]
    assert find_protocol([listed], [published]) == "speakers shared"


def test_a_split_by_paths_below_the_corpus(tmp_path: Path) -> None:
    clips = [
        replace(make_everywhere("03", "emodb")[0], name=name, path=Path("somewhere") / path)
        for name, path in (("DC_a01", "Audio/DC/a01.wav"), ("JE_a01", "Audio/JE/a01.wav"))
    ]
    for first, second in (("DC/a01", "JE/a01"), ("Audio/DC/a01.wav", "Audio/JE/a01.wav")):
        path = tmp_path / "split.csv"
        path.write_text(f"file,split\n{first},train\n{second},test\n")
        found = split_by_file(make_corpus(clips), path)
        assert [clip.split for clip in found.clips] == ["train", "test"]


def test_names_of_files_go_before_speakers_whatever_their_letters(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("speaker,file,split\na, a\u0308_0 ,dev\na,a\u0308_1,test\n", encoding="utf-8")
    corpus = make_corpus([make_clip("\u00e4", 0), make_clip("\u00e4", 1)])
    assert splits_of(split_by_file(corpus, table)) == ["dev", "test"]
