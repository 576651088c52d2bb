"""The protocol of feature extraction. Paper: appendix B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from prototxt_gen.errors import DataError, ProtoError
from prototxt_gen.heads import DENSE_SUFFIX
from prototxt_gen.proto import Message
from runtime.evaluate.protocol import check_scales
from runtime.evaluate.surgery import scores_blob
from runtime.layers.factory import class_of
from runtime.net.building import filter_net, net_state

Descriptors = npt.NDArray[np.float64]
AVERAGE, STACK, MAX = "average", "stack", "max"
AGGREGATES = (AVERAGE, STACK, MAX)
"""The paper averages on VOC and stacks on Caltech; it also tried the maximum."""


@dataclass(frozen=True)
class FeatureProtocol:
    """Everything that determines an image's features, except the net and the image.

    Units: `scales` are short sides Q in pixels.
    """

    scales: tuple[int, ...]
    aggregate: str = AVERAGE
    flip: bool = True
    layer: str | None = None
    """The blob of the activations; None for the last but one fully connected layer."""

    def __post_init__(self) -> None:
        check_scales(self.scales)
        if self.aggregate not in AGGREGATES:
            raise ProtoError(
                f"aggregate: expected one of {', '.join(AGGREGATES)}, got {self.aggregate!r}"
            )

    def describe(self) -> str:
        """Return the protocol in words."""
        flips = "averaged with the flip" if self.flip else "without flips"
        scales = ", ".join(map(str, self.scales))
        action = {AVERAGE: "averaged", STACK: "stacked", MAX: "maximum"}[self.aggregate]
        several = f", {action} over scales" if len(self.scales) > 1 else ""
        return f"dense, averaged over space, {flips}; Q = {scales}{several}; L2-normalised"


def penultimate(model: Message) -> str:
    """Return the input blob of the last fully connected layer, after the non-linearity.

    Raises:
        ProtoError: the class scores do not come from a fully connected layer.
    """
    net = filter_net(model, net_state(proto.TEST))
    scores = scores_blob(net)
    last = next(layer for layer in net.layer if scores in layer.top)
    kind = class_of(last.type)
    dense = kind.filters_are_rows and last.name.endswith(DENSE_SUFFIX)
    if not kind.fully_connected and not dense:
        raise ProtoError(
            f"net '{net.name}': its class scores come from layer '{last.name}' of type "
            f"{last.type}; expected a fully connected layer, which is removed; select the blob of "
            "the activations with --layer"
        )
    return str(last.bottom[0])


def aggregate_scales(parts: Sequence[Descriptors], aggregate: str) -> Descriptors:
    """Combine the descriptors of several scales. Shapes: each part (N,D); result (N,d)."""
    if aggregate == STACK:
        return np.concatenate(parts, axis=1)
    if aggregate == MAX:
        return np.asarray(np.max(parts, axis=0))
    return np.asarray(np.mean(parts, axis=0))


def normalise(values: Descriptors, names: Sequence[str]) -> Descriptors:
    """Scale rows to length 1. Shapes: values (N,D); result (N,D).

    Raises:
        DataError: a row is all zeros or not finite.
    """
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"{names[row]}: features of length {lengths[row, 0]:g}; expected finite activations, "
            "at least one of them not 0; check the image and the weights"
        )
    return np.asarray(values / lengths)
