"""Pictures of many small arrays side by side."""

from __future__ import annotations

import math

import numpy as np

from runtime.backend.base import HostArray
from runtime.net import Net

_GAP = 1


def first_filters(net: Net) -> HostArray | None:
    """The filters of the first layer that has filters of 1 or 3 channels.

    Shapes: (K,C,R,S).
    """
    for layer in net.layers:
        shape = layer.blobs[0].shape if layer.blobs else ()
        if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) > 1:
            filters: HostArray = layer.blobs[0].data.host()
            return filters
    return None


def tiles(arrays: HostArray) -> HostArray:
    """A picture of arrays, each scaled to its own range; BGR becomes RGB.

    Shapes: arrays (K,C,R,S) with C of 1 or 3; result (H,W,3) uint8.
    """
    values = np.nan_to_num(arrays.astype(np.float32))
    low = values.min(axis=(1, 2, 3), keepdims=True)
    span = values.max(axis=(1, 2, 3), keepdims=True) - low
    scaled = np.where(span > 0, (values - low) / np.where(span > 0, span, 1), 0.5)
    pixels = np.repeat(scaled, 3 // scaled.shape[1], axis=1)[:, ::-1].transpose(0, 2, 3, 1)
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = -(-len(pixels) // columns)
    height, width = (side + _GAP for side in pixels.shape[1:3])
    grid = np.ones((rows * height - _GAP, columns * width - _GAP, 3), np.float32)
    for place, tile in enumerate(pixels):
        top, left = place // columns * height, place % columns * width
        grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return np.asarray(np.rint(255 * grid), np.uint8)
