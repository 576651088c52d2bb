"""Settings of the whole process for the duration of one verb."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from runtime.core.python_layers import python_layers_allowed

_ALIAS = "caffe"
_OWN_PACKAGES = ("prototxt_gen", "cuda_kernels", "data_prep", "runtime", "verydeep")


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block, and restore them after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def python_layer_imports() -> Iterator[None]:
    """Let Python layers import `caffe`, and modules of the working folder, if they are allowed.

    In the block `caffe` is runtime.pycaffe, imported at its first use. Another `caffe`, the search
    path and the modules of the working folder are restored after the block.

    Raises:
        UnsupportedError: the variable that allows Python layers is not a Boolean.
    """
    if not python_layers_allowed():
        yield
        return
    before = set(sys.modules)
    other = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_alias(name)}
    finder, folder = _CaffeFinder(), _working_folder()
    sys.meta_path.insert(0, finder)
    if folder is not None:
        sys.path.append(folder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if folder is not None:
            sys.path.remove(folder)
            _forget_modules(folder, before)
        for name in [name for name in sys.modules if _is_alias(name)]:
            del sys.modules[name]
        sys.modules.update(other)


class _CaffeFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `caffe` as runtime.pycaffe."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _ALIAS:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        from runtime.pycaffe import install_as_caffe

        # The import system returns what sys.modules has after this call.
        sys.modules.pop(_ALIAS, None)
        install_as_caffe()


def _is_alias(name: str) -> bool:
    return name.partition(".")[0] == _ALIAS


def _working_folder() -> str | None:
    """The working folder, where the search path lacks it."""
    try:
        folder = str(Path.cwd())
    except OSError:
        return None
    search_path = {folder if entry == "" else os.path.realpath(entry) for entry in sys.path}
    return None if os.path.realpath(folder) in search_path else folder


def _forget_modules(folder: str, before: set[str]) -> None:
    """Remove the modules that were found in a folder of the search path."""
    for name in set(sys.modules) - before:
        top = name.partition(".")[0]
        if top in _OWN_PACKAGES:
            continue
        spec = getattr(sys.modules.get(top), "__spec__", None)
        origin = getattr(spec, "origin", None) or ""
        if origin in (f"{folder}/{top}.py", f"{folder}/{top}/__init__.py"):
            del sys.modules[name]
