"""Train a net, or go on from a snapshot. Caffe: tools/caffe.cpp, train."""

from __future__ import annotations

import argparse

from prototxt_gen.errors import UnsupportedError
from runtime.cli.devices import (
    add_device_arguments,
    add_state_arguments,
    open_backend,
    parse_gpus,
    stages,
)
from runtime.log import setup_logging
from runtime.solvers.signals import Action, action_of
from runtime.training import TrainJob, train

NAME = "train"
SUMMARY = "train a net as its solver prototxt says, or go on from a snapshot"
EXAMPLE = "verydeep train --solver nets/D/solver.prototxt --snapshot auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver prototxt")
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a .solverstate to go on from, or auto: the newest whole"
    )
    parser.add_argument("--weights", metavar="FILES", help="weights to start from: W, or W1,W2")
    add_device_arguments(parser)
    add_state_arguments(parser)
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="copies of the net")
    for name, effect in (("sigint", Action.STOP), ("sighup", Action.SNAPSHOT)):
        parser.add_argument(
            f"--{name}_effect",
            default=effect.value,
            metavar="EFFECT",
            help=f"on {name.upper()}: stop, snapshot or none (default: %(default)s)",
        )
    parser.add_argument("--log_file", metavar="FILE", help="Caffe's log lines go here as well")
    parser.add_argument(
        "--log_json", metavar="FILE", help="JSON lines go here (default: PREFIX.log.jsonl)"
    )
    parser.add_argument("--keep", type=int, metavar="N", help="keep the newest N snapshots only")
    parser.add_argument(
        "--on_snapshot_error",
        choices=("continue", "stop"),
        default="continue",
        help="when a snapshot cannot be written (default: %(default)s; the last one must be)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(log_file=args.log_file)
    _check(args)
    job = TrainJob(
        solver=args.solver,
        snapshot=args.snapshot,
        weights=args.weights,
        level=args.level,
        stages=stages(args),
        log_json=args.log_json,
        keep=args.keep,
        stop_on_snapshot_error=args.on_snapshot_error == "stop",
        sigint=action_of(args.sigint_effect, "--sigint_effect"),
        sighup=action_of(args.sighup_effect, "--sighup_effect"),
    )
    result = train(job, lambda param: open_backend(args, param))
    if args.json:
        print(result.to_json())
        return 0
    print(f"iterations: {result.iterations}{' (stopped early)' if result.stopped else ''}")
    for path in (*result.files, result.log_json):
        print(path)
    for name, value in result.test.items():
        print(f"{name}: {value:.6g}")
    return 0


def _check(args: argparse.Namespace) -> None:
    several = len(parse_gpus(args.gpu)) > 1
    if several or args.replicas != 1:
        asked = f"--gpu {args.gpu}" if several else f"--replicas {args.replicas}"
        raise UnsupportedError(
            f"{asked}: training on several devices is not part of this build; expected one; "
            "name one GPU, and leave --replicas out"
        )
    if args.keep is not None and args.keep < 1:
        raise UnsupportedError(f"--keep: expected at least 1 snapshot, got {args.keep}; correct it")
