"""Net: layers and the blobs that connect them. Caffe: net.cpp."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, TrainingError
from prototxt_gen.number_limits import check_net
from runtime.backend.base import Backend
from runtime.core.blob import Blob
from runtime.core.context import RunContext
from runtime.core.layer import Layer
from runtime.layers.factory import create_layer, require_types
from runtime.net.activation_memory import SharedActivations
from runtime.net.backward_need import force_backward, limit_backward
from runtime.net.building import filter_net, insert_splits, net_state
from runtime.net.host_memory import naming_memory
from runtime.net.parameters import ParamTable
from runtime.net.replay import NetReplay
from runtime.net.schedule import (
    Direction,
    Hook,
    PassRange,
    Step,
    run,
    run_with_hooks,
    schedule,
    shape_layer,
)
from runtime.process.not_copyable import NotCopyable
from runtime.process.process_lock import ProcessLock

log = logging.getLogger("verydeep.net")

_AUTOMATIC = "(automatic)"
"""Caffe's name for a top that the prototxt does not name; further ones get a suffix."""


class Net(NotCopyable):
    """A net on one backend, in one phase.

    `blobs` and `layers` are in the order of the prototxt, implicit splits included. Inputs are the
    tops of Input layers; outputs are the tops that no layer reads, in alphabetical order (Caffe's).

    Threads: different nets may be used by different threads at the same time. Passes of one net are
    serialised; `exclusive` groups several calls. After a fork, parent and child may both use the
    net; with a backend that cannot be used in the child, the child gets a DeviceError.
    """

    def __init__(
        self,
        param: Any,
        phase: int,
        backend: Backend,
        context: RunContext | None = None,
        level: int = 0,
        stages: Sequence[str] = (),
    ) -> None:
        """Filter a NetParameter in the current form, insert splits, and create layers and blobs.

        Raises:
            ProtoError: a name, a rule or a parameter is wrong.
            ShapeError: the shapes of the bottoms do not suit a layer.
            UnsupportedError: the net needs something that is not implemented.
            DataError: a source of data cannot be read.
        """
        self.phase = phase
        self.backend = backend
        self.context = context if context is not None else RunContext()
        self.param = filter_net(param, net_state(phase, level, stages))
        check_net(self.param)
        require_types(self.param.layer)
        self.param = insert_splits(self.param)
        self.name = str(self.param.name)
        self.layers: list[Layer] = []
        self.blobs: dict[str, Blob] = {}
        self.bottoms: list[list[Blob]] = []
        self.tops: list[list[Blob]] = []
        self.params = ParamTable()
        self.layer_need_backward: list[bool] = []
        self.bottom_need_backward: list[list[bool]] = []
        self.before_forward: list[Hook] = []
        self.after_forward: list[Hook] = []
        self.before_backward: list[Hook] = []
        self.after_backward: list[Hook] = []
        self._blob_need_backward: dict[str, bool] = {}
        self._unread: set[str] = set()
        self._schedules: dict[tuple[PassRange, bool, tuple[bool, ...]], tuple[Step, ...]] = {}
        self._lock = backend.lock if backend.lock is not None else ProcessLock()
        try:
            with naming_memory(f"net '{self.name}'"):
                for layer_param in self.param.layer:
                    self._append(layer_param)
        except BaseException:
            self.close()
            raise
        limit_backward(self)
        if self.param.force_backward:
            force_backward(self)
        self._sources = [
            (layer, top) for layer, top in zip(self.layers, self.tops) if not layer.param.bottom
        ]
        self.inputs = [top for layer in self.layers if layer.is_input for top in layer.param.top]
        self.outputs = sorted(self._unread)
        sharing = self.context.sharing
        self._shared = None if sharing is None else SharedActivations(self, sharing)
        self._replay = None if backend.recorder is None else NetReplay(backend.recorder)
        self._report()

    # Building.

    def _report(self) -> None:
        """Log the outputs, and a warning that names the layers that copy blobs to the host."""
        named = [f"{layer.param.name} ({layer.type})" for layer in self.layers if layer.host_only]
        if named and not self.backend.shares_host_memory:
            log.warning(
                "%d layer(s) compute on the host, so that their blobs are copied in each pass: %s",
                len(named),
                ", ".join(named),
            )
        for output in self.outputs:
            log.info("This network produces output %s", output)
        log.info("Network initialization done.")

    def _append(self, param: Any) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if any(layer.param.name == param.name for layer in self.layers):
            log.warning("Two layers are named %s; weights are copied by name", param.name)
        layer = create_layer(param, self.phase, self.backend, self.context)
        log.info("Creating Layer %s", param.name)
        num_specs = len(param.param)
        bottom, need = self._append_bottoms(param)
        top = self._append_tops(layer, param)
        self.layers.append(layer)
        self.bottoms.append(bottom)
        self.tops.append(top)
        layer.setup(bottom, top)
        for blob in top:
            log.info("Top shape: %s (%d)", " ".join(map(str, blob.shape)), blob.count())
        learns = self.params.append(layer, param)
        # For a blob without a ParamSpec in the prototxt, Caffe computes the gradient, even if the
        # layer itself then sets lr_mult to 0, as BatchNorm does.
        learns = [learn or i >= num_specs for i, learn in enumerate(learns)]
        layer.param_propagate_down = learns
        self.bottom_need_backward.append(need)
        # As in Caffe, this depends on the bottoms only, not on propagate_down.
        needed = any(learns) or any(self._blob_need_backward[name] for name in param.bottom)
        self.layer_need_backward.append(needed)
        for name in param.top:
            self._blob_need_backward[name] = needed

    def _append_bottoms(self, param: Any) -> tuple[list[Blob], list[bool]]:
        bottom, need = [], []
        propagate_down = list(param.propagate_down)
        if propagate_down and len(propagate_down) != len(param.bottom):
            raise ProtoError(
                f"layer '{param.name}': expected no propagate_down or one for each of "
                f"{len(param.bottom)} bottom(s), got {len(propagate_down)}"
            )
        for i, name in enumerate(param.bottom):
            if name not in self._unread:
                raise ProtoError(
                    f"layer '{param.name}': unknown bottom blob '{name}' (bottom index {i}); "
                    "expected a top of an earlier layer"
                )
            log.info("%s <- %s", param.name, name)
            self._unread.discard(name)
            bottom.append(self.blobs[name])
            need.append(propagate_down[i] if propagate_down else self._blob_need_backward[name])
        return bottom, need

    def _append_tops(self, layer: Layer, param: Any) -> list[Blob]:
        named = len(param.top)
        if layer.auto_top_blobs:
            missing = max(layer.num_top.low, 1) - named
            for i in range(missing):
                taken = _AUTOMATIC in self.blobs
                param.top.append(f"{_AUTOMATIC} {param.name}_{i}" if taken else _AUTOMATIC)
        top = []
        for i, name in enumerate(param.top):
            if i < len(param.bottom) and name == param.bottom[i]:
                log.info("%s -> %s (in-place)", param.name, name)
            elif name in self.blobs:
                raise ProtoError(
                    f"layer '{param.name}': top blob '{name}' is already the top of an earlier "
                    "layer; expected a new name, or the name of the layer's own bottom to work in "
                    "place"
                )
            else:
                log.info("%s -> %s", param.name, name)
                self.blobs[name] = Blob(self.backend, (0,), name)
            if i < named:
                # Automatic tops cannot be read by other layers and are not outputs.
                self._unread.add(name)
            top.append(self.blobs[name])
        return top

    # Running.

    def exclusive(self) -> AbstractContextManager[object]:
        """A context in which no other thread runs this net.

        Raises:
            DeviceError: the process was forked, and the backend cannot be used in the child.
        """
        return self._lock.current()

    def forward(
        self,
        start: int = 0,
        end: int | None = None,
        after_layer: Hook | None = None,
        every_layer: bool = False,
    ) -> float:
        """Run the layers start..end (inclusive) and return the weighted sum of their losses.

        A pass that starts at the first layer reads the next batch and increments
        `context.pass_number`. A convolution computes the ReLU after it in place, and in phase TEST
        the BatchNorm, Scale and Bias layers after it in place if they need no gradient, unless
        `before_forward` or `after_forward` has hooks. `after_layer` is called after each layer,
        does not prevent this, and makes the backend launch layer by layer. With `every_layer`,
        `backward` with `every_layer` may follow.

        Raises:
            DataError: a source cannot be read, or a label is out of range.
            ShapeError: the shape of an input does not suit the layers.
            DeviceError: memory is exhausted, or the device fails.
        """
        last = len(self.layers) - 1 if end is None else end
        with self.exclusive(), naming_memory(f"net '{self.name}'"):
            if start == 0:
                self._read_batch()
            span = PassRange(Direction.FORWARD, start, last)
            loss = self._run(span, self.schedule(span, every_layer), after_layer)
            if start == 0:
                self.context.pass_number += 1
            return loss

    def backward(
        self,
        start: int | None = None,
        end: int = 0,
        after_layer: Hook | None = None,
        every_layer: bool = False,
    ) -> None:
        """Compute the gradients of layer `start` down to layer `end` (inclusive).

        In nets that share activations, gradients between layers cannot be read, and a max pooling
        also computes the gradient of the ReLU before it. `after_layer` is as in `forward`. With
        `every_layer`, layers run even if no weight needs their gradients, as in `caffe time`.

        Raises:
            TrainingError: the activations share memory, and the net is not built for training.
            DeviceError: memory is exhausted, or the device fails.
        """
        if self._shared is not None and not self.learns:
            raise TrainingError(
                f"net '{self.name}': its activations share memory, so it has no backward pass; "
                "expected a net that learns in phase TRAIN; build it without sharing"
            )
        first = len(self.layers) - 1 if start is None else start
        with self.exclusive(), naming_memory(f"net '{self.name}'"):
            span = PassRange(Direction.BACKWARD, first, end)
            self._run(span, self.schedule(span, every_layer), after_layer)

    def schedule(self, span: PassRange, every_layer: bool = False) -> tuple[Step, ...]:
        """The steps of a pass over these layers with the current hooks; see `schedule.schedule`."""
        observed = bool(self.before_forward or self.after_forward)
        needed: tuple[bool, ...] = (every_layer, *self.layer_need_backward)
        if span.direction is Direction.BACKWARD:
            # Without shared memory, callers can read the diffs between layers.
            observed = observed or self._shared is None
        key = span, observed, needed
        if key not in self._schedules:
            self._schedules[key] = schedule(self, span, observed, every_layer)
        return self._schedules[key]

    def _read_batch(self) -> None:
        """Read the data of a pass, and place the activations for its shapes."""
        for layer, top in self._sources:
            layer.fetch(top)
        if self._shared is not None:
            self._shared.refresh()

    def _run(self, span: PassRange, steps: tuple[Step, ...], after_layer: Hook | None) -> float:
        before, after = self._hooks(span.direction)
        if after_layer is not None:
            after = [*after, after_layer]
        if before or after:
            return run_with_hooks(steps, span.layers, before, after)
        if self._replay is None or not self._is_replayable(span):
            return run(steps)
        if span.direction is Direction.FORWARD:
            return self._replay.forward(steps, self.context.seed, self.context.pass_number)
        return self._replay.backward(steps)

    def _hooks(self, direction: Direction) -> tuple[list[Hook], list[Hook]]:
        if direction is Direction.FORWARD:
            return self.before_forward, self.after_forward
        return self.before_backward, self.after_backward

    def _is_replayable(self, span: PassRange) -> bool:
        """Whether a pass without hooks runs all layers, and nothing reads blobs during the pass.

        Hooks of the forward pass may read blobs that the backward pass needs.
        """
        if len(span.layers) != len(self.layers):
            return False
        return span.direction is Direction.FORWARD or not (
            self.before_forward
            or self.after_forward
            or any(layer.keep_factors is not None for layer in self.layers)
        )

    def reshape(self) -> None:
        """Shape all layers for the current shapes of the inputs. Caffe: Net::Reshape.

        Raises:
            ShapeError: the shapes do not suit the layers.
        """
        with self.exclusive():
            for layer, bottom, top in zip(self.layers, self.bottoms, self.tops):
                shape_layer(layer, bottom, top)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all weights to zero."""
        for blob in self.params.learnable:
            blob.diff.clear()

    def close(self) -> None:
        """Stop readers and close files; the net cannot be run afterwards."""
        for layer in self.layers:
            layer.close()
        self._replay = None

    def __enter__(self) -> Net:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Properties.

    @property
    def replayed(self) -> tuple[frozenset[int], frozenset[int]]:
        """The layers whose forward and whose backward steps are in graphs of the backend."""
        return (frozenset(), frozenset()) if self._replay is None else self._replay.layers

    @property
    def learns(self) -> bool:
        """Whether the net is in the phase TRAIN and has layers that run backward."""
        return bool(self.phase == proto.TRAIN and any(self.layer_need_backward))

    @property
    def layer_names(self) -> list[str]:
        return [str(layer.param.name) for layer in self.layers]

    def layer_by_name(self, name: str) -> Layer | None:
        """The layer with this name; None if there is none."""
        return next((layer for layer in self.layers if layer.param.name == name), None)

    def output_weight(self, name: str) -> float:
        """The loss weight of an output blob; 0 if it is not a loss."""
        for layer in self.layers:
            for top, weight in zip(layer.param.top, layer.loss_weights):
                if top == name and weight:
                    return weight
        return 0.0
