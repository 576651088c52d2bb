"""`verydeep finetune`: a net with trained weights, learnt on classes of your own."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

from data_prep.open_data_set import open_data_set
from prototxt_gen.errors import UsageError
from runtime.cli.data_sets import DATA_HELP, add_split_arguments, split_of
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.cli.evaluate import mean_values
from runtime.cli.ranks import replica_counts, run_ranks
from runtime.cli.usage import flag_group
from runtime.job.finetune import FinetuneOptions, run_finetune
from runtime.logs.glog import setup_logging
from runtime.parallel.mpi import World
from runtime.parallel.mpi_group import start_mpi

NAME = "finetune"
SUMMARY = "learn classes of your own from a folder of images and the weights of any net"
EXAMPLE = (
    "verydeep finetune --weights VGG_ILSVRC_16_layers.caffemodel --model deploy.prototxt "
    "--data flowers --freeze conv1..conv3"
)
_DEFAULT = FinetuneOptions(Path(), "", Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="trained weights, or a bundle"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help=f"images: {DATA_HELP}")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="train_val or deploy prototxt (default: the net in the bundle or the .caffemodel)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder (default: build/finetune-DATA)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--fresh", action="store_true", help="train from the beginning, even if there is a snapshot"
    )
    _add_net_arguments(parser)
    _add_training_arguments(parser)
    add_split_arguments(parser)
    add_device_arguments(parser)


def _add_net_arguments(parser: argparse.ArgumentParser) -> None:
    group = flag_group(parser, "net and images")
    group.add_argument(
        "--freeze",
        default="",
        metavar="LAYERS",
        help="layers that are not trained, with commas: names, their beginnings, or ranges such as "
        "conv1..conv3",
    )
    group.add_argument(
        "--layer-name", metavar="NAME", help="name of the new classifier (default: OLD-new)"
    )
    group.add_argument(
        "--mean-value",
        metavar="B,G,R",
        help="mean pixel (default: that of the bundle, of the net, or of the public model)",
    )
    group.add_argument("--scale", type=float, metavar="X", help="factor of the pixels")
    group.add_argument(
        "--short-side",
        type=int,
        metavar="S",
        help="short side of the images before the crop (default: of the public model, or 8/7 of "
        "the crop)",
    )
    group.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also train on mirrored images (default: yes)",
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    group = flag_group(parser, "training")
    group.add_argument(
        "--epochs",
        type=float,
        metavar="N",
        help="passes over the training images (default: 10, in at least 200 iterations)",
    )
    group.add_argument("--max-iter", type=int, metavar="N", help="iterations, instead of --epochs")
    group.add_argument(
        "--batch-size",
        type=int,
        default=_DEFAULT.batch_size,
        metavar="N",
        help="images of an iteration (default: %(default)s); divided into passes to fit memory",
    )
    group.add_argument(
        "--base-lr",
        type=float,
        default=_DEFAULT.base_lr,
        metavar="R",
        help="learning rate, which falls to 0 linearly (default: %(default)g)",
    )
    group.add_argument(
        "--rate",
        type=float,
        default=_DEFAULT.rate,
        metavar="X",
        help="factor of the learning rate of the new classifier (default: %(default)g)",
    )
    group.add_argument("--seed", type=int, default=1, metavar="N", help="random seed (default: 1)")


def run(args: argparse.Namespace) -> int:
    return run_ranks(
        NAME,
        lambda world: _run(args, world),
        lambda param, world: open_backend(args, None, world.local_rank, world.local_size),
    )


def _run(args: argparse.Namespace, world: World | None) -> int:
    local, replicas = replica_counts(args.gpu, world)
    options = _options(args, replicas)
    # Wrong data is reported before the output folder is made.
    open_data_set(options.data, options.split)
    setup_logging(log_file=options.out / "finetune.log", terse=True, hold=True)
    result = run_finetune(
        options,
        open_backend(args, None, 0, local),
        lambda rank: open_backend(args, None, rank, local),
        None if world is None else functools.partial(start_mpi, world),
    )
    summary = json.loads(result.read_text(encoding="utf-8"))
    if args.json:
        print(json.dumps(summary, indent=2))
        return 0
    print(
        f"\n{summary['net']}: {summary['classes']} classes, top-1 error "
        f"{100 * summary['top1_error']:.1f} % on {summary['held_out_images']} held-out images, "
        f"{summary['iterations']} iterations, {summary['seconds']:.0f} s\n"
    )
    for key, value in summary.items():
        if isinstance(value, str) and key != "net":
            print(f"  {key.replace('_', ' '):16} {value}")
    print(f"  {'summary':16} {result}\n\nTry: verydeep classify IMAGE --model {summary['bundle']}")
    return 0


def _options(args: argparse.Namespace, replicas: int) -> FinetuneOptions:
    for name, least in (("max_iter", 1), ("batch_size", 1), ("short_side", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected at least {least}, got {value}; correct it")
    for name in ("epochs", "base_lr", "rate", "scale"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected a number above 0, got {value:g}; correct it")
    mean = None if args.mean_value is None else mean_values(args.mean_value)
    if mean is not None and (len(mean) not in (1, 3) or not all(0 <= v <= 255 for v in mean)):
        raise UsageError(
            f"--mean-value: expected one or three numbers from 0 to 255, got {args.mean_value}"
        )
    name = Path(args.data).resolve().stem
    return FinetuneOptions(
        args.weights,
        args.data,
        args.out or Path("build", f"finetune-{name}"),
        args.model,
        tuple(word.strip() for word in args.freeze.split(",") if word.strip()),
        args.layer_name,
        args.rate,
        args.base_lr,
        args.epochs,
        args.max_iter,
        args.batch_size,
        mean,
        args.scale,
        args.short_side,
        args.mirror,
        args.seed,
        split_of(args),
        args.threads,
        replicas,
        args.fresh,
    )
