"""Bundles as values of --model: the net, the weights and what else a verb needs of them."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from prototxt_gen.errors import UnsupportedError, UsageError
from runtime.bundle.bundle import Bundle, is_bundle
from runtime.bundle.preprocessing import BGR, GRAY
from runtime.bundle.recognise import recognise_file

log = logging.getLogger("verydeep")

MODEL_HELP = "or a bundle, which has its weights"


def open_bundle(args: argparse.Namespace) -> Bundle | None:
    """Replace a bundle in `args.model` by its net, and set `args.weights`, unless it is given.

    It becomes `args.bundle` as well, because the files of a zip file exist as long as the object.

    Raises:
        SnapshotError: the bundle is damaged.
        UsageError: there are neither weights nor a bundle.
        UnsupportedError: its images are neither in BGR nor gray.
    """
    kind = type(args.model)
    if not is_bundle(args.model):
        if args.weights is None:
            raise UsageError(
                f"--weights: missing; expected a file of weights, or a bundle as --model, got the "
                f"net {args.model}; add --weights"
            )
        return None
    bundle = Bundle.load(args.model)
    order = bundle.preprocessing.channel_order
    if order not in (BGR, GRAY):
        raise UnsupportedError(
            f"{args.model}: images in {order}; expected {BGR} or {GRAY}, which images are read in; "
            "use runtime.load and prepare the images"
        )
    args.bundle = bundle
    args.model = kind(bundle.model)
    if args.weights is None:
        args.weights = kind(bundle.weights)
    return bundle


def take_evaluation_settings(args: argparse.Namespace) -> Bundle | None:
    """Like `open_bundle`; also set the mean and the scales that are not given.

    Raises:
        SnapshotError, UsageError, UnsupportedError: see `open_bundle`; or the pixels are scaled.
        UsageError: there is no scale.
    """
    bundle = open_bundle(args)
    if bundle is None:
        if args.mean_value is None:
            propose(args.weights)
        if args.scales is None:
            raise UsageError(
                "--scales: missing; expected short sides such as 256,384, or a bundle as --model, "
                "which has one; add --scales"
            )
        return None
    prepared = bundle.preprocessing
    if prepared.scale != 1.0:
        raise UnsupportedError(
            f"the bundle {bundle.name}: pixels are multiplied by {prepared.scale:g}; expected 1, "
            "which this verb supports; give the train_val prototxt with transform_param as --model"
        )
    if args.mean_value is None:
        args.mean_value = ",".join(f"{value:.9g}" for value in prepared.mean_value or (0.0,))
    if args.scales is None:
        sides = prepared.warp or (prepared.short_side or min(prepared.crop),)
        args.scales = str(min(sides))
    return bundle


def propose(weights: str | Path, net_name: str = "") -> None:
    """Log the published preprocessing of a public model with these layers."""
    recognised = recognise_file(weights, net_name)
    if recognised is not None:
        values = ",".join(f"{value:g}" for value in recognised.model.preprocessing.mean_value)
        log.warning("%s: %s: --mean-value %s", weights, recognised.describe(), values)
