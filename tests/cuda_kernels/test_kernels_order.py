"""Every kernel is launched, and none depends on the order in which its threads run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cuda_kernels import kernel_sources
from cuda_kernels.host_build import sanitizer_environment
from cuda_kernels.manifest import read_manifest
from tests.cuda_kernels.works import WORKS, emulated

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

ORDERS = [
    {"order": "forward"},
    {"order": "reversed"},
    {"order": "shuffled", "seed": 1},
    {"order": "shuffled", "seed": 2},
]


@pytest.mark.parametrize("name", list(WORKS))
def test_bits_do_not_depend_on_the_order_of_threads(name: str) -> None:
    results = []
    for options in ORDERS:
        with emulated(**options) as (backend, _):
            results.append([array.tobytes() for array in WORKS[name](backend)])
    assert all(result == results[0] for result in results[1:])


def test_every_kernel_is_launched() -> None:
    with emulated() as (backend, recorder):
        for work in WORKS.values():
            assert all(np.isfinite(array).all() for array in work(backend))
        launched = set(recorder.launched)
    defined = {name for path in kernel_sources() for name in read_manifest(path).kernels}
    assert launched == defined


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_sanitizers_find_nothing(sanitizer: str) -> None:
    environment = {**sanitizer_environment(sanitizer), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda_kernels.works", sanitizer],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == list(WORKS), done.stderr[-4000:]
    assert done.returncode == 0, done.stderr[-4000:]
