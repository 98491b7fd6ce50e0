r"""File names as text: in tables, in JSON and on a terminal, whatever bytes a name has.

Most names stay as they are. Others are quoted as GNU `ls` does, in Bash's notation: `$'a\xff.jpeg'`. Bash reads that as
it is, and `named` gives the name back. Different names stay different, because a name that begins with `$'` is quoted,
too.
"""

import ast
import os
import re
import unicodedata
from collections.abc import Sequence

# A spreadsheet takes text that begins like this for a formula (OWASP, "CSV Injection"), also in full-width characters.
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")  # noqa: RUF001
# In some countries the semicolon separates cells, so the text after one begins a cell.
LATER_FORMULA = re.compile(r";\s*[=+\-@＝＋－＠]")  # noqa: RUF001
# What else is not text to a program that reads tables, without a folder or an ending: a number, a date or a time, a
# missing value (pandas), a truth value.
NO_TEXT = re.compile(
    r"(?!/)[\d.,:/ e+%-]+|\s*(?:#?n/?a(?: n/a)?|#na|<na>|nan|null|none|true|false|inf|infinity|1\.#(?:ind|qnan))\s*",
    re.IGNORECASE,
)
TORN_BY = {"Cc", "Cs", "Zl", "Zp"}  # categories: control characters, half a character, ends of lines and paragraphs
QUOTED = re.compile(r"\$'(?:[ -&(-\[\]-~]|\\x[0-9a-f]{2})*'")
LONG = 100  # characters of a name in a sentence


def in_text(name: str) -> str:
    """Return a file's name as it is, or quoted if it is not UTF-8, or has control characters or ends of lines."""
    kept = not name.startswith("$'") and all(unicodedata.category(one) not in TORN_BY for one in name)
    return name if kept else quoted(name)


def in_csv(name: str) -> str:
    """Return a file's name as `in_text` does, but so that no reader of tables takes it for a formula or a number.

    A path that looks like one gets `./` before it, and is still the path of the same file.
    """
    text = quoted(name) if LATER_FORMULA.search(name) else in_text(name)
    return f"./{text}" if FORMULA.match(text) or NO_TEXT.fullmatch(text) else text


def named(text: str) -> str:
    """Return the name that `in_text` or `in_csv` returned a text for; one that has `./` before it keeps that."""
    return os.fsdecode(ast.literal_eval("b" + text[1:])) if QUOTED.fullmatch(text) else text


def on_terminal(name: str) -> str:
    """Return a file's name as it is, or quoted if a terminal would not print each of its characters."""
    return name if name.isprintable() and not name.startswith("$'") else quoted(name)


def some(names: Sequence[str]) -> str:
    """Return the first three names as `on_terminal` does, long ones shortened, and the number of the others."""
    shown = ", ".join(on_terminal(name if len(name) <= LONG else f"{name[:LONG]}…") for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def quoted(name: str) -> str:
    r"""Return a name in Bash's notation, in ASCII: bytes that are not printed as themselves become `\xff`."""
    try:
        data = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # not from bytes: Windows allows half a character
        data = name.encode(errors="surrogatepass")
    kept = (chr(one) if 32 <= one < 127 and one not in b"\\';" else f"\\x{one:02x}" for one in data)
    return f"$'{''.join(kept)}'"
