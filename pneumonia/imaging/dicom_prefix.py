"""Recognise a DICOM file by how it begins, without importing pydicom.

PS3.5 is https://dicom.nema.org/medical/dicom/current/output/html/part05.html
"""

import struct

PREFIX_BYTES = 132  # preamble and "DICM"

# PS3.5, 6.2 and 7.1.2: the value representations whose length has four bytes, and all of them.
LONG_REPRESENTATIONS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
REPRESENTATIONS = {
    *LONG_REPRESENTATIONS,
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"),
    *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_FIRST_GROUPS = {0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028}  # those that a data set may begin with


def beginning(data: bytes) -> int | None:
    """Return where the meta header of a DICOM file begins, or its data set if it has none; None for other files.

    A file is recognised by "DICM", with or without a preamble before it, or by its first element, with nothing or only
    zeros before it.
    """
    if data[PREFIX_BYTES - 4 : PREFIX_BYTES] == b"DICM":
        return PREFIX_BYTES
    if data.startswith(b"DICM"):
        return 4
    return next((at for at in (0, 128) if not any(data[:at]) and _begins_data_set(data[at : at + 8], len(data))), None)


def _begins_data_set(head: bytes, size: int) -> bool:
    """Return whether 8 bytes are those of a first element: by its representation, or a length that fits the file."""
    if len(head) < 8:
        return False
    is_explicit = head[4:6] in REPRESENTATIONS
    little, big = (int.from_bytes(head[:2], order) for order in ("little", "big"))
    if little in _FIRST_GROUPS:
        return is_explicit or struct.unpack("<I", head[4:])[0] < size
    return big in _FIRST_GROUPS and is_explicit
