"""What layer types declare about themselves, for every registered type."""

from __future__ import annotations

import pytest

from prototxt_gen import proto
from runtime.core.description import Places, Window
from runtime.core.layer import Layer
from runtime.core.layer_registry import REGISTERED
from runtime.layers.convolution import ConvolutionLayer
from runtime.layers.factory import layer_type_list
from runtime.layers.python_layer import PythonLayer
from runtime.layers.relu import ReLULayer
from runtime.net.batch_cut import divisible_types
from runtime.parallel.shard_plan import coupled_layers
from runtime.pycaffe import coord_map
from runtime.solvers.sgd import SGDRule
from tests.runtime.small_nets import conv, input_layer, layer, net_param, product, shapes_of

TYPES = layer_type_list()


def types_with(name: str) -> set[str]:
    """The types whose class has another value of an attribute than Layer."""
    return {kind for kind in TYPES if getattr(REGISTERED[kind], name) != getattr(Layer, name)}


def test_layers_that_only_call_ops() -> None:
    assert types_with("only_ops") == {
        *("AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Concat", "Convolution"),
        *("ConvolutionDepthwise", "Deconvolution", "DepthwiseConvolution", "Dropout", "ELU"),
        *("Eltwise", "Exp", "Flatten", "InnerProduct", "LRN", "Log", "PReLU", "Pooling", "Power"),
        *(
            "ReLU",
            "ReLU6",
            "Reshape",
            "Scale",
            "Sigmoid",
            "Silence",
            "Slice",
            "Softmax",
            "SoftmaxWithLoss",
        ),
        *("Split", "Swish", "TanH", "Threshold"),
        *("Axpy", "Crop", "CropCenter", "Flip", "MVN", "Normalize", "Permute", "Reduction"),
        *("ShuffleChannel", "Tile"),
    }


@pytest.mark.parametrize("base", [ConvolutionLayer, ReLULayer, PythonLayer])
def test_a_subclass_does_not_inherit_what_holds_for_passes_of_its_base(base: type[Layer]) -> None:
    class Own(base):  # type: ignore[misc, valid-type]
        """A user's class, which may override a pass."""

    class Declared(Own):
        only_ops = can_rectify = True

    assert not (Own.only_ops or Own.can_rectify)
    assert Own.rectifies is Layer.rectifies
    assert Own.can_gate_relu is Layer.can_gate_relu
    assert Own.to_onnx is Layer.to_onnx
    assert Declared.only_ops and Declared.can_rectify


def test_an_update_rule_does_not_inherit_it_either() -> None:
    class Own(SGDRule):
        """A user's rule."""

    assert SGDRule.only_ops and not Own.only_ops


def test_layers_whose_tops_lie_over_their_bottoms() -> None:
    """Original Caffe's list, coord_map.py, under its name there, and types of other builds."""
    same = {kind for kind in TYPES if REGISTERED[kind].places is Places.SAME}
    assert same == set(coord_map.PASS_THROUGH_LAYERS)
    assert same == {
        *("AbsVal", "BatchNorm", "Bias", "BNLL", "Clip", "Dropout", "Eltwise", "ELU", "Log"),
        *("LRN", "Exp", "MVN", "Power", "ReLU", "PReLU", "Scale", "Sigmoid", "Split", "Swish"),
        *("TanH", "Threshold"),
        *("Axpy", "BN", "Normalize", "ReLU6", "ShuffleChannel"),
    }
    assert {kind for kind in types_with("places") if kind not in same} == {
        *("Concat", "Convolution", "Crop", "Deconvolution", "Pooling", "Python", "Slice"),
        *("ConvolutionDepthwise", "DepthwiseConvolution", "Im2col"),
    }


def test_windows() -> None:
    net = shapes_of(
        input_layer(2, 4, 9, 9)
        + conv("c", "data", 4, 3, "stride: 2 pad: 2 dilation: 2")
        + layer("Pooling", "p", "data", "pooling_param { kernel_h: 2 kernel_w: 3 stride: 2 }")
        + layer("LRN", "n", "data", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }")
        + layer("LRN", "across", "data", "lrn_param { local_size: 3 }")
        + conv("up", "data", 4, 4, "stride: 2 pad: 1").replace("Convolution", "Deconvolution")
        + product("ip", "data", 5)
        + conv("columns", "data", 4, 3, "stride: 2 pad: 1").replace("Convolution", "Im2col")
    )
    windows = {str(each.param.name): each.spatial_window() for each in net.layers}
    assert windows["c"] == Window((3, 3), (2, 2), (2, 2), (2, 2))
    assert windows["c"].extent == (5, 5)
    assert windows["columns"] == Window((3, 3), (2, 2), (1, 1), (1, 1))
    assert windows["p"] == Window((2, 3), (2, 2))
    assert windows["n"] == Window((3, 3), pad=(1, 1))
    assert windows["up"] == Window((4, 4), (2, 2), (1, 1), transposed=True)
    assert windows["across"] is windows["ip"] is windows["data"] is None


@pytest.mark.parametrize(("method", "gates"), [("MAX", True), ("AVE", False)])
def test_only_a_maximum_gates_the_relu_before_it(method: str, gates: bool) -> None:
    pool = layer("Pooling", "p", "r", f"pooling_param {{ pool: {method} kernel_size: 2 }}")
    net = shapes_of(input_layer(2, 4, 9, 9) + layer("ReLU", "r", "data") + pool)
    names = ("r", "p")
    assert [net.layer_by_name(name).can_gate_relu for name in names] == [False, gates]
    assert [net.layer_by_name(name).rectifies for name in names] == [True, False]


def test_multiply_adds_of_a_batch() -> None:
    net = shapes_of(input_layer(2, 4, 9, 9) + conv("c", "data", 3, 3) + product("ip", "c", 5))
    counts = {str(each.param.name): each.multiply_adds(1) for each in net.layers}
    assert counts["c"] == 2 * 7 * 7 * 3 * 4 * 3 * 3
    assert counts["ip"] == 2 * 3 * 7 * 7 * 5
    assert sum(counts.values()) == counts["c"] + counts["ip"]


SOURCES = [kind for kind in TYPES if REGISTERED[kind].num_bottom.high == 0]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_declares_where_its_batch_is(kind: str) -> None:
    source, param = REGISTERED[kind], proto.LayerParameter()
    fields = [name for name in (source.batch_param, source.shape_param) if name]
    assert len(fields) == (0 if source.top_is_weight else 1)
    if source.batch_param:
        assert getattr(param, source.batch_param).DESCRIPTOR.fields_by_name["batch_size"]
        source.set_batch(param, 12)
        assert getattr(param, source.batch_param).batch_size == 12
        assert source.divisible_batch(param) == (12 if source.divides_batch else None)
    if source.shape_param:
        getattr(param, source.shape_param).shape.add(dim=[12, 3])


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("Data", "data_param"),
        ("ImageData", "image_data_param"),
        ("HDF5Data", "hdf5_data_param"),
        ("MemoryData", "memory_data_param"),
    ],
)
def test_the_batch_that_a_source_declares_is_the_one_it_reads(kind: str, field: str) -> None:
    param = net_param(f'layer {{ name: "d" type: "{kind}" {field} {{ batch_size: 6 }} }}').layer[0]
    source = REGISTERED[kind]
    assert source.divisible_batch(param) == (None if kind == "MemoryData" else 6)
    source.set_batch(param, 2)
    assert getattr(param, field).batch_size == 2


def test_sources_whose_batch_can_be_divided() -> None:
    assert divisible_types() == ["Data", "HDF5Data", "ImageData"]
    assert types_with("reads_images") == {"Data", "HDF5Data", "ImageData", "Input"}
    assert types_with("is_input") == {"Input"}
    assert REGISTERED["MemoryData"].batch_param == "memory_data_param"


LOSSES = [kind for kind in TYPES if REGISTERED[kind].is_loss]


def couplings(layers: str) -> list[str]:
    return coupled_layers(net_param(layers), proto.NetState(phase=proto.TRAIN))


@pytest.mark.parametrize("kind", TYPES)
def test_why_samples_of_a_batch_are_coupled(kind: str) -> None:
    streams = "continues the sequences of the previous batch, with its streams on the second axis"
    expected = {
        "DetectionOutput": "joins the detections of its batch",
        "LSTM": streams,
        "RNN": streams,
        "BN": "computes statistics over its batch",
        "BatchNorm": "computes statistics over its batch",
        "CenterLoss": "divides the gradient of a centre by the number of its samples in the batch",
        "BatchReindex": "may mix or drop samples of a batch",
        "Filter": "may mix or drop samples of a batch",
        "Python": "may mix or drop samples of a batch",
    }
    found = couplings(layer(kind, "x", "data"))
    assert found == [f"layer 'x' ({kind}) {expected.get(kind)}"] * (kind in expected)
    sums = couplings(layer(kind, "x", "data", "loss_param { normalization: NONE }"))
    assert (sums == [f"layer 'x' ({kind}) does not divide its loss by the number of samples"]) is (
        kind in LOSSES
    )
    ignores = couplings(layer(kind, "x", "data", "loss_param { ignore_label: 1 }"))
    assert any("divides by the number of labels" in each for each in ignores) is (kind in LOSSES)


def test_statistics_of_the_whole_set_do_not_couple() -> None:
    assert (
        couplings(layer("BatchNorm", "b", "x", "batch_norm_param { use_global_stats: true }")) == []
    )
    assert len(LOSSES) == 9


def test_a_type_that_is_not_known_declares_nothing() -> None:
    assert couplings(layer("NoSuchLayer", "x", "data")) == []


def test_weights_of_four_old_dimensions() -> None:
    axes = {kind: REGISTERED[kind].weight_axes for kind in types_with("weight_axes")}
    assert axes == {
        **dict.fromkeys(("Convolution", "Deconvolution"), 4),
        **dict.fromkeys(("ConvolutionDepthwise", "DepthwiseConvolution"), 4),
        "InnerProduct": 2,
    }
    assert types_with("filters_are_rows") == {"Convolution"}


def test_layers_that_are_applied_densely() -> None:
    assert types_with("applies_densely") == {
        *("AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Concat", "Convolution", "Dropout"),
        *("ELU", "Eltwise", "Exp", "Input", "LRN", "Log", "PReLU", "Pooling", "Power", "ReLU"),
        *("Scale", "Sigmoid", "Swish", "TanH", "Threshold"),
        *("BN", "ConvolutionDepthwise", "DepthwiseConvolution", "ReLU6", "ShuffleChannel"),
    }
    assert types_with("reads_scores") == {"Accuracy", "Softmax", "SoftmaxWithLoss"}
    assert types_with("fully_connected") == {"InnerProduct"}


@pytest.mark.parametrize(("bottom", "kernel"), [((1, 3, 5, 4), (5, 4)), ((1, 9), (1, 1))])
def test_a_fully_connected_layer_as_a_convolution(
    bottom: tuple[int, ...], kernel: tuple[int, int]
) -> None:
    given = net_param(product("ip", "x", 7, 'param { name: "shared" lr_mult: 2 }')).layer[0]
    dense = REGISTERED["InnerProduct"].dense_form(given, bottom)
    assert dense is not None
    assert (given.type, dense.type) == ("InnerProduct", "Convolution")
    assert dense.param == given.param and dense.bottom == given.bottom
    assert not dense.HasField("inner_product_param")
    made = dense.convolution_param
    assert (made.num_output, made.bias_term) == (7, True)
    assert (made.kernel_h, made.kernel_w) == kernel


def test_layers_without_an_onnx_form() -> None:
    """Sources other than Input, losses, measures, recurrences with flags of continuation, and what
    depends on the samples of a batch.
    """
    without = set(TYPES) - types_with("to_onnx")
    assert without == {
        *LOSSES,
        *(kind for kind in SOURCES if kind not in ("Input", "Parameter")),
        *("Accuracy", "BatchReindex", "Filter", "HDF5Output", "Python", "SPP"),
        *("YoloDetectionOutput", "Yolov3DetectionOutput"),
        *("DetectionOutput", "Im2col", "LSTM", "LSTMUnit", "RNN"),
    }
