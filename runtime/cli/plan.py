"""Tell how long training steps will take on several devices, before buying or renting them."""

from __future__ import annotations

import argparse
import json
import logging

from prototxt_gen import heads, proto
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.spec import builtin_spec
from prototxt_gen.text import read_net
from prototxt_gen.vgg import NETS
from runtime.analysis.summary import summarize
from runtime.analysis.time_estimate import LINKS, LayerCost, Machine, StepPlan, plan_step
from runtime.backend.registry import create_backend
from runtime.logs.glog import setup_logging
from runtime.net.shape_net import shape_net

NAME = "plan"
SUMMARY = "estimate step time, bytes moved and speed-up of training on several GPUs"
EXAMPLE = "verydeep plan --net D --gpus 8 --link nvlink"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    net = parser.add_mutually_exclusive_group(required=True)
    net.add_argument("model", nargs="?", metavar="PROTOTXT", help="a deploy net")
    net.add_argument("--net", choices=tuple(NETS), help="a net of the paper")
    parser.add_argument("--gpus", type=int, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument("--shards", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--link", choices=tuple(LINKS), default="nvlink", help="default: %(default)s"
    )
    parser.add_argument(
        "--link-gbs", type=float, metavar="X", help="GB/s each way, instead of --link's figure"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=12.0,
        metavar="X",
        help="what one GPU sustains on the net (default: %(default)s); `verydeep time` measures it",
    )
    parser.add_argument(
        "--memory-gbs", type=float, default=800.0, metavar="X", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    machine = Machine(
        args.tflops, args.memory_gbs, LINKS[args.link] if args.link_gbs is None else args.link_gbs
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
    layers = [LayerCost(row.multiply_adds, row.parameters) for row in rows]
    found = plan_step(layers, args.batch, args.gpus, args.shards, machine)
    print(json.dumps(found.as_dict()) if args.json else _text(found, args.batch))
    return 0


def _text(found: StepPlan, batch: int) -> str:
    return "\n".join(
        [
            f"a step of {batch} images on {found.devices} GPU(s), in {found.shards} shards",
            f"  compute            {found.compute * 1e3:10.1f} ms",
            f"  adding up shards   {found.adds * 1e3:10.1f} ms",
            f"  exchange           {found.exchange * 1e3:10.1f} ms  "
            f"({found.bytes_sent / 1e6:.1f} MB each way)",
            f"    while computing  {-found.hidden * 1e3:10.1f} ms",
            f"  update             {found.update * 1e3:10.1f} ms",
            f"  in all             {found.step * 1e3:10.1f} ms  "
            f"({batch / found.step:.1f} images/s)",
            f"on one GPU           {found.alone * 1e3:10.1f} ms",
            f"speed-up             {found.speedup:10.2f} x  "
            f"({100 * found.speedup / found.devices:.1f} % of ideal)",
            f"were gradients sent after the backward pass: {found.speedup_without_overlap:.2f} x",
        ]
    )
