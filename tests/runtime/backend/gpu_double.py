"""Stands in for the CUDA package where only the way to it is tested."""

from __future__ import annotations

from typing import Any


def create_backend(name: str, device_id: int, **options: Any) -> tuple[str, int, dict[str, Any]]:
    return name, device_id, options
