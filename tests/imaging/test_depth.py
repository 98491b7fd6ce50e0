"""The rule from deep values to 8 bits, by itself: what it gives, and that it has no steps."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumonia.errors import ImageError
from pneumonia.imaging.depth import to_8_bits
from pneumonia.training.synthetic import draw_radiograph

Values = npt.NDArray[Any]


def radiograph(size: int = 200) -> Values:
    """Return a drawn radiograph of values from 0 to 4095, both of which more than a pixel has."""
    drawn = np.asarray(draw_radiograph(Random(0), "PNEUMONIA", size)).astype(np.int64)
    values: Values = ((drawn - drawn.min()) * 4095 / np.ptp(drawn)).round().astype(np.int64)
    values[2:9, 2:9], values[-9:-2, -9:-2] = 0, 4095
    return values


def shown(values: Values) -> Values:
    return to_8_bits(values).astype(int)


REFERENCE = (radiograph() / 4095 * 255).round().astype(int)


@pytest.mark.parametrize("factor", [1 / 16, 700 / 4095, 3000 / 4095, 1, 4100 / 4095, 40_000 / 4095, 65_535 / 4095, 1e5])
@pytest.mark.parametrize("offset", [0, 1000, -2048, -10_000_000])
def test_any_scale_and_offset_gives_the_same_image(factor: float, offset: int) -> None:
    values = (radiograph() * factor).round().astype(np.int64) + offset
    assert abs(shown(values) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_every_type_gives_the_same_image(dtype: type) -> None:
    assert np.array_equal(shown(radiograph().astype(dtype)), REFERENCE)


def test_fractions_are_values() -> None:
    assert abs(shown(radiograph() / 4095) - REFERENCE).max() <= 1
    assert abs(shown((radiograph() / 4095).astype(np.float16)) - REFERENCE).max() <= 1


def test_an_inverted_image_is_shown_inverted() -> None:
    assert abs(shown(4095 - radiograph()) + REFERENCE - 255).max() <= 1


def defects(count: int) -> Callable[[Values], Values]:
    places = np.random.default_rng(0).choice(radiograph().size, count, replace=False)

    def add(values: Values) -> Values:
        values.ravel()[places] = 65_535
        values.ravel()[places[: count // 2]] = -30_000
        return values

    return add


def dead_column(values: Values) -> Values:
    values[:, 77] = 65_535
    return values


def border(value: int, width: int) -> Callable[[Values], Values]:
    def add(values: Values) -> Values:
        values[:width], values[-width:] = value, value
        values[:, :width], values[:, -width:] = value, value
        return values

    return add


def marker(values: Values) -> Values:
    values[10:22, 10:18] = 65_535
    return values


@pytest.mark.parametrize(
    ("damage", "tolerance"),
    [
        pytest.param(defects(1), 1, id="one defect"),
        pytest.param(defects(40), 1, id="one defect in a thousand pixels"),
        pytest.param(defects(400), 1, id="one defect in a hundred pixels"),
        pytest.param(dead_column, 1, id="a column"),
        pytest.param(border(65_535, 10), 16, id="white border"),
        pytest.param(border(-2000, 10), 16, id="padding"),
        pytest.param(border(-2000, 30), 30, id="much padding"),
        pytest.param(marker, 16, id="a marker"),
    ],
)
def test_a_part_of_extreme_values_leaves_the_rest_as_it_was(damage: Callable[[Values], Values], tolerance: int) -> None:
    values = damage(radiograph())
    kept = values == radiograph()
    assert abs(shown(values) - REFERENCE)[kept].max() <= tolerance
    assert set(np.unique(shown(values)[~kept])) <= {0, 255}


def test_a_bright_marker_near_the_other_values_is_white() -> None:
    values = radiograph() // 2
    values[10:22, 10:18] = 3000
    assert abs(shown(values) - np.round(values / 3000 * 255)).max() <= 1


@settings(max_examples=60)
@given(
    st.integers(0, 199),
    st.integers(0, 199),
    st.integers(-70_000, 70_000),
    st.sampled_from([None, border(65_535, 10), border(-2000, 4), border(5000, 2), marker, defects(40)]),
)
def test_one_pixel_does_not_change_the_others(
    row: int, column: int, value: int, damage: Callable[[Values], Values] | None
) -> None:
    values = damage(radiograph()) if damage else radiograph()
    changed = values.copy()
    changed[row, column] = value
    difference = abs(shown(changed) - shown(values))
    difference[row, column] = 0
    assert difference.max() <= 3


@settings(max_examples=60)
@given(
    st.sampled_from([-2000, 3000, 4100, 5000, 6000, 9000, 65_535]),
    st.integers(0, 60),
    st.integers(0, 180),
)
def test_a_border_of_one_pixel_more_does_not_change_the_image(value: int, rows: int, column: int) -> None:
    values = radiograph()
    values[:rows], values[rows, :column] = value, value
    changed = values.copy()
    changed[rows, column] = value
    kept = changed == values
    assert abs(shown(changed) - shown(values))[kept].max() <= 6


@settings(max_examples=20)
@given(st.floats(4095, 70_000))
def test_a_marker_a_little_brighter_does_not_change_the_image(value: float) -> None:
    values = radiograph().astype(float)
    values[10:22, 10:18] = value
    changed = values.copy()
    changed[10:22, 10:18] = value * 1.01
    kept = changed == values
    assert abs(shown(changed) - shown(values))[kept].max() <= 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    values = radiograph().astype(float)
    values[3, 4] = value
    with pytest.raises(ImageError, match="infinite or not numbers"):
        shown(values)


@pytest.mark.parametrize("value", [0, 7, 65_535])
def test_an_image_of_one_value_is_refused(value: int) -> None:
    with pytest.raises(ImageError, match="shows nothing"):
        shown(np.full((30, 40), value))


def test_an_image_without_two_pixels_alike_beside_each_other_has_a_range() -> None:
    checkered = np.indices((30, 40)).sum(0) % 2 * 1000
    assert np.array_equal(shown(checkered), checkered * 255 // 1000)


@settings(max_examples=100)
@given(
    st.sampled_from([np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.uint64, np.float32, np.float64]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(), (3,)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 30, 10_000]),
)
def test_any_values_become_8_bits_or_are_refused(
    dtype: type, size: tuple[int, int], channels: tuple[int, ...], seed: int, levels: int
) -> None:
    random = np.random.default_rng(seed)
    palette: Values = np.frombuffer(random.bytes(levels * np.dtype(dtype).itemsize), dtype)
    values = random.choice(palette, (*size, *channels))
    try:
        found = to_8_bits(values)
    except ImageError:
        return
    assert found.shape == values.shape
    assert found.dtype == np.uint8


def test_channels_share_one_range() -> None:
    colors = np.stack([radiograph(), radiograph() // 2, radiograph() // 4], axis=-1)
    found = shown(colors)
    assert abs(found[..., 0] - REFERENCE).max() <= 2
    assert abs(found[..., 2] - REFERENCE / 4).max() <= 2
