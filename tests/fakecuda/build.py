"""Builds the fake driver library, and the environment in which PyCUDA takes it for the real one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cuda_kernels import HOST_DIR
from cuda_kernels.host_build import build_runtime, find_compiler

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def why_not() -> str | None:
    """Why PyCUDA cannot be tried here, or None where it can."""
    if shutil.which("g++") is None:
        return "no g++, which builds the fake driver"
    if cuda_headers() is None:
        return "no cuda.h: CUDA's headers are not installed"
    if importlib.util.find_spec("pycuda") is None:
        return "PyCUDA is not installed: run tests/fakecuda/install_pycuda.sh with this Python"
    return None


def cuda_headers() -> Path | None:
    """The folder of cuda.h."""
    nvcc = shutil.which("nvcc")
    roots = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    if nvcc is not None:
        roots.insert(0, Path(nvcc).resolve().parents[1])
    folders = [root / "include" for root in roots] + [Path("/usr/include")]
    # What tests/fakecuda/install_pycuda.sh brings where there is no toolkit.
    folders += [Path(folder) / "nvidia" / "cuda_runtime" / "include" for folder in sys.path]
    return next((folder for folder in folders if (folder / "cuda.h").exists()), None)


def build(folder: Path) -> None:
    """Put libcuda.so.1 and nvcc into a folder."""
    compiler = find_compiler().path
    sources = [str(path) for path in sorted(HERE.glob("*.cpp"))]
    library = folder / "libcuda.so.1"
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    # The interface of CUDA 11 and 12 has names that 13 declares as deprecated.
    command += ["-Wno-deprecated-declarations", f"-I{cuda_headers()}", f"-I{HOST_DIR}"]
    runtime = str(build_runtime())
    link = ["-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run([*command, *sources, runtime, "-ldl", *link], check=True)
    missing = sorted(_needed() - _symbols(library, "--defined-only"))
    stubs = folder / "stubs.cpp"
    stubs.write_text("".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in missing))
    subprocess.run([*command, *sources, str(stubs), runtime, "-ldl", *link], check=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_nvcc.py"}" "$@"\n')
    nvcc.chmod(0o755)


def environment(folder: Path, **settings: int) -> dict[str, str]:
    """Where the fakes in the folder are found first. Settings: devices, memory (bytes)."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(path for path in paths if path),
        **{f"FAKECUDA_{name.upper()}": str(value) for name, value in settings.items()},
    }


def _needed() -> set[str]:
    """What this machine's PyCUDA was linked to."""
    spec = importlib.util.find_spec("pycuda")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    extension = next(path for folder in folders for path in Path(folder).glob("_driver*.so"))
    return _symbols(extension, "--undefined-only")


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, str(library)], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"\b(cu[A-Z]\w*)$", listed.stdout, re.MULTILINE))
