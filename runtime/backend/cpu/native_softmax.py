"""Soft-max and the gradient of its loss by the compiled kernels.

The loss and the accuracy read one score per label, in NumPy: a kernel would not be faster.
"""

from __future__ import annotations

import numpy as np

from runtime.backend.base import HostArray, Layout
from runtime.backend.cpu.lanes import Runner
from runtime.backend.cpu.native_library import NativeLibrary, elements, floats
from runtime.backend.cpu.softmax import NumpySoftmax, labels

_LABEL = np.dtype(np.int64)


class NativeSoftmax(NumpySoftmax):
    """SoftmaxOps by the compiled kernels; loss and accuracy in NumPy."""

    def __init__(self, runner: Runner, library: NativeLibrary) -> None:
        super().__init__(runner)
        self._library = library

    def forward(self, layout: Layout, x: HostArray, y: HostArray) -> None:
        count = _count(layout)
        operands = (
            floats("softmax_forward: x", x, count),
            floats("softmax_forward: y", y, count),
        )
        self._library.run("softmax_forward", *_sizes(layout), *operands)

    def backward(self, layout: Layout, y: HostArray, dy: HostArray, dx: HostArray) -> None:
        count = _count(layout)
        operands = (
            floats("softmax_backward: y", y, count),
            floats("softmax_backward: dy", dy, count),
            floats("softmax_backward: dx", dx, count),
        )
        self._library.run("softmax_backward", *_sizes(layout), *operands)

    def loss_backward(
        self,
        layout: Layout,
        prob: HostArray,
        label: HostArray,
        ignore_label: int | None,
        loss_weight: float,
        stats: HostArray,
        dx: HostArray,
    ) -> None:
        index, counted = labels(layout, label, ignore_label)
        classes = np.ascontiguousarray(np.where(counted, index, -1))
        count = _count(layout)
        operands = (
            floats("softmax_loss_backward: prob", prob, count),
            elements("softmax_loss_backward: label", classes, classes.size, _LABEL),
            floats("softmax_loss_backward: dx", dx, count),
        )
        scale = loss_weight / float(stats.reshape(-1)[0])
        self._library.run("softmax_loss_backward", *_sizes(layout), scale, *operands)

    def loss_forward(
        self,
        layout: Layout,
        prob: HostArray,
        label: HostArray,
        ignore_label: int | None,
        normalizer: float | None,
        loss: HostArray,
        stats: HostArray,
    ) -> None:
        self._library.prevent_replay()
        super().loss_forward(layout, prob, label, ignore_label, normalizer, loss, stats)

    def accuracy(
        self,
        layout: Layout,
        x: HostArray,
        label: HostArray,
        ignore_label: int | None,
        top_k: int,
        out: HostArray,
    ) -> None:
        self._library.prevent_replay()
        super().accuracy(layout, x, label, ignore_label, top_k, out)


def _sizes(layout: Layout) -> tuple[int, int, int]:
    return layout.outer, layout.channels, layout.inner


def _count(layout: Layout) -> int:
    return layout.outer * layout.channels * layout.inner
