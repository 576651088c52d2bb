"""Solver: trains a net, runs test nets, takes snapshots. Caffe: solver.cpp, sgd_solver.cpp."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen import text
from prototxt_gen.errors import DataError, SnapshotError, TrainingError
from prototxt_gen.number_limits import check_solver
from prototxt_gen.proto import copy_of
from runtime.backend.base import Backend
from runtime.logs.glog import caffe_log, number
from runtime.process.not_copyable import NotCopyable
from runtime.solvers import snapshot as snapshots
from runtime.solvers.best import BestScore
from runtime.solvers.build import build_nets, build_rule
from runtime.solvers.debug_info import DebugInfo
from runtime.solvers.display import CaffeLines, LossSmoother
from runtime.solvers.engine import BuildEngine, Engine, EngineSetup
from runtime.solvers.hooks import Progress, SolverHook, TestResult
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.lr_policy import check_policy, learning_rate, warm_up
from runtime.solvers.options import SolverOptions
from runtime.solvers.plateau import Plateau, PlateauState
from runtime.solvers.resume_state import ResumeState
from runtime.solvers.signals import Action
from runtime.solvers.testing import TestNets
from runtime.solvers.update_rule import UpdateRule

log = logging.getLogger("verydeep.solver")


class Solver(NotCopyable):
    """Trains the net of a SolverParameter.

    `engine` computes gradients and updates. `hooks` are called at the events of a run.
    `requested_action` is called between iterations and test batches and returns the action of the
    last signal. Iterations, tests and snapshots of several threads exclude each other.
    """

    substitute = "take a snapshot, and restore it in a solver built from the same prototxt"

    def __init__(
        self,
        param: Any,
        backend: Backend,
        options: SolverOptions | None = None,
        hooks: Sequence[SolverHook] = (),
        build_engine: BuildEngine = LocalEngine,
    ) -> None:
        """Build the nets, load the solver's `weights`, and build the engine.

        Raises:
            ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError: the solver, its
                nets or its weights are invalid or do not fit together.
            DeviceError: a device of the engine is not available.
        """
        self.param = copy_of(param)
        check_solver(self.param)
        self.options = options if options is not None else SolverOptions()
        caffe_log(
            "solver.cpp:45",
            "Initializing solver from parameters: \n%s",
            text.to_text(self.param).rstrip(),
        )
        self.rule: UpdateRule = build_rule(self.param, backend, self.options)
        schedule = self.options.sidecar.schedule
        if self.param.lr_policy and schedule is None:
            check_policy(self.param)
        snapshots.probe_prefix(self.param)
        self.seed = self._choose_seed()
        self.iter = 0
        self.current_step = 0
        self.rate = 0.0
        self.progress: Progress | None = None
        self.requested_action: Callable[[], Action] = lambda: Action.NONE
        self.hooks: list[SolverHook] = [CaffeLines(), *hooks]
        self._early_exit = False
        self._snapshot_failed = False
        self._pass_at_start: int | None = None
        self.plateau = None if schedule is None else Plateau(schedule, self.param.base_lr)
        self.best = BestScore(schedule)
        self.net, self.test_nets = build_nets(self.param, backend, self.options, self.seed)
        try:
            self.engine: Engine = self._build_engine(build_engine)
        except BaseException:
            self._close_nets()
            raise
        self.tests = TestNets(self.test_nets, self.param.test_iter, self.engine.run_test)

    def _choose_seed(self) -> int:
        if self.param.random_seed >= 0:
            return int(self.param.random_seed)
        seed = self.options.seed if self.options.seed is not None else secrets.randbits(31)
        log.info("random_seed is not set; this run's is %d", seed)
        return seed

    def _build_engine(self, build_engine: BuildEngine) -> Engine:
        snapshots.check_names(self.net, self.param)
        if self.plateau is not None:
            self.plateau.check_metric([net.outputs for net in self.test_nets])
        self._train_debug = DebugInfo(self.net)
        for net in self.test_nets:
            DebugInfo(net, self.param.debug_info)
        caffe_log("solver.cpp:57", "Solver scaffolding done.")
        return build_engine(
            EngineSetup(
                self.param, self.options, self.seed, self.rule, self.net, tuple(self.test_nets)
            )
        )

    def add_hook(self, hook: SolverHook) -> None:
        """Call a hook after those that were added before."""
        self.hooks.append(hook)

    def _notify(self, call: Callable[[SolverHook], None]) -> None:
        for hook in self.hooks:
            call(hook)

    # The training loop.

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train up to max_iter or until a signal; then take a snapshot and run the tests.

        Raises:
            TrainingError, DataError, SnapshotError: the run cannot continue; its earlier snapshots
                remain.
        """
        caffe_log("solver.cpp:289", "Solving %s", self.net.name)
        policy = "plateau" if self.plateau is not None else self.param.lr_policy
        caffe_log("solver.cpp:290", "Learning Rate Policy: %s", policy)
        self._early_exit = False
        if resume_file is not None:
            caffe_log("solver.cpp:297", "Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        snapshots.refuse_foreign_snapshots(self)
        self._notify(lambda hook: hook.on_solve(self))
        reason = "failed"
        try:
            self._solve()
            reason = "stopped" if self._early_exit else "done"
        except DataError:
            self._save_before_error()
            raise
        finally:
            self._notify(lambda hook: hook.on_end(self, reason))

    def _solve(self) -> None:
        param = self.param
        smoother = LossSmoother(param.average_loss)
        self._run(param.max_iter, smoother)
        if self._snapshot_failed or (param.snapshot_after_train and not self._due(param.snapshot)):
            self.snapshot()
        if self._early_exit:
            caffe_log("solver.cpp:311", "Optimization stopped early.")
            return
        if self._due(param.display):
            loss = smoother.add(self.engine.compute_loss())
            caffe_log("solver.cpp:327", "Iteration %d, loss = %s", self.iter, number(loss))
        if self._due(param.test_interval) and not self._plateau_finished():
            self.test_all()
        caffe_log("solver.cpp:332", "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Run iterations, with the tests and snapshots that are due. Caffe: Solver::Step.

        Raises:
            TrainingError, DataError, SnapshotError: see solve.
        """
        self._run(self.iter + iterations, LossSmoother(self.param.average_loss))

    def _run(self, stop: int, smoother: LossSmoother) -> None:
        param = self.param
        while self.iter < stop:
            if self._due(param.test_interval) and (self.iter > 0 or param.test_initialization):
                self.test_all()
                self._early_exit = self._early_exit or self._hook_stops()
                if self._early_exit or self._plateau_finished():
                    break
            with self.net.exclusive():
                self._compute_gradients(smoother)
                self.apply_update()
                self._pass_at_start = None
            action = self.requested_action()
            if action is Action.SNAPSHOT or self._due(param.snapshot):
                self._try_snapshot()
            self._notify(lambda hook: hook.on_iteration_end(self))
            if action is Action.STOP or self._hook_stops():
                self._early_exit = True
                break

    def _compute_gradients(self, smoother: LossSmoother) -> None:
        self._pass_at_start = self.engine.pass_number
        self._notify(lambda hook: hook.on_start(self))
        display = self._due(self.param.display)
        self._train_debug.enabled = display and self.param.debug_info
        loss = self.engine.compute_gradients(self.param.iter_size)
        scores = tuple(self.engine.scores()) if display else ()
        progress = Progress(self.iter, loss, smoother.add(loss), display, scores)
        self.progress = progress
        self._notify(lambda hook: hook.on_iteration(self, progress))
        self._notify(lambda hook: hook.on_gradients_ready(self))

    def apply_update(self) -> None:
        """Update the weights with the current gradients and count the iteration.

        Caffe: SGDSolver::ApplyUpdate.

        Raises:
            TrainingError: the learning rate is not finite.
        """
        with self.net.exclusive():
            self.rate = self.learning_rate()
            self._notify(lambda hook: hook.on_rate(self, self.iter, self.rate))
            self.engine.apply_update(self.param, self.rate, self.iter)
            self.iter += 1

    def _hook_stops(self) -> bool:
        return any(hook.wants_stop for hook in self.hooks)

    def _due(self, interval: int) -> bool:
        return bool(interval) and self.iter % interval == 0

    def _plateau_finished(self) -> bool:
        return self.plateau is not None and self.plateau.finished

    # The learning rate.

    def learning_rate(self) -> float:
        """The rate of the next update, rounded to the net's dtype; updates `current_step`.

        Raises:
            TrainingError: the policy gives NaN or infinity.
        """
        if self.plateau is not None:
            warm = warm_up(self.param, self.iter)
            rate = self.plateau.rate if warm is None else warm
            step = self.plateau.state.drops
        else:
            rate, step = learning_rate(self.param, self.iter, self.current_step)
            if self.param.lr_policy == "multistep" and step > self.current_step:
                status = "MultiStep Status: Iteration %d, step = %d"
                caffe_log("sgd_solver.cpp:50", status, self.iter, step)
        self.current_step = step
        if not math.isfinite(rate):
            raise TrainingError(
                f"iteration {self.iter}: lr_policy '{self.param.lr_policy}' gives a rate of "
                f"{number(rate)}; expected a finite number; check gamma, power and max_iter"
            )
        return float(self.net.backend.dtype.type(rate))

    # Tests.

    def test_all(self) -> None:
        """Run every test net; a stop signal interrupts. Caffe: Solver::TestAll.

        Raises:
            DataError, ShapeError, DeviceError: see TestNets.run.
        """
        with self.net.exclusive():
            self.tests.begin()
            results = []
            for net_id in range(len(self.test_nets)):
                result = self._test(net_id)
                if result is None:
                    break
                results.append(result)
            complete = len(results) == len(self.test_nets)
            self.tests.end(complete)
            for result in results if complete else ():
                self._observe(result)

    def _test(self, net_id: int) -> TestResult | None:
        self._notify(lambda hook: hook.on_test_start(self, net_id))
        compute_loss = self.param.test_compute_loss
        return self.tests.run(net_id, self.iter, compute_loss, self._continue_test)

    def _observe(self, result: TestResult) -> None:
        if self.plateau is not None:
            self.plateau.observe(self.iter, result)
        self.best.observe(self.iter, result)
        self._notify(lambda hook: hook.on_test(self, result))

    def _continue_test(self) -> bool:
        while (action := self.requested_action()) is not Action.NONE:
            if action is Action.SNAPSHOT:
                self._try_snapshot()
            else:
                self._early_exit = True
        return not self._early_exit

    # Snapshots.

    def snapshot(self) -> tuple[Path, ...]:
        """Write the weights, the solver state and the resume state; returns their paths.

        Raises:
            SnapshotError: the disk is full or read-only; earlier snapshots are unchanged.
        """
        with self.net.exclusive():
            state = ResumeState(
                iteration=self.iter,
                seed=self.seed,
                shards=self.engine.shards,
                train_pass=self.engine.pass_number,
                test_passes=self.tests.passes,
                plateau=None if self.plateau is None else self.plateau.state.to_json(),
                best=self.best.to_json(),
                precision=self.net.backend.precision,
            )
            files = snapshots.write_snapshot(self, state).all
            self._snapshot_failed = False
            if self.options.keep is not None:
                snapshots.prune_snapshots(
                    self.param.snapshot_prefix, self.options.keep, self.options.log_json
                )
            self._notify(lambda hook: hook.on_snapshot(self, files))
            return files

    def restore(self, path: str | Path, strict: bool = False) -> None:
        """Load a snapshot of this program or of original Caffe.

        Caffe's files lack the position of the data; it is then computed from `iter`. With `strict`,
        a file whose checksum differs is an error.

        Raises:
            SnapshotError: missing, incomplete, corrupt, or of another net or solver type.
        """
        with self.net.exclusive():
            state = snapshots.restore_snapshot(self, Path(path), strict)
            if state is None:
                passes = self.iter * self.param.iter_size * self.engine.shards
                self.engine.pass_number = passes
                log.info("%s has no .state.json: the data continues at pass %d", path, passes)
                return
            # The number of shards may have changed since.
            self.engine.pass_number = state.train_pass * self.engine.shards // state.shards
            self.tests.set_passes(state.test_passes)
            self.best.from_json(state.best)
            if self.plateau is not None and state.plateau is not None:
                self.plateau.state = PlateauState.from_json(state.plateau, str(path))
            state.warn_of_changes(self.seed, self.net.backend.precision)

    def _try_snapshot(self) -> None:
        try:
            self.snapshot()
        except SnapshotError as error:
            if self.options.stop_on_snapshot_error:
                raise
            self._snapshot_failed = True
            log.error("The run continues without this snapshot: %s", error)

    def _save_before_error(self) -> None:
        """Take a snapshot before an error in the data ends the run."""
        if not self.param.snapshot_prefix or self.iter == 0:
            return
        if self._pass_at_start is not None:
            # The resumed run repeats the batches of the unfinished iteration.
            self.engine.pass_number = self._pass_at_start
        try:
            self.snapshot()
        except SnapshotError as error:
            log.error("The updates since the last snapshot are lost: %s", error)

    def close(self) -> None:
        """Close the engine and the readers of all nets."""
        self.engine.close()
        self._close_nets()

    def _close_nets(self) -> None:
        for net in (self.net, *self.test_nets):
            net.close()
