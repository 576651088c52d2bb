"""Records launches while they are executed, and replays them as one graph.

Recording executes the work, launch by launch. A graph is made from the tapes afterwards: code of a
layer never runs without its launches, so a capture has nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Argument, Driver, Extent, Graph, Kernel
from runtime.backend.cuda.launcher import Launcher
from runtime.backend.cuda.pass_block import PassBlock
from runtime.backend.recording import Watch

# Calls of a driver that neither copy nor wait, and are not recorded.
_HARMLESS = frozenset({"load", "constants"})
Call = tuple[Any, ...]


class LaunchTape:
    """See Tape. References the arrays of its launches."""

    def __init__(self) -> None:
        self._done: list[tuple[str, Call]] = []
        self._keys: list[Call] = []
        self.pure = True

    @property
    def calls(self) -> int:
        return sum(name != "lend" for name, _ in self._done)

    def add(self, name: str, call: Call, key: Call) -> None:
        """Record a call of the driver; calls with equal `key` are equal."""
        self._done.append((name, call))
        self._keys.append((name, *key))

    def repeat(self, driver: Driver) -> None:
        """Make the recorded calls again."""
        for name, call in self._done:
            getattr(driver, name)(*call)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaunchTape) and self._keys == other._keys

    __hash__ = None  # type: ignore[assignment]  # it grows


class TapedDriver:
    """A driver that records its launches, copies and fills on a tape."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.tape: LaunchTape | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._driver, name)
        if self.tape is not None and callable(value) and name not in _HARMLESS:
            self.tape.pure = False
        return value

    def launch(
        self,
        kernel: Kernel,
        grid: Extent,
        block: Extent,
        args: Sequence[Argument],
    ) -> None:
        """See Driver.launch."""
        if self.tape is not None:
            values = [arg.address if isinstance(arg, DeviceArray) else arg for arg in args]
            key = (id(kernel), grid, block, *values)
            self.tape.add("launch", (kernel, grid, block, tuple(args)), key)
        self._driver.launch(kernel, grid, block, args)

    def copy(self, src: int, dst: int, size: int) -> None:
        """See Driver.copy."""
        self._write("copy", src, dst, size)
        self._driver.copy(src, dst, size)

    def fill_bytes(self, address: int, value: int, size: int) -> None:
        """See Driver.fill_bytes."""
        self._write("fill_bytes", address, value, size)
        self._driver.fill_bytes(address, value, size)

    def lend(self, address: int, size: int) -> None:
        """See Driver.lend: the emulator guards the workspace in a replay as well."""
        self._write("lend", address, size)
        self._driver.lend(address, size)

    def _write(self, name: str, *call: int) -> None:
        if self.tape is not None:
            self.tape.add(name, call, call)


class LaunchRecorder:
    """See Recorder."""

    def __init__(self, launcher: Launcher) -> None:
        self.watch = Watch()
        self.replays = 0
        self._launcher = launcher
        self._driver = launcher.driver
        self._taped = TapedDriver(launcher.driver)
        self._block = PassBlock(launcher.driver, launcher.memory)

    @property
    def generation(self) -> int:
        """See Recorder.generation."""
        return self._launcher.memory.growths

    def begin(self, pass_number: int, rates: Sequence[float]) -> None:
        """See Recorder.begin. Kernels read both from device memory."""
        self._block.write(pass_number, rates)

    def record(self, work: Callable[[], object]) -> LaunchTape:
        """See Recorder.record."""
        launcher, tape = self._launcher, LaunchTape()
        given = launcher.memory.given
        self._taped.tape = tape
        self._play(self._taped, self._block)
        try:
            work()
        finally:
            self._taped.tape = None
            self._play(self._driver, None)
        tape.pure = tape.pure and launcher.memory.given == given
        return tape

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See Recorder.paused."""
        tape, self._taped.tape = self._taped.tape, None
        try:
            yield
        finally:
            self._taped.tape = tape

    def capture(self, tapes: Sequence[Any]) -> Graph:
        """See Recorder.capture."""

        def work() -> None:
            for tape in tapes:
                tape.repeat(self._driver)

        return self._driver.capture(work)

    def replay(self, graph: Graph) -> None:
        """See Recorder.replay."""
        self.replays += 1
        self._driver.replay(graph)

    def _play(self, driver: Any, block: PassBlock | None) -> None:
        self._launcher.driver = driver
        self._launcher.memory.driver = driver
        self._launcher.block = block
