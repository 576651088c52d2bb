"""Layers that read and write files, beside Data: what they give and what they take."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.context import RunContext
from runtime.net import Net
from runtime.rng import CaffeRandom

FILL = (
    'layer { name: "p" type: "DummyData" top: "drawn" dummy_data_param { shape { dim: 3 } '
    'data_filler { type: "uniform" } } }'
)


def build(layers: str, root: Path, phase: int = proto.TRAIN) -> Net:
    param = text.parse(layers, proto.NetParameter, "net")
    context = RunContext(seed=7, rng=CaffeRandom(7), root=root)
    return Net(param, phase, create_backend("cpu"), context)


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """Two colour images, and a list that names them without the beginning of their names."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / f"set_{number}.png"), image)
    (tmp_path / "list.txt").write_text("_0.png 3\n_1.png 5\n")
    return pixels


def image_data(param: str, more: str = "") -> str:
    return (
        'layer { name: "d" type: "ImageData" top: "data" top: "label" image_data_param '
        f'{{ source: "list.txt" root_folder: "set" batch_size: 3 {param} }} {more} }}'
    )


def test_images_of_a_list(tmp_path: Path, images: np.ndarray) -> None:
    """root_folder and name are put together as they are; the list is read round and round."""
    more = "transform_param { mean_value: 10 scale: 0.5 }"
    with build(image_data("", more), tmp_path) as net:
        net.forward()
        wanted = (images.transpose(0, 3, 1, 2)[[0, 1, 0]] - 10.0) * 0.5
        np.testing.assert_allclose(net.blobs["data"].data.host(), wanted)
        np.testing.assert_array_equal(net.blobs["label"].data.host(), [3, 5, 3])
        net.forward()
        np.testing.assert_array_equal(net.blobs["label"].data.host(), [5, 3, 5])


def test_images_are_warped_and_made_grey(tmp_path: Path, images: np.ndarray) -> None:
    with build(image_data("new_height: 4 new_width: 5 is_color: false"), tmp_path) as net:
        net.forward()
        grey = [cv2.imread(str(tmp_path / f"set_{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (0, 1)]
        wanted = np.stack([cv2.resize(image, (5, 4)) for image in grey])[[0, 1, 0], None]
        np.testing.assert_array_equal(net.blobs["data"].data.host(), wanted)


@pytest.mark.parametrize(
    ("layer", "draws"),
    [
        (image_data(""), 1),
        (image_data("", "transform_param { mirror: true }"), 3),
        (image_data("shuffle: true", "transform_param { crop_size: 4 }"), 4),
        (image_data("rand_skip: 2"), 2),
        (
            'layer { name: "m" type: "MemoryData" top: "data" top: "label" memory_data_param '
            "{ batch_size: 1 channels: 1 height: 1 width: 1 } transform_param { mirror: true } }",
            1,
        ),
    ],
)
def test_fillers_draw_what_they_draw_behind_caffes_layer(
    tmp_path: Path, images: np.ndarray, layer: str, draws: int
) -> None:
    """The stream has been read as often as Caffe's layer reads it."""
    with build(layer + FILL, tmp_path) as net:
        filler = net.layers[1]
        filler.forward([], net.tops[1])
        rng = CaffeRandom(7)
        for _ in range(draws):
            rng.raw()
        np.testing.assert_array_equal(net.blobs["drawn"].data.host(), rng.uniform(3, 0.0, 1.0))


def test_outputs_are_written_with_four_axes(tmp_path: Path) -> None:
    layers = (
        'layer { name: "i" type: "Input" top: "x" top: "y" '
        "input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }"
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" '
        'hdf5_output_param { file_name: "out.h5" } }'
    )
    with build(layers, tmp_path) as net:
        net.blobs["x"].data.mutable_host()[...] = np.arange(6).reshape(2, 3)
        net.blobs["y"].data.mutable_host()[...] = [7, 8]
        net.forward()
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["data"].shape == (2, 3, 1, 1)
        np.testing.assert_array_equal(file["data"][:, :, 0, 0], np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(file["label"][...], np.reshape([7, 8], (2, 1, 1, 1)))
