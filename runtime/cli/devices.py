"""Flags that several verbs share: those of the device, the net's state, lists and files."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DeviceError, UsageError
from prototxt_gen.sidecar import FP32, PRECISIONS, read_sidecar
from runtime.backend.base import Backend
from runtime.backend.cpu.lanes import default_threads
from runtime.backend.cuda.driver import OutOfMemoryError
from runtime.backend.registry import create_backend
from runtime.cli.usage import flag_group
from runtime.logs.glog import caffe_log

log = logging.getLogger("verydeep")

NET_FLAGS = "net and files"
"""The title of the flags of nets and of the files that they name."""

DEVICES = ("cpu", "gpu", "emu")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --gpu, --device, --threads, --exact, --precision and --launch-by-launch."""
    group = flag_group(parser, "device")
    group.add_argument(
        "--gpu",
        default="",
        metavar="IDS",
        help="run on these GPUs: 0, or 0,1, or all (default: solver_mode)",
    )
    group.add_argument(
        "--device", choices=DEVICES, help="cpu, gpu, or emu (GPU kernels run on the CPU, slowly)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument(
        "--exact",
        action="store_true",
        help="on the CPU, compute convolutions without Winograd's transforms: slower, with smaller "
        "rounding errors",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="the precision of the operands of convolutions, and on the CPU of all products and "
        "maps: fp32, bf16, or on a GPU tf32 (default: that of the solver's sidecar, or fp32)",
    )
    group.add_argument(
        "--launch-by-launch",
        action="store_true",
        help="call every kernel of every pass separately; by default, repeated work is recorded "
        "and replayed, on a GPU as CUDA graphs, with the same results",
    )


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Add Caffe's --level and --stage."""
    group = flag_group(parser, NET_FLAGS)
    group.add_argument(
        "--level", type=int, default=0, help="the net's level, for its include and exclude rules"
    )
    group.add_argument("--stage", default="", help="the net's stages, separated by commas")


def add_missing_argument(parser: argparse.ArgumentParser) -> None:
    """Add --allow-missing."""
    group = flag_group(parser, NET_FLAGS)
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="accept layers that have no weights in the file; they keep their initial values",
    )


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Add --force."""
    group = flag_group(parser, NET_FLAGS)
    group.add_argument(
        "--force",
        action="store_true",
        help="allow the files that the prototxt names (snapshots, their log, HDF5Output files) to "
        "replace files that this program did not write",
    )


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --confine-lists."""
    group = flag_group(parser, NET_FLAGS)
    group.add_argument(
        "--confine-lists",
        action="store_true",
        help="refuse files outside of the root folder in lists of images or HDF5 files, after "
        "resolving symbolic links: use it for untrusted lists",
    )


def stages(args: argparse.Namespace) -> list[str]:
    """The names that --stage lists."""
    return [name for name in args.stage.split(",") if name]


def weight_files(text: str) -> list[str]:
    """The files that --weights lists.

    Raises:
        UsageError: the text has commas only.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if text and not names:
        raise UsageError(
            f"--weights: expected a file, or several with commas, got {text!r}; name the files"
        )
    return names


def parse_gpus(text: str | None) -> tuple[int, ...]:
    """The GPUs that --gpu lists; empty without it.

    Raises:
        UsageError: the text is not a list of numbers.
    """
    if not text:
        return ()
    if text == "all":
        return tuple(range(gpu_count()))
    try:
        ids = tuple(int(part) for part in text.split(","))
    except ValueError:
        ids = ()
    if not ids or len(set(ids)) < len(ids) or min(ids) < 0:
        raise UsageError(
            f"--gpu: expected a number such as 0, a list such as 0,1, or all, got '{text}'; "
            "each GPU once"
        )
    return ids


def precision_of(args: argparse.Namespace) -> str:
    """The precision of --precision, or otherwise of the sidecar of the solver.

    Raises:
        ProtoError: the sidecar cannot be read.
    """
    named = getattr(args, "precision", None)
    if named is not None:
        return str(named)
    solver = getattr(args, "solver", None)
    return FP32 if solver is None else read_sidecar(solver).precision


def gpu_count() -> int:
    """The number of GPUs that this process may use, but at least 1: opening it gives the error."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([part for part in visible.split(",") if part.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))


def _device(args: argparse.Namespace, solver: Any, rank: int) -> tuple[str, int]:
    """The name and the number of the device of a replica."""
    name, gpus = args.device, parse_gpus(args.gpu)
    if gpus and name == "cpu":
        raise UsageError(
            f"--device cpu and --gpu {args.gpu} contradict each other; expected one of them; "
            "remove the other"
        )
    device = rank
    if gpus:
        name = name or "gpu"
        device = gpus[rank] if rank < len(gpus) else gpus[0] + rank
    elif name is None and solver is not None and solver.HasField("solver_mode"):
        name = "gpu" if solver.solver_mode == solver.GPU else "cpu"
        device = int(solver.device_id) + rank
    name = name or "cpu"
    return name, device if name == "gpu" else 0


def _backend_options(args: argparse.Namespace, name: str, replicas: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads: expected at least 1, got {args.threads}; correct it")
    if name == "cpu" and (args.threads is not None or replicas > 1):
        options["threads"] = max(1, (args.threads or default_threads()) // replicas)
    if getattr(args, "launch_by_launch", False):
        options["replay"] = False
    if getattr(args, "exact", False):
        if name != "cpu":
            raise UsageError(
                f"--exact: the device is {name}; expected the CPU, the one that offers this; "
                "remove --exact, or give --device cpu"
            )
        options["exact"] = True
    precision = precision_of(args)
    if precision != FP32:
        options["precision"] = precision
    return options


def open_backend(
    args: argparse.Namespace, solver: Any = None, rank: int = 0, replicas: int = 1
) -> Backend:
    """Open the device of replica `rank`: that of the flags, or otherwise of solver_mode.

    The default is the CPU, whose threads are divided among the replicas.

    Raises:
        UsageError: the flags contradict each other.
        DeviceError: the device is not available.
    """
    name, device = _device(args, solver, rank)
    options = _backend_options(args, name, replicas)
    try:
        backend = create_backend(name, device, **options)
    except DeviceError as error:
        if name != "gpu" or isinstance(error, OutOfMemoryError):
            raise
        raise type(error)(f"{error}; {_cpu_advice(args)}") from error
    if name == "cpu":
        caffe_log("caffe.cpp:197", "Use CPU.")
    else:
        caffe_log("caffe.cpp:200", "Using GPUs %d", device)
    if name in ("gpu", "emu") or "precision" in options:
        log.info("Convolutions compute in %s", options.get("precision", FP32))
    return backend


def _cpu_advice(args: argparse.Namespace) -> str:
    """How to use the CPU instead of a GPU that is not available."""
    if args.gpu:
        return f"to compute on the CPU, give --device cpu instead of --gpu {args.gpu}"
    if args.device is None:
        return "the GPU was chosen by solver_mode: GPU; to compute on the CPU, give --device cpu"
    return "to compute on the CPU, give --device cpu"
