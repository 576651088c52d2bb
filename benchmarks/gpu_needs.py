"""Prints the packages that a GPU machine lacks, and how to install them without a network.

    python benchmarks/gpu_needs.py [FOLDER OF WHEELS] [--device emu]

Runs before anything is installed, on the standard library alone.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Module to import, and its name for pip. PyTorch must be installed on the machine.
NEEDS = {
    "numpy": "numpy",
    "google.protobuf": "protobuf",
    "cv2": "opencv-python-headless",
    "lmdb": "lmdb",
    "threadpoolctl": "threadpoolctl",
    "rich": "rich",
    "pycuda": "pycuda",
    "pytest": "pytest",
    **({"tomli": "tomli"} if sys.version_info < (3, 11) else {}),
}
# Without these, only training on the embedded data set fails.
FOR_TRAINING = {
    "h5py": "h5py",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "matplotlib": "matplotlib",
}


def missing(modules: Mapping[str, str]) -> list[str]:
    """The names for pip of the packages that cannot be imported here."""
    return [name for module, name in modules.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def advice(lacking: Sequence[str], folder: str = "") -> str:
    """The message on missing packages, and the commands that download them."""
    version = ".".join(platform.python_version_tuple()[:2])
    there = sorted(path.name for path in Path(folder).glob("*.whl")) if folder else []
    seen = f"{folder} has {len(there)} wheels" if folder else "no folder of wheels was given"
    names = " ".join(name for name in lacking if name != "pycuda")
    commands = []
    if names:
        commands.append(
            f"  pip download --only-binary=:all: --python-version {version} "
            f"--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d WHEELS {names}"
        )
    if "pycuda" in lacking:
        commands.append(
            f"  CUDA_ROOT=/usr/local/cuda pip wheel --no-deps -w WHEELS pycuda      # Python "
            f"{version}, with CUDA's headers\n"
            "  pip download -d WHEELS pytools mako platformdirs siphash24"
        )
    return "\n".join(
        [
            f"gpu_check: missing for Python {version}: {', '.join(lacking)}; {seen}; expected a "
            "folder with wheels of them as the first argument; collect them where there is a "
            "network:",
            *commands,
        ]
    )


if __name__ == "__main__":
    lacking, for_training = missing(NEEDS), missing(FOR_TRAINING)
    if "emu" in sys.argv[2:]:
        # The emulator needs no PyCUDA.
        lacking = [name for name in lacking if name != "pycuda"]
    if lacking or for_training:
        print(advice([*lacking, *for_training], *sys.argv[1:2]), file=sys.stderr)
    sys.exit(int(bool(lacking)))
