"""Soft-max, its loss, and accuracy."""

from __future__ import annotations

import numpy as np

from runtime.backend.base import HostArray, Layout, SoftmaxOps
from runtime.backend.cpu.lanes import Lane, Runner

_GRAIN = 1 << 16
_FLT_MIN = float(np.finfo(np.float32).tiny)


def _rows(layout: Layout, x: HostArray) -> HostArray:
    return x.reshape(layout.outer, layout.channels, layout.inner)


class NumpySoftmax(SoftmaxOps):
    """SoftmaxOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def forward(self, layout: Layout, x: HostArray, y: HostArray) -> None:
        scores, prob = _rows(layout, x), _rows(layout, y)
        if not scores.size:
            return

        def task(lane: Lane, start: int, stop: int) -> None:
            part = prob[start:stop]
            np.subtract(scores[start:stop], scores[start:stop].max(axis=1, keepdims=True), out=part)
            np.exp(part, out=part)
            part /= part.sum(axis=1, keepdims=True)

        self._runner.run(task, layout.outer, _outer_grain(layout))

    def backward(self, layout: Layout, y: HostArray, dy: HostArray, dx: HostArray) -> None:
        prob, top, bottom = (_rows(layout, a) for a in (y, dy, dx))

        def task(lane: Lane, start: int, stop: int) -> None:
            part = slice(start, stop)
            inner_product = (top[part] * prob[part]).sum(axis=1, keepdims=True)
            np.subtract(top[part], inner_product, out=bottom[part])
            bottom[part] *= prob[part]

        self._runner.run(task, layout.outer, _outer_grain(layout))

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
        index, counted = labels(layout, label, ignore_label)
        chosen = np.take_along_axis(_rows(layout, prob), index[:, None, :], axis=1)[:, 0]
        # NaN stays NaN, so that divergence is visible in the loss.
        with np.errstate(all="ignore"):
            logs = np.log(np.maximum(chosen, _FLT_MIN), dtype=np.float64)
        count = float(max(1, int(counted.sum()))) if normalizer is None else normalizer
        stats.reshape(-1)[0] = count
        loss.reshape(-1)[0] = -logs[counted].sum() / count

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
        bottom = _rows(layout, dx)
        np.copyto(bottom, _rows(layout, prob))
        outer, inner = np.nonzero(counted)
        bottom[outer, index[outer, inner], inner] -= 1.0
        bottom *= loss_weight / float(stats.reshape(-1)[0])
        if not counted.all():
            outer, inner = np.nonzero(~counted)
            bottom[outer, :, inner] = 0.0

    def accuracy(
        self,
        layout: Layout,
        x: HostArray,
        label: HostArray,
        ignore_label: int | None,
        top_k: int,
        out: HostArray,
    ) -> None:
        index, counted = labels(layout, label, ignore_label)
        scores = _rows(layout, x)
        chosen = np.take_along_axis(scores, index[:, None, :], axis=1)
        # The count includes the label's own score; comparisons with NaN are false.
        not_below = np.count_nonzero(scores >= chosen, axis=1)
        right = np.count_nonzero((not_below <= top_k) & counted)
        total = np.count_nonzero(counted)
        out.reshape(-1)[0] = right / total if total else 0.0


def _outer_grain(layout: Layout) -> int:
    return max(1, _GRAIN // max(1, layout.channels * layout.inner))


def labels(
    layout: Layout, label: HostArray, ignore_label: int | None
) -> tuple[HostArray, HostArray]:
    """Integer labels, 0 if ignored, and whether each is counted.

    Shapes: label (outer*inner,); results (outer, inner).
    """
    index = label.reshape(layout.outer, layout.inner).astype(np.int64)
    if ignore_label is None:
        return index, np.ones(index.shape, np.bool_)
    counted = index != ignore_label
    return np.where(counted, index, 0), counted
