"""Draw what a net has learnt, and which pixels decide a class."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prototxt_gen.errors import ProtoError, UsageError
from runtime.analysis.filter_tiles import first_filters
from runtime.backend.base import HostArray
from runtime.bundle.preprocessing import Preprocessing
from runtime.cli.preparation_flags import (
    add_net_arguments,
    add_preparation_arguments,
    bundle_of,
    labels_of,
    preparation_of,
)
from runtime.inference.images import prepare
from runtime.inference.model import Model, load
from runtime.logs.glog import setup_logging
from runtime.visual.class_score import ClassScore
from runtime.visual.pictures import (
    pixels_of,
    save_filters,
    save_heat,
    save_maps,
    save_picture,
    stretched,
)

NAME = "visualise"
SUMMARY = "draw filters, activations, and the pixels that decide a class"
EXAMPLE = "verydeep visualise saliency --model flowers.verydeep --image rose.jpg --out saliency.png"

FILTERS, ACTIVATIONS, SALIENCY = "filters", "activations", "saliency"
GRAD_CAM, OCCLUSION, CLASS_IMAGE = "grad-cam", "occlusion", "class-image"
_WITHOUT_IMAGE = (FILTERS, CLASS_IMAGE)
_MOST_ITERATIONS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        choices=(FILTERS, ACTIVATIONS, SALIENCY, GRAD_CAM, OCCLUSION, CLASS_IMAGE),
        help="filters of the first layer; activations of a blob; saliency, the gradient of a "
        "class's score; grad-cam; occlusion by a grey square; an image of a high score of a class",
    )
    add_net_arguments(parser)
    add_preparation_arguments(parser)
    parser.add_argument("--image", metavar="FILE", help="an image file")
    parser.add_argument("--out", required=True, metavar="FILE", help="the PNG file to write")
    parser.add_argument(
        "--class",
        dest="label",
        type=int,
        metavar="N",
        help="number of the class (default: the class of the largest score)",
    )
    parser.add_argument(
        "--layer",
        metavar="BLOB",
        help="the blob of activations and grad-cam (default: the last one of maps)",
    )
    parser.add_argument(
        "--window", type=int, metavar="S", help="side of the square of occlusion (default: H / 8)"
    )
    parser.add_argument(
        "--stride", type=int, metavar="S", help="step of the square (default: half of its side)"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=200,
        metavar="N",
        help="steps of class-image (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="size of a step of class-image (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print what was drawn as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    _check(args)
    bundle = bundle_of(args)
    with load(args.model, args.weights, gradients=True) as model:
        shape = model.blobs[model.inputs[0]].shape if model.inputs else ()
        preparation = preparation_of(args, bundle, shape)
        labels = labels_of(args, bundle)
        if args.kind in _WITHOUT_IMAGE:
            result = _WITHOUT[args.kind](args, model, preparation, labels)
        else:
            image = prepare(Path(args.image), preparation)
            result = _WITH[args.kind](args, model, preparation, labels, image)
    result = {"kind": args.kind, "output": args.out, **result}
    print(json.dumps(result) if args.json else args.out)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.image is None and args.kind not in _WITHOUT_IMAGE:
        raise UsageError(f"--image: missing; expected the image of {args.kind}; give one")
    if args.image is not None and args.kind in _WITHOUT_IMAGE:
        raise UsageError(f"--image: has no effect on {args.kind}, which takes none; leave it out")
    if not 1 <= args.iterations <= _MOST_ITERATIONS:
        raise UsageError(
            f"--iterations: expected 1 to {_MOST_ITERATIONS}, got {args.iterations}; correct it"
        )
    if not 0 < args.rate < float("inf"):
        raise UsageError(f"--rate: expected a number above 0, got {args.rate:g}; correct it")


_Result = dict[str, object]
_Labels = tuple[str, ...]


def _filters(
    args: argparse.Namespace, model: Model, preparation: Preprocessing, labels: _Labels
) -> _Result:
    filters = first_filters(model)
    if filters is None:
        raise ProtoError(
            f"net '{model.name}': no layer has filters of 1 or 3 channels; expected a convolution "
            "of the image; choose a net that has one"
        )
    caption = (
        f"{len(filters)} filters of {filters.shape[2]}x{filters.shape[3]}, each scaled to its "
    )
    caption += "own range"
    save_filters(filters, Path(args.out), f"First layer of {model.name}", caption)
    return {"filters": len(filters)}


def _class_image(
    args: argparse.Namespace, model: Model, preparation: Preprocessing, labels: _Labels
) -> _Result:
    score = ClassScore(model)
    label = score.check_class(0 if args.label is None else args.label)
    image = score.class_image(label, args.iterations, args.rate)
    name = _name(label, labels)
    caption = f"{args.iterations} steps of gradient ascent on the score, from faint noise; "
    caption += "colours stretched to three standard deviations"
    save_picture(
        stretched(image, preparation), Path(args.out), f"Image of a high score of {name}", caption
    )
    return {"class": label, "label": name}


def _activations(
    args: argparse.Namespace,
    model: Model,
    preparation: Preprocessing,
    labels: _Labels,
    image: HostArray,
) -> _Result:
    name = args.layer or ClassScore(model).map_blob()
    if name not in model.blobs or model.blobs[name].num_axes != 4:
        raise ProtoError(
            f"net '{model.name}': no blob '{name}' of maps (N,C,H,W); expected one of "
            f"{', '.join(key for key, blob in model.blobs.items() if blob.num_axes == 4)}; "
            "correct --layer"
        )
    maps = model.predict(image[None], [name])[name][0]
    caption = f"{min(64, len(maps))} of {len(maps)} maps of {maps.shape[1]}x{maps.shape[2]}, each "
    caption += "scaled to its own range"
    save_maps(maps, Path(args.out), f"Activations of {name} for {Path(args.image).name}", caption)
    return {"blob": name, "maps": len(maps)}


def _heat(
    args: argparse.Namespace,
    model: Model,
    preparation: Preprocessing,
    labels: _Labels,
    image: HostArray,
) -> _Result:
    score = ClassScore(model)
    label = score.best(image) if args.label is None else score.check_class(args.label)
    name = _name(label, labels)
    if args.kind == SALIENCY:
        heat, method = score.saliency(image, label), "largest absolute gradient of the channels"
    elif args.kind == GRAD_CAM:
        blob = args.layer or score.map_blob()
        heat = score.grad_cam(image, label, blob)
        method = f"channels of {blob} weighted by their mean gradients, {heat.shape[0]}x"
        method += f"{heat.shape[1]} positions"
    else:
        window = args.window if args.window is not None else max(1, image.shape[1] // 8)
        stride = args.stride if args.stride is not None else max(1, window // 2)
        heat = score.occlusion(image, label, window, stride)
        method = (
            f"fall of the score under a square of {window}x{window} pixels, in steps of {stride}"
        )
    title = f"{args.kind} of {name} in {Path(args.image).name}"
    caption = f"{method}; map from {np.min(heat):.3g} (dark) to {np.max(heat):.3g} (bright)"
    save_heat(pixels_of(image, preparation), heat, Path(args.out), title, caption)
    return {"class": label, "label": name}


def _name(label: int, labels: _Labels) -> str:
    return labels[label] if label < len(labels) else f"class {label}"


_WITHOUT: dict[str, Callable[..., _Result]] = {FILTERS: _filters, CLASS_IMAGE: _class_image}
_WITH: dict[str, Callable[..., _Result]] = {
    ACTIVATIONS: _activations,
    SALIENCY: _heat,
    GRAD_CAM: _heat,
    OCCLUSION: _heat,
}
