"""InnerProduct: the fully connected layer. Caffe: inner_product_layer.cpp. Paper: 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prototxt_gen.errors import ProtoError, ShapeError, UnsupportedError
from prototxt_gen.proto import copy_of
from runtime.backend.base import Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("InnerProduct")
class InnerProductLayer(Layer):
    """y = x W^T + b, where x joins the axes from `axis` on.

    Shapes: bottom (M..., K...); blobs[0] (num_output,K), or (K,num_output) with transpose;
    blobs[1] (num_output,); top (M..., num_output).
    """

    fully_connected = True
    weight_axes = 2
    only_ops = True
    in_place = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill weights and bias.

        Raises:
            ProtoError: num_output is below 1.
            ShapeError: the bottom has no inputs.
        """
        param = self.param.inner_product_param
        self.axis = bottom[0].canonical_axis(param.axis, self.label)
        self.outputs, self.inputs = int(param.num_output), bottom[0].count(self.axis)
        if self.outputs < 1:
            raise ProtoError(
                f"{self.label}: num_output is {self.outputs}; expected at least 1; set num_output"
            )
        if self.inputs < 1:
            raise ShapeError(
                f"{self.label}: the bottom has no element from axis {self.axis} on; expected at "
                f"least 1, got shape {bottom[0].shape}; change the input's shape"
            )
        self.transpose = bool(param.transpose)
        shape = (self.inputs, self.outputs) if self.transpose else (self.outputs, self.inputs)
        self.blobs = [Blob(self.backend, shape, "weight")]
        fill_weight(self, 0, param.weight_filler)
        if param.bias_term:
            self.blobs.append(Blob(self.backend, (self.outputs,), "bias"))
            fill_weight(self, 1, param.bias_filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top: the axes before `axis`, then the outputs.

        Raises:
            ShapeError: the number of inputs has changed.
        """
        if bottom[0].count(self.axis) != self.inputs:
            raise ShapeError(
                f"{self.label}: expected {self.inputs} inputs as when the net was built, got "
                f"{bottom[0].count(self.axis)} (bottom shape {bottom[0].shape}); for images of "
                "another size convert the layer to a convolution (a dense net)"
            )
        self.rows = bottom[0].count(0, self.axis)
        top[0].reshape((*bottom[0].shape[: self.axis], self.outputs))

    def _flat(self, array: Any, columns: int) -> Any:
        return self.backend.memory.view(array, 0, (self.rows, columns))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the product and add the bias."""
        x = self._flat(bottom[0].data.dev(), self.inputs)
        y = self._flat(top[0].data.mutable_dev(), self.outputs)
        weight = self.blobs[0].data.dev()
        self.backend.products.gemm(False, not self.transpose, 1.0, x, weight, 0.0, y)
        if len(self.blobs) > 1:
            layout = Layout(self.rows, self.outputs, 1)
            self.backend.products.bias_forward(layout, self.blobs[1].data.dev(), y)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of weights, bias and input."""
        x = self._flat(bottom[0].data.dev(), self.inputs)
        dy = self._flat(top[0].diff.dev(), self.outputs)
        left, right = (x, dy) if self.transpose else (dy, x)
        if self.keep_factors is not None:
            self.keep_factors(left, right)
        elif self.propagates_to_params(0):
            diff = self.blobs[0].diff
            # The first gradient of an iteration overwrites the diff, since in large layers adding
            # to zeros takes as long as the product of a small batch.
            beta = 0.0 if diff.reads_zero else 1.0
            dw = diff.mutable_dev() if beta else diff.overwritten_dev()
            self.backend.products.gemm(True, False, 1.0, left, right, beta, dw)
        if len(self.blobs) > 1 and self.propagates_to_params(1):
            layout = Layout(self.rows, self.outputs, 1)
            self.backend.products.bias_backward(layout, dy, self.blobs[1].diff.mutable_dev())
        if propagate_down[0]:
            dx = self._flat(bottom[0].diff.mutable_dev(), self.inputs)
            self.backend.products.gemm(
                False, self.transpose, 1.0, dy, self.blobs[0].data.dev(), 0.0, dx
            )

    @property
    def factor_depth(self) -> int | None:
        """See Layer. None with `axis` above 1, since the number of rows may change."""
        return self.rows if self.axis <= 1 else None

    def multiply_adds(self, bottoms: int) -> int:
        return self.rows * self.inputs * self.outputs

    @classmethod
    def dense_form(cls, param: Any, bottom: tuple[int, ...]) -> Any:
        """A convolution whose kernel has the size of the bottom's planes.

        Raises:
            UnsupportedError: `axis` is not 1, or `transpose` is set.
        """
        old = param.inner_product_param
        if old.axis != 1 or old.transpose:
            raise UnsupportedError(
                f"layer '{param.name}': expected axis 1 and no transpose for a dense form, "
                f"got axis {old.axis}, transpose {bool(old.transpose)}; "
                "evaluate with --protocol multicrop"
            )
        dense = copy_of(param)
        dense.type = "Convolution"
        dense.ClearField("inner_product_param")
        new = dense.convolution_param
        new.num_output, new.bias_term = old.num_output, old.bias_term
        new.kernel_h, new.kernel_w = bottom[2:] if len(bottom) == 4 else (1, 1)
        return dense

    def to_onnx(self, step: OnnxStep) -> list[str]:
        matrix = step.reshape(step.inputs[0], (self.rows, self.inputs))
        weights = [step.weight(index) for index in range(len(self.blobs))]
        value = step.op("Gemm", matrix, *weights, transB=0 if self.transpose else 1)
        return [value if len(step.top[0].shape) == 2 else step.reshape(value, step.top[0].shape)]
