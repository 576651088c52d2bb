"""CpuBackend: every op of the Backend protocol on the host, compiled or in numpy.

A facade: each method hands over to the op group chosen at construction, where it is written.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DeviceError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Array, ConvPlan, Draw, HostArray, Layout
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cpu import native_library
from runtime.backend.cpu.conv import ConvolutionOps
from runtime.backend.cpu.lanes import Lanes, limit_blas_threads
from runtime.backend.cpu.lrn import LRNOps
from runtime.backend.cpu.memory import MemoryOps
from runtime.backend.cpu.native_conv import NativeConvolution
from runtime.backend.cpu.native_library import NativeLibrary
from runtime.backend.cpu.native_ops import (
    NativeLRN,
    NativeNeurons,
    NativePool,
    NativeProducts,
    NativeVectors,
)
from runtime.backend.cpu.native_softmax import NativeSoftmax
from runtime.backend.cpu.neurons import NeuronOps
from runtime.backend.cpu.pool import PoolOps
from runtime.backend.cpu.products import ProductOps
from runtime.backend.cpu.softmax import SoftmaxOps
from runtime.backend.cpu.vectors import VectorOps
from runtime.process.not_copyable import NotCopyable
from runtime.process.process_lock import ProcessLock

log = logging.getLogger("verydeep.backend")


@functools.cache
def _say_once(reason: str) -> None:
    log.warning("%s", reason)


class CpuBackend(NotCopyable):
    """The host as a device.

    float64 exists for gradient checks. `exact` forces convolutions whose sums are taken term by
    term, without Winograd's transforms. `threads` are the backend's own (default: every core, or
    OMP_NUM_THREADS); numpy's BLAS is told to use one thread for the whole process, since it would
    fight with them.

    Raises:
        DeviceError: a dtype other than float32 and float64, or fewer than one thread.
    """

    shares_host_memory = True
    lock: ProcessLock | None = None

    def __init__(
        self,
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
        exact: bool = False,
        native: bool | None = None,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise DeviceError(
                f"cpu backend: dtype is {self.dtype}; expected float32 or float64; "
                "use float32 for training and float64 for gradient checks"
            )
        self.name = "cpu" if self.dtype == np.float32 else "cpu64"
        self.lanes = Lanes(threads)
        limit_blas_threads()
        self._memory = MemoryOps()
        self._empty_conv = EmptyConvolution(self)
        library = self._library(native)
        self.rows_stand_alone = library is not None
        self._choose(exact, library)

    def _library(self, native: bool | None) -> NativeLibrary | None:
        """The compiled kernels, or None where numpy is to serve."""
        if native is False or self.dtype != np.float32:
            return None
        library = native_library.load(self.lanes.threads)
        if library is None:
            reason = native_library.why_not() or "the CPU kernels cannot be used"
            if native:
                raise DeviceError(f"cpu backend: {reason}")
            _say_once(reason)
        return library

    def _choose(self, exact: bool, library: NativeLibrary | None) -> None:
        """Take every group of ops from the compiled kernels, or all from numpy."""
        self._vectors: VectorOps | NativeVectors
        self._products: ProductOps | NativeProducts
        self._conv: ConvolutionOps | NativeConvolution
        self._neurons: NeuronOps | NativeNeurons
        self._pool: PoolOps | NativePool
        self._lrn: LRNOps | NativeLRN
        self._softmax: SoftmaxOps = SoftmaxOps(self.lanes)
        if library is None:
            self._vectors = VectorOps(self.lanes)
            self._products = ProductOps(self.lanes)
            self._conv = ConvolutionOps(self.lanes, self.dtype, exact)
            self._neurons = NeuronOps(self.lanes)
            self._pool = PoolOps(self.lanes)
            self._lrn = LRNOps(self.lanes)
        else:
            self._vectors = NativeVectors(library)
            self._products = NativeProducts(library)
            self._conv = NativeConvolution(library, exact)
            self._neurons = NativeNeurons(library)
            self._pool = NativePool(library)
            self._lrn = NativeLRN(library)
            self._softmax = NativeSoftmax(self.lanes, library)

    def empty(self, count: int, dtype: np.dtype[Any]) -> Array:
        return self._memory.empty(count, dtype)

    def view(self, array: Array, offset: int, shape: tuple[int, ...]) -> Array:
        return self._memory.view(array, offset, shape)

    def upload(self, host: HostArray, device: Array) -> None:
        self._vectors.copy(host, device)

    def download(self, device: Array, host: HostArray) -> None:
        self._vectors.copy(device, host)

    def copy(self, src: Array, dst: Array) -> None:
        self._vectors.copy(src, dst)

    def copy_2d(
        self,
        src: Array,
        dst: Array,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        self._memory.copy_2d(src, dst, rows, cols, src_at, dst_at)

    def fill(self, x: Array, value: float) -> None:
        self._vectors.fill(x, value)

    def synchronize(self) -> None:
        """Nothing to wait for: every op has happened when it returns."""

    def axpy(self, alpha: float, x: Array, y: Array) -> None:
        self._vectors.axpy(alpha, x, y)

    def scal(self, alpha: float, x: Array) -> None:
        self._vectors.scal(alpha, x)

    def sub(self, x: Array, y: Array, out: Array) -> None:
        self._vectors.sub(x, y, out)

    def asum(self, x: Array) -> float:
        return self._vectors.asum(x)

    def sumsq(self, x: Array) -> float:
        return self._vectors.sumsq(x)

    def dot(self, x: Array, y: Array) -> float:
        return self._vectors.dot(x, y)

    def gemm(
        self, trans_a: bool, trans_b: bool, alpha: float, a: Array, b: Array, beta: float, c: Array
    ) -> None:
        self._products.gemm(trans_a, trans_b, alpha, a, b, beta, c)

    def bias_forward(self, layout: Layout, bias: Array, y: Array) -> None:
        self._products.bias_forward(layout, bias, y)

    def bias_backward(self, layout: Layout, dy: Array, db: Array) -> None:
        self._products.bias_backward(layout, dy, db)

    def plan_conv(self, geometry: ConvGeometry) -> ConvPlan:
        return (self._empty_conv if is_empty(geometry) else self._conv).plan(geometry)

    def _conv_of(self, plan: ConvPlan) -> ConvolutionOps | NativeConvolution | EmptyConvolution:
        return self._empty_conv if plan.algorithm == EMPTY else self._conv

    def conv_forward(
        self,
        plan: ConvPlan,
        x: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        weight_version: int | None,
        relu: bool = False,
    ) -> None:
        self._conv_of(plan).forward(plan, x, weight, bias, y, weight_version, relu)

    def conv_backward_data(
        self, plan: ConvPlan, dy: Array, weight: Array, dx: Array, weight_version: int | None
    ) -> None:
        self._conv_of(plan).backward_data(plan, dy, weight, dx, weight_version)

    def conv_backward_weight(self, plan: ConvPlan, x: Array, dy: Array, dw: Array) -> None:
        self._conv_of(plan).backward_weight(plan, x, dy, dw)

    def relu_forward(self, x: Array, y: Array, negative_slope: float) -> None:
        self._neurons.relu_forward(x, y, negative_slope)

    def relu_backward(self, x: Array, dy: Array, dx: Array, negative_slope: float) -> None:
        self._neurons.relu_backward(x, dy, dx, negative_slope)

    def dropout_forward(self, x: Array, y: Array, mask: Array, ratio: float, draw: Draw) -> None:
        self._neurons.dropout_forward(x, y, mask, ratio, draw)

    def dropout_backward(self, dy: Array, mask: Array, dx: Array, ratio: float) -> None:
        self._neurons.dropout_backward(dy, mask, dx, ratio)

    def max_pool_forward(self, geom: PoolGeometry, x: Array, y: Array, mask: Array) -> None:
        self._pool.max_pool_forward(geom, x, y, mask)

    def max_pool_backward(self, geom: PoolGeometry, dy: Array, mask: Array, dx: Array) -> None:
        self._pool.max_pool_backward(geom, dy, mask, dx)

    def ave_pool_forward(self, geom: PoolGeometry, x: Array, y: Array) -> None:
        self._pool.ave_pool_forward(geom, x, y)

    def ave_pool_backward(self, geom: PoolGeometry, dy: Array, dx: Array) -> None:
        self._pool.ave_pool_backward(geom, dy, dx)

    def lrn_forward(self, geom: LRNGeometry, x: Array, scale: Array, y: Array) -> None:
        self._lrn.lrn_forward(geom, x, scale, y)

    def lrn_backward(
        self, geom: LRNGeometry, x: Array, y: Array, scale: Array, dy: Array, dx: Array
    ) -> None:
        self._lrn.lrn_backward(geom, x, y, scale, dy, dx)

    def softmax_forward(self, layout: Layout, x: Array, y: Array) -> None:
        self._softmax.softmax_forward(layout, x, y)

    def softmax_backward(self, layout: Layout, y: Array, dy: Array, dx: Array) -> None:
        self._softmax.softmax_backward(layout, y, dy, dx)

    def softmax_loss_forward(
        self,
        layout: Layout,
        prob: Array,
        label: Array,
        ignore_label: int | None,
        normalizer: float | None,
        loss: Array,
        stats: Array,
    ) -> None:
        self._softmax.softmax_loss_forward(
            layout, prob, label, ignore_label, normalizer, loss, stats
        )

    def softmax_loss_backward(
        self,
        layout: Layout,
        prob: Array,
        label: Array,
        ignore_label: int | None,
        loss_weight: float,
        stats: Array,
        dx: Array,
    ) -> None:
        self._softmax.softmax_loss_backward(
            layout, prob, label, ignore_label, loss_weight, stats, dx
        )

    def accuracy_forward(
        self,
        layout: Layout,
        x: Array,
        label: Array,
        ignore_label: int | None,
        top_k: int,
        out: Array,
    ) -> None:
        self._softmax.accuracy_forward(layout, x, label, ignore_label, top_k, out)

    def sgd_update(
        self, w: Array, dw: Array, history: Array, lr: float, momentum: float, decay: float
    ) -> None:
        self._vectors.sgd_update(w, dw, history, lr, momentum, decay)
