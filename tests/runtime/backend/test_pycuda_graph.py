"""The driver library's errors of graphs, in sentences."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.pycuda_resources import GraphLibrary


def library(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> GraphLibrary:
    found = SimpleNamespace(**functions)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    return GraphLibrary()


def test_an_old_driver_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError) as caught:
        library(monkeypatch).begin(0)
    assert str(caught.value) == (
        "gpu: the driver library has no cuStreamBeginCapture_v2; expected CUDA 11.4 or newer for "
        "captured launches; update the NVIDIA driver, or use --launch-by-launch"
    )


def test_a_refusal_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(status: int, text: Any) -> None:
        text._obj.value = b"operation not permitted"

    made = library(monkeypatch, cuGraphLaunch=lambda *_: 800, cuGetErrorString=words)
    with pytest.raises(DeviceError) as caught:
        made.launch(0, 0)
    assert str(caught.value) == (
        "gpu: cuGraphLaunch failed: operation not permitted; expected work that can be captured: "
        "launches, copies on the device and fills; do other work before, or use --launch-by-launch"
    )
