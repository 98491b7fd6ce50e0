"""Draw chest X-rays: enough to train on in minutes and to upload, and nobody's patient data.

Both classes share the anatomy; PNEUMONIA alone has fuzzy bright opacities within the lungs. Exposure and contrast vary
from image to image, so that the mean brightness tells little.
"""

import argparse
import io
import shlex
from pathlib import Path
from random import Random
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pneumonia.command import local_path, say
from pneumonia.errors import ConfigurationError
from pneumonia.files import filling, naming
from pneumonia.network.contract import CLASSES

Box = tuple[float, float, float, float]
BLACK, TISSUE, LUNG, BONE, OPACITY = 12, 165, 70, 205, 200  # before the exposure varies
MIN_IMAGES = 4  # of each class: one at least for each split
MIN_SIZE, MAX_SIZE = 32, 2048
EPILOG = "example: pneumonia draw xrays --images 200"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("destination", type=local_path, metavar="DEST", help="folder to make; never overwritten")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="number of each class (%(default)s)")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="width and height (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same images (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Draw train/, val/ and test/, whole or not at all, and print what was drawn.

    15% of the images are for validation and as many for the test, as `pneumonia split` has it.

    Raises:
        ConfigurationError: a number that nothing can be drawn with.
        DataError: the destination is there already.
        OSError: the folder cannot be written.
    """
    if args.images < MIN_IMAGES:
        raise ConfigurationError(f"--images must be at least {MIN_IMAGES}, for train, val and test, not {args.images}.")
    if not MIN_SIZE <= args.size <= MAX_SIZE:
        raise ConfigurationError(f"--size must be from {MIN_SIZE} to {MAX_SIZE}, not {args.size}.")
    held_out = round(0.15 * args.images)
    counts = {"train": args.images - 2 * held_out, "val": held_out, "test": held_out}
    with filling(args.destination) as folder:
        draw_dataset(folder, counts, args.seed, args.size)
    drawn = ", ".join(f"{2 * count} in {split}/" for split, count in counts.items())
    say(f"Drew {2 * args.images} X-rays to {args.destination}, half of them with pneumonia: {drawn}.")
    say(f"Next: make train DATA={shlex.quote(str(args.destination))}")


def draw_radiograph(
    random: Random, label: str, size: int = 224, side: Literal["left", "right"] | None = None
) -> Image.Image:
    """Draw one frontal chest X-ray.

    Args:
        random: where the image's variation comes from; the same state draws the same image.
        label: "NORMAL" or "PNEUMONIA".
        size: width and height in pixels.
        side: half of the image that has all opacities, None for either.

    Returns:
        Grayscale image, mode "L".
    """
    left, right = _lung(random, 0.33), _lung(random, 0.67)
    lungs = _soft_mask(size, [left, right], 0.012)
    image = Image.new("L", (size, size), BLACK)
    image.paste(TISSUE, mask=_soft_mask(size, [(0.04, 0.02, 0.96, 1.3)], 0.03))
    image.paste(LUNG, mask=lungs)
    if label == "PNEUMONIA":
        sick = {"left": [left], "right": [right], None: [left, right]}[side]
        spots = [_spot_within(random, random.choice(sick)) for _ in range(random.randint(4, 7))]
        image.paste(OPACITY, mask=ImageChops.multiply(_soft_mask(size, spots, 0.025), lungs))
    image.paste(BONE, mask=_ribs(random, size))
    middle = random.uniform(0.48, 0.52)
    heart = (middle - 0.08, random.uniform(0.5, 0.56), middle + random.uniform(0.17, 0.22), 0.86)
    image.paste(TISSUE, mask=_soft_mask(size, [heart], 0.02))
    image.paste(BONE, mask=_soft_mask(size, [(middle - 0.04, -0.2, middle + 0.04, 1.2)], 0.02))
    noise = Image.frombytes("L", image.size, random.randbytes(size * size))
    return _expose(random, Image.blend(image, noise, random.uniform(0.05, 0.1)))


def draw_dataset(destination: Path, counts: dict[str, int], seed: int = 0, size: int = 224) -> None:
    """Write `destination/<split>/<class>/<name>.jpeg`, named as Kermany et al. name theirs, each image a patient.

    Args:
        destination: folder to write into; made when it is missing.
        counts: split name to its number of images of each class.
        seed: the same seed, counts and size give the same files.
        size: width and height of the images in pixels.
    """
    random = Random(seed)
    patient = 0
    for split, count in counts.items():
        for label in CLASSES:
            (destination / split / label).mkdir(parents=True)
        for _ in range(count):
            patient += 1
            cause = random.choice(["bacteria", "virus"])
            names = {"NORMAL": f"IM-{patient:04}-0001.jpeg", "PNEUMONIA": f"person{patient}_{cause}_{patient}.jpeg"}
            for label, name in names.items():
                path = destination / split / label / name
                file = io.BytesIO()  # into a file, Pillow writes half of it on a full disk and says nothing
                draw_radiograph(random, label, size).save(file, "JPEG", quality=90)
                with naming(path):
                    path.write_bytes(file.getbuffer())


def _lung(random: Random, middle: float) -> Box:
    x, y = middle + random.uniform(-0.02, 0.02), 0.48 + random.uniform(-0.03, 0.03)
    width, height = random.uniform(0.11, 0.14), random.uniform(0.3, 0.36)
    return x - width, y - height, x + width, y + height


def _spot_within(random: Random, lung: Box) -> Box:
    x = random.uniform(0.7 * lung[0] + 0.3 * lung[2], 0.3 * lung[0] + 0.7 * lung[2])
    y = random.uniform(0.7 * lung[1] + 0.3 * lung[3], 0.2 * lung[1] + 0.8 * lung[3])
    width, height = random.uniform(0.04, 0.08), random.uniform(0.04, 0.08)
    return x - width, y - height, x + width, y + height


def _ribs(random: Random, size: int) -> Image.Image:
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    first, distance = random.uniform(0.1, 0.16), random.uniform(0.085, 0.1)
    for number in range(8):
        top = first + number * distance
        for start, box in ((180, (0.1, top, 0.62, top + 0.3)), (270, (0.38, top, 0.9, top + 0.3))):
            draw.arc([size * edge for edge in box], start, start + 90, fill=70, width=max(1, size // 60))
    return mask.filter(ImageFilter.GaussianBlur(size * 0.004))


def _soft_mask(size: int, ellipses: list[Box], blur: float) -> Image.Image:
    """Return white ellipses on black with fuzzy edges; boxes and blur are fractions of the size."""
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    for box in ellipses:
        draw.ellipse([size * edge for edge in box], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(size * blur))


def _expose(random: Random, image: Image.Image) -> Image.Image:
    contrast, brightness = random.uniform(0.7, 1.1), random.uniform(-35, 35)
    return image.point(lambda value: (value - 128) * contrast + 128 + brightness)
