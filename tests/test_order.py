"""The rules of this folder: what tests share lies in builders/, in a conftest.py or in tools/stand_ins/."""

from pathlib import Path

from tests.builders.checkout import PROJECT
from tests.builders.imports import imports_of

OUTSIDE = ("pneumonia", "tools", "benchmarks")


def imports_by(files: set[Path]) -> dict[str, set[str]]:
    """Return what the project's modules in these files import, by their dotted names."""
    modules = {".".join(file.relative_to(PROJECT).with_suffix("").parts) for file in files}
    return {module: imports_of(module) for module in modules}


def test_no_module_imports_a_test_module() -> None:
    imports = imports_by({*(PROJECT / "tests").rglob("*.py")})
    assert len(imports) > 50
    assert [
        (module, name)
        for module, imported in imports.items()
        for name in imported
        if name.rpartition(".")[2].startswith("test_")
    ] == []


def test_nothing_outside_imports_tests() -> None:
    files = {file for folder in OUTSIDE for file in (PROJECT / folder).rglob("*.py")}
    imports = imports_by({*files, *PROJECT.glob("*.py")})
    assert len(imports) > 50
    assert [
        module for module, imported in imports.items() if any(f"{name}.".startswith("tests.") for name in imported)
    ] == []
