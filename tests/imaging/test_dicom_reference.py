"""Every DICOM file that pydicom's package brings, against pydicom's own decoding and processing of pixels."""

from pathlib import Path

import pydicom.data
import pytest

from pneumonia.imaging.dicom_prefix import beginning
from tools.dicom_agreement import outcome

FOLDER = Path(pydicom.data.__file__).parent / "test_files"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and beginning(path.read_bytes()) is not None)

# Those that hold pixels and are refused, with what the sentence says.
REFUSED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "too many pieces",  # a header without an image, to test delimiters
    "MR_truncated.dcm": "broken",
    "badVR.dcm": "broken",  # NumberOfFrames is "1A"
    **dict.fromkeys(("SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"), "unsupported kind"),
    **dict.fromkeys(("liver_1frame.dcm", "liver_expb_1frame.dcm"), "unsupported kind"),
    **dict.fromkeys(("rtdose_1frame.dcm", "rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm"), "unsupported kind"),
    **dict.fromkeys(("SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm"), "several frames"),
    **dict.fromkeys(("SC_rgb_rle_32bit_2frame.dcm", "examples_ybr_color.dcm"), "several frames"),
    **dict.fromkeys(("rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"), "several frames"),
}
# Those for which pydicom needs decoders that the project does not install: `tools/dicom_agreement.py` compares them.
WITHOUT_REFERENCE = {
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg_gdcm.dcm"),
    *("JPEG-lossy.dcm", "JPGExtended.dcm", "GDCMJ2K_TextGBR.dcm"),
}
# Those whose window shows nothing but white: they are shown as if they had none.
BESIDE_THE_WINDOW = {"17166", "17196"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_of_pydicom_are_shown_as_pydicom_has_them(path: Path) -> None:
    found = outcome(path.read_bytes())
    if path.name in REFUSED:
        assert REFUSED[path.name] in found.said
    elif not found.said.startswith("read"):
        assert "holds no image" in found.said
    elif path.name not in WITHOUT_REFERENCE | BESIDE_THE_WINDOW:
        assert found.levels is not None
        assert found.levels <= 1.01


def test_most_of_them_are_compared() -> None:
    assert sum(outcome(path.read_bytes()).levels is not None for path in FILES) >= 60
