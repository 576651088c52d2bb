"""The name `caffe` for this package, for code that cannot be changed to import it by its own."""

from __future__ import annotations

import importlib
import sys

from runtime.pycaffe.errors import CallError

_MODULES = (
    "",
    ".classifier",
    ".coord_map",
    ".detector",
    ".draw",
    ".io",
    ".net_spec",
    ".proto",
    ".proto.caffe_pb2",
)


def install_as_caffe() -> None:
    """Let `import caffe` and `from caffe.proto import caffe_pb2` mean this package.

    For Python layers and libraries that say `import caffe`; call it before they are imported.

    Raises:
        CallError: another caffe was imported already.
    """
    own = __name__.rpartition(".")[0]
    modules = {f"caffe{name}": importlib.import_module(f"{own}{name}") for name in _MODULES}
    other = sys.modules.get("caffe")
    if other is not None and other is not modules["caffe"]:
        raise CallError(
            f"install_as_caffe: another caffe is imported already ({other.__name__}); expected "
            "none; call it first, before what imports caffe"
        )
    sys.modules.update(modules)
