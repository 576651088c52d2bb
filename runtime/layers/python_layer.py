"""Python: a layer defined by a class of the user. Caffe: python_layer.hpp."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from prototxt_gen.errors import PythonLayerError, UnsupportedError, VerydeepError
from runtime.core.blob_view import BlobVec, BlobView
from runtime.core.description import Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register
from runtime.core.python_layers import FLAG, VARIABLE

_RAISED_UNCHANGED: tuple[type[BaseException], ...] = (
    VerydeepError,
    KeyboardInterrupt,
    GeneratorExit,
    BrokenPipeError,
)


@register("Python")
class PythonLayer(Layer):
    """Calls setup, reshape, forward and backward of the class `module.layer`.

    The context must allow it, since the code of a prototxt may be malicious.
    """

    places = Places.UNKNOWN

    num_bottom, num_top = at_least(0), at_least(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Import the class, create an object and call its setup, which may add weight blobs.

        Raises:
            UnsupportedError: Python layers are not allowed, or the class does not exist.
            PythonLayerError: the code raised an exception.
        """
        param = self.param.python_param
        if not self.context.allow_python_layers:
            raise UnsupportedError(
                f"{self.label}: runs the Python code {param.module}.{param.layer}, which is off; "
                f"expected permission to run it; if you trust the prototxt, use {FLAG} or set "
                f"{VARIABLE}=1"
            )
        cls = self._class(str(param.module), str(param.layer))
        with self._user_code("__init__"):
            self.user: Any = cls(self.param)
            self.user.param_str = param.param_str
            self.user.phase = self.phase
            self.user.blobs = BlobVec(self.blobs, self.backend, str(self.param.name))
        with self._user_code("setup"):
            self.user.setup(*self._views(bottom, top))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Call reshape of the class.

        Raises:
            PythonLayerError: the code raised an exception.
        """
        with self._user_code("reshape"):
            self.user.reshape(*self._views(bottom, top))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Call forward of the class.

        Raises:
            PythonLayerError: the code raised an exception.
        """
        with self._user_code("forward"):
            self.user.forward(*self._views(bottom, top))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Call backward of the class.

        Raises:
            PythonLayerError: the code raised an exception.
        """
        bottoms, tops = self._views(bottom, top)
        with self._user_code("backward"):
            self.user.backward(tops, list(propagate_down), bottoms)

    @classmethod
    def coupling(cls, param: Any) -> str:
        return "may mix or drop samples of a batch"

    def _views(self, bottom: Blobs, top: Blobs) -> tuple[list[BlobView], list[BlobView]]:
        return [BlobView(blob) for blob in bottom], [BlobView(blob) for blob in top]

    def _class(self, module: str, name: str) -> Any:
        try:
            with self._user_code("", (*_RAISED_UNCHANGED, ImportError)):
                imported = importlib.import_module(module)
            return getattr(imported, name)
        except (ImportError, AttributeError) as cause:
            raise UnsupportedError(
                f"{self.label}: {module}.{name} cannot be imported: {cause}; expected the module "
                f"in a folder of PYTHONPATH or in the working folder, with this class{_hint(cause)}"
            ) from cause

    @contextlib.contextmanager
    def _user_code(
        self, method: str, unchanged: tuple[type[BaseException], ...] = _RAISED_UNCHANGED
    ) -> Iterator[None]:
        """Convert exceptions of the user's code in the block to PythonLayerError."""
        try:
            yield
        except unchanged:
            raise
        except BaseException as cause:
            if self.context.raw_python_errors:
                raise
            param = self.param.python_param
            code = ".".join(part for part in (param.module, param.layer, method) if part)
            raise PythonLayerError(
                f"{self.label}: {code} raised {_described(cause, str(param.module))}; expected no "
                "exception; fix the layer's code"
            ) from cause


def _hint(error: ImportError | AttributeError) -> str:
    """How to make `import caffe` work in a program that is not the command line."""
    missing = isinstance(error, ModuleNotFoundError) and error.name == "caffe"
    return "; call runtime.pycaffe.install_as_caffe() before" if missing else ""


def _described(error: BaseException, module: str) -> str:
    """The type and message of an exception, and the last line executed in the module."""
    text = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}, line {error.lineno})"
    file = getattr(sys.modules.get(module), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f"{text} ({own[-1].filename}, line {own[-1].lineno})"
