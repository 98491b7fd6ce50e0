"""The Dockerfile as text: what it copies into the image of each engine, and in which order; test_image.py builds it."""

import re

import pytest

from pneumonia.engines.choice import PACKAGES
from pneumonia.serving.page import GUIDES, STATIC, Guide
from pneumonia.serving.snapstart import CODECS
from tests.builders.checkout import PROJECT
from tests.builders.dockerfile import ENGINES, copied, files_copied, instructions, stages
from tests.builders.imports import closure_of, file_of
from tools import slim_packages

DOORS = {
    "torch": ("app", "promote_model", "pneumonia.batch.s3_operations"),
    "onnx": ("app", "pneumonia.batch.s3_operations"),
}
REQUIREMENTS = {"torch": "requirements.txt", "onnx": "requirements-onnx.txt"}


@pytest.mark.parametrize("engine", ENGINES)
def test_it_copies_the_rooms_of_what_the_handlers_import_and_show(engine: str) -> None:
    imported = {file for door in DOORS[engine] for module in closure_of(door) if (file := file_of(module))}
    shown = {STATIC, GUIDES / "model-card", *(GUIDES / f"{guide}.md" for guide in Guide)}
    rooms = {
        f"pneumonia/{file.relative_to(PROJECT).parts[1]}" for file in imported if file.parent.parent.name == "pneumonia"
    }
    doors = {f"{door}.py" for door in DOORS[engine] if "." not in door} | {"pneumonia/*.py"}

    assert imported <= files_copied(engine)
    shown_besides = {str(path.relative_to(PROJECT)) for path in shown - {STATIC}}
    assert set(copied(engine)) == {REQUIREMENTS[engine]} | doors | rooms | shown_besides


def test_the_context_is_exactly_what_is_copied_and_what_takes_part_in_building() -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    let_in = {
        path for rule in rules if rule[0] == "!" for path in (PROJECT / rule[1:], *(PROJECT / rule[1:]).rglob("*"))
    }
    refused = [rule for rule in rules[1:] if rule[0] != "!"]
    kept_out = {path for rule in refused for place in (rule, f"{rule}/**/*") for path in PROJECT.glob(place)}
    mounted = {PROJECT / name for name in re.findall(r"/tmp/(\S+\.py)", str(instructions()))}

    assert rules[0] == "*"
    assert len(mounted) == 1
    assert {path for path in let_in - kept_out if path.is_file()} == mounted.union(*map(files_copied, ENGINES))


def test_it_keeps_the_contract() -> None:
    steps = [" ".join(words) for words in instructions()]
    runs = [step for step in steps if step.startswith("RUN")]

    assert steps[:4] == [
        "ARG ENGINE=torch",
        "ARG BASE_IMAGE=aws",
        "FROM public.ecr.aws/lambda/python:3.13 AS aws",
        "FROM ${BASE_IMAGE} AS base",
    ]
    assert {*ENGINES} == PACKAGES.keys() < stages().keys()
    assert "ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu" in steps
    assert 'python -c "import app' in runs[-1]
    assert steps[-1] == 'CMD ["app.handler"]'


@pytest.mark.parametrize("engine", ENGINES)
def test_it_installs_before_it_copies_code(engine: str) -> None:
    steps = stages()[engine]
    install = next(number for number, step in enumerate(steps) if step[0] == "RUN" and "install" in step)

    assert [step for step in steps[:install] if step[0] == "COPY"] == [["COPY", REQUIREMENTS[engine], "./"]]
    assert REQUIREMENTS[engine] in steps[install]


def test_the_codecs_that_stay_in_it_are_those_that_decoding_looks_up() -> None:
    looked_up = {
        name
        for file in (PROJECT / "pneumonia/imaging").glob("*.py")
        for name in re.findall(r"imagecodecs\.(\w+_decode)", file.read_text())
    }
    assert looked_up == {*slim_packages.CODECS} == {*CODECS}
