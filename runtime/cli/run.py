"""`verydeep run`: the main job, from images to a trained and exported net."""

from __future__ import annotations

import argparse
import functools
import json
import logging
from pathlib import Path

from prototxt_gen.spec import net_names
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.cli.ranks import replica_counts, run_ranks
from runtime.logs.glog import setup_logging
from runtime.parallel.mpi import World
from runtime.parallel.mpi_group import start_mpi

log = logging.getLogger("verydeep.job")

NAME = "run"
SUMMARY = "prepare a data set, train a built-in net, evaluate, export and draw"
EXAMPLE = "verydeep run --net D --data /data/ilsvrc12 --gpu 0,1,2,3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--net", choices=net_names(), default="A", help="built-in net (A)")
    parser.add_argument(
        "--data",
        default="demo",
        metavar="DIR",
        help="folder in ILSVRC-2012's layout, or 'demo': the embedded data set (default)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default: build/demo or build/VGG-NET)",
    )
    add_device_arguments(parser)
    parser.add_argument("--max-iter", type=int, metavar="N", help="train for N iterations")
    parser.add_argument(
        "--fresh", action="store_true", help="train from the beginning, even if there is a snapshot"
    )


def run(args: argparse.Namespace) -> int:
    """Run the job and print its results; under mpirun, rank 0 does all but the training."""
    return run_ranks(
        NAME,
        lambda world: _run(args, world),
        lambda param, world: open_backend(args, None, world.local_rank, world.local_size),
    )


def _run(args: argparse.Namespace, world: World | None) -> int:
    from runtime.job.run import JobOptions, run_job

    out = args.out or Path("build", "demo" if args.data == "demo" else f"VGG-{args.net}")
    setup_logging(log_file=out / "run.log", terse=True, hold=True)
    local, replicas = replica_counts(args.gpu, world)
    backend = open_backend(args, None, 0, local)
    if args.data != "demo" and not args.gpu and args.device in (None, "cpu"):
        log.warning("Training a net of the paper takes weeks on a CPU; to use a GPU, give --gpu 0")
    options = JobOptions(
        args.net, args.data, out, args.threads, args.max_iter, replicas=replicas, fresh=args.fresh
    )
    result = run_job(
        options,
        backend,
        lambda rank: open_backend(args, None, rank, local),
        None if world is None else functools.partial(start_mpi, world),
    )
    summary = json.loads(result.read_text(encoding="utf-8"))
    print(
        f"\n{summary['net']}: top-1 error {100 * summary['top1_error']:.1f} %, top-5 error "
        f"{100 * summary['top5_error']:.1f} % on {summary['held_out_images']} held-out images, "
        f"{summary['iterations']} iterations, {summary['seconds']:.0f} s\n"
    )
    for key, value in summary.items():
        if isinstance(value, str) and key != "net":
            print(f"  {key.replace('_', ' '):16} {value}")
    print(f"  {'summary':16} {result}")
    return 0
