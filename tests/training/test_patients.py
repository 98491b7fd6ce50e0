from pathlib import Path

import pytest

from pneumonia.training.patients import certain_patient_of, joined, patient_of


@pytest.mark.parametrize(
    ("name", "patient", "certain"),
    [
        ("person12_bacteria_34.jpeg", "person12", "person12_bacteria"),
        ("person12_virus_7.jpeg", "person12", "person12_virus"),
        ("person120_virus_7.jpeg", "person120", "person120_virus"),
        ("PERSON12_BACTERIA_34.PNG", "person12", "person12_bacteria"),
        ("person12_bacteria_34 (1).jpg", "person12", "person12_bacteria"),
        ("aug_3_person12_bacteria_34.jpeg", "person12", "person12_bacteria"),
        ("person12.jpeg", "person12", "person12"),
        ("IM-0115-0001.jpeg", "IM-115", "im-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-115", "im-0115"),
        ("Copy of IM-0115-0001.jpeg", "IM-115", "im-0115"),
        ("NORMAL2-IM-0115-0001.jpeg", "IM-115", "normal2-im-0115"),
        ("NORMAL2-IM-1322-0001-0001.jpeg", "IM-1322", "normal2-im-1322"),
        ("NORMAL-1003233-0001.jpeg", "Kermany 1003233", "normal-1003233"),
        ("BACTERIA-7422-0001.jpeg", "Kermany 7422", "bacteria-7422"),
        ("virus-9564688-0002.png", "Kermany 9564688", "virus-9564688"),
        ("00000013_005.png", "NIH 13", "00000013"),
        ("CXR10_IM-0002-1001.png", "Open-i 10", "cxr10"),
        ("CXR1_1_IM-0001-3001.png", "Open-i 1", "cxr1"),
        ("patient00001_study1_view1_frontal.jpg", "patient 1", "patient00001"),
        ("p10_p10000032_s50414267_02aa804e.jpg", "MIMIC 10000032", "p10000032"),
        ("sub-S03047_ses-E07985_run-1_bp-chest_vp-ap_dx.png", "sub-s03047", "sub-s03047"),
        ("CHNCXR_0001_0.png", "NLM 1", "chncxr_0001"),
        ("MCUCXR_0001_0_mask.png", "NLM 1", "mcucxr_0001"),
        ("JPCLN001.png", "JSRT 1", "jpcln001"),
        ("scan.jpeg", None, None),
        ("a person1.jpeg", None, None),
        ("COVID-1.png", None, None),
        ("20200101_001.png", None, None),
        ("0004cfab-14fd-4e49-80ba-63a80b6bddd6.dcm", None, None),
    ],
)
def test_patients_are_told_by_the_names_of_public_collections(
    name: str, patient: str | None, certain: str | None
) -> None:
    assert patient_of(Path("folder") / name) == patient
    assert certain_patient_of(Path("folder") / name) == certain


def test_patients_who_share_an_image_are_one() -> None:
    assert joined(["a", "b", "c", "a", "d"], ["1", "2", "2", "3", "3"]) == ["a", "b", "b", "a", "a"]
