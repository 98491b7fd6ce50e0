"""The public data set of Kermany, Zhang and Goldbaum: where it is, what it holds, how to unpack it. Without torch."""

import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pneumonia.command import progress
from pneumonia.errors import ArchiveError
from pneumonia.files import check_space, filling, naming
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.network.contract import CLASSES

PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
URL = (
    "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/f12eaf6d-6023-432f-acc9-80c9d7393433/"
    "file_downloaded"
)
LICENCE = """Licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Whoever uses the images cites
  Kermany, Zhang, Goldbaum (2018): Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
    Classification. Mendeley Data, version 2, doi:10.17632/rscbjbr9sj.2
  Kermany et al. (2018): Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning.
    Cell 172(5), 1122-1131, doi:10.1016/j.cell.2018.02.010"""
TEST = {"NORMAL": 234, "PNEUMONIA": 390}
# The paper's 5,232 training images. Kaggle's copy has 16 of them in val/: they are taken, too, if they are there.
TRAIN = {"NORMAL": 1_349, "PNEUMONIA": 3_883}
TRAIN_WITHOUT_VAL = {"NORMAL": 1_341, "PNEUMONIA": 3_875}
# Kaggle's copy has the whole tree twice, one within the other.
IMAGE = re.compile(rf"(?:.*/)?(train|val|test)/({'|'.join(CLASSES)})/([^/]+\.(?:jpe?g|png))", re.IGNORECASE)
Counts = Mapping[str, Mapping[str, int]]
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, UnicodeError)


def unpack(archive: Path, destination: Path) -> Counts:
    """Unpack the data set into `train/` and `test/`, each with a folder per class, whole or not at all.

    Args:
        archive: a zip file, of any depth of folders.
        destination: folder to make; or an empty one.

    Returns:
        The number of images, by split and class.

    Raises:
        ArchiveError: the archive is broken, not of this data set, or unsafe.
        DataError: there is something at the destination.
        OSError: a file cannot be read or written, or there is too little space.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            images = images_in(packed)
            counts = counted(images, archive)
            check_space(destination, sum(image.file_size for image in images.values()))
            with filling(destination) as folder:
                for place, image in progress(images.items(), len(images), "unpacking"):
                    target = folder / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(image) as source, naming(target), target.open("xb") as file:
                        shutil.copyfileobj(source, file)  # the archive's checksum is compared at the end
    except DAMAGE as error:
        raise ArchiveError(f"{archive} is not a whole zip file ({str(error).rstrip('.')}).") from error
    return counts


def images_in(packed: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the images of an archive by the place that they get, such as `train/NORMAL/IM-0115-0001.jpeg`.

    Raises:
        ArchiveError: an entry would be unsafe to unpack, or two different ones would get the same place.
    """
    images: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        check_safe(entry, path)
        found = IMAGE.fullmatch(str(path))
        if not found or "__MACOSX" in path.parts or path.name.startswith(".") or entry.is_dir():
            continue
        split, label, name = found.groups()
        place = PurePosixPath("test" if split.lower() == "test" else "train", label.upper(), name)
        known = images.setdefault(place, entry)
        if (known.CRC, known.file_size) != (entry.CRC, entry.file_size):
            raise ArchiveError(f"{packed.filename} has two different images {place}: this is not the public data set.")
    return images


def check_safe(entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    """Check that an entry of an archive leads nowhere else and is not larger than an image.

    Raises:
        ArchiveError: it does, or is.
    """
    if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(entry.external_attr >> 16):
        raise ArchiveError(f"The archive's entry {entry.filename!r} leads out of its folder: do not use this file.")
    if entry.file_size > MAX_BYTES:
        raise ArchiveError(
            f"The archive's entry {entry.filename!r} has {entry.file_size:,} bytes: no image has that many."
        )


def counted(images: Mapping[PurePosixPath, zipfile.ZipInfo], archive: Path) -> Counts:
    """Return the number of images by split and class, which are those of the public data set.

    Raises:
        ArchiveError: they are others.
    """
    number = Counter((place.parts[0], place.parts[1]) for place in images)
    counts = {split: {label: number[split, label] for label in CLASSES} for split in ("train", "test")}
    if counts["test"] != TEST or counts["train"] not in (TRAIN, TRAIN_WITHOUT_VAL):
        raise ArchiveError(
            f"{archive} has {told(counts['train'])} for training and {told(counts['test'])} for the test, but the "
            f"public data set has {told(TRAIN)}, and {told(TEST)}: this is another file."
        )
    return counts


def told(counts: Mapping[str, int]) -> str:
    """Return numbers of images, such as `234 NORMAL and 390 PNEUMONIA`."""
    return " and ".join(f"{counts[label]:,} {label}" for label in CLASSES)
