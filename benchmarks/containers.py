"""Whether a radiograph gets the same answer in whatever file it comes: format, bits, range, defects, compression.

`python benchmarks/containers.py FOLDER...` writes each 8-bit image below the folders anew in every container below, in
memory, and compares the released model's answer with that for the original file. It prints a Markdown table: share of
the images with the same class, mean and largest difference of P(PNEUMONIA), and how many get other warnings. It writes
JSON where --output says. With --only, the rows whose name contains a word.
"""

import argparse
import io
import statistics
import struct
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.errors import ImageError
from pneumonia.files import write_json
from pneumonia.network.classifier import Classifier
from pneumonia.network.prediction import Prediction
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.loading import load

Pixels = npt.NDArray[Any]
Write = Callable[[Pixels], bytes]
ENDINGS = {".jpeg", ".jpg", ".png"}
RANGES = {
    "16 bits": (0, 65_535),
    "12 bits": (0, 4095),
    "10 bits": (0, 1023),
    "to 255": (0, 255),
    "to 700": (0, 700),
    "to 3000": (0, 3000),
    "to 4100": (0, 4100),
    "to 40,000": (0, 40_000),
    "1000 to 5095": (1000, 5095),
}


def run_lengths(pixels: Pixels) -> bytes:
    """Code 16-bit pixels as DICOM's RLE: a header, then the upper and the lower bytes."""
    segments = [
        bytes(imagecodecs.packbits_encode(plane.astype("u1").tobytes())) for plane in (pixels >> 8, pixels & 255)
    ]
    upper, lower = (segment + bytes(len(segment) % 2) for segment in segments)
    return struct.pack("<16I", 2, 64, 64 + len(upper), *[0] * 13) + upper + lower


CODECS: dict[UID, Callable[[Pixels], bytes | bytearray]] = {
    RLELossless: run_lengths,
    JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=98),
    JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(
        pixels, lossless=True, predictor=1, bitspersample=8 * pixels.itemsize
    ),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True),
}


def ranged(gray: Pixels, low: int, high: int, dtype: str = "u2") -> Pixels:
    """Return 8-bit pixels with 0 at one value and 255 at another."""
    values: Pixels = (gray * ((high - low) / 255) + low).round().astype(dtype)
    return values


def defective(gray: Pixels, share: float, value: int, dtype: str = "u2") -> Pixels:
    """Return pixels of 12 bits, a share of which, at least one, has another value."""
    values = ranged(gray, 0, 4095, dtype)
    count = max(1, round(share * values.size))
    values.ravel()[np.random.default_rng(0).choice(values.size, count, replace=False)] = value
    return values


def png(values: Pixels) -> bytes:
    """Return a PNG file."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(values), level=1))


def tiff(values: Pixels, **options: Any) -> bytes:  # noqa: ANN401  # imagecodecs has a type for each
    """Return a TIFF file."""
    return bytes(imagecodecs.tiff_encode(np.ascontiguousarray(values), **options))


def stacked(gray: Pixels, colors: int, *, opaque: bool = False) -> Pixels:
    """Return pixels of 12 bits in several channels alike, and if need be an opaque one."""
    values = ranged(gray, 0, 4095)
    return np.stack([values] * colors + [np.full_like(values, 65_535)] * opaque, axis=-1)


def by_pillow(gray: Pixels, kind: str, **options: object) -> bytes:
    """Return an 8-bit file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(gray).save(file, kind, **options)
    return file.getvalue()


def dicom(pixels: Pixels, syntax: UID = ExplicitVRLittleEndian, bits: int = 0, **elements: Any) -> bytes:  # noqa: ANN401
    """Return a DICOM file; without other elements it has no window."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, UID("1.2.3")
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = 8 * pixels.itemsize, bits or 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    if syntax in CODECS:
        meta.TransferSyntaxUID, dataset.PixelData = syntax, encapsulate([bytes(CODECS[syntax](pixels))])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    for name, value in elements.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def between(gray: Pixels, value: int) -> Pixels:
    """Return pixels between two strips of a value, each a twentieth as wide."""
    strip = np.full((len(gray), gray.shape[1] // 20), value, gray.dtype)
    return np.hstack([strip, gray, strip])


def spread(write: Write, low: int, high: int, dtype: str, gray: Pixels) -> bytes:
    """Return a file of 8-bit pixels with 0 at one value and 255 at another."""
    return write(ranged(gray, low, high, dtype))


def broken(write: Write, share: float, value: int, dtype: str, gray: Pixels) -> bytes:
    """Return a file of 12 bits with defects of a value."""
    return write(defective(gray, share, value, dtype))


def files() -> dict[str, Write]:
    """Return how to write each container, given the 8-bit gray pixels of a radiograph."""
    return plain_files() | ranges() | tiffs() | channels() | defects() | dicoms()


def plain_files() -> dict[str, Write]:
    """Return those of 8 bits."""
    return {
        "PNG, 8 bits": png,
        "TIFF, 8 bits": tiff,
        "TIFF, 8 bits, LZW": partial(by_pillow, kind="TIFF", compression="tiff_lzw"),
        "BMP, 8 bits": partial(by_pillow, kind="BMP"),
        "WebP, lossless": partial(by_pillow, kind="WEBP", lossless=True, method=0, quality=0),
    }


def ranges() -> dict[str, Write]:
    """Return those of 16 bits, of which different ranges are used."""
    rows: dict[str, Write] = {}
    for name, (low, high) in RANGES.items():
        rows[f"PNG, {name}"] = partial(spread, png, low, high, "u2")
        rows[f"DICOM, {name}, no window"] = partial(spread, dicom, low, high, "u2")
    return rows


def tiffs() -> dict[str, Write]:
    """Return TIFF files of different byte orders, compressions and types."""
    rows: dict[str, Write] = {}
    packed = partial(tiff, compression="deflate")  # uncompressed, some would be larger than files may be
    for order, is_big in product("<>", (False, True)):
        kind = f"{'Big' if is_big else ''}TIFF, {'little' if order == '<' else 'big'} endian"
        write = partial(tiff, byteorder=order, bigtiff=is_big)
        rows[f"{kind}, 12 bits"] = partial(spread, write, 0, 4095, "u2")
        rows[f"{kind}, -2048 to 2047"] = partial(spread, write, -2048, 2047, "i2")
    for compression in ("lzw", "deflate"):
        write = partial(tiff, compression=compression)
        rows[f"TIFF, 12 bits, {compression}"] = partial(spread, write, 0, 4095, "u2")
    for dtype, name in {"u4": "32 bits", "i4": "32 bits, signed", "f4": "float", "f8": "double"}.items():
        rows[f"TIFF, {name}"] = partial(spread, packed, 1000, 5095, dtype)
    rows["TIFF, 32 bits, all used"] = partial(spread, packed, 0, 2**32 - 1, "u4")
    return rows


def channels() -> dict[str, Write]:
    """Return those of several channels."""
    return {
        "PNG, RGB, 12 bits": lambda gray: png(stacked(gray, 3)),
        "PNG, RGBA, 12 bits": lambda gray: png(stacked(gray, 3, opaque=True)),
        "PNG, gray and alpha, 12 bits": lambda gray: png(stacked(gray, 1, opaque=True)),
        "TIFF, RGB, 12 bits": lambda gray: tiff(stacked(gray, 3), photometric="rgb", compression="deflate"),
    }


def defects() -> dict[str, Write]:
    """Return those with defects of the detector."""
    return {
        "PNG, 12 bits, a pixel of 65,535": partial(broken, png, 0, 65_535, "u2"),
        "PNG, 12 bits, a pixel of 0": partial(broken, png, 0, 0, "u2"),
        "PNG, 12 bits, 0.1% of 65,535": partial(broken, png, 0.001, 65_535, "u2"),
        "PNG, 12 bits, 1% of 65,535": partial(broken, png, 0.01, 65_535, "u2"),
        "TIFF, 12 bits, a pixel of -32,768": partial(broken, tiff, 0, -32_768, "i2"),
        "DICOM, 12 bits, a pixel of 65,535": partial(broken, dicom, 0, 65_535, "u2"),
    }


def dicoms() -> dict[str, Write]:
    """Return DICOM files with a window, a sign, another polarity, and compressed ones."""
    window = partial(dicom, bits=12, WindowCenter=2048, WindowWidth=4096)
    signed = partial(dicom, bits=12, RescaleSlope=2, RescaleIntercept=4096)
    negative = partial(dicom, bits=12, PhotometricInterpretation="MONOCHROME1")
    rows: dict[str, Write] = {
        "DICOM, 12 bits, window": partial(spread, window, 0, 4095, "u2"),
        "DICOM, 8 bits, no window": dicom,
        "DICOM, 8 bits, window": partial(dicom, WindowCenter=128, WindowWidth=256),
        "DICOM, 12 bits, signed, rescaled": partial(spread, signed, -2048, 2047, "i2"),
        "DICOM, 12 bits, MONOCHROME1": partial(spread, negative, 4095, 0, "u2"),
        "DICOM, 8 bits, JPEG": partial(dicom, syntax=JPEGBaseline8Bit),
    }
    lossless = {"RLE": RLELossless, "JPEG lossless": JPEGLosslessSV1, "JPEG-LS": JPEGLSLossless}
    for name, syntax in (lossless | {"JPEG 2000": JPEG2000Lossless}).items():
        write = partial(dicom, syntax=syntax, bits=12)
        rows[f"DICOM, 12 bits, {name}"] = partial(spread, write, 0, 4095, "u2")
    return rows


def bordered_files() -> dict[str, tuple[Write, int]]:
    """Return how to write radiographs with strips beside them, and what the strips are in the 8-bit reference."""
    return {
        "PNG, 12 bits, strips of 65,535": (lambda gray: png(between(ranged(gray, 0, 4095), 65_535)), 255),
        "TIFF, 12 bits, strips of -2000": (lambda gray: tiff(between(ranged(gray, 0, 4095, "i2"), -2000)), 0),
    }


def answer(model: Classifier, data: bytes) -> Prediction | None:
    """Return the answer for a file, None if it is refused."""
    try:
        return model.predict(data)
    except ImageError:
        return None


def row(references: list[Prediction], answers: list[Prediction | None]) -> dict[str, float]:
    """Return how far answers agree with the references; None is a file that was refused."""
    pairs = [(one, other) for one, other in zip(references, answers, strict=True) if other]
    differences = [abs(one.probabilities["PNEUMONIA"] - other.probabilities["PNEUMONIA"]) for one, other in pairs]
    return {
        "images": len(references),
        "refused": len(references) - len(pairs),
        "same_class": sum(one.prediction == other.prediction for one, other in pairs) / len(references),
        "mean_difference": statistics.mean(differences) if pairs else 1.0,
        "largest_difference": max(differences, default=1.0),
        "other_warnings": sum(one.warnings != other.warnings for one, other in pairs),
    }


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="measure the rows whose name contains this")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    paths = sorted(path for folder in args.folder for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    model = load(RELEASED_WEIGHTS)
    pixels = [np.asarray(Image.open(path).convert("L")) for path in paths]
    originals = [model.predict(path) for path in paths]
    found: dict[str, dict[str, float]] = {}
    print("| file | same class | mean difference of P | largest | other warnings | refused |")
    print("|---|---|---|---|---|---|", flush=True)
    writers: dict[str, tuple[Write, int | None]] = {name: (write, None) for name, write in files().items()}
    for name, (write, level) in (writers | bordered_files()).items():
        if args.only not in name:
            continue
        references = originals if level is None else [model.predict(png(between(gray, level))) for gray in pixels]
        one = found[name] = row(references, [answer(model, write(gray)) for gray in pixels])
        figures = f"{one['same_class']:.1%} | {one['mean_difference']:.4f} | {one['largest_difference']:.3f}"
        print(f"| {name} | {figures} | {one['other_warnings']} | {one['refused']} |", flush=True)
        if args.output:  # after each row, as all take a while
            write_json(args.output, {"release": model.version, "rows": found})


if __name__ == "__main__":
    main()
