"""Runs every stage of the GPU check within its time limit, and prints a summary.

Started by gpu_check.sh. After a stage that fails or exceeds its limit the others run; the exit
status is 0 if all succeed, 1 if one fails, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from record import ROOT, write_record

from prototxt_gen.errors import DeviceError
from prototxt_gen.files import atomic_write_text
from runtime.backend.cuda import open_driver

# Seconds, including the installation.
WHOLE = 530
OK, LATE = "ok", "late"


@dataclass(frozen=True)
class Stage:
    """A command and its time limit; `needs` is a program it requires. Units: seconds."""

    name: str
    limit: float
    command: Sequence[str]
    needs: str | None = None


@dataclass
class Outcome:
    """The result of a stage."""

    name: str
    status: str
    seconds: float
    last_line: str


def stages(device: str, size: str, out: Path) -> list[Stage]:
    """The stages, the most informative first."""
    python, gpu_tests = sys.executable, "tests/cuda_kernels/test_kernels_gpu.py"
    pytest = [python, "-m", "pytest", "-m", "gpu", "-rs", "--color=no"]
    # A dry run tests the same launches and replays on the emulator.
    emulated = [python, "-m", "pytest", "-m", "not gpu and not slow", "--color=no"]
    emulated += [
        "tests/runtime/backend/test_driver_emulator.py",
        "tests/runtime/net/test_replay.py",
    ]
    # An expression of pytest for the tests that are not slow on the emulator.
    sanitized = [*pytest, gpu_tests, "-k", "same_bits", "-x"]
    checker = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
    train = [python, "-m", "runtime.cli.main", "run", "--data", "demo", "--device", device]
    train += ["--out", str(out / "train"), "--fresh"]
    if size == "tiny":
        train += ["--max-iter", "1"]

    def measured(name: str, limit: float) -> Stage:
        flags = ["--device", device, "--size", size, "--out", str(out / f"{name}.json")]
        return Stage(name, limit, [python, "benchmarks/gpu.py", name, *flags])

    return [
        measured("machine", 15),
        measured("build", 60),
        Stage("tests", 70, emulated if device == "emu" else pytest),
        measured("bandwidth", 15),
        measured("layers", 60),
        measured("steps", 110),
        measured("launches", 25),
        Stage("train", 270 if device == "emu" else 70, train),
        Stage("memcheck", 40, [*checker, "memcheck", *sanitized], "compute-sanitizer"),
        Stage("racecheck", 30, [*checker, "racecheck", *sanitized], "compute-sanitizer"),
    ]


def run_stage(stage: Stage, limit: float, log: Path) -> Outcome:
    """Run a command with its output in a log; at the limit it and its children are killed."""
    if stage.needs is not None and shutil.which(stage.needs) is None:
        return Outcome(stage.name, f"left out: no {stage.needs}", 0.0, "")
    if limit <= 0:
        return Outcome(stage.name, f"{LATE}: no time was left", 0.0, "")
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as words:
        child = subprocess.Popen(
            stage.command, cwd=ROOT, stdout=words, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(limit)
            status = OK if code == 0 else f"failed: exit status {code}"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = f"{LATE}: ended after {limit:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    if status == OK and stage.name == "tests" and " passed" not in lines[-1]:
        status = "failed: no test ran"
    return Outcome(stage.name, status, time.monotonic() - start, lines[-1][:160])


def table(outcomes: Sequence[Outcome]) -> str:
    """A table with one line per stage."""
    width = max(len(outcome.status) for outcome in outcomes)
    return "\n".join(
        f"{one.name:<10} {one.status:<{width}} {one.seconds:6.1f} s  {one.last_line}".rstrip()
        for one in outcomes
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages and write summary.json and summary.txt."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_check.py", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--started", type=float, default=time.time(), metavar="EPOCH")
    parser.add_argument("--device", choices=("gpu", "emu"), default="gpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--stages", metavar="A,B", help="run only these")
    args = parser.parse_args(argv)
    every = stages(args.device, args.size, args.out)
    names = args.stages.split(",") if args.stages else [stage.name for stage in every]
    unknown = set(names) - {stage.name for stage in every}
    if unknown:
        names = ", ".join(stage.name for stage in every)
        print(f"gpu_check: no stage {', '.join(sorted(unknown))}; expected {names}; correct it")
        return 2
    try:
        open_driver(args.device).close()
    except DeviceError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for stage in every:
        if stage.name in names:
            left = args.started + WHOLE - time.time()
            log = args.out / f"{stage.name}.log"
            outcomes.append(run_stage(stage, min(stage.limit, left), log))
            print(table(outcomes[-1:]), flush=True)
            _write(args.out, outcomes)
    return int(any(one.status != OK and "left out" not in one.status for one in outcomes))


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    atomic_write_text(out / "summary.txt", table(outcomes) + "\n")
    write_record(out / "summary.json", {"stages": [asdict(outcome) for outcome in outcomes]})


if __name__ == "__main__":
    sys.exit(main())
