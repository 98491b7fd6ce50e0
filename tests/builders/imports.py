"""What the project's modules import, read off their text."""

import ast
from pathlib import Path

from tests.builders.checkout import PROJECT


def file_of(module: str) -> Path | None:
    """Return the project's file of a module, None for a module from elsewhere."""
    path = PROJECT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def imports_of(module: str) -> set[str]:
    """Return the modules that one of the project's modules imports anywhere in it, with their packages."""
    file = file_of(module)
    assert file
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: end + 1]) for name in names for end in range(len(name.split(".")))}


def closure_of(module: str) -> set[str]:
    """Return a module and all of the project's modules that it imports, directly or not."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        reached |= waiting
        waiting = {name for one in waiting for name in imports_of(one) if file_of(name)} - reached
    return reached
