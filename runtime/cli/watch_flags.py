"""The flags of `verydeep train` that watch a run: the best test, averages, TensorBoard."""

from __future__ import annotations

import argparse

from prototxt_gen.errors import UsageError
from runtime.cli.usage import flag_group
from runtime.job.tensorboard import TensorBoard, import_writer
from runtime.solvers.hooks import SolverHook
from runtime.solvers.keep_best import KeepBest
from runtime.solvers.weight_average import WeightAverage


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    group = flag_group(parser, "watching")
    group.add_argument(
        "--keep-best",
        metavar="OUTPUT",
        help="keep the weights of the best test as PREFIX_best.caffemodel, by this output of a "
        "test net, such as accuracy/top1; of losses the lowest is best",
    )
    group.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="stop when the output of --keep-best or --stop-metric has not improved for N tests",
    )
    group.add_argument(
        "--stop-metric", metavar="OUTPUT", help="the output of --stop-after, without --keep-best"
    )
    group.add_argument(
        "--average-weights",
        type=float,
        metavar="DECAY",
        help="keep an exponential moving average of the weights, such as 0.999, and write it with "
        "every snapshot as PREFIX_iter_N.average.caffemodel",
    )
    group.add_argument(
        "--eval-only",
        action="store_true",
        help="run the tests with the weights of --weights or --snapshot, and do not train",
    )
    group.add_argument(
        "--tensorboard",
        metavar="DIR",
        help="write a TensorBoard run into this folder; needs the extra [tensorboard]",
    )


def watch_hooks(args: argparse.Namespace) -> list[SolverHook]:
    """The hooks of the flags.

    Raises:
        UsageError: a value is out of range, or flags contradict each other.
        UnsupportedError: tensorboardX is not installed.
    """
    if args.eval_only:
        _refuse_with_eval_only(args)
        return []
    hooks: list[SolverHook] = []
    metric = args.keep_best if args.keep_best is not None else args.stop_metric
    if args.stop_after is not None and (args.stop_after < 1 or metric is None):
        expected = "at least 1" if args.stop_after < 1 else "--keep-best or --stop-metric with it"
        raise UsageError(
            f"--stop-after: expected {expected}, got {args.stop_after}; correct the flags"
        )
    if args.stop_metric is not None and (args.keep_best is not None or args.stop_after is None):
        raise UsageError(
            f"--stop-metric {args.stop_metric}: expected it with --stop-after and without "
            "--keep-best; leave it out"
        )
    if metric is not None:
        hooks.append(KeepBest(metric, args.keep_best is not None, args.stop_after, args.force))
    if args.average_weights is not None:
        hooks.append(WeightAverage(args.average_weights))
    if args.tensorboard is not None:
        import_writer()
        hooks.append(TensorBoard(args.tensorboard))
    return hooks


def _refuse_with_eval_only(args: argparse.Namespace) -> None:
    for flag in ("keep_best", "stop_after", "stop_metric", "average_weights", "tensorboard"):
        if getattr(args, flag) is not None:
            raise UsageError(
                f"--{flag.replace('_', '-')}: has no effect with --eval-only, which does not "
                "train; remove one of them"
            )
