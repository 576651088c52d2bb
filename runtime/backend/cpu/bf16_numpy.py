"""Matrix products and convolution in precision bf16, in NumPy: exact and slow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import ConvOps, ConvPlan, Epilogue, HostArray, Layout
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cpu.bf16 import STEP, padded_steps, product, round_bf16
from runtime.backend.cpu.lanes import Lanes, Runner
from runtime.backend.cpu.memory import NumpyMemory
from runtime.backend.cpu.neurons import NumpyNeurons
from runtime.backend.cpu.products import NumpyProducts

ALGORITHM = "bf16"
"""The algorithm's name in a plan."""
# As in native/conv_bf16.cpp.
_FEW_CHANNELS = 16
_LARGE_WEIGHTS = 1 << 18
_MOST_PARTS = 16
_PART_STEPS = 64


class NumpyBf16Products(NumpyProducts):
    """ProductOps with the operands of `gemm` rounded; maps with a bias are rounded."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._bf16_runner = runner

    def gemm(
        self,
        trans_a: bool,
        trans_b: bool,
        alpha: float,
        a: HostArray,
        b: HostArray,
        beta: float,
        c: HostArray,
    ) -> None:
        left = padded_steps(a.T if trans_a else a, 1)
        right = padded_steps(b.T if trans_b else b, 0)
        if alpha == 1.0 and beta in (0.0, 1.0):
            if beta == 0.0:
                c[...] = 0.0
            product(self._bf16_runner, left, right, c)
            return
        sums = np.zeros_like(c)
        product(self._bf16_runner, left, right, sums)
        sums *= np.float32(alpha)
        if beta == 0.0:
            c[...] = sums
        else:
            c *= np.float32(beta)
            c += sums

    def bias_forward(self, layout: Layout, bias: HostArray, y: HostArray) -> None:
        super().bias_forward(layout, bias, y)
        y[...] = round_bf16(y)


@dataclass(frozen=True)
class Taps:
    """Along one axis: the taps of a filter, in the order of the sum, and what they read.

    Output o reads input o * stride + offsets[i] at taps[i].
    """

    taps: list[int]
    offsets: list[int]
    stride: int
    outputs: int

    def inputs(self, tap: int) -> HostArray:
        """The input of each output. Shapes: (outputs,)."""
        return np.arange(self.outputs) * self.stride + self.offsets[tap]


def _forward_taps(geom: ConvGeometry, axis: int, outputs: int) -> Taps:
    taps = list(range(geom.kernel[axis]))
    offsets = [tap * geom.dilation[axis] - geom.pad[axis] for tap in taps]
    return Taps(taps, offsets, geom.stride[axis], outputs)


def _phase_taps(geom: ConvGeometry, axis: int, phase: int, size: int) -> Taps:
    """The taps that give the gradient of inputs phase, phase + stride ..., turned."""
    stride = geom.stride[axis]
    reach = {
        tap: phase + geom.pad[axis] - tap * geom.dilation[axis]
        for tap in reversed(range(geom.kernel[axis]))
    }
    taps = [tap for tap in reach if reach[tap] % stride == 0]
    offsets = [reach[tap] // stride for tap in taps]
    return Taps(taps, offsets, 1, ceil_div(size - phase, stride))


def depth_order(channels: int, down: int, across: int) -> list[tuple[int, int, int] | None]:
    """The (channel, vertical tap, horizontal tap) of each place of a sum; None for padding.

    Blocks of 32 channels, in each the taps column by column, in each the channels. With few
    channels, the taps follow each other without padding.
    """
    taps = list(itertools.product(range(across), range(down)))
    order: list[tuple[int, int, int] | None]
    if channels <= _FEW_CHANNELS:
        order = [(c, r, s) for s, r in taps for c in range(channels)]
        return order + [None] * (-len(order) % STEP)
    order = []
    for block in range(0, channels, STEP):
        for s, r in taps:
            order += [(c, r, s) if c < channels else None for c in range(block, block + STEP)]
    return order


def weight_parts(geom: ConvGeometry) -> list[tuple[int, int]]:
    """The ranges of outputs (n, p, q) whose gradients of the weights are summed separately."""
    steps = ceil_div(geom.n * geom.p * geom.q, STEP)
    size = geom.k * (geom.c // geom.group) * geom.kernel[0] * geom.kernel[1]
    parts = 1 if size >= _LARGE_WEIGHTS else min(_MOST_PARTS, ceil_div(steps, _PART_STEPS))
    return [(steps * i // parts * STEP, steps * (i + 1) // parts * STEP) for i in range(parts)]


class NumpyBf16Convolution(ConvOps):
    """ConvOps with operands and maps rounded to bf16."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        products = NumpyProducts(lanes)
        self._empty = EmptyConvolution(NumpyMemory(lanes), products, NumpyNeurons(lanes))

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        return ConvPlan(geom, EMPTY if is_empty(geom) else ALGORITHM, 0, {})

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        if plan.algorithm == EMPTY:
            self._empty.forward(plan, x, weight, epilogue, y, weight_version)
            y[...] = round_bf16(y)
            return
        taps = (_forward_taps(geom, 0, geom.p), _forward_taps(geom, 1, geom.q))
        grouped = weight.reshape(geom.group, geom.k // geom.group, -1, *geom.kernel)
        for image in range(geom.n):
            sums = self._correlate(x[image], grouped, taps).reshape(y.shape[1:])
            if epilogue.bias is not None:
                sums += epilogue.bias.reshape(-1, 1, 1)
            if epilogue.relu:
                sums = np.where(sums < 0, np.float32(0), sums)
            y[image] = round_bf16(sums)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        if plan.algorithm == EMPTY:
            self._empty.backward_data(plan, dy, weight, dx, weight_version)
            return
        grouped = weight.reshape(geom.group, geom.k // geom.group, -1, *geom.kernel)
        turned = grouped.swapaxes(1, 2)
        (sh, sw), (h, w) = geom.stride, (geom.h, geom.w)
        phases = itertools.product(range(min(sh, h)), range(min(sw, w)))
        for (row, col), image in itertools.product(phases, range(geom.n)):
            taps = (_phase_taps(geom, 0, row, h), _phase_taps(geom, 1, col, w))
            sums = self._correlate(dy[image], turned, taps)
            shape = (geom.c, taps[0].outputs, taps[1].outputs)
            dx[image, :, row::sh, col::sw] = round_bf16(sums.reshape(shape))

    def _correlate(
        self, source: HostArray, weight: HostArray, taps: tuple[Taps, Taps]
    ) -> HostArray:
        """Shapes: source (C,H,W), weight (group, outputs, inputs, R, S), result (K, positions)."""
        groups, outputs, inputs = weight.shape[:3]
        order = depth_order(inputs, len(taps[0].taps), len(taps[1].taps))
        parts = source.reshape(groups, inputs, *source.shape[1:])
        results = []
        for filters, part in zip(weight, parts, strict=True):
            matrix = np.zeros((outputs, len(order)), np.float32)
            columns = np.zeros((len(order), taps[0].outputs * taps[1].outputs), np.float32)
            for place, entry in enumerate(order):
                if entry is not None:
                    c, r, s = entry
                    matrix[:, place] = filters[:, c, taps[0].taps[r], taps[1].taps[s]]
                    columns[place] = _read(part[c], taps[0].inputs(r), taps[1].inputs(s))
            sums = np.zeros((outputs, columns.shape[1]), np.float32)
            product(self._lanes, matrix, columns, sums)
            results.append(sums)
        return np.concatenate(results)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        if plan.algorithm == EMPTY:
            return
        geom = plan.geometry
        g = geom.group
        tops = dy.reshape(geom.n, g, geom.k // g, -1).transpose(1, 2, 0, 3)
        total = dw.reshape(g, geom.k // g, -1)
        parts = weight_parts(geom)
        for group in range(g):
            top = padded_steps(tops[group].reshape(geom.k // g, -1), 1)
            columns = padded_steps(np.stack(list(_columns(geom, x, group)), axis=1), 0)
            for first, last in parts:
                sums = total[group] if len(parts) == 1 else np.zeros_like(total[group])
                product(self._lanes, top[:, first:last], columns[first:last], sums)
                if len(parts) > 1:
                    total[group] += sums


def _columns(geom: ConvGeometry, x: HostArray, group: int) -> Iterator[HostArray]:
    """The inputs that each weight of a filter multiplies. Shapes: (n*p*q,)."""
    down, across = _forward_taps(geom, 0, geom.p), _forward_taps(geom, 1, geom.q)
    inputs = geom.c // geom.group
    for c, r, s in itertools.product(range(inputs), down.taps, across.taps):
        planes = x[:, group * inputs + c]
        yield np.concatenate([_read(plane, down.inputs(r), across.inputs(s)) for plane in planes])


def _read(plane: HostArray, rows: HostArray, cols: HostArray) -> HostArray:
    """Elements of a plane, 0 outside of it. Shapes: plane (H,W), result (rows * cols,)."""
    h, w = plane.shape
    inside = ((rows >= 0) & (rows < h))[:, None] & ((cols >= 0) & (cols < w))[None]
    values = plane[rows.clip(0, h - 1)[:, None], cols.clip(0, w - 1)[None]]
    return np.where(inside, values, np.float32(0)).reshape(-1)
