"""Handwritten CUDA kernels and their build."""

from __future__ import annotations

from pathlib import Path

SOURCE_DIR = Path(__file__).parent
HOST_DIR = SOURCE_DIR / "host"


def kernel_sources() -> list[Path]:
    """The paths of all kernel files, in alphabetical order."""
    return sorted(SOURCE_DIR.glob("*.cu"))
