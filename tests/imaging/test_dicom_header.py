"""What a DICOM header says against an answer."""

from typing import Any

import pytest
from PIL import Image

from pneumonia.imaging.decoding import decode
from tests.builders.dicom_files import dicom as made
from tests.builders.dicom_files import radiograph
from tests.builders.images import encoded

OTHER, SIDE = "dicom_not_a_chest_radiograph", "dicom_not_a_frontal_view"


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, []),
        ({"Modality": "CR", "ViewPosition": "AP"}, []),
        ({"Modality": "RG", "BodyPartExamined": "THORAX"}, []),
        ({"Modality": "OT", "BodyPartExamined": "", "ViewPosition": ""}, []),
        ({"Modality": None, "BodyPartExamined": None, "ViewPosition": None}, []),
        ({"BodyPartExamined": "Port Chest"}, []),
        ({"Modality": "CT"}, [OTHER]),
        ({"Modality": "MG"}, [OTHER]),
        ({"BodyPartExamined": "HAND"}, [OTHER]),
        ({"ViewPosition": "LL"}, [SIDE]),
        ({"ViewPosition": "Lateral"}, [SIDE]),
        ({"ViewPosition": "RLD"}, [SIDE]),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, [SIDE]),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, []),
        ({"ViewPosition": None, "PatientOrientation": ""}, []),
        ({"Modality": "US", "ViewPosition": "LL"}, [OTHER, SIDE]),
    ],
)
def test_the_header_warns_of_what_is_no_frontal_chest_radiograph(elements: dict[str, Any], expected: list[str]) -> None:
    assert list(decode(made(radiograph(8), **elements)).warnings) == expected


def test_other_kinds_of_files_have_no_words_to_warn_with() -> None:
    assert decode(encoded(Image.new("L", (2, 2)), "PNG")).warnings == ()
