"""Measures the speedup by several replicas, and the cost of shards on one device.

    python benchmarks/parallel.py                      replicas, shards and the model; 5 minutes
    python benchmarks/parallel.py --mpi                the same, and replicas as processes

Contestants run one iteration in turn, in one order and then in the reverse order, so that a slow
period of the machine affects all of them. The results are medians of times, and medians of the
ratios within a round with 95 % confidence intervals. Each replica has one thread.

Shards: a batch of 64 in one shard, compared with two shards of 32, the size of a shard of the
paper's batch of 256 in 8 shards. The cost of 8 shards is seven times that of the second shard, for
four times the batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, ROOT, write_record

from prototxt_gen import heads, proto
from prototxt_gen.sidecar import Sidecar
from prototxt_gen.spec import builtin_spec
from runtime.analysis.summary import summarize
from runtime.analysis.time_estimate import LayerCost, Machine, plan_step
from runtime.backend.base import Backend
from runtime.backend.cpu.lanes import default_threads
from runtime.backend.registry import create_backend
from runtime.net.shape_net import shape_net
from runtime.parallel.mpi import World, find_world
from runtime.parallel.mpi_group import follow, start_mpi
from runtime.parallel.shard_plan import plan_shards
from runtime.parallel.start import options_for, start_threads
from runtime.solvers.engine import BuildEngine
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver

SHARD = 32
PAPER_BATCH, PAPER_SHARDS = 256, 8
_COPIED = 1 << 26
"""The number of elements with which the machine's memory is measured."""


def solver_param(letter: str, batch: int) -> Any:
    """The paper's solver for one of its nets, which reads the same image repeatedly."""
    spec = builtin_spec(letter)
    net = proto.NetParameter(name=spec.name)
    data = net.layer.add(name="data", type="DummyData", top=["data", "label"])
    data.dummy_data_param.shape.add(dim=[batch, heads.CHANNELS, spec.crop, spec.crop])
    data.dummy_data_param.shape.add(dim=[batch])
    data.dummy_data_param.data_filler.add(type="constant", value=1.0)
    data.dummy_data_param.data_filler.add(type="constant", value=1.0)
    for layer in heads.train_val(spec).layer:
        if layer.type not in ("Data", "Accuracy"):
            net.layer.add().CopyFrom(layer)
    return proto.SolverParameter(
        net_param=net,
        base_lr=1e-4,
        momentum=0.9,
        weight_decay=5e-4,
        lr_policy="fixed",
        random_seed=1,
    )


class Contestant:
    """A solver with given numbers of shards and replicas."""

    def __init__(
        self,
        param: Any,
        shards: int,
        replicas: int = 1,
        threads: int = 1,
        world: World | None = None,
    ) -> None:
        # The solver's fillers take half a minute for a net of this size.
        options = SolverOptions(sidecar=Sidecar(shards=shards), share_activations=True)
        plan = plan_shards(param, options, replicas)
        given = dataclasses.replace(options_for(options, plan), empty_weights=True)
        build_engine: BuildEngine = LocalEngine
        if world is not None:
            build_engine = functools.partial(start_mpi, world, plan=plan)
        elif plan.shards > 1:
            build_engine = functools.partial(
                start_threads, plan=plan, open_replica=lambda rank: open_backend(threads)
            )
        self.solver = Solver(param, open_backend(threads), given, build_engine=build_engine)
        fill_weights(self.solver)

    def close(self) -> None:
        """Close the solver, and free its memory."""
        self.solver.close()

    def run(self) -> float:
        """Run one iteration, and return its time. Units: s."""
        start = time.perf_counter()
        self.solver.step(1)
        return time.perf_counter() - start


def open_backend(threads: int) -> Backend:
    return create_backend("cpu", threads=threads)


def fill_weights(solver: Solver) -> None:
    """Fill weights such that activations stay in range."""
    random = np.random.default_rng(0)
    for blob in solver.net.params.learnable:
        if blob.num_axes > 1:
            scale = (2 * blob.shape[0] / blob.count()) ** 0.5
            values = random.standard_normal(blob.count(), np.float32) * np.float32(scale)
            blob.data.mutable_host().reshape(-1)[...] = values


def rounds(contestants: dict[str, Contestant], count: int) -> dict[str, list[float]]:
    """Times of each contestant in each round, after one round for warming up. Units: s."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(count + 1):
        turn = list(contestants) if number % 2 else list(reversed(contestants))
        for name in turn:
            taken = contestants[name].run()
            if number:
                times[name].append(taken)
    for contestant in contestants.values():
        contestant.close()
    contestants.clear()
    return times


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The median of ratios, and the bounds of its 95 % confidence interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, times: dict[str, list[float]], over: str, under: str) -> Ratio:
        ratios = sorted(a / b for a, b in zip(times[over], times[under], strict=True))
        outside = max(0, int((len(ratios) - 1.96 * len(ratios) ** 0.5) / 2))
        return cls(statistics.median(ratios), ratios[outside], ratios[-1 - outside])


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def speedup_of(letter: str, batch: int, times: dict[str, list[float]]) -> dict[str, Any]:
    """The times, and the ratio of the time of "1" to that of "2"."""
    ratio = Ratio.of(times, "1", "2")
    return {
        "net": letter,
        "batch": batch,
        "rounds": len(times["1"]),
        "seconds": medians(times),
        "speedup": ratio.median,
        "between": [ratio.low, ratio.high],
    }


def replicas_case(letter: str, batch: int, count: int) -> dict[str, Any]:
    param = solver_param(letter, batch)
    contestants = {"1": Contestant(param, 1), "2": Contestant(param, 2, 2)}
    return speedup_of(letter, batch, rounds(contestants, count))


def shards_case(letter: str, count: int, threads: int) -> dict[str, Any]:
    param = solver_param(letter, 2 * SHARD)
    whole = Contestant(param, 1, threads=threads)
    cut = Contestant(param, 2, threads=threads)
    times = rounds({"whole": whole, "in two shards": cut}, count)
    more = Ratio.of(times, "in two shards", "whole")
    scale = (PAPER_SHARDS - 1) / (PAPER_BATCH / (2 * SHARD))
    return {
        "net": letter,
        "batch": 2 * SHARD,
        "threads": threads,
        "rounds": count,
        "seconds": medians(times),
        "cost_of_second_shard": more.median - 1,
        "cost_of_8_shards_at_batch_256": scale * (more.median - 1),
        "between": [scale * (more.low - 1), scale * (more.high - 1)],
    }


def memory_gbs() -> float:
    """The bandwidth of an addition of two long vectors by one thread. Units: GB/s."""
    backend = open_backend(1)
    x, y = (backend.memory.empty(_COPIED, backend.dtype) for _ in range(2))
    backend.memory.fill(x, 1.0)
    backend.memory.fill(y, 1.0)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        backend.vectors.axpy(1.0, x, y)
        taken.append(time.perf_counter() - start)
    return 3 * 4 * _COPIED / min(taken) / 1e9


def model_case(letter: str, batch: int, alone: float) -> dict[str, Any]:
    """The speedup of two replicas on this machine that the performance model predicts.

    Its inputs: one replica's measured speed, and memory, which is also the link here.
    """
    speed = memory_gbs()
    backend = open_backend(1)
    net = shape_net(heads.deploy(builtin_spec(letter)), proto.TEST, backend, batch=1)
    layers = [LayerCost(row.multiply_adds, row.parameters) for row in summarize(net).rows]
    flops = 6 * batch * sum(layer.multiply_adds for layer in layers)
    estimate = plan_step(layers, batch, 2, 2, Machine(flops / alone / 1e12, speed, speed))
    return {"memory_gbs": speed, "predicted_speedup": estimate.speedup, **estimate.as_dict()}


def mpi_case(letter: str, batch: int, count: int) -> dict[str, Any]:
    """Measure two processes of one thread under mpirun; see `as_rank`."""
    command = [sys.executable, __file__, "--net", letter, "--batch", str(batch)]
    words = ["mpirun", "-n", "2", *command, "--rounds", str(count), "--as-rank"]
    # Open MPI requires a confirmation to run as root.
    allowed = ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")
    environment = os.environ | {f"OMPI_{name}": "1" for name in allowed}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    times: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return times


def as_rank(letter: str, batch: int, count: int) -> int:
    """Run a process of `mpi_case`; rank 0 prints the times."""
    world = find_world()
    if world is None:
        print("--as-rank is for processes that mpirun starts", file=sys.stderr)
        return 2
    if world.rank:
        return follow(world, lambda param: open_backend(1))
    param = solver_param(letter, batch)
    alone, both = Contestant(param, 1), Contestant(param, 2, 2, world=world)
    # The other rank waits while one works alone.
    print(json.dumps(speedup_of(letter, batch, rounds({"1": alone, "2": both}, count))))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="A")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=default_threads(), help="of the shards' run")
    parser.add_argument("--only", choices=("replicas", "shards"))
    parser.add_argument("--mpi", action="store_true", help="two processes under mpirun as well")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS / "parallel.json", metavar="FILE")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.as_rank:
        return as_rank(args.net, args.batch, args.rounds)
    results: dict[str, Any] = {}
    if args.only != "shards":
        results["replicas"] = replicas_case(args.net, args.batch, args.rounds)
        print("2 replicas against 1:", json.dumps(results["replicas"]), flush=True)
        results["model"] = model_case(args.net, args.batch, results["replicas"]["seconds"]["1"])
        print(f"predicted speedup: {results['model']['predicted_speedup']:.2f} x", flush=True)
        if args.mpi:
            results["mpi"] = mpi_case(args.net, args.batch, args.rounds)
            print("2 processes under mpirun:", json.dumps(results["mpi"]), flush=True)
    gc.collect()
    if args.only != "replicas":
        results["shards"] = shards_case(args.net, args.rounds, args.threads)
        print("2 shards against 1:", json.dumps(results["shards"]), flush=True)
    write_record(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
