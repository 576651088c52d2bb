"""Backends by name. The code of a device is imported only when its backend is opened."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from prototxt_gen.errors import DeviceError
from runtime.backend.base import Backend

_CUDA = "runtime.backend.cuda"
_GPU = "gpu"


def _cpu(device_id: int, **options: Any) -> Backend:
    from runtime.backend.cpu.backend import CpuBackend

    if device_id != 0:
        raise DeviceError(
            f"backend 'cpu': there is one CPU, number 0; expected device_id 0, got {device_id}; "
            "leave device_id out"
        )
    return CpuBackend(**options)


def _cuda(name: str, device_id: int, **options: Any) -> Backend:
    """Open a backend of the CUDA package, with its own `create_backend`."""
    if importlib.util.find_spec(_CUDA) is None:
        raise DeviceError(
            f"backend '{name}': GPU support is not part of this build; expected the package "
            f"{_CUDA}, which is missing; use the backend 'cpu' (solver_mode: CPU, no --gpu)"
        )
    if options.pop("self_check", name == _GPU):
        options["reference"] = _reference
    backend: Backend = importlib.import_module(_CUDA).create_backend(name, device_id, **options)
    return backend


def _reference() -> Backend:
    """The backend whose results a GPU's kernels are checked against."""
    return _cpu(0, native=False, threads=1)


def create_backend(name: str, device_id: int = 0, **options: Any) -> Backend:
    """Open a backend: 'cpu' (options dtype, threads, exact), 'gpu' or its emulation 'emu'.

    All take the option `precision`: fp32 or bf16, and GPUs with tensor cores also tf32.

    Raises:
        DeviceError: the name is unknown, or the backend cannot run on this machine.
    """
    if name == "cpu":
        return _cpu(device_id, **options)
    if name in ("gpu", "emu"):
        return _cuda(name, device_id, **options)
    raise DeviceError(f"backend '{name}' is unknown; expected one of cpu, gpu, emu; check the name")
