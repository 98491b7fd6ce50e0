"""Names of files in text: each one readable, none a formula, no two alike, and each found again."""

import ast
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.names import in_csv, in_text, on_terminal
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
