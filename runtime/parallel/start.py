"""Puts a solver on several replicas of one process, or in shards on one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from runtime.backend.base import Backend
from runtime.parallel.collective import PATIENCE, Collective
from runtime.parallel.crew import Crew, ThreadCrew
from runtime.parallel.engine import ReplicaEngine, ReplicaTests
from runtime.parallel.links import link_for
from runtime.parallel.replica import Replica
from runtime.parallel.shard_plan import ShardPlan
from runtime.solvers.build import build_nets, build_rule
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver

OpenReplica = Callable[[int], Backend]
"""Opens the device of replica 1, 2, ...; called in that replica's thread."""


def options_for(options: SolverOptions, plan: ShardPlan, rank: int = 0) -> SolverOptions:
    """The options of one replica's nets."""
    return dataclasses.replace(
        options,
        shards=plan.net_parts,
        window=plan.window(rank),
        empty_weights=rank > 0,
        rng=options.rng if rank == 0 else None,
    )


def first_replica(solver: Solver, plan: ShardPlan, collective: Collective) -> Replica:
    """The replica of the solver's own nets."""
    shared = _shares(solver.net.backend, collective)
    link = link_for(solver.net.backend, collective, plan.transport)
    return Replica(solver.net, solver.test_nets, solver.rule, plan, collective, shared, link)


def further_replica(
    param: Any,
    options: SolverOptions,
    seed: int,
    plan: ShardPlan,
    backend: Backend,
    collective: Collective,
    source: Solver | None = None,
) -> Replica:
    """A replica with nets of its own; with a `source`, host memory's weights are the source's."""
    bare = type(param)()
    bare.CopyFrom(param)
    del bare.weights[:]
    net, tests = build_nets(bare, backend, options_for(options, plan, collective.rank), seed)
    shared = source is not None and _shares(backend, collective)
    if shared and source is not None:
        share_trained_layers(net, source.net)
    rule = build_rule(bare, backend, options)
    link = link_for(backend, collective, plan.transport)
    return Replica(net, tests.nets, rule, plan, collective, shared, link)


def _shares(backend: Backend, collective: Collective) -> bool:
    return backend.shares_host_memory and collective.in_process


def attach(solver: Solver, crew: Crew, plan: ShardPlan) -> None:
    """Let a solver, before its first step, work through a crew."""
    solver.engine = ReplicaEngine(solver.net, solver.rule, crew, plan)
    solver.tests = ReplicaTests(solver.tests, crew)


def start_threads(
    solver: Solver, plan: ShardPlan, open_replica: OpenReplica, patience: float = PATIENCE
) -> ThreadCrew:
    """Make the replicas of a plan in this process, and put the solver on them.

    The solver's nets must have been built with `options_for`. Close the crew in the end.

    Raises:
        VerydeepError: a device cannot be had, or a replica cannot be built on it.
    """

    def build(rank: int, collective: Collective) -> Replica:
        if rank == 0:
            return first_replica(solver, plan, collective)
        backend = open_replica(rank)
        return further_replica(
            solver.param, solver.options, solver.seed, plan, backend, collective, solver
        )

    crew = ThreadCrew(plan.replicas, build, patience)
    attach(solver, crew, plan)
    return crew
