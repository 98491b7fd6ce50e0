"""Shorten a cold start by leaving out what no answer needs of the packages that are imported (docs/performance.md)."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _Types(ModuleType):
    """Stands for a module of NumPy's that is imported to write annotations, which nothing reads."""

    NDArray = list


# Modules that NumPy, torch and FastAPI always import and that serving never uses, and what stands in for each. A
# stand-in that no longer suffices makes the import fail, in tests too: versions are pinned.
UNUSED: dict[str, ModuleType | None] = {
    # Unions and literals of all of NumPy's types: half of NumPy's import. NumPy itself annotates named tuples with it.
    "numpy._typing": _Types("numpy._typing"),
    "numpy.typing": _Types("numpy.typing"),
    # Computes shapes without values, for torch.compile and torch.export; takes a quarter of torch's import or more.
    "torch._meta_registrations": ModuleType("torch._meta_registrations"),
    # FastAPI checks whether an annotation is a model of Pydantic 1; to it, an ImportError means no.
    "pydantic.v1": None,
}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Import, and make apps, without the modules in UNUSED, the schemas of Pydantic's models, and garbage collection.

    Imports leave little garbage. Only for processes that serve: torchvision and torch.compile need
    torch._meta_registrations, which must then be imported between this block and them. Modules imported before the
    block stay as they are.
    """
    gc.disable()
    try:
        with _without_unused(), _schemas_deferred():
            yield
    finally:
        gc.enable()
        gc.freeze()  # imported modules stay, so no collection need look at them again


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    absent = {name: stand_in for name, stand_in in UNUSED.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name, stand_in in absent.items():
            sys.modules.pop(name, None)
            package, _, attribute = name.rpartition(".")  # torch also keeps its module as an attribute
            held = vars(sys.modules[package]) if package in sys.modules else {}
            if attribute in held and held[attribute] is stand_in:
                del held[attribute]


@contextlib.contextmanager
def _schemas_deferred() -> Iterator[None]:
    """Leave building a model's schema to its first use: dozens of FastAPI's describe /openapi.json and nothing else."""
    from pydantic import BaseModel  # noqa: PLC0415  # within the block
    from pydantic._internal._config import config_defaults  # noqa: PLC0415  # nothing public changes all models

    rebuild = vars(BaseModel)["model_rebuild"]

    def rebuild_in_use(model: type[BaseModel], /, **how: Any) -> bool | None:  # noqa: ANN401  # as Pydantic's
        """Leave out the bare calls that FastAPI makes; Pydantic's own, at a first use, say how."""
        done: bool | None = rebuild.__func__(model, **how) if how else None
        return done

    BaseModel.model_rebuild = classmethod(rebuild_in_use)  # type: ignore[method-assign,assignment]
    config_defaults["defer_build"] = True
    try:
        yield
    finally:
        config_defaults["defer_build"] = False
        BaseModel.model_rebuild = rebuild  # type: ignore[method-assign]
