"""The layout of the weights bucket, and the content of `current.json`.

releases/<version>/pneumonia_classifier.pth
releases/<version>/pneumonia_classifier.onnx  the same network as an ONNX file; older releases have none
releases/<version>/manifest.json              there once the release is complete
current.json                                  {"version": "<version>", "previous": [...]}: the release that is served
pneumonia_classifier.pth                      the same weights, for readers that know only this key
"""

import dataclasses
import json
from dataclasses import dataclass

from pneumonia.errors import WeightsError
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.version import is_version
from pneumonia.strict_json import strict_json

RELEASES = "releases/"  # prefix of all releases' keys
CURRENT_KEY = "current.json"
PLAIN_KEY = WEIGHTS_NAME
MAX_PREVIOUS = 100  # releases of each kind that `current.json` remembers
MAX_POINTER = 64 * 1024  # bytes of `current.json`, which has at most a third of that


def weights_key(version: str) -> str:
    """Return the key of a release's weights."""
    return f"{RELEASES}{version}/{WEIGHTS_NAME}"


def onnx_key(version: str) -> str:
    """Return the key of a release's ONNX file."""
    return f"{RELEASES}{version}/{ONNX_NAME}"


def manifest_key(version: str) -> str:
    """Return the key of a release's manifest."""
    return f"{RELEASES}{version}/{MANIFEST_NAME}"


def version_of(key: str) -> str | None:
    """Return the release whose manifest has this key, None for any other key."""
    version = key.removeprefix(RELEASES).removesuffix(f"/{MANIFEST_NAME}")
    return version if is_version(version) and key == manifest_key(version) else None


@dataclass(frozen=True)
class Pointer:
    """The content of `current.json`.

    Attributes:
        version: the release that is served.
        previous: releases served before it, the latest first, without those that were rolled back.
        withdrawn: releases that were rolled back; they are served again only when someone asks for it.
    """

    version: str
    previous: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    def moved_to(self, version: str) -> "Pointer":
        """Return the pointer to another release: forwards, or back to one that was served before."""
        if version == self.version:
            return self
        if version in self.previous:
            place = self.previous.index(version)
            withdrawn = (self.version, *self.previous[:place], *self.withdrawn)[:MAX_PREVIOUS]
            return Pointer(version, self.previous[place + 1 :], withdrawn)
        withdrawn = tuple(one for one in self.withdrawn if one != version)
        return Pointer(version, (self.version, *self.previous)[:MAX_PREVIOUS], withdrawn)

    def to_json(self) -> str:
        """Return JSON of one line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def parse_pointer(text: str | bytes, source: str) -> Pointer:
    """Read `current.json`.

    Args:
        text: JSON. Without `previous`, nothing was served before, and without `withdrawn`, nothing was rolled back;
            what can be no version is left out of both.
        source: where the text comes from, for the error's sentence.

    Raises:
        WeightsError: the text names no release.
    """
    try:
        content = strict_json(text, MAX_POINTER)
        if not isinstance(content, dict) or not is_version(content.get("version")):
            raise ValueError(f"{content!r:.200}")
    except ValueError as error:
        raise WeightsError(
            f"{source} names no version ({error}): promote the model again, or serve a release by "
            "`promote_model.py rollback VERSION`."
        ) from error
    return Pointer(content["version"], _versions(content.get("previous")), _versions(content.get("withdrawn")))


def _versions(value: object) -> tuple[str, ...]:
    return tuple(filter(is_version, value))[:MAX_PREVIOUS] if isinstance(value, list) else ()
