import pytest

from pneumonia.strict_json import MAX_DEPTH, strict_json


@pytest.mark.parametrize("text", ["\ufeff{}", b"\xef\xbb\xbf {}\n", "{}"])
def test_json_is_read_with_or_without_a_byte_order_mark(text: str | bytes) -> None:
    assert strict_json(text, 10) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
        ('{"a": 1, "b": 2, "a": 1}', "it has 'a' twice"),
        ('[{"a": {"b": 1, "b": 2}}]', "it has 'b' twice"),
        ('{"a": [NaN]}', "it has the number nan"),
        ("[-Infinity]", "it has the number -inf"),
        ("1e400", "it has the number inf"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"\\udfff": 1}', "surrogates not allowed"),
        (b'"\xed\xa0\x80"', "can't decode"),
        ('"\ud800"', "surrogates not allowed"),
        ("{}".encode("utf-16"), "can't decode"),
        ("[" * 200_000, "nested too deeply"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deeply"),
        ("1" * 5000, "integer string conversion"),
        (" " * 1_000_000, "it has more than 200,000 bytes"),
    ],
)
def test_what_readers_take_for_different_things_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_json(text, 200_000)


def test_json_may_be_nested_a_little() -> None:
    assert strict_json("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH, 200)
