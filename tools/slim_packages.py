"""Delete what the functions never read from the packages of their image; the Dockerfile runs it.

It works in the image of either engine, needs nothing but the packages themselves, and skips those that are missing.
"""

import shutil
from pathlib import Path

import imagecodecs

# Patterns of paths within the folder of the packages.
UNUSED = (
    "onnxruntime/capi/libonnxruntime.so.*",  # for programs in C; Python's module contains a copy
    "onnxruntime/transformers",  # tools for models of other kinds
    "torch/bin/protoc*",  # for compiling against torch
    "torch/include",  # the same
)
SERVICES = ("s3", "sts")  # the services of AWS that the functions call; botocore describes four hundred
CODECS = ("jpeg2k_decode", "jpeg8_decode", "jpegls_decode", "png_decode", "tiff_decode")


def unused_in(packages: Path) -> list[Path]:
    """Return the files and folders that the functions never read.

    Args:
        packages: the folder where the packages are.
    """
    found = [path for pattern in UNUSED for path in packages.glob(pattern)]
    services = [path for path in (packages / "botocore/data").iterdir() if path.is_dir()]
    return found + [path for path in services if path.name not in SERVICES] + _other_codecs(packages)


def _other_codecs(packages: Path) -> list[Path]:
    """Return the libraries of imagecodecs that decoding does not load: they are for formats that are not accepted."""
    for name in CODECS:
        getattr(imagecodecs, name)  # loads its libraries
    loaded = Path("/proc/self/maps").read_text()
    libraries = [*packages.glob("imagecodecs/*.so"), *packages.glob("imagecodecs.libs/*")]
    return [path for path in libraries if path.name not in loaded]


def main() -> None:
    """Delete the unused files and folders."""
    for path in unused_in(Path(imagecodecs.__file__).parents[1]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
