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


def plain_text(text: str) -> str:
    """Return a text of a figure with its dollar signs escaped, which start formulas otherwise."""
    return text.replace("$", r"\$")


def save_figure(figure: Any, path: Path, dpi: int = 100) -> Path:
    """Write a figure in the format of the file's suffix, PNG without one; return the path.

    Raises:
        DataError: the format is not supported, or the file cannot be written.
    """
    kind = path.suffix.lstrip(".").lower() or "png"
    formats = figure.canvas.get_supported_filetypes()
    if kind not in formats:
        raise DataError(
            f"{path}: unknown format of a picture; expected a name that ends in .png, .pdf or "
            f".svg, got {path.suffix!r}; rename the file"
        )
    with atomic_write(path, "wb", DataError) as stream:
        figure.savefig(stream, format=kind, dpi=dpi)
    return path
