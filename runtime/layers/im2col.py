"""Im2col: the windows of a convolution as channels. Caffe: im2col_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import Places, Window
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.layers.convolution_nd import ConvolutionNd


@register("Im2col")
class Im2colLayer(Layer):
    """Each position of the top has the elements of the window that a convolution multiplies there.

    Shapes: bottom (N,C,H,W); top (N,C*R*S,P,Q), where R and S are the size of the kernel. Other
    numbers of axes, and `axis`, as in Convolution.
    """

    in_place = False
    places = Places.WINDOW

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ProtoError, ShapeError: the parameters do not suit the bottom.
        """
        param = type(self.param.convolution_param)()
        param.CopyFrom(self.param.convolution_param)
        param.num_output = param.group = 1
        self.windows = ConvolutionNd.from_param(param, bottom[0].shape, self.label)
        top[0].reshape(self.windows.columns_shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the windows."""
        top[0].data.mutable_host()[...] = self.windows.columns(bottom[0].data.host())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Sum the gradients of the windows that have an element."""
        if propagate_down[0]:
            gradient = self.windows.backward_columns(top[0].diff.host())
            bottom[0].diff.mutable_host()[...] = gradient

    def spatial_window(self) -> Window | None:
        if len(self.windows.outer) != 1 or len(self.windows.kernel) != 2:
            return None
        kernel, stride, pad, dilation = (
            (sizes[0], sizes[1])
            for sizes in (
                self.windows.kernel,
                self.windows.stride,
                self.windows.pad,
                self.windows.dilation,
            )
        )
        return Window(kernel, stride, pad, dilation)
