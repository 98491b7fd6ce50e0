"""Heatmaps: where in an image the network found support for its answer.

A class activation map (Zhou et al. 2016, https://arxiv.org/abs/1512.04150): ResNet-18 ends in the mean over all
positions and one linear layer, so each position's share of the outputs is known exactly, without a gradient.
"""

import base64
import io
from itertools import pairwise

import numpy as np
from PIL import Image

from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.outputs import Floats

LEVELS = 32  # of colour; a PNG with more takes several times longer to write, and looks no different
# RGB and alpha, from no evidence to the most: blue, red, yellow, more and more opaque. The image itself is gray.
COLOURS = ((40, 20, 160, 0), (150, 20, 150, 90), (235, 60, 60, 150), (255, 225, 80, 190))
# Row and column i of ResNet-18's last layer are drawn around the input's pixel CENTRE + stride * i. With random weights
# it would be pixel stride * i, as the kernels are odd and padded by half. Trained kernels respond to places further
# down and right, towards the middle of the i-th of 7 parts (benchmarks/heatmap_offset.py).
CENTRE = (5, 8)


def draw_heatmap(evidence: Floats, size: tuple[int, int]) -> Image.Image:
    """Draw a class activation map to lay over its image.

    Positions that speak against the answer stay transparent. The strongest evidence for it gets the last of COLOURS,
    however weak it is: colours compare positions of one image, not different images.

    Args:
        evidence: float32, shape (H, W), what each position of an image squashed to SIZE x SIZE adds to the log-odds
            of the answer beyond what is usual there, as `Classifier.support` gives it.
        size: width and height of the image, in pixels.

    Returns:
        Image of that size, mode "P", with LEVELS colours.
    """
    strongest = max(evidence.max(), np.finfo(np.float32).tiny)
    shares = evidence.clip(0) / strongest  # in this order, as dividing by a tiny one would overflow
    padded = np.pad(shares, (0, 1), mode="edge")  # the last position also stands for what lies beyond it
    height, width = evidence.shape
    first = 0.5 - (CENTRE[0] + 0.5) * height / SIZE, 0.5 - (CENTRE[1] + 0.5) * width / SIZE
    small = Image.frombytes("L", (width + 1, height + 1), (padded * 255).round().astype(np.uint8).tobytes())
    box = (first[1], first[0], first[1] + width, first[0] + height)
    large = small.resize(size, Image.Resampling.BICUBIC, box=box)
    levels = large.point([value * LEVELS // 256 for value in range(256)])
    drawn = Image.frombytes("P", size, levels.tobytes())
    drawn.putpalette(bytes(value for colour in _palette() for value in colour), "RGBA")
    return drawn


def heatmap_png(evidence: Floats, size: tuple[int, int]) -> str:
    """Return an image's heatmap as a PNG file in base64.

    Args:
        evidence: as for `draw_heatmap`.
        size: as for `draw_heatmap`.
    """
    heatmap = draw_heatmap(evidence, size)
    file = io.BytesIO()
    heatmap.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getbuffer()).decode()


def _palette() -> list[tuple[int, ...]]:
    """Return LEVELS colours along COLOURS."""
    steps = []
    for level in range(LEVELS):
        place = level / (LEVELS - 1) * (len(COLOURS) - 1)
        before, after = list(pairwise(COLOURS))[min(int(place), len(COLOURS) - 2)]
        share = place - min(int(place), len(COLOURS) - 2)
        steps.append(tuple(round(low + (high - low) * share) for low, high in zip(before, after, strict=True)))
    return steps
