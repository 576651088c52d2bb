"""The ops of a backend: one protocol per group, with the contract of each op.

Common to all ops: arrays belong to this backend, are C-contiguous, and have the backend's dtype
unless stated otherwise. `Array` is opaque to layers. Outputs are overwritten unless stated to
accumulate. Results have the same bits from run to run and do not depend on the number of threads.
Where a contract names (outer, channels, inner), an array is read as that 3-D shape.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.abilities import DeviceCapacity as DeviceCapacity
from runtime.backend.abilities import InputBatch as InputBatch
from runtime.backend.abilities import LayerKernels as LayerKernels
from runtime.backend.arrays import Array as Array
from runtime.backend.arrays import ConvPlan as ConvPlan
from runtime.backend.arrays import Draw as Draw
from runtime.backend.arrays import Epilogue as Epilogue
from runtime.backend.arrays import HostArray as HostArray
from runtime.backend.arrays import Layout as Layout
from runtime.backend.pointwise import Function as Function
from runtime.backend.pointwise import FunctionKind as FunctionKind
from runtime.backend.pointwise import PointwiseOps as PointwiseOps
from runtime.backend.recording import Recorder
from runtime.process.process_lock import ProcessLock


class MemoryOps(Protocol):
    """Allocations, copies and fills."""

    def empty(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Allocate an array of unspecified contents. Shapes: (count,). Raises DeviceError."""

    def view(self, array: Array, offset: int, shape: tuple[int, ...]) -> Array:
        """A view from element `offset` on. Shapes: array (n,), the result `shape`."""

    def upload(self, host: HostArray, device: Array) -> None:
        """Copy host to device. Shapes: any, of the same count and dtype."""

    def download(self, device: Array, host: HostArray) -> None:
        """Copy device to host, and wait. Shapes: any, of the same count and dtype."""

    def copy(self, src: Array, dst: Array) -> None:
        """dst = src. Shapes: any, of the same count."""

    def copy_2d(
        self,
        src: Array,
        dst: Array,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        """Copy `rows` runs of `cols` elements; `*_at` is (offset, stride). Shapes: any."""

    def fill(self, x: Array, value: float) -> None:
        """x = value. Shapes: any."""

    def synchronize(self) -> None:
        """Wait until all earlier ops are complete."""


class VectorOps(Protocol):
    """Element-wise operations and sums. Shapes: any, of the same count."""

    def axpy(self, alpha: float, x: Array, y: Array) -> None:
        """y += alpha * x."""

    def scal(self, alpha: float, x: Array) -> None:
        """x *= alpha."""

    def sub(self, x: Array, y: Array, out: Array) -> None:
        """out = x - y."""

    def asum(self, x: Array) -> float:
        """Sum of absolute values, in a fixed order. Waits for the device."""

    def sumsq(self, x: Array) -> float:
        """Sum of squares, in a fixed order. Waits for the device."""

    def dot(self, x: Array, y: Array) -> float:
        """Inner product, summed in a fixed order. Waits for the device."""

    def sgd_update(
        self, w: Array, dw: Array, history: Array, lr: float, momentum: float, decay: float
    ) -> None:
        """history = momentum*history + lr*(dw + decay*w); w -= history."""


class ProductOps(Protocol):
    """Matrix products and the bias."""

    def gemm(
        self, trans_a: bool, trans_b: bool, alpha: float, a: Array, b: Array, beta: float, c: Array
    ) -> None:
        """c = alpha * op(a) op(b) + beta * c.

        Shapes: op(a) (M,K), op(b) (K,N), c (M,N); 2-D as given, before `op`.
        """

    def bias_forward(self, layout: Layout, bias: Array, y: Array) -> None:
        """y += bias along channels. Shapes: bias (channels,)."""

    def bias_backward(self, layout: Layout, dy: Array, db: Array) -> None:
        """db += sum of dy over outer and inner: accumulates. Shapes: db (channels,)."""


class ConvPasses(Protocol):
    """The passes of a convolution, by one algorithm or by the algorithm of the plan.

    `weight_version` changes whenever the weights may have changed: transformed filters may be
    reused while the version is the same, and not at all if it is None. Shapes: see ConvGeometry.
    """

    def forward(
        self,
        plan: ConvPlan,
        x: Array,
        weight: Array,
        epilogue: Epilogue,
        y: Array,
        weight_version: int | None,
    ) -> None:
        """y = epilogue(conv(x, weight))."""

    def backward_data(
        self, plan: ConvPlan, dy: Array, weight: Array, dx: Array, weight_version: int | None
    ) -> None:
        """dx = the gradient of the input."""

    def backward_weight(self, plan: ConvPlan, x: Array, dy: Array, dw: Array) -> None:
        """dw += the gradient of the weights: accumulates."""


class ConvOps(ConvPasses, Protocol):
    """Convolution."""

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        """Choose algorithm and workspace for a geometry; deterministic."""


class NeuronOps(Protocol):
    """ReLU and dropout; y may be x, and dx may be dy. Shapes: any, the same for all arrays."""

    def relu_forward(self, x: Array, y: Array, negative_slope: float) -> None:
        """y = x where x > 0, else negative_slope * x; a NaN stays a NaN."""

    def relu_backward(self, x: Array, dy: Array, dx: Array, negative_slope: float) -> None:
        """dx = dy where x > 0, else negative_slope * dy (so 0 at 0). x may be the output."""

    def dropout_forward(self, x: Array, y: Array, mask: Array, ratio: float, draw: Draw) -> None:
        """Keep an element with probability 1 - ratio and scale it by 1 / (1 - ratio).

        Element j of sample n uses word j of that sample's stream; it is kept when uniform >= ratio.

        Shapes: x, y, mask (N, ...); mask uint8, 1 where kept.
        """

    def dropout_backward(self, dy: Array, mask: Array, dx: Array, ratio: float) -> None:
        """dx = dy * mask / (1 - ratio)."""


class PoolOps(Protocol):
    """Pooling; dx is overwritten. Shapes: x, dx (N,C,H,W); y, dy (N,C,P,Q)."""

    def max_forward(self, geom: PoolGeometry, x: Array, y: Array, mask: Array) -> None:
        """Max over each window without its padding; the first maximum in row-major order wins.

        Shapes: mask (N,C,P,Q) int32, value h*W+w in its plane, -1 for a window without a number.
        """

    def max_backward(self, geom: PoolGeometry, dy: Array, mask: Array, dx: Array) -> None:
        """dx[mask] += dy, from zero, in the order of the outputs."""

    def ave_forward(self, geom: PoolGeometry, x: Array, y: Array) -> None:
        """Mean over each window clipped to the padded input; padding counts as zeros."""

    def ave_backward(self, geom: PoolGeometry, dy: Array, dx: Array) -> None:
        """Spread dy over its window by the divisor of the forward pass."""


class LRNOps(Protocol):
    """Local response normalisation across channels. Shapes: (N,C,H,W)."""

    def forward(self, geom: LRNGeometry, x: Array, scale: Array, y: Array) -> None:
        """scale and y as defined by LRNGeometry; both overwritten."""

    def backward(
        self, geom: LRNGeometry, x: Array, y: Array, scale: Array, dy: Array, dx: Array
    ) -> None:
        """dx = dy * scale^-beta - 2 alpha beta / size * x * sum over the window of dy*y/scale."""


class SoftmaxOps(Protocol):
    """Soft-max, its loss, and accuracy.

    Shapes: x, y, prob, dx, dy (outer,channels,inner); label (outer*inner,); loss, stats, out (1,).
    """

    def forward(self, layout: Layout, x: Array, y: Array) -> None:
        """y = exp(x - max) / sum along channels; y may be x."""

    def backward(self, layout: Layout, y: Array, dy: Array, dx: Array) -> None:
        """dx = (dy - sum(dy * y)) * y; dx may be dy."""

    def loss_forward(
        self,
        layout: Layout,
        prob: Array,
        label: Array,
        ignore_label: int | None,
        normalizer: float | None,
        loss: Array,
        stats: Array,
    ) -> None:
        """loss[0] = -sum log max(prob[label], FLT_MIN) / n over labels not ignored.

        stats[0] = n: `normalizer` or, if None, the number of labels not ignored, at least 1.
        Labels are integers below `channels`, which the layer has checked.
        """

    def loss_backward(
        self,
        layout: Layout,
        prob: Array,
        label: Array,
        ignore_label: int | None,
        loss_weight: float,
        stats: Array,
        dx: Array,
    ) -> None:
        """dx = (prob - onehot(label)) * loss_weight / stats[0]; 0 where ignored."""

    def accuracy(
        self,
        layout: Layout,
        x: Array,
        label: Array,
        ignore_label: int | None,
        top_k: int,
        out: Array,
    ) -> None:
        """out[0] = fraction of labels whose score is among the top_k; a tie counts as a miss."""


class Backend(Protocol):
    """One device: groups of ops, properties of its results, and optional abilities."""

    name: str
    dtype: np.dtype[Any]

    memory: MemoryOps
    vectors: VectorOps
    products: ProductOps
    conv: ConvOps
    neurons: NeuronOps
    pointwise: PointwiseOps
    pool: PoolOps
    lrn: LRNOps
    softmax: SoftmaxOps

    shares_host_memory: bool
    """Device arrays are NumPy arrays, so SyncedMemory has one copy."""
    rows_independent: bool
    """`products.gemm` computes a row of c with the same bits for any set of other rows."""
    folds: bool
    """Whether layers may be folded into the filters before them, with other rounding errors."""
    precision: str
    """The format of the operands of convolutions: fp32, tf32 or bf16; see precision.md."""

    lock: ProcessLock | None
    """Held by a net while it runs; None if threads may call the backend at any time."""
    recorder: Recorder | None
    """Records ops and replays them; None if ops always run one by one."""
    input_batch: InputBatch
    input_as_bytes: bool
    """Whether `input_batch` is faster with bytes and offsets than with floats."""
    device_memory: DeviceCapacity | None
    """None if arrays are in the host's memory."""
    kernels: LayerKernels | None
    """Launches kernels of layers; None if layers without ops compute on the host."""

    @property
    def launches(self) -> int | None:
        """How many kernels, fills and copies were launched; None if ops are not launched."""
