"""Shorten a cold start: leave out imports that no answer needs (docs/performance.md)."""

import contextlib
import gc
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

# What torch and FastAPI import in every process, and serving never uses through them.
UNUSED: dict[str, ModuleType | None] = {
    # Shapes without values, for torch.compile and torch.export: a quarter of torch's import or more.
    "torch._meta_registrations": ModuleType("torch._meta_registrations"),
    # FastAPI checks whether an annotation is a model of Pydantic 1, and takes an ImportError for a no.
    "pydantic.v1": None,
    # torch imports it where it is installed. Only DICOM files need it, and import it then.
    "numpy": None,
}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Import without the modules in UNUSED, and without garbage collection, as modules leave little garbage.

    For processes that only serve: torchvision and torch.compile would miss torch._meta_registrations, unless it is
    imported after this block and before them. Modules that were imported before the block stay as they are.
    """
    absent = {name: stand_in for name, stand_in in UNUSED.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None, in there, makes an import fail
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # torch's, at every cold start
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()  # what was imported stays: no collection need look at it again
        for name, stand_in in absent.items():
            sys.modules.pop(name, None)
            package, _, attribute = name.rpartition(".")  # torch keeps its one as an attribute as well
            held = vars(sys.modules[package]) if package in sys.modules else {}
            if attribute in held and held[attribute] is stand_in:
                del held[attribute]
