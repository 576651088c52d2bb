"""Train a net, or resume from a snapshot. Caffe: tools/caffe.cpp, train."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import sys

from prototxt_gen.errors import UsageError
from runtime.cli.devices import (
    add_device_arguments,
    add_force_argument,
    add_list_arguments,
    add_state_arguments,
    open_backend,
    parse_gpus,
    stages,
    weight_files,
)
from runtime.cli.ranks import run_ranks
from runtime.cli.usage import flag_group
from runtime.cli.watch_flags import add_watch_arguments, watch_hooks
from runtime.job.training import TrainJob, TrainResult, train
from runtime.job.training_bundle import TrainingBundle
from runtime.logs.glog import setup_logging
from runtime.net.finite import sentence
from runtime.parallel.collective import PATIENCE
from runtime.parallel.links import AUTO, TRANSPORTS
from runtime.parallel.mpi import World
from runtime.parallel.mpi_group import start_mpi
from runtime.parallel.shard_plan import GLOBAL, SEMANTICS
from runtime.solvers.signals import Action, action_of

NAME = "train"
SUMMARY = "train a net as its solver prototxt describes, or resume from a snapshot"
EXAMPLE = "verydeep train --solver nets/D/solver.prototxt --snapshot auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver prototxt")
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        help="a .solverstate to resume from, or auto for the newest complete one",
    )
    parser.add_argument(
        "--weights", metavar="FILES", help="initial weights: one file, or several with commas"
    )
    parser.add_argument("--log_file", metavar="FILE", help="write the log to this file as well")
    parser.add_argument(
        "--log_json", metavar="FILE", help="file of the log in JSON (default: PREFIX.log.jsonl)"
    )
    parser.add_argument("--keep", type=int, metavar="N", help="keep only the newest N snapshots")
    parser.add_argument(
        "--on_snapshot_error",
        choices=("continue", "stop"),
        default="continue",
        help="when a snapshot cannot be written (default: %(default)s; the last one must be)",
    )
    for name, effect in (("sigint", Action.STOP), ("sighup", Action.SNAPSHOT)):
        parser.add_argument(
            f"--{name}_effect",
            default=effect.value,
            metavar="EFFECT",
            help=f"on {name.upper()}: stop, snapshot or none (default: %(default)s)",
        )
    parser.add_argument(
        "--bundle",
        metavar="PATH",
        help="write a bundle of the trained net at the end: a folder, or a file that ends in .zip",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="names of the classes for --bundle, one per line"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_watch_arguments(parser)
    add_device_arguments(parser)
    _add_replica_arguments(parser)
    add_state_arguments(parser)
    add_list_arguments(parser)
    add_force_argument(parser)


def _add_replica_arguments(parser: argparse.ArgumentParser) -> None:
    replicas = flag_group(parser, "several replicas of the net")
    replicas.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="copies of the net that divide each batch (default: one for each GPU)",
    )
    replicas.add_argument(
        "--batch-semantics",
        choices=SEMANTICS,
        default=GLOBAL,
        help="whether the prototxt gives the batch size of all replicas together or of each "
        "(default: %(default)s)",
    )
    replicas.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=AUTO,
        help="how gradients are copied between GPUs: directly (peer), by NCCL, or through host "
        "memory (staged) (default: peer where the devices support it, else staged)",
    )
    replicas.add_argument(
        "--watchdog",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="stop if a replica does not respond for this long (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    _name_faults()
    return run_ranks(
        NAME,
        lambda world: _run(args, world),
        lambda param, world: open_backend(args, param, world.local_rank, world.local_size),
        args.watchdog,
    )


def _name_faults() -> None:
    """Print the stack if a signal such as SIGBUS, from a truncated database, ends the process."""
    if faulthandler.is_enabled():
        return
    for stream in (sys.__stderr__, sys.stderr):
        # A stream may be missing, closed, or without a descriptor.
        with contextlib.suppress(AttributeError, RuntimeError, ValueError, OSError):
            if stream is not None:
                faulthandler.enable(stream)
                return


def _run(args: argparse.Namespace, world: World | None) -> int:
    setup_logging(log_file=args.log_file, hold=True)
    _check(args)
    local = args.replicas or max(1, len(parse_gpus(args.gpu)))
    job = TrainJob(
        solver=args.solver,
        snapshot=args.snapshot,
        weights=",".join(weight_files(args.weights or "")),
        level=args.level,
        stages=stages(args),
        log_json=args.log_json,
        log_file=args.log_file,
        keep=args.keep,
        confine_lists=args.confine_lists,
        stop_on_snapshot_error=args.on_snapshot_error == "stop",
        force=args.force,
        replicas=local if world is None else world.size,
        batch_semantics=args.batch_semantics,
        transport=args.transport,
        patience=args.watchdog,
        test_only=args.eval_only,
        sigint=action_of(args.sigint_effect, "--sigint_effect"),
        sighup=action_of(args.sighup_effect, "--sighup_effect"),
    )
    beside = local if world is None else world.local_size
    bundle = TrainingBundle.of(args.solver, args.labels) if args.bundle else None
    result = train(
        job,
        lambda param: open_backend(args, param, 0, beside),
        watch_hooks(args),
        open_replica=lambda param, rank: open_backend(args, param, rank, beside),
        start=None if world is None else functools.partial(start_mpi, world),
    )
    if bundle is not None:
        bundle.write(args.bundle, result)
    _show(result, args.json)
    if result.not_finite:
        print(f"verydeep train: {sentence(result.not_finite)}", file=sys.stderr)
    return result.signal_status or int(result.log_lost or bool(result.not_finite))


def _show(result: TrainResult, as_json: bool) -> None:
    if as_json:
        print(result.to_json())
        return
    print(f"iterations: {result.iterations}{' (stopped early)' if result.stopped else ''}")
    for path in (*result.files, result.log_json):
        print(path)
    for name, value in result.test.items():
        print(f"{name}: {value:.6g}")


def _check(args: argparse.Namespace) -> None:
    if args.replicas is not None and args.replicas < 1:
        raise UsageError(f"--replicas: expected at least 1, got {args.replicas}; correct it")
    if args.labels and not args.bundle:
        raise UsageError("--labels: used by --bundle only; expected --bundle; add it, or omit both")
    gpus = len(parse_gpus(args.gpu))
    if args.replicas is not None and gpus > 1 and args.replicas != gpus:
        raise UsageError(
            f"--replicas {args.replicas} and --gpu {args.gpu} contradict each other; expected one "
            f"replica a GPU, {gpus}; leave --replicas out"
        )
    if args.keep is not None and args.keep < 1:
        raise UsageError(f"--keep: expected at least 1 snapshot, got {args.keep}; correct it")
    if args.watchdog <= 0:
        raise UsageError(
            f"--watchdog: expected seconds, more than 0, got {args.watchdog:g}; correct it"
        )
