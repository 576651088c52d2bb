"""Net: layers wired over blobs. Caffe: net.cpp."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
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
from runtime.layers.factory import create_layer
from runtime.net.activation_memory import SharedActivations
from runtime.net.building import filter_net, insert_splits, net_state
from runtime.net.fusion import find_gating, find_rectified
from runtime.net.host_memory import naming_memory
from runtime.net.net_replay import NetReplay, replay_of
from runtime.net.parameters import ParamTable
from runtime.process.not_copyable import NotCopyable
from runtime.process.process_lock import ProcessLock

log = logging.getLogger("verydeep.net")

Hook = Callable[[int], None]

_AUTOMATIC = "(automatic)"
"""What Caffe calls a top that the prototxt does not name; a second one needs a name of its own."""


class Net(NotCopyable):
    """A net on one backend, in one phase.

    `blobs` and `layers` are in the order of the prototxt, implicit splits included. Inputs are the
    tops of Input layers, outputs the tops that nobody reads, in Caffe's (alphabetical) order.

    Threads: different nets may be used by different threads at the same time. Passes of one net are
    serialised; `exclusive` makes several calls one. After a fork, parent and child may both use the
    net; a backend for which this is impossible raises DeviceError in the child.
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
        """Filter, split, wire and shape the net of a NetParameter in the current form.

        Raises:
            ProtoError, ShapeError, UnsupportedError, DataError: what does not fit, and where.
        """
        self.phase = phase
        self.backend = backend
        self.context = context if context is not None else RunContext()
        self.param = filter_net(param, net_state(phase, level, stages))
        check_net(self.param)
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
        self._replay: NetReplay | None = None
        self._lock = backend.lock if backend.lock is not None else ProcessLock()
        try:
            with naming_memory(f"net '{self.name}'"):
                for layer_param in self.param.layer:
                    self._append(layer_param)
        except BaseException:
            self.close()
            raise
        self._mark_liveness()
        if self.param.force_backward:
            self._force_backward()
        self._sources = [
            (layer, top) for layer, top in zip(self.layers, self.tops) if not layer.param.bottom
        ]
        self.inputs = [top for each in self.layers if each.is_input for top in each.param.top]
        self.outputs = sorted(self._unread)
        self._rectified = find_rectified(self)
        self._gating = find_gating(self)
        sharing = self.context.sharing
        self._shared = None if sharing is None else SharedActivations(self, sharing)
        self._replay = replay_of(self)
        for output in self.outputs:
            log.info("This network produces output %s", output)
        log.info("Network initialization done.")

    # Building.

    def _append(self, param: Any) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if any(layer.param.name == param.name for layer in self.layers):
            log.warning("Two layers are named %s; weights are copied by name", param.name)
        layer = create_layer(param, self.phase, self.backend, self.context)
        log.info("Creating Layer %s", param.name)
        given = len(param.param)
        bottom, need = self._append_bottoms(param)
        top = self._append_tops(layer, param)
        self.layers.append(layer)
        self.bottoms.append(bottom)
        self.tops.append(top)
        layer.setup(bottom, top)
        for blob in top:
            log.info("Top shape: %s (%d)", " ".join(map(str, blob.shape)), blob.count())
        wanted = self.params.append(layer, param)
        # Where the prototxt is silent Caffe holds a gradient for wanted, whatever rate the layer
        # itself sets afterwards, as BatchNorm does.
        wanted = [want or i >= given for i, want in enumerate(wanted)]
        layer.param_propagate_down = wanted
        self.bottom_need_backward.append(need)
        # What the bottoms need counts here, and not what propagate_down says of them.
        needed = any(wanted) or any(self._blob_need_backward[name] for name in param.bottom)
        self.layer_need_backward.append(needed)
        for name in param.top:
            self._blob_need_backward[name] = needed

    def _append_bottoms(self, param: Any) -> tuple[list[Blob], list[bool]]:
        bottom, need = [], []
        asked = list(param.propagate_down)
        if asked and len(asked) != len(param.bottom):
            raise ProtoError(
                f"layer '{param.name}': expected no propagate_down or one for each of "
                f"{len(param.bottom)} bottom(s), got {len(asked)}"
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
            need.append(asked[i] if asked else self._blob_need_backward[name])
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
                    f"layer '{param.name}': top blob '{name}' is made by an earlier layer too; "
                    "expected a new name, or the name of its own bottom for in-place work"
                )
            else:
                log.info("%s -> %s", param.name, name)
                self.blobs[name] = Blob(self.backend, (0,), name)
            if i < named:
                # What the net names itself is nobody's to read, and no output either.
                self._unread.add(name)
            top.append(self.blobs[name])
        return top

    def _mark_liveness(self) -> None:
        """Backward runs only between a loss and something that learns. Caffe: Net::Init."""
        under_loss: set[str] = set()
        skip: set[str] = set()
        for i in reversed(range(len(self.layers))):
            layer, param = self.layers[i], self.layers[i].param
            contributes = all_skipped = False
            tops = list(param.top)
            contributes = any(
                name in under_loss or weight for name, weight in zip(tops, layer.loss_weights)
            )
            all_skipped = all(name in skip for name in tops)
            if self.layer_need_backward[i] and all_skipped:
                self.layer_need_backward[i] = False
                self.bottom_need_backward[i] = [False] * len(param.bottom)
            if not contributes:
                self.layer_need_backward[i] = False
            word = "needs" if self.layer_need_backward[i] else "does not need"
            log.info("%s %s backward computation.", param.name, word)
            for j, name in enumerate(param.bottom):
                if contributes:
                    under_loss.add(name)
                else:
                    self.bottom_need_backward[i][j] = False
                if not self.bottom_need_backward[i][j]:
                    skip.add(name)

    def _force_backward(self) -> None:
        for i, layer in enumerate(self.layers):
            self.layer_need_backward[i] = True
            self.bottom_need_backward[i] = [
                need or layer.allow_force_backward(j)
                for j, need in enumerate(self.bottom_need_backward[i])
            ]
            layer.param_propagate_down = [True] * len(layer.blobs)

    # Running.

    def exclusive(self) -> AbstractContextManager[object]:
        """A context in which no other thread runs this net.

        Raises:
            DeviceError: the process was forked, and the backend cannot be used in the child.
        """
        return self._lock.current()

    def forward(self, start: int = 0, end: int | None = None) -> float:
        """Run the layers start..end (inclusive) and return the weighted sum of their losses.

        A pass that starts at the first layer, where data comes in, moves the clock on. A
        convolution does the ReLU that follows it in place, unless hooks look at what is between.
        """
        with self.exclusive(), naming_memory(f"net '{self.name}'"):
            return self._forward(start, end)

    def _forward(self, start: int, end: int | None) -> float:
        last = len(self.layers) - 1 if end is None else end
        if start == 0:
            for layer, top in self._sources:
                layer.fetch(top)
        if start == 0 and self._shared is not None:
            self._shared.refresh()
        watched = bool(self.before_forward or self.after_forward)
        loss = 0.0
        whole = start == 0 and last == len(self.layers) - 1
        if self._replay is not None and whole and not watched:
            loss, last = self._replay.forward(), -1
        for i in range(start, last + 1):
            for hook in self.before_forward:
                hook(i)
            if not self.forward_layer(i, not watched and i > start, not watched and i < last):
                continue
            loss += self.weighted_loss(i)
            for hook in self.after_forward:
                hook(i)
        if start == 0:
            # The clock of the data: who goes on from the middle reads nothing.
            self.context.pass_number += 1
        return loss

    def forward_layer(self, index: int, after: bool = True, before: bool = True) -> bool:
        """Shape and compute one layer; False for a ReLU that the layer before has done.

        `after` says that the layer before has just run so, `before` that the next one will.
        """
        if after and index in self._rectified:
            return False
        layer = self.layers[index]
        layer.reshape(self.bottoms[index], self.tops[index])
        if any(layer.loss_weights):
            layer.seed_loss_weights(self.tops[index])
        layer.rectify = before and index + 1 in self._rectified
        layer.forward(self.bottoms[index], self.tops[index])
        return True

    def weighted_loss(self, index: int) -> float:
        """What a layer's tops add to the loss of the pass."""
        return sum(
            self.backend.vectors.dot(blob.data.dev(), blob.diff.dev())
            for blob, weight in zip(self.tops[index], self.layers[index].loss_weights)
            if weight
        )

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Run the gradients from layer `start` down to layer `end` (inclusive).

        Where nobody looks at what is between, a pooling takes the gradient of the ReLU before it.

        Raises:
            TrainingError: the net shares the memory that this would read.
        """
        with self.exclusive(), naming_memory(f"net '{self.name}'"):
            self._backward(start, end)

    def _backward(self, start: int | None, end: int) -> None:
        if self._shared is not None and not self.learns:
            raise TrainingError(
                f"net '{self.name}': its activations share memory, so that no backward pass can "
                "follow; expected a net that learns in phase TRAIN; build it without sharing"
            )
        first = len(self.layers) - 1 if start is None else start
        watched = bool(self.before_forward or self.after_forward or self._shared is None)
        whole = first == len(self.layers) - 1 and end == 0
        if self._replay is not None and whole and self._replay.may_go_back:
            self._replay.backward(not watched)
            return
        for i in range(first, end - 1, -1):
            for hook in self.before_backward:
                hook(i)
            self.backward_layer(i, not watched and i < first, not watched and i > end)
            for hook in self.after_backward:
                hook(i)

    def backward_layer(self, index: int, after: bool, before: bool) -> None:
        """Gradients of one layer, unless the pooling after it has done them, or none are wanted.

        `after` says that the layer after has just run so, `before` that the one before will.
        """
        if self.layer_need_backward[index] and not (after and index + 1 in self._gating):
            layer = self.layers[index]
            layer.gates_relu = before and index in self._gating
            layer.backward(self.tops[index], self.bottom_need_backward[index], self.bottoms[index])

    def reshape(self) -> None:
        """Propagate the inputs' shapes. Caffe: Net::Reshape."""
        with self.exclusive():
            for layer, bottom, top in zip(self.layers, self.bottoms, self.tops):
                layer.reshape(bottom, top)

    def clear_param_diffs(self) -> None:
        """Zero the gradients of all weights, as each iteration begins."""
        for blob in self.params.learnable:
            blob.diff.clear()

    def close(self) -> None:
        """Stop readers and close files; the net computes no more."""
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

    # Looking.

    @property
    def replayed(self) -> tuple[frozenset[int], frozenset[int]]:
        """The layers whose passes, forward and backward, are in a graph of the backend's."""
        return (frozenset(), frozenset()) if self._replay is None else self._replay.layers

    @property
    def learns(self) -> bool:
        """Whether training runs backward through the net."""
        return bool(self.phase == proto.TRAIN and any(self.layer_need_backward))

    @property
    def layer_names(self) -> list[str]:
        return [str(layer.param.name) for layer in self.layers]

    def layer_by_name(self, name: str) -> Layer | None:
        return next((layer for layer in self.layers if layer.param.name == name), None)

    def output_weight(self, name: str) -> float:
        """The loss weight of an output blob, 0 where it is no loss."""
        for layer in self.layers:
            for top, weight in zip(layer.param.top, layer.loss_weights):
                if top == name and weight:
                    return weight
        return 0.0
