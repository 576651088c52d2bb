from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ShapeError, SnapshotError, UnsupportedError
from runtime.net import Net
from runtime.weights.caffemodel import read_caffemodel
from runtime.weights.net_weights import (
    CAFFEMODEL,
    HDF5,
    NPZ,
    copy_trained_layers,
    save,
)
from tests.runtime.small_net import SMALL, build, same_weights, weights

GOLDEN = Path(__file__).parents[2] / "golden" / "caffemodel"
FILES = ["w.caffemodel", "w.caffemodel.h5", "w.npz"]
SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 5 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  param { name: "w" } param { name: "b" } inner_product_param { num_output: 5 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
  param { name: "w" } param { name: "c" } inner_product_param { num_output: 5 } }
"""


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


def read(path: Path) -> Any:
    return proto.NetParameter.FromString(path.read_bytes())


@pytest.mark.parametrize("name", [*FILES, "w.v1"])
def test_weights_come_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with build(SMALL, seed=1) as net, build(SMALL) as other:
        save(net, path, fmt="V1" if name.endswith("v1") else None)
        report = copy_trained_layers(other, path, strict=True)
        assert same_weights(other, weights(net))
    assert list(report.loaded) == ["conv1", "fc6", "fc7"]
    assert report.parameters == 6 * 27 + 6 + 8 * 6 * 49 + 8 + 5 * 8 + 5
    assert report.complete


@pytest.mark.parametrize("name", ["conv.caffemodel", "legacy.caffemodel"])
def test_a_saved_net_is_the_file_that_caffe_saves(tmp_path: Path, name: str) -> None:
    with build(golden(name.replace("caffemodel", "prototxt"))) as net:
        copy_trained_layers(net, GOLDEN / name)
        save(net, tmp_path / name)
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_all_forms_of_original_files_give_the_same_weights() -> None:
    with build(golden("conv.prototxt")) as net:
        copy_trained_layers(net, GOLDEN / "conv.caffemodel")
        expected = weights(net)
        net.params.learnable[0].data.mutable_host()[...] = 0
        copy_trained_layers(net, GOLDEN / "conv.caffemodel.h5")
        assert same_weights(net, expected)
    with build(golden("legacy.prototxt")) as net:
        copy_trained_layers(net, GOLDEN / "legacy.caffemodel")
        expected = weights(net)
    with build(golden("legacy.prototxt")) as net:
        copy_trained_layers(net, GOLDEN / "legacy_v1.caffemodel", strict=True)
        assert same_weights(net, expected)


def test_hdf5_is_laid_out_as_caffe_does(tmp_path: Path) -> None:
    def layout(path: Path) -> dict[str, Any]:
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update(
                    {name: (item.shape, item.dtype) if isinstance(item, h5py.Dataset) else None}
                )
            )
        return found

    with build(golden("conv.prototxt")) as net:
        save(net, tmp_path / "conv.caffemodel.h5")
        assert layout(tmp_path / "conv.caffemodel.h5") == layout(GOLDEN / "conv.caffemodel.h5")
        save(net, tmp_path / "d.h5", write_diff=True)
    assert layout(tmp_path / "d.h5")["diff/conv/1"] == ((4,), np.float32)


def test_gradients_are_kept_on_request(tmp_path: Path) -> None:
    with build(SMALL, seed=2) as net, build(SMALL) as other:
        blob = net.params.learnable[0]
        blob.diff.mutable_host()[...] = 3
        save(net, tmp_path / "w.caffemodel", write_diff=True)
        copy_trained_layers(other, tmp_path / "w.caffemodel")
        np.testing.assert_array_equal(other.params.learnable[0].diff.host(), blob.diff.host())
        assert list(read(tmp_path / "w.caffemodel").layer[1].blobs[0].diff[:2]) == [3, 3]
        save(net, tmp_path / "w.caffemodel")
        assert not read(tmp_path / "w.caffemodel").layer[1].blobs[0].diff


@pytest.mark.parametrize("name", FILES)
def test_shared_weights(tmp_path: Path, name: str) -> None:
    with build(SHARED, seed=3) as net, build(SHARED) as other:
        assert len(net.params.learnable) == 3
        save(net, tmp_path / name)
        copy_trained_layers(other, tmp_path / name, strict=True)
        assert same_weights(other, weights(net))
    if name.endswith("h5"):
        with h5py.File(tmp_path / name) as file:
            assert list(file["data/b"]) == ["1"]


def test_layers_are_found_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "w.caffemodel"
    with build(SMALL, seed=4) as net:
        save(net, path)
        with build(SMALL.replace('"fc7"', '"fc8"'), seed=5) as other:
            before = weights(other)
            with pytest.raises(SnapshotError, match=r"w.caffemodel: does not fit the net exactly;"):
                copy_trained_layers(other, path, strict=True)
            assert same_weights(other, before)
            with caplog.at_level(logging.INFO, "verydeep"):
                report = copy_trained_layers(other, path)
            assert (list(report.missing), list(report.unused)) == (["fc8"], ["fc7"])
            after = weights(other)
            np.testing.assert_array_equal(after["fc8"][0], before["fc8"][0])
            np.testing.assert_array_equal(after["fc6"][0], weights(net)["fc6"][0])
    assert report.table().splitlines() == [
        f"{path}: 2 layers loaded (2.5 k parameters), 1 missing, 1 unused",
        "  loaded   conv1  6x3x3x3, 6",
        "  loaded   fc6    8x294, 8",
        "  missing  fc8    5x8, 5      keeps its weights; the file's 'fc7' has the same shapes",
        "  unused   fc7    5x8, 5      not in the net",
    ]
    assert report.table() in caplog.text


def test_nothing_is_copied_from_a_file_that_is_damaged_further_on(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    with build(SMALL, seed=15) as net, build(SMALL, seed=16) as other:
        save(net, path)
        damaged = read(path)
        del damaged.layer[-2].blobs[1].data[-1]
        path.write_bytes(damaged.SerializeToString())
        before = weights(other)
        with pytest.raises(
            SnapshotError,
            match=r"layer 'fc7', blob 1: shape and numbers disagree; expected 5 numbers for shape ",
        ):
            copy_trained_layers(other, path)
        assert same_weights(other, before)


def test_chosen_layers_only(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    with build(SMALL, seed=6) as net, build(SMALL, seed=7) as other:
        save(net, path)
        before = weights(other)
        report = copy_trained_layers(other, path, strict=True, layers=["conv1", "fc7"])
        assert list(report.loaded) == ["conv1", "fc7"]
        expected = {**weights(net), "fc6": before["fc6"]}
        assert same_weights(other, expected)


def test_a_file_of_another_net_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with build(SMALL) as net:
        report = copy_trained_layers(net, GOLDEN / "conv.caffemodel")
    assert not report.loaded
    assert "conv.caffemodel: no layer of this file has the name of a layer" in caplog.text


def test_shapes_that_differ_are_refused_in_caffe_s_words(tmp_path: Path) -> None:
    narrow = golden("conv.prototxt").replace("num_output: 4", "num_output: 5")
    with build(narrow, seed=8) as net:
        before = weights(net)
        with pytest.raises(ShapeError) as caught:
            copy_trained_layers(net, GOLDEN / "conv.caffemodel")
        assert str(caught.value) == (
            f"{GOLDEN / 'conv.caffemodel'}: Cannot copy param 0 weights from layer 'conv'; shape "
            "mismatch.  Source param shape is 4 3 3 3 (108); target param shape is 5 3 3 3 (135). "
            "To learn this layer's parameters from scratch rather than copying from a saved net, "
            "rename the layer."
        )
        with pytest.raises(ShapeError) as caught:
            copy_trained_layers(net, GOLDEN / "conv.caffemodel.h5")
        assert str(caught.value) == (
            f"{GOLDEN / 'conv.caffemodel.h5'}: layer 'conv', blob 0: Cannot load blob from hdf5; "
            "shape mismatch. Source shape is 4 3 3 3 (108) target shape is 5 3 3 3 (135); rename "
            "the layer to learn its parameters from scratch."
        )
        assert same_weights(net, before)


@pytest.mark.parametrize("name", ["conv.caffemodel", "conv.caffemodel.h5"])
@pytest.mark.parametrize("bias", [True, False])
def test_another_number_of_blobs_is_refused(tmp_path: Path, name: str, bias: bool) -> None:
    without = golden("conv.prototxt").replace("pad: 1", "pad: 1 bias_term: false")
    path = GOLDEN / name
    if bias:
        path = tmp_path / name
        with build(without) as net:
            save(net, path)
    got, expected = (1, 2) if bias else (2, 1)
    with (
        build(golden("conv.prototxt") if bias else without) as net,
        pytest.raises(
            ShapeError,
            match=rf"Incompatible number of blobs for layer conv; expected {expected}, as layer "
            rf"'conv' \(Convolution\) has, got {got}; rename the layer to train it from scratch",
        ),
    ):
        copy_trained_layers(net, path)


def _dense(name: str) -> str:
    """SMALL with its fully connected layers as convolutions."""
    conv = 'type: "Convolution"'
    return (
        SMALL.replace('"fc6" type: "InnerProduct"', f'"{name}" {conv}')
        .replace('"fc7" type: "InnerProduct"', f'"fc7" {conv}')
        .replace(
            "inner_product_param { num_output: 8 }",
            "convolution_param { num_output: 8 kernel_size: 7 }",
        )
        .replace(
            "inner_product_param { num_output: 5 }",
            "convolution_param { num_output: 5 kernel_size: 1 }",
        )
    )


@pytest.mark.parametrize("form", [CAFFEMODEL, "V1", HDF5, NPZ])
@pytest.mark.parametrize("name", ["fc6", "fc6-conv", "other"])
def test_inner_products_become_convolutions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, name: str
) -> None:
    path = tmp_path / "w"
    with build(SMALL, seed=9) as net, build(_dense(name)) as dense:
        save(net, path, fmt=form)
        names = {"fc6": "other"} if name == "other" else None
        report = copy_trained_layers(dense, path, strict=True, names=names)
        assert report.converted == {"fc6": name, "fc7": "fc7"}
        _same_result(net, dense)
    pair = "fc6" if name == "fc6" else f"fc6 as {name}"
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert lines == [f"{path}: InnerProduct weights converted to convolutions: {pair}, fc7"]


def test_a_fine_tuned_dense_net_keeps_its_new_classifier(tmp_path: Path) -> None:
    with build(SMALL, seed=9) as net, build(_dense("fc6-conv").replace('"fc7"', '"fc7-conv"')) as d:
        save(net, tmp_path / "w")
        report = copy_trained_layers(d, tmp_path / "w", layers=["conv1", "fc6"])
        assert (list(report.loaded), dict(report.missing)) == (["conv1", "fc6-conv"], {})
    wide = (
        _dense("fc6-conv").replace('"fc7"', '"fc7-conv"').replace("num_output: 5", "num_output: 7")
    )
    with build(wide) as dense:
        report = copy_trained_layers(dense, tmp_path / "w")
        assert (list(report.missing), list(report.unused)) == (["fc7-conv"], ["fc7"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_output: 8 kernel_size: 7", "num_output: 8 kernel_size: 5"),
        ("num_output: 8 kernel_size: 7", "num_output: 8 kernel_size: 7 group: 2"),
        ("num_output: 8 kernel_size: 7", "num_output: 4 kernel_size: 7"),
    ],
)
def test_convolutions_of_other_shapes_are_refused(tmp_path: Path, old: str, new: str) -> None:
    with build(SMALL, seed=9) as net, build(_dense("fc6").replace(old, new)) as dense:
        save(net, tmp_path / "w")
        before = weights(dense)
        with pytest.raises(ShapeError, match="layer 'fc6'; shape mismatch"):
            copy_trained_layers(dense, tmp_path / "w")
        assert same_weights(dense, before)


@pytest.mark.parametrize("form", [CAFFEMODEL, "V1"])
def test_a_transposed_square_matrix_is_refused(tmp_path: Path, form: str) -> None:
    source = """layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: [1, 4, 1, 1] } } }
      layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
        inner_product_param { num_output: 4 transpose: true } }"""
    target = source.replace("InnerProduct", "Convolution").replace(
        "inner_product_param { num_output: 4 transpose: true }",
        "convolution_param { num_output: 4 kernel_size: 1 }",
    )
    with build(source) as net, build(target) as dense:
        save(net, tmp_path / "w", fmt=form)
        with pytest.raises(ShapeError, match="shape mismatch"):
            copy_trained_layers(dense, tmp_path / "w")


def _same_result(net: Net, dense: Net) -> None:
    dense.blobs["data"].data.mutable_host()[...] = net.blobs["data"].data.host()
    net.forward()
    dense.forward()
    expected = net.blobs["prob"].data.host()
    got = dense.blobs["prob"].data.host().reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_loss_weights_and_automatic_tops_are_written_as_caffe_does(tmp_path: Path) -> None:
    prototxt = """
    layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5 } } }
    layer { name: "label" type: "Input" top: "y" input_param { shape { dim: 2 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" }
    """
    with build(prototxt) as net:
        save(net, tmp_path / "w.caffemodel")
    loss = read(tmp_path / "w.caffemodel").layer[-1]
    assert text.to_text(loss).splitlines() == [
        'name: "loss"',
        'type: "SoftmaxWithLoss"',
        'bottom: "x"',
        'bottom: "y"',
        "phase: TEST",
        "loss_weight: 1",
    ]


@pytest.mark.parametrize("name", ["w.caffemodel.h5", "w.npz"])
def test_two_layers_of_one_name(tmp_path: Path, name: str) -> None:
    with build(SHARED.replace('"b" type', '"a" type')) as net:
        with pytest.raises(SnapshotError, match="expected distinct names, got 'a' twice; re"):
            save(net, tmp_path / name)
        save(net, tmp_path / "w.caffemodel")
        assert [layer.name for layer in read_caffemodel(tmp_path / "w.caffemodel")][1:] == [
            "a",
            "a",
        ]


def test_what_cannot_be_saved_or_read(tmp_path: Path) -> None:
    with build(SMALL) as net:
        with pytest.raises(SnapshotError, match="one of caffemodel, V1, h5, npz, got 'bin'; ch"):
            save(net, tmp_path / "w", fmt="bin")
        with pytest.raises(SnapshotError, match=r"none: cannot be read: No such file or directory"):
            copy_trained_layers(net, tmp_path / "none")
        (tmp_path / "file").touch()
        with pytest.raises(SnapshotError, match=r"cannot be written: .*; free some space or ch"):
            save(net, tmp_path / "file" / "w.h5")
    with (
        build(SMALL + 'layer { name: "bn" type: "BatchNorm" bottom: "prob" top: "bn" }') as net,
        pytest.raises(UnsupportedError, match="layer 'bn' has a type that V1 lacks"),
    ):
        save(net, tmp_path / "w.caffemodel", fmt="V1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 reads no Caffe nets; version 4 does"
)
@pytest.mark.parametrize("form", [CAFFEMODEL, "V1"])
def test_opencv_reads_what_is_saved(tmp_path: Path, form: str) -> None:
    deploy, path = tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel"
    deploy.write_text(SMALL)
    with build(SMALL, seed=10) as net:
        save(net, path, fmt=form)
        net.forward()
        expected = net.blobs["prob"].data.host().copy()
        image = net.blobs["data"].data.host().copy()
    judge = cv2.dnn.readNetFromCaffe(str(deploy), str(path))
    judge.setInput(image)
    np.testing.assert_allclose(judge.forward(), expected, rtol=1e-4, atol=1e-6)
