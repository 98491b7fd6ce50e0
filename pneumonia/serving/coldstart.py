"""Shorten a cold start: leave out the parts of imported packages that no answer needs (docs/performance.md)."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _Types(ModuleType):
    """Stands in for a module of NumPy that only annotations need, which nothing reads."""

    NDArray = list


# Modules that NumPy, torch and FastAPI always import and that serving never uses, with a stand-in for each. If a newer
# version needs more than the stand-in has, the import fails, in tests too; versions are pinned.
UNUSED: dict[str, ModuleType | None] = {
    # Unions and literals of all types of NumPy: half of its import. NumPy annotates its own named tuples with them.
    "numpy._typing": _Types("numpy._typing"),
    "numpy.typing": _Types("numpy.typing"),
    # Computes shapes without values, for torch.compile and torch.export; takes a quarter of torch's import or more.
    "torch._meta_registrations": ModuleType("torch._meta_registrations"),
    # FastAPI checks whether an annotation is a model of Pydantic 1, and takes an ImportError for a no.
    "pydantic.v1": None,
}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Run the block without the modules in UNUSED, without building Pydantic's schemas, and without garbage collection.

    The block imports what serving needs, and makes the app.

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
    """Build a model's schema at its first use: dozens of FastAPI's models are needed for /openapi.json alone."""
    from pydantic import BaseModel  # noqa: PLC0415  # within the block
    from pydantic._internal._config import config_defaults  # noqa: PLC0415  # no public setting concerns all models

    rebuild = vars(BaseModel)["model_rebuild"]

    def rebuild_in_use(model: type[BaseModel], /, **how: Any) -> bool | None:  # noqa: ANN401  # as Pydantic's
        """Do nothing for FastAPI's calls, which pass no arguments; Pydantic's own calls, at a first use, pass some."""
        done: bool | None = rebuild.__func__(model, **how) if how else None
        return done

    BaseModel.model_rebuild = classmethod(rebuild_in_use)  # type: ignore[method-assign,assignment]
    config_defaults["defer_build"] = True
    try:
        yield
    finally:
        config_defaults["defer_build"] = False
        BaseModel.model_rebuild = rebuild  # type: ignore[method-assign]
