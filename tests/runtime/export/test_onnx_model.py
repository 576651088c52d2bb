from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError, UnsupportedError
from runtime.export.onnx_model import compare, export_onnx, to_onnx
from runtime.layers.lrn import LRNLayer
from runtime.weights.npz import read_npz_weights, write_npz_weights
from tests.runtime.small_net import SMALL, build

HAS_ONNX = importlib.util.find_spec("onnx") is not None
HAS_RUNTIME = importlib.util.find_spec("onnxruntime") is not None
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx is not installed: extra [onnx]")
needs_runtime = pytest.mark.skipif(
    not (HAS_ONNX and HAS_RUNTIME), reason="onnxruntime is not installed: extra [onnx]"
)


def net_of(*layers: str, shape: tuple[int, ...] = (2, 4, 7, 9), second: bool = False) -> str:
    """Input layers x (and z), then layers written as `Type(settings) bottoms -> tops`."""
    dims = " ".join(f"dim: {dim}" for dim in shape)
    text = ""
    for name in ("x", "z") if second else ("x",):
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        text += f"input_param {{ shape {{ {dims} }} }} }}\n"
    for number, layer in enumerate(layers):
        head, _, blobs = layer.partition(")")
        kind, _, settings = head.partition("(")
        bottoms, _, tops = blobs.partition("->")
        text += f'layer {{ name: "l{number}" type: "{kind.strip()}" {settings} '
        text += " ".join(f'bottom: "{name}"' for name in bottoms.split()) + " "
        text += " ".join(f'top: "{name}"' for name in tops.split()) + " }\n"
    return text


CONV = "convolution_param { num_output: 6"
POOL = "pooling_param {"
LAYERS = {
    "conv": f"Convolution({CONV} kernel_size: 3 pad: 1 stride: 2 }}) x -> y",
    "conv_hw": f"Convolution({CONV} kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 0 }}) x -> y",
    "conv_group": f"Convolution({CONV} kernel_size: 3 group: 2 dilation: 2 }}) x -> y",
    "conv_no_bias": f"Convolution({CONV} kernel_size: 1 bias_term: false }}) x -> y",
    "deconv": f"Deconvolution({CONV} kernel_size: 4 stride: 2 pad: 1 group: 2 }}) x -> y",
    "ip": "InnerProduct(inner_product_param { num_output: 5 }) x -> y",
    "ip_transpose": "InnerProduct(inner_product_param { num_output: 5 transpose: true }) x -> y",
    "ip_axis": "InnerProduct(inner_product_param { num_output: 5 axis: -1 }) x -> y",
    "pool_max_ceil": f"Pooling({POOL} kernel_size: 2 stride: 2 }}) x -> y",
    "pool_max_clip": f"Pooling({POOL} kernel_size: 2 stride: 2 pad: 1 }}) x -> y",
    "pool_max_floor": f"Pooling({POOL} kernel_size: 2 stride: 2 round_mode: FLOOR }}) x -> y",
    "pool_ceil_mode": f"Pooling({POOL} kernel_size: 2 stride: 2 ceil_mode: false }}) x -> y",
    "pool_ave_ceil": f"Pooling({POOL} pool: AVE kernel_size: 3 stride: 3 }}) x -> y",
    "pool_ave_pad": f"Pooling({POOL} pool: AVE kernel_size: 3 stride: 2 pad: 1 }}) x -> y",
    "pool_ave_both": f"Pooling({POOL} pool: AVE kernel_size: 4 stride: 4 pad: 1 }}) x -> y",
    "pool_global": f"Pooling({POOL} pool: AVE global_pooling: true }}) x -> y",
    "pool_global_max": f"Pooling({POOL} pool: MAX global_pooling: true }}) x -> y",
    "lrn": "LRN(lrn_param { local_size: 3 alpha: 0.5 k: 2 }) x -> y",
    "lrn_within": "LRN(lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }) x -> y",
    "batch_norm": "BatchNorm() x -> y",
    "mvn": "MVN() x -> y",
    "mvn_across": "MVN(mvn_param { across_channels: true normalize_variance: false }) x -> y",
    "relu": "ReLU() x -> y",
    "relu_slope": "ReLU(relu_param { negative_slope: 0.1 }) x -> y",
    "prelu": "PReLU() x -> y",
    "prelu_shared": "PReLU(prelu_param { channel_shared: true }) x -> y",
    "elu": "ELU(elu_param { alpha: 0.7 }) x -> y",
    "sigmoid": "Sigmoid() x -> y",
    "tanh": "TanH() x -> y",
    "absval": "AbsVal() x -> y",
    "bnll": "BNLL() x -> y",
    "swish": "Swish(swish_param { beta: 1.5 }) x -> y",
    "clip": "Clip(clip_param { min: -0.5 max: 0.7 }) x -> y",
    "threshold": "Threshold(threshold_param { threshold: 0.2 }) x -> y",
    "power": "Power(power_param { power: 2 scale: 0.5 shift: 1 }) x -> y",
    "power_root": "Power(power_param { power: 0.5 shift: 9 }) x -> y",
    "exp": "Exp(exp_param { base: 2 scale: 0.5 shift: 1 }) x -> y",
    "exp_e": "Exp(exp_param { scale: -1 }) x -> y",
    "log": "Log(log_param { base: 10 scale: 2 shift: 20 }) x -> y",
    "scale": "Scale(scale_param { bias_term: true }) x -> y",
    "scale_axes": "Scale(scale_param { axis: 0 num_axes: 2 }) x -> y",
    "bias": "Bias(bias_param { axis: 2 num_axes: -1 }) x -> y",
    "softmax": "Softmax(softmax_param { axis: -1 }) x -> y",
    "flatten": "Flatten(flatten_param { axis: 2 }) x -> y",
    "reshape": "Reshape(reshape_param { shape { dim: 0 dim: -1 dim: 2 } }) x -> y",
    "slice": "Slice(slice_param { slice_point: 1 slice_point: 3 }) x -> a b c",
    "slice_axis": "Slice(slice_param { axis: 0 }) x -> a b",
    "tile": "Tile(tile_param { axis: 2 tiles: 3 }) x -> y",
    "argmax": "ArgMax(argmax_param { axis: 1 }) x -> y",
    "argmax_whole": "ArgMax() x -> y",
    "argmax_value": "ArgMax(argmax_param { axis: 1 out_max_val: true }) x -> y",
    "reduce_sum": "Reduction(reduction_param { axis: 1 coeff: 0.5 }) x -> y",
    "reduce_asum": "Reduction(reduction_param { operation: ASUM axis: 2 }) x -> y",
    "reduce_sumsq": "Reduction(reduction_param { operation: SUMSQ axis: -1 }) x -> y",
    "reduce_mean": "Reduction(reduction_param { operation: MEAN }) x -> y",
    "embed": "Embed(embed_param { input_dim: 9 num_output: 3 }) x -> y",
    "dropout": "Dropout() x -> y",
    "silence": "Silence() x -> ",
    "permute": "Permute(permute_param { order: 0 order: 2 order: 3 order: 1 }) x -> y",
    "normalize": "Normalize(norm_param { channel_shared: false }) x -> y",
    "normalize_channels": "Normalize(norm_param { across_spatial: false eps: 0.1 }) x -> y",
    "relu6": "ReLU6() x -> y",
    "depthwise": f"DepthwiseConvolution({CONV.replace('6', '4')} kernel_size: 3 pad: 1 }}) x -> y",
    "depthwise_no_count": (
        "ConvolutionDepthwise(convolution_param { kernel_size: 3 stride: 2 bias_term: false }) "
        "x -> y"
    ),
    "shuffle_channel": "ShuffleChannel(shuffle_channel_param { group: 2 }) x -> y",
    "interp": "Interp(interp_param { height: 11 width: 5 }) x -> y",
    "interp_zoom": "Interp(interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }) x -> y",
    "interp_one": "Interp(interp_param { height: 1 width: 3 }) x -> y",
    "crop_center": (
        "CropCenter(crop_center_param { crop_size: 0 crop_size: 1 crop_size: 2 crop_size: 3 }) "
        "x -> y"
    ),
    "flip": "Flip(flip_param { flip_height: true }) x -> y",
    "flip_not": "Flip(flip_param { flip_width: false }) x -> y",
    "bn": "BN(bn_param { momentum: 0.9 }) x -> y",
    "bn_frozen": "BN(bn_param { frozen: true eps: 0.5 }) x -> y",
    "bn_inference": "BN(bn_param { bn_mode: INFERENCE }) x -> y",
}
PAIRS = {
    "sum": "Eltwise(eltwise_param { coeff: 1 coeff: -0.5 }) x z -> y",
    "prod": "Eltwise(eltwise_param { operation: PROD }) x z -> y",
    "max": "Eltwise(eltwise_param { operation: MAX }) x z -> y",
    "concat": "Concat() x z -> y",
    "concat_axis": "Concat(concat_param { axis: 0 }) x z -> y",
    "two_convs": f"Convolution({CONV} kernel_size: 3 }}) x z -> y w",
    "scale": "Scale(scale_param { axis: 0 }) x z -> y",
    "bias": "Bias(bias_param { axis: 0 }) x z -> y",
    "interp": "Interp() x z -> y",
    "prior_box": "PriorBox(prior_box_param { min_size: 3 aspect_ratio: 2 clip: true }) x z -> y",
}


def check(prototxt: str) -> dict[str, float]:
    with build(prototxt, seed=11) as net:
        # Variances and what they are divided by are positive.
        for blob in net.params.learnable:
            blob.data.mutable_host()[...] = np.abs(blob.data.host()) + 0.1
        differences = compare(net, *to_onnx(net))
    assert differences is not None
    assert max(differences.values(), default=0) < 2e-6
    return differences


@needs_runtime
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same(name: str) -> None:
    check(net_of(LAYERS[name]))


@needs_runtime
@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_of_two_bottoms_computes_the_same(name: str) -> None:
    check(net_of(PAIRS[name], second=True))


@needs_runtime
def test_crop_and_parameter() -> None:
    pool = f"Pooling({POOL} kernel_size: 3 }}) x -> small"
    check(net_of(pool, "Crop(crop_param { offset: 1 offset: 2 }) x small -> y"))
    check(net_of(pool, "Crop(crop_param { axis: 3 offset: 2 }) x small -> y"))
    shape = " ".join(f"dim: {dim}" for dim in (2, 4, 7, 9))
    own = f"Parameter(parameter_param {{ shape {{ {shape} }} }}) -> w"
    check(net_of(own, "Eltwise() x w -> y"))


@needs_runtime
@pytest.mark.parametrize(
    "pool",
    [
        "kernel_size: 2 stride: 2",
        "kernel_size: 3 stride: 2 pad: 1",
        "kernel_size: 2 stride: 2 ceil_mode: false",
        "global_pooling: true",
    ],
)
def test_a_pooling_with_places_and_its_inverse(pool: str) -> None:
    size = "upsample_param { upsample_h: 7 upsample_w: 9 }"
    check(net_of(f"Pooling({POOL} {pool} }}) x -> p mask", f"Upsample({size}) p mask -> y"))


@needs_runtime
def test_a_squeeze_and_excitation_block() -> None:
    pool = f"Pooling({POOL} pool: AVE global_pooling: true }}) x -> a"
    check(net_of(pool, "Sigmoid() a -> s", "Axpy() s x z -> y", second=True))


@needs_runtime
def test_regions() -> None:
    import onnxruntime

    regions = np.array([[0, 0, 0, 8, 6], [1, 1, 2, 17, 9], [0, 3, 3, 3, 3], [1, 30, 30, 40, 40]])
    given = net_of(shape=(4, 5)).replace('"x"', '"rois"')
    pool = "ROIPooling(roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 })"
    with build(given + net_of(f"{pool} x rois -> y"), seed=3) as net:
        net.blobs["rois"].data.mutable_host()[...] = regions
        net.forward()
        model, values = to_onnx(net)
        feeds = {name: net.blobs[name].data.host() for name in ("x", "rois")}
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (got,) = session.run([values["y"]], feeds)
        np.testing.assert_allclose(got, net.blobs["y"].data.host(), rtol=1e-6)
        assert compare(net, model, values) == {"y": 0.0}


@needs_runtime
@pytest.mark.parametrize("settings", ["", "argmax_param { axis: 1 }"])
def test_the_last_of_equal_maxima_counts(settings: str) -> None:
    check(net_of("Threshold() x -> steps", f"ArgMax({settings}) steps -> y"))


@needs_runtime
def test_names_in_place_and_shared() -> None:
    shared = net_of(
        "ReLU() x -> x",
        f"Convolution({CONV} kernel_size: 3 }}) x -> y",
        "Sigmoid() y -> y",
        "Dropout() y -> a",
        "Dropout() y -> b",
    )
    with build(shared, seed=1) as net:
        model, values = to_onnx(net)
        assert [value.name for value in model.graph.input] == ["x"]
        assert [value.name for value in model.graph.output] == ["a", "b"]
        assert [node.op_type for node in model.graph.node] == [
            "Relu",
            "Conv",
            "Sigmoid",
            "Identity",
        ]
        differences = compare(net, model, values)
    assert differences is not None
    assert max(differences.values()) < 2e-6


@needs_runtime
def test_a_whole_net(tmp_path: Path) -> None:
    with build(SMALL, seed=12) as net:
        difference = export_onnx(net, tmp_path / "small.onnx")
        assert difference is not None
        assert 0 < difference < 1e-5


@needs_runtime
def test_another_result_is_found_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LRNLayer, "to_onnx", lambda layer, step: [step.op("Relu", step.inputs[0])])
    with (
        build(SMALL, seed=13) as net,
        pytest.raises(
            SnapshotError,
            match=r"small\.onnx: the ONNX model computes another blob 'norm1'; expected a differ",
        ),
    ):
        export_onnx(net, tmp_path / "small.onnx")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_opencv_reads_the_model(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    with build(SMALL, seed=14) as net:
        export_onnx(net, path)
        net.forward()
        expected = net.blobs["prob"].data.host().copy()
        image = net.blobs["data"].data.host().copy()
    judge = cv2.dnn.readNetFromONNX(str(path))
    judge.setInput(image)
    np.testing.assert_allclose(judge.forward(), expected, rtol=1e-4, atol=1e-6)


@needs_onnx
@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("SoftmaxWithLoss() x z -> y", "no ONNX form here for layers of type SoftmaxWithLoss; exp"),
        (
            "BN(bn_param { bn_mode: LEARN }) x -> y",
            "(BN): the statistics of a batch has no ONNX form",
        ),
        ("ArgMax(argmax_param { top_k: 2 }) x -> y", "top_k above 1, or both index and maximum"),
        (
            "BatchNorm(batch_norm_param { use_global_stats: false }) x -> y",
            "layer 'l0' (BatchNorm): use_global_stats: false has no ONNX form here; expected a net",
        ),
    ],
)
def test_what_has_no_onnx_form_is_refused_by_name(layer: str, text: str) -> None:
    shape = (2, 1, 1, 1) if "Loss" in layer else (2, 4, 7, 9)
    prototxt = net_of(layer, shape=shape, second=" z " in layer)
    with build(prototxt) as net, pytest.raises(UnsupportedError) as caught:
        to_onnx(net)
    assert text in str(caught.value)


@needs_onnx
def test_a_net_built_to_train_is_refused() -> None:
    with (
        build(SMALL, phase=proto.TRAIN) as net,
        pytest.raises(UnsupportedError, match="expected the phase TEST, got TRAIN; build it for"),
    ):
        to_onnx(net)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with (
        build(SMALL) as net,
        pytest.raises(
            UnsupportedError,
            match=r"the package onnx is missing; expected the extra \[onnx\]; install it with `pi",
        ),
    ):
        export_onnx(net, tmp_path / "x.onnx")


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{name.replace("__", "/"): value for name, value in arrays.items()})
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\x7f"),
        (b"\x00\x00\x00\x00!\x00", b"\x01\x00\x61\x00!\x00"),
        (b"conv", b"\x00onv"),
    ],
)
def test_damaged_zips_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "w.npz"
    write_npz_weights(path, [("conv", [np.ones((2, 3), np.float32)])])
    data = path.read_bytes()
    path.write_bytes(data.replace(old, new))
    assert path.read_bytes() != data
    with pytest.raises(SnapshotError, match=r"not weights in \.npz form"):
        read_npz_weights(path)["conv"][0].array()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{'descr'", b"(('desc'"),
        (b"'<f4'", b"'<f4\n"),
        (b"}", b"("),
        (b"'shape'", b"7      "),
        (b"(2, 3)", b"(a, 3)"),
        (b"(2, 3)", b"(2, -3)"),
        (b"(2, 3)", b"[2, 3]"),
        (b"NUMPY", b"NUMPI"),
        (b"\x01\x00v", b"\x01\x00\x09"),
        (b"\x01\x00v", b"\x01\x00\xff"),
    ],
)
def test_damaged_headers_of_arrays_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    """For every exception of numpy's parser."""
    path, member = tmp_path / "w.npz", io.BytesIO()
    np.save(member, np.ones((2, 3), np.float32))
    data = member.getvalue().replace(old, new)
    assert data != member.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("conv/0.npy", data)
    with pytest.raises(SnapshotError, match=r"not weights in \.npz form"):
        read_npz_weights(path)["conv"][0].array()


def test_npz_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with pytest.raises(SnapshotError, match=r"an array is named 'weights\.npy'; expected array"):
        read_npz_weights(_npz(path, weights=np.zeros(3)))
    with pytest.raises(SnapshotError, match=r"conv/0\.npy has an array \(2,\) of object"):
        read_npz_weights(_npz(path, conv__0=np.array([{}, {}], object)))
    blobs = read_npz_weights(_npz(path, conv__0=np.ones((2, 3)), conv__1=np.ones(2)))
    assert [blob.shape for blob in blobs["conv"].values()] == [(2, 3), (2,)]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SnapshotError, match=r"w\.npz: not weights in \.npz form: "):
        read_npz_weights(path)
