"""How well models do where the same radiographs look otherwise.

`python benchmarks/depictions.py FOLDER WEIGHTS...` evaluates each weights file, its manifest beside it, on the images
of FOLDER/{NORMAL,PNEUMONIA} as they are and in other depictions, as it serves. It prints a Markdown table, and writes
JSON where --output says.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import write_json
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import resize
from pneumonia.network.classifier import Classifier
from pneumonia.releases.loading import load
from pneumonia.training import metrics
from pneumonia.training.channels import Channel, scan_folder
from pneumonia.training.evaluate import answers_to
from pneumonia.training.images import Images

FIGURES = ("auroc", "balanced_accuracy", "sensitivity", "specificity")


def gamma(exponent: float) -> Callable[[Image.Image], Image.Image]:
    """Return what raises values between 0 and 1 to a power: above 1 is darker."""
    return lambda image: image.point([round(255 * (value / 255) ** exponent) for value in range(256)])


def brighter(levels: int) -> Callable[[Image.Image], Image.Image]:
    """Return what adds gray levels."""
    return lambda image: image.point([min(max(value + levels, 0), 255) for value in range(256)])


def contrast(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Return what moves values away from their mean, or towards it."""
    return lambda image: ImageEnhance.Contrast(image).enhance(factor)


def compressed(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Return what saves an image as JPEG and reads it again."""

    def apply(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return apply


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return what cuts a share of the image's sides off at every edge."""
    return lambda image: image.crop(
        (
            round(image.width * share),
            round(image.height * share),
            round(image.width * (1 - share)),
            round(image.height * (1 - share)),
        )
    )


def framed(share: float, value: int) -> Callable[[Image.Image], Image.Image]:
    """Return what sets the image into a frame of a share of its width."""
    return lambda image: ImageOps.expand(image, round(image.width * share), value)


def turned(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """Return what turns the image, black beyond it."""
    return lambda image: image.rotate(degrees, Image.Resampling.BILINEAR)


def coarser(size: int) -> Callable[[Image.Image], Image.Image]:
    """Return what makes the image so many pixels wide and high."""
    return lambda image: image.resize((size, size), Image.Resampling.BILINEAR)


def noisy(deviation: float) -> Callable[[Image.Image], Image.Image]:
    """Return what adds Gaussian noise, the same to every image of a size."""

    def apply(image: Image.Image) -> Image.Image:
        noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width))
        return Image.fromarray((np.asarray(image) + noise).clip(0, 255).round().astype(np.uint8))

    return apply


DEPICTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "40 gray levels brighter": brighter(40),
    "40 gray levels darker": brighter(-40),
    "contrast 0.6": contrast(0.6),
    "contrast 1.5": contrast(1.5),
    "histogram equalised": ImageOps.equalize,
    "blurred by 1.5 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "sharpened": lambda image: image.filter(ImageFilter.UnsharpMask(2, 150, 0)),
    "112 x 112 pixels": coarser(112),
    "JPEG of quality 10": compressed(10),
    "noise of 10 gray levels": noisy(10),
    "cropped by a tenth": cropped(0.1),
    "black frame of a tenth": framed(0.1, 0),
    "white frame of a twentieth": framed(0.05, 255),
    "turned by 10 degrees": turned(10),
    "turned by -10 degrees": turned(-10),
}


def figures_of(model: Classifier, channel: Channel, images: Images) -> dict[str, float]:
    """Return a model's figures on images, as evaluation has them."""
    probabilities = answers_to(channel, images, model, 32).probabilities
    summary = metrics.summarize(probabilities, images.labels, channel.patients())
    return {name: summary[name] for name in FIGURES}


def table(report: dict[str, Any]) -> str:
    """Return the figures of all models as a Markdown table."""
    lines = ["| depiction | release | " + " | ".join(FIGURES) + " |", "|---" * (2 + len(FIGURES)) + "|"]
    for depiction in DEPICTIONS:
        for version, figures in report["releases"].items():
            cells = " | ".join(f"{figures[depiction][name]:.4f}" for name in FIGURES)
            lines.append(f"| {depiction} | {version} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate all weights on all depictions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="weights files")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the figures as JSON")
    args = parser.parse_args()
    models = [load(path) for path in args.weights]
    channel = scan_folder(args.folder)
    decoded = [decode(path.read_bytes()).image.convert("L") for path in channel.paths]
    labels = torch.tensor(channel.labels)
    report: dict[str, Any] = {"folder": channel.name, "images": len(decoded), "releases": {}}
    for depiction, depict in DEPICTIONS.items():
        images = Images(
            torch.from_numpy(np.stack([resize(depict(image))[:1] for image in decoded])), labels, digests=[]
        )
        for model in models:
            report["releases"].setdefault(model.version, {})[depiction] = figures_of(model, channel, images)
    if args.output:
        write_json(args.output, report)
    print(table(report))


if __name__ == "__main__":
    main()
