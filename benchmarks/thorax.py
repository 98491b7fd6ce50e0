"""Find the thorax in a frontal film without labels: where a drawn pair of lungs fits the film best.

Lungs are darker than what is between and around them. A pair of lungs is drawn at every place and in every size of a
grid, and the one counts with which the film's gray levels correlate most, among the pixels of the drawing and of a ring
around it. Larger drawings fit less closely, so the correlation is multiplied by the number of pixels to the power of
0.3; and it counts less the further the place and size are from the usual. Air beside the body is as dark as lungs, and
is made bright first.

Seen on 60 films, 20 of them of adults: the outline followed the lungs on 57 of them, within about a rib's breadth. On
one it was too wide, on one too narrow, and on one it left out the tops of the lungs.
"""

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Place = tuple[float, float, float, float]  # middle from the left and from the top, half the width and half the height
SIDE = 56  # pixels a side in which drawings and film are compared
RIGHT, DOWN = np.arange(0.42, 0.59, 0.04), np.arange(0.36, 0.61, 0.04)
WIDE, HIGH = np.arange(0.27, 0.46, 0.03), np.arange(0.26, 0.45, 0.03)
USUAL, DEVIATION = (0.5, 0.34, 0.34), 0.3  # of middle from the left, half the width, half the height
MEDIASTINUM = 0.3  # share of the width
AIR = 0.3  # of a bright pixel's value


def find_thorax(film: Image.Image, size: int) -> Mask:
    """Return where the thorax is: lungs, and what lies between them.

    Args:
        film: frontal, upright, mode "L".
        size: pixels a side of what is returned, into which the film is squashed.

    Returns:
        Shape (size, size).
    """
    thorax, _ = drawn(place_of_thorax(film), size)
    return thorax


def place_of_thorax(film: Image.Image) -> Place:
    """Return the place of the drawing that fits best."""
    places, rings, drawings, weights = drawings_of_lungs()
    levels = without_air(film).ravel()
    count = rings.sum(1)
    variance = rings @ levels**2 / count - (rings @ levels / count) ** 2
    return places[int(((drawings @ levels) / np.sqrt(variance + 1) * weights).argmax())]


def without_air(film: Image.Image) -> Floats:
    """Return the gray levels, shape (SIDE, SIDE), white where they are dark all the way to the left or right edge."""
    small = film.resize((SIDE, SIDE), Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(1))
    levels = np.asarray(small, np.float32)
    dark = levels < AIR * np.percentile(levels, 95)
    beside = np.minimum.accumulate(dark, 1) | np.minimum.accumulate(dark[:, ::-1], 1)[:, ::-1]
    return np.where(beside, np.float32(255), levels)


@cache
def drawings_of_lungs() -> tuple[list[Place], Floats, Floats, Floats]:
    """Return all drawings.

    Returns:
        The places; 1 in each one's thorax and in the ring around it, shape (N, SIDE * SIDE); the drawings, dark lungs
        in bright surroundings, of the same shape, with a mean of 0 and a norm of 1 / sqrt(pixels of the ring), so that
        their product with the levels, divided by the levels' standard deviation, is the correlation; what that is
        multiplied by, shape (N,).
    """
    places = list(product(RIGHT.tolist(), DOWN.tolist(), WIDE.tolist(), HIGH.tolist()))
    rings = np.array([egg(place, SIDE, 1.2).ravel() for place in places], np.float32)
    drawings = -np.array([drawn(place, SIDE)[1].ravel() for place in places], np.float32)
    count = rings.sum(1, keepdims=True)
    drawings = rings * (drawings - drawings.sum(1, keepdims=True) / count)
    drawings /= np.linalg.norm(drawings, axis=1, keepdims=True) * np.sqrt(count)
    unusual = ((np.array(places)[:, [0, 2, 3]] - USUAL) / DEVIATION) ** 2
    return places, rings, drawings, np.exp(-unusual.sum(1)) * count[:, 0] ** 0.3


def drawn(place: Place, size: int) -> tuple[Mask, Mask]:
    """Return the thorax at a place, and the lungs in it, each of shape (size, size)."""
    thorax = egg(place, size)
    middle, _, half, _ = place
    return thorax, thorax & (np.abs(centres(size) - middle) > MEDIASTINUM * half)


def egg(place: Place, size: int, scale: float = 1) -> Mask:
    """Return the thorax at a place: widest below the middle, narrow at the top, level at the bottom."""
    right, down, wide, high = place
    across = np.abs(centres(size) - right) / (wide * scale)
    along = (centres(size)[:, None] - down) / (high * scale)
    width = np.sqrt((1 - ((along - 0.3) / 1.3) ** 2).clip(0))
    inside: Mask = (across <= width) & (np.abs(along) <= 1)
    return inside


def centres(size: int) -> npt.NDArray[np.float64]:
    """Return where the middles of pixels lie between 0 and 1."""
    return (np.arange(size) + 0.5) / size
