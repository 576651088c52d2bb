"""The nets of a fine-tuning: new classifiers, frozen layers, losses and deploy nets."""

from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.spec import builtin_spec
from runtime.backend.cpu.backend import CpuBackend
from runtime.job.finetune_net import (
    DataLayers,
    FinetuneNet,
    Heads,
    finetune_net,
    net_of_weights,
)
from runtime.net import Net
from runtime.net.shape_net import shape_net
from runtime.weights.net_weights import save
from tests.runtime.job.finetune_nets import HEADS, NETS, small

BACKEND = CpuBackend()
DATA = DataLayers("train_lmdb", "val_lmdb", 4, 2, (104.0, 117.0, 123.0), 0.5)


def make(net: str, classes: int = 7, **values: object) -> FinetuneNet:
    return finetune_net(small(net), Heads(classes, **values), DATA, BACKEND)


def rates(net: object, name: str) -> list[float]:
    layer = next(layer for layer in net.layer if layer.name == name)
    return [param.lr_mult for param in layer.param]


@pytest.mark.parametrize("name", NETS)
def test_every_classifier_is_replaced(name: str) -> None:
    made = make(name)
    old = HEADS[name.split(" ", maxsplit=1)[0]]
    assert dict(made.replaced) == {head: f"{head}-new" for head in old}
    for head in made.replaced.values():
        assert rates(made.train_val, head) == [10, 20]
    names = [layer.name for layer in made.train_val.layer]
    assert not set(old) & set(names)


@pytest.mark.parametrize("name", NETS)
def test_the_nets_can_be_built(name: str) -> None:
    made = make(name)
    for phase in (proto.TRAIN, proto.TEST):
        net = shape_net(made.train_val, phase, BACKEND)
        assert net.blobs["loss"].count() == 1
        assert net.blobs["data"].shape[1:] == (3, 16, 16)
    assert {"accuracy/top1", "accuracy/top5"} <= set(net.blobs)
    deploy = shape_net(made.deploy, proto.TEST, BACKEND)
    assert deploy.outputs == ["prob"]
    assert deploy.blobs["prob"].shape[:2] == (10, 7)
    with pytest.raises(StopIteration):
        next(layer for layer in made.deploy.layer if layer.param)


def test_the_data_layers() -> None:
    train, test = (layer for layer in make("vgg").train_val.layer if layer.type == "Data")
    assert (train.data_param.source, test.data_param.source) == ("train_lmdb", "val_lmdb")
    assert (train.data_param.batch_size, test.data_param.batch_size) == (4, 2)
    assert (train.transform_param.mirror, test.transform_param.mirror) == (True, False)
    assert list(train.transform_param.mean_value) == [104, 117, 123]
    assert test.transform_param.scale == 0.5


def test_auxiliary_heads_keep_their_loss_weights() -> None:
    net = make("googlenet").train_val
    losses = {layer.name: list(layer.loss_weight) for layer in net.layer if "Loss" in layer.type}
    assert losses == {"loss1/loss": [pytest.approx(0.3)], "loss": [1]}
    assert "loss1/classifier-new" not in [x.name for x in make("googlenet").deploy.layer]


def test_no_top_5_for_few_classes() -> None:
    names = [layer.name for layer in make("vgg", 3).train_val.layer]
    assert "accuracy_top1" in names
    assert "accuracy_top5" not in names


def test_the_name_and_the_rate_of_the_new_layer() -> None:
    made = make("vgg", name="fc8_flowers", rate=5.0)
    assert dict(made.replaced) == {"fc8": "fc8_flowers"}
    assert rates(made.train_val, "fc8_flowers") == [5, 10]


@pytest.mark.parametrize("name", ["fc8", "fc6", "conv1_1"])
def test_a_name_that_exists_is_refused(name: str) -> None:
    with pytest.raises(ProtoError, match=f"cannot be called '{name}', which exists"):
        make("vgg", name=name)


@pytest.mark.parametrize(
    ("words", "frozen"),
    [
        (("conv1",), ("conv1_1",)),
        (("conv1..conv2",), ("conv1_1", "conv2_1")),
        (("conv2..fc6",), ("conv2_1", "conv10_1", "fc6")),
        (("conv1_1", "fc6"), ("conv1_1", "fc6")),
        (("conv",), ()),
    ],
)
def test_frozen_layers(words: tuple[str, ...], frozen: tuple[str, ...]) -> None:
    if not frozen:
        frozen = ("conv1_1", "conv2_1", "conv10_1")
        words = ("conv1", "conv2", "conv10")
    made = make("vgg", freeze=words)
    assert made.frozen == frozen
    for name in frozen:
        assert rates(made.train_val, name) == [0, 0]
    net = shape_net(made.train_val, proto.TRAIN, BACKEND)
    learnt = {
        layer.param.name
        for layer in net.layers
        if layer.blobs and any(layer.propagates_to_params(i) for i in range(len(layer.blobs)))
    }
    assert not learnt & set(frozen)


def test_frozen_batch_normalisation_uses_stored_statistics() -> None:
    made = make("resnet", freeze=("conv1..scale_conv1",))
    assert made.frozen == ("conv1", "bn_conv1", "scale_conv1")
    layer = next(layer for layer in made.train_val.layer if layer.name == "bn_conv1")
    assert layer.batch_norm_param.use_global_stats
    assert rates(made.train_val, "bn_conv1") == [0, 0, 0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("conv9", "no layer with weights is called 'conv9'"),
        ("conv1..conv9", "called 'conv9'"),
        ("..conv2", "called ''"),
        ("fc6..conv1", "'conv1' comes before 'fc6'"),
        ("fc8-new", "'fc8-new' is a new classifier"),
        ("conv1..fc8", "no layer with weights is called 'fc8'|is a new classifier"),
    ],
)
def test_wrong_layers_to_freeze(word: str, message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        make("vgg", freeze=(word,))


@pytest.mark.parametrize("form", [heads.train_val, heads.deploy, heads.dense])
def test_the_papers_nets(form: object) -> None:
    made = finetune_net(form(builtin_spec("A", 32)), Heads(6), DATA, BACKEND)
    assert made.crop == (32, 32)
    assert made.frozen == ()
    assert shape_net(made.deploy, proto.TEST, BACKEND).blobs["prob"].shape[:2] == (10, 6)


def test_a_net_without_scores_is_refused() -> None:
    net = small("vgg deploy")
    del net.layer[-1]
    with pytest.raises(ProtoError, match="blob of class scores is unknown"):
        finetune_net(net, Heads(5), DATA, BACKEND)


def test_a_net_without_learnt_layers_is_refused() -> None:
    net = small("vgg deploy")
    del net.layer[1:-1]
    net.layer[-1].bottom[0] = "data"
    with pytest.raises(UnsupportedError, match="do not come from an InnerProduct or Convolution"):
        finetune_net(net, Heads(5), DATA, BACKEND)


def test_the_net_of_a_caffemodel(tmp_path: Path) -> None:
    made = make("googlenet")
    path = tmp_path / "net.caffemodel"
    with Net(made.deploy, proto.TEST, BACKEND) as net:
        save(net, path)
        save(net, tmp_path / "net.npz")
    found = net_of_weights(path)
    assert found is not None
    again = finetune_net(found, Heads(4), DATA, BACKEND)
    assert dict(again.replaced) == {"loss3/classifier-new": "loss3/classifier-new-new"}
    assert net_of_weights(tmp_path / "net.npz") is None
