"""Images that differ in size, without a crop: a batch of one follows each image, as in Caffe."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep import datum
from data_prep.lmdb_io import Writer
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.sidecar import DataOptions
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.job.exactness import train_case
from runtime.net import Net
from runtime.net.schedule import Direction, PassRange

SIZES = [(12, 9), (7, 15), (16, 16), (5, 6), (12, 9), (9, 20)]

SOURCES = """
layer {{ name: "data" type: "Data" top: "data" transform_param {{ mean_value: 100 scale: 0.02 {} }}
  data_param {{ source: "images" batch_size: {} backend: LMDB }} }}
layer {{ name: "truth" type: "Data" top: "truth"
  data_param {{ source: "maps" batch_size: {} backend: LMDB }} }}
"""
INPUTS = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 {} }} }} }}
layer {{ name: "truth" type: "Input" top: "truth" input_param {{ shape {{ dim: 1 dim: 1 {} }} }} }}
"""
FULLY_CONVOLUTIONAL = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param { alpha: 0.1 } }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "norm" }
layer { name: "side" type: "Convolution" bottom: "norm" top: "side" convolution_param {
  num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "main" type: "Convolution" bottom: "norm" top: "main" convolution_param {
  num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "side" bottom: "main" top: "sum" }
layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up" convolution_param {
  num_output: 4 kernel_size: 4 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "up" bottom: "truth" top: "score"
  crop_param { axis: 2 offset: 0 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "truth" top: "loss" }
layer { name: "sum_of_scores" type: "Power" bottom: "side" top: "sum_of_scores" loss_weight: 0.01
  include { phase: TRAIN } }
"""

Pass = tuple[float, list[np.ndarray]]
"""A loss, and the gradients of all weights."""


def write_images(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> list[np.ndarray]:
    """A database of images, and one of maps of labels in the same sizes; returns the images."""
    rng = np.random.default_rng(0)
    images = []
    with Writer(folder / "images") as colours, Writer(folder / "maps") as maps:
        for number, size in enumerate(sizes):
            image = rng.integers(0, 256, (3, *size), np.uint8)
            truth = rng.integers(0, 4, (1, *size), np.uint8)
            key = b"%08d" % number
            colours.put(key, datum.from_array(image, number).SerializeToString())
            maps.put(key, datum.from_array(truth, number).SerializeToString())
            images.append((image, truth))
    return images


def context(folder: Path, **more: Any) -> RunContext:
    return RunContext(seed=3, rng=CaffeRandom(3), root=folder, **more)


def build(net: str, backend: Backend, given: RunContext) -> Net:
    return Net(text.parse(net, proto.NetParameter, "net"), proto.TRAIN, backend, given)


def one_pass(net: Net) -> Pass:
    net.clear_param_diffs()
    loss = net.forward()
    net.backward()
    return loss, [blob.diff.host().copy() for blob in net.params.learnable]


def passes(folder: Path, count: int, backend: Backend, batch: int = 1, **more: Any) -> list[Pass]:
    layers = SOURCES.format("", batch, batch) + FULLY_CONVOLUTIONAL
    with build(layers, backend, context(folder, **more)) as net:
        return [one_pass(net) for _ in range(count)]


def pass_of_own_net(images: tuple[np.ndarray, np.ndarray], number: int, backend: Backend) -> Pass:
    """The pass of a net that is built for one size of image only."""
    dims = "dim: {} dim: {}".format(*images[0].shape[1:])
    given = RunContext(seed=3, rng=CaffeRandom(3), pass_number=number)
    for _ in range(2):
        given.rng.raw()  # The two data layers of the other net take a number each.
    with build(INPUTS.format(dims, dims) + FULLY_CONVOLUTIONAL, backend, given) as net:
        net.blobs["data"].data.mutable_host()[0] = (images[0].astype(np.float32) - 100) * 0.02
        net.blobs["truth"].data.mutable_host()[0] = images[1]
        return one_pass(net)


def assert_same(found: Sequence[Pass], wanted: Sequence[Pass], rtol: float = 2e-5) -> None:
    for (loss, gradients), (wanted_loss, wanted_gradients) in zip(found, wanted, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=rtol)
        for got, want in zip(gradients, wanted_gradients, strict=True):
            np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize("options", [{}, {"sharing": True}], ids=["own memory", "shared memory"])
@pytest.mark.parametrize("workers", [1, 3])
def test_each_pass_is_that_of_a_net_of_its_size(
    tmp_path: Path, workers: int, options: dict[str, bool]
) -> None:
    images = write_images(tmp_path)
    backend = create_backend("cpu")
    more = {"sharing": Sharing()} if options else {}
    found = passes(tmp_path, 8, backend, data=DataOptions(workers=workers), **more)
    wanted = [pass_of_own_net(images[n % len(images)], n, backend) for n in range(8)]
    assert_same(found, wanted)


def test_activations_share_memory_in_every_size(tmp_path: Path) -> None:
    write_images(tmp_path)
    sharing = Sharing()
    layers = SOURCES.format("", 1, 1) + FULLY_CONVOLUTIONAL
    with build(layers, create_backend("cpu"), context(tmp_path, sharing=sharing)) as net:
        for _ in SIZES:
            one_pass(net)
            array = sharing.array(net.backend, 0)
            for name in ("conv", "pool", "norm", "sum", "up"):
                assert np.shares_memory(net.blobs[name].data.host(), array), name


@pytest.mark.parametrize("options", [{}, {"sharing": True}], ids=["own memory", "shared memory"])
def test_a_device_computes_the_same(tmp_path: Path, options: dict[str, bool]) -> None:
    """Sizes that repeat are replayed there, others are not."""
    write_images(tmp_path, [(8, 8)] * 5 + [(6, 9)] * 2 + [(8, 8)] * 2 + [(10, 10)])
    more = {"sharing": Sharing()} if options else {}
    wanted = passes(tmp_path, 10, create_backend("cpu"))
    found = passes(tmp_path, 10, create_backend("emu"), **more)
    assert_same(found, wanted)
    assert_same(found, passes(tmp_path, 10, create_backend("emu", replay=False)), rtol=0)


def test_the_clock_chooses_the_size(tmp_path: Path) -> None:
    """A net that continues at pass 3 reads the same as a net that ran all passes."""
    write_images(tmp_path)
    backend = create_backend("cpu")
    whole = passes(tmp_path, 6, backend)
    layers = SOURCES.format("", 1, 1) + FULLY_CONVOLUTIONAL
    with build(layers, backend, context(tmp_path)) as net:
        net.forward()
        net.context.pass_number = 3
        assert_same([one_pass(net) for _ in range(3)], whole[3:])
        assert net.blobs["data"].shape == (1, 3, *SIZES[5])
        net.context.pass_number = 1
        net.reshape()
        assert_same([one_pass(net)], whole[1:2])
        net.context.pass_number = 2
        for step in net.schedule(PassRange(Direction.FORWARD, 0, len(net.layers) - 1)):
            step.run()
        assert net.blobs["data"].shape == (1, 3, *SIZES[2])


@pytest.mark.parametrize("batch", [2, 3])
def test_images_of_a_batch_have_the_size_of_its_first(tmp_path: Path, batch: int) -> None:
    """Caffe's rule: a batch may have another size than the one before."""
    sizes = [(6, 7)] * batch + [(9, 5)] * batch + [(6, 7)] * batch
    images = write_images(tmp_path, sizes)
    with build(SOURCES.format("", batch, batch), create_backend("cpu"), context(tmp_path)) as net:
        for turn in range(4):
            net.forward()
            first = turn * batch % len(images)
            wanted = np.stack([image for image, _ in images[first : first + batch]])
            got = net.blobs["data"].data.host() / np.float32(0.02) + 100
            np.testing.assert_allclose(got, wanted, atol=1e-3)


@pytest.mark.parametrize("workers", [1, 3])
def test_unequal_sizes_in_a_batch(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path, [(6, 7), (6, 7), (6, 7), (8, 7)])
    given = context(tmp_path, data=DataOptions(workers=workers))
    with build(SOURCES.format("", 2, 1), create_backend("cpu"), given) as net:
        net.forward()
        with pytest.raises(
            ShapeError,
            match=r"^layer 'data' \(Data\): record 00000003: an image of 8x7; expected 6x7 as in "
            r"the first record of the batch; set crop_size, resize .* or set batch_size to 1",
        ):
            net.forward()


def test_unequal_sizes_may_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With several images a batch keeps the size of the database's first record."""
    images = write_images(tmp_path, [(6, 7), (6, 7), (8, 7), (6, 7), (6, 7)])
    given = context(tmp_path, data=DataOptions(on_error="skip"))
    with (
        caplog.at_level(logging.WARNING, "verydeep.data"),
        build(SOURCES.format("", 2, 1), create_backend("cpu"), given) as net,
    ):
        for wanted in ([0, 1], [3, 3]):
            net.forward()
            got = net.blobs["data"].data.host() / np.float32(0.02) + 100
            np.testing.assert_allclose(got, np.stack([images[n][0] for n in wanted]), atol=1e-3)
    assert "skipped: record 00000002: an image of 8x7" in caplog.text


def test_a_crop_makes_sizes_equal(tmp_path: Path) -> None:
    images = write_images(tmp_path, [(6, 7), (8, 9), (12, 5)])
    net_text = SOURCES.format("crop_size: 5 mirror: false", 3, 1)
    param = text.parse(net_text, proto.NetParameter)
    with Net(param, proto.TEST, create_backend("cpu"), context(tmp_path)) as net:
        net.forward()
        got = net.blobs["data"].data.host() / np.float32(0.02) + 100
        wanted = [image[:, (h - 5) // 2 :, (w - 5) // 2 :][:, :5, :5] for image, h, w in (
            (image, *image.shape[1:]) for image, _ in images
        )]  # fmt: skip
        np.testing.assert_allclose(got, np.stack(wanted), atol=1e-3)


@pytest.mark.parametrize("param", ["", "crop_size: 6"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("device", ["cpu", "emu"])
def test_grey_among_colour(tmp_path: Path, param: str, batch: int, device: str) -> None:
    """No weights fit both, so the record is named, and not the layer that meets its channels."""
    with Writer(tmp_path / "images") as writer:
        for number, channels in enumerate((3, 3, 1)):
            image = datum.from_array(np.full((channels, 8, 8), 7, np.uint8), 0)
            writer.put(b"%d" % number, image.SerializeToString())
    net_text = SOURCES.format(param, batch, 1).partition('layer { name: "truth"')[0]
    with build(net_text, create_backend(device), context(tmp_path)) as net:
        for _ in range(2 if batch == 1 else 0):
            net.forward()
        with pytest.raises(
            DataError,
            match=r"^layer 'data' \(Data\): record 2: an image of 1 channels; expected 3 as in the "
            r"first record; set force_color",
        ):
            net.forward()


def test_a_mean_image_fits_one_size_only(tmp_path: Path) -> None:
    write_images(tmp_path, [(6, 7), (8, 9)])
    blob = proto.BlobProto(num=1, channels=3, height=6, width=7, data=[2.0] * 126)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    layers = SOURCES.format("", 1, 1).replace(
        "mean_value: 100", f'mean_file: "{tmp_path}/mean.binaryproto"'
    )
    with build(layers, create_backend("cpu"), context(tmp_path)) as net:
        net.forward()
        with pytest.raises(ShapeError, match=r"^layer 'data' .*record 00000001: .*; use mean_valu"):
            net.forward()


IMAGE_DATA = """
layer {{ name: "data" type: "ImageData" top: "data" top: "label" {}
  image_data_param {{ source: "list.txt" root_folder: "images/" {} }} }}
"""


def write_files(folder: Path) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
    lines = [f"{number}.png {number}\n" for number in range(len(images))]
    (folder / "list.txt").write_text("".join(lines))
    return images


@pytest.mark.parametrize("device", ["cpu", "emu"])
def test_files_of_a_list(tmp_path: Path, device: str) -> None:
    images = write_files(tmp_path)
    layers = IMAGE_DATA.format("", "batch_size: 1")
    with build(layers, create_backend(device), context(tmp_path)) as net:
        for turn in range(8):
            net.forward()
            wanted = images[turn % len(images)].transpose(2, 0, 1)
            np.testing.assert_array_equal(net.blobs["data"].data.host(), wanted[None])
            assert net.blobs["label"].data.host().tolist() == [turn % len(images)]


@pytest.mark.parametrize(
    ("transform", "param", "shape"),
    [
        ("", "new_height: 6 new_width: 5", (3, 3, 6, 5)),
        ("transform_param { crop_size: 5 }", "", (3, 3, 5, 5)),
        ("transform_param { crop_size: 4 }", "new_height: 6 new_width: 5", (3, 3, 4, 4)),
    ],
)
def test_files_made_one_size(
    tmp_path: Path, transform: str, param: str, shape: tuple[int, ...]
) -> None:
    write_files(tmp_path)
    layers = IMAGE_DATA.format(transform, f"batch_size: 3 {param}")
    with build(layers, create_backend("cpu"), context(tmp_path)) as net:
        for _ in range(3):
            net.forward()
            assert net.blobs["data"].shape == shape


def test_files_of_unequal_sizes_in_a_batch(tmp_path: Path) -> None:
    write_files(tmp_path)
    layers = IMAGE_DATA.format("", "batch_size: 2")
    with (
        build(layers, create_backend("cpu"), context(tmp_path)) as net,
        pytest.raises(
            ShapeError,
            match=r"^layer 'data' \(ImageData\): record images/1\.png: an image of 7x15; expected "
            r"12x9 as in the first record of the batch",
        ),
    ):
        net.forward()


SOLVER = """
net: "{folder}/net.prototxt"
base_lr: 0.1
lr_policy: "fixed"
momentum: 0.9
iter_size: {iter_size}
max_iter: {max_iter}
snapshot: 2
snapshot_prefix: "{folder}/run/exact"
test_iter: 4
test_interval: 2
random_seed: 7
"""


def write_solver(folder: Path, batch: int, shards: int, iter_size: int = 1) -> Path:
    write_images(folder)
    layers = "".join(
        SOURCES.format("", size, size).replace(
            "data_param", f"include {{ phase: {phase} }} data_param"
        )
        for phase, size in (("TRAIN", batch), ("TEST", 1))
    )
    for name in ("images", "maps"):
        layers = layers.replace(f'source: "{name}"', f'source: "{folder}/{name}"')
    (folder / "net.prototxt").write_text(layers + FULLY_CONVOLUTIONAL)
    path = folder / "solver.prototxt"
    path.write_text(SOLVER.format(folder=folder, iter_size=iter_size, max_iter=4))
    sidecar = f"[data.train]\nworkers = 2\n[parallel]\nshards = {shards}\n"
    (folder / "solver.verydeep.toml").write_text(sidecar)
    return path


def weights_of(path: Path) -> np.ndarray:
    model = proto.NetParameter.FromString(path.read_bytes())
    return np.concatenate([blob.data for layer in model.layer for blob in layer.blobs])


def test_shards_and_replicas_of_single_images(tmp_path: Path) -> None:
    """A batch of two in two shards is two passes of one image, on one replica as on two."""
    solver = write_solver(tmp_path, 2, 2)
    wanted = train_case(solver, 1)
    middle = tmp_path / "run" / "exact_iter_2.solverstate"
    assert train_case(solver, 2, snapshot=str(middle)) == wanted
    shutil.rmtree(tmp_path / "run")
    assert train_case(solver, 2) == wanted


def test_gradients_of_several_passes_are_averaged(tmp_path: Path) -> None:
    """iter_size and shards give the same mean of the images' own gradients."""
    (tmp_path / "iter").mkdir()
    (tmp_path / "shards").mkdir()
    train_case(write_solver(tmp_path / "iter", 1, 1, iter_size=2), 1)
    train_case(write_solver(tmp_path / "shards", 2, 2), 1)
    found = [
        weights_of(tmp_path / name / "run" / "exact_iter_4.caffemodel")
        for name in ("iter", "shards")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


ROW_BY_ROW = """
layer {{ name: "data" type: "Data" top: "data" transform_param {{ scale: 0.01 }}
  data_param {{ source: "{folder}/images" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "wide" type: "InnerProduct" bottom: "data" top: "wide" inner_product_param {{
  axis: 3 num_output: 300 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "mean" type: "Reduction" bottom: "wide" top: "mean"
  reduction_param {{ operation: SUMSQ coeff: 0.001 }} loss_weight: 1 }}
"""


def test_products_over_rows_of_images(tmp_path: Path) -> None:
    """As many rows come into a product as its image has: there is no room to keep them by shard."""
    found = []
    for name, batch, shards in (("iter", 1, 1), ("shards", 2, 2)):
        folder = tmp_path / name
        folder.mkdir()
        solver = write_solver(folder, batch, shards, iter_size=3 - batch)
        shutil.rmtree(folder / "images")
        shutil.rmtree(folder / "maps")
        write_images(folder, [(1, 300), (3, 300), (2, 300), (3, 300)])
        net = ROW_BY_ROW.format(folder=folder, batch=batch)
        (folder / "net.prototxt").write_text(net)
        solver.write_text("".join(line for line in solver.open() if not line.startswith("test_")))
        train_case(solver, 1)
        found.append(weights_of(folder / "run" / "exact_iter_4.caffemodel"))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_means_of_outputs_that_follow_the_images(tmp_path: Path) -> None:
    """Outputs of several sizes have no mean; a test reports it."""
    solver = write_solver(tmp_path, 1, 1)
    net = (tmp_path / "net.prototxt").read_text()
    net += 'layer { name: "copy" type: "Power" bottom: "side" top: "copy" include {phase: TEST} }'
    (tmp_path / "net.prototxt").write_text(net)
    with pytest.raises(
        ShapeError, match=r"its outputs copy, loss hold \d+ to \d+ numbers, dependin"
    ):
        train_case(solver, 1)


@pytest.mark.parametrize(
    ("kind", "tops"),
    [("Data", 0), ("Data", 3), ("ImageData", 1), ("ImageData", 3), ("HDF5Data", 0)],
)
def test_a_wrong_number_of_tops(tmp_path: Path, kind: str, tops: int) -> None:
    names = " ".join(f'top: "t{n}"' for n in range(tops))
    layers = f'layer {{ name: "d" type: "{kind}" {names} }}'
    with pytest.raises(ProtoError, match=rf"^layer 'd' \({kind}\): expected .* top blob\(s\), got"):
        build(layers, create_backend("cpu"), context(tmp_path))
