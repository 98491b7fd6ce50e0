"""How well decoded DICOM images agree with pydicom's own processing of the same files.

`python -m tools.dicom_agreement FOLDER...` reads every file under the folders and prints a Markdown table: how
many are DICOM, are read, and differ from the reference by how many levels of 256; and a line for each file that differs
by more than one, or with `--verbose` for each file.

The reference is `pydicom.dcmread(force=True)`, its `pixel_array` with whatever decoders are installed, its modality
LUT, VOI LUT, palettes and colour spaces. `pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pyjpegls` brings
decoders for every compression.
"""

import argparse
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.dicom_prefix import beginning

Pixels = npt.NDArray[Any]


def difference(data: bytes, shown: Pixels) -> float:
    """Return the largest difference between an image as it is shown and as pydicom has it, in levels of 256.

    Raises:
        Exception: whatever pydicom raises for a file that it cannot decode.
    """
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
        explicit = not dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(f"1.2.840.10008.1.2{'.1' * explicit}")
    return _color_difference(dataset, shown) if shown.ndim == 3 else _gray_difference(dataset, shown)


def _color_difference(dataset: Dataset, shown: Pixels) -> float:
    pixels, kind = dataset.pixel_array, dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        pixels = pixels >> (8 if pixels.itemsize == 2 else 0)
    return float(abs(pixels.astype(int) - shown).max())


def _gray_difference(dataset: Dataset, shown: Pixels) -> float:
    """Compare gray values up to the range that is black and white, which pydicom leaves to whoever shows them."""
    stored = dataset.pixel_array
    values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(float)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = -values
    told = shown.astype(float)
    between = (told > 0) & (told < 255)
    padding = [dataset.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit")]
    bounds = [int(value) for value in padding if value is not None]
    counts = ~((stored >= min(bounds)) & (stored <= max(bounds))) if bounds else np.ones(stored.shape, bool)
    if not (between & counts).any():
        return float(len(np.unique(told[counts])) > 2)
    return _from_a_line(values[counts], told[counts], between[counts])


def _from_a_line(values: Pixels, told: Pixels, between: Pixels) -> float:
    """Return how far levels are at most from a clipped linear function of the values."""
    if np.ptp(values[between]) == 0:
        return float(np.ptp(told[between]))
    slope, intercept = np.polyfit(values[between], told[between], 1)
    return float(abs(np.clip(values * slope + intercept, 0, 255) - told).max())


class Outcome(NamedTuple):
    """What became of a file; `levels` is the difference, None where there is nothing to compare."""

    said: str
    levels: float | None = None


def outcome(data: bytes) -> Outcome:
    """Read a file, and compare it with the reference."""
    try:
        shown = np.asarray(decode(data).image).astype(int)
    except ImageError as error:
        return Outcome(str(error))
    try:
        return Outcome("read", difference(data, shown))
    except Exception:  # pydicom raises nearly anything
        return Outcome("read, but not by the reference")


def row(folder: Path, outcomes: dict[Path, Outcome]) -> str:
    """Return the table's row for a folder's files."""
    levels = [outcome.levels for outcome in outcomes.values() if outcome.levels is not None]
    within = sum(level <= 1 for level in levels)
    read = sum(outcome.said.startswith("read") for outcome in outcomes.values())
    return f"| {folder.name} | {len(outcomes)} | {read} | {len(levels)} | {within} | {max(levels, default=0):.2f} |"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--verbose", action="store_true", help="print a line for each file as well")
    args = parser.parse_args()
    rows = []
    for folder in args.folder:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        outcomes = {path: outcome(path.read_bytes()) for path in files if is_dicom(path)}
        rows.append(row(folder, outcomes))
        for path, found in outcomes.items():
            if args.verbose or (found.levels or 0) > 1:
                print(path.name, found.said, "" if found.levels is None else f"{found.levels:.2f}", sep="\t")
    print("| folder | DICOM files | read | compared | within one level | largest difference |")
    print("|---|---|---|---|---|---|", *rows, sep="\n")


def is_dicom(path: Path) -> bool:
    """Return whether a file is recognised as DICOM."""
    return beginning(path.read_bytes()) is not None


if __name__ == "__main__":
    main()
