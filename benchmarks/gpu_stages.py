"""The stages of the check of a GPU machine, in two parts that fit into one visit each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from record import ROOT

OK, LATE = "ok", "late"
PART_SECONDS = {1: 180.0, 2: 380.0}
"""The limit of each part, including the installation."""
_REHEARSAL = 4
_GRACE = 4.0
"""Seconds in which a stage that is late may write what it has."""


@dataclass(frozen=True)
class Stage:
    """A command and its time limit; `needs` is a program it requires. Units: seconds."""

    name: str
    limit: float
    command: Sequence[str]
    needs: str | None = None
    part: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """The result of a stage."""

    name: str
    status: str
    seconds: float
    last_line: str


def stages(device: str, size: str, work: Path) -> list[Stage]:
    """The stages of both parts, in each part the most informative first."""
    first = [
        _measured("machine", 30, device, size, work),
        _measured("build", 60, device, size, work),
        _tests("tests", 60, device, work, 1),
        _measured("probes", 30, device, size, work),
        _measured("step", 60, device, size, work),
        _measured("profile", 20, device, size, work),
    ]
    second = [
        _measured("layers", 90, device, size, work, 2),
        _measured("steps", 140, device, size, work, 2),
        _measured("launches", 25, device, size, work, 2),
        _measured("bandwidth", 15, device, size, work, 2),
        _counters(device, size, work),
        _train(device, size, work),
        _tests("all-tests", 70, device, work, 2),
        *_sanitizers(),
    ]
    return [*first, *second]


def _measured(name: str, limit: float, device: str, size: str, work: Path, part: int = 1) -> Stage:
    flags = ["--device", device, "--size", size, "--out", str(work / f"{name}.json")]
    # A rehearsal runs on the host, next to other programs.
    limit *= _REHEARSAL if size == "tiny" else 1
    return Stage(name, limit, [sys.executable, "benchmarks/gpu.py", name, *flags], None, part)


def _tests(name: str, limit: float, device: str, work: Path, part: int) -> Stage:
    pytest = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-rs", "--color=no"]
    pytest += ["-p", "failures_now"]
    if device == "emu":
        # A dry run tests the same launches and replays on the emulator.
        pytest += ["-m", "not gpu and not slow", "tests/runtime/backend/test_driver_emulator.py"]
        pytest += ["tests/runtime/net/test_replay.py"] if part == 2 else []
    else:
        pytest += ["-m", "gpu"]
    if device == "gpu" and part == 1:
        pytest += ["tests/runtime/backend/test_driver_pycuda.py"]
        pytest += ["tests/cuda_kernels/test_kernels_gpu.py"]
    paths = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "VERYDEEP_FAILURES": str(work / f"{name}.failures.txt"),
    }
    return Stage(name, limit, pytest, None, part, environment)


def _counters(device: str, size: str, work: Path) -> Stage:
    """NVIDIA's counters of the first launches of five kernels."""
    kernels = "regex:^(gemm|conv_bf16|conv_tf32|conv_weight_bf16|winograd)"
    command = ["ncu", "--set", "basic", "--kernel-name", kernels, "--launch-count", "5"]
    layers = _measured("layers", 0, device, "tiny" if size == "tiny" else "full", work)
    flags = [flag.replace("layers.json", "counted.json") for flag in layers.command]
    return Stage("counters", 30, [*command, *flags], "ncu", 2)


def _train(device: str, size: str, work: Path) -> Stage:
    command = [sys.executable, "-m", "runtime.cli.main", "run", "--data", "demo"]
    command += ["--device", device, "--out", str(work / "train"), "--fresh"]
    command += ["--max-iter", "1"] if size == "tiny" else []
    return Stage("train", 270 if device == "emu" else 70, command, None, 2)


def _sanitizers() -> list[Stage]:
    # An expression of pytest for the tests that are not slow on the emulator.
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-x", "--color=no"]
    tests += ["tests/cuda_kernels/test_kernels_gpu.py", "-k", "same_bits"]
    checker = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
    return [
        Stage(tool, 40, [*checker, tool, *tests], checker[0], 2)
        for tool in ("memcheck", "racecheck")
    ]


def run_stage(stage: Stage, limit: float, log: Path) -> Outcome:
    """Run a command with its output in a log.

    At the limit the command is interrupted, so that it can write what it has, and then killed with
    its children.
    """
    if stage.needs is not None and shutil.which(stage.needs) is None:
        return Outcome(stage.name, f"left out: no {stage.needs}", 0.0, "")
    if limit <= 0:
        return Outcome(stage.name, f"{LATE}: no time was left", 0.0, "")
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as words:
        child = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, **stage.environment},
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(limit)
            status = OK if code == 0 else f"failed: exit status {code}"
        except subprocess.TimeoutExpired:
            status = f"{LATE}: ended after {limit:.0f} s"
        finally:
            _end(child)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    if status == OK and stage.name.endswith("tests") and " passed" not in lines[-1]:
        status = "failed: no test ran"
    return Outcome(stage.name, status, time.monotonic() - start, lines[-1][:160])


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt a process that still runs, and kill its group."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
