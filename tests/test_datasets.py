import os
from pathlib import Path

import pytest

from sercli.datasets import class_indices, read_corpus
from sercli.errors import DatasetError
from sercli.labels import EMOTIONS


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_cremad_names(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioWAV/1001_IEO_FEA_LO.flac",
        "AudioWAV/1049_IEO_HAP_MD.wav",
        "AudioWAV/1048_IEO_NEU_HI.mp3",
        "AudioWAV/1040_ITH_SAD_X.wav",
        "AudioWAV/notes.wav",
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "VideoDemographics.csv",
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
    assert [clip.speaker for clip in corpus.select("train")] == ["1001", "1001", "1040"]
    assert [clip.speaker for clip in corpus.select("dev")] == ["1049"]
    assert [clip.speaker for clip in corpus.select("test")] == ["1048"]
    assert len(corpus.select("all")) == 5
    assert corpus.describe() == (
        "cremad: 5 clips of 4 speakers; 1 file left out "
        "(VideoFlash/1001_DFA_ANG_XX.flv: another copy of a clip)"
    )


def test_many_files_left_out_are_counted(tmp_path: Path) -> None:
    names = [f"{actor}_DFA_ANG_XX" for actor in range(1001, 1011)]
    make_tree(tmp_path, *(f"wav/{name}.wav" for name in names))
    make_tree(tmp_path, *(f"mp3/{name}.mp3" for name in names))
    corpus = read_corpus(tmp_path)
    assert {clip.path.suffix for clip in corpus.clips} == {".wav"}
    assert corpus.describe().endswith("; 10 files left out (10: another copy of a clip)")


def test_known_faults_are_left_out_and_told(tmp_path: Path) -> None:
    make_tree(tmp_path, "1076_MTI_SAD_XX.wav", "1006_TIE_HAP_XX.wav", "1006_TIE_ANG_XX.wav")
    corpus = read_corpus(tmp_path)
    assert [clip.path.name for clip in corpus.clips] == ["1006_TIE_ANG_XX.wav"]
    assert corpus.describe() == (
        "cremad: 1 clip of 1 speaker; 2 files left out (1006_TIE_HAP_XX: the same recording as "
        "1006_TIE_NEU_XX; 1076_MTI_SAD_XX: digital silence)"
    )


def test_partition_is_disjoint_and_whole(tmp_path: Path) -> None:
    corpus = read_corpus(make_tree(tmp_path, "1001_DFA_ANG_XX.wav"))
    sizes = {split: len(speakers) for split, speakers in corpus.partition.items()}
    assert sizes == {"train": 56, "dev": 18, "test": 17}
    assert frozenset().union(*corpus.partition.values()) == {str(i) for i in range(1001, 1092)}


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        read_corpus(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"found no audio file named like CREMA-D's"):
        read_corpus(make_tree(tmp_path, "a.wav"))
    corpus = read_corpus(make_tree(tmp_path, "1001_DFA_ANG_XX.wav"))
    with pytest.raises(DatasetError, match="no clips of the speakers of split 'test'"):
        corpus.select("test")
    with pytest.raises(DatasetError, match=r"labels \['anger'\] of the corpus are none"):
        class_indices(corpus.clips, ("joy", "grief"))
    assert class_indices(corpus.clips, EMOTIONS) == [0]


@pytest.mark.corpus
@pytest.mark.skipif("SER_CREMAD" not in os.environ, reason="SER_CREMAD names no copy of CREMA-D")
def test_the_real_corpus() -> None:
    corpus = read_corpus(Path(os.environ["SER_CREMAD"]))
    speakers = {clip.speaker for clip in corpus.clips}
    assert {clip.emotion for clip in corpus.clips} == set(EMOTIONS)
    assert len(corpus.clips) + len(corpus.skipped) >= 80 * len(speakers)
    assert sum(len(corpus.select(split)) for split in ("train", "dev", "test")) == len(corpus.clips)
    assert "1076_MTI_SAD_XX" in corpus.skipped
