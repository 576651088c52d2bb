"""What the compiler says of the kernels that take the time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cuda_kernels import kernel_sources
from cuda_kernels.build import Target, build_binary
from cuda_kernels.manifest import read_manifest
from cuda_kernels.resources import parse_ptxas

ARCH = 90


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: CUDA's toolkit is not there")
@pytest.mark.parametrize("path", kernel_sources(), ids=lambda path: path.stem)
def test_no_kernel_spills_registers(path: Path) -> None:
    manifest = read_manifest(path)
    if manifest.fits(ARCH):
        found = parse_ptxas(build_binary(manifest, Target(ARCH)).report, manifest, ARCH)
        assert {entry.kernel: entry.spills for entry in found} == dict.fromkeys(manifest.kernels, 0)
