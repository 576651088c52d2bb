"""The flags of `verydeep export --to onnx`, and its output to PyTorch."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prototxt_gen.errors import UnsupportedError, UsageError
from runtime.bundle.bundle import Bundle
from runtime.cli.preparation_flags import (
    add_preparation_arguments,
    labels_of,
    preparation_of,
)
from runtime.export.onnx_graph import OPSET, OPSETS
from runtime.export.onnx_images import metadata
from runtime.export.onnx_model import export_onnx
from runtime.export.onnx_options import OnnxOptions
from runtime.export.torch_module import STATE_SUFFIX, export_torch
from runtime.net import Net

_ANY, _FIXED = "any", "fixed"
_PREPARATION = ("labels", "mean_value", "short_side", "input_scale", "channel_order")
_FLAGS = ("batch", "any_size", "opset", "fp16", "preprocess", *_PREPARATION)


def add_onnx_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that apply to ONNX alone."""
    group = parser.add_argument_group("ONNX")
    group.add_argument(
        "--batch",
        choices=(_ANY, _FIXED),
        help="any number of samples, or that of the prototxt "
        "(default: any, or fixed where a layer depends on it)",
    )
    group.add_argument(
        "--any-size",
        action="store_true",
        help="images of any height and width, for nets without fully connected layers",
    )
    group.add_argument(
        "--opset",
        type=int,
        metavar="N",
        help=f"operator set, {OPSETS[0]} to {OPSETS[-1]} (default: {OPSET})",
    )
    group.add_argument("--fp16", action="store_true", help="weights and arithmetic in float16")
    group.add_argument(
        "--preprocess",
        action="store_true",
        help="the model takes images, N x H x W x 3 in uint8 and RGB, and does crop, mean and "
        "scale itself; resizing is not part of it",
    )
    add_preparation_arguments(parser)


def check_onnx_flags(args: argparse.Namespace, onnx: str) -> None:
    """Refuse flags of ONNX with another format.

    Raises:
        UsageError: one is given.
    """
    given = [flag for flag in _FLAGS if getattr(args, flag) not in (None, False)]
    if given and args.to != onnx:
        flag = given[0].replace("_", "-")
        raise UsageError(f"--{flag}: has no effect with --to {args.to}; expected --to onnx")


def save_onnx(net: Net, args: argparse.Namespace, bundle: Bundle | None) -> dict[str, Any]:
    """Write the model; returns what the result of the verb lists."""
    options = _options(net, args, bundle)
    try:
        difference = export_onnx(net, args.out, options)
    except UnsupportedError as cause:
        if args.batch is not None or not options.any_batch or options.any_size:
            raise
        options = replace(options, any_batch=False)
        try:
            difference = export_onnx(net, args.out, options)
        except UnsupportedError:
            raise cause from None
        print(f"the model takes the batch of the prototxt alone: {cause}", file=sys.stderr)
    print(_verdict(difference), file=sys.stderr)
    batch = _ANY if options.any_batch else _FIXED
    return {"batch": batch, "opset": options.opset, "difference": difference}


def save_torch(net: Net, args: argparse.Namespace) -> dict[str, Any]:
    """Write the module and its state; returns what the result of the verb lists."""
    path = Path(args.out)
    if path.suffix != ".py":
        raise UsageError(f"--out {args.out}: expected a name that ends in .py; rename it")
    difference = export_torch(net, path)
    if difference is None:
        print("the module was not checked: torch is not installed", file=sys.stderr)
    else:
        print(
            f"checked with torch: the outputs differ by at most {difference:.1e}", file=sys.stderr
        )
    return {"state": str(path.with_suffix(STATE_SUFFIX)), "difference": difference}


def _options(net: Net, args: argparse.Namespace, bundle: Bundle | None) -> OnnxOptions:
    shape = net.blobs[net.inputs[0]].shape if net.inputs else ()
    given = bundle is not None or any(getattr(args, flag) is not None for flag in _PREPARATION)
    preparation = preparation_of(args, bundle, shape) if given or args.preprocess else None
    if args.preprocess and bundle is None and args.mean_value is None:
        raise UsageError(
            "--preprocess: the mean is unknown; expected --mean-value B,G,R (0 for none), or a "
            "bundle as --model"
        )
    return OnnxOptions(
        any_batch=args.batch != _FIXED and len(shape) > 0,
        any_size=args.any_size,
        opset=OPSET if args.opset is None else args.opset,
        half=args.fp16,
        images=preparation if args.preprocess else None,
        metadata=metadata(preparation, labels_of(args, bundle)),
    )


def _verdict(difference: float | None) -> str:
    if difference is None:
        return (
            "the model was not checked: onnxruntime is not installed; to compare the model with "
            "the net, pip install 'verydeep[onnx]'"
        )
    return (
        "checked with onnxruntime on random input: the outputs of the layers differ by at most "
        f"{difference:.1e} of their largest values"
    )
