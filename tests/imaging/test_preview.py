"""A preview shows an image's pixels; what else its file says, of a patient perhaps, does not come back."""

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preview import preview_jpeg
from tests.builders.dicom_files import dicom, in_fragments, radiograph
from tests.builders.images import encoded

NAME = "SMITH^JOHN"
BYTES = NAME.encode()
GRAY = Image.linear_gradient("L")
DESCRIPTION, ARTIST, XMP, IPTC, COPYRIGHT, USER_COMMENT = 270, 315, 700, 33723, 33432, 0x9286


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[DESCRIPTION] = tags[ARTIST] = NAME
    tags[USER_COMMENT] = b"ASCII\0\0\0" + BYTES
    return tags


def png_texts() -> PngInfo:
    texts = PngInfo()
    texts.add_text("Comment", NAME)
    texts.add_text("Comment", f"{NAME}, packed", zip=True)
    texts.add_itxt("XML:com.adobe.xmp", f"<x>{NAME}</x>")
    return texts


TIFF_TAGS = {DESCRIPTION: NAME, ARTIST: NAME, COPYRIGHT: NAME, XMP: BYTES, IPTC: BYTES}
# A kind of file and of pixels to the options that name a patient.
METADATA: dict[tuple[str, str], dict[str, object]] = {
    ("JPEG", "L"): {"comment": BYTES, "exif": exif(), "icc_profile": BYTES, "xmp": BYTES, "dpi": (123, 77)},
    ("JPEG", "RGB"): {"comment": BYTES},
    ("JPEG", "CMYK"): {"comment": BYTES},
    ("PNG", "L"): {"pnginfo": png_texts(), "exif": exif(), "icc_profile": BYTES, "dpi": (123, 77)},
    ("PNG", "P"): {"pnginfo": png_texts()},
    ("PNG", "I;16"): {"pnginfo": png_texts(), "exif": exif()},
    ("WEBP", "RGB"): {"lossless": True, "exif": exif(), "icc_profile": BYTES, "xmp": BYTES},
    ("TIFF", "L"): {"tiffinfo": TIFF_TAGS, "icc_profile": BYTES, "dpi": (123, 77)},
    ("TIFF", "I;16"): {"tiffinfo": TIFF_TAGS, "icc_profile": BYTES},
}


@pytest.mark.parametrize(("kind", "mode"), METADATA, ids=str)
def test_metadata_do_not_come_back(kind: str, mode: str) -> None:
    image = GRAY.convert(mode)
    named = encoded(image, kind, **METADATA[kind, mode])
    bare = encoded(image, kind, lossless=True)
    assert BYTES in named
    assert preview_jpeg(decode(named).image) == preview_jpeg(decode(bare).image)


@pytest.mark.parametrize("comment", [None, BYTES], ids=["plain", "JPEG with a comment"])
def test_a_dicom_header_does_not_come_back(comment: bytes | None) -> None:
    def film(patient: str) -> bytes:
        if comment is None:
            return dicom(radiograph(), ExplicitVRLittleEndian, PatientName=patient, ImageComments=patient)
        jpeg = encoded(Image.fromarray(radiograph(8)), "JPEG", comment=patient.encode())
        return in_fragments(JPEGBaseline8Bit, encapsulate([jpeg], has_bot=False))

    assert preview_jpeg(decode(film(NAME)).image) == preview_jpeg(decode(film("NOBODY^ELSE")).image)
