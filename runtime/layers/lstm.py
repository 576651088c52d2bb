"""LSTM: long short-term memory. Caffe: lstm_layer.cpp."""

from __future__ import annotations

from typing import Any

from runtime.core.layer import between
from runtime.core.layer_registry import register
from runtime.layers.lstm_unit import LSTMStep
from runtime.layers.recurrent import RecurrentLayer, States


@register("LSTM")
class LSTMLayer(RecurrentLayer):
    """A recurrence of LSTMUnits; its states are the hidden and the cell state.

    Shapes: see RecurrentLayer; G is 4D, in the order of the gates i, f, o and the candidate g.
    """

    num_bottom = between(2, 5)
    num_top = between(1, 3)
    num_states = 2
    gates = 4

    def _step(self, sums: Any, cont: Any, states: States) -> tuple[Any, Any, States]:
        step = LSTMStep.compute(states[1], sums, cont)
        hidden = step.hidden
        return step, hidden, (hidden, step.cell)

    def _step_backward(self, step: Any, d_output: Any, d_states: States) -> tuple[Any, States]:
        d_cell, d_sums = step.backward(d_states[1], d_output + d_states[0])
        return d_sums, (d_cell,)
