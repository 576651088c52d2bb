"""The CUDA backend: launch code over a Driver, which is a GPU or the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prototxt_gen.errors import DeviceError

if TYPE_CHECKING:
    from runtime.backend.base import Backend
    from runtime.backend.cuda.driver import Driver

_EMULATOR_OPTIONS = ("order", "seed", "sanitizer", "streams", "optimize")


def open_driver(name: str, device_id: int = 0, **options: Any) -> Driver:
    """Open the driver of a device: 'gpu', or 'emu' (options: see EmulatorDriver).

    Raises:
        DeviceError: the device is unavailable; the message names what is missing.
    """
    if name == "emu":
        from runtime.backend.cuda.driver_emulator import EmulatorDriver

        return EmulatorDriver(device_id, **options)
    if name == "gpu":
        from runtime.backend.cuda.driver_pycuda import PyCudaDriver

        return PyCudaDriver(device_id, **options)
    raise DeviceError(f"driver '{name}' is unknown; expected one of gpu, emu; check the name")


def create_backend(name: str, device_id: int = 0, **options: Any) -> Backend:
    """Open the CUDA backend over a driver; options are the emulator's and CudaBackend's.

    Raises:
        DeviceError: the device is unavailable; the message names what is missing.
    """
    from runtime.backend.cuda.backend import CudaBackend

    emulator = {key: options.pop(key) for key in _EMULATOR_OPTIONS if key in options}
    if emulator and name != "emu":
        raise DeviceError(
            f"backend '{name}': options {', '.join(emulator)} belong to the emulator; expected "
            "none of them; leave them out, or use the backend 'emu'"
        )
    driver = open_driver(name, device_id, **emulator)
    backend: Backend = CudaBackend(driver, **options)
    return backend
