"""Write a net's blobs into databases, batch by batch. Caffe: tools/extract_features.cpp."""

from __future__ import annotations

import argparse
import contextlib
import logging

import numpy as np

from data_prep.datum import from_array
from data_prep.lmdb_io import Writer
from prototxt_gen import proto
from prototxt_gen.errors import DeviceError, ProtoError, UnsupportedError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.cli.devices import add_force_argument, add_list_arguments, add_missing_argument
from runtime.cli.test import test_data_options, warn_of_inputs
from runtime.core.context import RunContext
from runtime.logs.glog import setup_logging
from runtime.net import Net
from runtime.weights.net_file import open_net

NAME = "extract_features"
SUMMARY = "run a net on its data and write blobs to LMDBs"
EXAMPLE = "verydeep extract_features D.caffemodel val.prototxt fc7,fc8 fc7_lmdb,fc8_lmdb 10 lmdb"

log = logging.getLogger("verydeep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pretrained_net_param", metavar="WEIGHTS", help="the net's weights")
    parser.add_argument(
        "feature_extraction_proto_file", metavar="NET", help="a net prototxt with data layers"
    )
    parser.add_argument("blob_names", metavar="BLOBS", help="blobs to write: fc7 or fc7,fc8")
    parser.add_argument("dataset_names", metavar="DATABASES", help="a new database for each blob")
    parser.add_argument("num_mini_batches", metavar="BATCHES", type=int, help="number of batches")
    parser.add_argument(
        "db_type", nargs="?", default="lmdb", help="type of the databases: only lmdb"
    )
    parser.add_argument("mode", nargs="?", default="CPU", metavar="CPU|GPU", help="device type")
    parser.add_argument(
        "device_id", nargs="?", default="0", metavar="DEVICE_ID", help="index of the GPU"
    )
    parser.add_argument(
        "--solver",
        metavar="FILE",
        help="the solver whose sidecar sets how images are rescaled (default: the only sidecar in "
        "the folder of the net)",
    )
    add_missing_argument(parser)
    add_list_arguments(parser)
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    setup_logging()
    names = args.blob_names.split(",")
    folders = args.dataset_names.split(",")
    _check(args, names, folders)
    device = args.device_id.removeprefix("DEVICE_ID=")
    if not device.isdecimal():
        raise ProtoError(f"DEVICE_ID: expected a number such as 0, got {args.device_id!r}")
    backend = _open(args.mode, int(device))
    context = RunContext(
        data=test_data_options(args.feature_extraction_proto_file, args.solver),
        confine_lists=args.confine_lists,
        force=args.force,
    )
    with contextlib.ExitStack() as stack:
        path = args.feature_extraction_proto_file
        weights = [args.pretrained_net_param]
        net = stack.enter_context(
            open_net(
                path,
                proto.TEST,
                backend,
                context,
                weights=weights,
                allow_missing=args.allow_missing,
            )
        )
        warn_of_inputs(net)
        for name in names:
            if name not in net.blobs:
                raise ProtoError(
                    f"Unknown feature blob name {name} in the network "
                    f"{args.feature_extraction_proto_file}; expected one of {', '.join(net.blobs)}"
                )
        writers = [stack.enter_context(Writer(folder, resuming="")) for folder in folders]
        for writer in writers:
            writer.begin()
        counts = _extract(net, dict(zip(names, writers)), args.num_mini_batches)
    for name, folder in zip(names, folders):
        print(f"{folder}: {counts[name]} features of {name}")
    return 0


def _open(mode: str, device: int) -> Backend:
    try:
        return create_backend(mode.lower(), device if mode == "GPU" else 0)
    except DeviceError as error:
        raise type(error)(f"{error}; to compute on the CPU, give CPU instead of GPU") from error


def _check(args: argparse.Namespace, names: list[str], folders: list[str]) -> None:
    if len(names) != len(folders):
        raise ProtoError(
            "the number of blob names and dataset names must be equal; got "
            f"{len(names)} and {len(folders)}; give one database for each blob"
        )
    if len(set(folders)) < len(folders) or len(set(names)) < len(names):
        raise ProtoError(
            f"blobs {','.join(names)}, databases {','.join(folders)}: expected each blob and each "
            "database once; remove the repetition"
        )
    if args.num_mini_batches < 1:
        raise ProtoError(f"BATCHES: expected at least 1, got {args.num_mini_batches}; correct it")
    if args.db_type != "lmdb":
        raise UnsupportedError(
            f"database type {args.db_type!r}: expected lmdb, the only type that is written; write "
            "lmdb instead"
        )
    if args.mode not in ("CPU", "GPU"):
        raise ProtoError(f"device: expected CPU or GPU, got {args.mode!r}; correct it")


def _extract(net: Net, writers: dict[str, Writer], batches: int) -> dict[str, int]:
    """Write one float Datum per image, keyed 0000000000, 0000000001 ... as Caffe does."""
    counts = dict.fromkeys(writers, 0)
    for batch in range(batches):
        net.forward()
        for name, writer in writers.items():
            blob = net.blobs[name]
            rows = blob.data.host().reshape(blob.legacy_shape(f"blob '{name}'"))
            for row in np.asarray(rows, np.float32):
                datum = from_array(row, 0)
                datum.ClearField("label")
                writer.put(f"{counts[name]:010d}".encode(), datum.SerializeToString())
                counts[name] += 1
        log.info("Extracted features of %d batches", batch + 1)
    return counts
