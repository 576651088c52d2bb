"""The Caffe nets of a specification: to train and test, to deploy on crops, to apply densely.

The three share their convolutions and have the layer names of the released models: conv1_1,
relu1_1, pool1 .. fc6, relu6, drop6 .. fc8, prob. Only the fully-connected layers of the dense net
have other names, fc6-conv, fc7-conv, fc8-conv, as in Caffe's example of net surgery: their weights
are the same numbers in another shape, which Caffe does not copy by name.
"""

from __future__ import annotations

from prototxt_gen import proto, vgg
from prototxt_gen.errors import ProtoError
from prototxt_gen.families import families
from prototxt_gen.integers import ceil_div
from prototxt_gen.layer_ranges import select_layers
from prototxt_gen.net_layers import add_average, add_convolution, add_layer, learnt
from prototxt_gen.proto import Message
from prototxt_gen.spec import Finetuning, Initialisation, NetSpecification
from prototxt_gen.vgg import Convolution

CHANNELS = 3
DEPLOY_BATCH = 10
"""The batch size of the released models: the ten crops of one image."""
DENSE_SUFFIX = "-conv"
NEW_SUFFIX = "-new"
TOP_1, TOP_5 = "accuracy/top1", "accuracy/top5"


def train_val(spec: NetSpecification) -> Message:
    """The net that a solver trains and tests, from LMDBs to the loss, and accuracies in TEST."""
    net = proto.NetParameter(name=spec.name)
    _data_layer(net, spec, proto.TRAIN)
    _data_layer(net, spec, proto.TEST)
    scores = _scores(net, spec, spec.init)
    _accuracy(net, scores, TOP_1, 1)
    # Caffe does not accept a top_k that is larger than the number of scores.
    if spec.classes >= 5:
        _accuracy(net, scores, TOP_5, 5)
    loss = add_layer(net, "SoftmaxWithLoss", "loss", scores, "loss")
    loss.bottom.append("label")
    if spec.finetune is not None:
        _set_rates(net, spec.finetune, scores)
    return net


def _set_rates(net: Message, finetune: Finetuning, classifier: str) -> None:
    """Raise the rates of the classifier, and set those of frozen layers to 0.

    Raises:
        ProtoError: a frozen layer does not exist, or is the classifier.
    """
    learnt_layers = {str(layer.name): layer for layer in net.layer if layer.param}
    frozen = select_layers(finetune.freeze, list(learnt_layers), "finetune.freeze")
    if classifier in frozen:
        raise ProtoError(
            f"finetune.freeze: '{classifier}' is the new classifier; expected layers before it; "
            "end the range earlier"
        )
    for param in learnt_layers[classifier].param:
        param.lr_mult *= finetune.rate
    for name in frozen:
        for param in learnt_layers[name].param:
            param.lr_mult = param.decay_mult = 0


def deploy(spec: NetSpecification) -> Message:
    """The net that classifies crops; its output is `prob`."""
    net = proto.NetParameter(name=spec.name)
    _input(net, (DEPLOY_BATCH, CHANNELS, spec.crop, spec.crop))
    add_layer(net, "Softmax", "prob", _scores(net, spec), "prob")
    return net


def dense(spec: NetSpecification) -> Message:
    """The net that is applied to uncropped images of any size that is at least the crop's.

    The last `fcN-conv` is the map of class scores; `score` is its spatial average and `prob` the
    soft-max of `score`: one row per image of any size.

    Paper: section 3.2.
    """
    net = proto.NetParameter(name=spec.name)
    _input(net, (1, CHANNELS, spec.crop, spec.crop))
    if spec.family is not None:
        add_layer(net, "Softmax", "prob", _scores(net, spec), "prob")
        return net
    add_average(net, "score", _fully_convolutional(net, spec, _convolutions(net, spec)))
    add_layer(net, "Softmax", "prob", "score", "prob")
    return net


def map_side(spec: NetSpecification) -> int:
    """The side of the last pooling's output on a crop: 7 for the paper's nets."""
    side = spec.crop
    for _ in spec.stages:
        # Caffe's pooling includes a last window that extends beyond the border.
        side = ceil_div(side, 2)
    return side


def fc_names(spec: NetSpecification) -> tuple[str, ...]:
    """The names of the fully-connected layers, the classifier last: fc6, fc7, fc8.

    The classifier of a fine-tuning has another name, so that old weights are not copied into it.

    Raises:
        ProtoError: the net belongs to a family without them.
    """
    if spec.family is not None:
        raise ProtoError(
            f"net {spec.name}: it has no layers fc6 to fc8; expected a net of stages, got "
            f"{spec.family}; use a net of the paper"
        )
    first = vgg.fc_number(spec.stages)
    names = [f"fc{first + index}" for index in range(len(spec.fc) + 1)]
    if spec.finetune is not None:
        names[-1] = spec.finetune.layer or f"{names[-1]}{NEW_SUFFIX}"
    return tuple(names)


def _scores(net: Message, spec: NetSpecification, init: Initialisation | None = None) -> str:
    """Add the layers from the images to the class scores, and return the scores' blob."""
    if spec.family is not None:
        return str(families()[spec.family].scores(net, spec, init))
    return _fully_connected(net, spec, _convolutions(net, spec, init), init)


def _input(net: Message, shape: tuple[int, ...]) -> None:
    add_layer(net, "Input", "data", None, "data").input_param.shape.add(dim=shape)


def _data_layer(net: Message, spec: NetSpecification, phase: int) -> None:
    training = phase == proto.TRAIN
    source = spec.data.train if training else spec.data.test
    layer = add_layer(net, "Data", "data", None, "data")
    layer.top.append("label")
    layer.include.add(phase=phase)
    transform = layer.transform_param
    if training and spec.data.train.mirror:
        transform.mirror = True
    transform.crop_size = spec.crop
    transform.mean_value.extend(spec.data.mean_value)
    if spec.data.mean_file:
        transform.mean_file = spec.data.mean_file
    layer.data_param.source = source.source
    layer.data_param.batch_size = spec.train_batch if training else source.batch_size
    layer.data_param.backend = layer.data_param.LMDB


def _convolutions(net: Message, spec: NetSpecification, init: Initialisation | None = None) -> str:
    """Add all stages and return the last top; with `init`, layers have rates and fillers."""
    top = "data"
    for stage, units in enumerate(vgg.numbered_units(spec.stages), start=1):
        for name, unit in units:
            if isinstance(unit, Convolution):
                width = spec.scaled(unit.width)
                pad = unit.kernel // 2
                layer = add_convolution(net, f"conv{name}", top, width, unit.kernel, pad)
                top = layer.name
                learnt(layer, layer.convolution_param, init)
                if init is not None and init.first_std is not None and name == "1_1":
                    filler = layer.convolution_param.weight_filler
                    filler.type, filler.std = "gaussian", init.first_std
                add_layer(net, "ReLU", f"relu{name}", top, top)
            else:
                top = _normalisation(net, spec, f"norm{name}", top)
        pooling = add_layer(net, "Pooling", f"pool{stage}", top, f"pool{stage}").pooling_param
        pooling.pool = pooling.MAX
        pooling.kernel_size = pooling.stride = 2
        top = f"pool{stage}"
    return top


def _normalisation(net: Message, spec: NetSpecification, name: str, bottom: str) -> str:
    param = add_layer(net, "LRN", name, bottom, name).lrn_param
    # All four are written: Krizhevsky's k is 2, Caffe's default is 1.
    for key, value in vars(spec.lrn).items():
        setattr(param, key, value)
    return name


def _fully_connected(
    net: Message, spec: NetSpecification, bottom: str, init: Initialisation | None = None
) -> str:
    """Add the fully-connected layers and return the classifier's top."""
    top = bottom
    for name, width in _fc_widths(spec):
        layer = add_layer(net, "InnerProduct", name, top, name)
        layer.inner_product_param.num_output = width
        learnt(layer, layer.inner_product_param, init)
        top = name
        _after_hidden(net, spec, name, top)
    return top


def _fully_convolutional(net: Message, spec: NetSpecification, bottom: str) -> str:
    """Add the fully-connected layers as convolutions; the first covers a crop's last map."""
    top, kernel = bottom, map_side(spec)
    for name, width in _fc_widths(spec):
        top = add_convolution(net, f"{name}{DENSE_SUFFIX}", top, width, kernel).name
        kernel = 1
        _after_hidden(net, spec, name, top)
    return top


def _fc_widths(spec: NetSpecification) -> list[tuple[str, int]]:
    widths = [*(spec.scaled(width) for width in spec.fc), spec.classes]
    return list(zip(fc_names(spec), widths))


def _after_hidden(net: Message, spec: NetSpecification, name: str, top: str) -> None:
    """Add the layers after a fully-connected layer that is not the classifier."""
    if name == fc_names(spec)[-1]:
        return
    number = name.removeprefix("fc")
    add_layer(net, "ReLU", f"relu{number}", top, top)
    if spec.dropout:
        layer = add_layer(net, "Dropout", f"drop{number}", top, top)
        layer.dropout_param.dropout_ratio = spec.dropout


def _accuracy(net: Message, scores: str, top: str, top_k: int) -> None:
    # Caffe cannot save a net as HDF5 if the name of a layer has a slash; names of blobs may.
    layer = add_layer(net, "Accuracy", top.replace("/", "_"), scores, top)
    layer.bottom.append("label")
    layer.include.add(phase=proto.TEST)
    layer.accuracy_param.top_k = top_k
