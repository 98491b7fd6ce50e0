"""The scripts in benchmarks/, to be called without starting a process."""

import runpy
import sys
from typing import Any

from tests.builders.checkout import PROJECT


def benchmark(name: str) -> dict[str, Any]:
    """Return what a script defines. Scripts import each other by name, as they do when they are run."""
    folder = PROJECT / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return runpy.run_path(str(folder / f"{name}.py"))
