from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cuda_kernels import build, kernel_sources
from cuda_kernels.build import (
    ARCHITECTURES,
    Target,
    build_binary,
    choose_target,
    find_nvcc,
    main,
)
from cuda_kernels.manifest import parse_manifest, read_manifest
from cuda_kernels.resources import parse_ptxas, resource_table
from prototxt_gen.errors import DeviceError, KernelBuildError

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists(),
    reason="no nvcc: the CUDA toolkit is not installed",
)

KERNEL = """\
#include "common.cuh"
extern "C" __global__ void __launch_bounds__(96) first(float* x) { x[threadIdx.x] *= 2.0f; }
extern "C" __global__ void second(float* x) {
    SHARED(tile, float[64]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[63 - threadIdx.x];
}
"""

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    40 bytes stack frame, 36 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 33792 bytes smem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "demo.cu"
    path.write_text(KERNEL)
    return path


def test_the_assemblers_report_is_read_in_the_order_of_the_file() -> None:
    first, second = parse_ptxas(REPORT, parse_manifest(KERNEL, Path("demo.cu")), 90)
    assert (first.kernel, first.registers, first.shared, first.spills) == ("first", 8, 0, 0)
    assert (second.kernel, second.registers, second.shared) == ("second", 128, 33792)
    assert (second.stack, second.spill_stores, second.spill_loads) == (40, 36, 24)
    assert (first.threads, second.threads) == (96, 1024)


def test_occupancy_is_what_the_scarcest_resource_allows() -> None:
    first, second = parse_ptxas(REPORT, parse_manifest(KERNEL, Path("demo.cu")), 90)
    # 21 blocks of 96 threads are 2016 of 2048; 128 registers leave no room for 1024 threads.
    assert first.occupancy == 21 * 96 / 2048
    assert second.occupancy == 0.0
    unknown = parse_ptxas(REPORT, parse_manifest(KERNEL, Path("demo.cu")), 87)
    assert unknown[0].occupancy is None


def test_the_table_marks_spills() -> None:
    manifest = parse_manifest(KERNEL, Path("demo.cu"))
    one = resource_table(parse_ptxas(REPORT, manifest, 90)).splitlines()
    assert [" ".join(line.split()) for line in one] == [
        "file kernel arch threads regs shared spill occupancy",
        "demo.cu first sm_90 96 8 0 0 98 %",
        "demo.cu second sm_90 1024 128 33792 60! 0 %",
        "kernels that spill registers: 1, marked by !",
    ]
    none = resource_table(parse_ptxas(REPORT, manifest, 90)[:1]).splitlines()
    assert none[-1] == "kernels that spill registers: none"
    several = [*parse_ptxas(REPORT, manifest, 80), *parse_ptxas(REPORT, manifest, 90)]
    two = resource_table(several).splitlines()
    assert [" ".join(line.split()) for line in two] == [
        "file kernel threads shared sm_80 sm_90",
        "demo.cu first 96 0 8 8",
        "demo.cu second 1024 33792 128+60! 128+60!",
        "kernels that spill registers: 1, marked by !",
    ]


@pytest.mark.parametrize(
    ("device", "target"),
    [
        (90, Target(90)),
        (87, Target(86)),  # machine code of the same major architecture
        (103, Target(100)),
        (120, Target(100, ptx=True)),  # the driver translates
        (75, Target(75)),
    ],
)
def test_the_target_that_a_device_runs(device: int, target: Target) -> None:
    assert choose_target(device, (75, 80, 86, 89, 90, 100)) == target


def test_a_device_older_than_all_architectures_of_the_compiler() -> None:
    with pytest.raises(DeviceError) as caught:
        choose_target(70, (75, 80, 90))
    assert str(caught.value) == (
        "kernels: the device is sm_70, and nvcc supports sm_75 to sm_90; expected an nvcc that "
        "supports it; install an older CUDA toolkit"
    )


def test_without_nvcc_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name, path=None: None)
    find_nvcc.cache_clear()
    try:
        with pytest.raises(DeviceError) as caught:
            find_nvcc()
    finally:
        monkeypatch.undo()
        find_nvcc.cache_clear()
    assert str(caught.value) == (
        "backend 'gpu': it builds the kernels with nvcc, and there is no nvcc on PATH nor in "
        "/usr/local/cuda/bin; expected the CUDA toolkit; install it, or use the backend 'cpu'"
    )


def test_kernels_for_newer_devices_are_refused_by_name(tmp_path: Path) -> None:
    newer = parse_manifest("// requires: sm_80\n" + KERNEL, tmp_path / "demo.cu")
    with pytest.raises(DeviceError, match=r"demo\.cu: these kernels are not for sm_75; expected "):
        build_binary(newer, Target(75))
    only = parse_manifest("// requires: sm_90a\n" + KERNEL, tmp_path / "demo.cu")
    with pytest.raises(DeviceError, match="expected sm_90; use precision: fp32"):
        build_binary(only, Target(100))


@needs_nvcc
def test_what_nvcc_built_is_kept(source: Path) -> None:
    manifest = read_manifest(source)
    first = build_binary(manifest, Target(90))
    stamp = first.path.stat().st_mtime_ns
    assert first.path.read_bytes()[:4] == b"\x7fELF"
    second = build_binary(manifest, Target(90))
    assert (second, first.path.stat().st_mtime_ns) == (first, stamp)
    first.path.with_suffix(".ptxas").unlink()
    again = build_binary(manifest, Target(90))
    assert parse_ptxas(again.report, manifest, 90) == parse_ptxas(first.report, manifest, 90)
    assert build_binary(manifest, Target(80)).path != first.path
    assert b".target sm_90" in build_binary(manifest, Target(90, ptx=True)).path.read_bytes()


@needs_nvcc
def test_nvccs_words_are_passed_on(source: Path) -> None:
    source.write_text(KERNEL.replace("tile[63", "tiles[63"))
    with pytest.raises(KernelBuildError) as caught:
        build_binary(read_manifest(source), Target(90))
    words = str(caught.value)
    assert words.startswith(
        "demo.cu: nvcc: the source does not compile; expected code that builds, got"
    )
    assert 'identifier "tiles" is undefined' in words
    assert "-arch=sm_90 -cubin" in words


@needs_nvcc
def test_the_command_prints_for_people_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    name = kernel_sources()[0].stem
    assert main([name, "--arch", "90", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["kernel"] for entry in entries] == list(
        read_manifest(kernel_sources()[0]).kernels
    )
    assert main([name, "--arch", "90", "--table"]) == 0
    assert capsys.readouterr().out.startswith("file ")
    assert main(["no_such_file", "--arch", "90"]) == 2
    assert "no_such_file.cu: the kernel file cannot be read" in capsys.readouterr().err


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("path", kernel_sources(), ids=lambda path: path.stem)
def test_every_kernel_compiles_for_every_architecture(path: Path) -> None:
    manifest = read_manifest(path)
    known = find_nvcc().architectures
    for arch in ARCHITECTURES:
        if arch in known and manifest.fits(arch):
            report = build_binary(manifest, Target(arch)).report
            found = parse_ptxas(report, manifest, arch)
            assert [entry.kernel for entry in found] == list(manifest.kernels)
