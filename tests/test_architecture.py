"""The rules that keep the modules apart, read off their imports."""

import ast
import sys

import pytest

import train_sagemaker
from tests.builders.checkout import PROJECT
from tests.builders.imports import closure_of, file_of, imports_of

SCRIPTS = {"train_model", "train_sagemaker", "promote_model", "app"}
TRAINING = {
    f"pneumonia.training.{name}"
    for name in ("augmentation", "channels", "fitting", "metrics", "plots", "pretrained", "processes")
}
SERVING = {"pneumonia.releases.bucket", "pneumonia.releases.manifest", "pneumonia.serving.predictor"}
BATCHES = ("pneumonia.batch.command", "pneumonia.batch.s3_operations")


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_scripts_never_import_each_other(script: str) -> None:
    assert closure_of(script) & SCRIPTS == {script}


def test_package_imports_no_script() -> None:
    files = [file.relative_to(PROJECT) for file in (PROJECT / "pneumonia").rglob("[!_]*.py")]
    modules = [".".join(file.with_suffix("").parts) for file in files]
    assert modules
    for module in modules:
        assert not closure_of(module) & SCRIPTS


def test_serving_imports_no_training_module() -> None:
    assert closure_of("app") > SERVING
    assert not closure_of("app") & TRAINING
    assert not any("torchvision" in imports_of(module) for module in closure_of("app"))


@pytest.mark.parametrize("module", BATCHES)
def test_batches_import_what_serves_and_no_training_module(module: str) -> None:
    assert closure_of(module) > {"pneumonia.serving.predictor", "pneumonia.releases.fetch"}
    assert not closure_of(module) & TRAINING
    assert not any("torchvision" in imports_of(name) for name in closure_of(module))


def test_serving_imports_nothing_of_batches() -> None:
    assert not closure_of("app") & {*BATCHES, "pneumonia.storage.objects"}


def test_training_imports_no_serving_module() -> None:
    assert closure_of("train_model") > TRAINING
    assert not closure_of("train_model") & SERVING


def test_launching_imports_nothing_but_errors_before_it_has_read_its_arguments() -> None:
    tree = ast.parse((PROJECT / "train_sagemaker.py").read_text())
    top = {name for node in tree.body for name in names_imported_by(node)}
    assert {name for name in top if name.partition(".")[0] not in sys.stdlib_module_names} == {"pneumonia.errors"}


def test_job_gets_the_entry_script_and_what_it_imports() -> None:
    with train_sagemaker.staged_source() as source:
        shipped = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    files = {file for module in closure_of("train_model") if (file := file_of(module))}
    assert {str(file.relative_to(PROJECT)) for file in files} <= shipped
    assert {name.split("/")[1] for name in shipped if name.count("/") == 2} == {"imaging", "network", "training"}


def names_imported_by(node: ast.stmt) -> list[str]:
    """Return the modules that one top-level statement imports when the module is run."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
