"""The requirements of a GPU backend, each checked separately: driver, GPU, toolkit, PyCUDA."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cuda_kernels.build import find_nvcc
from prototxt_gen.errors import VerydeepError

_LIBRARY = "libcuda.so.1"
_NO_DEVICE = 100
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"

Load = Callable[[str], Any]


@dataclass(frozen=True)
class Requirement:
    """A requirement, and whether it is available."""

    name: str
    available: bool
    detail: str
    """Its version or number, or the reason why it is unavailable."""
    advice: str = ""

    def __str__(self) -> str:
        """One line for the user."""
        if self.available:
            return f"{self.name}: {self.detail}"
        return f"{self.name}: missing ({self.detail}); {self.advice}"


def gpu_requirements(load: Load = ctypes.CDLL, pci: Path = _PCI) -> dict[str, Requirement]:
    """Check the requirements; the keys are 'driver', 'card', 'toolkit' and 'pycuda'."""
    driver, count = _driver(load)
    return {
        "driver": driver,
        "card": _card(count, pci),
        "toolkit": _toolkit(),
        "pycuda": _pycuda(),
    }


def _driver(load: Load) -> tuple[Requirement, int | None]:
    """The driver, and the number of GPUs that it finds; None if the driver does not work."""
    name, advice = "NVIDIA driver", "install the NVIDIA driver"
    try:
        library = load(_LIBRARY)
    except OSError as cause:
        return Requirement(name, False, f"{_LIBRARY} cannot be loaded: {cause}", advice), None
    status = library.cuInit(0)
    if status not in (0, _NO_DEVICE):
        detail = f"cuInit failed with error {status}"
        return Requirement(name, False, detail, "reinstall the driver, and restart"), None
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    if status == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    supported = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Requirement(name, True, f"supports CUDA {supported}"), count.value


def _card(count: int | None, pci: Path) -> Requirement:
    name = "NVIDIA GPU"
    if count:
        return Requirement(name, True, f"{count} found by the driver")
    cards = _pci_cards(pci)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count is None:
        if cards:
            return Requirement(name, True, f"{cards} on the PCI bus")
        return Requirement(name, False, "none on the PCI bus", "add a GPU, or use the CPU")
    if visible is not None:
        detail = f"the driver finds none, with CUDA_VISIBLE_DEVICES={visible!r}"
        return Requirement(name, False, detail, "change or unset the variable")
    if cards:
        detail = f"{cards} on the PCI bus, of which the driver finds none"
        return Requirement(name, False, detail, "see nvidia-smi, or use the CPU")
    return Requirement(name, False, "the driver finds none", "add a GPU, or use the CPU")


def _pci_cards(folder: Path) -> int:
    """The number of NVIDIA display controllers on the PCI bus."""
    cards = 0
    with contextlib.suppress(OSError):
        for device in folder.iterdir():
            with contextlib.suppress(OSError):
                vendor = (device / "vendor").read_text().strip()
                kind = (device / "class").read_text().strip()
                cards += vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASS)
    return cards


def _toolkit() -> Requirement:
    name, advice = "CUDA toolkit", "install it, and put its nvcc on PATH"
    try:
        nvcc = find_nvcc()
    except VerydeepError as error:
        reason = str(error) if "nvcc on PATH nor" not in str(error) else "no nvcc on PATH"
        return Requirement(name, False, reason, advice)
    return Requirement(name, True, f"nvcc {nvcc.version} at {nvcc.path}")


def _pycuda() -> Requirement:
    name, advice = "PyCUDA", "pip install 'verydeep[cuda]', which needs the CUDA toolkit"
    try:
        missing = importlib.util.find_spec("pycuda") is None
    except (ImportError, ValueError):
        missing = True
    if missing:
        return Requirement(name, False, "it is not installed", advice)
    try:
        return Requirement(name, True, f"version {metadata.version('pycuda')}")
    except metadata.PackageNotFoundError:
        return Requirement(name, True, "installed")
