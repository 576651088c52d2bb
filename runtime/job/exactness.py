"""Checks that the bytes of a trained net do not depend on the number of replicas.

Trains a small net on 1, 2, 4 and 8 replicas, in processes that are killed and resumed, and under
mpirun:

    python -m runtime.job.exactness

The net includes everything that could cause differences: dropout, crops and flips, LRN, iter_size,
weights shared between layers, a layer wide enough for factors.py, gradient clipping. The SHA-256 of
weights and solver state is printed for each run.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.datum import from_array
from data_prep.lmdb_io import Writer
from prototxt_gen.errors import TrainingError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.job.training import AUTO as AUTO_SNAPSHOT
from runtime.job.training import TrainJob, train
from runtime.logs.glog import setup_logging
from runtime.parallel.links import AUTO
from runtime.solvers.hooks import SolverHook
from runtime.solvers.snapshot import files_of, newest_snapshot

COUNTS = (1, 2, 4, 8)
_IMAGES = 96
_ROOT = Path(__file__).resolve().parents[2]

NET = """
name: "exact"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 10 mirror: true scale: 0.02 mean_value: 127 }
  data_param { source: "images" batch_size: 16 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 10 scale: 0.02 mean_value: 127 }
  data_param { source: "images" batch_size: 16 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { alpha: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "wide" type: "InnerProduct" bottom: "pool1" top: "wide"
  inner_product_param { num_output: 600 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "wide" top: "wide" }
layer { name: "fc2" type: "InnerProduct" bottom: "wide" top: "fc2"
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3" param { name: "shared" }
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
layer { name: "relu3" type: "ReLU" bottom: "fc3" top: "fc3" }
layer { name: "fc4" type: "InnerProduct" bottom: "fc3" top: "fc4" param { name: "shared" }
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
layer { name: "fc5" type: "InnerProduct" bottom: "fc4" top: "fc5"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc5" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc5" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""

SOLVER = """
net: "{folder}/net.prototxt"
type: "{type}"
base_lr: 0.01
lr_policy: "fixed"
weight_decay: 0.0005
{momentum}
clip_gradients: 2
iter_size: 2
max_iter: {iterations}
snapshot: {snapshot}
snapshot_prefix: "{folder}/run/exact"
test_iter: 5
test_interval: 3
display: 2
random_seed: 7
"""

SIDECAR = """
[data.train]
colour_shift = 0.0
shuffle = true
workers = 1
[data.test]
workers = 1
[parallel]
shards = {shards}
"""


def write_case(
    folder: Path, solver_type: str = "SGD", iterations: int = 6, snapshot: int = 3, shards: int = 8
) -> Path:
    """Write images, net, solver and sidecar to an empty folder, and return the solver's path."""
    rng = np.random.default_rng(1)
    with Writer(folder / "images") as writer:
        for index in range(_IMAGES):
            image = rng.integers(0, 256, (3, 12, 12), dtype=np.uint8)
            image[index % 3, :: 1 + index % 4] //= 4
            writer.put(b"%08d" % index, from_array(image, index % 4).SerializeToString())
    net = NET.replace('source: "images"', f'source: "{folder}/images"')
    (folder / "net.prototxt").write_text(net)
    path = folder / "solver.prototxt"
    momentum = "momentum: 0.9" if solver_type in ("SGD", "Nesterov", "Adam") else ""
    path.write_text(
        SOLVER.format(
            folder=folder,
            type=solver_type,
            momentum=momentum,
            iterations=iterations,
            snapshot=snapshot,
        )
    )
    (folder / "solver.verydeep.toml").write_text(SIDECAR.format(shards=shards))
    return path


def train_case(
    solver: Path,
    replicas: int,
    device: str = "cpu",
    snapshot: str | None = None,
    transport: str = AUTO,
    hooks: Sequence[SolverHook] = (),
) -> str:
    """Train on `replicas`, and return the SHA-256 of the last weights and solver state."""

    def open_backend(param: Any, rank: int = 0) -> Backend:
        return create_backend(device, 0, **({"threads": 1} if device == "cpu" else {}))

    job = TrainJob(str(solver), snapshot=snapshot, replicas=replicas, transport=transport)
    result = train(job, open_backend, hooks, open_backend)
    return digest(result.files[:2])


def digest(files: Sequence[Path]) -> str:
    """The SHA-256 of the contents of files in order."""
    state = hashlib.sha256()
    for path in files:
        state.update(path.read_bytes())
    return state.hexdigest()


class _Kill(SolverHook):
    """Kills the process at an iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_iteration(self, solver: Any, progress: Any) -> None:
        if progress.iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_case(solver: Path, device: str) -> str:
    """Train in processes that are killed, on different numbers of replicas; returns the SHA-256.

    Raises:
        TrainingError: a process was not killed as intended.
    """
    shutil.rmtree(solver.parent / "run", ignore_errors=True)
    for replicas, iteration in ((2, 5), (4, 4)):
        given = ["--kill", str(solver), str(replicas), str(iteration)]
        command = [sys.executable, "-m", "runtime.job.exactness", "--device", device, *given]
        ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        if ended.returncode != -signal.SIGKILL:
            raise TrainingError(
                f"exactness: the run to be killed ended with {ended.returncode}; expected "
                f"{-signal.SIGKILL}; the end of its output: {ended.stderr[-500:]}"
            )
    return train_case(solver, 8, device, snapshot=AUTO_SNAPSHOT)


def mpi_case(solver: Path, device: str) -> str | None:
    """Train on two processes under mpirun; returns the SHA-256, or None without an MPI.

    Raises:
        TrainingError: mpirun failed.
    """
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpirun = shutil.which("mpirun", path=places)
    if mpirun is None or importlib.util.find_spec("mpi4py") is None:
        return None
    shutil.rmtree(solver.parent / "run", ignore_errors=True)
    verb = [sys.executable, "-m", "runtime.cli.main", "train", "--solver", str(solver)]
    command = [mpirun, "-n", "2", *verb, "--device", device, "--threads", "1"]
    # Open MPI requires a confirmation to run as root, the usual user of containers.
    allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    environment = os.environ | dict.fromkeys(allowed, "1")
    ended = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise TrainingError(
            f"exactness: {mpirun} ended with {ended.returncode}; expected 0; the end of its "
            f"output: {ended.stderr[-500:]}"
        )
    newest = newest_snapshot(str(solver.parent / "run" / "exact"))
    return digest(files_of(newest)[:2]) if newest is not None else ""


def _runs(solver: Path, device: str) -> Iterator[tuple[str, str | None]]:
    """The runs to compare, one after the other: name and SHA-256."""
    for replicas in COUNTS:
        yield f"{replicas} replica(s)", train_case(solver, replicas, device)
    yield "killed and resumed", killed_case(solver, device)
    yield "mpirun -n 2", mpi_case(solver, device)


def main(argv: Sequence[str] | None = None) -> int:
    """Train in all these ways; the exit status is 1 if the bytes differ."""
    parser = argparse.ArgumentParser(prog="python -m runtime.job.exactness")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or emu (default: %(default)s)")
    parser.add_argument("--type", default="SGD", help="the solver type (default: %(default)s)")
    parser.add_argument("--kill", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    setup_logging(logging.ERROR)
    if args.kill:
        solver, replicas, iteration = args.kill
        hook = _Kill(int(iteration))
        train_case(Path(solver), int(replicas), args.device, AUTO_SNAPSHOT, hooks=(hook,))
        return 1
    digests: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        for case, digits in _runs(write_case(Path(name), args.type), args.device):
            print(f"{case}: {digits or 'left out: there is no mpirun, or no mpi4py'}", flush=True)
            digests |= {digits} if digits else set()
    if len(digests) == 1:
        print(digests.pop())
        return 0
    print("the bytes differ", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
