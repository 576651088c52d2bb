"""A cache of transformed filters, valid for one version of the weights."""

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
    """Return transformed filters, from the cache or computed by `make`.

    They are computed in `scratch` at the first use of a version and cached at the second, because
    training changes the weights after every pass and would not use the cache.

    Shapes: `scratch` and the result have as many elements as the transformed filters.
    """
    cached_version, cached = plan.cache.get(name, (None, None))
    is_repeated = version is not None and version == cached_version
    if is_repeated and cached is not None:
        result: DeviceArray = cached
        return result
    target = memory.empty(scratch.size, FLOAT) if is_repeated else scratch
    make(target)
    plan.cache[name] = (version, target if is_repeated else None)
    return target
