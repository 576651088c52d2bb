"""The divisor of a loss. Caffe: LossParameter, softmax_loss_layer.cpp get_normalizer."""

from __future__ import annotations

from typing import Any

from prototxt_gen import proto
from runtime.backend.base import Layout


def normalization_mode(param: Any, default: int | None = None) -> int:
    """The NormalizationMode of a LossParameter; the old `normalize: false` means BATCH_SIZE."""
    modes = proto.LossParameter
    if not param.HasField("normalization") and param.HasField("normalize"):
        return int(modes.VALID if param.normalize else modes.BATCH_SIZE)
    if not param.HasField("normalization") and default is not None:
        return default
    return int(param.normalization)


def fixed_normalizer(param: Any, layout: Layout, default: int | None = None) -> float | None:
    """The divisor if it depends only on shapes; None for VALID, which counts labels."""
    modes = proto.LossParameter
    mode = normalization_mode(param, default)
    if mode == modes.VALID:
        return None
    if mode == modes.FULL:
        return max(1.0, float(layout.outer * layout.inner))
    return max(1.0, float(layout.outer)) if mode == modes.BATCH_SIZE else 1.0
