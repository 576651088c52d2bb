"""Stands in for nvcc: the same command line, and for machine code a shared object made by g++."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from cuda_kernels.host_build import build_module, build_runtime
from cuda_kernels.manifest import read_manifest


def main(argv: list[str]) -> int:
    if "--version" in argv:
        print("Cuda compilation tools, release 99.0, V99.0.0")
    elif "--list-gpu-arch" in argv:
        print("compute_80\ncompute_90")
    else:
        source = next(Path(word) for word in argv if word.endswith(".cu"))
        built = build_module(read_manifest(source), build_runtime())
        shutil.copyfile(built, argv[argv.index("-o") + 1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
