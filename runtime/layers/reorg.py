"""Reorg: move the elements of square parts of a plane to channels. Source: YOLO v2."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Reorg")
class ReorgLayer(Layer):
    """Divides the height and width by the stride, or multiplies them with `reverse`.

    As in Darknet, the bottom is read as an array (N, C/s^2, H*s, W*s) before its parts of s by s
    elements become channels. The top has the same elements as Darknet's.

    Shapes: bottom (N,C,H,W); top (N,C*s^2,H/s,W/s), or (N,C/s^2,H*s,W*s) with reverse.
    """

    in_place = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ShapeError: the stride does not divide the bottom.
        """
        param = self.param.reorg_param
        self.stride, self.reverse = int(param.stride), bool(param.reverse)
        shape, step = bottom[0].shape, self.stride
        valid = len(shape) == 4 and step >= 1 and shape[1] % max(step * step, 1) == 0
        if valid and not self.reverse:
            valid = shape[2] % step == 0 and shape[3] % step == 0
        if not valid:
            raise ShapeError(
                f"{self.label}: stride {step} does not fit the bottom; expected (N,C,H,W) with C a "
                f"multiple of stride^2, and H and W of the stride without reverse, got {shape}; "
                "correct the stride or the bottom"
            )
        n, c, h, w = shape
        if self.reverse:
            top[0].reshape((n, c // step**2, h * step, w * step))
        else:
            top[0].reshape((n, c * step**2, h // step, w // step))

    def _parts(self, array: HostArray, shape: tuple[int, ...]) -> HostArray:
        """View (N, C/s^2, H*s, W*s) as (N, s, s, C/s^2, H, W), for a bottom (N,C,H,W)."""
        n, c, h, w = shape
        step = self.stride
        parts = array.reshape(n, c // step**2, h, step, w, step)
        return parts.transpose(0, 3, 5, 1, 2, 4)

    def _channels(self, array: HostArray, shape: tuple[int, ...]) -> HostArray:
        """View (N,C,H,W) as (N, s, s, C/s^2, H, W)."""
        n, c, h, w = shape
        return array.reshape(n, self.stride, self.stride, c // self.stride**2, h, w)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Move the elements."""
        shape = bottom[0].shape
        x, y = bottom[0].data.host(), top[0].data.mutable_host()
        if self.reverse:
            self._parts(y, shape)[...] = self._channels(x, shape)
        else:
            self._channels(y, shape)[...] = self._parts(x, shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Move the gradients back."""
        if not propagate_down[0]:
            return
        shape = bottom[0].shape
        dy, dx = top[0].diff.host(), bottom[0].diff.mutable_host()
        if self.reverse:
            self._channels(dx, shape)[...] = self._parts(dy, shape)
        else:
            self._parts(dx, shape)[...] = self._channels(dy, shape)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        n, channels, h, w = step.bottom[0].shape
        size, rest = self.stride, channels // self.stride**2
        if self.reverse:
            value = step.reshape(step.inputs[0], (n, size, size, rest, h, w))
            value = step.op("Transpose", value, perm=[0, 3, 4, 1, 5, 2])
        else:
            value = step.reshape(step.inputs[0], (n, rest, h, size, w, size))
            value = step.op("Transpose", value, perm=[0, 3, 5, 1, 2, 4])
        return [step.reshape(value, step.top[0].shape)]
