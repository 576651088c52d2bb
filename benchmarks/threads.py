"""Throughput of a net in each of several threads, compared with one net in one thread.

Both use the same number of kernel threads: a single net uses all of them, several nets share them.

python benchmarks/threads.py --json benchmarks/results/threads.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from record import write_record
from vgg_nets import fed, fill, specification

from prototxt_gen import heads, proto
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.context import RunContext
from runtime.net import Net

# Net and batch, and the passes of one round.
_JOBS = (("D", 1, 8), ("A/8", 16, 64), ("A/8", 1, 200))


def _nets(name: str, batch: int, count: int) -> list[Net]:
    spec = specification(name)
    backend = CpuBackend(threads=count)
    nets = []
    for _ in range(count):
        param = fed(heads.deploy(spec), batch, spec.crop)
        net = Net(param, proto.TEST, backend, RunContext(fill_weights=False))
        fill(net, spec.classes)
        nets.append(net)
    return nets


def _passes(net: Net, count: int) -> None:
    for _ in range(count):
        net.forward()


def _one_thread(nets: list[Net], passes: int) -> float:
    start = time.perf_counter()
    _passes(nets[0], passes)
    return time.perf_counter() - start


def _thread_for_each(nets: list[Net], passes: int) -> float:
    share = passes // len(nets)
    threads = [threading.Thread(target=_passes, args=(net, share)) for net in nets]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def measure(name: str, batch: int, passes: int, count: int, rounds: int) -> dict[str, Any]:
    """The time of a pass in each round, and the ratio of one thread to several. Units: ms."""
    nets = _nets(name, batch, count)
    times: dict[str, list[float]] = {"one_thread_ms": [], "thread_for_each_ms": []}
    for number in range(rounds + 1):
        for key, run in (("one_thread_ms", _one_thread), ("thread_for_each_ms", _thread_for_each)):
            spent = 1000 * run(nets, passes) / passes
            if number:
                times[key].append(spent)
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    return {"net": name, "batch": batch, "threads": count, **times} | {
        "ratio": statistics.median(ratios)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="nets and kernel threads")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the times to this file")
    args = parser.parse_args()
    results = []
    for name, batch, passes in _JOBS:
        result = measure(name, batch, passes, args.threads, args.rounds)
        results.append(result)
        one, several = (
            statistics.median(result[key]) for key in ("one_thread_ms", "thread_for_each_ms")
        )
        print(
            f"{name} batch {batch}: {one:.2f} ms a pass in one thread, {several:.2f} ms in "
            f"{args.threads} threads with a net each, {result['ratio']:.2f} x"
        )
    if args.json:
        write_record(args.json, {"results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
