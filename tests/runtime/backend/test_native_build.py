"""Building the compiled kernels: a compiler that fails, and builds under sanitizers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[3]
NATIVE = Path("runtime", "backend", "cpu", "native")
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

# Runs the tests of the kernels with another library. The workspace comes from the allocator that
# the sanitizer watches: fences left in a mapping would outlive it.
_RUNNER = """
import sys
from pathlib import Path
import numpy as np
import pytest
from runtime.backend.cpu import native_library
from runtime.backend.cpu.lanes import aligned_empty
native_library.find_library = lambda: Path(sys.argv[1])
native_library._huge_pages = lambda size: aligned_empty(size, np.dtype(np.uint8))
sys.exit(pytest.main(["-x", "-s", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def setup_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_sources(target: Path) -> None:
    shutil.copytree(ROOT / NATIVE, target / NATIVE)
    shutil.copy(ROOT / "setup.py", target)
    shutil.copy(ROOT / NATIVE.with_name("native_digest.py"), target / NATIVE.parent)


def test_a_compiler_that_fails_costs_one_line(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    copy_sources(tmp_path)
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=os.environ | {"CC": "false", "CXX": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("verydeep:")]
    assert len(lines) == 1
    assert "verydeep: the CPU kernels were not built (" in lines[0]
    assert "); NumPy will be used in their place, several times slower. They need GCC" in lines[0]
    assert not list(tmp_path.rglob("*.so"))


def test_other_architectures_have_one_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    script = setup_script()
    monkeypatch.setattr(script.platform, "machine", lambda: "AMD64")
    assert list(script.instruction_sets()) == ["sse4", "avx2", "avx512"]
    monkeypatch.setenv("ARCHFLAGS", "-arch arm64 -arch x86_64")
    assert script.instruction_sets() == {"generic": []}
    monkeypatch.delenv("ARCHFLAGS")
    monkeypatch.setattr(script.platform, "machine", lambda: "aarch64")
    assert script.instruction_sets() == {"generic": []}


@needs_compiler
def test_amx_needs_a_compiler_that_has_it(tmp_path: Path) -> None:
    """A compiler without AMX still builds the other sets."""
    setuptools = pytest.importorskip("setuptools")
    script = setup_script()
    if "avx512" not in script.instruction_sets():
        pytest.skip("AMX is part of x86-64")
    command = script.BuildNative(setuptools.Distribution())
    old = tmp_path / "old"
    old.write_text(f'#!/bin/sh\ncase "$*" in *amx*) exit 1;; esac\nexec {COMPILER} "$@"\n')
    old.chmod(0o755)
    command.compiler = SimpleNamespace(compiler_so=[str(old)])
    assert command.optional_sets() == {}
    command.compiler.compiler_so = ["/does/not/exist"]
    assert command.optional_sets() == {}


def build(target: Path, sanitizers: str, sets: dict[str, list[str]]) -> Path:
    """Compile the kernels with sanitizers; no Python header is needed for that."""
    flags = [*setup_script().FLAGS, "-O1", "-g", "-fPIC", f"-fsanitize={sanitizers}"]
    if "undefined" in sanitizers:
        flags.append("-fno-sanitize-recover=undefined")
    objects, commands = [], []
    for source in sorted((ROOT / NATIVE).glob("*.cpp")):
        if source.name == "module.cpp":
            continue
        for isa, extra in {"common": []}.items() if source.name == "team.cpp" else sets.items():
            objects.append(target / f"{isa}-{source.stem}.o")
            names = [f"-DVD_ISA={isa}", "-c", source, "-o", objects[-1]]
            commands.append([str(word) for word in (COMPILER, *flags, *extra, *names)])
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        list(workers.map(lambda command: subprocess.run(command, check=True), commands))
    library = target / "native.so"
    command = [COMPILER, "-shared", "-pthread", f"-fsanitize={sanitizers}", "-o", library, *objects]
    subprocess.run([str(word) for word in command], check=True)
    return library


def runtime_library(name: str) -> str:
    """Where the compiler keeps a sanitizer's runtime, or a reason to skip."""
    found = subprocess.run(
        [str(COMPILER), f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip(f"the compiler comes without {name}")
    return found


def run_tests(library: Path, preload: list[str], tests: list[str]) -> None:
    environment = os.environ | {
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "exitcode=66",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, "-c", _RUNNER, str(library), *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout


TESTS = [f"tests/runtime/backend/test_native_{name}.py" for name in ("conv", "ops", "bf16")]


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="preloads a runtime as Linux does")
def test_no_kernel_leaves_its_memory_or_the_language(tmp_path: Path) -> None:
    """AddressSanitizer, with fences inside the workspace, and UBSan, for every instruction set."""
    preload = [runtime_library("libasan.so"), runtime_library("libubsan.so")]
    library = build(tmp_path, "address,undefined", setup_script().instruction_sets())
    run_tests(library, preload, TESTS)


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="preloads a runtime as Linux does")
def test_no_two_threads_race(tmp_path: Path) -> None:
    """ThreadSanitizer: whole items of a kernel, and the team that deals them."""
    preload = [runtime_library("libtsan.so")]
    sets = dict(list(setup_script().instruction_sets().items())[:1])
    library = build(tmp_path, "thread", sets)
    side_by_side = "tests/runtime/backend/test_native_library.py::test_many_threads_and_many"
    run_tests(library, preload, [*TESTS, f"{side_by_side}_libraries_work_side_by_side"])
