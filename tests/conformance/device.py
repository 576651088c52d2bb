"""A backend as the conformance table sees it: arrays go in, arrays come out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backend.base import Array, Backend
from runtime.backend.registry import create_backend

Host = npt.NDArray[Any]

# Names of the table beyond the registry's: the same device with other settings.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu64": ("cpu", {"dtype": np.float64}),
    "numpy": ("cpu", {"native": False}),
    "cpu-exact": ("cpu", {"exact": True}),
    "cpu-bf16": ("cpu", {"precision": "bf16"}),
    "numpy-bf16": ("cpu", {"precision": "bf16", "native": False}),
    "cpu-1": ("cpu", {"threads": 1}),
    "emu-exact": ("emu", {"exact": True}),
    "gpu-exact": ("gpu", {"exact": True}),
}


def default_backends() -> list[str]:
    """The CPU's ways; and the GPU's kernels on the emulator, where there is a g++ to build them."""
    emulated = ["emu", "emu-exact"] if shutil.which("g++") else []
    return ["cpu", "numpy", "cpu64", *emulated]


class Device:
    """Runs an op on copies of host arrays, and brings the results back."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.dtype = backend.dtype

    def cast(self, *arrays: npt.ArrayLike) -> list[Host]:
        """Round to the backend's dtype, so that the oracle starts from the very same numbers."""
        return [np.ascontiguousarray(a, self.dtype) for a in arrays]

    def up(self, host: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
        """A new device array with these contents and this shape."""
        array = np.ascontiguousarray(host, dtype or self.dtype)
        flat = self.backend.memory.empty(array.size, array.dtype)
        self.backend.memory.upload(array.reshape(-1), flat)
        return self.backend.memory.view(flat, 0, array.shape)

    def junk(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """An array full of what an op must overwrite."""
        kind = np.dtype(dtype or self.dtype)
        return self.up(np.full(shape, np.nan if kind.kind == "f" else 77), kind)

    def down(
        self, array: Array, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None
    ) -> Host:
        host = np.empty(shape, dtype or self.dtype)
        self.backend.memory.download(array, host)
        return host

    def twice(self, op: Callable[[], list[Host]]) -> list[Host]:
        """Run an op again: the bits must be the same."""
        first, second = op(), op()
        for a, b in zip(first, second, strict=True):
            assert a.tobytes() == b.tobytes(), "a second run gave other bits"
        return first


def open_device(name: str) -> Device:
    base, options = VARIANTS.get(name, (name, {}))
    return Device(create_backend(base, **options))
