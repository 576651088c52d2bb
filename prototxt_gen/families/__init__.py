"""Nets whose shape is not the paper's stages of convolutions: one module per net.

A module defines `NET`, the name that `--net` and a spec's `net` select it by, and
`scores(net, spec, init)`, which adds the layers between the blob `data` and the class scores to a
NetParameter and returns the name of the scores' blob. The function takes widths from
`spec.scaled`, the number of classes from `spec.classes`, and passes `init` to `learnt`. It ends in
a pooling over the whole map, so that the net can be applied to images of any size.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType


@functools.cache
def families() -> Mapping[str, ModuleType]:
    """The modules of this folder, by the names of their nets."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.NET: module for module in modules}
