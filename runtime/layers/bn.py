"""BN: normalisation with scale and shift. Caffe: bn_layer.cpp of SegNet's and PSPNet's builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import image_shape
from prototxt_gen.proto import copy_of
from runtime.backend.base import HostArray
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places, PlainLayer
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register

_SEGNET_EPS = 1e-9
_DECAYING = ("var_eps", "decay", "moving_average")
_SLOPES = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")


@register("BN")
class BNLayer(Layer):
    """y = scale * (x - mean) / sqrt(var + eps) + shift; the fields of bn_param select the layout.

    SegNet's: scale and shift; the statistics of the batch in both phases, or none of them with
    bn_mode: INFERENCE. PSPNet's: scale, shift, running mean and variance; TEST, and TRAIN with
    `frozen`, use the running ones.

    Shapes: bottom (N,C,H,W); 2 or 4 blobs (1,C,1,1).
    """

    applies_densely = True
    places = Places.SAME

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create scale, shift and running statistics.

        Raises:
            ProtoError, ShapeError: bn_param mixes layouts, or does not suit the bottom.
        """
        param = self.param.bn_param
        channels = image_shape(bottom[0].shape, self.label)[1]
        slopes = self._find_layout()
        self.fixed = bool(param.bn_mode == proto.BNParameter.INFERENCE)
        self.frozen = self.four and bool(param.frozen)
        names = ("scale", "shift", "mean", "variance")[: 4 if self.four else 2]
        self.blobs = [Blob(self.backend, (1, channels, 1, 1), name) for name in names]
        fill_weight(self, 0, param.slope_filler if slopes else param.scale_filler)
        fill_weight(self, 1, param.bias_filler if slopes else param.shift_filler)
        if slopes or not self.four:
            self.eps = float(param.eps) if self.four else _SEGNET_EPS
            self.kept = float(param.momentum)
        else:
            self.eps, self.kept = float(param.var_eps), 1.0 - float(param.decay)
        if self.four:
            self._fix_statistics()

    def _find_layout(self) -> bool:
        """Determine the number of blobs; returns whether bn_param has the fields of slopes."""
        given = [field.name for field, _ in self.param.bn_param.ListFields()]
        slopes = [name for name in given if name in _SLOPES]
        if slopes and len(slopes) != len(given):
            other = next(name for name in given if name not in _SLOPES)
            raise ProtoError(
                f"{self.label}: {slopes[0]} and {other} belong to different layouts; expected "
                "the fields of one; correct bn_param"
            )
        self.four = bool(slopes) or any(name in _DECAYING for name in given)
        if not given:
            self._layout_by_params()
        return bool(slopes)

    def _layout_by_params(self) -> None:
        """Take the layout from the number of param entries, as bn_param has no field."""
        count = len(self.param.param)
        if count not in (2, 4):
            raise ProtoError(
                f"{self.label}: the layout of the weights is not given; expected bn_param, or 2 or "
                f"4 param entries, got {count}; add bn_mode for SegNet's or momentum for PSPNet's"
            )
        self.four = count == 4

    def _fix_statistics(self) -> None:
        """Fill the running statistics; the solver must leave them, and a frozen layer, alone."""
        fill_weight(self, 2, proto.FillerParameter(type="constant", value=0))
        fill_weight(self, 3, proto.FillerParameter(type="constant", value=float(self.frozen)))
        while len(self.param.param) < len(self.blobs):
            self.param.param.add()
        for spec in self.param.param[0 if self.frozen else 2 :]:
            spec.lr_mult = spec.decay_mult = 0.0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the number of channels has changed.
        """
        channels = image_shape(bottom[0].shape, self.label)[1]
        if channels != self.blobs[0].count():
            raise ShapeError(
                f"{self.label}: expected {self.blobs[0].count()} channels as when the net was "
                f"made, got shape {bottom[0].shape}"
            )
        if not bottom[0].count() and not self._known():
            raise ShapeError(
                f"{self.label}: no number to take mean and variance of; expected at least one for "
                f"each channel, got shape {bottom[0].shape}; give a batch that is not empty"
            )
        top[0].reshape_like(bottom[0])

    def _running(self) -> bool:
        test = self.phase == proto.TEST and self.param.bn_param.moving_average
        return self.four and (self.frozen or bool(test))

    def _known(self) -> bool:
        """Whether the statistics do not depend on the batch."""
        return self.fixed or self._running()

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise, scale and shift; in TRAIN, update the running statistics."""
        x = bottom[0].data.host()
        self.std: Any = 1.0
        if self.fixed:
            self.normal = x.copy()
        else:
            mean, var = self._statistics(x)
            self.std = np.sqrt(var + self.eps)
            self.normal = (x - mean) / self.std
        scale, shift = (blob.data.host() for blob in self.blobs[:2])
        top[0].data.mutable_host()[...] = self.normal * scale + shift

    def _statistics(self, x: HostArray) -> tuple[HostArray, HostArray]:
        if self._running():
            return self.blobs[2].data.host(), self.blobs[3].data.host()
        mean = x.mean(axis=(0, 2, 3), keepdims=True)
        var = np.square(x - mean).mean(axis=(0, 2, 3), keepdims=True)
        if self.four and self.phase == proto.TRAIN:
            for blob, fresh in zip(self.blobs[2:], (mean, var)):
                running = blob.data.mutable_host()
                running[...] = self.kept * running + (1 - self.kept) * fresh
        return mean, var

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of scale, shift and the input, through the statistics of the batch."""
        dy = top[0].diff.host()
        for index, share in ((0, dy * self.normal), (1, dy)):
            if self.propagates_to_params(index):
                diff = self.blobs[index].diff.mutable_host()
                diff[...] += share.sum(axis=(0, 2, 3), keepdims=True)
        if not propagate_down[0]:
            return
        dx = dy * self.blobs[0].data.host()
        if not self._known():
            along = (dx * self.normal).mean(axis=(0, 2, 3), keepdims=True)
            dx = dx - dx.mean(axis=(0, 2, 3), keepdims=True) - self.normal * along
        bottom[0].diff.mutable_host()[...] = dx / self.std

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """With the statistics of a batch."""
        bn = param.bn_param
        if bn.frozen or bn.bn_mode == proto.BNParameter.INFERENCE:
            return None
        return "computes statistics over its batch"

    def bvlc_form(self, param: Any) -> list[PlainLayer]:
        """A BatchNorm, but for bn_mode: INFERENCE, and a Scale with a bias."""
        channels = self.blobs[0].count()
        weights = [blob.data.host().reshape(channels) for blob in self.blobs]
        param.ClearField("bn_param")
        scale = copy_of(param)
        del scale.param[2:]
        scale.type = "Scale"
        scale.scale_param.bias_term = True
        if self.fixed:
            return [PlainLayer(scale, weights)]
        scale.name = f"{param.name}/scale"
        scale.bottom[:] = scale.top
        param.type = "BatchNorm"
        param.ClearField("param")
        param.ClearField("loss_weight")
        param.batch_norm_param.eps = self.eps
        param.batch_norm_param.use_global_stats = self._known()
        param.batch_norm_param.moving_average_fraction = self.kept
        statistics = weights[2:] if self.four else [np.zeros(channels)] * 2
        divisor = np.full(1, float(self.four))
        return [PlainLayer(param, [*statistics, divisor]), PlainLayer(scale, weights[:2])]

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """See Layer.to_onnx.

        Raises:
            UnsupportedError: the layer uses the statistics of the batch.
        """
        if not self._known():
            raise step.refuse("the statistics of a batch")
        channels = self.blobs[0].count()
        names = ("scale", "shift", "mean", "variance")
        values = [blob.data.host().reshape(channels) for blob in self.blobs]
        epsilon = self.eps
        if self.fixed:
            values = [*values[:2], np.zeros(channels, np.float32), np.ones(channels, np.float32)]
            epsilon = 0.0
        constants = [step.constant(value, name) for value, name in zip(values, names)]
        return [step.op("BatchNormalization", step.inputs[0], *constants, epsilon=epsilon)]
