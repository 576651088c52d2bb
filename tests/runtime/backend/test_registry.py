"""Backends by name, and the errors of those that are not available."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend import registry
from runtime.backend.registry import create_backend


def test_cpu_takes_options() -> None:
    backend = create_backend("cpu", dtype=np.float64, threads=2)
    assert (backend.name, backend.dtype) == ("cpu64", np.float64)


def test_there_is_one_cpu() -> None:
    with pytest.raises(DeviceError, match="backend 'cpu': there is one CPU, number 0; expected"):
        create_backend("cpu", 1)


def test_an_unknown_name() -> None:
    with pytest.raises(
        DeviceError, match="backend 'tpu' is unknown; expected one of cpu, gpu, emu"
    ):
        create_backend("tpu")


@pytest.mark.parametrize("name", ["gpu", "emu"])
def test_a_build_without_gpu_support_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_CUDA", "runtime.backend.absent")
    with pytest.raises(
        DeviceError, match=f"backend '{name}': GPU support is not part of this build; expected the"
    ):
        create_backend(name)
    assert "runtime.backend.absent" not in sys.modules


def test_a_gpu_package_is_asked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any package with `create_backend` will do: this module itself stands in for it."""
    monkeypatch.setattr(registry, "_CUDA", "tests.runtime.backend.gpu_double")
    assert create_backend("emu", 3, option=4) == ("emu", 3, {"option": 4})
