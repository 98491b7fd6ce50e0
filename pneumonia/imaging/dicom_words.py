"""Words for the chest and its views in DICOM headers, in some thirty languages.

They are compared in capitals and without accents, as whole words or as beginnings of words: LUNG matches LUNGE, but not
STELLUNG. The words of BIMCV, PadChest and MIMIC-CXR are among them.
"""
# ruff: noqa: RUF001  # letters that look like Latin ones

import re
import unicodedata

# These match anywhere in a text: no other word contains them, or their script has no spaces between words.
_CHEST_PARTS = ("CHEST", "THORAX", "TORAX", "胸", "肺", "흉부", "가슴", "폐", "ทรวงอก", "ปอด", "صدر", "חזה")
_CHEST_BEGINNINGS = (
    *("THORA", "TORAC", "TORAK", "LUNG", "PULM", "HEART", "MEDIAST", "CHST"),
    *("PECHO", "PEITO", "PETTO", "POITRINE", "POUMON", "POLMON", "BRUSTKORB", "BRUSTRAUM", "BORSTKAS", "LONGEN"),
    *("BRYSTKAS", "BROSTKORG", "KEUHKO", "RINTAKEH", "KLATK", "PLUC", "PLJUC", "PLIC", "HRUDN", "GRUDN", "PRSN"),
    *("MELLKAS", "TUDO", "GOGUS", "AKCIGER", "PLAMAN", "KOPSU", "RINDKERE", "KRUTIN", "PLAUC", "KRUSK"),
    *("ГРУДН", "ГРУДИ", "ГРУДЬ", "ТОРАК", "ТОРАЛ", "ЛЕГК", "ЛЕГЕН", "ГРЪД", "ΘΩΡΑ", "ΠΝΕΥΜ", "NGUC", "PHOI"),
)
_CHEST_WORDS = {"BRUST", "CXR", "PCXR", "THX", "KLP", "ОГК", "DADA", "PARU"}
# Thoracic vertebrae are named after the chest.
_SPINE = ("SPINE", "SPINAL", "COLUM", "COLUN", "COLON", "WIRBEL", "VERTEB", "RACHIS", "LUMB", "KREGOSL", "ПОЗВОН", "椎")

_OBLIQUE_BEGINNINGS = ("OBLIQ", "OBLIC", "SCHRAG", "SKOS", "КОСА", "КОСО")
_OBLIQUE_WORDS = {"OBL", "LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "LLD", "RLD", "SWIMMERS", "SWIMMER"}
_LATERAL_BEGINNINGS = (
    "LATER",
    "SEITL",
    "SEITEN",
    "BOCN",
    "BOCZN",
    "БОКОВ",
    "ПЛАГИ",
    "ΠΛΑΓΙ",
    "ZIJDEL",
    "SIDOBILD",
    "SIDEB",
)
_LATERAL_WORDS = {
    *("LL", "RL", "LAT", "LLAT", "RLAT", "LATL", "LATR", "LTLAT", "RTLAT", "XTABLE", "XTLAT", "XLAT"),
    *("PROFIL", "PROFILO", "PERFIL", "OLDALIRANYU", "DWARS", "NGHIENG"),
}
_NOT_LATERAL = ("LATERALIT", "BILATERAL", "UNILATERAL", "COLLATERAL")
_FRONTAL_BEGINNINGS = ("FRONT", "FRENTE", "POSTEROANT", "ANTEROPOST", "POSTERO", "ANTERO", "DORSOVENT", "ПРЯМ")
_FRONTAL_WORDS = {"PA", "AP", "FACE", "DV", "VD", "DIRECTO", "DIRECTA"}
_SUPINE = ("SUPIN", "PRON", "DORSAL", "VENTRAL")  # a decubitus that is no lateral one

_LETTERS = str.maketrans({"Ł": "L", "Đ": "D", "Ø": "O", "Æ": "AE", "Þ": "TH"})  # Unicode has no accents in these
_UNKNOWN = {"UNKNOWN", "UNK", "UNDEFINED", "UNSPECIFIED", "NONE", "NA", "NULL", "DEFAULT"}


def shows_chest(text: str) -> bool | None:
    """Return whether a text names the chest, or None if it names nothing."""
    text = _folded(text)
    words = _words(text)
    if not words or all(word in _UNKNOWN for word in words):
        return None
    if any(part in text for part in _SPINE):
        return False
    is_named = any(word.startswith(_CHEST_BEGINNINGS) or word in _CHEST_WORDS for word in words)
    return is_named or any(part in text for part in _CHEST_PARTS)


def is_frontal(text: str) -> bool | None:
    """Return whether a text names a frontal view, or None if it names none, or a frontal and a lateral one."""
    text = _folded(text)
    words = _words(text)
    if _is_oblique(text, words):
        return False
    is_lateral = any(_is_lateral(word) for word in words) or any(word in text for word in ("侧", "側", "측면"))
    is_front = any(word.startswith(_FRONTAL_BEGINNINGS) or word in _FRONTAL_WORDS for word in words)
    is_front |= any(word in text for word in ("正面", "正位", "后前", "後前", "정면"))
    return None if is_lateral == is_front else is_front


def _is_oblique(text: str, words: list[str]) -> bool:
    """Return whether a view is oblique, or a lateral decubitus, which shows air and fluid in other places."""
    if any(word.startswith(_OBLIQUE_BEGINNINGS) or word in _OBLIQUE_WORDS for word in words) or "斜" in text:
        return True
    is_decubitus = any(word.startswith("DECUB") for word in words)
    return is_decubitus and not any(word.startswith(_SUPINE) for word in words)


def _is_lateral(word: str) -> bool:
    if word.startswith(_NOT_LATERAL):
        return False
    return word in _LATERAL_WORDS or word.startswith(_LATERAL_BEGINNINGS) or word.endswith("LATERAL")


def _folded(text: str) -> str:
    """Return a text in capitals and without accents; two single letters, as in "P.A." or "L/L", become a word."""
    letters = unicodedata.normalize("NFKD", text.upper().translate(_LETTERS))
    bare = unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))
    return re.sub(r"(?<![^\W\d_])([^\W\d_])[./-]([^\W\d_])(?![^\W\d_])", r"\1\2", bare)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)
