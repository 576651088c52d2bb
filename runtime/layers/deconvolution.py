"""Deconvolution: transposed convolution. Caffe: deconv_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Epilogue, Layout
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.convolution import ConvolutionLayer


@register("Deconvolution")
class DeconvolutionLayer(ConvolutionLayer):
    """The forward pass is the backward pass (to the data) of a convolution, and vice versa.

    Shapes: bottom (N,C,H,W); blobs[0] (C,K/group,R,S), blobs[1] (K,); top (N,K,P,Q) with
    P = stride*(H-1) + dilation*(R-1) + 1 - 2*pad. `geom` is the convolution from top to bottom.
    """

    applies_densely = False
    filters_are_rows = False
    places = Places.TRANSPOSED_WINDOW
    only_ops = True

    transposed = True
    can_rectify = False

    def geometry(self, shape: Sequence[int]) -> ConvGeometry:
        """The convolution from top to bottom.

        Raises:
            ProtoError, ShapeError: the parameters do not suit the shape.
        """
        param = self.param.convolution_param
        given = ConvGeometry.deconv_input(param, shape, self.label)
        size = [
            given.stride[i] * (length - 1)
            + given.dilation[i] * (given.kernel[i] - 1)
            + 1
            - 2 * given.pad[i]
            for i, length in enumerate((given.h, given.w))
        ]
        if min(size) < 1:
            raise ShapeError(
                f"{self.label}: the output would be {size[0]}x{size[1]}; expected at least 1x1; "
                "use a smaller pad"
            )
        geom = ConvGeometry(
            given.n,
            given.k,
            size[0],
            size[1],
            given.c,
            given.kernel,
            given.pad,
            given.stride,
            given.dilation,
            given.group,
        )
        geom.check(self.label)
        return geom

    def _update_plan(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 4 or shape[1] != self.geom.k:
            raise ShapeError(
                f"{self.label}: expected all bottoms of one shape with {self.geom.k} channels, got "
                f"{shape}"
            )
        if shape != self.geom.out_shape:
            self.geom = self.geometry(shape)
            self.plan = self.backend.conv.plan(self.geom)
        return self.geom.in_shape

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply the transposed convolution to every bottom."""
        if self.nd is not None:
            self._forward_nd(self.nd, bottom, top)
            return
        weight = self.blobs[0].data
        for x, y in zip(bottom, top):
            out = y.data.mutable_dev()
            self.backend.conv.backward_data(
                self.plan, x.data.dev(), weight.dev(), out, weight.version
            )
            if len(self.blobs) > 1:
                self.backend.products.bias_forward(self._layout(), self.blobs[1].data.dev(), out)

    def _layout(self) -> Layout:
        return Layout(self.geom.n, self.geom.c, self.geom.h * self.geom.w)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias, filters and bottoms."""
        if self.nd is not None:
            self._backward_nd(self.nd, top, propagate_down, bottom)
            return
        weight = self.blobs[0]
        for x, y, down in zip(bottom, top, propagate_down):
            dy = y.diff.dev()
            if len(self.blobs) > 1 and self.propagates_to_params(1):
                self.backend.products.bias_backward(
                    self._layout(), dy, self.blobs[1].diff.mutable_dev()
                )
            if self.propagates_to_params(0):
                self.backend.conv.backward_weight(
                    self.plan, dy, x.data.dev(), weight.diff.mutable_dev()
                )
            if down:
                self.backend.conv.forward(
                    self.plan,
                    dy,
                    weight.data.dev(),
                    Epilogue(),
                    x.diff.mutable_dev(),
                    weight.data.version,
                )

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return self._onnx_nodes(step, "ConvTranspose")
