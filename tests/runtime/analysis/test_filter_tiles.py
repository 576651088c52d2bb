from __future__ import annotations

import numpy as np

from runtime.analysis.filter_tiles import tiles


def test_the_picture_of_filters() -> None:
    filters = np.zeros((9, 3, 2, 2), np.float32)
    filters[0, 0] = 1  # blue
    filters[8] = np.nan
    grid = tiles(filters)
    assert grid.shape == (8, 8, 3)
    assert grid[0, 0].tolist() == [0, 0, 255]
    assert grid[0, 3].tolist() == [128, 128, 128]
    assert grid[2, 0].tolist() == [255, 255, 255]
    assert tiles(np.ones((2, 1, 3, 3), np.float32)).shape == (3, 7, 3)
