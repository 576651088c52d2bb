"""Handwritten CUDA kernels, and how they are built."""

from __future__ import annotations

from pathlib import Path

SOURCE_DIR = Path(__file__).parent
HOST_DIR = SOURCE_DIR / "host"


def kernel_sources() -> list[Path]:
    """Every kernel file, in alphabetical order."""
    return sorted(SOURCE_DIR.glob("*.cu"))
