"""Convolution as im2col and a matrix product: any geometry, every product in plain order."""

from __future__ import annotations

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, HostArray
from runtime.backend.cpu.conv_pieces import Piece, Window, cut, gather, row_blocks
from runtime.backend.cpu.lanes import Lane, Lanes, Runner

# Elements of the column matrix of one piece: half a core's second-level cache in float32.
_COLUMNS = 1 << 17
# A product this narrow spends its time repacking the weights.
_NARROW = 512
# OpenBLAS multiplies matrices of up to 10^6 multiply-adds without repacking them first.
_SMALL_PRODUCT = 1_000_000
# With fewer pieces than this, lanes share the products inside a piece instead.
_FEW = 4
# Weight gradients are summed in so many partial sums at most.
_PARTS = 8


def pieces_for(n: int, rows: int, q: int, depth: int, outputs: int) -> list[Piece]:
    """Cut one pass whose column matrix has `depth` rows and n * rows * q columns."""
    limit = max(_COLUMNS // depth, _NARROW)
    small = _SMALL_PRODUCT // (depth * outputs)
    return cut(n, rows, q, small if _NARROW <= small < limit else limit)


def workspace_bytes(geom: ConvGeometry, itemsize: int) -> int:
    """Scratch of one lane in the forward pass: the column matrix and the product."""
    depth = geom.c * geom.kernel[0] * geom.kernel[1]
    piece = pieces_for(geom.n, geom.p, geom.q, depth, geom.k)[0]
    return (depth + geom.k) * piece.images * piece.rows * geom.q * itemsize


class Im2colConvolution:
    """See the section "Convolution" of Backend. Caffe: base_conv_layer.cpp."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        bias: HostArray | None,
        y: HostArray,
        weight_version: int | None,
        relu: bool,
    ) -> None:
        """See Backend.conv_forward."""
        geom = plan.geometry
        matrix = weight.reshape(geom.group, geom.k // geom.group, -1)
        column = None if bias is None else bias.reshape(-1, 1, 1, 1)
        self._correlate(geom, Window.forward(geom), x, matrix, column, y, relu)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        """See Backend.conv_backward_data."""
        geom = plan.geometry
        if geom.stride != (1, 1):
            self._scatter(geom, dy, weight, dx)
            return
        g, (r, s) = geom.group, geom.kernel
        grouped = weight.reshape(g, geom.k // g, geom.c // g, r, s)[..., ::-1, ::-1]
        matrix = np.ascontiguousarray(grouped.swapaxes(1, 2)).reshape(g, geom.c // g, -1)
        self._correlate(geom, Window.backward(geom), dy, matrix, None, dx, False)

    def _correlate(
        self,
        geom: ConvGeometry,
        window: Window,
        src: HostArray,
        matrix: HostArray,
        bias: HostArray | None,
        dst: HostArray,
        relu: bool,
    ) -> None:
        """Slide a window over src. Shapes: matrix (group, outputs / group, inputs / group * R*S)."""
        n, outputs, rows, q = dst.shape
        groups, per_group, depth = matrix.shape
        pieces = pieces_for(n, rows, q, groups * depth, per_group)

        def compute(lane: Lane, runner: Runner, piece: Piece) -> None:
            columns = gather(lane, src, window, piece, q).reshape(groups, depth, -1)
            shape = (groups, per_group, columns.shape[2])
            product = lane.scratch("conv.product", shape, src.dtype)
            for group in range(groups):
                row_blocks(runner, matrix[group], columns[group], product[group])
            result = product.reshape(outputs, piece.images, piece.rows, q)
            target = dst[piece.n0 : piece.n1, :, piece.p0 : piece.p1].swapaxes(0, 1)
            if bias is not None:
                result += bias
            if relu:
                np.maximum(result, 0.0, out=result)
            np.copyto(target, result)

        self._over(pieces, compute)

    def _over(self, pieces: list[Piece], compute) -> None:  # type: ignore[no-untyped-def]
        """Deal pieces to lanes; where they are few, let lanes share each of them."""
        if len(pieces) < _FEW:
            for piece in pieces:
                compute(self._lanes.first, self._lanes, piece)
            return

        def task(lane: Lane, start: int, stop: int) -> None:
            compute(lane, lane, pieces[start])

        self._lanes.run(task, len(pieces))

    def _scatter(
        self, geom: ConvGeometry, dy: HostArray, weight: HostArray, dx: HostArray
    ) -> None:
        """Gradient of the input at any stride: W^T dy, added where its columns came from."""
        g, (r, s) = geom.group, geom.kernel
        per_group = geom.c // g
        plane = r * s * geom.p * geom.q
        block = max(1, min(per_group, _COLUMNS // plane))
        images = max(1, min(geom.n, _COLUMNS // (plane * block)))
        blocks = -(-per_group // block)
        matrix = weight.reshape(g, geom.k // g, per_group, r * s)

        def task(lane: Lane, start: int, stop: int) -> None:
            batch, part = divmod(start, g * blocks)
            group, at = divmod(part, blocks)
            low, high = at * block, min(per_group, (at + 1) * block)
            image = slice(batch * images, (batch + 1) * images)
            top = dy[image].reshape(-1, g, geom.k // g, geom.p * geom.q)[:, group]
            filters = matrix[group, :, low:high].reshape(geom.k // g, -1)
            columns = lane.scratch(
                "conv.columns", (len(top), filters.shape[1], geom.p * geom.q), dy.dtype
            )
            np.matmul(filters.T, top, out=columns)
            _fold(
                geom,
                columns.reshape(len(top), high - low, r, s, geom.p, geom.q),
                dx[image, group * per_group + low : group * per_group + high],
                lane,
            )

        self._lanes.run(task, -(-geom.n // images) * g * blocks)

    def backward_weight(
        self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray
    ) -> None:
        """See Backend.conv_backward_weight."""
        geom = plan.geometry
        g = geom.group
        total = dw.reshape(g, geom.k // g, -1)
        depth = total.shape[2]
        pieces = pieces_for(geom.n, geom.p, geom.q, g * depth, geom.k // g)
        parts = min(_PARTS, len(pieces))
        share = -(-len(pieces) // parts)
        sums = self._lanes.first.scratch("conv.sums", (parts, *total.shape), dw.dtype)

        def add(lane: Lane, runner: Runner, piece: Piece, into: HostArray, first: bool) -> None:
            columns = gather(lane, x, Window.forward(geom), piece, geom.q).reshape(g, depth, -1)
            top = _channel_major(lane, dy, piece).reshape(g, geom.k // g, -1)
            product = into if first else lane.scratch("conv.product", into.shape, dw.dtype)
            for group in range(g):
                row_blocks(runner, top[group], columns[group].T, product[group])
            if not first:
                into += product

        def task(lane: Lane, start: int, stop: int) -> None:
            for index, piece in enumerate(pieces[start * share : stop * share]):
                add(lane, self._lanes if parts < _FEW else lane, piece, sums[start], index == 0)

        parts = -(-len(pieces) // share)
        if parts < _FEW:
            self._lanes.first.run(task, parts)
        else:
            self._lanes.run(task, parts)
        for part in sums[:parts]:
            total += part


def _channel_major(lane: Lane, src: HostArray, piece: Piece) -> HostArray:
    """A piece of (N,K,P,Q) as (K, n*P*Q), copied only where it must be."""
    part = src[piece.n0 : piece.n1, :, piece.p0 : piece.p1].swapaxes(0, 1)
    if piece.images == 1:
        return part.reshape(part.shape[0], -1)
    copied = lane.scratch("conv.top", part.shape, src.dtype)
    np.copyto(copied, part)
    return copied.reshape(part.shape[0], -1)


def _fold(geom: ConvGeometry, columns: HostArray, dx: HostArray, lane: Lane) -> None:
    """Add columns (n,C,R,S,P,Q) to the places of dx (n,C,H,W) that they were gathered from."""
    (r, s), (ph, pw), (sh, sw), (dh, dw) = geom.kernel, geom.pad, geom.stride, geom.dilation
    n, c = dx.shape[:2]
    height = max(geom.h + 2 * ph, (geom.p - 1) * sh + dh * (r - 1) + 1)
    width = max(geom.w + 2 * pw, (geom.q - 1) * sw + dw * (s - 1) + 1)
    band = lane.scratch("conv.band", (n, c, height, width), dx.dtype)
    band[...] = 0.0
    for i in range(r):
        for j in range(s):
            rows = slice(i * dh, i * dh + (geom.p - 1) * sh + 1, sh)
            cols = slice(j * dw, j * dw + (geom.q - 1) * sw + 1, sw)
            band[:, :, rows, cols] += columns[:, :, i, j]
    np.copyto(dx, band[:, :, ph : ph + geom.h, pw : pw + geom.w])
