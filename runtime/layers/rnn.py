"""RNN: a recurrence with one hidden layer. Caffe: rnn_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core.layer import between
from runtime.core.layer_registry import register
from runtime.layers.recurrent import RecurrentLayer, States


@register("RNN")
class RNNLayer(RecurrentLayer):
    """h = tanh(W_x x + W_h h' + b_h), o = tanh(W_o h + b_o), where h' is the previous h.

    Shapes: see RecurrentLayer; G is D. The last blobs are W_o (D,D) and b_o (D,).
    """

    num_bottom = between(2, 4)
    num_top = between(1, 2)
    num_states = 1
    gates = 1

    def _output_shapes(self) -> list[tuple[int, ...]]:
        return [(self.outputs, self.outputs), (self.outputs,)]

    def _step(self, sums: Any, cont: Any, states: States) -> tuple[Any, Any, States]:
        weight, bias = (blob.data.host() for blob in self.blobs[-2:])
        hidden = np.tanh(sums)
        output = np.tanh(hidden @ weight.T + bias)
        return (hidden, output), output, (hidden,)

    def _step_backward(self, step: Any, d_output: Any, d_states: States) -> tuple[Any, States]:
        hidden, output = step
        d_sum = d_output * (1 - output**2)
        self._add_gradient(len(self.blobs) - 2, d_sum.T @ hidden)
        self._add_gradient(len(self.blobs) - 1, d_sum.sum(axis=0))
        d_hidden = d_states[0] + d_sum @ self.blobs[-2].data.host()
        return d_hidden * (1 - hidden**2), ()
