"""Classify images. Caffe: python/classify.py, examples/cpp_classification."""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.datum import COLOR, GRAY, Image, rescale_short_side, warp
from data_prep.mean_file import read_mean
from data_prep.text_lines import read_lines
from prototxt_gen import proto
from prototxt_gen.errors import DataError, ShapeError, UsageError
from runtime.bundle.preprocessing import Preprocessing
from runtime.cli.bundles import open_bundle, propose
from runtime.cli.devices import add_device_arguments, add_missing_argument, open_backend
from runtime.logs.glog import setup_logging
from runtime.net import Net
from runtime.pycaffe.classifier import Classifier
from runtime.pycaffe.image import read_pixels, to_unit
from runtime.weights.net_file import open_net

NAME = "classify"
SUMMARY = "classify images and print the probabilities"
EXAMPLE = (
    "verydeep classify cat.jpg --model deploy.prototxt --weights D.caffemodel "
    "--labels synset_words.txt --mean-value 103.939,116.779,123.68"
)

log = logging.getLogger("verydeep")

_CROPS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="the deploy prototxt, or a bundle, which has weights, labels, mean and size",
    )
    parser.add_argument("--weights", metavar="FILE", help="the net's weights")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    mean = parser.add_mutually_exclusive_group()
    mean.add_argument("--mean-value", type=_numbers, metavar="B,G,R", help="mean pixel, 0 to 255")
    mean.add_argument("--mean", metavar="FILE", help="mean image; its mean pixel is used")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--short-side",
        type=int,
        metavar="S",
        help="rescale to this short side before cropping (default: 8/7 of the crop, 256 for 224)",
    )
    size.add_argument(
        "--images_dim", type=_numbers, metavar="H,W", help="warp to this size, as Caffe does"
    )
    parser.add_argument("--input_scale", type=float, help="factor for the pixels after the mean")
    parser.add_argument(
        "--oversample",
        action="store_true",
        help="average over ten crops instead of the central one",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="number of classes to print"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_missing_argument(parser)
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    if args.top < 1:
        raise UsageError(f"--top: expected at least 1, got {args.top}; correct it")
    bundle = open_bundle(args)
    if bundle is not None:
        _take(args, bundle.preprocessing)
    elif args.mean_value is None and args.mean is None:
        propose(args.weights)
    with open_net(
        args.model,
        proto.TEST,
        open_backend(args),
        weights=[args.weights],
        allow_missing=args.allow_missing,
    ) as net:
        classifier = _classifier(net, args)
        labels = _read_labels(args.labels, classifier)
        if labels is None and bundle is not None and bundle.labels:
            labels = list(bundle.labels)
        results = []
        for path in args.images:
            predictions = _classify(classifier, path, labels, args)
            results.append({"image": path, "predictions": predictions})
            if not args.json:
                _print(results[-1])
    if args.json:
        print(json.dumps(results, indent=2))
    return 0


def _take(args: argparse.Namespace, prepared: Preprocessing) -> None:
    """Set the flags that are not given to the values of a bundle."""
    if args.mean_value is None and args.mean is None:
        args.mean_value = prepared.mean_value or (0.0,)
    if args.short_side is None and args.images_dim is None:
        args.short_side = prepared.short_side
        args.images_dim = prepared.warp and tuple(map(float, prepared.warp))
    if args.input_scale is None:
        args.input_scale = prepared.scale


def _classifier(net: Net, args: argparse.Namespace) -> Classifier:
    classifier = Classifier.around(net)
    shape = _input_shape(net)
    channels = shape[1]
    mean = _mean(args, channels)
    classifier.prepare(mean, args.input_scale, 255.0, (2, 1, 0) if channels == 3 else None)
    # One pass for one image: the batch is the number of its crops.
    net.blobs[net.inputs[0]].reshape((_CROPS if args.oversample else 1, *shape[1:]))
    net.reshape()
    return classifier


def _input_shape(net: Net) -> tuple[int, ...]:
    shape = net.blobs[net.inputs[0]].shape if net.inputs else ()
    if len(shape) != 4 or shape[1] not in (1, 3) or not net.outputs:
        raise ShapeError(
            f"net '{net.name}': expected an input of images (N,3,H,W) or (N,1,H,W), got {shape}; "
            "give the deploy prototxt, not the train_val one"
        )
    return shape


def _mean(args: argparse.Namespace, channels: int) -> npt.NDArray[Any] | None:
    """The mean pixel; a single value applies to all channels, as in transform_param."""
    if args.mean_value is None and args.mean is None:
        log.warning("neither --mean-value nor --mean: nothing is subtracted from the images")
        return None
    if args.mean is None:
        flag, values = "--mean-value", np.array(args.mean_value)
    else:
        flag, values = "--mean", np.asarray(read_mean(args.mean).mean(axis=(1, 2)))
    if len(values) not in (1, channels):
        raise UsageError(
            f"{flag}: expected 1 value or one for each of {channels} channels of the net's input, "
            f"got {len(values)}"
        )
    return np.broadcast_to(values, (channels,))


def _read_labels(path: str | None, classifier: Classifier) -> list[str] | None:
    if path is None:
        return None
    labels = [label for _, label in read_lines(path, "the labels", keep_empty=True)]
    output = classifier.blobs[classifier.outputs[0]]
    classes = output.count // output.shape[0]
    if len(labels) != classes:
        raise DataError(
            f"{path}: {len(labels)} labels for a net of {classes} classes; expected a line for "
            "each class; give the list of the data set that these weights were trained on"
        )
    return labels


def _classify(
    classifier: Classifier, path: str, labels: list[str] | None, args: argparse.Namespace
) -> list[dict[str, Any]]:
    color = classifier.blobs[classifier.inputs[0]].shape[1] == 3
    pixels = read_pixels(path, COLOR if color else GRAY)
    image = to_unit(_resized(pixels, classifier.crop_dims, args, path), color)
    classifier.image_dims = image.shape[:2]
    scores = classifier.predict([image], oversample=args.oversample).ravel()
    best = np.argsort(-scores, kind="stable")[: args.top]
    return [
        {
            "class": int(index),
            "label": labels[index] if labels else str(index),
            "probability": float(scores[index]),
        }
        for index in best
    ]


def _resized(pixels: Image, crop: tuple[int, ...], args: argparse.Namespace, path: str) -> Image:
    """Resize an image as the data layers of phase TEST do."""
    if args.images_dim is not None:
        sides = args.images_dim
        if len(sides) != 2:
            raise UsageError(f"--images_dim: expected H,W, got {len(sides)} number(s)")
        if not all(side >= 1 and side.is_integer() for side in sides):
            raise UsageError(f"--images_dim: expected whole numbers above 0, got {sides}")
        return warp(pixels, int(sides[0]), int(sides[1]), path)
    side = args.short_side if args.short_side is not None else max(crop) * 8 // 7
    if side < max(crop):
        raise UsageError(
            f"--short-side: expected at least the side of the net's input, {max(crop)}, got {side}"
        )
    return rescale_short_side(pixels, side, path)


def _print(result: dict[str, Any]) -> None:
    print(f"---------- Prediction for {result['image']} ----------")
    for prediction in result["predictions"]:
        print(f'{prediction["probability"]:.4f} - "{prediction["label"]}"')


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between them, got {text!r}"
        ) from None
