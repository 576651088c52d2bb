"""Former names of modules. Each file here stands for the module that its name moved to.

The folder is on the path of the package `runtime`, so `import runtime.net_io` loads
`runtime/deprecated/net_io.py`, which warns and gives the current module.
"""

import importlib
import sys
import warnings


def alias(former: str, current: str) -> None:
    """Make `former`, the module that is being imported, the module `current`."""
    former_name = former.replace(".deprecated.", ".")
    warnings.warn(
        f"{former_name} is deprecated; import {current}", DeprecationWarning, stacklevel=3
    )
    sys.modules[former] = importlib.import_module(current)
