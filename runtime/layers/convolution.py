"""Convolution. Caffe: base_conv_layer.cpp, conv_layer.cpp. Paper: 2.1."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, Layout
from runtime.blob import Blob
from runtime.filler import fill
from runtime.layer import Blobs, Layer, at_least
from runtime.layer_factory import register


@register("Convolution")
class ConvolutionLayer(Layer):
    """Filters shared by all bottoms; one top a bottom.

    Shapes: bottom (N,C,H,W); blobs[0] (K,C/group,R,S), blobs[1] (K,); top (N,K,P,Q).
    """

    num_bottom, num_top = at_least(1), at_least(1)
    equal_num_bottom_top = True

    geom: ConvGeometry
    plan: ConvPlan
    relu: bool = False
    """The net found that a ReLU follows in place and asks for it to be done here."""

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Make and fill filters and bias."""
        param = self.param.convolution_param
        if param.axis not in (1, -3):
            raise ProtoError(
                f"{self.label}: axis is {param.axis}; expected 1, the channels of (N,C,H,W)"
            )
        self.geom = self.geometry(bottom[0].shape)
        self.plan = self.backend.plan_conv(self.geom)
        self.blobs = [Blob(self.backend, self.geom.weight_shape, "weight")]
        fill(self.blobs[0], param.weight_filler, self.context, self.label)
        if param.bias_term:
            self.blobs.append(Blob(self.backend, (int(param.num_output),), "bias"))
            fill(self.blobs[1], param.bias_filler, self.context, self.label)

    def geometry(self, shape: Sequence[int]) -> ConvGeometry:
        """The geometry for a bottom's shape; Deconvolution turns it round."""
        return ConvGeometry.from_param(self.param.convolution_param, shape, self.label)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Plan again when the bottoms' shape is new."""
        for blob in bottom[1:]:
            if blob.shape != bottom[0].shape:
                raise ProtoError(
                    f"{self.label}: expected all bottoms in the shape {bottom[0].shape}, "
                    f"got {blob.shape}"
                )
        if bottom[0].shape != self.geom.in_shape:
            geom = self.geometry(bottom[0].shape)
            if geom.c != self.geom.c:
                raise ProtoError(
                    f"{self.label}: expected {self.geom.c} input channels as when the net was "
                    f"made, got {geom.c}"
                )
            self.geom, self.plan = geom, self.backend.plan_conv(geom)
        for blob in top:
            blob.reshape(self.geom.out_shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Convolve every bottom."""
        weight = self.blobs[0].data
        bias = self.blobs[1].data.dev() if len(self.blobs) > 1 else None
        for x, y in zip(bottom, top):
            self.backend.conv_forward(
                self.plan,
                x.data.dev(),
                weight.dev(),
                bias,
                y.data.mutable_dev(),
                weight.version,
                self.relu,
            )

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias, filters and bottoms."""
        weight = self.blobs[0]
        layout = Layout(self.geom.n, self.geom.k, self.geom.p * self.geom.q)
        for x, y, down in zip(bottom, top, propagate_down):
            dy = y.diff.dev()
            if len(self.blobs) > 1 and self.propagates_to_params(1):
                self.backend.bias_backward(layout, dy, self.blobs[1].diff.mutable_dev())
            if self.propagates_to_params(0):
                self.backend.conv_backward_weight(
                    self.plan, x.data.dev(), dy, weight.diff.mutable_dev()
                )
            if down:
                self.backend.conv_backward_data(
                    self.plan, dy, weight.data.dev(), x.diff.mutable_dev(), weight.data.version
                )
