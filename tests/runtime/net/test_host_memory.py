"""Nets that the host has too little memory for."""

from __future__ import annotations

import errno
import mmap
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import DeviceError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.net.host_memory import naming_memory
from tests.runtime.small_net import SMALL

HUGE = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 8, 4, 4] } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 8 kernel_size: 1 pad: 8000 weight_filler { value: 1 } } }
"""


def refuse(*arguments: Any, **options: Any) -> Any:
    raise MemoryError("Unable to allocate 9 TiB")


def test_passes_without_memory_are_device_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    param = text.parse(SMALL, proto.NetParameter)
    for phase, run in ((proto.TEST, "forward"), (proto.TRAIN, "backward")):
        with Net(param, phase, create_backend("cpu")) as net:
            if run == "backward":
                net.forward()
                net.layer_need_backward = [True] * len(net.layers)
            with monkeypatch.context() as patch:
                patch.setattr(np, "zeros", refuse)
                with pytest.raises(DeviceError, match=r"net 'small': too little host memory: Unab"):
                    getattr(net, run)()
            net.forward()


def test_weights_without_memory_are_device_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    param = text.parse(HUGE, proto.NetParameter)
    backend, context = create_backend("cpu"), RunContext()
    monkeypatch.setattr(np, "zeros", refuse)
    with pytest.raises(DeviceError, match="net '': too little host memory: Unable to allocate 9"):
        Net(param, proto.TEST, backend, context)


def test_maps_that_the_system_does_not_grant() -> None:
    with (
        pytest.raises(DeviceError, match=r"here: too little host memory: .*Cannot allocate"),
        naming_memory("here"),
    ):
        mmap.mmap(-1, 1 << 60)
    with pytest.raises(PermissionError), naming_memory("here"):
        raise PermissionError(errno.EACCES, "no")
