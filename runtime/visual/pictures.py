"""Figures of filters, activations and maps, with captions, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.analysis.filter_tiles import tiles
from runtime.backend.base import HostArray
from runtime.bundle.preprocessing import BGR, Preprocessing

_DPI = 100
_MOST_MAPS = 64


def pixels_of(image: HostArray, preparation: Preprocessing) -> HostArray:
    """The RGB picture of a prepared image. Shapes: image (C,H,W), result (H,W,3) uint8."""
    mean = np.array(preparation.mean_value or (0.0,), np.float32).reshape(-1, 1, 1)
    values = np.clip(np.rint(image / np.float32(preparation.scale) + mean), 0, 255)
    picture = values.astype(np.uint8).transpose(1, 2, 0)
    if preparation.channel_order == BGR:
        picture = picture[:, :, ::-1]
    return np.repeat(picture, 3 // picture.shape[2], axis=2)


def stretched(image: HostArray, preparation: Preprocessing) -> HostArray:
    """The RGB picture of values of any range, whose centre is medium grey.

    Shapes: image (C,H,W), result (H,W,3) uint8.
    """
    spread = 3 * float(image.std()) or 1.0
    values = np.clip(127.5 + 127.5 * image / spread, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if preparation.channel_order == BGR:
        values = values[:, :, ::-1]
    return np.repeat(values, 3 // values.shape[2], axis=2)


def save_maps(maps: HostArray, path: Path, title: str, caption: str) -> None:
    """Draw the first maps of a blob side by side. Shapes: maps (K,H,W).

    Raises:
        DataError: the file cannot be written.
    """
    grid = tiles(maps[:_MOST_MAPS, None])
    _save([("", grid, None)], path, title, caption)


def save_filters(filters: HostArray, path: Path, title: str, caption: str) -> None:
    """Draw filters of 1 or 3 channels. Shapes: (K,C,R,S).

    Raises:
        DataError: the file cannot be written.
    """
    _save([("", tiles(filters), None)], path, title, caption)


def save_picture(picture: HostArray, path: Path, title: str, caption: str) -> None:
    """Draw one picture. Shapes: (H,W,3) uint8.

    Raises:
        DataError: the file cannot be written.
    """
    _save([("", picture, None)], path, title, caption)


def save_heat(picture: HostArray, heat: HostArray, path: Path, title: str, caption: str) -> None:
    """Draw a picture, a map over its area, and both above each other.

    Shapes: picture (H,W,3) uint8, heat (h,w).

    Raises:
        DataError: the file cannot be written.
    """
    height, width = picture.shape[:2]
    enlarged = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    panels = [("image", picture, None), ("map", enlarged, None), ("both", picture, enlarged)]
    _save(panels, path, title, caption)


def _save(
    panels: list[tuple[str, HostArray, HostArray | None]], path: Path, title: str, caption: str
) -> None:
    # Without pyplot no display and no global state are needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels) + 0.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, wrap=True)
    for axis, (name, picture, heat) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels
    ):
        axis.axis("off")
        axis.set_title(name, fontsize=10)
        _draw(axis, picture, heat)
    figure.supxlabel(caption, fontsize=9, wrap=True)
    with atomic_write(path, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=_DPI)


def _draw(axis: Any, picture: HostArray, heat: HostArray | None) -> None:
    if picture.ndim == 2:
        axis.imshow(picture, cmap="inferno")
        return
    axis.imshow(picture, interpolation="nearest")
    if heat is not None:
        axis.imshow(heat, cmap="inferno", alpha=0.55)
