"""Layers that read and write files, except Data: their outputs and inputs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ShapeError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.logs.glog import close_logging
from runtime.net import Net

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


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_lists_of_images_as_people_write_them(
    tmp_path: Path, images: np.ndarray, end: bytes
) -> None:
    names = [b"_caf\xe9 1.png", "_\u00fcn\u00ef.png".encode()]
    for number, name in enumerate(names):
        (tmp_path / f"set_{number}.png").rename(tmp_path / os.fsdecode(b"set" + name))
    lines = [name + b"\t%d" % number for number, name in enumerate(names)]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + end.join(lines))
    with build(image_data(""), tmp_path) as net:
        net.forward()
        wanted = images.transpose(0, 3, 1, 2)[[0, 1, 0]]
        np.testing.assert_array_equal(net.blobs["data"].data.host(), wanted)
        np.testing.assert_array_equal(net.blobs["label"].data.host(), [0, 1, 0])


@pytest.mark.parametrize("name", ["_pipe", "/../../../../../../../../dev/zero", "s"])
def test_special_files_in_a_list(tmp_path: Path, images: np.ndarray, name: str) -> None:
    """Opening a pipe would wait for ever, and a device never ends."""
    os.mkfifo(tmp_path / "set_pipe")
    (tmp_path / "sets").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "list.txt").write_text(f"_0.png 3\n{name} 5\n")
    with (
        build(image_data("new_height: 6 new_width: 8"), tmp_path) as net,
        pytest.raises(DataError, match=r"^layer 'd' \(ImageData\): .*cannot be read: .*regular f"),
    ):
        net.forward()


@pytest.mark.parametrize(
    ("root", "name", "inside"),
    [
        ("set/", "0.png", True),
        ("set/", "deep/../0.png", True),
        ("set", "/0.png", True),
        ("", "set/0.png", True),
        ("set/", "../outside.png", False),
        ("set/", "link.png", False),
        ("", "set/link.png", True),
        ("", "../elsewhere.png", False),
        ("", "/dev/zero", False),
    ],
)
def test_lists_may_be_confined(tmp_path: Path, root: str, name: str, inside: bool) -> None:
    folder = tmp_path / "work"
    (folder / "set" / "deep").mkdir(parents=True)
    for path in (folder / "set" / "0.png", folder / "outside.png", tmp_path / "elsewhere.png"):
        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    (folder / "set" / "link.png").symlink_to(folder / "outside.png")
    first = {"set/": "0.png", "set": "/0.png", "": "set/0.png"}[root]
    (folder / "list.txt").write_text(f"{first} 0\n{name} 0\n")
    layer = image_data("").replace('root_folder: "set"', f'root_folder: "{root}"')
    param = text.parse(layer, proto.NetParameter)
    context = RunContext(root=folder, confine_lists=True)
    if inside:
        with Net(param, proto.TRAIN, create_backend("cpu"), context) as net:
            net.forward()
        return
    with pytest.raises(
        DataError, match=r"^layer 'd' .*: it lies outside of its root folder; expec"
    ):
        Net(param, proto.TRAIN, create_backend("cpu"), context)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            (np.zeros((2, 1, 2, 2)), ["a", "b"]),
            "labels are not numbers: .*; expected an array of flo",
        ),
        (([[1], [2, 3]], [0, 1]), "images are not numbers: .*; expected an array of floats"),
        ((np.zeros((2, 1, 2, 2)), [0]), "1 labels; expected 2, one for each image"),
        ((np.zeros((3, 1, 2, 2)), [0] * 3), "images of shape .* with M a multiple of 2"),
        ((np.float32(1), [0]), r"images of shape \(\); expected"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, arrays: tuple[Any, Any], words: str) -> None:
    layer = (
        'layer { name: "m" type: "MemoryData" top: "data" top: "label" memory_data_param '
        "{ batch_size: 2 channels: 1 height: 2 width: 2 } }"
    )
    with (
        build(layer, tmp_path) as net,
        pytest.raises((DataError, ShapeError), match=rf"^layer 'm' \(MemoryData\): {words}"),
    ):
        net.layers[0].set_input_arrays(*arrays)  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", ["train", "test", "time", "extract_features", "summary"])
def test_verbs_confine_lists(
    tmp_path: Path,
    images: np.ndarray,
    verb: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "list.txt").write_text(f"{tmp_path}/set_0.png 3\n")
    net = image_data("").replace('root_folder: "set"', "")
    net += (
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param '
        '{ num_output: 5 } } layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" '
        'bottom: "label" top: "l" }'
    )
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s"'
    )
    monkeypatch.chdir(folder)
    arguments = {
        "train": ["--solver", "solver.prototxt"],
        "test": [
            "--model",
            "net.prototxt",
            "--weights",
            "s_iter_1.caffemodel",
            "--iterations",
            "1",
        ],
        "time": ["--model", "net.prototxt", "--iterations", "1"],
        "extract_features": ["s_iter_1.caffemodel", "net.prototxt", "ip", "db", "1"],
        "summary": ["net.prototxt"],
    }
    assert main(["train", *arguments["train"]]) == 0
    assert main([verb, *arguments[verb]]) == 0
    shutil.rmtree("db", ignore_errors=True)
    capsys.readouterr()
    assert main([verb, *arguments[verb], "--confine-lists"]) == 2
    assert "set_0.png: it lies outside of its root folder" in capsys.readouterr().err
    close_logging()
