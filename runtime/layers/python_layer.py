"""Python: a user's class as a layer. Caffe: python_layer.hpp."""

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

_PASSED_ON: tuple[type[BaseException], ...] = (
    VerydeepError,
    KeyboardInterrupt,
    GeneratorExit,
    BrokenPipeError,
)


@register("Python")
class PythonLayer(Layer):
    """Calls setup, reshape, forward and backward of the class `module.layer`.

    A prototxt that runs code is a risk, so the run has to allow it.
    """

    places = Places.UNKNOWN

    num_bottom, num_top = at_least(0), at_least(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Import the class and set it up; it may add weight blobs.

        Raises:
            UnsupportedError: Python layers are not allowed, or there is no such class.
            PythonLayerError: the code raised an exception.
        """
        param = self.param.python_param
        if not self.context.allow_python_layers:
            raise UnsupportedError(
                f"{self.label}: runs the Python code {param.module}.{param.layer}, which is off; "
                f"expected permission to run it; if you trust the prototxt, give {FLAG} or set "
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
        """Call the class's reshape."""
        with self._user_code("reshape"):
            self.user.reshape(*self._views(bottom, top))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Call the class's forward."""
        with self._user_code("forward"):
            self.user.forward(*self._views(bottom, top))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Call the class's backward."""
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
            with self._user_code("", (*_PASSED_ON, ImportError)):
                found = importlib.import_module(module)
            return getattr(found, name)
        except (ImportError, AttributeError) as cause:
            raise UnsupportedError(
                f"{self.label}: {module}.{name} cannot be imported: {cause}; expected the module "
                f"in a folder of PYTHONPATH or in the working folder, with this class{_hint(cause)}"
            ) from cause

    @contextlib.contextmanager
    def _user_code(
        self, method: str, passed_on: tuple[type[BaseException], ...] = _PASSED_ON
    ) -> Iterator[None]:
        """Report exceptions of the user's code in the block as PythonLayerErrors."""
        try:
            yield
        except passed_on:
            raise
        except BaseException as cause:
            if self.context.raw_python_errors:
                raise
            param = self.param.python_param
            code = ".".join(part for part in (param.module, param.layer, method) if part)
            raise PythonLayerError(
                f"{self.label}: {code} raised {_described(cause, str(param.module))}; expected no "
                "exception; correct the layer's code"
            ) from cause


def _hint(error: ImportError | AttributeError) -> str:
    """How to make `import caffe` work in a program that is not the command line."""
    missing = isinstance(error, ModuleNotFoundError) and error.name == "caffe"
    return "; call runtime.pycaffe.install_as_caffe() before" if missing else ""


def _described(error: BaseException, module: str) -> str:
    """The type and the message of an exception, and the last line of the module that ran."""
    text = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}, line {error.lineno})"
    file = getattr(sys.modules.get(module), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f"{text} ({own[-1].filename}, line {own[-1].lineno})"
