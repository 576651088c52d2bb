"""InnerProduct weights as the filters of a convolution. Paper: section 3.2; Caffe: net surgery.

A convolution whose kernel is as large as the input of a fully connected layer computes the same
product. Rows of the matrix are in C*H*W order, as filters are, so the numbers need no reordering.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from prototxt_gen.heads import DENSE_SUFFIX
from runtime.core.layer import Layer
from runtime.net import Net
from runtime.weights.file_blob import FileBlob, FileLayer


def dense_target(net: Net, layer: FileLayer, file_names: Collection[str]) -> Layer | None:
    """The convolution of a dense net that a fully connected layer of a file becomes.

    It has the layer's name and the suffix of dense nets; a file that holds a layer of that name
    has its own weights for it.
    """
    name = layer.name + DENSE_SUFFIX
    target = None if name in file_names else net.layer_by_name(name)
    if target is None or not target.blobs or 0 not in layer.blobs:
        return None
    weight = layer.blobs[0]
    return target if is_matrix_of(weight, target.blobs[0].shape, target, layer) else None


def is_matrix_of(blob: FileBlob, shape: tuple[int, ...], target: Layer, source: FileLayer) -> bool:
    """Whether a blob is the matrix (out, C*H*W) of the filters (out, C, H, W) of `target`.

    A grouped convolution reads a part of the channels, and a transposed matrix is in another order.
    """
    if not target.filters_are_rows or source.transposed or _groups(target) > 1:
        return False
    matrix = (shape[0], math.prod(shape[1:])) if shape else ()
    # V0 and V1 files store a matrix as 1 x 1 x out x in.
    return blob.shape in (matrix, (1, 1, *matrix))


def _groups(layer: Layer) -> int:
    param: Any = layer.param
    return int(param.convolution_param.group)
