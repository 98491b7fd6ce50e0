"""What a DICOM header says against an answer: by its codes, and by its words in several languages."""
# letters that look like Latin ones

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pneumonia.imaging.decoding import decode
from pneumonia.imaging.dicom_words import is_frontal, shows_chest
from tests.builders.dicom_files import dicom as made
from tests.builders.dicom_files import radiograph
from tests.builders.images import encoded

OTHER, SIDE, RAW = "dicom_not_a_chest_radiograph", "dicom_not_a_frontal_view", "dicom_for_processing"


def told(**elements: Any) -> list[str]:  # noqa: ANN401  # each has a type of its own
    return list(decode(made(radiograph(8), **elements)).warnings)


def written(name: str, text: str | bytes, characters: str = "ISO_IR 192") -> bytes:
    """Return a file with a text that its element's representation does not allow."""
    coded = text.encode() if isinstance(text, str) else text
    coded += b" " * (len(coded) % 2)
    elements: dict[str, Any] = {"ViewPosition": "", name: "\1" * len(coded), "SpecificCharacterSet": "\2" * 16}
    data = made(radiograph(8), **elements)
    place = data.index(b"\1" * len(coded)) if coded else 0
    data = data[:place] + coded + data[place + len(coded) :]
    return data.replace(b"\2" * 16, characters.encode().ljust(16))


def told_of(name: str, text: str) -> list[str]:
    return list(decode(written(name, text)).warnings)


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
        ({"Modality": "SC"}, []),
        ({"ViewPosition": "", "BodyPartExamined": "THORAX LAT"}, [SIDE]),
        ({"ViewPosition": "PA", "BodyPartExamined": "THORAX LAT"}, []),
        ({"PresentationIntentType": "FOR PROCESSING"}, [RAW]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, [RAW]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1", "PresentationIntentType": "FOR PRESENTATION"}, []),
        ({"PresentationIntentType": "FOR PRESENTATION"}, []),
        ({"PresentationIntentType": ""}, []),
        ({"PresentationIntentType": "FOR PROCESSING", "ViewPosition": "LL"}, [SIDE, RAW]),
    ],
)
def test_the_header_warns_of_what_is_no_frontal_chest_radiograph(elements: dict[str, Any], expected: list[str]) -> None:
    assert told(**elements) == expected


def test_other_kinds_of_files_have_no_words_to_warn_with() -> None:
    assert decode(encoded(Image.new("L", (2, 2)), "PNG")).warnings == ()


CHEST = [
    *(
        "CHEST",
        "Chest",
        "PORT CHEST",
        "CHEST_AP",
        "CXR",
        "PCXR",
        "THORAX AP",
        "Thorax",
        "RX TORAX",
        "TÓRAX",
        "TÒRAX",
        "TORAX",
    ),
    *("TORAX-ABD", "PECHO AP", "TORACE", "Lunge", "HERZ/LUNGE", "Brustkorb", "POUMON", "Poumons", "PULMON", "Pulmón"),
    *("POITRINE", "KLATKA PIERSIOWA", "płuca", "hrudník", "plíce", "mellkas", "tüdő", "Göğüs", "akciğer", "toraks"),
    *(
        "грудная клетка",
        "ОРГАНЫ ГРУДНОЙ КЛЕТКИ",
        "ОГК",
        "лёгкие",
        "θώρακας",
        "胸部",
        "肺",
        "胸部正面",
        "흉부",
        "ngực",
        "phổi",
    ),
    *("keuhkot", "longen", "W033 TÓRAX PA *", "CHEST/LUNG", "LUNGS", "HEART", "thoraxaufnahme", "BABYCHEST"),
]
OTHER_PARTS = [
    *("HAND", "SKULL", "ABDOMEN", "KNEE", "THORACIC SPINE", "TSPINE", "COLUMNA TORACICA", "BRUSTWIRBELSÄULE", "胸椎"),
    *(
        "THORACOLUMBAR SPINE",
        "BREAST",
        "SHOULDER",
        "STELLUNG",
        "LONG LEG",
        "LONG BONE",
        "RODILLA",
        "膝",
        "ABDOMEN SIMPLE",
    ),
    *("грудной отдел позвоночника", "LUMBAR-SPINE", "ESCAPULA Y", "PELVIS"),
]
UNTOLD = ["", " ", "-", "UNKNOWN", "***", "N/A", "12"]


@pytest.mark.parametrize("text", CHEST)
def test_chests_are_known_in_many_languages(text: str) -> None:
    assert shows_chest(text) is True
    assert told_of("BodyPartExamined", text) == []


@pytest.mark.parametrize("text", OTHER_PARTS)
def test_other_parts_are_known_from_chests(text: str) -> None:
    assert shows_chest(text) is False
    assert told_of("BodyPartExamined", text) == [OTHER]


@pytest.mark.parametrize("text", UNTOLD)
def test_a_part_that_names_nothing_says_nothing(text: str) -> None:
    assert shows_chest(text) is None
    assert told(BodyPartExamined=text) == []


# ViewPosition of MIMIC-CXR, CheXpert, NIH, RSNA and VinDr; descriptions of BIMCV and PadChest; other devices' words.
FRONTAL = [
    *(
        "PA",
        "AP",
        "pa",
        "AP AXIAL",
        "P.A.",
        "A/P",
        "PA ERECT",
        "AP SUPINE",
        "ANTEROPOSTERIOR",
        "POSTERO-ANTERIOR",
        "FRONTAL",
    ),
    *(
        "TORAX AP",
        "TÓRAX PA H",
        "BUCKY PA",
        "DIRECTO AP",
        "DEC. SUPINO AP",
        "SUP.AP PORTABLE",
        "TORAX BIPE PA",
        "FRENTE",
    ),
    *(
        "W033 TÓRAX PA *",
        "AP HORIZONTAL",
        "PARRILLA COSTAL AP",
        "de face",
        "正面",
        "прямая",
        "view: PA",
        "AP DECUBITO SUPINO",
    ),
]
NOT_FRONTAL = [
    *(
        "LL",
        "RL",
        "LAT",
        "LLAT",
        "RLAT",
        "LATERAL",
        "Lateral",
        "L LAT",
        "LAT L",
        "L-LAT",
        "LEFT LATERAL",
        "XTABLE LATERAL",
    ),
    *(
        "LL.",
        "L.L.",
        "L-L",
        "LATERO-LATERAL",
        "LATEROLATERAL",
        "PROFIL",
        "de profil",
        "PERFIL",
        "seitlich",
        "LATERALE",
        "Laterál",
    ),
    *(
        "W034 TÓRAX LAT. *",
        "T034 TÓRAX LAT",
        "LATERAL IZQ.",
        "TORAX ERECT LAT",
        "TORAX LAT PARED",
        "BUCKY LAT",
        "CHEST, LATERAL",
    ),
    *(
        "LAO",
        "RAO",
        "LPO",
        "RPO",
        "LLO",
        "RLO",
        "OBLIQUE",
        "OBL",
        "oblicua",
        "SCHRÄG",
        "AP OBLIQUE",
        "SWIMMERS",
        "斜位",
    ),
    *("LLD", "RLD", "PA LLD", "AP RLD", "PA RLD", "AP LLD", "DECUBITUS", "CHEST, DECUB.", "AP LEFT LATERAL DECUBITUS"),
    *("側面", "侧位", "측면", "боковая", "boczne", "CHESTLATERAL", "LAT_1", "XTABLE"),
]
NO_VIEW = [
    *(
        "",
        "CHEST",
        "PORTABLE",
        "TORAX PORTATIL",
        "SUPINE",
        "ERECT",
        "RX TORAX PA Y LAT",
        "TORAX FRENTE Y PERFIL",
        "PA/LAT",
    ),
    *(
        "BILATERAL",
        "LATERALITY",
        "COLLATERAL",
        "PLATE",
        "LATEX",
        "BLATT",
        "TÓRAX",
        "ESCAPULA Y",
        "L5 S1",
        "PORTÁTIL",
        "ALL",
    ),
]


@pytest.mark.parametrize("text", FRONTAL)
def test_frontal_views_cause_no_warning(text: str) -> None:
    assert is_frontal(text) is True
    assert told_of("ViewPosition", text) == []


@pytest.mark.parametrize("text", NOT_FRONTAL)
def test_other_views_cause_a_warning_where_they_are_named(text: str) -> None:
    assert is_frontal(text) is False
    assert told_of("ViewPosition", text) == [SIDE]
    for name in ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"):
        assert told_of(name, text) == [SIDE]


@pytest.mark.parametrize("text", NO_VIEW)
def test_what_names_no_view_or_both_says_nothing(text: str) -> None:
    assert is_frontal(text) is None
    assert told_of("ViewPosition", text) == []


def test_a_view_position_counts_before_descriptions() -> None:
    assert told(ViewPosition="PA", SeriesDescription="CHEST LAT") == []
    assert told(ViewPosition="LL", SeriesDescription="CHEST PA") == [SIDE]
    assert told(ViewPosition="", SeriesDescription="CHEST", ProtocolName="Thorax lateral") == [SIDE]


@pytest.mark.parametrize(
    ("characters", "coded"),
    [
        ("ISO_IR 144", "ГРУДЬ".encode("iso8859_5")),
        ("ISO_IR 101", "PŁUCA".encode("iso8859_2")),
        ("ISO_IR 148", "GÖĞÜS".encode("iso8859_9")),
        ("GB18030", "胸部".encode("gb18030")),
        ("\\ISO 2022 IR 87", b"\x1b$B6;It\x1b(B"),
        ("\\ISO 2022 IR 149", b"\x1b$)C" + "흉부".encode("euc_kr")),
        ("ISO_IR 100", "TÓRAX".encode()),
        ("ISO_IR 100", "TÓRAX".encode("latin-1")),
        ("ISO_IR 192", "TÓRAX".encode("latin-1")),
        ("nonsense", "TÓRAX".encode("latin-1")),
    ],
)
def test_words_are_read_in_the_character_set_of_the_file(characters: str, coded: bytes) -> None:
    assert list(decode(written("BodyPartExamined", coded, characters)).warnings) == []


def code(value: str, meaning: str, modifier: str | None = None) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", meaning
    if modifier:
        item.ViewModifierCodeSequence = Sequence([code("X", modifier)])
    return item


@pytest.mark.parametrize(
    ("item", "written", "expected"),
    [
        (code("R-10206", "antero-posterior"), "", []),
        (code("272479007", ""), "LL", []),
        (code("R-10236", "left lateral"), "PA", [SIDE]),
        (code("399067008", ""), "", [SIDE]),
        (code("R-102C1", "oblique"), "", [SIDE]),
        (code("R-10206", "antero-posterior", "Oblique"), "", [SIDE]),
        (code("R-10206", "antero-posterior", "Erect"), "", []),
        (code("99", "Thorax seitlich"), "PA", [SIDE]),
        (code("99", "something"), "LL", [SIDE]),
        (code("99", "something"), "PA", []),
        (code("", ""), "LAT", [SIDE]),
    ],
)
def test_a_coded_view_counts_before_a_written_one(item: Dataset, written: str, expected: list[str]) -> None:
    assert told(ViewCodeSequence=Sequence([item]), ViewPosition=written) == expected


@pytest.mark.parametrize(
    ("items", "written", "expected"),
    [
        ([code("T-D3000", "Chest")], "HAND", []),
        ([code("51185008", "")], "HAND", []),
        ([code("816094009", "胸")], "", []),
        ([code("T-D8700", "Hand")], "CHEST", [OTHER]),
        ([code("T-D8700", "")], "CHEST", []),
        ([code("T-D8700", "")], "HAND", [OTHER]),
        ([code("T-D4000", "Abdomen"), code("T-D3000", "Chest")], "", []),
        ([code("122495006", "Thoracic spine")], "", [OTHER]),
        ([], "CHEST", []),
    ],
)
def test_a_coded_region_counts_before_a_written_one(items: list[Dataset], written: str, expected: list[str]) -> None:
    assert told(AnatomicRegionSequence=Sequence(items), BodyPartExamined=written) == expected


@settings(max_examples=300)
@given(text=st.text(max_size=80))
def test_any_text_says_yes_no_or_nothing(text: str) -> None:
    assert is_frontal(text) in {True, False, None}
    assert shows_chest(text) in {True, False, None}
