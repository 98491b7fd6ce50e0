"""What needs packages that are slow to import, or missing in SageMaker's training container: imported when needed."""

from types import ModuleType

from pneumonia.errors import UnsupportedImageError


def deep_files() -> ModuleType:
    """Return `imaging.deep_files`.

    Raises:
        UnsupportedImageError: imagecodecs is not installed.
    """
    try:
        from pneumonia.imaging import deep_files  # noqa: PLC0415  # a third of a second, for such files only
    except ModuleNotFoundError as error:  # SageMaker's training container has no imagecodecs
        raise UnsupportedImageError(
            "Reading signed, floating-point, 32-bit or coloured 16-bit images, and lossless or 12-bit JPEG, needs "
            "imagecodecs: install it, or send 8 or 16 bits of gray."
        ) from error
    return deep_files


def dicom() -> ModuleType:
    """Return `imaging.dicom`.

    Raises:
        UnsupportedImageError: pydicom or imagecodecs is not installed.
    """
    try:
        from pneumonia.imaging import dicom  # noqa: PLC0415  # half a second and 60 MB, for DICOM files only
    except ModuleNotFoundError as error:  # SageMaker's training container has neither
        raise UnsupportedImageError(
            "Reading DICOM files needs pydicom and imagecodecs: install them, or send a JPEG or PNG."
        ) from error
    return dicom
