"""CudaBackend: every op of the Backend protocol by handwritten kernels, over a Driver.

A facade: each method hands over to the group of ops where it is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import ConvPlan, Draw, HostArray, Layout
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.augment import AugmentOps
from runtime.backend.cuda.conv import FP32, ConvolutionOps
from runtime.backend.cuda.conv_pack import PRECISIONS
from runtime.backend.cuda.driver import Driver
from runtime.backend.cuda.gemm import GemmOps
from runtime.backend.cuda.launcher import FLOAT, Launcher
from runtime.backend.cuda.lrn import LRNOps
from runtime.backend.cuda.memory import DeviceMemory
from runtime.backend.cuda.neurons import BiasOps, NeuronOps
from runtime.backend.cuda.pool import PoolOps
from runtime.backend.cuda.recording import LaunchRecorder
from runtime.backend.cuda.softmax import SoftmaxOps
from runtime.backend.cuda.vectors import MemoryOps, VectorOps
from runtime.process.not_copyable import NotCopyable
from runtime.process.process_lock import ProcessLock

# The oldest architecture whose tensor cores take tf32 and bf16.
_TENSOR_CORES = 80


class CudaBackend(NotCopyable):
    """A GPU, or the emulator; arrays are float32.

    precision: 'fp32'; or 'tf32' or 'bf16', to which convolutions then round their operands where
        tensor cores serve (sums stay in fp32).
    exact: convolutions in fp32 take their sums term by term, without Winograd's transforms.
    replay: launches that repeat may be recorded and done at once; see runtime/net/replay.py.

    Raises:
        DeviceError: another precision, or one that this device has no tensor cores for.
    """

    shares_host_memory = False
    rows_stand_alone = False

    def __init__(
        self, driver: Driver, precision: str = FP32, exact: bool = False, replay: bool = True
    ) -> None:
        _expect_precision(driver, precision)
        self.precision = precision
        self.driver = driver
        self.name = driver.name
        self._exclusive = ProcessLock(
            f"{driver.name} {driver.device_id}: the device was opened before this process was "
            "forked; expected a process that opened it itself, since a GPU's context does not "
            "survive a fork; build the nets in the child, or start it by multiprocessing's "
            "'spawn' method"
        )
        self.lock: ProcessLock | None = self._exclusive
        self.dtype: np.dtype[Any] = FLOAT
        self.memory = DeviceMemory(driver)
        self._launcher = launcher = Launcher(driver, self.memory)
        self.recorder = LaunchRecorder(launcher) if replay else None
        self._memory = MemoryOps(launcher)
        self._augment = AugmentOps(launcher)
        self._vectors = VectorOps(launcher)
        self._products = GemmOps(launcher)
        self._bias = BiasOps(launcher)
        self._conv = ConvolutionOps(launcher, self._products, precision, exact)
        self._empty_conv = EmptyConvolution(self)
        self._neurons = NeuronOps(launcher)
        self._pool = PoolOps(launcher)
        self._lrn = LRNOps(launcher)
        self._softmax = SoftmaxOps(launcher)

    @property
    def launches(self) -> int:
        """Kernels, fills and copies on the device asked for so far, other than by a replay."""
        return self._launcher.launches

    def empty(self, count: int, dtype: np.dtype[Any]) -> DeviceArray:
        with self._exclusive.current():
            return self._memory.empty(count, dtype)

    def view(self, array: DeviceArray, offset: int, shape: tuple[int, ...]) -> DeviceArray:
        return array.view(offset, shape)

    def upload(self, host: HostArray, device: DeviceArray) -> None:
        with self._exclusive.current():
            self._memory.upload(host, device)

    def download(self, device: DeviceArray, host: HostArray) -> None:
        with self._exclusive.current():
            self._memory.download(device, host)

    def copy(self, src: DeviceArray, dst: DeviceArray) -> None:
        self._memory.copy(src, dst)

    def copy_2d(
        self,
        src: DeviceArray,
        dst: DeviceArray,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        self._memory.copy_2d(src, dst, rows, cols, src_at, dst_at)

    def input_batch(
        self, pixels: HostArray, offsets: HostArray, scale: float, y: DeviceArray
    ) -> None:
        """Make bytes (N,C,H,W) the input blob; see AugmentOps.batch. Only here, not on a CPU."""
        self._augment.batch(pixels, offsets, scale, y)

    def fill(self, x: DeviceArray, value: float) -> None:
        with self._exclusive.current():
            self._memory.fill(x, value)

    def synchronize(self) -> None:
        self.driver.synchronize()

    def axpy(self, alpha: float, x: DeviceArray, y: DeviceArray) -> None:
        self._vectors.axpy(alpha, x, y)

    def scal(self, alpha: float, x: DeviceArray) -> None:
        self._vectors.scal(alpha, x)

    def sub(self, x: DeviceArray, y: DeviceArray, out: DeviceArray) -> None:
        self._vectors.sub(x, y, out)

    def asum(self, x: DeviceArray) -> float:
        return self._vectors.asum(x)

    def sumsq(self, x: DeviceArray) -> float:
        return self._vectors.sumsq(x)

    def dot(self, x: DeviceArray, y: DeviceArray) -> float:
        return self._vectors.dot(x, y)

    def gemm(
        self,
        trans_a: bool,
        trans_b: bool,
        alpha: float,
        a: DeviceArray,
        b: DeviceArray,
        beta: float,
        c: DeviceArray,
    ) -> None:
        self._products.gemm(trans_a, trans_b, alpha, a, b, beta, c)

    def bias_forward(self, layout: Layout, bias: DeviceArray, y: DeviceArray) -> None:
        self._bias.forward(layout, bias, y)

    def bias_backward(self, layout: Layout, dy: DeviceArray, db: DeviceArray) -> None:
        self._bias.backward(layout, dy, db)

    def plan_conv(self, geometry: ConvGeometry) -> ConvPlan:
        return (self._empty_conv if is_empty(geometry) else self._conv).plan(geometry)

    def _conv_of(self, plan: ConvPlan) -> ConvolutionOps | EmptyConvolution:
        return self._empty_conv if plan.algorithm == EMPTY else self._conv

    def conv_forward(
        self,
        plan: ConvPlan,
        x: DeviceArray,
        weight: DeviceArray,
        bias: DeviceArray | None,
        y: DeviceArray,
        weight_version: int | None,
        relu: bool = False,
    ) -> None:
        self._conv_of(plan).forward(plan, x, weight, bias, y, weight_version, relu)

    def conv_backward_data(
        self,
        plan: ConvPlan,
        dy: DeviceArray,
        weight: DeviceArray,
        dx: DeviceArray,
        weight_version: int | None,
    ) -> None:
        self._conv_of(plan).backward_data(plan, dy, weight, dx, weight_version)

    def conv_backward_weight(
        self, plan: ConvPlan, x: DeviceArray, dy: DeviceArray, dw: DeviceArray
    ) -> None:
        self._conv_of(plan).backward_weight(plan, x, dy, dw)

    def relu_forward(self, x: DeviceArray, y: DeviceArray, negative_slope: float) -> None:
        self._neurons.relu_forward(x, y, negative_slope)

    def relu_backward(
        self, x: DeviceArray, dy: DeviceArray, dx: DeviceArray, negative_slope: float
    ) -> None:
        self._neurons.relu_backward(x, dy, dx, negative_slope)

    def dropout_forward(
        self, x: DeviceArray, y: DeviceArray, mask: DeviceArray, ratio: float, draw: Draw
    ) -> None:
        self._neurons.dropout_forward(x, y, mask, ratio, draw)

    def dropout_backward(
        self, dy: DeviceArray, mask: DeviceArray, dx: DeviceArray, ratio: float
    ) -> None:
        self._neurons.dropout_backward(dy, mask, dx, ratio)

    def max_pool_forward(
        self, geom: PoolGeometry, x: DeviceArray, y: DeviceArray, mask: DeviceArray
    ) -> None:
        self._pool.max_pool_forward(geom, x, y, mask)

    def max_pool_backward(
        self, geom: PoolGeometry, dy: DeviceArray, mask: DeviceArray, dx: DeviceArray
    ) -> None:
        self._pool.max_pool_backward(geom, dy, mask, dx)

    def ave_pool_forward(self, geom: PoolGeometry, x: DeviceArray, y: DeviceArray) -> None:
        self._pool.ave_pool_forward(geom, x, y)

    def ave_pool_backward(self, geom: PoolGeometry, dy: DeviceArray, dx: DeviceArray) -> None:
        self._pool.ave_pool_backward(geom, dy, dx)

    def lrn_forward(
        self, geom: LRNGeometry, x: DeviceArray, scale: DeviceArray, y: DeviceArray
    ) -> None:
        self._lrn.lrn_forward(geom, x, scale, y)

    def lrn_backward(
        self,
        geom: LRNGeometry,
        x: DeviceArray,
        y: DeviceArray,
        scale: DeviceArray,
        dy: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        self._lrn.lrn_backward(geom, x, y, scale, dy, dx)

    def softmax_forward(self, layout: Layout, x: DeviceArray, y: DeviceArray) -> None:
        self._softmax.softmax_forward(layout, x, y)

    def softmax_backward(
        self, layout: Layout, y: DeviceArray, dy: DeviceArray, dx: DeviceArray
    ) -> None:
        self._softmax.softmax_backward(layout, y, dy, dx)

    def softmax_loss_forward(
        self,
        layout: Layout,
        prob: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        normalizer: float | None,
        loss: DeviceArray,
        stats: DeviceArray,
    ) -> None:
        self._softmax.softmax_loss_forward(
            layout, prob, label, ignore_label, normalizer, loss, stats
        )

    def softmax_loss_backward(
        self,
        layout: Layout,
        prob: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        loss_weight: float,
        stats: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        self._softmax.softmax_loss_backward(
            layout, prob, label, ignore_label, loss_weight, stats, dx
        )

    def accuracy_forward(
        self,
        layout: Layout,
        x: DeviceArray,
        label: DeviceArray,
        ignore_label: int | None,
        top_k: int,
        out: DeviceArray,
    ) -> None:
        self._softmax.accuracy_forward(layout, x, label, ignore_label, top_k, out)

    def sgd_update(
        self,
        w: DeviceArray,
        dw: DeviceArray,
        history: DeviceArray,
        lr: float,
        momentum: float,
        decay: float,
    ) -> None:
        self._vectors.sgd_update(w, dw, history, lr, momentum, decay)


def _expect_precision(driver: Driver, precision: str) -> None:
    known = (FP32, *PRECISIONS)
    if precision not in known:
        raise DeviceError(
            f"backend '{driver.name}': precision is {precision!r}; expected one of "
            f"{', '.join(known)}; correct it"
        )
    if precision != FP32 and driver.info.arch < _TENSOR_CORES:
        raise DeviceError(
            f"backend '{driver.name}': precision {precision} on {driver.info.name}, which is "
            f"sm_{driver.info.arch}; expected sm_{_TENSOR_CORES} or newer; use precision fp32"
        )
