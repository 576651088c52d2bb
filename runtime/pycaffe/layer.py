"""Layers of nets, and the base class of layers written in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.core.blob_view import BlobVec, BlobView
from runtime.core.layer import Layer as CoreLayer
from runtime.layers.python_layer import PythonLayer
from runtime.process.not_copyable import NotCopyable

Views = Sequence[BlobView]


class Layer:
    """Base of a Python layer: `class Mine(caffe.Layer)` with setup, reshape, forward, backward.

    `param_str`, `phase` and `blobs` are set before `setup` is called. `self.blobs.add_blob(64, 3)`
    adds weights, which are trained and saved. Caffe: python_layer.hpp.

    Shapes: bottoms and tops are lists of blobs with any number of axes.
    """

    blobs: BlobVec
    phase: int
    param_str: str = ""
    layer_param: Any = None

    def __init__(self, param: Any = None) -> None:
        """Keep the LayerParameter; a subclass that overrides this calls it."""
        self.layer_param = param

    @property
    def type(self) -> str:
        return "Python" if self.layer_param is None else str(self.layer_param.type)

    @property
    def param_str_(self) -> str:
        """The name of `param_str` before 2015."""
        return self.param_str

    def setup(self, bottom: Views, top: Views) -> None:
        """Check the parameters and add the weights; called once."""

    def reshape(self, bottom: Views, top: Views) -> None:
        """Set the shapes of the tops: `top[0].reshape(*bottom[0].shape)`; called in every pass."""

    def forward(self, bottom: Views, top: Views) -> None:
        """Write the tops' data."""

    def backward(self, top: Views, propagate_down: Sequence[bool], bottom: Views) -> None:
        """Write the diffs of bottoms with `propagate_down`; add to the weights' diffs."""


class BuiltinLayer(NotCopyable, Layer):
    """A layer of the runtime: its type, its weights and its passes."""

    def __init__(self, core: CoreLayer) -> None:
        super().__init__(core.param)
        self.core = core
        self.phase = core.phase
        self.blobs = BlobVec(core.blobs, core.backend, str(core.param.name))

    def setup(self, bottom: Views, top: Views) -> None:
        """Set the layer up again; its weights get their fillers' values."""
        self.core.layer_setup(_blobs(bottom), _blobs(top))
        self.blobs = BlobVec(self.core.blobs, self.core.backend, str(self.core.param.name))

    def reshape(self, bottom: Views, top: Views) -> None:
        """Set the shapes of the tops."""
        self.core.reshape(_blobs(bottom), _blobs(top))

    def forward(self, bottom: Views, top: Views) -> None:
        """Compute the tops' data."""
        self.core.forward(_blobs(bottom), _blobs(top))

    def backward(self, top: Views, propagate_down: Sequence[bool], bottom: Views) -> None:
        """Compute the bottoms' diffs; add to the weights' diffs."""
        self.core.backward(_blobs(top), list(propagate_down), _blobs(bottom))


def layer_view(core: CoreLayer) -> Any:
    """The element of `net.layers` for a layer; for a Python layer, the user's object."""
    return core.user if isinstance(core, PythonLayer) else BuiltinLayer(core)


def _blobs(views: Views) -> list[Any]:
    return [view.blob for view in views]
