"""The wiring of a net: what fusion and the memory of activations are planned from."""

from __future__ import annotations

from typing import Protocol

from runtime.backend.base import Backend
from runtime.core.blob import Blob
from runtime.core.layer import Layer


class Wiring(Protocol):
    """The layers of a net, the blobs between them, and which of them run backward."""

    backend: Backend
    layers: list[Layer]
    blobs: dict[str, Blob]
    inputs: list[str]
    outputs: list[str]
    bottoms: list[list[Blob]]
    tops: list[list[Blob]]
    layer_need_backward: list[bool]
    bottom_need_backward: list[list[bool]]

    @property
    def learns(self) -> bool:
        """Whether training runs backward through the net."""

    def reshape(self) -> None:
        """Propagate the shapes of the inputs."""
