"""Batches that go to a device as bytes are the host's, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import datum
from data_prep.lmdb_io import Writer
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ShapeError
from prototxt_gen.sidecar import ColourPca, DataOptions
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net

LAYER = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ {} }} data_param {{ source: "db" batch_size: 5 backend: LMDB }} }}
"""
CROPPED = "crop_size: 6 mirror: true scale: 0.017 mean_value: 103.9 mean_value: 116.7 mean_value: 0"
PCA = ColourPca((30.0, 4.0, 1.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
SHIFTED = DataOptions((8, 11), 0.1, PCA, shuffle=True, seed=3)


def write(folder: Path, images: list[np.ndarray]) -> None:
    with Writer(folder / "db") as writer:
        for number, image in enumerate(images):
            record = datum.from_array(np.ascontiguousarray(image.transpose(2, 0, 1)), number)
            writer.put(f"{number:04d}".encode(), record.SerializeToString())


def some_images() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    sizes = [(12, 9), (9, 9), (10, 14), (8, 8), (16, 9), (9, 11), (20, 10)]
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def batches(folder: Path, param: str, options: DataOptions, **device: Any) -> list[bytes]:
    """Three batches, as a layer that computes on the device sees them."""
    net = text.parse(LAYER.format(param), proto.NetParameter)
    context = RunContext(seed=7, data=options, root=folder)
    found = []
    with Net(net, proto.TRAIN, create_backend(**device), context) as built:
        for _ in range(3):
            built.forward()
            blob = built.blobs["data"].data
            blob.dev()
            found += [blob.host().tobytes(), built.blobs["label"].data.host().tobytes()]
        batch = built.layers[0].reader.read(0, 0, 5)  # type: ignore[attr-defined]  # a DataLayer's
        as_bytes = device["name"] == "emu" and "mean_file" not in param
        assert batch.data.dtype == (np.uint8 if as_bytes else np.float32)
    return found


@pytest.mark.parametrize("streams", ["eager", "late", "early"])
@pytest.mark.parametrize(
    ("param", "options"),
    [(CROPPED, SHIFTED), (CROPPED, DataOptions()), ("crop_size: 7", DataOptions())],
    ids=["shifted", "cropped", "plain"],
)
def test_a_device_makes_the_hosts_batches(
    tmp_path: Path, param: str, options: DataOptions, streams: str
) -> None:
    write(tmp_path, some_images())
    wanted = batches(tmp_path, param, options, name="cpu")
    assert len(set(wanted[::2])) == 3
    assert batches(tmp_path, param, options, name="emu", streams=streams) == wanted


def test_a_mean_image_stays_with_the_host(tmp_path: Path) -> None:
    write(tmp_path, [np.full((8, 8, 3), 9 * i, np.uint8) for i in range(6)])
    blob = proto.BlobProto(num=1, channels=3, height=8, width=8, data=[2.0] * 192)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    param = f'crop_size: 5 mean_file: "{tmp_path}/mean.binaryproto"'
    wanted = batches(tmp_path, param, DataOptions(), name="cpu")
    assert batches(tmp_path, param, DataOptions(), name="emu") == wanted


def test_records_of_two_kinds_are_refused(tmp_path: Path) -> None:
    floats = proto.Datum(channels=3, height=8, width=8, float_data=[0.5] * 192)
    with Writer(tmp_path / "db") as writer:
        image = datum.from_array(np.zeros((3, 8, 8), np.uint8), 0)
        writer.put(b"0", image.SerializeToString())
        writer.put(b"1", floats.SerializeToString())
    with pytest.raises(DataError, match=r"an image of float32; expected bytes, as in the first"):
        batches(tmp_path, "crop_size: 6", DataOptions(), name="emu")


def test_a_batch_that_does_not_fit_its_blob() -> None:
    backend: Any = create_backend("emu")
    y = backend.memory.view(backend.memory.empty(24, np.dtype(np.float32)), 0, (2, 3, 2, 2))
    with pytest.raises(ShapeError, match=r"input_batch: pixels \(2, 3, 2, 1\) and offsets"):
        backend.input_batch(np.zeros((2, 3, 2, 1), np.uint8), np.zeros((2, 3)), 1.0, y)
    # A batch of another size takes the place of the first.
    for n in (2, 1, 2):
        part = backend.memory.view(y, 0, (n, 3, 2, 2))
        backend.input_batch(np.full((n, 3, 2, 2), n, np.uint8), np.ones((n, 3)), 2.0, part)
        got = np.empty((n, 3, 2, 2), np.float32)
        backend.memory.download(part, got)
        np.testing.assert_array_equal(got, 2.0 * (n - 1))


@pytest.mark.parametrize("streams", ["eager", "late", "early"])
def test_batches_that_follow_each_other_do_not_overtake(streams: str) -> None:
    backend: Any = create_backend("emu", streams=streams)
    shape, float32 = (2, 3, 4, 4), np.dtype(np.float32)
    blobs = [backend.memory.view(backend.memory.empty(96, float32), 0, shape) for _ in range(6)]
    for number, blob in enumerate(blobs):
        offsets = np.full((2, 3), number, np.float32)
        backend.input_batch(np.full(shape, 10 * number, np.uint8), offsets, 1.0, blob)
    for number, blob in enumerate(blobs):
        got = np.empty(shape, np.float32)
        backend.memory.download(blob, got)
        np.testing.assert_array_equal(got, 9.0 * number)
