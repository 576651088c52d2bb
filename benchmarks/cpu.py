"""Nets of the paper on the CPU, compared with PyTorch, cv2.dnn and figures of original Caffe.

    make bench

or, with a Python that has PyTorch and OpenCV 4 (benchmarks/peers.txt):

    python benchmarks/cpu.py --peers PYTHON

Every contestant is a process; in each round all run once, one after the other. A ratio is the
median over rounds of (peer's time / ours), for the fastest settings of the peer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import TUNED, Entry, Job, Outcome, compete
from cpu_report import plot, table
from pipeline import MIRRORED, jpeg_rate
from record import RESULTS, ROOT, write_record
from rich.progress import Progress
from vgg_nets import write_net

from runtime.backend.cpu.lanes import default_threads

OURS = "verydeep"
CAFFE_TO_TORCH = (654 / 557, 761 / 557, 868 / 557)
"""Original Caffe's time over that of PyTorch (channels last, default malloc) for net D forward and
backward at batch 8, measured together: best, median and worst. Original Caffe can no longer be
measured with the others; its times on this machine are derived from those of PyTorch."""
CAFFE_JPEG = 1045.0
"""The best rate of its Data layer on JPEGs of 20 kB there. Units: images/s."""


@dataclass(frozen=True)
class Bar:
    """A target. `peer` is torch, opencv or caffe; `measure` is time or memory."""

    key: str
    title: str
    job: tuple[str, str, int]
    peer: str
    at_least: float
    rounds: int
    measure: str = "time"
    on_end: int = 1
    """Computations per round: several if they are short, as in training."""


BARS = (
    Bar("step D 8", "D, forward + backward, batch 8", ("step", "D", 8), "torch", 2.2, 5),
    Bar("step D 16", "D, forward + backward, batch 16", ("step", "D", 16), "torch", 2.2, 3),
    Bar("step D 1", "D, forward + backward, batch 1", ("step", "D", 1), "torch", 1.5, 9),
    Bar("caffe D 8", "D, forward + backward, batch 8", ("step", "D", 8), "caffe", 4.5, 5),
    Bar("forward D 1", "D, forward, batch 1", ("forward", "D", 1), "opencv", 1.1, 15),
    Bar("forward E 1", "E, forward, batch 1", ("forward", "E", 1), "opencv", 1.1, 15),
    Bar("forward D 8", "D, forward, batch 8", ("forward", "D", 8), "opencv", 1.8, 7),
    Bar("forward E 8", "E, forward, batch 8", ("forward", "E", 8), "opencv", 1.8, 7),
    Bar(
        "iteration A/8",
        "A at width 1/8, 64x64, batch 64, iteration",
        ("iteration", "A/8", 64),
        "torch",
        1.5,
        9,
        on_end=40,
    ),
    Bar(
        "memory D 8",
        "peak memory, D, forward + backward, batch 8",
        ("step", "D", 8),
        "torch",
        1 / 0.9,
        1,
        "memory",
    ),
)


def entries(bar: Bar, peers: str, nets: Path) -> list[Entry]:
    """The contestants of a target."""
    ours = Entry(OURS, sys.executable, "verydeep_nets.py")
    if bar.peer == "opencv":
        environment = (("VERYDEEP_BENCH_NETS", str(nets)),)
        return [ours, Entry("cv2.dnn", peers, "opencv_nets.py", (), environment)]
    if bar.peer == "caffe":
        return [ours, Entry("PyTorch nhwc", peers, "torch_nets.py", ("--layout", "nhwc"))]
    # Tuning makes PyTorch faster and its memory larger: each measure uses what is better for it.
    tuned = tuple(TUNED.items()) if bar.measure == "time" else ()
    return [
        ours,
        *(
            Entry(f"PyTorch {layout}", peers, "torch_nets.py", ("--layout", layout), tuned)
            for layout in ("nchw", "nhwc")
        ),
    ]


def measure(bar: Bar, peers: str, nets: Path, threads: int) -> dict[str, Any]:
    """The results of one target."""
    job = Job(*bar.job, threads=threads)
    outcome = compete(entries(bar, peers, nets), job, bar.rounds, bar.on_end)
    ratio, against, values = judged(bar, outcome)
    return {
        "key": bar.key,
        "title": bar.title,
        "against": against,
        "at_least": bar.at_least,
        "ratio": ratio,
        "unit": "MB" if bar.measure == "memory" else "ms",
        "values": values,
        "rounds": outcome.times,
        "contestants": outcome.descriptions,
    }


def judged(bar: Bar, outcome: Outcome) -> tuple[float, str, dict[str, float]]:
    """The ratio, the peer it refers to, and the value of every contestant."""
    others = [key for key in outcome.times if key != OURS]
    if bar.measure == "memory":
        peer = min(others, key=outcome.peaks.__getitem__)
        return outcome.peaks[peer] / outcome.peaks[OURS], peer, outcome.peaks
    values = {key: outcome.median(key) for key in outcome.times}
    if bar.peer == "caffe":
        best, middle, worst = (factor * values["PyTorch nhwc"] for factor in CAFFE_TO_TORCH)
        names = ("original Caffe", "original Caffe at its best", "original Caffe at its worst")
        values |= dict(zip(names, (middle, best, worst)))
        ratio = CAFFE_TO_TORCH[1] * outcome.ratio("PyTorch nhwc", OURS)
        return ratio, "original Caffe", values
    peer = outcome.best(others)
    return outcome.ratio(peer, OURS), peer, values


def jpeg_row(workers: int) -> dict[str, Any]:
    """The results of the data pipeline. Units: images/s."""
    rates = jpeg_rate(workers)
    return {
        "key": "jpeg",
        "title": MIRRORED,
        "against": "original Caffe",
        "at_least": 2.0,
        "ratio": rates["median"] / CAFFE_JPEG,
        "unit": "images/s",
        "values": {OURS: rates["median"], "original Caffe": CAFFE_JPEG},
        "rounds": {OURS: rates["rates"]},
        "contestants": {},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--only", default="", metavar="KEY,KEY", help="bars (default: all)")
    parser.add_argument("--json", type=Path, default=RESULTS / "cpu.json", metavar="FILE")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "docs" / "images" / "bench_cpu.png", metavar="FILE"
    )
    args = parser.parse_args()
    keys = args.only.split(",") if args.only else [*(bar.key for bar in BARS), "jpeg"]
    rows = []
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        task = progress.add_task("benchmarks", total=len(keys))
        nets = Path(folder)
        for net in {b.job[1] for b in BARS if b.key in keys and b.peer == "opencv"}:
            write_net(net, nets)
        for key in keys:
            bar = next((bar for bar in BARS if bar.key == key), None)
            row = (
                jpeg_row(args.threads)
                if bar is None
                else measure(bar, args.peers, nets, args.threads)
            )
            rows.append(row)
            print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
            progress.advance(task)
    write_record(args.json, {"threads": args.threads, "rows": rows})
    plot(rows, args.plot)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
