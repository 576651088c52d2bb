"""Solver: one net learnt, others tested, snapshots taken. Caffe: solver.cpp, sgd_solver.cpp."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen import text
from prototxt_gen.errors import (
    DataError,
    SnapshotError,
    TrainingError,
    VerydeepError,
)
from prototxt_gen.number_limits import check_solver
from runtime.backend.base import Backend
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.process.not_copyable import NotCopyable
from runtime.solvers import snapshot as snapshots
from runtime.solvers.best import BestScore
from runtime.solvers.build import build_nets, build_rule
from runtime.solvers.debug_info import DebugInfo
from runtime.solvers.display import CaffeLines, LossSmoother
from runtime.solvers.engine import Engine
from runtime.solvers.hooks import Progress, SolverHook
from runtime.solvers.lr_policy import check_policy, learning_rate
from runtime.solvers.options import SolverOptions
from runtime.solvers.plateau import Plateau, PlateauState
from runtime.solvers.resume_state import ResumeState
from runtime.solvers.signals import Action
from runtime.solvers.update_rule import UpdateRule

log = logging.getLogger("verydeep.solver")


class Solver(NotCopyable):
    """Learns a net as a SolverParameter says.

    `engine` computes gradients and updates; replace it before the first step to train on several
    devices. `hooks` are called at each event. `requested_action` returns what to do next, between
    iterations. Several threads may call one solver: iterations, tests and snapshots are serialised.
    """

    substitute = "take a snapshot, and restore it in a solver built from the same prototxt"

    def __init__(
        self,
        param: Any,
        backend: Backend,
        options: SolverOptions | None = None,
        hooks: Sequence[SolverHook] = (),
    ) -> None:
        """Build the nets and load the solver's `weights`.

        Raises:
            ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError: what does not fit.
        """
        self.param = type(param)()
        self.param.CopyFrom(param)
        check_solver(self.param)
        self.options = options if options is not None else SolverOptions()
        caffe_log(
            "solver.cpp:45",
            "Initializing solver from parameters: \n%s",
            text.to_text(self.param).rstrip(),
        )
        self.rule: UpdateRule = build_rule(self.param, backend, self.options)
        self._check_param()
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
        self._clock: int | None = None
        schedule = self.options.sidecar.schedule
        self.plateau = None if schedule is None else Plateau(schedule, self.param.base_lr)
        self.net, self.tests = build_nets(self.param, backend, self.options, self.seed)
        try:
            snapshots.check_names(self.net, self.param)
            if self.plateau is not None:
                self.plateau.check_metric([net.outputs for net in self.tests.nets])
        except VerydeepError:
            self.close()
            raise
        self.best = BestScore(schedule)
        self.engine = Engine(self.net, self.rule)
        self._debug = [DebugInfo(self.net)]
        self._debug += [DebugInfo(net, self.param.debug_info) for net in self.tests.nets]
        caffe_log("solver.cpp:57", "Solver scaffolding done.")

    # Building.

    def _check_param(self) -> None:
        if self.param.lr_policy and self.options.sidecar.schedule is None:
            check_policy(self.param)

    def _choose_seed(self) -> int:
        if self.param.random_seed >= 0:
            return int(self.param.random_seed)
        seed = self.options.seed if self.options.seed is not None else secrets.randbits(31)
        log.info("random_seed is not set; this run's is %d", seed)
        return seed

    # Running.

    @property
    def test_nets(self) -> list[Net]:
        return self.tests.nets

    def add_hook(self, hook: SolverHook) -> None:
        """Let something watch, or take part, after those already there."""
        self.hooks.append(hook)

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train up to max_iter, or until told to stop; snapshot and test at the end.

        Raises:
            TrainingError, DataError, SnapshotError: the run cannot go on; earlier snapshots stay.
        """
        caffe_log("solver.cpp:289", "Solving %s", self.net.name)
        policy = "plateau" if self.plateau is not None else self.param.lr_policy
        caffe_log("solver.cpp:290", "Learning Rate Policy: %s", policy)
        self._early_exit = False
        if resume_file is not None:
            caffe_log("solver.cpp:297", "Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        snapshots.refuse_foreign_snapshots(self)
        for hook in self.hooks:
            hook.on_solve(self)
        reason = "failed"
        try:
            self._solve()
            reason = "stopped" if self._early_exit else "done"
        except DataError:
            self._rescue()
            raise
        finally:
            for hook in self.hooks:
                hook.on_end(self, reason)

    def _solve(self) -> None:
        param = self.param
        smoother = LossSmoother(param.average_loss)
        self._step(param.max_iter - self.iter, smoother)
        scheduled = param.snapshot and self.iter % param.snapshot == 0
        if self._snapshot_failed or (param.snapshot_after_train and not scheduled):
            self.snapshot()
        if self._early_exit:
            caffe_log("solver.cpp:311", "Optimization stopped early.")
            return
        if param.display and self.iter % param.display == 0:
            loss = smoother.add(self.engine.compute_loss())
            caffe_log("solver.cpp:327", "Iteration %d, loss = %s", self.iter, number(loss))
        tested = self.plateau is not None and self.plateau.finished
        if param.test_interval and self.iter % param.test_interval == 0 and not tested:
            self.test_all()
        caffe_log("solver.cpp:332", "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Make this many updates, with the tests and snapshots that fall due."""
        self._step(iterations, LossSmoother(self.param.average_loss))

    def _step(self, iterations: int, smoother: LossSmoother) -> None:
        param, stop = self.param, self.iter + iterations
        while self.iter < stop:
            due = param.test_interval and self.iter % param.test_interval == 0
            if due and (self.iter > 0 or param.test_initialization):
                self.test_all()
                if self._early_exit or (self.plateau is not None and self.plateau.finished):
                    break
            self._iterate(smoother)
            request = self.requested_action()
            scheduled = param.snapshot and self.iter % param.snapshot == 0
            if scheduled or request is Action.SNAPSHOT:
                self._snapshot_or_go_on()
            for hook in self.hooks:
                hook.on_iteration_end(self)
            if request is Action.STOP:
                self._early_exit = True
                break

    def _iterate(self, smoother: LossSmoother) -> None:
        """One update: gradients, rate, step."""
        with self.net.exclusive():
            self._update_once(smoother)

    def _update_once(self, smoother: LossSmoother) -> None:
        self._clock = self.engine.pass_number
        for hook in self.hooks:
            hook.on_start(self)
        display = bool(self.param.display) and self.iter % self.param.display == 0
        self._debug[0].enabled = display and self.param.debug_info
        loss = self.engine.compute_gradients(self.param.iter_size)
        scores = tuple(self.engine.scores()) if display else ()
        self.progress = Progress(self.iter, loss, smoother.add(loss), display, scores)
        for hook in self.hooks:
            hook.on_iteration(self, self.progress)
        for hook in self.hooks:
            hook.on_gradients_ready(self)
        self.apply_update()
        self._clock = None

    def apply_update(self) -> None:
        """Change the weights by the gradients at hand, and count it.

        Caffe: SGDSolver::ApplyUpdate.
        """
        with self.net.exclusive():
            self.rate = self.learning_rate()
            for hook in self.hooks:
                hook.on_rate(self, self.iter, self.rate)
            self.engine.apply_update(self.param, self.rate, self.iter)
            self.iter += 1

    def learning_rate(self) -> float:
        """The rate of the coming update; moves current_step on where the policy has steps."""
        if self.plateau is not None:
            rate, step = self.plateau.rate, self.plateau.state.drops
        else:
            rate, step = learning_rate(self.param, self.iter, self.current_step)
        if (
            self.param.lr_policy == "multistep"
            and self.plateau is None
            and step > self.current_step
        ):
            caffe_log(
                "sgd_solver.cpp:50", "MultiStep Status: Iteration %d, step = %d", self.iter, step
            )
        self.current_step = step
        if not math.isfinite(rate):
            raise TrainingError(
                f"iteration {self.iter}: lr_policy '{self.param.lr_policy}' gives a rate of "
                f"{number(rate)}; expected a finite number; check gamma, power and max_iter"
            )
        return float(self.net.backend.dtype.type(rate))

    # Testing.

    def test_all(self) -> None:
        """Run every test net, unless told to stop. Caffe: Solver::TestAll."""
        with self.net.exclusive():
            self._test_all()

    def _test_all(self) -> None:
        self.tests.begin()
        results = []
        for net_id in range(len(self.tests.nets)):
            for hook in self.hooks:
                hook.on_test_start(self, net_id)
            result = self.tests.run(
                net_id, self.iter, self.param.test_compute_loss, self._go_on_testing
            )
            if result is None:
                break
            results.append(result)
        complete = len(results) == len(self.tests.nets)
        self.tests.end(complete)
        for result in results if complete else ():
            if self.plateau is not None:
                self.plateau.observe(self.iter, result)
            self.best.observe(self.iter, result)
            for hook in self.hooks:
                hook.on_test(self, result)

    def _go_on_testing(self) -> bool:
        while (request := self.requested_action()) is not Action.NONE:
            if request is Action.SNAPSHOT:
                self._snapshot_or_go_on()
            else:
                self._early_exit = True
        return not self._early_exit

    # Snapshots.

    def snapshot(self) -> tuple[Path, ...]:
        """Write weights, solver state and our state; returns their paths.

        Raises:
            SnapshotError: the disk is full or read-only; earlier snapshots are untouched.
        """
        with self.net.exclusive():
            return self._snapshot()

    def _snapshot(self) -> tuple[Path, ...]:
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
        files = snapshots.write_snapshot(self, state)
        self._snapshot_failed = False
        if self.options.keep is not None:
            log_json = self.options.log_json
            snapshots.prune_snapshots(self.param.snapshot_prefix, self.options.keep, log_json)
        for hook in self.hooks:
            hook.on_snapshot(self, files.all)
        return files.all

    def restore(self, path: str | Path, strict: bool = False) -> None:
        """Go on from a snapshot of ours, or of original Caffe.

        Caffe's files do not say where the data stood: it then stands where `iter` iterations leave
        it. With `strict`, a file that is not the one noted by its checksum is an error.

        Raises:
            SnapshotError: missing, torn, corrupt, or of another net or solver type.
        """
        with self.net.exclusive():
            self._restore(Path(path), strict)

    def _restore(self, path: Path, strict: bool) -> None:
        state = snapshots.restore_snapshot(self, path, strict)
        if state is None:
            passes = self.iter * self.param.iter_size * self.engine.shards
            self.engine.pass_number = passes
            log.info("%s is original Caffe's alone: the data goes on at pass %d", path, passes)
            return
        # The clock counts shards, and their number may have changed.
        self.engine.pass_number = state.train_pass * self.engine.shards // state.shards
        self.tests.set_passes(state.test_passes)
        self.best.from_json(state.best)
        if self.plateau is not None and state.plateau is not None:
            self.plateau.state = PlateauState.from_json(state.plateau, str(path))
        state.warn_of_changes(self.seed, self.net.backend.precision)

    def _snapshot_or_go_on(self) -> None:
        try:
            self.snapshot()
        except SnapshotError as error:
            if self.options.stop_on_snapshot_error:
                raise
            self._snapshot_failed = True
            log.error("The run goes on without this snapshot: %s", error)

    def _rescue(self) -> None:
        """Save what has been learnt before an error in the data ends the run."""
        if not self.param.snapshot_prefix or self.iter == 0:
            return
        if self._clock is not None:
            # The weights have seen nothing of the batches of an unfinished iteration.
            self.engine.pass_number = self._clock
        try:
            self.snapshot()
        except SnapshotError as error:
            log.error("What was learnt since the last snapshot is lost: %s", error)

    def close(self) -> None:
        """Stop the readers of all nets; the solver computes no more."""
        for net in (self.net, *self.tests.nets):
            net.close()
