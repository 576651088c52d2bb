"""LSTMUnit: one time step of an LSTM. Caffe: lstm_unit_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register


def _sigmoid(x: Any) -> Any:
    """The logistic function, without overflow."""
    return 0.5 * (np.tanh(0.5 * x) + 1)


@dataclass(frozen=True)
class LSTMStep:
    """The gates i, f and o, the candidate g, and the previous and new cell states of a time step.

    Shapes: each (...,D).
    """

    i: Any
    f: Any
    o: Any
    g: Any
    cont: Any
    previous: Any
    cell: Any

    @classmethod
    def compute(cls, previous: Any, gates: Any, cont: Any) -> LSTMStep:
        """Compute the step: the new cell state is cont * f * previous + i * g.

        Shapes: previous (...,D); gates (...,4D), before the nonlinearities, in the order i, f, o,
        g; cont (...,1).
        """
        i, f, o, g = np.split(gates, 4, axis=-1)
        i, f, o, g = _sigmoid(i), cont * _sigmoid(f), _sigmoid(o), np.tanh(g)
        return cls(i, f, o, g, cont, previous, f * previous + i * g)

    @property
    def hidden(self) -> Any:
        """The new hidden state, o * tanh(cell)."""
        return self.o * np.tanh(self.cell)

    def backward(self, d_cell: Any, d_hidden: Any) -> tuple[Any, Any]:
        """The gradients of the previous cell state and of the gates.

        The factor f * (1 - f) is the derivative for cont 0 and 1 only, as in original Caffe.
        """
        tanh_cell = np.tanh(self.cell)
        total = d_cell + d_hidden * self.o * (1 - tanh_cell**2)
        d_gates = (
            total * self.g * self.i * (1 - self.i),
            total * self.previous * self.f * (1 - self.f),
            d_hidden * tanh_cell * self.o * (1 - self.o),
            total * self.i * (1 - self.g**2),
        )
        return total * self.f, np.concatenate(d_gates, axis=-1)


@register("LSTMUnit")
class LSTMUnitLayer(Layer):
    """One time step of an LSTM without weights.

    Shapes: previous cell states (1,N,D), gates (1,N,4D), continuation flags (1,N); tops: cell
    states and hidden states (1,N,D).
    """

    num_bottom = exactly(3)
    num_top = exactly(2)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the continuation flags."""
        return bottom_index != 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops.

        Raises:
            ShapeError: the bottoms do not match.
        """
        cell, gates, cont = (blob.shape for blob in bottom)
        matches = len(cell) == len(gates) == 3 and cell[0] == 1 and cont == cell[:2]
        if not matches or gates != (*cell[:2], 4 * cell[2]):
            raise ShapeError(
                f"{self.label}: the bottoms do not match; expected shapes (1,N,D), (1,N,4D) and "
                f"(1,N), got {cell}, {gates} and {cont}; correct the bottoms or their order"
            )
        for blob in top:
            blob.reshape(cell)

    def _step(self, bottom: Blobs) -> LSTMStep:
        previous, gates, cont = (blob.data.host() for blob in bottom)
        return LSTMStep.compute(previous, gates, cont[..., None])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the new states."""
        step = self._step(bottom)
        top[0].data.mutable_host()[...] = step.cell
        top[1].data.mutable_host()[...] = step.hidden

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the previous cell states and of the gates."""
        step = self._step(bottom)
        gradients = step.backward(top[0].diff.host(), top[1].diff.host())
        for blob, gradient, needed in zip(bottom, gradients, propagate_down):
            if needed:
                blob.diff.mutable_host()[...] = gradient
