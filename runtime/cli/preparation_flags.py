"""The flags of a net for images: its labels, and the preparation of images, or a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.text_lines import read_lines
from prototxt_gen.errors import UsageError
from runtime.bundle.bundle import Bundle, is_bundle
from runtime.bundle.preprocessing import BGR, GRAY, ORDERS, Preprocessing


def add_net_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model and --weights; a bundle takes the place of both."""
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the deploy prototxt, or a bundle"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help=".caffemodel of any form, .h5 or .npz; a bundle has its own",
    )


def add_preparation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that replace what a bundle contains."""
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    parser.add_argument("--mean-value", metavar="B,G,R", help="mean pixel, 0 to 255")
    parser.add_argument(
        "--short-side",
        type=int,
        metavar="S",
        help="rescale to this short side before cropping (default: 8/7 of the crop)",
    )
    parser.add_argument("--input-scale", type=float, help="factor for the pixels after the mean")
    parser.add_argument(
        "--channel-order", choices=ORDERS, help="order of the net's channels (default: BGR)"
    )


def bundle_of(args: argparse.Namespace) -> Bundle | None:
    """The bundle that --model gives; None for a prototxt, which needs --weights.

    Raises:
        UsageError: --weights is missing for a prototxt, or given with a bundle.
        SnapshotError: the bundle cannot be read.
    """
    if is_bundle(args.model):
        if args.weights is not None:
            raise UsageError(
                f"--weights {args.weights}: given with the bundle {args.model}; expected one of "
                "both; leave --weights out, or give the prototxt as --model"
            )
        return Bundle.load(args.model)
    if args.weights is None:
        raise UsageError(
            f"--weights: missing; expected the weights of --model {args.model}; give them, or a "
            "bundle as --model"
        )
    return None


def preparation_of(
    args: argparse.Namespace, bundle: Bundle | None, shape: Sequence[int]
) -> Preprocessing:
    """The preparation of images for an input of `shape` (N,C,H,W): the bundle's, changed by flags.

    Raises:
        UsageError: a flag does not suit the input.
    """
    if bundle is not None:
        result = bundle.preprocessing
    else:
        gray = len(shape) == 4 and shape[1] == 1
        crop = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        result = Preprocessing(crop, max(crop) * 8 // 7, channel_order=GRAY if gray else BGR)
    if args.channel_order is not None:
        result = replace(result, channel_order=args.channel_order)
    if args.mean_value is not None:
        result = replace(result, mean_value=_mean(args.mean_value, result.channels))
    if args.short_side is not None:
        if args.short_side < max(result.crop):
            raise UsageError(
                f"--short-side: expected at least the side of the net's input, "
                f"{max(result.crop)}, got {args.short_side}; correct it"
            )
        result = replace(result, short_side=args.short_side, warp=None)
    if args.input_scale is not None:
        if not 0 < args.input_scale < float("inf"):
            raise UsageError(
                f"--input-scale: expected a number above 0, got {args.input_scale}; correct it"
            )
        result = replace(result, scale=args.input_scale)
    return result


def labels_of(args: argparse.Namespace, bundle: Bundle | None) -> tuple[str, ...]:
    """The labels of --labels, or else of the bundle; empty if there are none."""
    if args.labels is not None:
        lines = read_lines(Path(args.labels), "the labels", keep_empty=True)
        return tuple(label for _, label in lines)
    return () if bundle is None else bundle.labels


def _mean(text: str, channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, channels) or not all(0 <= value <= 255 for value in values):
        raise UsageError(
            f"--mean-value {text}: expected 1 number or {channels} with commas between them, each "
            "from 0 to 255; correct it"
        )
    return values
