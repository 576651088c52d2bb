"""The base of LSTM and RNN: a recurrence over time steps. Caffe: recurrent_layer.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count
from runtime.core.blob import Blob
from runtime.core.filler import fill_weight, skip_fill
from runtime.core.layer import Blobs, Layer

States = tuple[Any, ...]


class RecurrentLayer(Layer):
    """A recurrence over T time steps of N independent streams.

    The first states of a batch are the last states of the batch before it, 0 at first. With
    expose_hidden they are the last bottoms, and the last states are tops. Gradients do not pass
    through the first and last states, as in original Caffe.

    Shapes: x (T,N,...); cont (T,N): 0 at the first step of a sequence, 1 at the others; optionally
    x_static (N,...); with expose_hidden, each first state (1,N,D). Tops: output (T,N,D); with
    expose_hidden, each last state (1,N,D). blobs: weights (G,I) and bias (G,) of x, weights (G,S)
    of x_static if it is a bottom, weights (G,D) of the hidden state, and others of a subclass.
    """

    in_place = False
    num_states: ClassVar[int]
    """The number of states of a stream, each of D elements. The first is the hidden state."""
    gates: ClassVar[int]
    """G / D, where G is the number of sums of a stream."""

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the bottoms and tops; create and fill the weights.

        Raises:
            ProtoError: num_output is below 1, or expose_hidden does not match the blobs.
            ShapeError: the shapes of the bottoms do not match.
        """
        param = self.param.recurrent_param
        self.outputs, self.exposes = int(param.num_output), bool(param.expose_hidden)
        if self.outputs < 1:
            raise ProtoError(
                f"{self.label}: num_output is {self.outputs}; expected at least 1; set num_output"
            )
        exposed = self.num_states * self.exposes
        if not 2 + exposed <= len(bottom) <= 3 + exposed or len(top) != 1 + exposed:
            raise ProtoError(
                f"{self.label}: with expose_hidden: {str(self.exposes).lower()}, expected "
                f"{2 + exposed} or {3 + exposed} bottoms and {1 + exposed} top(s), got "
                f"{len(bottom)} and {len(top)}; correct the bottoms and tops, or expose_hidden"
            )
        self.static = len(bottom) == 3 + exposed
        self.steps = bottom[0].shape[0] if bottom[0].num_axes else 0
        self._check_shapes(bottom)
        self.inputs = bottom[0].count(2)
        self.static_inputs = bottom[2].count(1) if self.static else 0
        self._states = self._zeros(0)
        self._create_blobs()

    def _create_blobs(self) -> None:
        """Create and fill the blobs.

        Caffe fills the weights of every time step of its unrolled net and keeps those of the first,
        so the draws of the other steps are skipped here.
        """
        param, rows = self.param.recurrent_param, self.gates * self.outputs
        shapes: list[tuple[int, ...]] = [(rows, self.inputs), (rows,)]
        if self.static:
            shapes.append((rows, self.static_inputs))
        first_repeated = len(shapes)
        shapes += [(rows, self.outputs), *self._output_shapes()]
        fillers = [param.bias_filler if len(s) == 1 else param.weight_filler for s in shapes]
        for index, (shape, filler) in enumerate(zip(shapes, fillers)):
            check_count("the weights", shape, self.label)
            name = "bias" if len(shape) == 1 else "weight"
            self.blobs.append(Blob(self.backend, shape, name))
            fill_weight(self, index, filler)
        for _ in range(self.steps - 1):
            for index in range(first_repeated, len(shapes)):
                skip_fill(self, index, fillers[index])

    def _output_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the blobs after the hidden state's weights."""
        return []

    def _check_shapes(self, bottom: Blobs) -> None:
        x, cont = bottom[0].shape, bottom[1].shape
        if len(x) < 2 or self.steps < 1 or x[0] != self.steps or cont != x[:2]:
            raise ShapeError(
                f"{self.label}: x and cont do not match; expected shapes (T,N,...) and (T,N) with "
                f"T = {self.steps or 'at least 1'}, got {x} and {cont}; T cannot change after the "
                "net is built; correct the shapes of the bottoms"
            )
        if self.static and bottom[2].shape[:1] != x[1:2]:
            raise ShapeError(
                f"{self.label}: x_static does not match; expected a first axis of {x[1]} streams, "
                f"got shape {bottom[2].shape}; correct the shape of the third bottom"
            )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops. The states of new streams are 0.

        Raises:
            ShapeError: the bottoms do not match, or the number of steps or inputs has changed.
        """
        self._check_shapes(bottom)
        self.streams = bottom[0].shape[1]
        static = bottom[2].count(1) if self.static else 0
        if (bottom[0].count(2), static) != (self.inputs, self.static_inputs):
            raise ShapeError(
                f"{self.label}: the number of inputs has changed; expected {self.inputs} and "
                f"{self.static_inputs} static inputs, got {bottom[0].count(2)} and {static}; "
                "build the net again for other inputs"
            )
        state = (1, self.streams, self.outputs)
        for blob in self._first_states(bottom):
            if blob.shape != state:
                raise ShapeError(
                    f"{self.label}: expected the first states '{blob.name}' of shape {state}, got "
                    f"{blob.shape}; correct the shape of the bottom"
                )
        shape = (self.steps, self.streams, self.outputs)
        check_count("the sums", (*shape, self.gates), self.label)
        top[0].reshape(shape)
        for blob in top[1:]:
            blob.reshape(state)
        if self.streams != self._states[0].shape[0]:
            kept, self._states = self._states, self._zeros(self.streams)
            for old, new in zip(kept, self._states):
                count = min(len(old), len(new))
                new[:count] = old[:count]

    def _zeros(self, streams: int) -> States:
        dtype = self.backend.dtype
        return tuple(np.zeros((streams, self.outputs), dtype) for _ in range(self.num_states))

    def _first_states(self, bottom: Blobs) -> Blobs:
        return bottom[2 + self.static :]

    @property
    def _hidden_weight(self) -> Blob:
        return self.blobs[2 + self.static]

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the continuation flags."""
        return bottom_index != 1

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute all time steps."""
        x = bottom[0].data.host().reshape(self.steps * self.streams, self.inputs)
        sums = x @ self.blobs[0].data.host().T + self.blobs[1].data.host()
        sums = sums.reshape(self.steps, self.streams, self.gates * self.outputs)
        if self.static:
            static = bottom[2].data.host().reshape(self.streams, self.static_inputs)
            sums += static @ self.blobs[2].data.host().T
        states = self._states
        if self.exposes:
            states = tuple(blob.data.host()[0] for blob in self._first_states(bottom))
        cont = bottom[1].data.host()[..., None]
        weight = self._hidden_weight.data.host()
        self._steps: list[Any] = []
        self._hidden = np.empty((self.steps, self.streams, self.outputs), sums.dtype)
        y = top[0].data.mutable_host()
        for t in range(self.steps):
            self._hidden[t] = states[0] * cont[t]
            step, y[t], states = self._step(sums[t] + self._hidden[t] @ weight.T, cont[t], states)
            self._steps.append(step)
        self._states = states
        for blob, state in zip(top[1:], states):
            blob.data.mutable_host()[0] = state

    def _step(self, sums: Any, cont: Any, states: States) -> tuple[Any, Any, States]:
        """One time step: what the backward pass needs, the output, and the new states.

        Shapes: sums (N,G); cont (N,1); each state (N,D).
        """
        raise NotImplementedError

    def _step_backward(self, step: Any, d_output: Any, d_states: States) -> tuple[Any, States]:
        """The gradients of the sums, and of the previous states but the hidden state.

        The gradients of the weights of a subclass are added.
        """
        raise NotImplementedError

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the weights, of x and of x_static; those of the first states are 0."""
        dy, cont = top[0].diff.host(), bottom[1].data.host()[..., None]
        weight = self._hidden_weight.data.host()
        d_states = self._zeros(self.streams)
        d_sums = np.empty((self.steps, self.streams, self.gates * self.outputs), dy.dtype)
        for t in reversed(range(self.steps)):
            d_sums[t], others = self._step_backward(self._steps[t], dy[t], d_states)
            d_states = (d_sums[t] @ weight * cont[t], *others)
        self._add_gradients(d_sums, bottom)
        if propagate_down[0]:
            dx = (
                d_sums.reshape(self.steps * self.streams, d_sums.shape[2])
                @ self.blobs[0].data.host()
            )
            bottom[0].diff.mutable_host()[...] = dx.reshape(bottom[0].shape)
        if self.static and propagate_down[2]:
            dx = d_sums.sum(axis=0) @ self.blobs[2].data.host()
            bottom[2].diff.mutable_host()[...] = dx.reshape(bottom[2].shape)
        for blob, needed in zip(self._first_states(bottom), propagate_down[2 + self.static :]):
            if needed:
                blob.diff.mutable_host()[...] = 0

    def _add_gradients(self, d_sums: Any, bottom: Blobs) -> None:
        rows = d_sums.reshape(self.steps * self.streams, d_sums.shape[2])
        inputs = bottom[0].data.host().reshape(self.steps * self.streams, self.inputs)
        gradients = [rows.T @ inputs, rows.sum(axis=0)]
        if self.static:
            static = bottom[2].data.host().reshape(self.streams, self.static_inputs)
            gradients.append(d_sums.sum(axis=0).T @ static)
        gradients.append(rows.T @ self._hidden.reshape(len(rows), self.outputs))
        for index, gradient in enumerate(gradients):
            self._add_gradient(index, gradient)

    def _add_gradient(self, index: int, gradient: Any) -> None:
        if self.propagates_to_params(index):
            self.blobs[index].diff.mutable_host()[...] += gradient

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """See Layer."""
        return "continues the sequences of the previous batch, with its streams on the second axis"

    def multiply_adds(self, bottoms: int) -> int:
        each_step = sum(math.prod(b.shape) for b in self.blobs if b.num_axes == 2)
        static = self.gates * self.outputs * self.static_inputs
        return self.streams * (self.steps * (each_step - static) + static)
