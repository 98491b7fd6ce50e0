"""Releases whose every answer is known, served in turn by a bucket: benchmarks/load.py judges answers by them."""

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pneumonia
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.training_report import TrainingReport
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.history import rollback
from pneumonia.releases.manifest import parse
from pneumonia.releases.promotion import promote, promote_to_folder

FINISHED = datetime(2026, 1, 1, tzinfo=UTC)  # the first one's training; the others' followed, a minute each
Answer = dict[str, Any]


@dataclass
class Change:
    """A change of release: from `begun` to `done`, by time.monotonic, either release may be read."""

    version: str
    begun: float
    done: float = math.inf


class KnownReleases:
    """Releases that differ in weights and calibration, and when the bucket served which; safe to use from many threads.

    Args:
        bucket: the weights bucket; this process's AWS variables say where.
        folder: an empty one, for the releases.
        xrays: the images that are asked about.
        number: of releases.
    """

    def __init__(self, bucket: str, folder: Path, xrays: Sequence[bytes], number: int = 4) -> None:
        self._bucket = bucket
        self._answers: dict[tuple[str, bytes], Answer] = {}  # by version and X-ray
        self._changes: list[Change] = []
        self._changing = threading.Lock()
        self._sources: dict[str, str] = {}  # what their trainings left, by version
        for index in range(number):
            source = _training_output(folder / f"training-{index}", index)
            promote_to_folder(source, folder / f"release-{index}")
            model = pneumonia.load(folder / f"release-{index}")
            self._sources[model.version] = source
            self._answers |= {(model.version, xray): dataclasses.asdict(model.predict(xray)) for xray in xrays}
        self._turns = itertools.cycle(self._sources)
        for xray in xrays:
            if len({self._answers[version, xray]["confidence"] for version in self._sources}) < number:
                raise RuntimeError("two releases give the same answer: it would not show which of them gave it")

    @property
    def number(self) -> int:
        """How many releases there are."""
        return len(self._sources)

    def serve_next(self) -> None:
        """Serve the next release: by promotion for the first time, by rollback later."""
        version = next(self._turns)
        is_known = any(change.version == version for change in self._changes)
        change = Change(version, time.monotonic())
        with self._changing:
            self._changes.append(change)
        if is_known:
            rollback(self._bucket, version)
        else:
            promote(self._sources[version], self._bucket)
        change.done = time.monotonic()

    def age(self, answer: Answer, xray: bytes, asked: float) -> float | None:
        """Return how long an answer's release had been replaced when its X-ray was sent; None for a wrong answer.

        Right is only the whole answer that a release gives for this X-ray, once the bucket has served the release.

        Args:
            answer: what the API answered.
            xray: the image.
            asked: when it was sent, by time.monotonic.

        Returns:
            Seconds; 0 for the release that is served.
        """
        version = answer.get("model_version")
        if not isinstance(version, str) or self._answers.get((version, xray)) != answer:
            return None
        with self._changing:
            changes = list(self._changes)
        places = [place for place, change in enumerate(changes) if change.version == version]
        if not places:
            return None
        return max(0.0, asked - changes[places[-1] + 1].done) if places[-1] + 1 < len(changes) else 0.0


def _training_output(folder: Path, index: int) -> str:
    """Write what a training would leave, with weights and calibration a little unlike the released ones'."""
    folder.mkdir()
    manifest = parse(RELEASED_WEIGHTS.with_name("manifest.json").read_bytes(), "the released manifest")
    state = load_weights(RELEASED_WEIGHTS).state_dict()
    state["fc.weight"] = state["fc.weight"] * (1 + index / 20)
    save_weights(state, folder / WEIGHTS_NAME)
    report = TrainingReport(
        weights_sha256=sha256(folder / WEIGHTS_NAME),
        finished=FINISHED + timedelta(minutes=index),
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        metrics=manifest.metrics,
        calibration=dataclasses.replace(manifest.calibration, bias=manifest.calibration.bias + index / 4),
        input_check=manifest.input_check,
    )
    report.write_beside(folder / WEIGHTS_NAME)
    return str(folder)
