"""`verydeep device_query`: properties of the GPUs. Caffe: device_query in tools/caffe.cpp."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prototxt_gen.errors import DeviceError, UsageError
from runtime.backend.cuda.driver import DeviceInfo
from runtime.backend.cuda.known_answers import next_rung
from runtime.backend.cuda.requirements import Requirement, gpu_requirements
from runtime.backend.registry import create_backend
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
    parser.add_argument(
        "--check",
        action="store_true",
        help="check every kernel family against known answers, and print those that fail; exit "
        "status 1 if one fails",
    )


def run(args: argparse.Namespace) -> int:
    """Print each device in Caffe's format, with a few more properties.

    Raises:
        DeviceError: a device cannot be used; the message lists what is available and missing.
    """
    numbers = None if args.gpu == "all" else parse_gpus(args.gpu)
    if numbers == ():
        raise UsageError("--gpu: expected a number, a list or all, got nothing; name a GPU")
    devices, failure = _query(numbers)
    requirements = gpu_requirements()
    faults = {number: _check(number) for number in devices} if args.check else {}
    if args.json:
        checks = {"self_check": faults} if args.check else {}
        print(json.dumps(_as_dict(devices, requirements, failure) | checks, indent=1))
    if failure is not None:
        states = "\n".join(f"  {requirement}" for requirement in requirements.values())
        raise DeviceError(f"{failure}\n{states}") from failure
    if not args.json:
        print(f"Querying GPUs {args.gpu}", file=sys.stderr)
        print("\n\n".join(_lines(number, info) for number, info in devices.items()))
        for number, families in faults.items():
            print("\n".join(check_lines(number, families)))
    for requirement in requirements.values():
        if not requirement.available:
            print(f"verydeep {NAME}: {requirement}", file=sys.stderr)
    return int(any(any(families.values()) for families in faults.values()))


def _check(number: int) -> Mapping[str, str]:
    """The fault of each kernel family of a GPU, empty where it gives the known answers.

    Raises:
        DeviceError: the device cannot be opened, or a kernel cannot be built.
    """
    from runtime.backend.cuda.backend import CudaBackend

    backend = create_backend("gpu", number)
    assert isinstance(backend, CudaBackend) and backend.self_check is not None
    try:
        return backend.self_check.run()
    finally:
        backend.driver.close()


def check_lines(number: int, faults: Mapping[str, str]) -> list[str]:
    """The result of a self-check: a line for each family that failed, and a total."""
    failed = {rung: fault for rung, fault in faults.items() if fault}
    lines = [
        f"Self-check of GPU {number}: {rung} failed ({fault}); "
        f"{next_rung(rung) or 'nothing'} is used instead"
        for rung, fault in failed.items()
    ]
    right = len(faults) - len(failed)
    return [*lines, f"Self-check of GPU {number}: {right} of {len(faults)} kernel families passed"]


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
) -> dict[str, Any]:
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
