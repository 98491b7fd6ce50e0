"""Names of files in text: each one readable, none a formula, no two alike, and each found again."""

import ast
import csv
import io
import os
import subprocess

import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.batch.tables import error_row, write_csv
from pneumonia.names import in_csv, in_text, named, on_terminal
from tests.builders.fuzzing import fuzzed

ODD = st.lists(
    st.sampled_from([b"=", b"-", b"\xff", b"\xed\xa0\x80", b"\\", b"xff", b"$'", b"'", b";", b"./", b"\r", b"\n", b" "])
    | st.binary(max_size=3),
    max_size=6,
).map(lambda parts: os.fsdecode(b"".join(parts)))


@pytest.mark.parametrize(
    "name", ["xray.jpg", "röntgen 胸.png", "a b", "C:\\xff\\x.jpg", "'=1'", "a-b=c+d@e", "1=2", "$a"]
)
def test_most_names_stay(name: str) -> None:
    assert in_csv(name) == in_text(name) == on_terminal(name) == name


@pytest.mark.parametrize("start", "=+-@＝＋－＠")  # noqa: RUF001
@pytest.mark.parametrize("before", ["", " ", "\u3000", "\u2003 "])
def test_a_formula_gets_the_folder_that_it_is_in(start: str, before: str) -> None:
    name = f"{before}{start}HYPERLINK()"
    assert in_csv(name) == f"./{name}"
    assert in_text(name) == name


@pytest.mark.processes
@pytest.mark.parametrize("name", [b"a\xff'\\;b", b"a\nb", b"$'x'", b"\xe2\x82", b"\x7f\x1b[31m", "\x85ü".encode()])
def test_a_quoted_name_gives_the_bytes_back(name: bytes) -> None:
    text = in_text(os.fsdecode(name))
    assert text.isascii()
    assert text.isprintable()
    assert ast.literal_eval("b" + text[1:]) == name
    assert subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True).stdout == name


def test_half_a_character_has_a_name_too() -> None:
    assert in_text("a\ud800b") == r"$'a\xed\xa0\x80b'"


@given(ODD, ODD)
@fuzzed(500)
def test_no_two_names_become_alike(one: str, other: str) -> None:
    for spelled in (in_text, on_terminal):
        assert (spelled(one) == spelled(other)) == (one == other)
    for name in (one, other):
        text = in_csv(name)
        text.encode()
        assert text.lstrip()[:1] not in {*"=+-@"}
        assert not {*"\r\n\t\0"} & {*text}


# One row for each name, and the same name back

TEARING = [
    *"0123456789.-+eE,:/ %#NAnaulTtrfsoid_x=;|\"'\\$\r\n\t\0\u2028\u2029\x85\x0b\x0c\x1c\ufeff\u200f\u202e\u0661"
]
WORDS = ["NA", "N/A", "#N/A N/A", "nan", "NULL", "None", "<NA>", "1.#IND", "inf", "TRUE", "False", "1e5", "0x1", "1_0"]
ANY = st.text(st.sampled_from(TEARING), min_size=1, max_size=8) | st.sampled_from(WORDS) | st.text(min_size=1) | ODD
ANY = ANY.filter(lambda name: name and not name.startswith("./"))  # no listed path begins like that


@given(st.lists(ANY, min_size=1, max_size=4))
@fuzzed(1000)
def test_whatever_a_name_is_readers_of_tables_find_one_row_and_the_same_name(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "names.csv"
    write_csv(path, iter([[name, *error_row(f"not read: {name}")] for name in names]))
    text = path.read_bytes().decode()
    assert len(text.splitlines()) == text.count("\n") == 1 + len(names)  # for tools that read lines
    default, unix = (list(csv.reader(io.StringIO(text, newline=""), dialect)) for dialect in ("excel", "unix"))
    cells = pd.read_csv(path)["file"].tolist()
    assert default == unix
    assert cells == [row[0] for row in default[1:]]
    for name, cell in zip(names, cells, strict=True):
        assert in_text(named(cell.removeprefix("./"))) == in_text(name)
