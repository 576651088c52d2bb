"""Contestants in separate processes, and rounds in which each runs once."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

WORKERS = Path(__file__).resolve().parent / "workers"
# Seconds of pause before each run: threads of OpenBLAS and OpenMP spin for a while after work.
_REST = 0.15
# The process keeps large blocks instead of returning them to the system at every step, which makes
# training in PyTorch about a fifth faster.
TUNED = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@dataclass(frozen=True)
class Entry:
    """A contestant: a script of benchmarks/workers, its Python, and its options."""

    key: str
    python: str
    script: str
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Job:
    """The work of all contestants. `net` is a letter of Table 1; `/8`: an eighth as wide, 64x64."""

    work: str
    net: str
    batch: int
    threads: int

    @property
    def flags(self) -> list[str]:
        flags = ["--work", self.work, "--net", self.net]
        return [*flags, "--batch", str(self.batch), "--threads", str(self.threads)]


class Contestant:
    """A started worker; see workers/serve.py for the protocol."""

    def __init__(self, entry: Entry, job: Job) -> None:
        self.key = entry.key
        environment = os.environ | dict(entry.environment)
        paths = [str(WORKERS.parents[1]), str(WORKERS.parent), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = subprocess.Popen(
            [entry.python, str(WORKERS / entry.script), *job.flags, *entry.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.description: dict[str, Any] = self._answer()

    def run(self, count: int = 1) -> float:
        """Compute `count` times without a pause, and return the time of one. Units: ms."""
        return float(self._ask(str(count)))

    def peak_memory(self) -> float:
        """The peak of the resident memory. Units: MB of 2^20 bytes."""
        return float(self._ask("memory"))

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.key}: the worker ended with {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Contestant:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Outcome:
    """Times of each round, peaks of memory, and descriptions, by contestant. Units: ms, MB."""

    times: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def median(self, key: str) -> float:
        return statistics.median(self.times[key])

    def best(self, keys: list[str]) -> str:
        """The fastest of these contestants."""
        return min(keys, key=self.median)

    def ratio(self, peer: str, ours: str) -> float:
        """The time of the peer over ours: the median of the ratios of the rounds."""
        pairs = zip(self.times[peer], self.times[ours], strict=True)
        return statistics.median(a / b for a, b in pairs)


def compete(entries: list[Entry], job: Job, rounds: int, count: int = 1) -> Outcome:
    """Start all contestants, run one round for warming up, then `rounds` that are measured.

    In each, every contestant computes `count` times without a pause.
    """
    outcome = Outcome()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Contestant(entry, job)) for entry in entries]
        for contestant in started:
            outcome.times[contestant.key] = []
            outcome.descriptions[contestant.key] = contestant.description
        for number in range(rounds + 1):
            for contestant in started:
                time.sleep(_REST)
                spent = contestant.run(count)
                if number:
                    outcome.times[contestant.key].append(spent)
        for contestant in started:
            outcome.peaks[contestant.key] = contestant.peak_memory()
    return outcome
