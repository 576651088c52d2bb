"""Into how many shards a batch is cut, and which of them each replica computes.

The rule: what the sidecar says; else what the snapshot resumed from was trained with; else 8 where
the batch is divisible and shared by several replicas, or where it has the paper's size (256) and
the net is large enough for shards to cost nothing (shard_worth.py); else one a replica. So the
paper's nets and batch give the same weights on 1, 2, 4 and 8 devices without asking. A smaller
batch, or net, on one device is left whole: its shards would be too small to be computed at speed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from prototxt_gen.errors import ProtoError, UnsupportedError
from runtime.core.context import PassWindow
from runtime.layers.factory import class_of
from runtime.net.batch_cut import batch_of_sources, divisible_types, sources
from runtime.net.building import filter_net
from runtime.parallel.links import AUTO
from runtime.parallel.shard_worth import is_worth_it
from runtime.solvers.nets import NetSource, train_net_source
from runtime.solvers.options import SolverOptions

log = logging.getLogger("verydeep.parallel")

GLOBAL, PER_GPU = "global", "per-gpu"
SEMANTICS = (GLOBAL, PER_GPU)
SHARDS = 8
PAPER_BATCH = 256


@dataclass(frozen=True)
class ShardPlan:
    """`batch` images a pass of the whole, in `shards` parts, over `replicas` devices."""

    batch: int | None
    """None where the data is not in layers whose batch can be cut."""
    shards: int
    replicas: int
    iter_size: int = 1
    cut: bool = True
    """False: every shard is as large as the prototxt's batch (BVLC Caffe's rule)."""
    transport: str = AUTO
    """How arrays get from device to device; see links.py."""

    def run_of(self, replica: int) -> range:
        """The shards that a replica computes."""
        each = self.shards // self.replicas
        return range(replica * each, (replica + 1) * each)

    def window(self, replica: int) -> PassWindow:
        """The passes of an iteration that a replica computes: iter_size a shard."""
        run = self.run_of(replica)
        passes = self.shards * self.iter_size
        return PassWindow(passes, run.start * self.iter_size, run.stop * self.iter_size)

    @property
    def net_parts(self) -> int:
        """What the train net's batch is divided by."""
        return self.shards if self.cut else 1


def plan_shards(
    param: Any,
    options: SolverOptions,
    replicas: int = 1,
    semantics: str = GLOBAL,
    resumed: int | None = None,
) -> ShardPlan:
    """Choose the shards of a run; `resumed` is the number that its snapshot was taken with.

    Raises:
        UnsupportedError: the net cannot be trained in shards, and several devices ask for it.
        ProtoError: the batch, or the number of shards, is not divisible.
    """
    source = train_net_source(param, options.root)
    batch = batch_of_sources(source.param, source.state)
    asked = options.sidecar.shards
    faults = coupled_layers(source.param, source.state)
    iter_size = int(param.iter_size)
    if semantics == PER_GPU:
        plan = ShardPlan(batch, replicas, replicas, iter_size, cut=False)
    else:
        exact = resumed if resumed and resumed > 1 and asked is None else asked
        if exact is None and (param.debug_info or batch is None or faults) and replicas == 1:
            exact = 1
        shards = exact or _default(source, batch or 0, replicas)
        plan = ShardPlan(batch, shards, replicas, iter_size)
    _check(plan, source.param, source.state, faults)
    if param.debug_info and plan.shards > 1:
        raise UnsupportedError(
            "solver: debug_info shows one pass of one net; expected one shard on one device, got "
            f"{plan.shards} shards on {replicas}; remove debug_info"
        )
    return plan


def _default(source: NetSource, batch: int, replicas: int) -> int:
    fits = batch % SHARDS == 0 and SHARDS % replicas == 0
    paper = batch >= PAPER_BATCH and fits
    small = paper and replicas == 1 and not is_worth_it(source, batch // SHARDS)
    shards = SHARDS if fits and (paper or replicas > 1) and not small else replicas
    if small:
        log.info(
            "The batch of %d is left whole: %d shards would cost this net time on one device; "
            "[parallel] shards = %d in the sidecar gives the weights of several devices to the bit",
            batch,
            SHARDS,
            SHARDS,
        )
    if replicas > 1 and (shards != SHARDS or batch < PAPER_BATCH):
        log.info(
            "%d shards for %d replicas: one device would take the batch of %d whole, and its "
            "weights would differ in their last bits; [parallel] shards = %d in the sidecar makes "
            "them the same",
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
            f"net '{param.name}': {faults[0]}; expected samples that do not touch each other, "
            f"since its batch would be cut into {plan.shards} shards; train it on one device, in "
            "one shard"
        )
    if plan.cut and plan.batch % plan.shards:
        raise ProtoError(
            f"net '{param.name}': the batch of {plan.batch} is not divisible into {plan.shards} "
            f"equal shards for {plan.replicas} replica(s); expected a multiple of {plan.shards}; "
            "change batch_size or the number of devices, or say --batch-semantics per-gpu"
        )
    if plan.shards % plan.replicas:
        raise ProtoError(
            f"[parallel] shards: {plan.shards} shards do not divide among {plan.replicas} replicas"
            f"; expected a multiple of {plan.replicas}; use another number of devices, or shards"
        )


def coupled_layers(param: Any, state: Any) -> list[str]:
    """Why a net's gradient is not the mean of its shards' gradients: a sentence a layer."""
    reasons = []
    for layer in filter_net(param, state).layer:
        reason = class_of(layer.type).coupling(layer)
        if reason is not None:
            reasons.append(f"layer '{layer.name}' ({layer.type}) {reason}")
    return reasons
