"""From values of any depth to the 8 bits that the network was trained on: one rule for PNG, TIFF and DICOM.

A file of more than 8 bits does not say which of its values should be black and which white. So `value_range` takes the
range from the values of the image.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.errors import ImageError

INTERVALS = 1000  # that the sorted values are divided into, all with the same number of pixels
OFFSETS = 8  # divisions, each shifted by a part of an interval; their mean is used, so that no single pixel decides
ENDS = 25  # the outermost of 2**18 blocks, whose mean is the end of the range; in small images, a thousandth of them
LONGEST_STEP = 0.05  # the most that one interval counts, as a share of the bulk: so a gap beside padding counts little
MARKERS, PADDING = 0.005, 0.02  # shares of the pixels: up to the first, distant values count; from the second on, not
NEAR, FAR = (
    0.5,
    1.0,
)  # shares of the bulk: few pixels count in full up to the first distance, not at all from the second
_BLOCKS = 2**18  # at most, that are looked at; more would change the range by less than one of 256 gray levels
_AT_ONCE = 2**16  # values that are converted at a time: as float64, they fit into the processor's cache

Values = NDArray[Any]


@np.errstate(over="ignore", invalid="ignore")  # values may be as large as float64 holds
def to_8_bits(values: Values) -> NDArray[np.uint8]:
    """Convert an image's values to 8 bits, its own range from black to white.

    Args:
        values: of any real type, shape (height, width) or (height, width, channels). Channels share one range.

    Returns:
        The same shape.

    Raises:
        ImageError: values that are not finite, or all the same.
    """
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():  # either is NaN if any is
        raise ImageError("Some values of the image are infinite or not numbers: export it with finite values.")
    low, high = value_range(blocks(values))
    shown = np.empty(values.shape, np.uint8)
    rows = max(1, _AT_ONCE // values[0].size)
    for top in range(0, len(values), rows):
        part = values[top : top + rows].astype(np.float64)
        part -= low
        part *= 255 / (high - low)
        shown[top : top + rows] = np.rint(part.clip(0, 255, out=part), out=part)
    return shown


def blocks(values: Values) -> Values:
    """Return blocks of 2 x 2 neighbouring pixels from all over an image, shape (4, number of blocks).

    Args:
        values: shape (height, width) or (height, width, channels); a block is of one channel.
    """
    height, width, *_ = values.shape
    apart = math.ceil(math.sqrt(values.size / _BLOCKS))
    corners = [(row, column) for row in (0, min(1, height - 1)) for column in (0, min(1, width - 1))]
    rows, columns = max(1, height - 1), max(1, width - 1)
    return np.stack([values[y : y + rows : apart, x : x + columns : apart].ravel() for y, x in corners])


def value_range(found: Values) -> tuple[float, float]:
    """Return the values to show as black and as white.

    These are the darkest and the brightest value, with three exceptions:

    - A bright pixel counts only if its neighbours are as bright, a dark one only if they are as dark. So a defect of
      the detector changes nothing.
    - If many pixels are separated from the others by a wide gap in the values, such as padding and borders, the gap is
      shortened.
    - If a few pixels are far from the others, their distance is shortened as well.

    The range moves with the values: for `a * values + b` it is `a * low + b` and `a * high + b`. It is continuous: a
    small change of values or pixels changes it little.

    Args:
        found: blocks of pixels, shape (4, N), as `blocks` gives them.

    Raises:
        ImageError: all values are the same, or there are none.
    """
    darker, brighter = (np.sort(ends.astype(np.float64)) for ends in (found.max(0), found.min(0)))
    if not found.size or brighter[0] == darker[-1]:
        raise ImageError("The image shows nothing: all of its pixels, or nearly all, have the same value.")
    ranges = [_ends(darker, brighter, offset / OFFSETS) for offset in range(OFFSETS)]
    low, high = (math.fsum(end / OFFSETS for end in ends) for ends in zip(*ranges, strict=True))
    return (low, high) if low < high else (float(brighter[0]), float(darker[-1]))


def _ends(darker: Values, brighter: Values, offset: float) -> tuple[float, float]:
    """Return the range that `value_range` describes, for intervals shifted by an offset.

    Args:
        darker: of each block the brightest value, sorted: bright pixels beside darker ones do not count.
        brighter: of each block the darkest value, sorted.
        offset: a share of an interval, 0 to 1.
    """
    dark_bounds, bright_bounds = _bounds(darker, offset), _bounds(brighter, offset)
    steps = np.diff(dark_bounds + bright_bounds) / 2
    bulk = _bulk(steps)
    middle = _middle(np.minimum(steps, LONGEST_STEP * bulk))
    black, white = dark_bounds[middle], bright_bounds[middle]
    few = math.ceil(min(ENDS, len(darker) / 1000))
    below = _reach(black - dark_bounds[middle::-1], black - darker[:few], bulk)
    above = _reach(bright_bounds[middle:] - white, brighter[-few:] - white, bulk)
    return black - below, white + above


def _bounds(values: Values, offset: float) -> Values:
    """Return the bounds of the intervals into which sorted values are divided, shape (INTERVALS + 2,)."""
    ranks = (np.arange(INTERVALS + 2, dtype=np.float32) - offset).clip(0, INTERVALS) / INTERVALS * (len(values) - 1)
    return values[np.rint(ranks).astype(np.intp)]


def _bulk(steps: Values) -> float:
    """Return the bulk: the sum of the steps, each counted as LONGEST_STEP of that sum at most."""
    steps = np.sort(steps)
    rest = steps.cumsum()[::-1]  # without the 0, 1, 2, … longest
    steps = steps[::-1]
    cut = np.arange(len(steps), dtype=np.float32)
    sums = rest / (1 - LONGEST_STEP * cut).clip(min=1e-9)
    return float(sums[np.argmax(steps <= LONGEST_STEP * sums)])


def _middle(steps: Values) -> int:
    """Return after how many steps half of their sum is reached: within the bulk, however many pixels are padding."""
    sums = steps.cumsum()
    return int((sums < sums[-1] / 2).sum())


def _reach(bounds: Values, ends: Values, bulk: float) -> float:
    """Return how far the range reaches from the middle, on one side.

    Args:
        bounds: of the intervals, as distances from the middle, from the middle outwards.
        ends: the outermost values, as distances. Each gives a reach, and their mean is returned: no single one decides.
        bulk: as `_bulk` gives it.
    """
    steps = np.diff(np.minimum(bounds, ends[:, None]))
    inner = np.minimum(steps, LONGEST_STEP * bulk)
    outside = np.arange(steps.shape[1] - 1, -1, -1, dtype=np.float32) / INTERVALS  # share of pixels beyond each
    weight = ((PADDING - outside) / (PADDING - MARKERS)).clip(0, 1)
    outer = ((steps - inner) * weight).sum(1)
    faded = ((FAR * bulk - outer) / (FAR - NEAR)).clip(min=0)
    return float((inner.sum(1) + np.minimum(outer, NEAR * faded)).mean())
