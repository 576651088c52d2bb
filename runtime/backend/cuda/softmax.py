"""Soft-max, its loss, and accuracy."""

from __future__ import annotations

from runtime.backend.base import Layout, SoftmaxOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import Arguments, Launcher, blocks, expect_size

_WARP = 32


class CudaSoftmax(SoftmaxOps):
    """SoftmaxOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def forward(self, layout: Layout, x: DeviceArray, y: DeviceArray) -> None:
        _expect_rows("softmax_forward", layout, x, y)
        self._per_place(layout, "forward", (x, y))

    def backward(self, layout: Layout, y: DeviceArray, dy: DeviceArray, dx: DeviceArray) -> None:
        _expect_rows("softmax_backward", layout, y, dy, dx)
        self._per_place(layout, "backward", (y, dy, dx))

    def _per_place(self, layout: Layout, which: str, arrays: tuple[DeviceArray, ...]) -> None:
        """A thread computes a position if neighbouring positions are contiguous, else a warp."""
        places = _places(layout)
        args: Arguments = (*arrays, places, layout.channels, layout.inner)
        if layout.inner >= _WARP:
            self._launcher.elementwise("softmax", f"softmax_{which}", places, args, 1)
        else:
            threads = places * _WARP
            self._launcher.elementwise("softmax", f"softmax_warp_{which}", threads, args, 1)

    def loss_forward(
        self,
        layout: Layout,
        prob: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        normalizer: float | None,
        loss: DeviceArray,
        stats: DeviceArray,
    ) -> None:
        _expect_rows("softmax_loss_forward", layout, prob)
        expect_size("softmax_loss_forward: label", label, (_places(layout),))
        pieces = blocks(_places(layout), self._block)
        (partial,) = self._launcher.scratch(2 * pieces)
        args = (*_labels(prob, label, partial, layout), *_ignored(ignore_label))
        self._launcher.run("softmax_loss", "softmax_loss_pieces", pieces, args)
        finish = (partial, loss, stats, pieces, 0.0 if normalizer is None else normalizer)
        self._launcher.run("softmax_loss", "softmax_loss_finish", 1, finish)

    def loss_backward(
        self,
        layout: Layout,
        prob: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        loss_weight: float,
        stats: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        _expect_rows("softmax_loss_backward", layout, prob, dx)
        expect_size("softmax_loss_backward: label", label, (_places(layout),))
        args = (
            *(prob, label, stats, dx, dx.size, layout.channels, layout.inner),
            *(*_ignored(ignore_label), loss_weight),
        )
        self._launcher.elementwise("softmax_loss", "softmax_loss_backward", dx.size, args, 1)

    def accuracy(
        self,
        layout: Layout,
        x: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        top_k: int,
        out: DeviceArray,
    ) -> None:
        _expect_rows("accuracy_forward", layout, x)
        expect_size("accuracy_forward: label", label, (_places(layout),))
        pieces = blocks(_places(layout), self._block // _WARP)
        (partial,) = self._launcher.scratch(2 * pieces)
        args = (*_labels(x, label, partial, layout), *_ignored(ignore_label), top_k)
        self._launcher.run("softmax_loss", "accuracy_pieces", pieces, args)
        self._launcher.run("softmax_loss", "accuracy_finish", 1, (partial, out, pieces))

    @property
    def _block(self) -> int:
        return self._launcher.constant("softmax_loss", "BLOCK")


def _places(layout: Layout) -> int:
    return layout.outer * layout.inner


def _labels(
    scores: DeviceArray, label: DeviceArray, partial: DeviceArray, layout: Layout
) -> tuple[DeviceArray | int, ...]:
    return scores, label, partial, _places(layout), layout.channels, layout.inner


def _ignored(label: int | None) -> tuple[int, int]:
    """Whether a label is ignored (0 or 1), and that label."""
    return (0, 0) if label is None else (1, label)


def _expect_rows(op: str, layout: Layout, *arrays: DeviceArray) -> None:
    for array in arrays:
        expect_size(op, array, (layout.outer, layout.channels, layout.inner))
