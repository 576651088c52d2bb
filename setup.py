"""Builds the CPU kernels, which are optional: without a compiler NumPy is used."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCES = Path("runtime", "backend", "cpu", "native")
# One object of every kernel source per instruction set; the best set that the processor supports is
# selected when the library is loaded. Other architectures have one set, the compiler's default.
INSTRUCTION_SETS: dict[str, list[str]] = {
    "sse4": ["-msse4.2", "-mpopcnt"],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma"],
}
# Sets that older compilers or assemblers do not support: built only if this program compiles.
OPTIONAL_SETS: dict[str, list[str]] = {
    "amx": [*INSTRUCTION_SETS["avx512"], "-mamx-tile", "-mamx-bf16"],
}
AMX_TRIAL = """
#ifndef __AMX_BF16__
#error "no AMX"
#endif
void trial() { __asm__ volatile("tdpbf16ps %tmm2, %tmm1, %tmm0\\n\\ttilerelease"); }
"""
# Not -ffast-math, which would flush denormals in the entire process and assume that there are no
# NaN. -Wno-psabi: GCC warns that vectors passed to functions depend on the instruction set, but all
# such functions are inlined.
FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-Wno-psabi",
    "-pthread",
]
COMMON = ("module.cpp", "team.cpp")


def source_digest() -> str:
    """The digest of the sources, which is compiled into the library.

    It is computed by a file of the project that is loaded separately.
    """
    path = SOURCES.with_name("native_digest.py")
    spec = importlib.util.spec_from_file_location("native_digest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.source_digest(SOURCES))


def instruction_sets() -> dict[str, list[str]]:
    """The sets of this machine's architecture; a build for several architectures has one set."""
    several = os.environ.get("ARCHFLAGS", "").count("-arch") > 1
    if platform.machine().lower() in ("x86_64", "amd64") and not several:
        return INSTRUCTION_SETS
    return {"generic": []}


class BuildNative(build_ext):
    """Compiles each kernel source once per instruction set; a failing compiler is not an error."""

    def build_extension(self, ext: Extension) -> None:
        kernels = [source for source in ext.sources if Path(source).name not in COMMON]
        ext.sources = [source for source in ext.sources if Path(source).name in COMMON]
        ext.depends += kernels
        try:
            for name, flags in {**self.optional_sets(), **instruction_sets()}.items():
                ext.extra_objects += self._compile(ext, kernels, name, flags)
            super().build_extension(ext)
        except (CCompilerError, BaseError, OSError) as cause:
            reason = str(cause).splitlines()[-1] if str(cause) else type(cause).__name__
            print(
                f"verydeep: the CPU kernels were not built ({reason}); NumPy will be used in "
                "their place, several times slower. They need GCC 9 or Clang 10 or newer, and "
                "the headers of Python.",
                file=sys.stderr,
            )

    def optional_sets(self) -> dict[str, list[str]]:
        """The sets of OPTIONAL_SETS that the compiler supports on this machine's architecture."""
        if "avx512" not in instruction_sets():
            return {}
        return {name: flags for name, flags in OPTIONAL_SETS.items() if self._accepts(flags)}

    def _accepts(self, flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "trial.cpp")
            source.write_text(AMX_TRIAL)
            command = [self.compiler.compiler_so[0], "-c", *flags, str(source), "-o"]
            try:
                trial = subprocess.run(
                    [*command, str(source.with_suffix(".o"))], capture_output=True, check=False
                )
            except OSError:
                return False
            return trial.returncode == 0

    def _compile(
        self, ext: Extension, sources: list[str], name: str, flags: list[str]
    ) -> list[str]:
        objects: list[str] = self.compiler.compile(
            sources,
            output_dir=str(Path(self.build_temp, name)),
            macros=[("VD_ISA", name)],
            include_dirs=ext.include_dirs,
            debug=self.debug,
            extra_postargs=FLAGS + flags,
            depends=ext.depends,
        )
        return objects


def extension(**options: Any) -> Extension:
    sources = sorted(str(path) for path in SOURCES.glob("*.cpp"))
    return Extension(
        "runtime.backend.cpu._native",
        sources=sources,
        depends=sorted(str(path) for path in SOURCES.glob("*.h")),
        include_dirs=[str(SOURCES)],
        extra_compile_args=FLAGS,
        define_macros=[("VD_SOURCES", f'"{source_digest()}"')],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
        **options,
    )


if __name__ == "__main__":
    setup(ext_modules=[extension()], cmdclass={"build_ext": BuildNative})
