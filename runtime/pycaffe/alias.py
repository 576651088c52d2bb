"""The name `caffe` for this package, for code that imports it by that name."""

from __future__ import annotations

import importlib
import sys
from types import FrameType, ModuleType

from runtime.pycaffe.errors import CallError

_MODULES = (
    "",
    "._caffe",
    ".classifier",
    ".coord_map",
    ".detector",
    ".draw",
    ".io",
    ".net_spec",
    ".proto",
    ".proto.caffe_pb2",
    ".pycaffe",
)


def install_as_caffe() -> None:
    """Register this package as `caffe`, so that `import caffe` imports it.

    Call it before other code imports caffe, or in the body of a package or module of your own that
    is named `caffe`. The modules in your package can then be imported as `caffe.NAME`; of its body,
    `import caffe` sees nothing else.

    Raises:
        CallError: another caffe was imported before.
    """
    own = __name__.rpartition(".")[0]
    modules = {f"caffe{name}": importlib.import_module(f"{own}{name}") for name in _MODULES}
    package, other = modules["caffe"], sys.modules.get("caffe")
    if other is not None and other is not package:
        if not _is_running(other, sys._getframe()):
            raise CallError(
                f"install_as_caffe: another caffe is imported already ({other.__name__}); expected "
                "none; call it before the first import of caffe"
            )
        # A module that is replaced while its body runs is what its import returns.
        folders = [path for path in getattr(other, "__path__", ()) if path not in package.__path__]
        package.__path__.extend(folders)
    sys.modules.update(modules)


def _is_running(module: ModuleType, frame: FrameType | None) -> bool:
    """Whether the body of a module is among the calling frames."""
    while frame is not None:
        if frame.f_globals is vars(module) and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False
