"""What the project's modules import, read off their text: everywhere in a module, also where only types need it."""

import ast
from pathlib import Path

from tests.builders.checkout import PROJECT


def file_of(module: str) -> Path | None:
    """Return the project's file of a module, None for a module from elsewhere."""
    path = PROJECT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def module_of(file: Path) -> str:
    """Return the dotted name of one of the project's files."""
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_in(folder: str) -> list[str]:
    """Return the modules in one of the project's folders, those of its folders included."""
    return sorted(module_of(file) for file in (PROJECT / folder).rglob("*.py"))


def imports_of(module: str) -> set[str]:
    """Return the modules that one of the project's modules names in its imports."""
    file = file_of(module)
    assert file
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {whole if file_of(whole) else node.module for whole in within.values()}
    return names


def closure_of(module: str) -> set[str]:
    """Return a module and all of the project's modules that it imports, directly or not."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        reached |= waiting
        waiting = {name for one in waiting for name in imports_of(one) if file_of(name)} - reached
    return reached
