"""Filters that were transformed, kept as long as their version lasts."""

from __future__ import annotations

from collections.abc import Callable

from runtime.backend.base import ConvPlan
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import FLOAT
from runtime.backend.cuda.memory import DeviceMemory

Make = Callable[[DeviceArray], None]


def filters(
    plan: ConvPlan,
    name: str,
    version: int | None,
    memory: DeviceMemory,
    scratch: DeviceArray,
    make: Make,
) -> DeviceArray:
    """Transformed filters of a version: kept ones, or made in `scratch`, or made to be kept.

    They are kept only once a version comes again: training changes the weights after every pass
    and would keep them in vain.
    """
    known, kept = plan.cache.get(name, (None, None))
    again = version is not None and version == known
    if again and kept is not None:
        result: DeviceArray = kept
        return result
    target = memory.empty(scratch.size, FLOAT) if again else scratch
    make(target)
    plan.cache[name] = (version, target if again else None)
    return target
