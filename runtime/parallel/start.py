"""Builds the replicas of a plan, in one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prototxt_gen.proto import copy_of
from runtime.backend.base import Backend
from runtime.net import Net
from runtime.parallel.collective import PATIENCE, Collective
from runtime.parallel.engine import ReplicaEngine
from runtime.parallel.group import ThreadGroup
from runtime.parallel.links import link_for
from runtime.parallel.replica import Replica
from runtime.parallel.shard_plan import ShardPlan
from runtime.solvers.build import build_nets, build_rule
from runtime.solvers.engine import EngineSetup
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.options import SolverOptions

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


def first_replica(setup: EngineSetup, plan: ShardPlan, collective: Collective) -> Replica:
    """The replica with the solver's own nets."""
    backend = setup.net.backend
    shared = _shares_weights(backend, collective)
    link = link_for(backend, collective, plan.transport)
    return Replica(setup.net, setup.test_nets, setup.rule, plan, collective, shared, link)


def further_replica(
    param: Any,
    options: SolverOptions,
    seed: int,
    plan: ShardPlan,
    backend: Backend,
    collective: Collective,
    first_net: Net | None = None,
) -> Replica:
    """A replica with nets of its own; `first_net` is the first replica's in the same process.

    In host memory the weights of all replicas in a process are the first replica's.

    Raises:
        VerydeepError: the nets cannot be built on this device.
    """
    param_without_weights = copy_of(param)
    del param_without_weights.weights[:]
    replica_options = options_for(options, plan, collective.rank)
    net, tests = build_nets(param_without_weights, backend, replica_options, seed)
    shared = first_net is not None and _shares_weights(backend, collective)
    if shared and first_net is not None:
        share_trained_layers(net, first_net)
    rule = build_rule(param_without_weights, backend, options)
    link = link_for(backend, collective, plan.transport)
    return Replica(net, tests, rule, plan, collective, shared, link)


def _shares_weights(backend: Backend, collective: Collective) -> bool:
    return backend.shares_host_memory and collective.in_process


def start_threads(
    setup: EngineSetup, plan: ShardPlan, open_replica: OpenReplica, patience: float = PATIENCE
) -> ReplicaEngine:
    """The engine of a solver with the replicas of a plan in this process.

    The solver must be built with `options_for`.

    Raises:
        VerydeepError: a device is not available, or a replica cannot be built on it.
    """

    def build(rank: int, collective: Collective) -> Replica:
        if rank == 0:
            return first_replica(setup, plan, collective)
        backend = open_replica(rank)
        return further_replica(
            setup.param, setup.options, setup.seed, plan, backend, collective, setup.net
        )

    return ReplicaEngine(setup, ThreadGroup(plan.replicas, build, patience), plan)
