"""Makes the nets of a fine-tuning from any classification net: train_val, deploy or dense.

The classifiers are the last learnt layers before the class scores: fc8 of VGG nets and CaffeNet,
fc1000 of ResNets, conv10 of SqueezeNet, the three heads of GoogLeNet. Each gets the new number of
classes, a new name, so that old weights are not copied into it, and higher learning rates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.heads import DEPLOY_BATCH, NEW_SUFFIX, TOP_1, TOP_5
from prototxt_gen.layer_ranges import select_layers
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.evaluate.surgery import crop_form
from runtime.layers.factory import class_of
from runtime.net.building import filter_net, net_state
from runtime.net.shape_net import shape_net
from runtime.weights.caffemodel import read_net
from runtime.weights.weights_file import open_weights

LABEL = "label"
_TOP_5_CLASSES = 5
_FILLER_STD = 0.01


@dataclass(frozen=True)
class Heads:
    """What replaces the classifiers of a net."""

    classes: int
    rate: float = 10.0
    """The factor of the learning rate of the new layers; biases get twice as much."""
    name: str | None = None
    """The name of the main classifier; None for its old name with the suffix `-new`."""
    freeze: tuple[str, ...] = ()
    """Layers that are not trained: names, beginnings of names, or ranges such as conv1..conv3."""


@dataclass(frozen=True)
class DataLayers:
    """The images of both phases. Units: `mean_value` in grey levels, B, G, R."""

    train: str
    test: str
    train_batch: int
    test_batch: int
    mean_value: tuple[float, ...] = ()
    scale: float = 1.0
    mirror: bool = True


@dataclass(frozen=True)
class FinetuneNet:
    """The nets of a fine-tuning."""

    train_val: Message
    deploy: Message
    scores: str
    """The blob of the main classifier's scores."""
    replaced: Mapping[str, str]
    """The new name of every replaced layer."""
    frozen: tuple[str, ...]
    crop: tuple[int, int]


def finetune_net(model: Message, heads: Heads, data: DataLayers, backend: Backend) -> FinetuneNet:
    """Replace the classifiers, the data layers and the losses of a net.

    Raises:
        ProtoError: the class scores or the size of the images are unknown, or a name is not that of
            a layer, or exists.
        UnsupportedError: the crops are not square, or no layer before the scores learns.
    """
    model = _without_splits(model)
    net = proto.NetParameter(name=f"{model.name or 'net'}-finetuned")
    body = _body(model)
    # The deepest scores are the main ones; the others are auxiliary heads.
    readers = _score_readers(body)
    crop = crop_form(_with_main_reader(model, readers[-1])).crop
    if crop[0] != crop[1]:
        raise UnsupportedError(
            f"net '{model.name}': crops of {crop[0]}x{crop[1]}; expected square crops, as the Data "
            "layer makes; give a net with a square input"
        )
    images, label = _source_tops(model)
    _add_data(net, data, crop[0], images, label)
    replaced: dict[str, str] = {}
    tops: dict[str, str] = {}
    classifiers = [_classifier(body, reader.bottom[0]) for reader in readers]
    main = classifiers[-1]
    for layer in body:
        if class_of(layer.type).reads_scores:
            continue
        added = net.layer.add()
        added.CopyFrom(layer)
        added.ClearField("blobs")
        if any(layer is classifier for classifier in classifiers):
            new = heads.name if layer is main and heads.name else f"{layer.name}{NEW_SUFFIX}"
            _rename(added, new, tops)
            replaced[str(layer.name)] = new
            _resize(added, heads)
        added.bottom[:] = [tops.get(name, name) for name in added.bottom]
        added.top[:] = [tops.get(name, name) for name in added.top]
    _check_names(net, replaced)
    frozen = _freeze(net, heads.freeze, replaced, backend, images, crop)
    scores = _main_scores(net, tops.get(readers[-1].bottom[0], str(readers[-1].bottom[0])))
    deploy = _deploy(net, scores)
    _add_losses(net, readers, tops, label, heads.classes)
    return FinetuneNet(net, deploy, scores, replaced, frozen, crop)


def deploy_net(model: Message) -> Message:
    """The net from images to the probabilities of a train_val net.

    Raises:
        ProtoError: the class scores or the size of the images are unknown.
    """
    model = _without_splits(model)
    reader = _score_readers(_body(model))[-1]
    return _deploy(_with_main_reader(model, reader), str(reader.bottom[0]))


def learnt_shapes(net: Message, backend: Backend) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the weights of a deploy net, by layer."""
    built = shape_net(net, proto.TEST, backend)
    return {
        str(layer.param.name): tuple(blob.shape for blob in layer.blobs)
        for layer in built.layers
        if layer.blobs
    }


def _body(model: Message) -> list[Message]:
    """The layers of the TRAIN and TEST phases without those that have no bottoms."""
    layers = []
    for layer in model.layer:
        if layer.bottom and not _test_only(layer):
            layers.append(layer)
    readers = [layer for layer in layers if class_of(layer.type).reads_scores]
    if not readers:
        # Scores that only the TEST phase reads, by an Accuracy or a Softmax.
        layers = [layer for layer in filter_net(model, net_state(proto.TEST)).layer if layer.bottom]
    return layers


def net_of_weights(path: str | os.PathLike[str]) -> Message | None:
    """The net that a .caffemodel was written from; None for a file that has only weights.

    Raises:
        SnapshotError: the file is missing or damaged.
    """
    with open_weights(path):
        pass
    if Path(path).suffix.lower() in (".h5", ".hdf5", ".npz"):
        return None
    net, _ = read_net(path)
    if not all(layer.type and layer.top for layer in net.layer):
        return None
    for layer in net.layer:
        # A snapshot has the layers of one phase.
        del layer.include[:], layer.exclude[:]
    return net


def _without_splits(model: Message) -> Message:
    """The net without the layers that Caffe inserts, which a .caffemodel contains."""
    net = proto.NetParameter()
    net.CopyFrom(model)
    del net.layer[:]
    sources: dict[str, str] = {}
    for layer in model.layer:
        if class_of(layer.type).inserted_by_net:
            source = sources.get(str(layer.bottom[0]), str(layer.bottom[0]))
            sources.update((str(top), source) for top in layer.top)
            continue
        added = net.layer.add()
        added.CopyFrom(layer)
        added.bottom[:] = [sources.get(str(name), str(name)) for name in layer.bottom]
    return net


def _test_only(layer: Message) -> bool:
    return any(rule.HasField("phase") and rule.phase == proto.TEST for rule in layer.include)


def _score_readers(body: Sequence[Message]) -> list[Message]:
    """One layer for each blob of scores, in the order of the net; losses come before others."""
    by_blob: dict[str, Message] = {}
    for layer in body:
        if class_of(layer.type).reads_scores:
            blob = str(layer.bottom[0])
            current = by_blob.get(blob)
            if current is None or (class_of(layer.type).is_loss and not _is_loss(current)):
                by_blob[blob] = layer
    if not by_blob:
        crop_form(proto.NetParameter())
    return list(by_blob.values())


def _is_loss(layer: Message) -> bool:
    return bool(class_of(layer.type).is_loss)


def _with_main_reader(model: Message, reader: Message) -> Message:
    """The net whose only reader of scores is `reader`, without the layers of other heads."""
    reduced = proto.NetParameter()
    reduced.CopyFrom(model)
    del reduced.layer[:]
    for layer in model.layer:
        if not class_of(layer.type).reads_scores or layer is reader or layer == reader:
            reduced.layer.add().CopyFrom(layer)
    return reduced


def _source_tops(model: Message) -> tuple[str, str]:
    """The blobs of images and of labels."""
    sources = [layer for layer in model.layer if not layer.bottom and layer.top]
    images = str(sources[0].top[0])
    label = str(sources[0].top[1]) if len(sources[0].top) > 1 else LABEL
    return images, label


def _add_data(net: Message, data: DataLayers, crop: int, images: str, label: str) -> None:
    for phase, source, batch in (
        (proto.TRAIN, data.train, data.train_batch),
        (proto.TEST, data.test, data.test_batch),
    ):
        layer = net.layer.add(name=images, type="Data", top=[images, label])
        layer.include.add(phase=phase)
        transform = layer.transform_param
        if phase == proto.TRAIN and data.mirror:
            transform.mirror = True
        transform.crop_size = crop
        transform.mean_value.extend(data.mean_value)
        if data.scale != 1.0:
            transform.scale = data.scale
        layer.data_param.source = source
        layer.data_param.batch_size = batch
        layer.data_param.backend = layer.data_param.LMDB


def _classifier(body: Sequence[Message], blob: str) -> Message:
    """The last learnt layer before a blob of scores."""
    places = {str(layer.name): place for place, layer in enumerate(body)}
    stop = len(body)
    name = str(blob)
    while True:
        layer = next((one for one in reversed(body[:stop]) if name in one.top), None)
        if layer is None:
            raise UnsupportedError(
                f"the scores '{blob}' do not come from an InnerProduct or Convolution layer; "
                "expected a classification net; give its train_val or deploy prototxt"
            )
        if class_of(layer.type).fully_connected or class_of(layer.type).filters_are_rows:
            return layer
        stop, name = places[str(layer.name)], str(layer.bottom[0])


def _rename(layer: Message, name: str, tops: dict[str, str]) -> None:
    """Give a layer another name, and its top as well if it is called like the layer."""
    for top in layer.top:
        if top == layer.name:
            tops[str(top)] = name
    layer.name = name


def _resize(layer: Message, heads: Heads) -> None:
    connected = class_of(layer.type).fully_connected
    param = layer.inner_product_param if connected else layer.convolution_param
    param.num_output = heads.classes
    if not param.HasField("weight_filler"):
        param.weight_filler.type, param.weight_filler.std = "gaussian", _FILLER_STD
    if param.bias_term and not param.HasField("bias_filler"):
        param.bias_filler.type, param.bias_filler.value = "constant", 0
    del layer.param[:]
    layer.param.add(lr_mult=heads.rate, decay_mult=1)
    if param.bias_term:
        layer.param.add(lr_mult=2 * heads.rate, decay_mult=0)


def _check_names(net: Message, replaced: Mapping[str, str]) -> None:
    names = [str(layer.name) for layer in net.layer if layer.bottom]
    for old, new in replaced.items():
        if names.count(new) > 1 or new == old:
            raise ProtoError(
                f"net '{net.name}': the new classifier cannot be called '{new}', which exists; "
                "expected another name; give one by --layer-name"
            )


def _freeze(
    net: Message,
    words: Sequence[str],
    replaced: Mapping[str, str],
    backend: Backend,
    images: str,
    crop: tuple[int, int],
) -> tuple[str, ...]:
    """Set the rates of layers to 0; returns the names of those that have weights."""
    if not words:
        return ()
    probe = proto.NetParameter(name=net.name)
    source = probe.layer.add(name=images, type="Input", top=[images])
    source.input_param.shape.add(dim=(1, 3, *crop))
    for layer in net.layer:
        if layer.bottom:
            probe.layer.add().CopyFrom(layer)
    counts = {name: len(shapes) for name, shapes in learnt_shapes(probe, backend).items()}
    names = [str(layer.name) for layer in net.layer if str(layer.name) in counts]
    chosen = set(select_layers(words, names, "--freeze"))
    new = sorted(chosen.intersection(replaced.values()))
    if new:
        raise ProtoError(
            f"--freeze: '{new[0]}' is a new classifier; expected layers before it; end the range "
            "earlier"
        )
    for layer in net.layer:
        if str(layer.name) in chosen:
            del layer.param[:]
            for _ in range(counts[str(layer.name)]):
                layer.param.add(lr_mult=0, decay_mult=0)
            _use_stored_statistics(layer)
    return tuple(name for name in names if name in chosen)


def _use_stored_statistics(layer: Message) -> None:
    """Let a normalisation by the statistics of the batch use those that are stored."""
    stored = proto.LayerParameter()
    stored.CopyFrom(layer)
    stored.batch_norm_param.use_global_stats = True
    kind = class_of(layer.type)
    if kind.coupling(layer) is not None and kind.coupling(stored) is None:
        layer.CopyFrom(stored)


def _main_scores(net: Message, scores: str) -> str:
    if not any(scores in layer.top for layer in net.layer):
        raise ProtoError(f"net '{net.name}': no layer has the top '{scores}'; check the net")
    return scores


def _add_losses(
    net: Message, readers: Sequence[Message], tops: Mapping[str, str], label: str, classes: int
) -> None:
    main = readers[-1]
    for reader in readers:
        scores = tops.get(str(reader.bottom[0]), str(reader.bottom[0]))
        name = "loss" if reader is main else str(reader.name)
        loss = net.layer.add(name=name, type="SoftmaxWithLoss", bottom=[scores, label], top=[name])
        if _is_loss(reader) and reader.loss_weight:
            loss.loss_weight.append(reader.loss_weight[0])
        if reader is main:
            _add_accuracy(net, scores, label, classes)


def _add_accuracy(net: Message, scores: str, label: str, classes: int) -> None:
    for top, count in ((TOP_1, 1), (TOP_5, 5)):
        if classes >= _TOP_5_CLASSES or count == 1:
            layer = net.layer.add(
                name=top.replace("/", "_"), type="Accuracy", bottom=[scores, label], top=[top]
            )
            layer.include.add(phase=proto.TEST)
            layer.accuracy_param.top_k = count


def _deploy(net: Message, scores: str) -> Message:
    """The net from images to the probabilities of the main classifier."""
    reduced = crop_form(net, scores).param
    deploy = proto.NetParameter(name=net.name)
    for layer in reduced.layer:
        added: Any = deploy.layer.add()
        added.CopyFrom(layer)
        del added.param[:]
        if class_of(layer.type).is_input:
            added.input_param.shape[0].dim[0] = DEPLOY_BATCH
    deploy.layer.add(name="prob", type="Softmax", bottom=[scores], top=["prob"])
    return deploy
