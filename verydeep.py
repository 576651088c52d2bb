"""The names of the package `runtime` and, by `python -m verydeep`, its command line."""

from __future__ import annotations

import sys
from typing import Any

import runtime

__all__ = ["Net", "Solver", "__version__", "load"]  # noqa: F822  found in `runtime`


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(runtime, name)
    raise AttributeError(f"module 'verydeep' has no attribute {name!r}")


if __name__ == "__main__":
    from runtime.cli.entry import main

    sys.exit(main())
