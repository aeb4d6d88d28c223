import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sercli.discovery import Found, find_inputs, read_path_list
from sercli.errors import ConfigError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.wav",
        "a/z.MP3",
        "a/notes.txt",
        "a/deep/x.flac",
        "c.m4a",
        ".hidden/h.wav",
        "~$h.wav",
        ".h.wav",
        "d/film.MKV",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(found: list[Found], root: Path) -> list[str]:
    assert all(item.error is None for item in found)
    return [os.path.relpath(item.path, root) for item in found]


def test_walks_in_order_of_names_and_skips_hidden_and_other_files(tree: Path) -> None:
    expected = ["a/deep/x.flac", "a/z.MP3", "b.wav", "c.m4a", "d/film.MKV"]
    assert names(list(find_inputs([tree])), tree) == expected


def test_not_recursive(tree: Path) -> None:
    assert names(list(find_inputs([tree], recursive=False)), tree) == ["b.wav", "c.m4a"]


def test_include_and_exclude(tree: Path) -> None:
    assert names(list(find_inputs([tree], include=["*.txt", "b.*"])), tree) == [
        "a/notes.txt",
        "b.wav",
    ]
    assert names(list(find_inputs([tree], exclude=["a/*", "*.m4a"])), tree) == [
        "b.wav",
        "d/film.MKV",
    ]
    found = find_inputs([tree], include=["a/*"], exclude=["*.txt"])
    assert names(list(found), tree) == ["a/deep/x.flac", "a/z.MP3"]


def test_single_strings_are_one_path_and_one_pattern(tree: Path) -> None:
    assert names(list(find_inputs(str(tree), include="*.wav", exclude="a")), tree) == ["b.wav"]
    assert names(list(find_inputs(tree / "b.wav")), tree) == ["b.wav"]


@pytest.mark.parametrize("none", [None, 0, b"b.wav", ["b.wav"]])
def test_what_is_no_path_is_refused(none: Any) -> None:
    found = find_inputs(["missing.wav", none])
    assert next(found) == Found("missing.wav")
    with pytest.raises(ConfigError, match=f"^an input is {re.escape(repr(none))}; expected a path"):
        next(found)


def test_an_open_file_is_no_list_of_its_lines(tree: Path) -> None:
    with (tree / "b.wav").open() as opened:
        lists: tuple[Any, ...] = (opened, io.StringIO("b.wav\n"), io.BytesIO(b"b.wav"))
        for one in lists:
            with pytest.raises(ConfigError, match=r"^the inputs are <.*>; expected paths$"):
                list(find_inputs(one))


def test_folders_are_left_out(tree: Path) -> None:
    for pattern in ("a", "a/", "?"):
        found = names(list(find_inputs([tree], exclude=[pattern])), tree)
        assert found == ["b.wav", "c.m4a", *["d/film.MKV"] * (pattern != "?")]
    assert names(list(find_inputs([tree], exclude=["a/deep"])), tree) == [
        "a/z.MP3",
        "b.wav",
        "c.m4a",
        "d/film.MKV",
    ]


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("calls", "calls/a/deep"),
        ("calls", "./calls/a/deep/"),
        ("./calls/", "calls/a/deep"),
        (".", "./calls/a/deep"),
        ("calls", "c*s/a/d??p"),
        ("calls/../calls", "calls/../calls/a/deep"),
    ],
)
def test_patterns_match_paths_as_they_are_given(
    tree: Path, monkeypatch: pytest.MonkeyPatch, given: str, pattern: str
) -> None:
    (tree / "calls").mkdir()
    for name in ("a", "b.wav", "c.m4a", "d"):
        (tree / name).rename(tree / "calls" / name)
    monkeypatch.chdir(tree)
    idle: list[str] = []
    found = list(find_inputs([given], exclude=[pattern], on_idle=idle.append))
    assert names(found, tree) == ["calls/a/z.MP3", "calls/b.wav", "calls/c.m4a", "calls/d/film.MKV"]
    found = list(find_inputs([given], include=[f"{pattern.rstrip('/')}/*"], on_idle=idle.append))
    assert names(found, tree) == ["calls/a/deep/x.flac"]
    assert idle == []
    (tree / "calls").rename(tree / "calls [1]")
    found = list(find_inputs([tree / "calls [1]"], exclude=[str(tree / "calls [1]" / "a")]))
    assert [Path(one.path).name for one in found] == ["b.wav", "c.m4a", "film.MKV"]
    (tree / "calls [1]").rename(tree / "calls")
    # Of names, and of what begins anywhere, what is above the folder is none.
    exclude = ["calls", "c*s", "*/calls/*", "calls/e"]
    found = list(find_inputs([tree / "calls"], exclude=exclude))
    assert len(found) == 5


def test_patterns_that_nothing_matches_are_told_once(tree: Path) -> None:
    idle: list[str] = []
    exclude, include = ["*.wav", "b.wav", "x", "x", "a/deep/"], ["*", "*.ogg", "x"]
    list(find_inputs([tree, tree / "d"], exclude=exclude, include=include, on_idle=idle.append))
    assert idle == ["*.ogg", "x"]
    idle.clear()
    list(find_inputs([tree / "b.wav"], exclude="b.wav", on_idle=idle.append))
    assert idle == ["b.wav"]


def test_a_named_file_is_taken_whatever_its_suffix_and_in_the_order_given(tree: Path) -> None:
    paths = [tree / "d", tree / "a/notes.txt", tree / ".h.wav", tree / "missing.wav"]
    found = find_inputs(paths, exclude=["*.txt"])
    assert names(list(found), tree) == ["d/film.MKV", "a/notes.txt", ".h.wav", "missing.wav"]


def test_paths_are_given_as_they_came(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert [item.path for item in find_inputs(["./d", "b.wav", "d/../c.m4a"])] == [
        "./d/film.MKV",
        "b.wav",
        "d/../c.m4a",
    ]


def test_a_file_is_given_once(tree: Path) -> None:
    assert len(list(find_inputs([tree / "b.wav", tree, tree]))) == 5


def test_loops_of_links_end(tree: Path) -> None:
    (tree / "a/deep/loop").symlink_to(tree)
    (tree / "e").symlink_to(tree / "d")
    expected = ["a/deep/x.flac", "a/z.MP3", "b.wav", "c.m4a", "d/film.MKV"]
    assert names(list(find_inputs([tree])), tree) == expected


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[list[str]]:
    """Files in folders that are nested deeper than functions may be, in order."""
    folders = [f"{tmp_path}{'/d' * depth}" for depth in range(1_201)]
    for folder in folders[1:]:
        os.mkdir(folder)
    around = (folders[0], folders[1], folders[-2])
    files = [f"{folder}/a.wav" for folder in around]
    files.append(f"{folders[-1]}/c.wav")
    files += [f"{folder}/e.wav" for folder in reversed(around)]
    for file in files:
        Path(file).touch()
    yield files
    for file in files:  # what pytest could not remove
        os.remove(file)
    for folder in reversed(folders[1:]):
        os.rmdir(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, no path may be as long")
def test_folders_may_be_nested_deep(tmp_path: Path, deep: list[str]) -> None:
    assert list(find_inputs(tmp_path)) == list(map(Found, deep))


def test_an_unreadable_folder_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:  # root may read everything: chmod would prove nothing
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(find_inputs([tree]))
    assert found[0] == Found(f"{tree}/a/deep", "folder cannot be listed: Permission denied")
    assert names(found[1:], tree) == ["a/z.MP3", "b.wav", "c.m4a", "d/film.MKV"]


def test_lists_of_paths() -> None:
    lines = io.BytesIO("a.wav\r\n\nmy calls/ä.wav\n".encode() + b"caf\xe9.wav")
    assert read_path_list(lines) == ["a.wav", "my calls/ä.wav", "caf\udce9.wav"]
    marked = io.BytesIO(b"\xef\xbb\xbfa.wav\n")
    assert read_path_list(marked) == ["a.wav"]
    nul = io.BytesIO(b"a\nb.wav\0c.wav\0")
    assert read_path_list(nul, nul=True) == ["a\nb.wav", "c.wav"]


def test_a_folder_keeps_its_name_if_a_link_leads_to_it(tmp_path: Path) -> None:
    for name in ("calls/may/1.wav", "calls/zz/deep/2.wav", "calls/last.wav", "old/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [tmp_path / "calls" / one for one in ("last.wav", "may/1.wav", "zz/deep/2.wav")]
    assert [one.path for one in find_inputs(tmp_path / "calls")] == list(map(str, expected))
    for link, folder in (("current", "may"), ("a", "zz/deep"), ("archive", tmp_path / "old")):
        (tmp_path / "calls" / link).symlink_to(folder)
    expected.append(tmp_path / "calls/archive/3.wav")
    assert [one.path for one in find_inputs(tmp_path / "calls")] == list(map(str, expected))
    (found,) = find_inputs(tmp_path / "calls", include="may/*")
    assert found.path == str(expected[1])


def test_links_that_cannot_be_followed_are_files(tree: Path) -> None:
    (tree / "d" / "loop.wav").symlink_to("loop.wav")
    assert "d/loop.wav" in names(list(find_inputs([tree])), tree)


def test_a_list_of_lines_without_nul() -> None:
    with pytest.raises(ConfigError, match="the list of files contains a NUL byte"):
        read_path_list(io.BytesIO(b"a.wav\0b.wav"))


def test_a_list_in_another_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsdecode", lambda name: name.decode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"the list of files is not UTF-8: .*; save it as UTF-8"):
        read_path_list(io.BytesIO(b"M\xfcller.wav\n"))
