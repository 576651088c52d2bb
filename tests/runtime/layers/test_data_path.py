"""The files that a batch passes through from the database to the first convolution."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from data_prep import prefetch
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen import proto, text
from prototxt_gen.sidecar import DataOptions
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.context import RunContext
from runtime.net import Net
from tests.data_prep.small_images import photograph, record

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = tuple(str(ROOT / name) for name in ("prototxt_gen", "data_prep", "runtime"))
MOST_FILES = 15
NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 8 mirror: true mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "db" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 } }
"""


def files_entered(net: Net, first: Any, last: Any) -> set[str]:
    """Files of this program with functions that a pass enters from one function to another."""
    files: set[str] = set()
    state = "before"

    def enter(frame: FrameType, event: str, argument: object) -> None:
        nonlocal state
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(PACKAGES):
            return
        if state == "before" and frame.f_code is first.__code__:
            state = "between"
        if state == "between":
            files.add(str(Path(path).relative_to(ROOT)))
            if frame.f_code is last.__code__:
                state = "after"

    sys.setprofile(enter)
    try:
        net.forward()
    finally:
        sys.setprofile(None)
    assert state == "after"
    return files


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("options", [DataOptions(), DataOptions((10, 12))], ids=["", "rescaled"])
def test_a_batch_passes_through_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: bool, options: DataOptions
) -> None:
    """From the first record that is read to the op of the first convolution, both included.

    Recording and replaying passes is a concern of its own, and switched off.
    """
    monkeypatch.setattr(prefetch, "default_workers", lambda: 0)
    with Writer(tmp_path / "db") as writer:
        for number in range(8):
            image = photograph(12, 14, number)
            writer.put(f"{number:04d}".encode(), record(image, number, encoded))
    param = text.parse(NET, proto.NetParameter)
    backend = CpuBackend(replay=False)
    context = RunContext(data=options, root=tmp_path)
    with Net(param, proto.TRAIN, backend, context) as net:
        files = files_entered(net, Reader.get, type(backend.conv).forward)
    assert {"data_prep/transform.py", "runtime/layers/batch_layer.py"} < files
    assert len(files) <= MOST_FILES, "\n".join(sorted(files))
