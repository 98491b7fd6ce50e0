import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.errors import WeightsError
from pneumonia.releases.layout import (
    MAX_POINTER,
    MAX_PREVIOUS,
    Pointer,
    manifest_key,
    onnx_key,
    parse_pointer,
    version_of,
    weights_key,
)
from pneumonia.releases.version import is_version
from tests.builders.json_values import JSON_VALUES, NASTY


def read(content: object) -> Pointer | WeightsError:
    """Return the pointer in this content, or the refusal."""
    try:
        return parse_pointer(json.dumps(content), "here")
    except WeightsError as error:
        return error


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("version", "previous", "withdrawn", "other"), JSON_VALUES)))
def test_a_pointer_names_versions_or_is_refused_in_one_line(content: dict[str, Any]) -> None:
    pointer = read(content)
    if isinstance(pointer, WeightsError):
        assert str(pointer).isprintable()
        return
    assert all(map(is_version, (pointer.version, *pointer.previous, *pointer.withdrawn)))
    assert parse_pointer(pointer.to_json(), "here") == pointer


def test_only_a_manifest_makes_a_release() -> None:
    assert [version_of(key("1")) for key in (manifest_key, weights_key, onnx_key)] == ["1", None, None]


@pytest.mark.parametrize("version", [*NASTY[:8], "a b", "ä", "1/manifest.json", ".hidden", "x" * 101, None, 1, ["1"]])
def test_what_no_release_is_called(version: object) -> None:
    assert not is_version(version)
    assert version_of(manifest_key(str(version))) != str(version) or not isinstance(version, str)
    with pytest.raises(WeightsError, match=r"^here names no version \("):
        parse_pointer(json.dumps({"version": version}), "here")


@pytest.mark.parametrize("name", ["\n", "a b", "x" * 101, None, 1, ["1"]])
def test_what_no_release_is_called_is_left_out_of_the_previous_ones(name: object) -> None:
    content = {"version": "2", "previous": [name, "1"], "withdrawn": [name]}
    assert parse_pointer(json.dumps(content), "here") == Pointer("2", ("1",))


def test_the_longest_pointer_that_is_written_can_be_read() -> None:
    names = tuple(f"{number:0100}" for number in range(MAX_PREVIOUS))
    pointer = Pointer(names[0], names, names)
    assert len(pointer.to_json()) < MAX_POINTER
    assert parse_pointer(pointer.to_json(), "here") == pointer


@pytest.mark.parametrize("previous", ["abc", {"a": 1}, 5, None])
def test_previous_releases_that_are_no_list_are_none(previous: object) -> None:
    assert parse_pointer(json.dumps({"version": "2", "previous": previous}), "here") == Pointer("2")
