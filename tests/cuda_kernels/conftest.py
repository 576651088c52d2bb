"""What the tests of kernels need of the machine, and the emulator as a backend."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from runtime.backend.cuda.backend import CudaBackend
from tests.cuda_kernels.works import emulated


@pytest.fixture(scope="session")
def compiler() -> None:
    """A g++, which the emulator builds kernels with."""
    if shutil.which("g++") is None:
        pytest.skip("the emulator builds kernels with g++, which is not on PATH")


@pytest.fixture
def emulator(compiler: None) -> Iterator[CudaBackend]:
    """The CUDA backend over the emulator."""
    with emulated() as (backend, _):
        yield backend
