"""Solvers: pycaffe's over the runtime's. Caffe: _caffe.cpp (Solver)."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from prototxt_gen import text
from prototxt_gen.sidecar import describe_sidecar, locate_sidecar, read_sidecar
from runtime.process.not_copyable import NotCopyable
from runtime.pycaffe.errors import CallError
from runtime.pycaffe.files import PathLike, require_file
from runtime.pycaffe.net import Net
from runtime.pycaffe.ranks import build_solver
from runtime.pycaffe.session import SESSION
from runtime.solvers.hooks import RunView, SolverHook
from runtime.solvers.options import SolverOptions
from runtime.solvers.run_lock import lock_run

log = logging.getLogger("verydeep.solver")


class Solver(NotCopyable):
    """Trains the net of a solver prototxt, in the session's mode.

    `core` is the runtime's own solver, for operations that pycaffe does not have. `random_seed`
    restarts the session's random stream; without it the stream continues.
    """

    substitute = "take a snapshot(), and restore() it in a solver built from the same prototxt"
    type: ClassVar[str] = ""
    """The solver type, which replaces the prototxt's; empty for the prototxt's."""

    def __init__(self, solver_file: PathLike) -> None:
        """Build the nets and load the solver's weights.

        After `set_solver_count(N)` and `set_solver_rank(r)` the solver computes every N-th batch.
        NCCL averages the gradients of the ranks.

        Raises:
            MissingFileError: the file cannot be opened; also a RuntimeError.
            CallError: a rank that is not below the count; also a RuntimeError.
            ProtoError, ShapeError, UnsupportedError, DataError: a net cannot be built.
            SnapshotError: the solver's weights cannot be read.
            DeviceError: the device is not available.
        """
        path = require_file(solver_file)
        param = text.read_solver(path)
        if self.type:
            param.type = self.type
        self._rank = SESSION.rank()
        if param.random_seed >= 0:
            SESSION.start_stream(int(param.random_seed), self._rank.number)
        sidecar, sidecar_file = read_sidecar(path, param), locate_sidecar(path)
        if sidecar_file is not None:
            log.info("%s", describe_sidecar(sidecar_file, sidecar))
        options = SolverOptions(
            sidecar=sidecar,
            seed=SESSION.seed,
            rng=SESSION.random(),
            allow_python_layers=True,
            raw_python_errors=True,
            caffe_dropout=SESSION.caffe_dropout,
            force=False,
        )
        self.core = build_solver(param, SESSION.backend(), options, self._rank)
        self.net = Net.around(self.core.net)
        self.test_nets = [Net.around(net) for net in self.core.test_nets]

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.net!r}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._title())}</p>{self.net._repr_html_()}"

    def _title(self) -> str:
        return (
            f"{self.core.rule.type} solver: iteration {self.iter} of {self.max_iter}, learning "
            f"rate {self.lr:g}, {len(self.test_nets)} test nets"
        )

    @property
    def param(self) -> Any:
        """The SolverParameter; changes of its fields, such as base_lr, take effect at once."""
        return self.core.param

    @property
    def iter(self) -> int:
        """The number of updates made."""
        return self.core.iter

    @property
    def max_iter(self) -> int:
        return int(self.core.param.max_iter)

    @property
    def lr(self) -> float:
        """The learning rate of the last update; 0 before the first."""
        return self.core.rate

    def step(self, iterations: int) -> None:
        """Make this many updates, with the tests and snapshots that fall due.

        Raises:
            TrainingError, DataError, SnapshotError: see the runtime's Solver.
        """
        with self.core.net.exclusive():
            self.core.step(iterations)

    def solve(self, resume_file: PathLike | None = None) -> None:
        """Train up to max_iter; write a snapshot and test at the end.

        The snapshot prefix is locked meanwhile, as by `verydeep train`.

        Raises:
            MissingFileError: the snapshot cannot be opened; also a RuntimeError.
            SnapshotError: another run writes the same snapshots.
            TrainingError, DataError, SnapshotError: see the runtime's Solver.
        """
        resumed = None if resume_file is None else require_file(resume_file)
        param = self.core.param
        # Rank 0 writes the snapshots.
        writes = not self._rank.number and (param.snapshot or param.snapshot_after_train)
        prefixes = [str(param.snapshot_prefix)] if writes and param.snapshot_prefix else []
        with self.core.net.exclusive(), lock_run(*prefixes):
            self.core.solve(resumed)

    def snapshot(self) -> tuple[Path, ...]:
        """Write weights and solver state; returns the paths.

        Raises:
            CallError: a rank above 0; also a RuntimeError.
            SnapshotError: the files cannot be written.
        """
        if self._rank.number:
            raise CallError(
                f"snapshot: called on rank {self._rank.number}; expected rank 0, whose solver has "
                "the same weights; call it where solver_rank() is 0"
            )
        return self.core.snapshot()

    def restore(self, state_file: PathLike) -> None:
        """Continue from a .solverstate or .solverstate.h5.

        Raises:
            MissingFileError: the file cannot be opened; also a RuntimeError.
            SnapshotError: the file is damaged, or of another net or solver type.
        """
        self.core.restore(require_file(state_file))

    def apply_update(self) -> None:
        """Update the weights by the current gradients; `iter` counts it."""
        self.core.apply_update()

    def share_weights(self, net: Net) -> None:
        """Share the weights that are trained here with another net."""
        net.share_with(self.net)

    def add_callback(
        self,
        on_start: Callable[[], object] | SolverHook,
        on_gradients_ready: Callable[[], object] | None = None,
    ) -> None:
        """Call functions before every iteration, and between its gradients and its update.

        In the place of two functions it takes an NCCL object. Callbacks are called in the order in
        which they were added.

        Raises:
            CallError: one function only; also a RuntimeError.
        """
        if isinstance(on_start, SolverHook):
            self.core.add_hook(on_start)
        elif on_gradients_ready is None:
            raise CallError(
                f"add_callback: got {on_start!r} alone; expected two functions without arguments, "
                "on_start and on_gradients_ready, or an NCCL object"
            )
        else:
            self.core.add_hook(_Callback(on_start, on_gradients_ready))

    def close(self) -> None:
        """Stop background readers; the garbage collection of the solver does the same."""
        self.core.close()


class _Callback(SolverHook):
    """Two functions without arguments as a hook."""

    def __init__(self, start: Callable[[], object], gradients_ready: Callable[[], object]) -> None:
        self._start = start
        self._gradients_ready = gradients_ready

    def on_start(self, solver: RunView) -> None:
        """See SolverHook."""
        self._start()

    def on_gradients_ready(self, solver: RunView) -> None:
        """See SolverHook."""
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
    """The solver of the type in the prototxt; see Solver for what it raises."""
    name = text.read_solver(require_file(solver_file)).type
    classes: dict[str, type[Solver]] = {cls.type: cls for cls in _SOLVERS}
    return classes.get(name, Solver)(solver_file)


_SOLVERS: tuple[type[Solver], ...] = (
    SGDSolver,
    NesterovSolver,
    AdaGradSolver,
    RMSPropSolver,
    AdaDeltaSolver,
    AdamSolver,
)
