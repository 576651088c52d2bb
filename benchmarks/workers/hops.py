"""Count the files and functions between a record and the first convolution, and of a gradient.

Runs in the source tree of any revision, which is the first entry of PYTHONPATH, with NumPy's
backend. The images are JPEGs that are rescaled, cropped and mirrored. Prints JSON.

    batch      from the first record that is read to the op of the convolution, both included:
               the files, and the functions in them, that are entered
    gradient   from Net.backward to the op that computes the gradient of the convolution's weights,
               both included: the calls that are active at that moment, and their files
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_PACKAGES = ("prototxt_gen", "data_prep", "runtime")
_NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ crop_size: 8 mirror: true mean_value: 104 mean_value: 117 mean_value: 123 }}
  data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 2 kernel_size: 3
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


class Tracer:
    """Records the functions of the source tree that are entered from one function to another."""

    def __init__(self, root: Path, first: CodeType, last: str) -> None:
        self._folders = tuple(str(root / name) for name in _PACKAGES)
        self._first, self._last = first, last
        self._state = "before"
        self.entered: dict[CodeType, str] = {}
        self.stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self._folders):
            return
        if self._state == "before" and code is self._first:
            self._state = "between"
        if self._state == "between":
            self.entered[code] = code.co_filename
            if self._last in code.co_name and _is_convolution(code.co_filename):
                self._state = "after"
                self.stack = self._calls(frame)

    def _calls(self, frame: FrameType | None) -> list[str]:
        files = []
        while frame is not None and frame.f_code is not self._first:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        return [*files, self._first.co_filename]


def _is_convolution(file: str) -> bool:
    path = Path(file)
    return path.parent.name == "cpu" and path.name.startswith("conv")


def _write_database(path: Path) -> None:
    import cv2
    import lmdb
    import numpy as np

    from prototxt_gen import proto

    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as t:
        for number in range(8):
            image = np.full((12, 14, 3), 20 * number, np.uint8)
            datum = proto.Datum(encoded=True, label=number % 2)
            datum.data = cv2.imencode(".jpg", image)[1].tobytes()
            t.put(f"{number:04d}".encode(), datum.SerializeToString())


def _backend() -> Any:
    backend = importlib.import_module("runtime.backend.cpu.backend").CpuBackend
    try:
        return backend(native=False, replay=False)
    except TypeError:
        return backend(native=False)


def measure(root: Path) -> dict[str, dict[str, int]]:
    """The counts of a batch and of a gradient."""
    from data_prep import lmdb_io, prefetch
    from prototxt_gen import proto, text
    from prototxt_gen.sidecar import DataOptions

    prefetch.default_workers = lambda: 0
    net_class = importlib.import_module("runtime.net").Net
    sorted_tree = (root / "runtime" / "core").exists()
    module = "runtime.core.context" if sorted_tree else "runtime.context"
    context = importlib.import_module(module).RunContext(data=DataOptions((10, 12)))
    with tempfile.TemporaryDirectory() as folder:
        _write_database(Path(folder) / "db")
        param = text.parse(_NET.format(source=Path(folder) / "db"), proto.NetParameter)
        with net_class(param, proto.TRAIN, _backend(), context) as net:
            batch = Tracer(root, lmdb_io.Reader.get.__code__, "forward")
            _traced(batch, net.forward)
            gradient = Tracer(root, net_class.backward.__code__, "backward")
            _traced(gradient, net.backward)
    return {
        "batch": {"files": len(set(batch.entered.values())), "functions": len(batch.entered)},
        "gradient": {"files": len(set(gradient.stack)), "calls": len(gradient.stack)},
    }


def _traced(tracer: Tracer, work: Any) -> None:
    sys.setprofile(tracer)
    try:
        work()
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
