"""The wiring of a net: its layers, the blobs between them, and the gradients that are needed."""

from __future__ import annotations

from typing import Protocol

from runtime.core.blob import Blob
from runtime.core.layer import Layer


class Wiring(Protocol):
    """The input for planning passes and activation memory; every list is indexed by layer."""

    layers: list[Layer]
    bottoms: list[list[Blob]]
    tops: list[list[Blob]]
    layer_need_backward: list[bool]
    bottom_need_backward: list[list[bool]]
