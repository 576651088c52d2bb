"""What a GPU backend needs, each missing alone."""

from __future__ import annotations

import ctypes
import importlib.machinery
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuda_kernels.build import Nvcc
from prototxt_gen.errors import DeviceError
from runtime.backend.cuda import requirements
from runtime.backend.cuda.requirements import gpu_requirements


def library(status: int = 0, version: int = 12040, count: int = 2) -> Callable[[str], Any]:
    """A substitute for the driver's library."""

    def store(value: int) -> Callable[[Any], int]:
        def call(pointer: Any) -> int:
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = value
            return 0

        return call

    functions = {
        "cuInit": lambda flags: status,
        "cuDriverGetVersion": store(version),
        "cuDeviceGetCount": store(count),
    }
    return lambda name: types.SimpleNamespace(**functions)


def no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a toolkit and PyCUDA."""
    monkeypatch.setattr(requirements, "find_nvcc", lambda: Nvcc("/x/nvcc", "12.4", (90,)))
    pycuda = types.ModuleType("pycuda")
    pycuda.__spec__ = importlib.machinery.ModuleSpec("pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """A PCI bus with a GPU of NVIDIA, its audio device, and a display controller of another."""
    devices = (("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x1234", "0x030000"))
    for number, (vendor, kind) in enumerate(devices):
        folder = tmp_path / "bus" / str(number)
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    (tmp_path / "bus" / "other").mkdir()
    return tmp_path / "bus"


def missing(**options: Any) -> set[str]:
    found = gpu_requirements(**options)
    assert list(found) == ["driver", "card", "toolkit", "pycuda"]
    assert all(each.advice for each in found.values() if not each.available)
    return {name for name, each in found.items() if not each.available}


def test_nothing_is_missing(bus: Path) -> None:
    assert missing(load=library(), pci=bus) == set()
    found = gpu_requirements(load=library(), pci=bus)
    assert str(found["driver"]) == "NVIDIA driver: supports CUDA 12.4"
    assert str(found["card"]) == "NVIDIA GPU: 2 found by the driver"
    assert str(found["toolkit"]) == "CUDA toolkit: nvcc 12.4 at /x/nvcc"


def test_the_driver_alone(bus: Path) -> None:
    assert missing(load=no_library, pci=bus) == {"driver"}
    found = gpu_requirements(load=no_library, pci=bus)
    assert str(found["card"]) == "NVIDIA GPU: 1 on the PCI bus"
    assert "missing (libcuda.so.1 cannot be loaded: " in str(found["driver"])
    broken = gpu_requirements(load=library(status=803), pci=bus)["driver"]
    assert not broken.available and broken.detail == "cuInit failed with error 803"


@pytest.mark.parametrize("status", [0, 100])
def test_the_card_alone(
    status: int, bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = library(status=status, count=0)
    assert missing(load=load, pci=tmp_path / "none") == {"card"}
    assert "1 on the PCI bus, of which" in gpu_requirements(load=load, pci=bus)["card"].detail
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=''" in gpu_requirements(load=load, pci=bus)["card"].detail


def test_driver_and_card(tmp_path: Path) -> None:
    assert missing(load=no_library, pci=tmp_path) == {"driver", "card"}


def test_the_toolkit_alone(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Nvcc:
        raise DeviceError("there is no nvcc on PATH nor in /usr/local/cuda/bin")

    monkeypatch.setattr(requirements, "find_nvcc", none)
    assert missing(load=library(), pci=bus) == {"toolkit"}
    assert gpu_requirements(load=library(), pci=bus)["toolkit"].detail == "no nvcc on PATH"


def test_pycuda_alone(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert missing(load=library(), pci=bus) == {"pycuda"}
