"""ONNX models of any batch, of any image size, in float16, and with the preparation of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError, UnsupportedError
from runtime.bundle.preprocessing import GRAY, RGB, Preprocessing
from runtime.export.onnx_images import metadata
from runtime.export.onnx_model import compare, export_onnx, to_onnx
from runtime.export.onnx_options import OnnxOptions, shapes_to_compare
from runtime.net import Net
from tests.runtime.export.test_onnx_model import (
    CONV,
    LAYERS,
    PAIRS,
    POOL,
    needs_onnx,
    needs_runtime,
    net_of,
)
from tests.runtime.small_net import SMALL, build

BATCH = OnnxOptions(any_batch=True)
SIZE = OnnxOptions(any_batch=True, any_size=True)
FIXED_BATCH = {"slice_axis", "concat_axis", "scale_axes"}
"""Nets that depend on the number of samples."""
FIXED_SIZE = FIXED_BATCH | {
    "ip",
    "ip_transpose",
    "ip_axis",
    "bias",
    "reshape",
    "crop_center",
    "prior_box",
    "normalize",
}
DENSE = net_of(
    f"Convolution({CONV} kernel_size: 3 pad: 1 }}) x -> a",
    f"Pooling({POOL} kernel_size: 3 stride: 2 }}) a -> b",
    f"Convolution({CONV} kernel_size: 2 }}) b -> c",
    "Softmax() c -> prob",
    shape=(2, 3, 12, 14),
)


def positive(net: Net) -> Net:
    """Give a net weights that are positive, as variances are."""
    for blob in net.params.learnable:
        blob.data.mutable_host()[...] = np.abs(blob.data.host()) + 0.1
    return net


def check(net: Net, options: OnnxOptions, tolerance: float = 4e-6) -> int:
    """Compare a net and its model at every size; returns the number of sizes."""
    model, values = to_onnx(net, options)
    count = 0
    for shapes in shapes_to_compare(net, options):
        differences = compare(net, model, values, shapes, options)
        assert differences is not None
        assert max(differences.values(), default=0) < tolerance, (shapes, differences)
        count += 1
    return count


def run(model: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    results: list[np.ndarray] = session.run(None, feeds)
    return results


@needs_runtime
@pytest.mark.parametrize("name", sorted(set(LAYERS) - FIXED_BATCH))
def test_a_layer_takes_any_batch(name: str) -> None:
    with build(net_of(LAYERS[name]), seed=11) as net:
        assert check(positive(net), BATCH) == 4


@needs_runtime
@pytest.mark.parametrize("name", sorted(set(PAIRS) - FIXED_BATCH - {"scale", "bias"}))
def test_a_layer_of_two_bottoms_takes_any_batch(name: str) -> None:
    with build(net_of(PAIRS[name], second=True), seed=11) as net:
        assert check(positive(net), BATCH) == 4


@needs_runtime
@pytest.mark.parametrize("name", sorted(set(LAYERS) - FIXED_SIZE))
def test_a_layer_takes_images_of_any_size(name: str) -> None:
    with build(net_of(LAYERS[name]), seed=11) as net:
        assert check(positive(net), SIZE) > 4


@needs_runtime
@pytest.mark.parametrize("batch", [1, 3, 7, 32])
def test_a_classifier_at_other_batches(batch: int) -> None:
    with build(SMALL, seed=12) as net:
        model, _ = to_onnx(net, BATCH)
        name = net.inputs[0]
        shape = (batch, *net.blobs[name].shape[1:])
        x = np.random.default_rng(batch).standard_normal(shape, np.float32)
        got = dict(zip(net.outputs, run(model, {name: x})))
        net.blobs[name].reshape(shape)
        net.reshape()
        net.blobs[name].data.mutable_host()[...] = x
        net.forward()
        for output, values in got.items():
            np.testing.assert_allclose(values, net.blobs[output].data.host(), rtol=2e-4, atol=1e-6)


@needs_onnx
def test_the_free_sizes_have_names() -> None:
    with build(DENSE) as net:
        for options, want in (
            (OnnxOptions(), [2, 3, 12, 14]),
            (BATCH, ["batch", 3, 12, 14]),
            (SIZE, ["batch", 3, "height", "width"]),
        ):
            model, _ = to_onnx(net, options)
            dims = model.graph.input[0].type.tensor_type.shape.dim
            assert [dim.dim_param or dim.dim_value for dim in dims] == want
        assert net.blobs["x"].shape == (2, 3, 12, 14)


@needs_onnx
@pytest.mark.parametrize("name", ["slice_axis", "scale_axes"])
def test_a_layer_of_the_axis_of_samples_is_refused(name: str) -> None:
    with (
        build(net_of(LAYERS[name])) as net,
        pytest.raises(UnsupportedError, match=r"expected a net.*--batch fixed"),
    ):
        to_onnx(net, BATCH)


@needs_onnx
@pytest.mark.parametrize("name", ["ip", "ip_axis", "prior_box"])
def test_a_net_of_one_image_size_is_refused(name: str) -> None:
    layers = {**LAYERS, **PAIRS}
    with (
        build(net_of(layers[name], second=name in PAIRS)) as net,
        pytest.raises(UnsupportedError, match="size"),
    ):
        to_onnx(net, SIZE)


@needs_runtime
def test_a_crop_to_the_size_of_the_image() -> None:
    # As in the fully convolutional nets for segmentation.
    layers = (
        f"Convolution({CONV} kernel_size: 3 pad: 10 }}) x -> a",
        "Deconvolution(convolution_param { num_output: 6 kernel_size: 4 stride: 2 }) a -> b",
        "Crop(crop_param { axis: 2 offset: 9 }) b x -> y",
    )
    with build(net_of(*layers), seed=3) as net:
        assert check(positive(net), SIZE) > 4


@needs_runtime
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("name", ["reduce_mean", "reduce_sum", "mvn", "argmax_value", "normalize"])
def test_a_reduction_in_each_opset(name: str, opset: int) -> None:
    with build(net_of(LAYERS[name]), seed=4) as net:
        model, _ = to_onnx(net, OnnxOptions(opset=opset))
        assert model.opset_import[0].version == opset
        check(positive(net), OnnxOptions(any_batch=True, opset=opset))


@needs_onnx
@pytest.mark.parametrize("opset", [-1, 12, 999])
def test_an_opset_out_of_range(opset: int) -> None:
    with build(SMALL) as net, pytest.raises(UnsupportedError, match=r"--opset .*expected 13 to"):
        to_onnx(net, OnnxOptions(opset=opset))


@needs_runtime
def test_half_precision(tmp_path: Path) -> None:
    options = OnnxOptions(any_batch=True, half=True)
    with build(DENSE, seed=5) as net:
        difference = export_onnx(net, tmp_path / "half.onnx", options)
        assert difference is not None
        assert 1e-6 < difference < 1e-2
        export_onnx(net, tmp_path / "whole.onnx", BATCH)
    sizes = [(tmp_path / name).stat().st_size for name in ("half.onnx", "whole.onnx")]
    assert sizes[0] < sizes[1]


@needs_onnx
def test_what_half_precision_does_not_hold() -> None:
    with (
        build(net_of(LAYERS["argmax"])) as net,
        pytest.raises(UnsupportedError, match="has indices, which float16"),
    ):
        to_onnx(net, OnnxOptions(half=True))
    with build(DENSE) as net:
        net.params.learnable[0].data.mutable_host()[...] = 1e5
        with pytest.raises(UnsupportedError, match="values up to 100000; expected at most 65504"):
            to_onnx(net, OnnxOptions(half=True))


@needs_runtime
@pytest.mark.parametrize("half", [False, True])
def test_images_are_prepared_in_the_model(half: bool) -> None:
    preparation = Preprocessing((12, 14), mean_value=(104.0, 117.0, 123.0), scale=0.5)
    options = OnnxOptions(any_batch=True, half=half, images=preparation)
    with build(DENSE, seed=6) as net:
        model, _ = to_onnx(net, options)
        images = np.random.default_rng(0).integers(0, 256, (3, 15, 21, 3), np.uint8)
        (got,) = run(model, {"images": images})
        with pytest.raises(Exception, match="prepare/Reshape"):
            run(model, {"images": images[:, :11]})
        # The definition: the centre, rounded down; BGR; mean; scale.
        centre = images[:, 1:13, 3:17, ::-1].astype(np.float32)
        x = (centre - np.float32([104, 117, 123])).transpose(0, 3, 1, 2) / 2
        net.blobs["x"].reshape(x.shape)
        net.reshape()
        net.blobs["x"].data.mutable_host()[...] = x
        net.forward()
        want = net.blobs["prob"].data.host()
        np.testing.assert_allclose(got, want, atol=0.2 if half else 1e-5)
        net.blobs["x"].reshape((2, 3, 12, 14))
        net.reshape()
        if not half:
            check(net, options)


@needs_runtime
@pytest.mark.parametrize("order", [RGB, GRAY])
def test_other_channel_orders(order: str) -> None:
    channels = 1 if order == GRAY else 3
    layers = net_of("ReLU() x -> y", shape=(1, channels, 4, 4))
    with build(layers) as net:
        model, _ = to_onnx(net, OnnxOptions(images=Preprocessing((4, 4), channel_order=order)))
        images = np.arange(16 * channels, dtype=np.uint8).reshape(1, 4, 4, channels)
        (got,) = run(model, {"images": images})
    np.testing.assert_array_equal(got, images.transpose(0, 3, 1, 2))


@needs_onnx
def test_preparations_that_do_not_fit() -> None:
    with (
        build(net_of(PAIRS["sum"], second=True)) as net,
        pytest.raises(UnsupportedError, match="2 inputs; expected one"),
    ):
        to_onnx(net, OnnxOptions(images=Preprocessing((7, 9))))
    with (
        build(net_of("ReLU() x -> y")) as net,
        pytest.raises(ShapeError, match=r"expected .N,3,H"),
    ):
        to_onnx(net, OnnxOptions(images=Preprocessing((7, 9))))


@needs_onnx
def test_labels_and_mean_are_in_the_model() -> None:
    texts = metadata(Preprocessing((12, 14), 256, mean_value=(104.0,)), ["a, b", "é"])
    with build(DENSE) as net:
        model, _ = to_onnx(net, OnnxOptions(metadata=texts))
    stored = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stored["labels"]) == ["a, b", "é"]
    assert json.loads(stored["mean_value"]) == [104.0]
    assert stored["channel_order"] == "BGR"
    assert json.loads(stored["short_side"]) == 256
