"""Shorten a cold start by leaving out imports that no answer needs (docs/performance.md)."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType

# Modules that torch and FastAPI always import, and that serving never uses.
UNUSED: dict[str, ModuleType | None] = {
    # Computes shapes without values, for torch.compile and torch.export; takes a quarter of torch's import or more.
    "torch._meta_registrations": ModuleType("torch._meta_registrations"),
    # FastAPI checks whether an annotation is a model of Pydantic 1; to it, an ImportError means no.
    "pydantic.v1": None,
}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Import without the modules in UNUSED, and without garbage collection, because imports leave little garbage.

    Only for processes that serve: torchvision and torch.compile need torch._meta_registrations, which must then be
    imported between this block and them. Modules imported before the block stay as they are.
    """
    absent = {name: stand_in for name, stand_in in UNUSED.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None makes an import fail
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()  # imported modules stay, so no collection need look at them again
        for name, stand_in in absent.items():
            sys.modules.pop(name, None)
            package, _, attribute = name.rpartition(".")  # torch also keeps its module as an attribute
            held = vars(sys.modules[package]) if package in sys.modules else {}
            if attribute in held and held[attribute] is stand_in:
                del held[attribute]
