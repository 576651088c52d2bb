"""Python: a user's class as a layer. Caffe: python_layer.hpp."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from prototxt_gen.errors import UnsupportedError
from runtime.core.blob_view import BlobVec, BlobView
from runtime.core.description import Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Python")
class PythonLayer(Layer):
    """Calls setup, reshape, forward and backward of `module.layer`, found by import path.

    A prototxt that runs code of its own is a risk, so this is off unless the run allows it. What
    the class raises ends the pass as it is.
    """

    places = Places.UNKNOWN

    num_bottom, num_top = at_least(0), at_least(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Import the class and set it up; it may add weight blobs."""
        param = self.param.python_param
        if not self.context.allow_python_layers:
            raise UnsupportedError(
                f"{self.label}: runs the Python code {param.module}.{param.layer}, which is off; "
                "allow it where you trust the prototxt: --allow-python-layers"
            )
        try:
            cls = getattr(importlib.import_module(param.module), param.layer)
        except (ImportError, AttributeError) as cause:
            raise UnsupportedError(
                f"{self.label}: {param.module}.{param.layer} cannot be imported: {cause}; expected "
                "module and class on PYTHONPATH"
            ) from cause
        self.user: Any = cls(self.param)
        self.user.param_str = param.param_str
        self.user.phase = self.phase
        self.user.blobs = BlobVec(self.blobs, self.backend, str(self.param.name))
        self.user.setup(*self._views(bottom, top))

    def _views(self, bottom: Blobs, top: Blobs) -> tuple[list[BlobView], list[BlobView]]:
        return [BlobView(blob) for blob in bottom], [BlobView(blob) for blob in top]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Ask the class."""
        self.user.reshape(*self._views(bottom, top))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Ask the class."""
        self.user.forward(*self._views(bottom, top))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Ask the class."""
        bottoms, tops = self._views(bottom, top)
        self.user.backward(tops, list(propagate_down), bottoms)

    @classmethod
    def coupling(cls, param: Any) -> str:
        return "may mix or drop samples of a batch"
