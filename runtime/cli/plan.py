"""Estimate the time of training steps on several GPUs."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

from prototxt_gen import heads, proto
from prototxt_gen.errors import UnsupportedError, UsageError
from prototxt_gen.sidecar import FP32, PRECISIONS
from prototxt_gen.spec import builtin_spec, net_names
from prototxt_gen.text import read_net
from runtime.analysis.gpu_model import GPUS, Prediction, predict_step, prediction_lines
from runtime.analysis.summary import LayerRow, summarize
from runtime.analysis.time_estimate import (
    ASSUMPTIONS,
    LINKS,
    LayerCost,
    Machine,
    StepPlan,
    plan_step,
)
from runtime.backend.registry import create_backend
from runtime.logs.glog import setup_logging
from runtime.net.shape_net import shape_net

NAME = "plan"
SUMMARY = "estimate step time, bytes moved and speed-up of training on several GPUs"
EXAMPLE = "verydeep plan --net D --gpus 8 --link nvlink"

_TFLOPS, _MEMORY_GBS = 12.0, 800.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    net = parser.add_mutually_exclusive_group(required=True)
    net.add_argument("model", nargs="?", metavar="PROTOTXT", help="a deploy net")
    net.add_argument("--net", choices=net_names(), help="a built-in net")
    for name, default, help_text in (
        ("gpus", 4, "number of GPUs"),
        ("batch", 256, "images of a step, in all"),
        ("shards", 8, "parts of the batch"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{help_text} (default: %(default)s)",
        )
    parser.add_argument(
        "--link",
        choices=tuple(LINKS),
        default="nvlink",
        help="the kind of link between the GPUs (default: %(default)s)",
    )
    parser.add_argument(
        "--link-gbs",
        type=float,
        metavar="X",
        help="speed of the link each way in GB/s, instead of --link",
    )
    parser.add_argument(
        "--gpu",
        choices=tuple(GPUS),
        help="predict the step on this GPU by a model of its kernels, in place of --tflops and "
        "--memory-gbs",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help=f"with --gpu, the precision of the convolutions (default: {FP32})",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="X",
        help=f"speed of one GPU on the net (default: {_TFLOPS:g}); `verydeep time` measures it",
    )
    parser.add_argument(
        "--memory-gbs",
        type=float,
        metavar="X",
        help=f"speed of a GPU's memory in GB/s (default: {_MEMORY_GBS:g})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    _check_gpu(args)
    machine = Machine(
        _TFLOPS if args.tflops is None else args.tflops,
        _MEMORY_GBS if args.memory_gbs is None else args.memory_gbs,
        LINKS[args.link] if args.link_gbs is None else args.link_gbs,
    )
    speeds = (machine.tflops, machine.memory_gbs, machine.link_gbs)
    if min(args.gpus, args.batch, args.shards, *speeds) <= 0:
        raise UnsupportedError(
            "plan: expected numbers above 0 for --gpus, --batch, --shards and the speeds; "
            "correct them"
        )
    param = heads.deploy(builtin_spec(args.net)) if args.net else read_net(args.model)
    with shape_net(param, proto.TEST, create_backend("cpu"), batch=1) as net:
        rows = summarize(net).rows
        prediction = None
        if args.gpu is not None:
            images = max(1, args.batch // args.gpus)
            prediction = predict_step(net, images, args.gpu, args.precision or FP32)
            machine = _predicted(prediction, rows, machine, args.gpu)
    layers = [LayerCost(row.multiply_adds, row.parameters) for row in rows]
    plan = plan_step(layers, args.batch, args.gpus, args.shards, machine)
    link = args.link if args.link_gbs is None else None
    if args.json:
        assumptions = {**asdict(machine), **ASSUMPTIONS, "link": link, "batch": args.batch}
        result = {**plan.as_dict(), "assumptions": assumptions}
        if prediction is not None:
            result["prediction"] = prediction.as_dict()
        print(json.dumps(result))
    else:
        if prediction is not None:
            print("\n".join([*prediction_lines(prediction), ""]))
        print(_text(plan, args.batch))
        print("\n".join(_assumptions(machine, link, args.gpu)))
    return 0


def _check_gpu(args: argparse.Namespace) -> None:
    """Check that a speed is given in one way.

    Raises:
        UsageError: --gpu is given with a speed, or --precision without --gpu.
    """
    speeds = [name for name in ("tflops", "memory_gbs") if getattr(args, name) is not None]
    if args.gpu is not None and speeds:
        flag = f"--{speeds[0].replace('_', '-')}"
        raise UsageError(
            f"{flag}: the speed is given twice; expected --gpu {args.gpu} or {flag}; remove one"
        )
    if args.gpu is None and args.precision is not None:
        raise UsageError(
            f"--precision {args.precision}: applies to a predicted step; expected --gpu as well; "
            "add --gpu, or give the measured speed by --tflops"
        )


def _predicted(
    prediction: Prediction, rows: Sequence[LayerRow], machine: Machine, name: str
) -> Machine:
    """The machine that computes in the predicted time."""
    gpu = GPUS[name]
    multiply_adds = sum(row.multiply_adds for row in rows)
    operations = ASSUMPTIONS["flop_per_multiply_add"] * multiply_adds * prediction.batch
    tflops = 1e-12 * operations / (prediction.step - prediction.update)
    return replace(machine, tflops=tflops, memory_gbs=1e-9 * gpu.bandwidth)


def _text(plan: StepPlan, batch: int) -> str:
    return "\n".join(
        [
            f"a step of {batch} images on {plan.devices} GPU(s), in {plan.shards} shards",
            f"  compute               {plan.compute * 1e3:10.1f} ms",
            f"  addition of shards    {plan.adds * 1e3:10.1f} ms",
            f"  exchange              {plan.exchange * 1e3:10.1f} ms  "
            f"({plan.bytes_sent / 1e6:.1f} MB each way)",
            f"    during computation  {-plan.hidden * 1e3:10.1f} ms",
            f"  update                {plan.update * 1e3:10.1f} ms",
            f"  total                 {plan.step * 1e3:10.1f} ms  "
            f"({batch / plan.step:.1f} images/s)",
            f"on one GPU              {plan.alone * 1e3:10.1f} ms",
            f"speed-up                {plan.speedup:10.2f} x  "
            f"({100 * plan.speedup / plan.devices:.1f} % of ideal)",
            "speed-up if gradients were sent after the backward pass: "
            f"{plan.speedup_without_overlap:.2f} x",
        ]
    )


def _assumptions(machine: Machine, link: str | None, gpu: str | None) -> list[str]:
    source = "--link-gbs" if link is None else f"--link {link}"
    values = ASSUMPTIONS
    return [
        "assumptions",
        f"  each GPU computes {machine.tflops:.4g} TFLOP/s on this net "
        f"({'--tflops' if gpu is None else f'predicted for --gpu {gpu}'})",
        f"  each GPU reads and writes {machine.memory_gbs:g} GB/s of memory "
        f"({'--memory-gbs' if gpu is None else f'--gpu {gpu}'})",
        f"  each GPU sends and receives {machine.link_gbs:g} GB/s at the same time ({source})",
        f"  a step has {values['flop_per_multiply_add']} operations for each multiply-add of the "
        "forward pass, in convolutions and inner products",
        f"  weights, gradients and history have {values['bytes_per_value']} bytes per value; the "
        f"update accesses {values['update_accesses']} values per weight, and the addition of two "
        f"gradients {values['add_accesses']}",
        "  reading images, other layers, the start of kernels and tests take no time",
    ]
