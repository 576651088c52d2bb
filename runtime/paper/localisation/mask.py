"""The weights of the layer `mask`: a row for each class that lets its four numbers through."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prototxt_gen import proto
from prototxt_gen.localization import NUMBERS, mask_net
from runtime.backend.base import Backend
from runtime.net import Net
from runtime.weights import net_weights


def write_mask(path: Path, classes: int, backend: Backend) -> Path:
    """Write them as a .caffemodel, which a solver reads after the classification weights."""
    with Net(mask_net(classes), proto.TEST, backend) as net:
        rows = np.repeat(np.eye(classes, dtype=np.float32), NUMBERS, axis=1)
        net.params.learnable[0].data.mutable_host()[...] = rows
        net_weights.save(net, path)
    return path
