"""`mpirun` over two hosts: two network namespaces of this machine, connected by a veth pair.

Skipped where those cannot be made: it takes Linux, root and iproute2.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.job.exactness import digest
from tests.runtime.parallel.test_mpi import MPIRUN, ROOT, TRAIN, last, needs_mpi

HOSTS = {"10.77.0.1": f"vd{os.getpid()}a", "10.77.0.2": f"vd{os.getpid()}b"}
FIRST, SECOND = HOSTS

# Replaces ssh: HOST COMMAND...
AGENT = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
case $1 in {first}) name={a};; *) name={b};; esac
shift
exec ip netns exec $name unshare -u sh -c "hostname $name; exec sh -c '$*'"
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """Two connected hosts, and the program that starts commands on them."""
    a, b = HOSTS.values()
    try:
        for name in (a, b):
            ip("netns", "add", name)
        ip("link", "add", a, "netns", a, "type", "veth", "peer", "name", b, "netns", b)
        for address, name in HOSTS.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as cause:
        remove()
        pytest.skip(f"network namespaces cannot be made here: {cause}")
    script = tmp_path / "agent"
    script.write_text(AGENT.format(first=FIRST, a=a, b=b))
    script.chmod(0o755)
    yield script
    remove()


def remove() -> None:
    for name in HOSTS.values():
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(agent: Path, solver: Path) -> subprocess.CompletedProcess[str]:
    """Two ranks on each host, started from the first."""
    rank, job = agent.with_name("rank.sh"), agent.with_name("job.sh")
    rank.write_text(f'echo "a rank on $(hostname)" >&2; exec {shlex.join(TRAIN)} --solver {solver}')
    job.write_text(f"exec {MPIRUN} --host {FIRST}:2,{SECOND}:2 -n 4 sh {rank}")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_plm_rsh_agent": str(agent),
        "PRTE_MCA_plm_ssh_agent": str(agent),
    }
    command = [str(agent), FIRST, "sh", str(job)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


@needs_mpi
@pytest.mark.slow
def test_two_hosts_write_the_bytes_of_one_process(
    case: Path, fresh: Callable[..., str], agent: Path
) -> None:
    expected = fresh(case, 1)
    shutil.rmtree(case.parent / "run")
    ended = start(agent, case)
    assert ended.returncode == 0, ended.stderr
    assert [ended.stderr.count(f"a rank on {name}") for name in HOSTS.values()] == [2, 2]
    assert "on 4 replicas (cpu)" in ended.stderr
    assert digest(last(case)) == expected
