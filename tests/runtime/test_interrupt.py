"""Ctrl-C in the middle of a pass: the net can be used afterwards and gives the same bytes."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.net import Net

RUNTIME = str(Path(__file__).parents[2] / "runtime")
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 9, 9] } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 } }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 } }
layer { name: "norm" type: "LRN" bottom: "conv3" top: "norm" lrn_param { alpha: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 8 } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SHAPES = ((2, 3, 9, 9), (1, 3, 12, 11))


class Interrupt(KeyboardInterrupt):
    """What the trace raises."""


def interrupted(line: int, run: Callable[[], None]) -> bool:
    """Run with an interrupt at the n-th line of the package; False where there are fewer."""
    count = 0

    def each_line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == line:
                sys.settrace(None)
                raise Interrupt
        return each_line

    def each_call(frame: FrameType, event: str, arg: Any) -> Any:
        return each_line if frame.f_code.co_filename.startswith(RUNTIME) else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        run()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


class Passes:
    """Passes of one net over batches of two shapes."""

    def __init__(self, net: Net, phase: int) -> None:
        self.net, self.phase = net, phase
        self.images = np.random.default_rng(0).standard_normal((2, 3, 12, 12), np.float32)

    def run(self, kind: int) -> None:
        net, (n, c, h, w) = self.net, SHAPES[kind]
        net.context.pass_number = 0
        net.blobs["data"].reshape(SHAPES[kind])
        net.blobs["label"].reshape((n,))
        net.blobs["data"].data.mutable_host()[...] = self.images[:n, :c, :h, :w]
        net.blobs["label"].data.mutable_host()[...] = 1
        net.forward()
        if self.phase == proto.TRAIN:
            net.clear_param_diffs()
            net.backward()

    def state(self) -> bytes:
        arrays = [blob.data.host() for blob in self.net.blobs.values()]
        if self.phase == proto.TRAIN:
            arrays += [blob.diff.host() for blob in self.net.params.learnable]
        return b"".join(array.tobytes() for array in arrays)


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Enable garbage collection again after a test that disables it."""
    yield
    gc.enable()


def check_interrupts(native: bool, phase: int, step: int) -> None:
    param = text.parse(NET, proto.NetParameter)
    with Net(param, phase, create_backend("cpu", native=native)) as net:
        rng = np.random.default_rng(1)
        for blob in net.params.learnable:
            blob.data.mutable_host()[...] = rng.standard_normal(blob.shape)
        passes, wanted = Passes(net, phase), {}
        for kind in (0, 1, 0, 1):
            passes.run(kind)
            assert wanted.setdefault(kind, passes.state()) == passes.state()
        # An interrupt within a __del__ of other tests' objects would be ignored.
        gc.collect()
        gc.disable()
        kind, line = 0, 1
        while interrupted(line, functools.partial(passes.run, kind)):
            # The last has the shape that the next one does not have.
            for after in (kind, 1 - kind, kind):
                passes.run(after)
                assert passes.state() == wanted[after], (line, after)
            kind, line = 1 - kind, line + step
        assert line > 900


@pytest.mark.parametrize("phase", [proto.TRAIN, proto.TEST], ids=["train", "test"])
def test_a_net_is_usable_after_an_interrupt_at_any_line(phase: int) -> None:
    check_interrupts(True, phase, 97)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [proto.TRAIN, proto.TEST], ids=["train", "test"])
@pytest.mark.parametrize(("native", "step"), [(True, 1), (False, 11)], ids=["native", "numpy"])
def test_a_net_is_usable_after_an_interrupt_at_every_line(
    phase: int, native: bool, step: int
) -> None:
    check_interrupts(native, phase, step)


def test_sigint_ends_a_long_pass_after_the_kernel_at_work() -> None:
    """The signal comes while kernels run; Python raises as soon as the one at work returns."""
    convs = "".join(
        f'layer {{ name: "c{i}" type: "Convolution" bottom: "{f"c{i - 1}" if i else "data"}" '
        f'top: "c{i}" convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 '
        'weight_filler { type: "xavier" } } }'
        for i in range(40)
    )
    data = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: %s } } }'
    param = text.parse(data % "[1, 16, 64, 64]" + convs, proto.NetParameter)
    with Net(param, proto.TEST, create_backend("cpu")) as net:
        net.blobs["data"].data.mutable_host()[...] = 1
        net.forward()
        wanted = net.blobs["c39"].data.host().tobytes()
        begun: list[int] = []
        net.before_forward.append(begun.append)

        def forward_until_interrupted() -> None:
            timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            while True:
                begun.clear()
                over = not timer.is_alive()
                # Passes may be shorter than the timer.
                net.forward()
                assert not over, "a whole pass after the signal"

        with pytest.raises(KeyboardInterrupt):
            forward_until_interrupted()
        net.before_forward.clear()
        net.forward()
        assert net.blobs["c39"].data.host().tobytes() == wanted
