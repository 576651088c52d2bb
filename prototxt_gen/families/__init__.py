"""Nets that do not consist of the paper's stages of convolutions: one module per net.

A module defines `NET`, the name that selects it by `--net` and by a spec's `net`, and
`scores(net, spec, init)`, which adds the layers between the blob `data` and the class scores to a
NetParameter and returns the name of the scores' blob. The function takes widths from
`spec.scaled`, the number of classes from `spec.classes`, and passes `init` to `learnt`. The last
layer is a global pooling, so that the net can be applied to images of any size.
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
