from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cuda_kernels import HOST_DIR, SOURCE_DIR, host_build, kernel_sources
from cuda_kernels.cache import cache_folder
from cuda_kernels.host_build import build_module, build_runtime, find_compiler
from cuda_kernels.manifest import read_manifest
from prototxt_gen.errors import DeviceError, KernelBuildError
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from tests.cuda_kernels.bench import SOURCES, Bench

pytestmark = pytest.mark.usefixtures("compiler")

DOUBLED = """\
#include "common.cuh"
extern "C" __global__ void doubled(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] *= 2; }
"""


def test_what_was_built_is_found_again_until_the_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "doubled.cu"
    source.write_text(DOUBLED)
    runtime = build_runtime()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = build_module(read_manifest(source), runtime)
    stamp = first.stat().st_mtime_ns
    assert build_module(read_manifest(source), runtime) == first
    assert first.stat().st_mtime_ns == stamp
    source.write_text(DOUBLED.replace("2;", "3;"))
    assert build_module(read_manifest(source), runtime) != first
    assert build_module(read_manifest(source), runtime, optimize=1) != first
    assert [path.suffix for path in cache_folder().iterdir()] == [".so"] * 3


def test_the_compilers_words_are_passed_on(tmp_path: Path) -> None:
    source = tmp_path / "broken.cu"
    source.write_text(DOUBLED.replace("threadIdx", "thread_idx"))
    driver = EmulatorDriver()
    with pytest.raises(KernelBuildError) as caught:
        driver.load(source)
    words = str(caught.value)
    assert words.startswith(
        "broken.cu: g++: the source does not compile; expected code that builds, got"
    )
    assert "thread_idx" in words
    assert "from the command\n" in words
    assert words.endswith("correct the source")
    assert list(cache_folder().glob("*broken*")) == []


def test_a_sum_of_floats_by_atomics_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "atomic.cu"
    source.write_text(DOUBLED.replace("x[threadIdx.x] *= 2", "atomicAdd(x, 1.0f)"))
    with pytest.raises(KernelBuildError, match="use of deleted function"):
        EmulatorDriver().load(source)


def test_without_a_compiler_the_emulator_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_build.shutil, "which", lambda name: None)
    find_compiler.cache_clear()
    try:
        with pytest.raises(DeviceError) as caught:
            EmulatorDriver()
    finally:
        monkeypatch.undo()
        find_compiler.cache_clear()
    assert str(caught.value) == (
        "backend 'emu': it builds the kernels with g++, and there is no g++ on PATH; expected "
        "GCC 9 or newer; install it (Debian, Ubuntu: apt install g++), or use the backend 'cpu'"
    )


def check_warnings(path: Path) -> str:
    """The warnings of g++ about a .cu; empty if there are none."""
    folders = [f"-I{SOURCE_DIR}", f"-I{HOST_DIR}"]
    flags = [*host_build.FLAGS, *host_build.WARNINGS, *folders, "-fsyntax-only", "-x", "c++"]
    command = [find_compiler().path, *flags, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("path", kernel_sources(), ids=lambda path: path.stem)
def test_kernels_build_without_a_warning(path: Path) -> None:
    assert check_warnings(path) == ""


@pytest.mark.parametrize("way", ["", "-DEMU_ASAN", "-DEMU_TSAN", "-DEMU_UCONTEXT"])
def test_the_runtime_builds_without_a_warning(way: str) -> None:
    sources = [str(path) for path in sorted(HOST_DIR.glob("*.cpp"))]
    flags = [*host_build.FLAGS, *host_build.WARNINGS, "-Werror", "-fsyntax-only", *way.split()]
    subprocess.run([find_compiler().path, *flags, *sources], check=True)


def test_warnings_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "doubled.cu"
    source.write_text(DOUBLED.replace("*= 2;", "*= 2; int unused;"))
    assert "unused" in check_warnings(source)


PORTABLE = """
import sys
import numpy as np
from cuda_kernels import host_build
from tests.cuda_kernels.bench import Bench, in_all_orders
host_build.FLAGS = (*host_build.FLAGS, "-DEMU_UCONTEXT")
x = np.arange(128, dtype=np.float32)
y = in_all_orders("faults", "reverse", (x, 0 * x, 128), block=(128, 1, 1))[1]
print((y == x[::-1]).all())
"""


def test_the_portable_switch_of_stacks_serves_as_well() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PORTABLE],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_lower_optimisation_gives_the_same_numbers() -> None:
    x = np.arange(128, dtype=np.float32)
    for optimize in (0, 1, 3):
        bench = Bench(optimize=optimize)
        y = bench.run("faults", "reverse", (x, 0 * x, 128), block=(128, 1, 1))[1]
        np.testing.assert_array_equal(y, x[::-1])


def test_the_sources_of_these_tests_are_right_as_well() -> None:
    for path in SOURCES.glob("*.cu"):
        assert read_manifest(path).kernels
