"""Warnings from a DICOM header: not a radiograph, not of the chest, not a frontal view, or raw data.

Codes are used before free text. No element about the patient is read.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html, CID … of part 16 there.
"""

import contextlib
from collections.abc import Callable, Iterator

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from pneumonia.imaging.dicom_elements import Wanted
from pneumonia.imaging.dicom_words import is_frontal, shows_chest
from pneumonia.imaging.limits import MAX_CHARACTER_SETS, MAX_TEXT

RADIOGRAPHY = {"CR", "DX", "DR", "RG", "XR"}  # C.7.3.1.1.1; DR and XR are not of its terms, but files have them
UNTOLD = {"", "OT", "SC"}  # "other" or "secondary capture" is what conversion from films and pictures leaves
RAW_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing

# Each in SNOMED's old and new codes. CID 4009: chest, also with its neighbours; mediastinum, lung, heart.
_CHEST_CODES = {
    *("T-D3000", "51185008", "816094009", "R-FAB52", "417437006", "R-FAB53", "416152001", "R-FAB54", "416319003"),
    *("R-FAB55", "416550000", "R-FAB56", "416775004", "T-D3300", "72410000", "T-D3200", "43799004", "T-D3050"),
    *("78904004", "T-28000", "39607008", "T-32000", "80891009"),
}
# CID 4010: antero-posterior, postero-anterior, frontal.
_FRONTAL_CODES = {"R-10206", "399348003", "R-10214", "R-40888", "272479007", "R-10202", "399033003"}
# CID 4010: lateral, from either side or between the inner and the outer one; oblique, from any side.
_OTHER_VIEW_CODES = {
    *("R-102CD", "399067008", "R-10232", "399198007", "R-10236", "399173006", "R-10228", "399352003", "R-10224"),
    *("399260004", "G-A145", "30730003", "R-102C1", "399182000", "R-10238", "399184004", "R-10234", "399236003"),
    *("R-10208", "399312000", "R-10216", "399059000", "R-10210", "399038007", "R-10212", "399006002", "R-10220"),
    *("399135007", "R-40985", "399356000", "R-10204", "399160007", "R-40783", "260427002"),
}

_ESCAPE, _REPLACED = b"\x1b", "\ufffd"  # what begins another character set, and stands for no character

_CHARACTERS, _MODALITY, _BODY_PART, _VIEW, _DIRECTIONS = 0x00080005, 0x00080060, 0x00180015, 0x00185101, 0x00200020
_CLASS, _INTENT = 0x00080016, 0x00080068
_REGIONS, _VIEWS, _MODIFIERS = 0x00082218, 0x00540220, 0x00540222
_CODE_VALUE, _LONG_CODE_VALUE, _MEANING = 0x00080100, 0x00080119, 0x00080104
_DESCRIPTIONS = (0x0008103E, 0x00181030, 0x00181400)  # of the series, the protocol and how the device processed it
_CODE: Wanted = dict.fromkeys((_CODE_VALUE, _LONG_CODE_VALUE, _MEANING))
WANTED: Wanted = {
    **dict.fromkeys((_CHARACTERS, _CLASS, _MODALITY, _INTENT, _BODY_PART, _VIEW, _DIRECTIONS, *_DESCRIPTIONS)),
    _REGIONS: _CODE,
    _VIEWS: {**_CODE, _MODIFIERS: _CODE},
}


def warnings(header: Dataset) -> tuple[str, ...]:
    """Return the reasons in a header to doubt the answer. Missing elements and unknown values cause no warning.

    Args:
        header: the elements in WANTED.

    Returns:
        `dicom_not_a_chest_radiograph` if the modality is not radiography or the body part is not the chest;
        `dicom_not_a_frontal_view` if the view or the patient's orientation is that of another view;
        `dicom_for_processing` if the pixels are meant for processing, not for viewing (C.8.11.1.1.1).
    """
    is_radiograph = _text(header, _MODALITY, header).upper() in RADIOGRAPHY | UNTOLD
    found = {
        "dicom_not_a_chest_radiograph": not is_radiograph or _shows_chest(header) is False,
        "dicom_not_a_frontal_view": _is_frontal(header) is False or _runs_to_front_or_back(header),
        "dicom_for_processing": _is_raw(header),
    }
    return tuple(name for name, holds in found.items() if holds)


def _is_raw(header: Dataset) -> bool:
    intent = _text(header, _INTENT, header).upper()
    return intent == "FOR PROCESSING" or (not intent and _text(header, _CLASS, header) == RAW_CLASS)


def _shows_chest(header: Dataset) -> bool | None:
    answers = [_meaning(item, header, _CHEST_CODES, set(), shows_chest) for item in _items(header, _REGIONS)]
    if any(answers):
        return True
    return False if False in answers else shows_chest(_text(header, _BODY_PART, header))


def _is_frontal(header: Dataset) -> bool | None:
    """Return whether the view is frontal, by the first that names one: code, view position, descriptions, body part."""
    for view in _items(header, _VIEWS):
        codes = [view, *_items(view, _MODIFIERS)]
        answers = [_meaning(code, header, _FRONTAL_CODES, _OTHER_VIEW_CODES, is_frontal) for code in codes]
        if any(answer is not None for answer in answers):
            return False not in answers
    texts = (_text(header, tag, header) for tag in (_VIEW, *_DESCRIPTIONS, _BODY_PART))
    return next((answer for answer in map(is_frontal, texts) if answer is not None), None)


def _meaning(
    code: Dataset, header: Dataset, right: set[str], wrong: set[str], by_words: Callable[[str], bool | None]
) -> bool | None:
    """Return what a coded entry means: by its code, or by its words if the code is unknown."""
    values = {_text(code, tag, header).upper() for tag in (_CODE_VALUE, _LONG_CODE_VALUE)}
    if values & right:
        return True
    return False if values & wrong else by_words(_text(code, _MEANING, header))


def _runs_to_front_or_back(header: Dataset) -> bool:
    """Return whether rows or columns run to front or back, C.7.6.1.1.1; in a frontal view neither does."""
    directions = _text(header, _DIRECTIONS, header).upper().split("\\")
    return any(direction.strip()[:1] in {"A", "P"} for direction in directions)


def _items(dataset: Dataset, tag: int) -> Iterator[Dataset]:
    element = dataset.get_item(tag) if tag in dataset else None
    if element is not None and element.VR == "SQ":
        yield from element.value


def _text(dataset: Dataset, tag: int, header: Dataset) -> str:
    """Return an element's text, "" if it has none."""
    element = dataset.get_item(tag) if tag in dataset else None
    if not isinstance(element, RawDataElement) or not element.value:
        return ""
    value = element.value[:MAX_TEXT].strip(b"\0 ")
    with contextlib.suppress(UnicodeDecodeError):
        if _ESCAPE not in value:
            return value.decode("utf-8")  # many files do not say that they are
    text = _declared(value, header)
    return value.decode("latin-1") if _REPLACED in text else text


def _declared(value: bytes, header: Dataset) -> str:
    """Return a text in the character set that the header names, with _REPLACED for what cannot be decoded."""
    try:
        names = header[_CHARACTERS].value
        names = [names] if isinstance(names, str) else list(names or [""])[:MAX_CHARACTER_SETS]
        return str(decode_bytes(value, convert_encodings(names), set()))
    except (LookupError, ValueError):
        return _REPLACED
