"""Count the warnings for frontal chest X-rays, their negatives, and other images.

`python benchmarks/other_images.py WEIGHTS --radiographs FOLDER... --others FOLDER...` lets the model answer for all
images below each FOLDER, and for frontal films also as negatives, mirrored, upside down and on their side. With
--packages it downloads pictures from packages of Debian into that folder, and answers for several variants of each;
that needs apt-get, dpkg-deb and 3 GB of disk. It prints a Markdown table, and writes JSON where --output says.
"""

import argparse
import gzip
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.errors import ImageError
from pneumonia.files import write_json
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.network.classifier import Classifier
from pneumonia.releases.loading import load

Variants = Callable[[Image.Image], Iterable[Image.Image]]
BATCH_SIZE = 16
WARNINGS = ("not_a_chest_xray", "not_a_frontal_view", "inverted")  # an image gets at most one of them


def colour_and_gray(image: Image.Image, background: str = "white") -> Iterator[Image.Image]:
    """Yield an image as it is, on the background where it is transparent, and in gray."""
    opaque = on(image, background)
    yield from (opaque, opaque.convert("L"))


def also_inverted(image: Image.Image) -> Iterator[Image.Image]:
    """Yield what `colour_and_gray` does, and the negatives."""
    for variant in colour_and_gray(image):
        yield from (variant, ImageOps.invert(variant))


def on_white_and_black(image: Image.Image) -> Iterator[Image.Image]:
    """Yield what was cut out on white and on black, in colour and in gray."""
    for background in ("white", "black"):
        yield from colour_and_gray(image, background)


def gray_details(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the four quarters in gray, as they are and with their contrast stretched."""
    gray = image.convert("L")
    width, height = gray.width // 2, gray.height // 2
    for left, top in ((0, 0), (width, 0), (0, height), (width, height)):
        detail = gray.crop((left, top, left + width, top + height))
        yield from (detail, ImageOps.autocontrast(detail, 1))


def on(image: Image.Image, background: str) -> Image.Image:
    """Return an image without transparency."""
    canvas = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


@dataclass(frozen=True)
class Kind:
    """Pictures of one kind: which packages have them, under which patterns, how many are taken, and as what."""

    packages: tuple[str, ...]
    patterns: tuple[str, ...]
    count: int
    variants: Variants


WALLPAPERS = ("gnome-backgrounds", "mate-backgrounds", "plasma-workspace-wallpapers", "ukui-wallpapers")
PHOTOGRAPHS = ("**/*.jpg", "**/*.webp")
KINDS = {
    "photographs and wallpapers, in colour and in gray": Kind(WALLPAPERS, PHOTOGRAPHS, 70, colour_and_gray),
    "gray details of them, also with their contrast stretched": Kind(WALLPAPERS, PHOTOGRAPHS, 70, gray_details),
    "objects and animals cut out, on white and black": Kind(
        ("tuxpaint-stamps-default",), ("**/*.png",), 150, on_white_and_black
    ),
    "night sky and landscapes, in colour and in gray": Kind(
        ("stellarium-data",), ("**/nebulae/**/*.png", "**/landscapes/**/*.png"), 60, colour_and_gray
    ),
    "textures of games, in colour and in gray": Kind(
        ("supertuxkart-data", "neverball-data"), ("**/*.jpg",), 100, colour_and_gray
    ),
    "drawings and icons, in colour and gray, and their negatives": Kind(
        ("openclipart-png", "oxygen-icon-theme"), ("**/*.png",), 200, also_inverted
    ),
    "screenshots of programs, in colour and in gray": Kind(
        ("gimp-help-en", "libreoffice-help-common"), ("**/*.png",), 300, colour_and_gray
    ),
}


def slices(packages: Path) -> Iterator[Image.Image]:
    """Yield slices of the heads that mricron-data has, in three directions."""
    for path in sorted(unpacked("mricron-data", packages).glob("**/*.nii.gz")):
        volume = read_nifti(path)
        if volume is None:
            continue
        low, high = np.percentile(volume, (1, 99.5))
        gray = ((volume - low) / max(high - low, 1e-9) * 255).clip(0, 255).astype(np.uint8)
        for axis in range(3):
            for share in np.linspace(0.25, 0.75, 11):
                plane = np.take(gray, int(share * gray.shape[axis]), axis)
                yield Image.fromarray(np.ascontiguousarray(plane.T[::-1]))


def read_nifti(path: Path) -> "np.ndarray[Any, Any] | None":
    """Return a NIfTI-1 file's volume of more than 50 voxels a side; None for one that has no such, or labels only."""
    content = gzip.decompress(path.read_bytes())
    shape = struct.unpack("<8h", content[40:56])[1:4]
    kind = {2: "<u1", 4: "<i2", 16: "<f4"}.get(struct.unpack("<h", content[70:72])[0])
    if kind is None or min(shape) < 50:
        return None
    start = int(struct.unpack("<f", content[108:112])[0])
    volume = np.frombuffer(content, kind, int(np.prod(shape)), start).reshape(shape, order="F").astype(np.float32)
    return volume if len(np.unique(volume)) > 150 else None


def unpacked(package: str, packages: Path) -> Path:
    """Return the folder of a package's files; fetch it where it is not there yet."""
    folder = packages / package
    if not folder.exists():
        packages.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=packages) as temporary:
            subprocess.run(["apt-get", "download", package], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(temporary).glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, Path(temporary) / "files"], check=True)
            (Path(temporary) / "files").rename(folder)
    return folder


def pictures(kind: Kind, packages: Path) -> Iterator[Image.Image]:
    """Yield a kind's variants of files drawn at random, the same each time."""
    folders = [unpacked(package, packages) for package in kind.packages]
    found = {path for folder in folders for pattern in kind.patterns for path in folder.glob(pattern) if path.is_file()}
    files = sorted(path for path in found if not path.is_symlink() and path.stat().st_size > 1000)
    for path in random.Random(0).sample(files, min(kind.count, len(files))):
        with Image.open(path) as image:
            image.thumbnail((1024, 1024))
            yield from kind.variants(image)


def radiographs(folder: Path) -> Iterator[Image.Image]:
    """Yield all images below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                yield decode(path.read_bytes()).image
            except ImageError as error:
                print(f"{path}: {error}", file=sys.stderr)


FILMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "": lambda image: image,
    ", negatives": ImageOps.invert,
    ", mirrored": ImageOps.mirror,
    ", upside down": ImageOps.flip,
    ", on their side": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


def count_flagged(model: Classifier, images: Iterable[Image.Image]) -> dict[str, int]:
    """Return how many images there are, at least one, and how many of them carry which of the warnings."""
    inputs = [preprocess(image) for image in images]
    starts = range(0, len(inputs), BATCH_SIZE)
    batches = (np.concatenate(inputs[start : start + BATCH_SIZE]) for start in starts)
    answers = [answer for batch in batches for answer in model.answers(batch)]
    counts = {name: sum(name in answer.warnings for answer in answers) for name in WARNINGS}
    return {"images": len(answers), "flagged": sum(counts[name] for name in WARNINGS[:2]), **counts}


def table(counts: dict[str, dict[str, int]]) -> str:
    """Return the counts as a Markdown table."""
    lines = ["| images | number | flagged | " + " | ".join(f"`{name}`" for name in WARNINGS) + " |", "|---" * 6 + "|"]
    for name, one in counts.items():
        cells = " | ".join(f"{one[warning]:,}" for warning in WARNINGS)
        lines.append(
            f"| {name} | {one['images']:,} | {one['flagged']:,} ({one['flagged'] / one['images']:.1%}) | {cells} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Count all kinds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file, its manifest.json beside it")
    parser.add_argument("--radiographs", type=Path, nargs="*", default=[], metavar="FOLDER", help="frontal films")
    parser.add_argument("--others", type=Path, nargs="*", default=[], metavar="FOLDER", help="images that are none")
    parser.add_argument(
        "--packages", type=Path, metavar="DIR", help="gets pictures from packages; without it there are none"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the counts as JSON")
    args = parser.parse_args()
    model = load(args.weights)
    counts = {}
    for folder in args.radiographs:
        for name, change in FILMS.items():
            counts[f"{folder}{name}"] = count_flagged(model, map(change, radiographs(folder)))
    for folder in args.others:
        counts[str(folder)] = count_flagged(model, radiographs(folder))
    if args.packages:
        for name, kind in KINDS.items():
            counts[name] = count_flagged(model, pictures(kind, args.packages))
        counts["MR of heads, three directions"] = count_flagged(model, slices(args.packages))
    if args.output:
        write_json(args.output, {"model_version": model.version, "counts": counts})
    print(table(counts))


if __name__ == "__main__":
    main()
