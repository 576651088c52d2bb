"""The compiler's report of the kernels, on every architecture that it supports."""

from __future__ import annotations

import shutil

import pytest

from cuda_kernels import kernel_sources
from cuda_kernels.build import ARCHITECTURES, all_resources, find_nvcc
from cuda_kernels.manifest import read_manifest

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: CUDA's toolkit is not there"
)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_and_none_spills_registers(arch: int) -> None:
    if arch not in find_nvcc().architectures:
        pytest.skip(f"this nvcc does not know sm_{arch}")
    manifests = [read_manifest(path) for path in kernel_sources()]
    wanted = {name for each in manifests if each.fits(arch) for name in each.kernels}
    spills = {entry.kernel: entry.spills for entry in all_resources(kernel_sources(), [arch])}
    assert spills == dict.fromkeys(wanted, 0)
