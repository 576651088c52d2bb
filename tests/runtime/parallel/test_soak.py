"""A long run that is killed and resumed many times, on changing numbers of replicas."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.backend.registry import create_backend
from runtime.job.exactness import digest, train_case, write_case
from runtime.job.training import TrainJob, train
from runtime.solvers.hooks import SolverHook
from tests.runtime.parallel.test_exactness import KILLED, ROOT

ITERATIONS, SNAPSHOT, KILLS = 2000, 100, 6
GROWTH = 32 << 20


class _Memory(SolverHook):
    """Records the resident memory after a quarter of the run and at its end."""

    def __init__(self) -> None:
        self.resident: list[int] = []

    def on_iteration_end(self, solver: Any) -> None:
        if solver.iter in (ITERATIONS // 4, ITERATIONS):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_kills_resumes_and_other_replicas_do_not_show(tmp_path: Path) -> None:
    solver = write_case(tmp_path, iterations=ITERATIONS, snapshot=SNAPSHOT)
    # Fewer tests, to save time.
    solver.write_text(solver.read_text().replace("test_interval: 3", "test_interval: 500"))
    memory = _Memory()

    def device(param: Any, rank: int = 0) -> Any:
        return create_backend("cpu", threads=1)

    straight = train(TrainJob(str(solver), replicas=2), device, [memory], device)
    expected = digest(straight.files[:2])
    assert memory.resident[1] - memory.resident[0] < GROWTH
    shutil.rmtree(tmp_path / "run")
    chance = random.Random(5)
    for at in sorted(chance.sample(range(SNAPSHOT + 1, ITERATIONS), KILLS)):
        command = [sys.executable, "-c", KILLED, str(solver), str(chance.choice((1, 2, 4, 8)))]
        killed = subprocess.run([*command, str(at)], cwd=ROOT, capture_output=True, timeout=900)
        assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    assert train_case(solver, 4, snapshot="auto") == expected
