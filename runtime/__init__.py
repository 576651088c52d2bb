"""Executes, trains and evaluates Caffe nets.

    import runtime

    net = runtime.load("deploy.prototxt", "weights.caffemodel")
    probabilities = net.predict(images)["prob"]

`load`, `Net`, `Solver` and `__version__` are imported when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.inference.model import load
    from runtime.net import Net
    from runtime.solvers.solver import Solver

__all__ = ["Net", "Solver", "__version__", "load"]

_MODULES = {
    "load": "runtime.inference.model",
    "Net": "runtime.net",
    "Solver": "runtime.solvers.solver",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("verydeep")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")


# Former names of modules, such as runtime.net_io, are found in the folder `deprecated`.
__path__.append(f"{__path__[0]}/deprecated")
