"""`verydeep device_query`: properties of the GPUs. Caffe: device_query in tools/caffe.cpp."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from prototxt_gen.errors import DeviceError, UsageError
from runtime.backend.cuda.driver import DeviceInfo
from runtime.backend.cuda.requirements import Requirement, gpu_requirements
from runtime.cli.devices import parse_gpus

NAME = "device_query"
SUMMARY = "print the properties of the GPUs, or what is missing to use one"
EXAMPLE = "verydeep device_query --gpu all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument(
        "--gpu", default="0", metavar="IDS", help="GPUs to print: 0, or 0,1, or all (default: 0)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the devices, and the state of driver, GPU, CUDA toolkit and PyCUDA, as JSON",
    )


def run(args: argparse.Namespace) -> int:
    """Print each device in Caffe's format, with a few more properties.

    Raises:
        DeviceError: a device cannot be used; the message lists what is available and missing.
    """
    wanted = None if args.gpu == "all" else parse_gpus(args.gpu)
    if wanted == ():
        raise UsageError("--gpu: expected a number, a list or all, got nothing; name a GPU")
    devices, failure = _query(wanted)
    requirements = gpu_requirements()
    if args.json:
        print(json.dumps(_as_dict(devices, requirements, failure), indent=1))
    if failure is not None:
        states = "\n".join(f"  {requirement}" for requirement in requirements.values())
        raise DeviceError(f"{failure}\n{states}") from failure
    if not args.json:
        print(f"Querying GPUs {args.gpu}", file=sys.stderr)
        print("\n\n".join(_lines(number, info) for number, info in devices.items()))
    for requirement in requirements.values():
        if not requirement.available:
            print(f"verydeep {NAME}: {requirement}", file=sys.stderr)
    return 0


def _query(wanted: tuple[int, ...] | None) -> tuple[dict[int, DeviceInfo], DeviceError | None]:
    from runtime.backend.cuda.driver_pycuda import query_devices

    try:
        return query_devices(wanted), None
    except DeviceError as error:
        return {}, error


def _as_dict(
    devices: Mapping[int, DeviceInfo],
    requirements: Mapping[str, Requirement],
    failure: DeviceError | None,
) -> dict[str, object]:
    return {
        "devices": [{"device_id": number, **asdict(info)} for number, info in devices.items()],
        "error": None if failure is None else str(failure),
        "missing": [key for key, requirement in requirements.items() if not requirement.available],
        "requirements": {key: asdict(requirement) for key, requirement in requirements.items()},
    }


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
