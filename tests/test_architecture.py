"""The rules that keep the rooms apart, read off the imports, by folder."""

import ast
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from pneumonia.launching import job
from tests.builders.checkout import PROJECT
from tests.builders.imports import closure_of, file_of, imports_of, modules_in

SCRIPTS = {"train_model", "train_sagemaker", "promote_model", "app"}
GROUND = "ground floor"
# What each room may import besides itself: arrows point one way.
BELOW_TRAINING = {GROUND, "imaging", "network"}
ALLOWED = {
    GROUND: set[str](),
    "imaging": {GROUND},
    "network": {GROUND, "imaging"},
    "engines": BELOW_TRAINING,
    "training": BELOW_TRAINING,
    "storage": BELOW_TRAINING,
    "releases": BELOW_TRAINING | {"engines", "storage"},
    "front": BELOW_TRAINING | {"storage", "releases"},
    "serving": BELOW_TRAINING | {"engines", "storage", "releases", "front"},
    "client": BELOW_TRAINING | {"storage", "serving"},
    "batch": BELOW_TRAINING | {"engines", "storage", "releases", "front", "serving", "client"},
    "launching": BELOW_TRAINING | {"training", "storage"},
}
ROOMS = sorted(ALLOWED.keys() - {GROUND, "front"})
DOORS = {"pneumonia.__main__", "pneumonia.calibrate", "pneumonia.evaluate"}
MODULES = [name for name in modules_in("pneumonia") if name not in DOORS]
IMAGE = {"imaging", "network", "engines", "storage", "releases", "serving", "batch"}


def room_of(module: str) -> str:
    """Return the room that a module lies in: its folder, or for a file beside the folders the ground floor."""
    if module == "pneumonia":  # the public interface
        return "front"
    first = module.split(".")[1]
    return first if (PROJECT / "pneumonia" / first).is_dir() else GROUND


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, none where there is no circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    own = room_of(module)
    imported = {room_of(name) for name in imports_of(module) if name.split(".")[0] == "pneumonia"}
    assert imported <= ALLOWED[own] | {own}


def test_the_way_from_a_file_to_pixels_names_each_module() -> None:
    section = (PROJECT / "CONTRIBUTING.md").read_text().partition("## From a file to pixels")[2].partition("\n## ")[0]
    names = {name.rpartition(".")[2] for name in MODULES if name.startswith("pneumonia.imaging.")}
    assert {name for name in names if f"`{name}`" not in section} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {module: {name for name in imports_of(module) if file_of(name)} for module in MODULES}
    assert len(imports) > 40
    assert circle_in(imports) == []


def test_a_circle_would_be_found() -> None:
    assert circle_in({"image": {"dicom"}, "dicom": {"codestream", "image"}}) == ["image", "dicom", "image"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_imports_nothing(room: str) -> None:
    tree = ast.parse((PROJECT / "pneumonia" / room / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_every_folder_of_the_package_is_a_room_with_rules() -> None:
    folders = {path.parent.name for path in (PROJECT / "pneumonia").glob("*/__init__.py")}
    assert sorted(folders) == ROOMS


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_scripts_never_import_each_other(script: str) -> None:
    assert closure_of(script) & SCRIPTS == {script}


def test_only_one_script_imports_launching() -> None:
    others = [module for module in MODULES if room_of(module) != "launching"]
    imported = {name for module in [*others, *DOORS, *SCRIPTS - {"train_sagemaker"}] for name in imports_of(module)}
    assert [name for name in imported if name.startswith("pneumonia.launching")] == []


def test_the_package_imports_no_script() -> None:
    assert [module for module in [*MODULES, *DOORS] if imports_of(module) & SCRIPTS] == []


@pytest.mark.parametrize("door", ["app", "promote_model", "pneumonia.batch.s3_operations"])
def test_a_function_needs_no_more_than_the_image_ships(door: str) -> None:
    reached = {room_of(module) for module in closure_of(door) if module.startswith("pneumonia")}
    assert reached - {GROUND, "front"} <= IMAGE
    assert not any("torchvision" in imports_of(module) for module in closure_of(door))


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pneumonia.imaging.")])
def test_decoding_needs_no_torch(module: str) -> None:
    packages = {name.partition(".")[0] for reached in closure_of(module) for name in imports_of(reached)}
    assert not packages & {"torch", "torchvision"}


def test_serving_alone_needs_nothing_of_batches() -> None:
    reached = closure_of("app")
    assert "pneumonia.serving.predictor" in reached
    assert "batch" not in {room_of(module) for module in reached if module.startswith("pneumonia")}


def test_a_job_gets_the_entry_script_and_the_rooms_that_it_imports() -> None:
    with job.staged_source() as source:
        shipped = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    files = {file for module in closure_of("train_model") if (file := file_of(module))}
    assert {str(file.relative_to(PROJECT)) for file in files} <= shipped
    assert {name.split("/")[1] for name in shipped if name.count("/") == 2} == set(job.ROOMS)
    assert {room_of(module) for module in closure_of("train_model") - {"train_model"}} == {
        GROUND,
        *job.ROOMS,
    }


def test_launching_imports_nothing_heavy_before_it_has_read_its_arguments() -> None:
    tree = ast.parse((PROJECT / "train_sagemaker.py").read_text())
    top = {name for node in tree.body for name in names_imported_by(node)}
    ours = {name for name in top if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours <= {
        *("pneumonia.command", "pneumonia.errors", "pneumonia.storage.refusals"),
        *("pneumonia.launching", "pneumonia.launching.settings", "pneumonia.training.hyperparameters"),
    }
    reached = {module for name in ours for module in closure_of(name)}
    packages = {name.partition(".")[0] for module in reached for name in imports_of(module)}
    assert packages - sys.stdlib_module_names == {"pneumonia", "tqdm"}  # tqdm only when there is a bar to show


def names_imported_by(node: ast.stmt) -> list[str]:
    """Return the modules that one top-level statement imports when the module is run."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
