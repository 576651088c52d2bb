"""`mpirun -n 2 verydeep train`; skipped without mpirun or mpi4py."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prototxt_gen.errors import DeviceError
from runtime.job.exactness import digest
from runtime.parallel.mpi import find_world

ROOT = Path(__file__).resolve().parents[3]
TRAIN = [sys.executable, "-m", "runtime.cli.main", "train", "--threads", "1"]

# The extra installs an mpirun in the folder of the interpreter.
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIRUN is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun and mpi4py: the [test-mpi] extra has both",
)

HANG = """
import sys, time
from runtime.parallel import replica
from runtime.cli.main import main
whole = replica.Replica.compute
def compute(self, first_pass):
    if self.rank == 1 and first_pass >= 16:
        {act}
    return whole(self, first_pass)
replica.Replica.compute = compute
sys.exit(main(sys.argv[1:]))
"""

JOB = """
import functools, sys
from runtime.job import run as job
from runtime.cli.main import main
job.JobOptions = functools.partial(job.JobOptions, demo_images=(40, 20))
sys.exit(main(sys.argv[1:]))
"""


def mpirun(size: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    words = [str(MPIRUN), "-n", str(size)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # Allow more ranks than cores, in Open MPI 4 and 5.
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return subprocess.run(
        [*words, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


def last(case: Path) -> list[Path]:
    stem = case.parent / "run" / "exact_iter_6"
    return [stem.with_suffix(".caffemodel"), stem.with_suffix(".solverstate")]


@needs_mpi
def test_ranks_write_the_bytes_of_one_process(case: Path, fresh: Callable[..., str]) -> None:
    expected = fresh(case, 1)
    state = case.parent / "run/exact_iter_3.solverstate"
    resumed = mpirun(2, [*TRAIN, "--solver", str(case), "--snapshot", str(state)])
    assert resumed.returncode == 0, resumed.stderr
    assert digest(last(case)) == expected
    assert resumed.stdout.splitlines()[0] == "iterations: 6"
    assert resumed.stdout.count("iterations: 6") == 1, "rank 0 alone reports"
    assert "on 2 replicas (cpu)" in resumed.stderr


@needs_mpi
@pytest.mark.slow
def test_four_ranks_from_the_start(case: Path, fresh: Callable[..., str]) -> None:
    expected = fresh(case, 1)
    shutil.rmtree(case.parent / "run")
    straight = mpirun(4, [*TRAIN, "--solver", str(case)])
    assert straight.returncode == 0, straight.stderr
    assert digest(last(case)) == expected


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            "raise ValueError('oh')",
            "rank 1: ValueError('oh'); expected it to compute as rank 0 does",
        ),
        ("time.sleep(200)", "rank 0: waited 3 s for rank(s) 1; expected all 2 within that time"),
    ],
)
def test_a_rank_that_fails_or_hangs_ends_the_run(case: Path, act: str, message: str) -> None:
    command = [sys.executable, "-c", HANG.format(act=act), "train", "--threads", "1"]
    ended = mpirun(2, [*command, "--solver", str(case), "--watchdog", "3"])
    assert ended.returncode != 0
    assert message in ended.stderr


@needs_mpi
@pytest.mark.slow
def test_a_users_error_ends_all_ranks(case: Path) -> None:
    ended = mpirun(3, [*TRAIN, "--solver", str(case)])
    assert ended.returncode != 0
    assert "8 shards do not divide among 3 replicas" in ended.stderr


@needs_mpi
@pytest.mark.slow
def test_the_main_job_trains_on_all_ranks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOB, "run", "--threads", "1", "--max-iter", "2"]
    done = mpirun(2, [*command, "--out", str(tmp_path / "job")])
    assert done.returncode == 0, done.stderr
    assert "in 8 shard(s), iter_size 1, on 2 replicas (cpu)" in done.stderr
    assert json.loads((tmp_path / "job" / "result.json").read_text())["iterations"] == 2
    assert done.stdout.count("held-out images, 2 iterations") == 1


def test_mpirun_without_mpi4py_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMI_SIZE", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert find_world() is None
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(DeviceError) as caught:
        find_world()
    assert "started by mpirun as 2 processes, and mpi4py cannot be imported" in str(caught.value)
    assert "pip install 'verydeep[mpi]'" in str(caught.value)
