"""Compiles kernels with nvcc, one architecture at a time, and caches the results.

python -m cuda_kernels.build --table        registers, shared memory and spills of every kernel
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from cuda_kernels import SOURCE_DIR, kernel_sources
from cuda_kernels.cache import cached, digest
from cuda_kernels.compiler import headers_digest, run_compiler
from cuda_kernels.manifest import Manifest, read_manifest
from cuda_kernels.resources import Resources, parse_ptxas, resource_table
from prototxt_gen.errors import DeviceError, KernelBuildError, VerydeepError

# The architectures that are sold or widely used; those that nvcc does not support are left out.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
# 177, an unused constant: launch code reads the constants.
FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v", "-diag-suppress=177")

_RELEASE = re.compile(r"release (\d+\.\d+), V([\d.]+)")
_LISTED = re.compile(r"compute_(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler: its path, release and supported architectures."""

    path: str
    version: str
    architectures: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """The target of a build: machine code of an architecture, or PTX that the driver compiles."""

    arch: int
    ptx: bool = False


@dataclass(frozen=True)
class Binary:
    """A compiled .cu: the path of its machine code or PTX, and the assembler's report."""

    path: Path
    report: str


@functools.cache
def find_nvcc() -> Nvcc:
    """The nvcc on PATH, or in /usr/local/cuda.

    Raises:
        DeviceError: nvcc is not installed.
        KernelBuildError: its version or architectures cannot be read.
    """
    path = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if path is None:
        raise DeviceError(
            "backend 'gpu': it builds the kernels with nvcc, and there is no nvcc on PATH nor in "
            "/usr/local/cuda/bin; expected the CUDA toolkit; install it, or use the backend 'cpu'"
        )
    version = _RELEASE.search(run_compiler([path, "--version"], "nvcc"))
    listed = _LISTED.findall(run_compiler([path, "--list-gpu-arch"], "nvcc"))
    if version is None or not listed:
        raise KernelBuildError(
            f"{path}: its version or architectures are not understood; expected nvcc of CUDA 11.2 "
            "or newer; check the nvcc on PATH"
        )
    return Nvcc(path, version[2], tuple(sorted(int(arch) for arch in listed)))


def choose_target(device_arch: int, supported: Sequence[int]) -> Target:
    """Select the target for a device, given the architectures that the compiler supports.

    Machine code runs on its architecture and on later minor revisions of it. If none fits, the
    target is PTX of the newest older architecture, which the driver compiles when it is loaded.

    Raises:
        DeviceError: the compiler supports no architecture that this device can run.
    """
    if device_arch in supported:
        return Target(device_arch)
    older = [arch for arch in supported if arch < device_arch]
    same_major = [arch for arch in older if arch // 10 == device_arch // 10]
    if same_major:
        return Target(max(same_major))
    if older:
        return Target(max(older), ptx=True)
    raise DeviceError(
        f"kernels: the device is sm_{device_arch}, and nvcc supports sm_{min(supported)} to "
        f"sm_{max(supported)}; expected an nvcc that supports it; install an older CUDA toolkit"
    )


def build_binary(manifest: Manifest, target: Target) -> Binary:
    """Compile a .cu, or read it from the cache.

    Raises:
        KernelBuildError: it does not compile; the message contains nvcc's command and output.
        DeviceError: there is no nvcc, or the file is not for this architecture.
    """
    if not manifest.fits(target.arch) or (manifest.only_arch and target.ptx):
        exactly = "" if manifest.only_arch else " or newer"
        raise DeviceError(
            f"{manifest.path.name}: these kernels are not for sm_{target.arch}; expected "
            f"sm_{manifest.minimum_arch}{exactly}; use precision: fp32"
        )
    nvcc = find_nvcc()
    suffix = "a" if manifest.only_arch else ""
    kind = "ptx" if target.ptx else "cubin"
    arch = f"{'compute' if target.ptx else 'sm'}_{target.arch}{suffix}"
    command = [nvcc.path, *FLAGS, f"-I{SOURCE_DIR}", f"-arch={arch}", f"-{kind}"]
    text = manifest.path.read_text(encoding="utf-8")
    key = digest(text, headers_digest("*.cuh"), nvcc.version, *command[1:])
    name = f"cuda-{manifest.path.stem}-{arch}-{key}"

    def compile_it(path: Path) -> None:
        report = run_compiler(
            [*command, str(manifest.path), "-o", str(path)], f"{manifest.path.name}: nvcc"
        )
        cached(f"{name}.ptxas", lambda log: _write(log, report))

    # The report is written before the machine code; it is missing only if its file was deleted.
    binary = cached(f"{name}.{kind}", compile_it)
    report = binary.with_suffix(".ptxas")
    if not report.exists():
        binary.unlink()
        binary = cached(f"{name}.{kind}", compile_it)
    return Binary(binary, report.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def all_resources(sources: Sequence[Path], architectures: Sequence[int]) -> list[Resources]:
    """The resources of every kernel on every architecture that its file and nvcc support."""
    supported = find_nvcc().architectures
    manifests = [read_manifest(source) for source in sources]
    jobs = [
        (manifest, arch)
        for manifest in manifests
        for arch in architectures
        if arch in supported and manifest.fits(arch)
    ]
    # The threads only wait for compilers.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        binaries = pool.map(lambda job: build_binary(job[0], Target(job[1])), jobs)
        return [
            entry
            for (manifest, arch), binary in zip(jobs, binaries, strict=True)
            for entry in parse_ptxas(binary.report, manifest, arch)
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Compile every kernel for every architecture and print the resources that they use."""
    parser = argparse.ArgumentParser(prog="python -m cuda_kernels.build", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="kernel files (default: all)")
    parser.add_argument("--arch", type=int, action="append", metavar="SM", help="such as 90")
    parser.add_argument("--table", action="store_true", help="print registers, shared, spills")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    args = parser.parse_args(argv)
    sources = [SOURCE_DIR / f"{name}.cu" for name in args.names] or kernel_sources()
    try:
        resources = all_resources(sources, args.arch or ARCHITECTURES)
    except VerydeepError as error:
        print(f"cuda_kernels.build: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([asdict(entry) for entry in resources], indent=1))
    elif args.table:
        print(resource_table(resources))
    else:
        print(
            f"{len(sources)} files, {len(resources)} kernels built with nvcc {find_nvcc().version}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
