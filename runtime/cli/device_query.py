"""`verydeep device_query`: what the GPUs are. Caffe: device_query in tools/caffe.cpp."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.driver import DeviceInfo
from runtime.cli.devices import parse_gpus

NAME = "device_query"
SUMMARY = "say what the GPUs are, or why there are none"
EXAMPLE = "verydeep device_query --gpu all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument(
        "--gpu", default="0", metavar="IDS", help="these GPUs: 0, or 0,1, or all (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Print each device, in Caffe's words and a few more.

    Raises:
        DeviceError: PyCUDA, the driver or the GPU is missing; says which.
    """
    from runtime.backend.cuda.driver_pycuda import query_devices

    wanted = None if args.gpu == "all" else parse_gpus(args.gpu)
    if wanted == ():
        raise DeviceError("--gpu: expected a number, a list or all, got nothing; name a GPU")
    devices = query_devices(wanted)
    if args.json:
        described = [{"device_id": number, **asdict(info)} for number, info in devices.items()]
        print(json.dumps(described, indent=1))
        return 0
    print(f"Querying GPUs {args.gpu}", file=sys.stderr)
    print("\n\n".join(_lines(number, info) for number, info in devices.items()))
    return 0


def _lines(number: int, info: DeviceInfo) -> str:
    major, minor = info.compute_capability
    rows = {
        "Device id": str(number),
        "Major revision number": str(major),
        "Minor revision number": str(minor),
        "Name": info.name,
        "Total global memory": str(info.total_memory),
        "Total shared memory per block": str(info.shared_per_block),
        "Clock rate": str(info.clock_khz),
        "Number of multiprocessors": str(info.multiprocessors),
        "Memory clock rate": str(info.memory_clock_khz),
        "Memory bus width": str(info.memory_bus_bits),
        "Size of L2 cache": str(info.l2_cache),
        "Driver version": info.driver_version,
    }
    return "\n".join(f"{name + ':':31}{value}" for name, value in rows.items())
