"""CpuBackend: the groups of ops on the host, all compiled or all in NumPy."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DeviceError
from prototxt_gen.sidecar import BF16, FP32
from runtime.backend.base import (
    Backend,
    ConvOps,
    HostArray,
    LRNOps,
    MemoryOps,
    NeuronOps,
    PointwiseOps,
    PoolOps,
    ProductOps,
    SoftmaxOps,
    VectorOps,
)
from runtime.backend.cpu import native_library
from runtime.backend.cpu.bf16 import round_bf16
from runtime.backend.cpu.bf16_maps import (
    Round,
    RoundedLRN,
    RoundedNeurons,
    RoundedPointwise,
    RoundedPool,
)
from runtime.backend.cpu.bf16_numpy import NumpyBf16Convolution, NumpyBf16Products
from runtime.backend.cpu.conv import NumpyConvolution
from runtime.backend.cpu.lanes import Lanes, limit_blas_threads
from runtime.backend.cpu.lrn import NumpyLRN
from runtime.backend.cpu.memory import NumpyMemory, input_batch
from runtime.backend.cpu.native_bf16 import (
    AMX,
    NativeBf16Convolution,
    NativeBf16Products,
    round_map,
)
from runtime.backend.cpu.native_conv import NativeConvolution
from runtime.backend.cpu.native_library import NativeLibrary
from runtime.backend.cpu.native_lrn import NativeLRN
from runtime.backend.cpu.native_memory import NativeMemory
from runtime.backend.cpu.native_neurons import NativeNeurons
from runtime.backend.cpu.native_pointwise import NativePointwise
from runtime.backend.cpu.native_pool import NativePool
from runtime.backend.cpu.native_products import NativeProducts
from runtime.backend.cpu.native_softmax import NativeSoftmax
from runtime.backend.cpu.native_vectors import NativeVectors
from runtime.backend.cpu.neurons import NumpyNeurons
from runtime.backend.cpu.pointwise import NumpyPointwise
from runtime.backend.cpu.pool import NumpyPool
from runtime.backend.cpu.products import NumpyProducts
from runtime.backend.cpu.recording import KernelRecorder
from runtime.backend.cpu.softmax import NumpySoftmax
from runtime.backend.cpu.vectors import NumpyVectors
from runtime.process.not_copyable import NotCopyable

log = logging.getLogger("verydeep.backend")


@functools.cache
def _warn_once(reason: str) -> None:
    log.warning("%s", reason)


class CpuBackend(NotCopyable, Backend):
    """The host as a device.

    float64 is for gradient checks. `exact` selects convolutions without Winograd transforms.
    `threads` is the number of threads of the backend (default: OMP_NUM_THREADS, or all cores).
    NumPy's BLAS is limited to one thread for the whole process, so that it does not compete with
    them. `precision` bf16 rounds maps and the operands of products; the bits of its results do not
    depend on the instruction set, and NumPy computes the same.

    Raises:
        DeviceError: the dtype is not float32 or float64, the precision is not fp32 or bf16, there
            is less than one thread, or `native` is True and the compiled kernels cannot be used.
    """

    memory: MemoryOps
    vectors: VectorOps
    products: ProductOps
    conv: ConvOps
    neurons: NeuronOps
    pointwise: PointwiseOps
    pool: PoolOps
    lrn: LRNOps
    softmax: SoftmaxOps

    shares_host_memory = True
    lock = None
    input_batch = staticmethod(input_batch)
    input_as_bytes = False
    kernels = None
    device_memory = None
    launches = None

    def __init__(
        self,
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
        exact: bool = False,
        native: bool | None = None,
        replay: bool = True,
        precision: str = FP32,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise DeviceError(
                f"cpu backend: dtype is {self.dtype}; expected float32 or float64; "
                "use float32 for training and float64 for gradient checks"
            )
        self.precision = _supported(precision, self.dtype)
        self.name = "cpu" if self.dtype == np.float32 else "cpu64"
        self.lanes = Lanes(threads)
        limit_blas_threads()
        library = self._library(native)
        self.rows_independent = library is not None or precision == BF16
        self.folds = self.dtype == np.float32 and not exact and precision != BF16
        self.recorder = KernelRecorder(library) if library is not None and replay else None
        if library is None:
            self._compute_in_numpy(exact)
        else:
            self._compute_by_kernels(library, exact)
        if precision == BF16:
            self._compute_in_bf16(library)

    def _library(self, native: bool | None) -> NativeLibrary | None:
        """The compiled kernels, or None to use NumPy."""
        if native is False or self.dtype != np.float32:
            return None
        library = native_library.load(self.lanes.threads)
        if library is None:
            reason = native_library.why_not() or "the CPU kernels cannot be used"
            if native:
                raise DeviceError(f"cpu backend: {reason}")
            _warn_once(reason)
        return library

    def _compute_in_numpy(self, exact: bool) -> None:
        self.memory = NumpyMemory(self.lanes)
        self.vectors = NumpyVectors(self.lanes)
        self.products = NumpyProducts(self.lanes)
        self.conv = NumpyConvolution(self.lanes, self.dtype, exact)
        self.neurons = NumpyNeurons(self.lanes)
        self.pointwise = NumpyPointwise(self.lanes)
        self.pool = NumpyPool(self.lanes)
        self.lrn = NumpyLRN(self.lanes)
        self.softmax = NumpySoftmax(self.lanes)

    def _compute_by_kernels(self, library: NativeLibrary, exact: bool) -> None:
        self.memory = NativeMemory(library)
        self.vectors = NativeVectors(library)
        self.products = NativeProducts(library)
        self.conv = NativeConvolution(library, exact)
        self.neurons = NativeNeurons(library)
        self.pointwise = NativePointwise(self.lanes, library)
        self.pool = NativePool(library)
        self.lrn = NativeLRN(library)
        self.softmax = NativeSoftmax(self.lanes, library)

    def _compute_in_bf16(self, library: NativeLibrary | None) -> None:
        """Replace the groups whose operands or results are rounded."""
        rounded: Round
        if library is None:
            _warn_once("precision bf16 without the CPU kernels is exact, but very slow")
            rounded = _round_in_numpy
            self.products = NumpyBf16Products(self.lanes)
            self.conv = NumpyBf16Convolution(self.lanes)
        else:
            if library.isa != AMX:
                _warn_once(
                    "precision bf16: this processor has no AMX; the results are the same as with "
                    "AMX, but not faster than fp32"
                )
            rounded = functools.partial(round_map, library)
            self.products = NativeBf16Products(library)
            self.conv = NativeBf16Convolution(library)
        self.neurons = RoundedNeurons(self.neurons, rounded)
        self.pointwise = RoundedPointwise(self.pointwise, rounded)
        self.pool = RoundedPool(self.pool, rounded)
        self.lrn = RoundedLRN(self.lrn, rounded)


def _round_in_numpy(y: HostArray) -> None:
    y[...] = round_bf16(y)


def _supported(precision: str, dtype: np.dtype[Any]) -> str:
    """The precision, if a CPU computes in it with arrays of this dtype."""
    if precision == FP32 or (precision == BF16 and dtype == np.float32):
        return precision
    expected = f"{FP32} or {BF16}" if dtype == np.float32 else f"{FP32} with dtype {dtype}"
    raise DeviceError(
        f"backend 'cpu': precision {precision}; expected {expected}, since a CPU has no tensor "
        f"cores; use --precision {FP32} or {BF16}, or select a GPU with --gpu"
    )
