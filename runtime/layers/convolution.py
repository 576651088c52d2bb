"""Convolution. Caffe: base_conv_layer.cpp, conv_layer.cpp. Paper: 2.1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, Epilogue, Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places, Window
from runtime.core.filler import fill_weight
from runtime.core.folding import Foldable, FoldedFilters
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.convolution_nd import ConvolutionNd, is_image


@register("Convolution")
class ConvolutionLayer(Layer):
    """Convolution with the same filters for all bottoms; one top per bottom.

    Shapes: bottom (N,C,H,W); blobs[0] (K,C/group,R,S), blobs[1] (K,); top (N,K,P,Q). With `axis`,
    or if there are not two axes after the channels, see ConvolutionNd.
    """

    applies_densely = True
    weight_axes = 4
    filters_are_rows = True
    places = Places.WINDOW
    only_ops = True

    num_bottom, num_top = at_least(1), at_least(1)
    equal_num_bottom_top = True

    geom: ConvGeometry
    plan: ConvPlan
    nd: ConvolutionNd | None = None
    """The convolution if the bottoms are not (N,C,H,W); `geom` and `plan` are unset then."""
    folded: FoldedFilters | None = None
    """The filters with the layers after this one, if these were folded."""
    transposed: ClassVar[bool] = False
    can_rectify = True
    in_place = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill filters and bias; see `geometry` for errors."""
        param = self.param.convolution_param
        if is_image(param, bottom[0].shape):
            self.geom = self.geometry(bottom[0].shape)
            self.plan = self.backend.conv.plan(self.geom)
            shape: tuple[int, ...] = self.geom.weight_shape
        else:
            self.nd = self._general(bottom[0].shape)
            shape = self.nd.weight_shape
        self.blobs = [Blob(self.backend, shape, "weight")]
        fill_weight(self, 0, param.weight_filler)
        if param.bias_term:
            self.blobs.append(Blob(self.backend, (int(param.num_output),), "bias"))
            fill_weight(self, 1, param.bias_filler)

    def geometry(self, shape: Sequence[int]) -> ConvGeometry:
        """The geometry for a bottom's shape; raises ProtoError or ShapeError if there is none."""
        return ConvGeometry.from_param(self.param.convolution_param, shape, self.label)

    def _general(self, shape: Sequence[int]) -> ConvolutionNd:
        return ConvolutionNd.from_param(
            self.param.convolution_param, shape, self.label, transposed=self.transposed
        )

    @property
    def macs(self) -> int:
        """The multiply-adds of a pass over one bottom."""
        return self.geom.macs if self.nd is None else self.nd.macs

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Update the plan; raises ProtoError or ShapeError if a bottom has a wrong shape."""
        for blob in bottom[1:]:
            if blob.shape != bottom[0].shape:
                raise ProtoError(
                    f"{self.label}: expected all bottoms of shape {bottom[0].shape}, "
                    f"got {blob.shape}"
                )
        if self.nd is None:
            shape: tuple[int, ...] = self._update_plan(bottom[0].shape)
        else:
            shape = self._reshape_nd(bottom[0].shape)
        for blob in top:
            blob.reshape(shape)

    def _reshape_nd(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.nd = self._general(shape)
        if self.nd.weight_shape != self.blobs[0].shape:
            raise ShapeError(
                f"{self.label}: a bottom of shape {shape} requires weights "
                f"{self.nd.weight_shape}; expected channels and axes as when the net was built, "
                f"with weights {self.blobs[0].shape}"
            )
        return self.nd.wide_shape if self.transposed else self.nd.narrow_shape

    def _update_plan(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape != self.geom.in_shape:
            geom = self.geometry(shape)
            if geom.c != self.geom.c:
                raise ProtoError(
                    f"{self.label}: expected {self.geom.c} input channels as when the net was "
                    f"built, got {geom.c}"
                )
            self.geom, self.plan = geom, self.backend.conv.plan(geom)
        return self.geom.out_shape

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Convolve every bottom."""
        self._convolve(bottom, top, relu=False)

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Convolve every bottom and apply a ReLU to the tops."""
        self._convolve(bottom, top, relu=True)

    @property
    def can_fold(self) -> bool:
        """Whether the bottoms are (N,C,H,W)."""
        return self.nd is None

    def forward_folded(
        self, followers: Sequence[Foldable], bottom: Blobs, top: Blobs, relu: bool
    ) -> bool:
        """Convolve with private filters that include the followers; see Layer.forward_folded."""
        if self.folded is None:
            self.folded = FoldedFilters(self.backend)
        if not self.folded.update(self.blobs, followers):
            return False
        bias = self.folded.bias.dev()
        self._convolve_images(bottom, top, self.folded.weight, Epilogue(bias, relu))
        return True

    def _convolve(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        if self.nd is not None:
            self._forward_nd(self.nd, bottom, top)
            if relu:
                for y in top:
                    self.backend.neurons.relu_forward(y.data.dev(), y.data.mutable_dev(), 0.0)
            return
        bias = self.blobs[1].data.dev() if len(self.blobs) > 1 else None
        self._convolve_images(bottom, top, self.blobs[0].data, Epilogue(bias, relu))

    def _convolve_images(
        self, bottom: Blobs, top: Blobs, weight: SyncedMemory, epilogue: Epilogue
    ) -> None:
        for x, y in zip(bottom, top):
            self.backend.conv.forward(
                self.plan,
                x.data.dev(),
                weight.dev(),
                epilogue,
                y.data.mutable_dev(),
                weight.version,
            )

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias, filters and bottoms."""
        if self.nd is not None:
            self._backward_nd(self.nd, top, propagate_down, bottom)
            return
        weight = self.blobs[0]
        layout = Layout(self.geom.n, self.geom.k, self.geom.p * self.geom.q)
        for x, y, down in zip(bottom, top, propagate_down):
            dy = y.diff.dev()
            if len(self.blobs) > 1 and self.propagates_to_params(1):
                self.backend.products.bias_backward(layout, dy, self.blobs[1].diff.mutable_dev())
            if self.propagates_to_params(0):
                self.backend.conv.backward_weight(
                    self.plan, x.data.dev(), dy, weight.diff.mutable_dev()
                )
            if down:
                self.backend.conv.backward_data(
                    self.plan, dy, weight.data.dev(), x.diff.mutable_dev(), weight.data.version
                )

    def _forward_nd(self, nd: ConvolutionNd, bottom: Blobs, top: Blobs) -> None:
        weight = self.blobs[0].data.host()
        transform = nd.backward_data if self.transposed else nd.forward
        for x, y in zip(bottom, top):
            out = y.data.mutable_host()
            out[...] = transform(x.data.host(), weight)
            if len(self.blobs) > 1:
                self.backend.products.bias_forward(
                    self._layout_nd(nd), self.blobs[1].data.dev(), y.data.mutable_dev()
                )

    def _backward_nd(
        self, nd: ConvolutionNd, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs
    ) -> None:
        weight = self.blobs[0]
        for x, y, down in zip(bottom, top, propagate_down):
            if len(self.blobs) > 1 and self.propagates_to_params(1):
                self.backend.products.bias_backward(
                    self._layout_nd(nd), y.diff.dev(), self.blobs[1].diff.mutable_dev()
                )
            dy = y.diff.host()
            if self.propagates_to_params(0):
                ends = (dy, x.data.host()) if self.transposed else (x.data.host(), dy)
                nd.backward_weight(*ends, weight.diff.mutable_host())
            if down:
                transform = nd.forward if self.transposed else nd.backward_data
                x.diff.mutable_host()[...] = transform(dy, weight.data.host())

    def _layout_nd(self, nd: ConvolutionNd) -> Layout:
        sizes = nd.size if self.transposed else nd.out
        channels = nd.c if self.transposed else nd.k
        return Layout(math.prod(nd.outer), channels, math.prod(sizes))

    @property
    def algorithm(self) -> str:
        return "" if self.nd is not None else str(self.plan.algorithm)

    @property
    def workspace_bytes(self) -> int:
        """The workspace of the plan. Units: bytes."""
        return self.plan.workspace_bytes if self.nd is None else 0

    def spatial_window(self) -> Window | None:
        """The window of the filters; for Deconvolution, it moves over the top."""
        if self.nd is not None:
            return None
        geom = self.geom
        return Window(geom.kernel, geom.stride, geom.pad, geom.dilation, self.transposed)

    def multiply_adds(self, bottoms: int) -> int:
        return self.macs * bottoms

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return self._onnx_nodes(step, "Conv")

    def _onnx_nodes(self, step: OnnxStep, op: str) -> list[str]:
        """Add one node per bottom."""
        outputs = []
        for value, bottom in zip(step.inputs, step.bottom):
            geom = ConvGeometry.deconv_input(self.param.convolution_param, bottom.shape, self.label)
            weights = [step.weight(index) for index in range(len(self.blobs))]
            outputs.append(
                step.op(
                    op,
                    value,
                    *weights,
                    kernel_shape=geom.kernel,
                    pads=geom.pad * 2,
                    strides=geom.stride,
                    dilations=geom.dilation,
                    group=geom.group,
                )
            )
        return outputs
