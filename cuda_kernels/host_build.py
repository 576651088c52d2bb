"""Builds kernels with g++ for the emulator: the runtime in host/, and each .cu as a library."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuda_kernels import HOST_DIR, SOURCE_DIR
from cuda_kernels.cache import cached, digest
from cuda_kernels.compiler import headers_digest, run_compiler
from cuda_kernels.manifest import Manifest
from prototxt_gen.errors import DeviceError

# -fno-strict-aliasing: kernels read float arrays as float4, which nvcc allows.
FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
)
WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function")
# The macro that enables a sanitizer's calls in the runtime, and the sanitizer's library.
SANITIZERS = {"address": ("EMU_ASAN", "libasan.so"), "thread": ("EMU_TSAN", "libtsan.so")}


@dataclass(frozen=True)
class HostCompiler:
    """A g++, and a string that identifies its version and target."""

    path: str
    identity: str


@functools.cache
def find_compiler() -> HostCompiler:
    """The g++ on PATH.

    Raises:
        DeviceError: g++ is not installed.
    """
    path = shutil.which("g++")
    if path is None:
        raise DeviceError(
            "backend 'emu': it builds the kernels with g++, and there is no g++ on PATH; expected "
            "GCC 9 or newer; install it (Debian, Ubuntu: apt install g++), or use the backend 'cpu'"
        )
    version = run_compiler([path, "--version"], "backend 'emu'")
    # -march=native differs between machines that may share the cache.
    target = run_compiler([path, "-march=native", "-Q", "--help=target"], "backend 'emu'")
    return HostCompiler(path, version + target)


def build_runtime(sanitizer: str | None = None, extra: Sequence[str] = ()) -> Path:
    """Build the shared library of the scheduler and of the guarded memory; returns its path.

    It is not instrumented, so that a race detector observes only the accesses of kernels.

    Raises:
        KernelBuildError: it does not compile; the message contains g++'s output.
    """
    compiler = find_compiler()
    sources = sorted(str(path) for path in HOST_DIR.glob("*.cpp"))
    flags = [*FLAGS, "-O2", "-g0", "-pthread", *extra]
    if sanitizer:
        flags.append(f"-D{SANITIZERS[sanitizer][0]}")
    key = digest(
        compiler.identity, headers_digest("*.cuh", "host/*.h"), *map(_text, sources), *flags
    )

    def build(path: Path) -> None:
        objects = []
        for source in sources:
            target = f"{path}.{Path(source).stem}.o"
            objects.append(target)
            run_compiler([compiler.path, *flags, "-c", source, "-o", target], "emulator runtime")
        try:
            link = [f"-fsanitize={sanitizer}"] if sanitizer else []
            run_compiler(
                [compiler.path, "-shared", "-pthread", *link, *objects, "-o", str(path)],
                "emulator runtime",
            )
        finally:
            for name in objects:
                Path(name).unlink(missing_ok=True)

    return cached(f"emu-runtime-{key}.so", build)


def build_module(
    manifest: Manifest, runtime: Path, sanitizer: str | None = None, optimize: int = 2
) -> Path:
    """Build the shared library of one .cu, with an `emu_launch_<kernel>` for each kernel.

    Raises:
        KernelBuildError: it does not compile; the message contains g++'s output.
    """
    compiler = find_compiler()
    flags = [*FLAGS, f"-O{optimize}", f"-I{SOURCE_DIR}", f"-I{HOST_DIR}"]
    if sanitizer:
        flags += [f"-fsanitize={sanitizer}", "-g1", "-fno-omit-frame-pointer"]
    else:
        flags += ["-g0", "-march=native"]
    entries = "".join(f"EMU_EXPORT({name})\n" for name in manifest.kernels)
    text = f'#include "{manifest.path}"\n#include "entry.h"\n{entries}'
    key = digest(
        compiler.identity,
        headers_digest("*.cuh", "host/*.h"),
        _text(manifest.path),
        text,
        str(runtime.name),
        *flags,
    )

    def build(path: Path) -> None:
        run_compiler(
            [compiler.path, *flags, "-shared", "-x", "c++", "-", "-x", "none", str(runtime)]
            + ["-o", str(path)],
            f"{manifest.path.name}: g++",
            text,
        )

    return cached(f"emu-{manifest.path.stem}-{key}.so", build)


def sanitizer_environment(sanitizer: str) -> dict[str, str]:
    """The environment in which Python can load modules built with a sanitizer.

    The sanitizer's library must be loaded before all others. Leaks are not reported, because Python
    itself has some.

    Raises:
        DeviceError: g++ has no such library.
    """
    name = SANITIZERS[sanitizer][1]
    library = run_compiler([find_compiler().path, f"-print-file-name={name}"], "sanitizer").strip()
    # libstdc++ is loaded early, or the sanitizer finds no __cxa_throw to wrap.
    cxx = run_compiler(
        [find_compiler().path, "-print-file-name=libstdc++.so.6"], "sanitizer"
    ).strip()
    if not Path(library).is_absolute():
        raise DeviceError(
            f"sanitizer '{sanitizer}': g++ has no {name}; expected the sanitizers' libraries; "
            "install them (Debian, Ubuntu: they come with g++)"
        )
    return {
        **os.environ,
        "LD_PRELOAD": f"{library} {cxx}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0",
        "TSAN_OPTIONS": "halt_on_error=0:exitcode=66:report_signal_unsafe=0",
    }


def expect_sanitizer(sanitizer: str) -> None:
    """Check that this process was started with a sanitizer; loading it later ends the process.

    Raises:
        DeviceError: its library is not loaded.
    """
    name = SANITIZERS[sanitizer][1]
    if name not in Path("/proc/self/maps").read_text(encoding="utf-8"):
        raise DeviceError(
            f"sanitizer '{sanitizer}': this process runs without {name}; expected it before all "
            "other libraries; start Python in the environment of "
            "cuda_kernels.host_build.sanitizer_environment"
        )


def _text(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf-8")
