"""Draw a net. Caffe: python/draw_net.py."""

from __future__ import annotations

import argparse

from prototxt_gen import proto, text
from prototxt_gen.draw import RANKDIRS
from runtime.pycaffe.draw import draw_net_to_file

NAME = "draw"
SUMMARY = "draw a net as an image: .png, .svg, .pdf or Graphviz's .dot"
EXAMPLE = "verydeep draw nets/D/deploy.prototxt D.svg --rankdir TB"

_PHASES = {"TRAIN": proto.TRAIN, "TEST": proto.TEST, "ALL": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input_net_proto_file", metavar="NET", help="the net's prototxt")
    parser.add_argument("output_image_file", metavar="IMAGE", help="the drawing to write")
    parser.add_argument(
        "--rankdir",
        choices=RANKDIRS,
        default="LR",
        help="direction of the flow: left to right, top to bottom ... (default: %(default)s)",
    )
    parser.add_argument(
        "--phase",
        choices=tuple(_PHASES),
        default="ALL",
        help="draw the layers of one phase, or all, with those of one phase marked "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--display_lrm", action="store_true", help="show the layers' learning rate multipliers"
    )


def run(args: argparse.Namespace) -> int:
    net = text.read_net(args.input_net_proto_file)
    draw_net_to_file(
        net, args.output_image_file, args.rankdir, _PHASES[args.phase], args.display_lrm
    )
    print(args.output_image_file)
    return 0
