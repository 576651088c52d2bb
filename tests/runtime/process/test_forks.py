"""Nets made before a fork: parent and children compute the right bytes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import runtime.pycaffe as caffe
from data_prep.lmdb_io import Writer
from prototxt_gen import proto
from prototxt_gen.errors import DeviceError
from runtime.backend.base import Backend
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net
from tests.data_prep.small_images import record
from tests.runtime.process.children import Child, in_child
from tests.runtime.process.concurrent_nets import outputs, small_net
from tests.runtime.small_nets import net_param

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
BACKENDS: dict[str, Callable[[], Backend]] = {
    "compiled": lambda: CpuBackend(threads=2),
    "numpy": lambda: CpuBackend(threads=2, native=False),
}


@pytest.mark.parametrize("kind", BACKENDS)
def test_parent_and_children_at_the_same_time(kind: str) -> None:
    backend = BACKENDS[kind]()
    nets = [small_net(backend, seed) for seed in range(3)]
    alone = [outputs(net) for net in nets]

    def passes(index: int) -> bytes:
        wrong = sum(outputs(nets[index]) != alone[index] for _ in range(6))
        return str(wrong).encode()

    children = [Child(lambda i=i: passes(i)) for i in (1, 2, 0)]
    assert passes(0) == b"0"
    assert [child.result() for child in children] == [b"0"] * 3


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_net_that_has_not_run_before_the_fork(kind: str) -> None:
    net = small_net(BACKENDS[kind](), 4)
    child = in_child(lambda: outputs(net))
    assert child == outputs(net)


@pytest.mark.parametrize("kind", BACKENDS)
def test_forks_while_threads_compute(kind: str) -> None:
    """Locks that the parent's threads hold at the fork are free in the child."""
    backend = BACKENDS[kind]()
    nets = [small_net(backend, seed) for seed in range(3)]
    alone, stop = [outputs(net) for net in nets], threading.Event()

    def run(net: Net) -> None:
        while not stop.is_set():
            outputs(net)

    threads = [threading.Thread(target=run, args=(net,)) for net in nets[:2]]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            for net, expected in zip(nets, alone):
                assert in_child(lambda net=net: outputs(net)) == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_children_of_children_and_threads_in_children() -> None:
    net, other = (small_net(CpuBackend(threads=2), seed) for seed in (5, 6))
    alone = outputs(net) + outputs(other)

    def in_threads() -> bytes:
        results: dict[int, bytes] = {}
        pairs = enumerate((net, other))
        threads = [
            threading.Thread(target=lambda i=i, n=n: results.update({i: outputs(n)}))
            for i, n in pairs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results[0] + results[1]

    assert in_child(lambda: in_child(in_threads)) == alone


def _pool_task(image: np.ndarray) -> np.ndarray:
    return _POOL_NET[0].forward_all(data=image)["prob"]


_POOL_NET: list[caffe.Net] = []


def test_a_pool_of_processes(tmp_path: Path) -> None:
    from tests.runtime.process.concurrent_nets import LAYERS

    (tmp_path / "net.prototxt").write_text(LAYERS)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    images = [np.full((2, 3, 32, 32), value, np.float32) for value in range(6)]
    alone = [net.forward_all(data=image)["prob"] for image in images]
    _POOL_NET[:] = [net]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.map_async(_pool_task, images).get(timeout=60)
    assert all(np.array_equal(*pair) for pair in zip(results, alone))


# Layers that read data.

COUNT = 12


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A database, an image list and HDF5 files with the same images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 400, 300, 3), np.uint8)
    with Writer(tmp_path / "db") as writer:
        for number, image in enumerate(images):
            writer.put(f"{number:08d}".encode(), record(image, number, True))
            cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "list.txt").write_text("".join(f"/{n}.png {n}\n" for n in range(COUNT)))
    for part in (0, 1):
        with h5py.File(tmp_path / f"{part}.h5", "w") as file:
            file["data"] = rng.random((COUNT // 2, 5), np.float32)
            file["label"] = np.arange(COUNT // 2, dtype=np.float32) + part * COUNT // 2
    (tmp_path / "h5.txt").write_text("0.h5\n1.h5\n")
    return tmp_path


# Resized images are large enough for OpenCV to use its own threads.
LAYERS_OF_DATA = {
    "Data": 'data_param { source: "db" backend: LMDB batch_size: 3 } '
    "transform_param { crop_size: 64 mirror: true }",
    "ImageData": 'image_data_param { source: "list.txt" batch_size: 3 new_height: 720 '
    'new_width: 960 root_folder: "%s" }',
    "HDF5Data": 'hdf5_data_param { source: "h5.txt" batch_size: 5 }',
}


def data_net(kind: str, root: Path, threads: int = 1) -> Net:
    settings = LAYERS_OF_DATA[kind].replace("%s", str(root))
    layers = f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {settings} }}'
    context = RunContext(seed=1, root=root)
    return Net(net_param(layers), proto.TRAIN, CpuBackend(threads=threads), context)


def batches(net: Net, count: int) -> bytes:
    result = []
    for _ in range(count):
        net.forward()
        result += [net.blobs[name].data.host().tobytes() for name in ("data", "label")]
    return b"".join(result)


@pytest.mark.parametrize("kind", LAYERS_OF_DATA)
@pytest.mark.parametrize("before", [0, 2])
def test_data_layers_continue_in_parent_and_children(kind: str, before: int, sources: Path) -> None:
    with data_net(kind, sources) as net, data_net(kind, sources) as alone:
        assert batches(net, before) == batches(alone, before)
        children = [Child(lambda: batches(net, 4)) for _ in range(2)]
        expected = batches(alone, 4)
        assert batches(net, 4) == expected
        assert [child.result() for child in children] == [expected] * 2


def test_a_child_may_close_a_net_and_drop_it(sources: Path) -> None:
    with data_net("Data", sources) as net:
        batches(net, 1)

        def close() -> bytes:
            net.close()
            return b"closed"

        assert in_child(close) == b"closed"
        assert batches(net, 1)


SCRIPT = """
import os, sys
from pathlib import Path
from tests.runtime.process.test_forks import batches, data_net
net = data_net({kind!r}, Path({root!r}))
batches(net, 1)
child = os.fork()
if child == 0:
    batches(net, 2)
    sys.exit(0)
_, status = os.waitpid(child, 0)
batches(net, 2)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("kind", LAYERS_OF_DATA)
def test_parent_and_child_end_with_their_exit_handlers(kind: str, sources: Path) -> None:
    script = SCRIPT.format(kind=kind, root=str(sources))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# What cannot work in a child.


def test_a_gpu_backend_refuses_in_a_child() -> None:
    net = small_net(create_backend("emu"), 0)

    def attempt() -> bytes:
        messages = []
        for action in (net.forward, net.reshape, lambda: net.blobs["data"].data.mutable_dev()):
            with pytest.raises(DeviceError) as error:
                action()
            messages.append(str(error.value))
        assert len(set(messages)) == 1
        return messages[0].encode()

    expected = (
        "emu 0: the device was opened before this process was forked; expected a process that "
        "opened it itself, since a GPU's context does not survive a fork; build the nets in the "
        "child, or start it by multiprocessing's 'spawn' method"
    )
    assert in_child(attempt).decode() == expected
    assert outputs(net)
