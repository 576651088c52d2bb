"""Maps of channels that are folded into the layer before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.backend.base import Backend, HostArray, Layout
from runtime.core.blob import Blob
from runtime.core.synced_memory import SyncedMemory

_MOST = 1e18
"""The limit of a factor, above which a folded filter might overflow."""


@dataclass(frozen=True)
class ChannelMap:
    """y = (x - centre) * factor + shift for each channel. Shapes: (channels,), float64."""

    centre: HostArray
    factor: HostArray
    shift: HostArray

    def then(self, other: ChannelMap) -> ChannelMap:
        """This map followed by another one."""
        shift = (self.shift - other.centre) * other.factor + other.shift
        return ChannelMap(self.centre, self.factor * other.factor, shift)

    @property
    def is_foldable(self) -> bool:
        """Whether all numbers are finite, and small enough for products with filters."""
        return all(bool((np.abs(a) <= _MOST).all()) for a in (self.centre, self.factor, self.shift))


class Foldable:
    """The part of a layer that folding uses. The properties are not inherited by subclasses."""

    blobs: list[Blob]

    @property
    def can_fold(self) -> bool:
        """Whether the layer defines `forward_folded`."""
        return False

    @property
    def maps_channels(self) -> bool:
        """Whether the layer defines `channel_map`, and its top is that map of its bottom."""
        return False

    def forward_folded(
        self,
        followers: Sequence[Foldable],
        bottom: Sequence[Blob],
        top: Sequence[Blob],
        relu: bool,
    ) -> bool:
        """Compute the tops' data after `followers`, which map the channels of the top in place.

        Then apply max(x, 0) if `relu`. Returns False and does nothing if the map cannot be folded.
        """
        raise NotImplementedError(f"{type(self).__name__}: must define forward_folded")

    def channel_map(self) -> ChannelMap:
        """The map of axis 1, computed on the host from the blobs."""
        raise NotImplementedError(f"{type(self).__name__}: must define channel_map")


def exact_values(blob: Blob) -> Any:
    """The elements of a blob. Shapes: as the blob, float64."""
    return blob.data.host().astype(np.float64)


class FoldedMap:
    """The composed map of consecutive layers, computed once for each version of their blobs.

    Shapes: centre, factor, shift (channels,).
    """

    def __init__(self, backend: Backend) -> None:
        self.centre, self.factor, self.shift = (SyncedMemory(backend) for _ in range(3))
        self._versions: tuple[int | None, ...] = ()
        self._is_foldable = False

    @property
    def memories(self) -> tuple[SyncedMemory, SyncedMemory, SyncedMemory]:
        return self.centre, self.factor, self.shift

    def update(self, layers: Sequence[Foldable]) -> bool:
        """Compute the map if a blob may have changed; whether it can be folded.

        It cannot while blobs are exposed to writes that are not detected, or if a number is not
        finite.
        """
        versions = tuple([blob.data.version for layer in layers for blob in layer.blobs])
        if None in versions:
            return False
        if versions != self._versions:
            with np.errstate(all="ignore"):
                composed = layers[0].channel_map()
                for layer in layers[1:]:
                    composed = composed.then(layer.channel_map())
                self._is_foldable = composed.is_foldable
            values = (composed.centre, composed.factor, composed.shift)
            for memory, value in zip(self.memories, values):
                memory.reshape(value.shape)
                memory.mutable_host()[...] = value if self._is_foldable else 0.0
            self._versions = versions
        return self._is_foldable


class FoldedFilters:
    """Private copies of filters and bias with the map of the layers after them.

    They are computed for each version of the blobs, which do not change. Shapes: weight as the
    filters (K,...), bias (K,).
    """

    def __init__(self, backend: Backend) -> None:
        self.weight, self.bias = SyncedMemory(backend), SyncedMemory(backend)
        self._backend = backend
        self._map = FoldedMap(backend)
        self._versions: tuple[int | None, ...] = ()

    def update(self, blobs: Sequence[Blob], followers: Sequence[Foldable]) -> bool:
        """Fold if a blob may have changed; False if this is not possible, see FoldedMap.update."""
        own = tuple([blob.data.version for blob in blobs])
        if None in own or not self._map.update(followers):
            return False
        versions = (*own, self._map.factor.version)
        if versions != self._versions:
            self._fold(*blobs)
            self._versions = versions
        return True

    def _fold(self, filters: Blob, bias: Blob | None = None) -> None:
        """weight = weight * factor; bias = (bias - centre) * factor + shift."""
        affine, count = self._backend.pointwise.affine, filters.shape[0]
        self.weight.reshape(filters.shape)
        self.bias.reshape((count,))
        rows, numbers = Layout(1, count, filters.count() // max(1, count)), Layout(1, count, 1)
        centre, factor, shift = (memory.dev() for memory in self._map.memories)
        target, offset = self.weight.mutable_dev(), self.bias.mutable_dev()
        affine(rows, filters.data.dev(), None, factor, None, False, target)
        if bias is None:
            self._backend.memory.fill(offset, 0.0)
        source = offset if bias is None else bias.data.dev()
        affine(numbers, source, centre, factor, shift, False, offset)
