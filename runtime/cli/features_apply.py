"""`verydeep features apply`: classes of new images by saved linear SVMs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.image_files import ImageFiles
from prototxt_gen.errors import UsageError
from runtime.cli.bundles import take_evaluation_settings
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.cli.evaluate import add_mean_argument, add_model_arguments, mean_values
from runtime.paper.features.extraction import Extractor, Features, ImageSet
from runtime.paper.features.feature_file import read_features
from runtime.paper.features.protocol import FeatureProtocol
from runtime.paper.features.saved_svm import SavedSvm, read_svm


def add_apply_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the action."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--svm", required=True, type=Path, metavar="FILE", help="file of `features evaluate --save`"
    )
    parser.add_argument(
        "--features",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="files of `extract`, instead of images and --model",
    )
    add_model_arguments(parser, required=False)
    add_mean_argument(parser)
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="number of classes to print"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_device_arguments(parser)


def apply(args: argparse.Namespace) -> int:
    """Print the classes with the highest decision values for each image."""
    if args.top < 1:
        raise UsageError(f"--top: expected at least 1, got {args.top}; correct it")
    if bool(args.images) == bool(args.features):
        raise UsageError(
            "features apply: expected images with --model, or --features, got "
            f"{'both' if args.images else 'neither'}; give one of them"
        )
    saved = read_svm(args.svm)
    members = [read_features(path) for path in args.features]
    if args.images:
        members = [_extracted(args, saved)]
    scores = saved.apply(members)
    results: list[dict[str, Any]] = [
        {"image": name, "predictions": _best(saved, row, args.top)}
        for name, row in zip(members[0].names, scores)
    ]
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    for result in results:
        print(f"---------- Prediction for {result['image']} ----------")
        for prediction in result["predictions"]:
            print(f'{prediction["score"]:+.4f} - "{prediction["label"]}"')
    return 0


def _extracted(args: argparse.Namespace, saved: SavedSvm) -> Features:
    """The features of the images, extracted as those of the training."""
    if args.model is None:
        raise UsageError(
            "--model: missing; expected the net of the SVM's features, or a bundle; add --model"
        )
    if len(saved.members) > 1:
        raise UsageError(
            f"{args.svm}: trained on the features of {len(saved.members)} nets; expected one for "
            "images; extract the features of each, and give --features"
        )
    trained = saved.members[0]
    args.scales = ",".join(map(str, trained["scales"]))
    take_evaluation_settings(args)
    protocol = FeatureProtocol(
        tuple(trained["scales"]), trained["aggregate"], trained["flip"], trained["layer"]
    )
    files = ImageFiles(Path(), [(image, 0) for image in args.images])
    mean = None if args.mean_value is None else mean_values(args.mean_value)
    extractor = Extractor(ImageSet(files, "images"), open_backend(args), None, mean)
    return extractor.extract(args.model, args.weights, protocol)


def _best(saved: SavedSvm, scores: Any, count: int) -> list[dict[str, Any]]:
    order = np.argsort(-scores, kind="stable")[:count]
    return [{"class": int(k), "label": saved.classes[k], "score": float(scores[k])} for k in order]
