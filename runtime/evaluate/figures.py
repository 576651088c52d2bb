"""Matplotlib figures without a display and without global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib Figure that lays out its own axes. Units: inches."""
    # pyplot would choose a display and keep every figure in a global list.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, dpi: int = 100) -> Path:
    """Write a figure in the format of the file's suffix, PNG without one; return the path.

    Raises:
        DataError: the file cannot be written.
    """
    with atomic_write(path, "wb", DataError) as stream:
        figure.savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=dpi)
    return path
