"""Tables as people write them, whatever reads them."""

from pathlib import Path

import pytest

from sercli.delimited import read_table
from sercli.errors import DatasetError


def read(path: Path, content: bytes) -> list[dict[str, str]]:
    path.write_bytes(content)
    return [dict(row.cells) for row in read_table(path, DatasetError).rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_cells_in_any_dress(tmp_path: Path, delimiter: str, line_end: str) -> None:
    lines = [
        "",
        delimiter.join(("file", " text ", "", "")),
        "",
        delimiter.join((' a.wav"', f'"é{delimiter} ""so"""', "", "")),
        delimiter * 3,
    ]
    content = line_end.join(lines).encode("utf-8-sig")
    assert read(tmp_path / "a.csv", content) == [
        {"file": ' a.wav"', "text": f'é{delimiter} "so"', "": ""}
    ]


def test_a_suffix_tells_of_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.TSV", b"a,b,c\td,e\n1\t2\n") == [{"a,b,c": "1", "d,e": "2"}]


def test_a_suffix_is_not_believed_where_no_tab_is(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", b"a,b\n1,2\n") == [{"a": "1", "b": "2"}]


def test_rows_that_were_filled_up(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", b"a,b\n1,2,\n3,4,,\n")
    assert rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny"\n\n3,4\n')
    assert [row.where for row in read_table(path, DatasetError).rows] == [
        f"{path}, line 2",
        f"{path}, line 5",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty; expected CSV, or TSV, in UTF-8, with the names of the columns first"),
        (b"\n\n", ": is empty"),
        (b"a,b\n", ": has no row below its header; expected at least one"),
        (b"a,b\n\n,\n", ": has no row below its header"),
        (b"a,b, a\n1,2,3\n", ": has two columns 'a'; expected each once"),
        (b"a,b\n1,2\n1\n", ", line 3: has 1 cell; expected 2, as in the header"),
        (b"a,b\n1,2,3\n", ", line 2: has 3 cells; expected 2, as in the header"),
        (b'a,b\n1,2\n3,"4\n5,6\n', ", line 3: cannot be read: unexpected end of data; expected "),
        (b'a,b\n1,2\n"3"x,4\n', ", line 3: cannot be read: .*quotes are closed, and doubled"),
        (b'"a,b\n1,2\n', ", line 1: cannot be read: "),
        (
            b"a,b\n1,\xe9\n",
            ", line 2: is not UTF-8: 'utf-8' codec .*; expected CSV, or TSV, in UTF",
        ),
        (
            "a,b\n1,2\n".encode("utf-16-le"),
            ": contains a NUL byte, so it is not text; expected CSV",
        ),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"a\.csv{message}"):
        read(tmp_path / "a.csv", content)


def test_a_header_alone_where_that_will_do(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n")
    table = read_table(path, DatasetError, may_be_empty=True)
    assert (table.columns, list(table.rows)) == (("a", "b"), [])
