"""The cost of dense evaluation: net D on uncropped images, compared with crops.

    python benchmarks/dense.py

The cost of a multiply-add on images of short side Q (3:4), one by one and in the batches of
`verydeep evaluate`, relative to that in a plain forward pass on crops: the median over rounds in
which all run one after the other. Paper: section 3.2.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, write_record
from rich.progress import track
from vgg_nets import specification, write_net

from prototxt_gen import heads, proto
from runtime.analysis.summary import summarize
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.lanes import default_threads
from runtime.evaluate.score_net import ScoreNet
from runtime.net.shape_net import shape_net

NET = "D"
SCALES = (256, 384, 512)
CROP_BATCHES = (1, 8)
AIM = 1.15


def multiply_adds(dense: bool, height: int, width: int) -> int:
    """The multiply-adds of one image, without soft-max and spatial average."""
    spec = specification(NET)
    param = heads.dense(spec) if dense else heads.deploy(spec)
    net = shape_net(param, proto.TEST, CpuBackend(), image=(heads.CHANNELS, height, width))
    return summarize(net).multiply_adds


def work(net: ScoreNet, batch: int, height: int, width: int) -> Callable[[], object]:
    images = np.random.default_rng(0).standard_normal((batch, 3, height, width), np.float32)
    return lambda: net.score_maps(images)


def measure(rounds: int, threads: int) -> dict[str, Any]:
    """The time per multiply-add of every case in every round. Units: ns."""
    backend, param = CpuBackend(threads=threads), heads.deploy(specification(NET))
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_net(NET, Path(folder))
        weights = Path(folder, f"{NET}.caffemodel")
        crops = ScoreNet(param, weights, backend, dense=False)
        whole = ScoreNet(param, weights, backend, dense=True)
    for batch in CROP_BATCHES:
        runs[f"crop, batch {batch}"] = (
            work(crops, batch, 224, 224),
            batch * multiply_adds(False, 224, 224),
        )
    for scale in SCALES:
        size = (scale, scale * 4 // 3)
        for batch in (1, whole.batch_for(*size)):
            cost = batch * multiply_adds(True, *size)
            runs[f"dense, Q = {scale}, batch {batch}"] = (work(whole, batch, *size), cost)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for number in track(range(rounds + 1), "rounds", disable=not sys.stderr.isatty()):
        for name, (run, cost) in runs.items():
            start = time.perf_counter()
            run()
            if number:
                spent[name].append(1e9 * (time.perf_counter() - start) / cost)
    return {"aim": AIM, "ns_per_multiply_add": spent, "ratios": ratios(spent)}


def ratios(spent: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Ratios of dense cases to crop cases: the medians of the ratios of the rounds."""
    plain = {name: values for name, values in spent.items() if name.startswith("crop")}
    return {
        name: {
            other: statistics.median(a / b for a, b in zip(values, base, strict=True))
            for other, base in plain.items()
        }
        for name, values in spent.items()
        if name not in plain
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path, default=RESULTS / "dense.json", metavar="FILE")
    args = parser.parse_args()
    results = measure(args.rounds, args.threads)
    write_record(args.json, {"threads": args.threads} | results)
    for name, by_base in results["ratios"].items():
        print(f"{name}: " + ", ".join(f"{ratio:.2f} of {base}" for base, ratio in by_base.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
