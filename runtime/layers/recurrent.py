"""The base class of LSTM and RNN. Caffe: recurrent_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import HostArray
from runtime.core.blob import Blob
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


class RecurrentLayer(Layer):
    """A recurrence over the time steps of sequences.

    Caffe builds a net of all time steps; the weights here have the order and the shapes of that
    net's. A pass continues with the state after the last pass, except at steps whose indicator
    `cont` is 0, where a sequence begins. With expose_hidden, the state is given and returned
    instead; no gradient passes through it.

    Shapes: bottoms x (T,N,...), cont (T,N), optionally a static input (N,...), and with
    expose_hidden the initial states (1,N,num_output); tops (T,N,num_output), and with
    expose_hidden the final states (1,N,num_output).
    """

    num_bottom, num_top = at_least(2), at_least(1)
    in_place = False

    states: ClassVar[int] = 1
    """The number of states: 1 for h, 2 for h and c."""
    gates: ClassVar[int] = 1
    """The number of weight rows for each output."""

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True for x and the static input."""
        return bottom_index == 0 or (bottom_index == 2 and self.has_static)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the weights.

        Raises:
            ProtoError: num_output, or the number of bottoms or tops does not fit.
            ShapeError: see reshape.
        """
        param = self.param.recurrent_param
        self.width = int(param.num_output)
        self.exposed = self.states if param.expose_hidden else 0
        self.has_static = len(bottom) == 3 + self.exposed
        if self.width < 1:
            raise ProtoError(
                f"{self.label}: num_output is {self.width}; expected at least 1; set num_output"
            )
        if len(bottom) - self.has_static != 2 + self.exposed or len(top) != 1 + self.exposed:
            raise ProtoError(
                f"{self.label}: expected {2 + self.exposed} or {3 + self.exposed} bottoms (x, "
                f"cont, a static input, {self.exposed} initial states) and {1 + self.exposed} "
                f"top(s), got {len(bottom)} and {len(top)}; correct them"
            )
        self._check_sequences(bottom)
        self.steps = bottom[0].shape[0]
        self._add_weight("weight_x", (self.gates * self.width, bottom[0].count(2)))
        self._add_bias("bias_x", self.gates * self.width)
        if self.has_static:
            self._add_weight("weight_static", (self.gates * self.width, bottom[2].count(1)))
        self._add_weight("weight_h", (self.gates * self.width, self.width))
        self.state: list[HostArray] = []

    def _add_weight(self, name: str, shape: tuple[int, int]) -> None:
        self.blobs.append(Blob(self.backend, shape, name))
        fill_weight(self, len(self.blobs) - 1, self.param.recurrent_param.weight_filler)

    def _add_bias(self, name: str, count: int) -> None:
        self.blobs.append(Blob(self.backend, (count,), name))
        fill_weight(self, len(self.blobs) - 1, self.param.recurrent_param.bias_filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops, and forget the state if the number of sequences changes.

        Raises:
            ShapeError: the bottoms do not fit, or the number of time steps has changed.
        """
        self._check_sequences(bottom)
        steps, self.sequences = bottom[0].shape[:2]
        if steps != self.steps or bottom[0].count(2) != self.blobs[0].shape[1]:
            raise ShapeError(
                f"{self.label}: expected {self.steps} time steps of {self.blobs[0].shape[1]} "
                f"numbers, as when the net was built, got shape {bottom[0].shape}; build a net for "
                "this shape"
            )
        shape = (1, self.sequences, self.width)
        first = 2 + self.has_static
        for blob in bottom[first:]:
            if blob.shape != shape:
                raise ShapeError(
                    f"{self.label}: expected initial states of shape {shape}, got {blob.shape} for "
                    f"'{blob.name}'; correct the bottom"
                )
        if not self.state or self.state[0].shape != shape[1:]:
            self.state = [np.zeros(shape[1:], self.backend.dtype) for _ in range(self.states)]
        top[0].reshape((steps, *shape[1:]))
        for blob in top[1:]:
            blob.reshape(shape)

    def _check_sequences(self, bottom: Blobs) -> None:
        x, cont = bottom[:2]
        if x.num_axes < 2 or cont.shape != x.shape[:2] or not x.shape[0] or not x.count(2):
            raise ShapeError(
                f"{self.label}: expected x (T,N,...) with at least one step, and cont (T,N), got "
                f"{x.shape} and {cont.shape}; correct the bottoms"
            )
        if self.has_static and bottom[2].shape[:1] != x.shape[1:2]:
            raise ShapeError(
                f"{self.label}: expected a static input for each of {x.shape[1]} sequences, got "
                f"shape {bottom[2].shape}; correct the bottom"
            )

    @property
    def weight_h(self) -> int:
        """The index of the weights of h in blobs."""
        return 2 + self.has_static

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Run the time steps."""
        cont = bottom[1].data.host()[..., None]
        given = bottom[2 + self.has_static :]
        start = [blob.data.host()[0] for blob in given] if given else self.state
        x = bottom[0].data.host().reshape(self.steps * self.sequences, -1)
        inputs = x @ self.blobs[0].data.host().T + self.blobs[1].data.host()
        inputs = inputs.reshape(self.steps, self.sequences, -1)
        if self.has_static:
            static = bottom[2].data.host().reshape(self.sequences, -1)
            inputs += static @ self.blobs[2].data.host().T
        y = top[0].data.mutable_host()
        last = self.run_steps(inputs, cont, [array.copy() for array in start], y)
        if given:
            for blob, state in zip(top[1:], last, strict=True):
                blob.data.mutable_host()[0] = state
        else:
            self.state = last

    def run_steps(
        self, inputs: HostArray, cont: HostArray, state: list[HostArray], y: HostArray
    ) -> list[HostArray]:
        """Compute y from the products of the inputs; returns the state after the last step.

        Shapes: inputs (T,N,gates*num_output), cont (T,N,1), state (N,num_output) each, y
        (T,N,num_output).
        """
        raise NotImplementedError(f"{self.label}: a recurrent layer must define run_steps")

    def run_back(self, dy: HostArray) -> HostArray:
        """Return the gradient of the inputs of run_steps; add those of the weights of h.

        Shapes: dy (T,N,num_output); result (T,N,gates*num_output).
        """
        raise NotImplementedError(f"{self.label}: a recurrent layer must define run_back")

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of x, the static input and the weights, through all steps of the pass.

        Raises:
            ProtoError: a gradient of cont or of a state is requested.
        """
        for index, down in enumerate(propagate_down):
            if down and not self.allow_force_backward(index):
                raise ProtoError(
                    f"{self.label}: bottom {index} has no gradient; set propagate_down: false"
                )
        gradient = self.run_back(top[0].diff.host())
        flat = gradient.reshape(self.steps * self.sequences, -1)
        x = bottom[0].data.host().reshape(len(flat), -1)
        self.add_gradient(0, flat.T @ x)
        self.add_gradient(1, flat.sum(axis=0))
        if self.has_static:
            total = gradient.sum(axis=0)
            static = bottom[2].data.host().reshape(self.sequences, -1)
            self.add_gradient(2, total.T @ static)
            if propagate_down[2]:
                dx = total @ self.blobs[2].data.host()
                bottom[2].diff.mutable_host()[...] = dx.reshape(bottom[2].shape)
        if propagate_down[0]:
            dx = flat @ self.blobs[0].data.host()
            bottom[0].diff.mutable_host()[...] = dx.reshape(bottom[0].shape)

    def add_gradient(self, index: int, gradient: HostArray) -> None:
        """Add the gradient of a weight blob, if it is needed."""
        if self.propagates_to_params(index):
            self.blobs[index].diff.mutable_host()[...] += gradient

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """See Layer."""
        return "has time steps on the axis of the batch, and a state between batches"


def logistic(x: HostArray) -> HostArray:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


@register("RNN")
class RNNLayer(RecurrentLayer):
    """h = tanh(W_h (cont * h) + W_x x + b), y = tanh(W_o h + b_o). Caffe: rnn_layer.cpp.

    Shapes: see RecurrentLayer; blobs W_x (D,I), b (D,), with a static input its weights (D,S), W_h
    (D,D), W_o (D,D), b_o (D,).
    """

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the weights; see RecurrentLayer.layer_setup."""
        super().layer_setup(bottom, top)
        self._add_weight("weight_o", (self.width, self.width))
        self._add_bias("bias_o", self.width)

    def run_steps(
        self, inputs: HostArray, cont: HostArray, state: list[HostArray], y: HostArray
    ) -> list[HostArray]:
        """See RecurrentLayer.run_steps."""
        weight = self.blobs[self.weight_h].data.host()
        (h,) = state
        self.cont, self.before = cont, np.empty_like(y)
        self.hidden = np.empty_like(y)
        for step in range(self.steps):
            self.before[step] = h * cont[step]
            h = np.tanh(inputs[step] + self.before[step] @ weight.T)
            self.hidden[step] = h
        output = self.blobs[self.weight_h + 1].data.host()
        y[...] = np.tanh(self.hidden @ output.T + self.blobs[self.weight_h + 2].data.host())
        self.outputs = y.copy()
        return [h]

    def run_back(self, dy: HostArray) -> HostArray:
        """See RecurrentLayer.run_back."""
        index = self.weight_h
        weight = self.blobs[index].data.host()
        slope = dy * (1 - np.square(self.outputs))
        flat = slope.reshape(-1, self.width)
        self.add_gradient(index + 1, flat.T @ self.hidden.reshape(-1, self.width))
        self.add_gradient(index + 2, flat.sum(axis=0))
        dh = slope @ self.blobs[index + 1].data.host()
        result = np.empty_like(dh)
        after = np.zeros_like(dh[0])
        for step in reversed(range(self.steps)):
            result[step] = (dh[step] + after) * (1 - np.square(self.hidden[step]))
            after = (result[step] @ weight) * self.cont[step]
        before = self.before.reshape(-1, self.width)
        self.add_gradient(index, result.reshape(-1, self.width).T @ before)
        return np.asarray(result)
