"""The patient of an image, as far as its file's name tells. Does not import torch."""

import re
from collections.abc import Sequence
from pathlib import Path

from pneumonia.errors import ConfigurationError, DataError
from pneumonia.names import in_text

PATTERN_HELP = "regular expression that finds the patient in a file's name (those of public collections)"

# How public collections name their files, after whatever stands before (`aug_person1_…`, `Copy of IM-0115-…`), in any
# case and format. The group is the patient's number; the whole match is as much as belongs to one patient for certain.
_SCHEMES = [
    (kind, re.compile(rf"(?<![a-z0-9]){scheme}", re.IGNORECASE))
    for kind, scheme in (
        ("person", r"person(\d+)_(?:bacteria|virus)"),  # Kermany et al., Mendeley Data V2, Kaggle: person12_bacteria_34
        ("Kermany ", r"(?:NORMAL|BACTERIA|VIRUS)-(\d+)(?=-\d)"),  # the same, V3: VIRUS-9564688-0002
        ("Open-i ", r"CXR(\d+)(?=_(?:\d+_)?IM-)"),  # Indiana University: CXR10_IM-0002-1001
        ("IM-", r"(?:NORMAL2-)?IM-(\d+)"),  # Kermany et al., V2: IM-0115-0001, NORMAL2-IM-0529-0001
        ("NIH ", r"(000\d{5})(?=_\d{3}(?!\d))"),  # ChestX-ray14: 00000013_005
        ("patient ", r"(?:patient|subject)[ _-]?(\d+)"),  # CheXpert, folders in the name: patient00001_study1_view1
        ("MIMIC ", r"p(1\d{7})(?!\d)"),  # likewise: p10000032_s50414267_…
        ("sub-", r"sub-([a-z0-9]+)"),  # BIDS, so BIMCV-COVID19 and QaTa-COV19: sub-S03047_ses-E07985_…
        ("NLM ", r"(?:CHN|MCU)CXR_(\d+)"),  # Shenzhen and Montgomery: CHNCXR_0001_0
        ("JSRT ", r"JPC[LN]N(\d+)"),  # JPCLN001
        ("person", r"(?<!.)person(\d+)"),  # for files named by hand
    )
]


def patient_of(name: str | Path, pattern: re.Pattern[str] | None = None) -> str | None:
    """Return the patient that a file's name tells, None if it tells none.

    A patient never becomes two, but two patients may become one: the numbers of Kermany et al. restart for bacteria,
    for viruses and for `NORMAL2`, and nobody knows whether their person 1 is the same child each time.

    Args:
        name: of the file; its folders do not count.
        pattern: where the patient is in a name, as `pattern_of` returns it; None for the names of public collections.
    """
    found = _found(Path(name).name, pattern)
    return found[0] if found else None


def certain_patient_of(name: str | Path, pattern: re.Pattern[str] | None = None) -> str | None:
    """Return as `patient_of` the patient that a file's name tells, but so that two patients never become one.

    By `patient_of`, most patients of Kaggle's test folder would be in its training folder: `person80_bacteria_389` is
    in one, `person80_virus_150` in the other.
    """
    found = _found(Path(name).name, pattern)
    return found[1] if found else None


def pattern_of(text: str) -> re.Pattern[str] | None:
    """Compile what `--patients` gives; return None for an empty text.

    The patient is what the group called `patient` matches, else the first group that matches, else the whole match.

    Raises:
        ConfigurationError: it is not a regular expression.
    """
    try:
        return re.compile(text) if text else None
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"--patients '{text}' is not a regular expression ({error}): correct it.") from error


def about_unnamed(paths: Sequence[Path], pattern: re.Pattern[str] | None = None) -> str | None:
    """Return how many file names tell no patient, and what follows from it; None if all tell one."""
    unnamed = [path for path in paths if patient_of(path, pattern) is None]
    if not unnamed:
        return None
    tell = "tells" if len(unnamed) == 1 else "tell"
    by = f" by --patients '{pattern.pattern}'" if pattern else ""
    hint = "correct the pattern" if pattern else "pass --patients PATTERN"
    return (
        f"{len(unnamed):,} of {len(paths):,} file names {tell} no patient{by}, such as {_examples(unnamed)}: each such "
        f"image counts as a patient of its own. If names tell patients in another way, {hint}."
    )


def joined(patients: Sequence[str], digests: Sequence[str]) -> list[str]:
    """Return each image's patient; patients who share an image, byte for byte, become one.

    Args:
        patients: the patient of each image, by its file name.
        digests: of each image's file.
    """
    first: dict[str, str] = {}
    same = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while same[patient] != patient:
            patient = same[patient]
        return patient

    for patient, digest in zip(patients, digests, strict=True):
        same[root(patient)] = root(first.setdefault(digest, patient))
    return [root(patient) for patient in patients]


def check_pattern(pattern: re.Pattern[str], paths: Sequence[Path]) -> None:
    """Check that a pattern finds the patient in at least one file's name.

    Raises:
        DataError: it does not.
    """
    if paths and all(patient_of(path, pattern) is None for path in paths):
        raise DataError(
            f"--patients '{pattern.pattern}' finds no patient in any of {len(paths):,} file names, such as "
            f"{_examples(paths)}: correct it."
        )


def _examples(paths: Sequence[Path]) -> str:
    return " and ".join(in_text(f"{path.parent.name}/{path.name}") for path in paths[:2])


def _found(name: str, pattern: re.Pattern[str] | None) -> tuple[str, str] | None:
    """Return the patient twice: so that none becomes two, and so that no two become one."""
    if pattern:
        match = pattern.search(name)
        patient = _matched(match) if match else None
        return (patient, patient) if patient else None
    for kind, scheme in _SCHEMES:
        if match := scheme.search(name):
            return kind + match[1].lower().lstrip("0"), match[0].lower()
    return None


def _matched(match: re.Match[str]) -> str | None:
    groups = match.groups() or (match[0],)
    return match.groupdict().get("patient") or next(filter(None, groups), None)
