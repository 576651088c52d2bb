from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen import heads, proto, vgg
from prototxt_gen.spec import NetSpecification, builtin_spec, with_values
from prototxt_gen.spec_toml import parse_width
from prototxt_gen.text import parse, to_text

PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}


def narrow(net: str, **values: Any) -> NetSpecification:
    spec = builtin_spec(net, 32)
    return with_values(spec, {"width": parse_width("1/16"), "classes": 7, **values})


def weight_shapes(net: Any, crop: int) -> dict[str, tuple[int, ...]]:
    """The weights' shapes, computed layer by layer, independently of the generator."""
    shapes, channels, side = {}, 3, crop
    for layer in net.layer:
        if layer.type == "Convolution":
            param = layer.convolution_param
            kernel, pad = param.kernel_size[0], (param.pad or [0])[0]
            shapes[layer.name] = (param.num_output, channels, kernel, kernel)
            channels, side = param.num_output, side + 2 * pad - kernel + 1
        elif layer.type == "Pooling" and not layer.pooling_param.global_pooling:
            side = math.ceil((side - layer.pooling_param.kernel_size) / 2) + 1
        elif layer.type == "InnerProduct":
            shapes[layer.name] = (layer.inner_product_param.num_output, channels * side * side)
            channels, side = layer.inner_product_param.num_output, 1
    return shapes


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) + shape[0] for shape in shapes.values())


def layers(net: Any, kind: str) -> list[Any]:
    return [layer for layer in net.layer if layer.type == kind]


@pytest.mark.parametrize("head", [heads.train_val, heads.deploy, heads.dense])
@pytest.mark.parametrize("net", list(PARAMETERS))
def test_parameters_are_those_of_the_paper(net: str, head: Any) -> None:
    assert count(weight_shapes(head(builtin_spec(net)), 224)) == PARAMETERS[net]


def test_d_has_the_released_names_in_the_released_order() -> None:
    expected = ["data"]
    for stage, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, convolutions + 1):
            expected += [f"conv{stage}_{number}", f"relu{stage}_{number}"]
        expected.append(f"pool{stage}")
    expected += ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "prob"]
    assert [layer.name for layer in heads.deploy(builtin_spec("D")).layer] == expected


def test_relu_and_dropout_are_in_place_and_every_bottom_is_made_before() -> None:
    for head in (heads.train_val, heads.deploy, heads.dense):
        made: set[str] = set()
        for layer in head(builtin_spec("A-LRN")).layer:
            assert set(layer.bottom) <= made
            made |= set(layer.top)
            in_place = layer.type in ("ReLU", "Dropout")
            assert (list(layer.bottom) == list(layer.top)) == in_place


def test_normalisation_follows_the_relu_with_all_its_constants_written_out() -> None:
    net = heads.train_val(builtin_spec("A-LRN"))
    (norm,) = layers(net, "LRN")
    assert (norm.name, list(norm.bottom)) == ("norm1_1", ["conv1_1"])
    assert to_text(norm.lrn_param).split("\n")[:-1] == [
        "local_size: 5",
        "alpha: 0.0001",
        "beta: 0.75",
        "k: 2",
    ]
    pool = next(layer for layer in net.layer if layer.name == "pool1")
    assert list(pool.bottom) == ["norm1_1"]


def test_learnt_layers_have_caffes_rates_and_zero_biases() -> None:
    for layer in heads.train_val(builtin_spec("D")).layer:
        if layer.type not in ("Convolution", "InnerProduct"):
            assert not layer.param
            continue
        assert [(p.lr_mult, p.decay_mult) for p in layer.param] == [(1, 1), (2, 0)]
        convolution = layer.type == "Convolution"
        param = layer.convolution_param if convolution else layer.inner_product_param
        assert (param.bias_filler.type, param.bias_filler.value) == ("constant", 0)


@pytest.mark.parametrize(
    ("method", "kind", "std"),
    [
        ("gaussian", "gaussian", 0.01),
        ("paper-literal", "gaussian", 0.1),
        ("xavier", "xavier", None),
        ("msra", "msra", None),
    ],
)
def test_each_initialisation_has_its_filler(method: str, kind: str, std: float | None) -> None:
    net = heads.train_val(narrow("D", **{"init.method": method}))
    fillers = [layer.convolution_param.weight_filler for layer in layers(net, "Convolution")]
    fillers += [layer.inner_product_param.weight_filler for layer in layers(net, "InnerProduct")]
    assert len(fillers) == 16
    for filler in fillers:
        assert filler.type == kind
        assert filler.HasField("std") == (std is not None)
        if std is not None:
            assert filler.std == pytest.approx(std)


def test_each_phase_reads_its_own_data() -> None:
    values = {
        "data.train.source": "here/train",
        "data.test.source": "here/val",
        "data.train.batch_size": 64,
        "data.test.batch_size": 20,
        "solver.iter_size": 4,
        "data.mean_value": (1.0, 2.0, 3.0),
    }
    train, test = layers(heads.train_val(narrow("A", **values)), "Data")
    assert [list(layer.top) for layer in (train, test)] == [["data", "label"]] * 2
    assert [layer.include[0].phase for layer in (train, test)] == [proto.TRAIN, proto.TEST]
    assert [layer.data_param.source for layer in (train, test)] == ["here/train", "here/val"]
    assert [layer.data_param.batch_size for layer in (train, test)] == [16, 20]
    assert [layer.transform_param.mirror for layer in (train, test)] == [True, False]
    for layer in (train, test):
        assert layer.data_param.backend == layer.data_param.LMDB
        assert layer.transform_param.crop_size == 32
        assert list(layer.transform_param.mean_value) == [1, 2, 3]


def test_a_mean_file_takes_the_place_of_the_mean_pixel() -> None:
    spec = narrow("A", **{"data.mean_value": (), "data.mean_file": "mean.binaryproto"})
    for layer in layers(heads.train_val(spec), "Data"):
        assert layer.transform_param.mean_file == "mean.binaryproto"
        assert not layer.transform_param.mean_value


def test_accuracies_are_measured_in_test_and_the_loss_in_both_phases() -> None:
    net = heads.train_val(narrow("A"))
    accuracies = layers(net, "Accuracy")
    tops = [(layer.top[0], layer.accuracy_param.top_k) for layer in accuracies]
    assert tops == [("accuracy/top1", 1), ("accuracy/top5", 5)]
    assert all(layer.include[0].phase == proto.TEST for layer in accuracies)
    assert not any("/" in layer.name for layer in net.layer)
    (loss,) = layers(net, "SoftmaxWithLoss")
    assert (list(loss.bottom), list(loss.top), len(loss.include)) == (["fc8", "label"], ["loss"], 0)


def test_top_5_is_left_out_where_there_are_fewer_classes() -> None:
    tops = [layer.top[0] for layer in layers(heads.train_val(narrow("A", classes=4)), "Accuracy")]
    assert tops == ["accuracy/top1"]


def test_no_dropout_means_no_dropout_layers() -> None:
    spec = narrow("A", dropout=0.0)
    for head in (heads.train_val, heads.deploy, heads.dense):
        assert not layers(head(spec), "Dropout")


def test_dropout_follows_the_layers_before_the_classifier() -> None:
    for head in (heads.train_val, heads.deploy, heads.dense):
        drops = layers(head(narrow("A", dropout=0.25)), "Dropout")
        ratios = [(layer.name, layer.dropout_param.dropout_ratio) for layer in drops]
        assert ratios == [("drop6", 0.25), ("drop7", 0.25)]


@pytest.mark.parametrize(("crop", "kernel"), [(224, 7), (64, 2), (32, 1), (100, 4)])
def test_dense_kernels_come_from_the_crop(crop: int, kernel: int) -> None:
    net = heads.dense(builtin_spec("D", crop))
    convolutions = {layer.name: layer.convolution_param for layer in layers(net, "Convolution")}
    sizes = [convolutions[f"fc{n}-conv"].kernel_size[0] for n in (6, 7, 8)]
    assert sizes == [kernel, 1, 1]
    assert not layers(net, "InnerProduct")


def test_dense_weights_are_those_of_the_crop_net_in_another_shape() -> None:
    for name in vgg.NETS:
        spec = narrow(
            name,
            **{
                "crop": 64,
                "data.train.options.short_side": None,
                "data.test.options.short_side": None,
            },
        )
        crop = weight_shapes(heads.deploy(spec), 64)
        dense = weight_shapes(heads.dense(spec), 64)
        renamed = {f"{n}-conv" if n.startswith("fc") else n: s for n, s in crop.items()}
        assert list(renamed) == list(dense)
        for layer, shape in renamed.items():
            assert math.prod(shape) == math.prod(dense[layer])


def test_fc_numbers_follow_the_stages() -> None:
    stages = vgg.parse_stages([["conv3-4"], ["conv3-8"]])
    spec = NetSpecification("two", stages, fc=(16,), crop=224)
    assert heads.fc_names(spec) == ("fc3", "fc4")
    names = [layer.name for layer in heads.deploy(spec).layer]
    assert names[-5:] == ["fc3", "relu3", "drop3", "fc4", "prob"]


@pytest.mark.parametrize("head", [heads.train_val, heads.deploy, heads.dense])
def test_text_reads_back_as_the_same_net(head: Any) -> None:
    net = head(narrow("C"))
    text = to_text(net)
    assert parse(text, proto.NetParameter) == net
    assert to_text(head(narrow("C"))) == text


def with_weights(net: Any, weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """A .caffemodel's bytes: the net with the weights given, in the shapes its layers need."""
    model = type(net)()
    model.CopyFrom(net)
    shapes = weight_shapes(net, 32)
    for layer in model.layer:
        if layer.name in shapes:
            values, bias = weights[layer.name.removesuffix("-conv")]
            layer.blobs.add(data=values.ravel()).shape.dim.extend(shapes[layer.name])
            layer.blobs.add(data=bias).shape.dim.extend(bias.shape)
    return np.frombuffer(model.SerializeToString(), np.uint8)


def test_the_score_map_is_averaged_over_space_before_the_soft_max() -> None:
    score, prob = heads.dense(narrow("A")).layer[-2:]
    assert (list(score.bottom), score.type) == (["fc8-conv"], "Pooling")
    assert to_text(score.pooling_param) == "pool: AVE\nglobal_pooling: true\n"
    assert (list(prob.bottom), prob.type) == (["score"], "Softmax")


@pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromCaffe"), reason="opencv 5 no longer reads Caffe's nets"
)
@pytest.mark.parametrize("name", list(vgg.NETS))
def test_opencv_reads_the_nets_and_dense_on_a_crop_is_the_crop_net(name: str) -> None:
    spec = narrow(name)
    random = np.random.RandomState(3)
    weights = {}
    for layer, shape in weight_shapes(heads.deploy(spec), 32).items():
        scale = math.sqrt(2 / math.prod(shape[1:]))
        weights[layer] = (random.randn(*shape) * scale, random.randn(shape[0]) * 0.1)
    image = random.randn(2, 3, 32, 32).astype(np.float32)
    outputs = []
    for net in (heads.deploy(spec), heads.dense(spec)):
        text = np.frombuffer(to_text(net).encode(), np.uint8)
        judge = cv2.dnn.readNetFromCaffe(text, with_weights(net, weights))
        judge.setInput(image, "data")
        outputs.append(judge.forward("prob").reshape(2, spec.classes))
    assert np.allclose(outputs[0].sum(axis=1), 1)
    assert np.ptp(outputs[0]) > 1e-3
    assert np.allclose(outputs[0], outputs[1], atol=1e-5)


def test_the_first_layer_may_have_noise_of_its_own() -> None:
    spec = narrow("A", **{"init.method": "xavier", "init.first_std": 0.02})
    fillers = [
        layer.convolution_param.weight_filler
        for layer in heads.train_val(spec).layer
        if layer.type == "Convolution"
    ]
    assert (fillers[0].type, round(fillers[0].std, 6)) == ("gaussian", 0.02)
    assert {filler.type for filler in fillers[1:]} == {"xavier"}
