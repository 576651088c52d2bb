"""Every kernel on a GPU: the emulator's numbers, and the same bits twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.backend import CudaBackend
from tests.cuda_kernels.works import WORKS, emulated

pytestmark = pytest.mark.gpu

# Fused multiply-adds, and the order in which tensor cores add, are the device's own: results agree
# with the emulator's within rounding. bf16 rounds both to the same operands, so it needs no more.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def gpu() -> Iterator[CudaBackend]:
    try:
        with emulated("gpu") as (backend, _):
            yield backend
    except DeviceError as cause:
        pytest.skip(str(cause))


@pytest.mark.parametrize("name", list(WORKS))
def test_a_gpu_gives_the_emulators_numbers(gpu: CudaBackend, name: str) -> None:
    with emulated() as (emulator, _):
        wanted = WORKS[name](emulator)
    for got, want in zip(WORKS[name](gpu), wanted, strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0.0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("name", list(WORKS))
def test_a_second_run_gives_the_same_bits(gpu: CudaBackend, name: str) -> None:
    first, second = WORKS[name](gpu), WORKS[name](gpu)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]
