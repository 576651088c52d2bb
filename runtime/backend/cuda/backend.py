"""CudaBackend: the groups of ops, implemented by handwritten kernels over a Driver."""

from __future__ import annotations

from collections.abc import Callable

from prototxt_gen.errors import DeviceError
from prototxt_gen.sidecar import FP32
from runtime.backend.base import Backend
from runtime.backend.conv_empty import EmptyConvolution
from runtime.backend.cuda.augment import AugmentOps
from runtime.backend.cuda.conv import CudaConvolution
from runtime.backend.cuda.conv_pack import PRECISIONS
from runtime.backend.cuda.driver import Driver
from runtime.backend.cuda.launcher import FLOAT, Launcher
from runtime.backend.cuda.lrn import CudaLRN
from runtime.backend.cuda.memory import DeviceMemory
from runtime.backend.cuda.memory_ops import CudaMemory
from runtime.backend.cuda.neurons import CudaNeurons
from runtime.backend.cuda.pointwise import CudaPointwise
from runtime.backend.cuda.pool import CudaPool
from runtime.backend.cuda.products import CudaProducts
from runtime.backend.cuda.recording import LaunchRecorder
from runtime.backend.cuda.self_check import SelfCheck, store_of
from runtime.backend.cuda.softmax import CudaSoftmax
from runtime.backend.cuda.vectors import CudaVectors
from runtime.process.not_copyable import NotCopyable
from runtime.process.process_lock import ProcessLock

# The oldest architecture whose tensor cores support tf32 and bf16.
_TENSOR_CORES = 80


class CudaBackend(NotCopyable, Backend):
    """A GPU, or the emulator; arrays are float32.

    precision: 'fp32'; or 'tf32' or 'bf16', to which convolutions on tensor cores round their
        operands (sums are in fp32).
    exact: convolutions in fp32 add their products term by term, without Winograd's transforms.
    replay: repeated launches may be recorded and replayed as a graph; see runtime/net/replay.py.
    reference: opens the backend that gives the answers of the self-check (self_check.py); None to
        use the kernels unchecked.

    Raises:
        DeviceError: the precision is unknown, or this device has no tensor cores for it.
    """

    shares_host_memory = False
    rows_independent = False

    def __init__(
        self,
        driver: Driver,
        precision: str = FP32,
        exact: bool = False,
        replay: bool = True,
        reference: Callable[[], Backend] | None = None,
    ) -> None:
        _expect_precision(driver, precision)
        self.precision = precision
        self.folds = not exact
        self.driver = driver
        self.name = driver.name
        self.lock = ProcessLock(
            f"{driver.name} {driver.device_id}: the device was opened before this process was "
            "forked; expected a process that opened it itself, since a GPU's context does not "
            "survive a fork; build the nets in the child, or start it by multiprocessing's "
            "'spawn' method"
        )
        self.dtype = FLOAT
        self.device_memory = DeviceMemory(driver)
        self.kernels = self._launcher = launcher = Launcher(driver, self.device_memory)
        self.recorder = LaunchRecorder(launcher) if replay else None
        self.input_batch = AugmentOps(launcher).batch
        self.input_as_bytes = True
        self.memory = CudaMemory(launcher, self.lock)
        self.vectors = CudaVectors(launcher)
        self.products = products = CudaProducts(launcher)
        self.neurons = CudaNeurons(launcher)
        empty = EmptyConvolution(self.memory, products, self.neurons)
        self.conv = CudaConvolution(launcher, products, empty, precision, exact)
        self.pointwise = CudaPointwise(launcher)
        self.pool = CudaPool(launcher)
        self.lrn = CudaLRN(launcher)
        self.softmax = CudaSoftmax(launcher)
        if reference is not None:
            launcher.check = _check(driver, reference)

    @property
    def self_check(self) -> SelfCheck | None:
        """The check of the kernels; None if they are used unchecked."""
        return self._launcher.check

    @property
    def launches(self) -> int:
        """See Backend.launches."""
        return self._launcher.launches


def _check(driver: Driver, reference: Callable[[], Backend]) -> SelfCheck:
    store = store_of(driver.info, driver.device_id)
    name = f"{driver.name} {driver.device_id} ({driver.info.name})"
    return SelfCheck(name, lambda: CudaBackend(driver, replay=False), reference, store)


def _expect_precision(driver: Driver, precision: str) -> None:
    accepted = (FP32, *PRECISIONS)
    if precision not in accepted:
        raise DeviceError(
            f"backend '{driver.name}': precision is {precision!r}; expected one of "
            f"{', '.join(accepted)}; use one of them"
        )
    if precision != FP32 and driver.info.arch < _TENSOR_CORES:
        raise DeviceError(
            f"backend '{driver.name}': precision {precision} on {driver.info.name}, which is "
            f"sm_{driver.info.arch}; expected sm_{_TENSOR_CORES} or newer; use precision fp32"
        )
