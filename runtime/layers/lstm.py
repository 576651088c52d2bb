"""LSTM and LSTMUnit: long short-term memory. Caffe: lstm_layer.cpp, lstm_unit_layer.cpp.

Source: Hochreiter and Schmidhuber, 1997; the gates as in Zaremba and Sutskever, 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import HostArray
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register
from runtime.layers.recurrent import RecurrentLayer, logistic


@dataclass
class _Step:
    """One time step. Shapes: all (N,D)."""

    input: HostArray
    forget: HostArray
    output: HostArray
    value: HostArray
    cell: HostArray
    """The cell before the step."""
    squashed: HostArray
    """tanh of the cell after the step."""

    @property
    def hidden(self) -> HostArray:
        return self.output * self.squashed

    def gradients(self, dh: HostArray, dc: HostArray) -> tuple[HostArray, HostArray]:
        """Return the gradients of the four gates (N,4D) and of the cell before the step."""
        dc = dc + dh * self.output * (1 - np.square(self.squashed))
        gates = (
            dc * self.value * self.input * (1 - self.input),
            dc * self.cell * self.forget * (1 - self.forget),
            dh * self.squashed * self.output * (1 - self.output),
            dc * self.input * (1 - np.square(self.value)),
        )
        return np.concatenate(gates, axis=1), dc * self.forget


def _take_step(gates: HostArray, cell: HostArray, cont: HostArray) -> tuple[_Step, HostArray]:
    """Return the step and the cell after it. Shapes: gates (N,4D), cell (N,D), cont (N,1)."""
    i, f, o, g = np.split(gates, 4, axis=1)
    i, f, o, g = logistic(i), np.where(cont != 0, logistic(f), 0), logistic(o), np.tanh(g)
    after = f * cell + i * g
    return _Step(i, f, o, g, cell, np.tanh(after)), after


@register("LSTM")
class LSTMLayer(RecurrentLayer):
    """The gates i, f, o and the value g of each step are W_x x + b + W_h (cont * h).

    c = sigmoid(f) * cont * c + sigmoid(i) * tanh(g); h = sigmoid(o) * tanh(c).

    Shapes: see RecurrentLayer; blobs W_x (4D,I), b (4D,), with a static input its weights (4D,S),
    W_h (4D,D).
    """

    states, gates = 2, 4

    def run_steps(
        self, inputs: HostArray, cont: HostArray, state: list[HostArray], y: HostArray
    ) -> list[HostArray]:
        """See RecurrentLayer.run_steps."""
        weight = self.blobs[self.weight_h].data.host()
        h, c = state
        self.cont, self.before, self.taken = cont, np.empty_like(y), list[_Step]()
        for step in range(self.steps):
            self.before[step] = h * cont[step]
            gates = inputs[step] + self.before[step] @ weight.T
            taken, c = _take_step(gates, c, cont[step])
            self.taken.append(taken)
            h = taken.hidden
            y[step] = h
        return [h, c]

    def run_back(self, dy: HostArray) -> HostArray:
        """See RecurrentLayer.run_back."""
        weight = self.blobs[self.weight_h].data.host()
        result = np.empty((*dy.shape[:2], 4 * self.width), dy.dtype)
        dh, dc = np.zeros_like(dy[0]), np.zeros_like(dy[0])
        for step in reversed(range(self.steps)):
            result[step], dc = self.taken[step].gradients(dy[step] + dh, dc)
            dh = (result[step] @ weight) * self.cont[step]
        before = self.before.reshape(-1, self.width)
        self.add_gradient(self.weight_h, result.reshape(len(before), -1).T @ before)
        return result


@register("LSTMUnit")
class LSTMUnitLayer(Layer):
    """One step of an LSTM, from the products of its gates.

    Shapes: bottoms c (1,N,D), gates (1,N,4D), cont (1,N); tops c and h (1,N,D).
    """

    num_bottom, num_top = exactly(3), exactly(2)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for cont."""
        return bottom_index < 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops.

        Raises:
            ShapeError: the bottoms do not fit.
        """
        cell, gates, cont = bottom
        n, d = cell.shape[1:3] if cell.num_axes == 3 else (0, 0)
        if (cell.shape, gates.shape, cont.shape) != ((1, n, d), (1, n, 4 * d), (1, n)):
            raise ShapeError(
                f"{self.label}: expected bottoms (1,N,D), (1,N,4D) and (1,N), got {cell.shape}, "
                f"{gates.shape} and {cont.shape}; correct the bottoms"
            )
        for blob in top:
            blob.reshape_like(cell)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the cell and the output."""
        cell, gates, cont = (blob.data.host()[0] for blob in bottom)
        self.step, after = _take_step(gates.copy(), cell.copy(), cont[:, None])
        top[0].data.mutable_host()[0] = after
        top[1].data.mutable_host()[0] = self.step.hidden

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the cell and of the gates.

        Raises:
            ProtoError: a gradient of cont is requested.
        """
        if propagate_down[2]:
            raise ProtoError(f"{self.label}: cont has no gradient; set propagate_down: false")
        gates, cell = self.step.gradients(top[1].diff.host()[0], top[0].diff.host()[0])
        for blob, gradient, down in zip(bottom, (cell, gates), propagate_down):
            if down:
                blob.diff.mutable_host()[0] = gradient
