"""Former names of modules. Each file here is an alias of the module under its current name.

The folder is on the path of the package `runtime`, so `import runtime.net_io` loads
`runtime/deprecated/net_io.py`, which issues a warning and returns the current module.
"""

import importlib
import sys
import warnings


def alias(former: str, current: str) -> None:
    """Replace `former`, the module that is being imported, by the module `current`."""
    former_name = former.replace(".deprecated.", ".")
    warnings.warn(
        f"{former_name} is deprecated; import {current}", DeprecationWarning, stacklevel=3
    )
    sys.modules[former] = importlib.import_module(current)
