"""The devices that the NVIDIA driver reports. `cuda` is pycuda.driver, initialised."""

from __future__ import annotations

import functools
from typing import Any

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.driver import DeviceInfo

STATIC_SHARED_LIMIT = 48 << 10


def open_device(cuda: Any, device_id: int) -> Any:
    """Open the device of this number.

    Raises:
        DeviceError: there is no such device.
    """
    count = int(cuda.Device.count())
    if not 0 <= device_id < count:
        available = "there is none" if count == 0 else f"there are {count}, from 0 to {count - 1}"
        raise DeviceError(
            f"gpu {device_id}: no such GPU; {available}; give another number by --gpu or device_id"
        )
    return cuda.Device(device_id)


def describe(cuda: Any, device: Any) -> DeviceInfo:
    """The properties that the driver reports of a device."""
    ask = functools.partial(_attribute, cuda, device)
    version = int(cuda.get_driver_version())
    return DeviceInfo(
        name=str(device.name()),
        compute_capability=tuple(device.compute_capability()),
        multiprocessors=ask("MULTIPROCESSOR_COUNT"),
        total_memory=int(device.total_memory()),
        shared_per_block=ask("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN") or STATIC_SHARED_LIMIT,
        clock_khz=ask("CLOCK_RATE"),
        memory_clock_khz=ask("MEMORY_CLOCK_RATE"),
        memory_bus_bits=ask("GLOBAL_MEMORY_BUS_WIDTH"),
        l2_cache=ask("L2_CACHE_SIZE"),
        driver_version=f"{version // 1000}.{version % 1000 // 10}",
    )


def _attribute(cuda: Any, device: Any, name: str) -> int:
    """An attribute of a device; 0 if this PyCUDA or this device does not support it."""
    attribute = getattr(cuda.device_attribute, name, None)
    try:
        return 0 if attribute is None else int(device.get_attribute(attribute))
    except cuda.Error:
        return 0
