import dataclasses
from typing import Any

import pneumonia
from pneumonia.network.calibration import Calibration
from pneumonia.network.detector import Detector
from pneumonia.network.identity import identity_of
from pneumonia.network.input_check import InputCheck
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.releases import USUAL


def test_two_loads_of_one_release_are_the_same_model() -> None:
    assert identity_of(pneumonia.load(), "torch") == identity_of(pneumonia.load(), "torch")


def test_whatever_an_answer_depends_on_makes_another_model() -> None:
    model = pneumonia.load()
    others: dict[str, Any] = {
        "version": "another",
        "sha256": "0" * 64,
        "calibration": Calibration(bias=1e-9),
        "detector": Detector(InputCheck(**INPUT_CHECK)),
        "is_foreign": True,
    }
    assert others.keys() | {"engine", "usual_evidence"} == {field.name for field in dataclasses.fields(model)}
    models = [model, *(dataclasses.replace(model, **{name: other}) for name, other in others.items())]
    models.append(dataclasses.replace(model, detector=None))
    identities = {identity_of(one, "torch") for one in models}
    assert len(identities | {identity_of(model, "onnxruntime")}) == len(models) + 1


def test_what_only_heatmaps_depend_on_makes_no_other_model() -> None:
    model = pneumonia.load()
    other = dataclasses.replace(model, usual_evidence=USUAL)
    assert identity_of(other, "torch") == identity_of(dataclasses.replace(model, usual_evidence=None), "torch")
