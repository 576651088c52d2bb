"""Write a trained net for other programs: ONNX, safetensors, npz, HDF5 or .caffemodel."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from prototxt_gen import proto, text
from prototxt_gen.dialects import BVLC
from prototxt_gen.errors import SnapshotError, UsageError
from prototxt_gen.locate import located
from prototxt_gen.proto import Message
from runtime.backend.registry import create_backend
from runtime.cli.console import beside
from runtime.cli.export_onnx import (
    add_onnx_arguments,
    check_onnx_flags,
    save_onnx,
    save_torch,
)
from runtime.cli.preparation_flags import add_net_arguments, bundle_of
from runtime.core.context import RunContext
from runtime.export.bvlc_net import bvlc_net
from runtime.export.safetensors import tensors_of, write_safetensors
from runtime.net import Net
from runtime.weights.caffemodel import V1
from runtime.weights.net_weights import CAFFEMODEL, HDF5, NPZ, copy_trained_layers, save

NAME = "export"
SUMMARY = "write a net as ONNX, or its weights as safetensors, npz, HDF5 or .caffemodel"
EXAMPLE = "verydeep export --model deploy.prototxt --weights d.caffemodel --to onnx --out d.onnx"

ONNX, SAFETENSORS, TORCH = "onnx", "safetensors", "torch"
_FORMATS = {NPZ: NPZ, HDF5: HDF5, CAFFEMODEL: CAFFEMODEL, "v1": V1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_net_arguments(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=(ONNX, SAFETENSORS, TORCH, BVLC, *_FORMATS),
        help="onnx and torch need the extra [onnx]; torch is a Python module and its state as "
        "safetensors; v1 is the .caffemodel of older Caffe; "
        "bvlc is a .caffemodel, and its prototxt next to it, in which layers of other builds are "
        "replaced by equivalent ones of BVLC Caffe",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="output file")
    add_onnx_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    check_onnx_flags(args, ONNX)
    bundle = bundle_of(args)
    model, weights = args.model, args.weights
    if bundle is not None:
        model, weights = bundle.model, bundle.weights
    param = text.read_net(model)
    with located(model):
        net = Net(param, proto.TEST, create_backend("cpu"), RunContext(fill_weights=False))
    with net:
        report = copy_trained_layers(net, weights)
        if report.missing:
            raise SnapshotError(
                f"{weights}: no weights for some layers; expected weights for every layer of "
                f"{model} that has any; give the weights of this net\n{report.table()}"
            )
        print(report.summary(), file=sys.stderr)
        result = {"format": args.to, "output": args.out, "parameters": report.parameters}
        if args.to == ONNX:
            result.update(save_onnx(net, args, bundle))
        elif args.to == SAFETENSORS:
            write_safetensors(args.out, tensors_of(net))
        elif args.to == TORCH:
            result.update(save_torch(net, args))
        elif args.to == BVLC:
            result["prototxt"] = _save_bvlc(net, param, args)
        else:
            save(net, args.out, fmt=_FORMATS[args.to])
    result["bytes"] = Path(args.out).stat().st_size
    with beside(args.out):
        print(json.dumps(result) if args.json else args.out)
    return 0


def _save_bvlc(net: Net, param: Message, args: argparse.Namespace) -> str:
    """Write the net in layers of BVLC Caffe; returns the path of its prototxt."""
    path = Path(args.out).with_suffix(".prototxt")
    if path.exists() and path.samefile(args.model):
        raise UsageError(
            f"--out {args.out}: its prototxt would replace --model {args.model}; expected another "
            "name; choose one"
        )
    result, plain = bvlc_net(net, param)
    with plain:
        save(plain, args.out, fmt=CAFFEMODEL)
    text.write(path, result)
    return str(path)
