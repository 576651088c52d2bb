"""Depthwise convolution: one filter a channel. Caffe: conv_dw_layer.cpp of MobileNet's builds."""

from __future__ import annotations

from typing import Any

from prototxt_gen.errors import ProtoError
from prototxt_gen.geometry_limits import image_shape
from runtime.core.description import OnnxStep, PlainLayer
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.convolution import ConvolutionLayer


class _DepthwiseLayer(ConvolutionLayer):
    """A Convolution whose num_output and group are the number of channels.

    Shapes: bottom (N,C,H,W); blobs[0] (C,1,R,S), blobs[1] (C,); top (N,C,P,Q).
    """

    only_ops = can_rectify = True
    filters_are_rows = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Set num_output and group, and make the filters."""
        param = self.param.convolution_param
        channels = image_shape(bottom[0].shape, self.label)[1]
        for name in ("num_output", "group"):
            given = int(getattr(param, name))
            if param.HasField(name) and given not in (channels, 1 if name == "group" else channels):
                raise ProtoError(
                    f"{self.label}: {name} is {given}; expected the {channels} channels of the "
                    f"bottom, as each has one filter; correct it or use Convolution"
                )
            setattr(param, name, channels)
        super().layer_setup(bottom, top)

    def bvlc_form(self, param: Any) -> list[PlainLayer]:
        """A Convolution with a group for each channel."""
        param.type = "Convolution"
        own = self.param.convolution_param
        param.convolution_param.num_output = own.num_output
        param.convolution_param.group = own.group
        return super().bvlc_form(param)


@register("DepthwiseConvolution")
class DepthwiseConvolutionLayer(_DepthwiseLayer):
    """One filter a channel, under the name of MobileNet's builds."""

    only_ops = can_rectify = True
    can_fold = ConvolutionLayer.can_fold

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return self._onnx_nodes(step, "Conv")


@register("ConvolutionDepthwise")
class ConvolutionDepthwiseLayer(_DepthwiseLayer):
    """One filter a channel, under the name of ShuffleNet's builds."""

    only_ops = can_rectify = True
    can_fold = ConvolutionLayer.can_fold

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return self._onnx_nodes(step, "Conv")
