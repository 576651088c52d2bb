"""Objects that hold memory, files and threads refuse to be pickled and copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import UnsupportedError
from runtime.backend.registry import create_backend
from tests.runtime.process.concurrent_nets import LAYERS, small_net
from tests.runtime.process.test_threads import solver_file

REBUILD = "write the weights to a file, and build it again from its prototxt and that file"
RESTORE = "take a snapshot(), and restore() it in a solver built from the same prototxt"


def subjects(folder: Path) -> dict[str, tuple[Any, str]]:
    """Objects by name, with the advice that their error gives."""
    (folder / "net.prototxt").write_text(LAYERS)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    solver = caffe.get_solver(solver_file(folder, 1))
    return {
        "pycaffe net": (net, REBUILD),
        "pycaffe solver": (solver, RESTORE),
        "layer": (net.layers[1], REBUILD),
        "blob view": (net.blobs["data"], "copy its values: blob.data.copy()"),
        "blobs": (net.params["conv1"], "copy the values: [blob.data.copy() for blob in blobs]"),
        "dictionary of blobs": (net.blobs, "copy its values: blob.data.copy()"),
        "net": (net.core, REBUILD),
        "solver": (solver.core, "take a snapshot, and restore it"),
        "blob": (net.core.blobs["data"], "copy its values: blob.data.host().copy()"),
        "backend": (create_backend("cpu"), ""),
        "list of nets": ([small_net(create_backend("cpu"), 0)], REBUILD),
    }


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
def test_pickle_and_copy_are_refused(how: Callable[[Any], Any], tmp_path: Path) -> None:
    for name, (subject, advice) in subjects(tmp_path).items():
        with pytest.raises(UnsupportedError, match="cannot be pickled or copied") as error:
            how(subject)
        assert isinstance(error.value, TypeError), name
        assert advice in str(error.value), name


def test_a_shallow_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Net: cannot be pickled or copied; expected an object"):
        copy.copy(subjects(tmp_path)["net"][0])
