"""Shard plans: the number of shards of a batch, and the shards that each replica computes.

The number of shards is, in this order: the sidecar's; the number in the snapshot that is resumed;
8, if the batch is divisible and either several replicas compute it or it has the paper's size (256)
and a net that is large enough; one for each replica. So the paper's nets and batch give the same
weights on 1, 2, 4 and 8 devices. One device computes a smaller batch or net in one shard, because
small shards are slower.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prototxt_gen.errors import ProtoError, UnsupportedError
from runtime.analysis.summary import summarize
from runtime.backend.registry import create_backend
from runtime.core.context import PassWindow
from runtime.layers.factory import class_of
from runtime.net.batch_cut import batch_of_sources, divisible_types, sources
from runtime.net.building import filter_net
from runtime.net.shape_net import shape_net
from runtime.parallel.links import AUTO
from runtime.solvers.nets import NetSource, train_net_source
from runtime.solvers.options import SolverOptions

log = logging.getLogger("verydeep.parallel")

GLOBAL, PER_GPU = "global", "per-gpu"
SEMANTICS = (GLOBAL, PER_GPU)
SHARDS = 8
PAPER_BATCH = 256
LEAST_WORK = 10**10
"""Multiply-adds of a shard's forward pass that make the cost of a shard small."""
LEAST_REUSE = 1024
"""The same for each parameter."""


@dataclass(frozen=True)
class ShardPlan:
    """A batch of `batch` images in `shards` equal parts, computed by `replicas` devices."""

    batch: int | None
    """None if the data layers have no batch that can be divided."""
    shards: int
    replicas: int
    iter_size: int = 1
    cut: bool = True
    """False: every shard has the size of the prototxt's batch, as in BVLC Caffe."""
    transport: str = AUTO
    """The transport between devices; see links.py."""

    def run_of(self, replica: int) -> range:
        """The shards that a replica computes."""
        count = self.shards // self.replicas
        return range(replica * count, (replica + 1) * count)

    def window(self, replica: int) -> PassWindow:
        """The passes of an iteration that a replica computes: iter_size for each shard."""
        run = self.run_of(replica)
        passes = self.shards * self.iter_size
        return PassWindow(passes, run.start * self.iter_size, run.stop * self.iter_size)

    @property
    def net_parts(self) -> int:
        """The number of parts of the train net's batch."""
        return self.shards if self.cut else 1


def plan_shards(
    param: Any,
    options: SolverOptions,
    replicas: int = 1,
    semantics: str = GLOBAL,
    resumed: int | None = None,
) -> ShardPlan:
    """Choose the shards of a run; `resumed` is the number in the snapshot that it resumes.

    Raises:
        UnsupportedError: several devices or shards are requested for a net that cannot be divided.
        ProtoError: the batch or the number of shards is not divisible.
    """
    source = train_net_source(param, options.root)
    batch = batch_of_sources(source.param, source.state)
    requested = options.sidecar.shards
    faults = coupled_layers(source.param, source.state)
    iter_size = int(param.iter_size)
    if semantics == PER_GPU:
        plan = ShardPlan(batch, replicas, replicas, iter_size, cut=False)
    else:
        fixed = resumed if resumed and resumed > 1 and requested is None else requested
        if fixed is None and (param.debug_info or batch is None or faults) and replicas == 1:
            fixed = 1
        shards = fixed or _default(source, batch or 0, replicas)
        plan = ShardPlan(batch, shards, replicas, iter_size)
    _check(plan, source.param, source.state, faults)
    if param.debug_info and plan.shards > 1:
        raise UnsupportedError(
            "solver: debug_info logs one pass of one net; expected one shard on one device, got "
            f"{plan.shards} shards on {replicas}; remove debug_info"
        )
    return plan


def _default(source: NetSource, batch: int, replicas: int) -> int:
    fits = batch % SHARDS == 0 and SHARDS % replicas == 0
    paper = batch >= PAPER_BATCH and fits
    small = paper and replicas == 1 and not _shards_are_cheap(source, batch // SHARDS)
    shards = SHARDS if fits and (paper or replicas > 1) and not small else replicas
    if small:
        log.info(
            "The batch of %d is computed in one shard, because %d would be slower on one device; "
            "with [parallel] shards = %d in the sidecar the weights equal those of several devices",
            batch,
            SHARDS,
            SHARDS,
        )
    if replicas > 1 and (shards != SHARDS or batch < PAPER_BATCH):
        log.info(
            "%d shards for %d replicas: one device would compute the batch of %d in one shard, and "
            "its weights would differ in their last bits; [parallel] shards = %d in the sidecar "
            "makes them the same",
            shards,
            replicas,
            batch,
            shards,
        )
    return shards


def _check(plan: ShardPlan, param: Any, state: Any, faults: list[str]) -> None:
    if plan.shards == 1:
        return
    if plan.batch is None:
        types = ", ".join(layer.type for layer in sources(filter_net(param, state))) or "none"
        raise UnsupportedError(
            f"net '{param.name}': its batch cannot be split over {plan.replicas} replica(s) and "
            f"{plan.shards} shards; expected data layers of one batch_size, of the types "
            f"{', '.join(divisible_types())}, got {types}; train it on one device, in one shard"
        )
    if faults:
        raise UnsupportedError(
            f"net '{param.name}': {faults[0]}; expected samples that do not depend on each other, "
            f"because its batch would be divided into {plan.shards} shards; train it on one "
            "device, in one shard"
        )
    if plan.cut and plan.batch % plan.shards:
        raise ProtoError(
            f"net '{param.name}': the batch of {plan.batch} is not divisible into {plan.shards} "
            f"equal shards for {plan.replicas} replica(s); expected a multiple of {plan.shards}; "
            "change batch_size or the number of devices, or use --batch-semantics per-gpu"
        )
    if plan.shards % plan.replicas:
        raise ProtoError(
            f"[parallel] shards: {plan.shards} shards do not divide among {plan.replicas} replicas"
            f"; expected a multiple of {plan.replicas}; use another number of devices, or shards"
        )


def _shards_are_cheap(source: NetSource, images: int) -> bool:
    """Whether shards of so many images are large enough for one device, by the net's shapes.

    Each further shard costs some passes over the gradient, which has one value per parameter, and
    one more round of calls. If the arithmetic of a shard is large compared with both, the cost is
    below 3 % (benchmarks/parallel.py). The paper's nets at batch 256 have more than 1,500
    multiply-adds per parameter; small and mostly fully-connected nets have less.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: the net cannot be built.
    """
    state: Any = source.state
    stages, backend = list(state.stage), create_backend("cpu", threads=1)
    with (
        _quiet("verydeep.net"),
        shape_net(
            source.param, state.phase, backend, level=state.level, stages=stages, batch=1
        ) as net,
    ):
        rows = summarize(net).rows
    work = images * sum(row.multiply_adds for row in rows)
    parameters = sum(row.parameters for row in rows)
    return work >= LEAST_WORK and work >= LEAST_REUSE * parameters


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Disable a logger's lines, because the net that is trained logs them again."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def coupled_layers(param: Any, state: Any) -> list[str]:
    """The layers that make a net's gradient differ from the mean over its shards, with reasons."""
    reasons = []
    for layer in filter_net(param, state).layer:
        reason = class_of(layer.type).coupling(layer)
        if reason is not None:
            reasons.append(f"layer '{layer.name}' ({layer.type}) {reason}")
    return reasons
