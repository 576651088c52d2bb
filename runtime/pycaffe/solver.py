"""Solvers, as pycaffe's users know them, over the runtime's. Caffe: _caffe.cpp (Solver)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from prototxt_gen import text
from prototxt_gen.sidecar import read_sidecar
from runtime.process.not_copyable import NotCopyable
from runtime.pycaffe.net import Net
from runtime.pycaffe.net_arguments import PathLike, require_file
from runtime.pycaffe.session import SESSION
from runtime.solvers.hooks import RunView, SolverHook
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver as CoreSolver


class Solver(NotCopyable):
    """Learns the net of a solver prototxt, in the session's mode.

    `core` is the runtime's own solver, for what pycaffe has no name for. `random_seed` starts the
    session's random stream anew; without it the stream goes on.
    """

    substitute = "take a snapshot(), and restore() it in a solver built from the same prototxt"
    type: ClassVar[str] = ""
    """The solver type, which replaces the prototxt's; empty for the prototxt's."""

    def __init__(self, solver_file: PathLike) -> None:
        """Build the nets and load the solver's weights.

        Raises:
            MissingFileError: also a RuntimeError, as in pycaffe.
            UnsupportedError: the session asks for training on several devices.
            ProtoError, ShapeError, DataError, SnapshotError, DeviceError: what does not fit.
        """
        SESSION.require_one_solver()
        path = require_file(solver_file)
        param = text.read_solver(path)
        if self.type:
            param.type = self.type
        if param.random_seed >= 0:
            SESSION.start_stream(int(param.random_seed))
        options = SolverOptions(
            sidecar=read_sidecar(path),
            seed=SESSION.seed,
            rng=SESSION.random(),
            allow_python_layers=True,
            raw_python_errors=True,
            caffe_dropout=SESSION.caffe_dropout,
            force=False,
        )
        self.core = CoreSolver(param, SESSION.backend(), options)
        self.net = Net.around(self.core.net)
        self.test_nets = [Net.around(net) for net in self.core.test_nets]

    @property
    def param(self) -> Any:
        """The SolverParameter; what is changed in it, such as base_lr, holds from now on."""
        return self.core.param

    @property
    def iter(self) -> int:
        """Updates made so far."""
        return self.core.iter

    @property
    def max_iter(self) -> int:
        return int(self.core.param.max_iter)

    @property
    def lr(self) -> float:
        """The learning rate of the last update; 0 before the first."""
        return self.core.rate

    def step(self, iterations: int) -> None:
        """Make this many updates, with the tests and snapshots that fall due."""
        with self.core.net.exclusive():
            self.core.step(iterations)

    def solve(self, resume_file: PathLike | None = None) -> None:
        """Train up to max_iter; snapshot and test at the end."""
        resumed = None if resume_file is None else require_file(resume_file)
        with self.core.net.exclusive():
            self.core.solve(resumed)

    def snapshot(self) -> tuple[Path, ...]:
        """Write weights and solver state; returns the paths."""
        return self.core.snapshot()

    def restore(self, state_file: PathLike) -> None:
        """Go on from a .solverstate or .solverstate.h5."""
        self.core.restore(require_file(state_file))

    def apply_update(self) -> None:
        """Change the weights by the gradients at hand; `iter` counts it as an update."""
        self.core.apply_update()

    def share_weights(self, net: Net) -> None:
        """Let another net hold the weights that are learnt here."""
        net.share_with(self.net)

    def add_callback(
        self, on_start: Callable[[], None], on_gradients_ready: Callable[[], None]
    ) -> None:
        """Call the one before every iteration, the other between its gradients and its update."""
        self.core.add_hook(_Callback(on_start, on_gradients_ready))

    def close(self) -> None:
        """Stop what the nets read in the background; it also ends with the solver."""
        self.core.close()


class _Callback(SolverHook):
    """Two functions without arguments as a hook."""

    def __init__(self, start: Callable[[], None], gradients_ready: Callable[[], None]) -> None:
        self._start = start
        self._gradients_ready = gradients_ready

    def on_start(self, solver: RunView) -> None:
        """Pass it on."""
        self._start()

    def on_gradients_ready(self, solver: RunView) -> None:
        """Pass it on."""
        self._gradients_ready()


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam."""

    type = "Adam"


def get_solver(solver_file: PathLike) -> Solver:
    """The solver of the type that the prototxt says."""
    require_file(solver_file)
    wanted = text.read_solver(solver_file).type
    known: dict[str, type[Solver]] = {cls.type: cls for cls in Solver.__subclasses__()}
    return known.get(wanted, Solver)(solver_file)
