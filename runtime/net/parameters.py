"""The weights of a net: the layers that own and share them, and their multipliers.

Caffe: Net::AppendParam and Net::ShareWeights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.blob import Blob
from runtime.core.layer import Layer


@dataclass
class ParamTable:
    """`learnable` has each weight blob once, in the order of the layers that own them."""

    by_layer: dict[str, list[Blob]] = field(default_factory=dict)
    learnable: list[Blob] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """One for each learnable blob, such as `conv1_1[0]`."""
    lr_mult: list[float] = field(default_factory=list)
    decay_mult: list[float] = field(default_factory=list)
    _owners: dict[str, tuple[int, Blob, str]] = field(default_factory=dict)
    _has_lr: list[bool] = field(default_factory=list)
    _has_decay: list[bool] = field(default_factory=list)

    def append(self, layer: Layer, param: Any) -> list[bool]:
        """Add the weight blobs of a layer; returns for each whether its lr_mult is not 0.

        Raises:
            ProtoError: there are more `param` entries than blobs, or multipliers that contradict.
            ShapeError: blobs that are shared by name have different shapes.
        """
        if len(param.param) > len(layer.blobs):
            raise ProtoError(
                f"{layer.label}: expected at most {len(layer.blobs)} param entries, one for each "
                f"weight blob, got {len(param.param)}; remove the others"
            )
        if layer.blobs:
            self.by_layer.setdefault(param.name, layer.blobs)
        learns = []
        for index, blob in enumerate(layer.blobs):
            spec = param.param[index] if index < len(param.param) else proto.ParamSpec()
            blob.name = f"{param.name}[{index}]"
            owner = self._owners.get(spec.name) if spec.name else None
            if owner is None:
                self._add(blob, spec)
            else:
                self._share(layer, index, blob, spec, owner)
            learns.append(spec.lr_mult != 0.0)
        return learns

    def _add(self, blob: Blob, spec: Any) -> None:
        if spec.name:
            self._owners[spec.name] = (len(self.learnable), blob, blob.name)
        self.learnable.append(blob)
        self.names.append(blob.name)
        self.lr_mult.append(float(spec.lr_mult))
        self.decay_mult.append(float(spec.decay_mult))
        self._has_lr.append(spec.HasField("lr_mult"))
        self._has_decay.append(spec.HasField("decay_mult"))

    def _share(
        self, layer: Layer, index: int, blob: Blob, spec: Any, owner: tuple[int, Blob, str]
    ) -> None:
        index_of_owner, source, owner_name = owner
        label = f"{layer.label}, blob {index}: shares '{spec.name}' with {owner_name}"
        if spec.share_mode == proto.ParamSpec.PERMISSIVE:
            fits = blob.count() == source.count()
        else:
            fits = blob.shape == source.shape
        if not fits:
            raise ShapeError(
                f"{label}: expected shape {source.shape}, got {blob.shape}; give the layers equal "
                "shapes, or set share_mode: PERMISSIVE to share blobs of equal counts"
            )
        blob.share_data(source)
        blob.share_diff(source)
        self._merge(label, index_of_owner, spec, "lr_mult", self.lr_mult, self._has_lr)
        self._merge(label, index_of_owner, spec, "decay_mult", self.decay_mult, self._has_decay)

    @staticmethod
    def _merge(
        label: str, index: int, spec: Any, key: str, values: list[float], is_set: list[bool]
    ) -> None:
        if not spec.HasField(key):
            return
        value = float(getattr(spec, key))
        if is_set[index] and values[index] != value:
            raise ProtoError(
                f"{label}: {key} is {value:g} here and {values[index]:g} there; "
                "expected the same value; set it in one layer only"
            )
        values[index], is_set[index] = value, True
