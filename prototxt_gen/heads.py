"""A specification as Caffe nets: to train and test, to deploy on crops, to apply densely.

The three share their convolutions and carry the names of the released models: conv1_1, relu1_1,
pool1 .. fc6, relu6, drop6 .. fc8, prob. Only the dense net's fully-connected layers are called
otherwise, fc6-conv, fc7-conv, fc8-conv, as in Caffe's own example of such surgery: their weights
are the same numbers in another shape, which Caffe does not copy by name.
"""

from __future__ import annotations

from prototxt_gen import proto, vgg
from prototxt_gen.proto import Message
from prototxt_gen.spec import Initialisation, NetSpecification
from prototxt_gen.vgg import Convolution

CHANNELS = 3
DEPLOY_BATCH = 10
"""As in the released models: the ten crops of one image."""
DENSE_SUFFIX = "-conv"
TOP_1, TOP_5 = "accuracy/top1", "accuracy/top5"

_GAUSSIAN_STD = {
    "gaussian": 0.01,
    "from-net-a": 0.01,
    # The paper's words are "10^-2 variance".
    "paper-literal": 0.1,
}


def train_val(spec: NetSpecification) -> Message:
    """The net that a solver trains and tests: LMDBs in; a loss, and accuracies in TEST, out."""
    net = proto.NetParameter(name=spec.name)
    _data_layer(net, spec, proto.TRAIN)
    _data_layer(net, spec, proto.TEST)
    top = _convolutions(net, spec, spec.init)
    scores = _fully_connected(net, spec, top, spec.init)
    _accuracy(net, scores, TOP_1, 1)
    # Caffe refuses to look for the label among more scores than there are.
    if spec.classes >= 5:
        _accuracy(net, scores, TOP_5, 5)
    loss = _add(net, "SoftmaxWithLoss", "loss", scores, "loss")
    loss.bottom.append("label")
    return net


def deploy(spec: NetSpecification) -> Message:
    """The net that classifies crops; its output is `prob`."""
    net = proto.NetParameter(name=spec.name)
    _input(net, (DEPLOY_BATCH, CHANNELS, spec.crop, spec.crop))
    scores = _fully_connected(net, spec, _convolutions(net, spec))
    _add(net, "Softmax", "prob", scores, "prob")
    return net


def dense(spec: NetSpecification) -> Message:
    """The net that is applied to whole images of any size from the crop's on.

    The last `fcN-conv` is the map of class scores; `score` is its average over space and `prob`
    the soft-max of that: one row an image, whatever its size.

    Paper: section 3.2.
    """
    net = proto.NetParameter(name=spec.name)
    _input(net, (1, CHANNELS, spec.crop, spec.crop))
    scores = _fully_convolutional(net, spec, _convolutions(net, spec))
    average = _add(net, "Pooling", "score", scores, "score").pooling_param
    average.pool = average.AVE
    average.global_pooling = True
    _add(net, "Softmax", "prob", "score", "prob")
    return net


def map_side(spec: NetSpecification) -> int:
    """The side of the last pooling's output on a crop: 7 for the paper's nets."""
    side = spec.crop
    for _ in spec.stages:
        # Caffe's pooling keeps a last window that is cut off by the border.
        side = -(-side // 2)
    return side


def fc_names(spec: NetSpecification) -> tuple[str, ...]:
    """The fully-connected layers' names, the classifier last: fc6, fc7, fc8."""
    first = vgg.fc_number(spec.stages)
    return tuple(f"fc{first + index}" for index in range(len(spec.fc) + 1))


def _add(net: Message, kind: str, name: str, bottom: str | None, top: str) -> Message:
    layer = net.layer.add(name=name, type=kind)
    if bottom is not None:
        layer.bottom.append(bottom)
    layer.top.append(top)
    return layer


def _input(net: Message, shape: tuple[int, ...]) -> None:
    _add(net, "Input", "data", None, "data").input_param.shape.add(dim=shape)


def _data_layer(net: Message, spec: NetSpecification, phase: int) -> None:
    training = phase == proto.TRAIN
    source = spec.data.train if training else spec.data.test
    layer = _add(net, "Data", "data", None, "data")
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
    """Add every stage and return the last top; with `init`, the layers say how they are learnt."""
    top = "data"
    for stage, units in enumerate(vgg.numbered_units(spec.stages), start=1):
        for name, unit in units:
            if isinstance(unit, Convolution):
                width = spec.scaled(unit.width)
                top = _convolution(net, f"conv{name}", top, width, unit.kernel, unit.kernel // 2)
                _learnt(net.layer[-1], net.layer[-1].convolution_param, init)
                if init is not None and init.first_std is not None and name == "1_1":
                    filler = net.layer[-1].convolution_param.weight_filler
                    filler.type, filler.std = "gaussian", init.first_std
                _add(net, "ReLU", f"relu{name}", top, top)
            else:
                top = _normalisation(net, spec, f"norm{name}", top)
        pooling = _add(net, "Pooling", f"pool{stage}", top, f"pool{stage}").pooling_param
        pooling.pool = pooling.MAX
        pooling.kernel_size = pooling.stride = 2
        top = f"pool{stage}"
    return top


def _convolution(net: Message, name: str, bottom: str, width: int, kernel: int, pad: int) -> str:
    param = _add(net, "Convolution", name, bottom, name).convolution_param
    param.num_output = width
    if pad:
        param.pad.append(pad)
    param.kernel_size.append(kernel)
    return name


def _normalisation(net: Message, spec: NetSpecification, name: str, bottom: str) -> str:
    param = _add(net, "LRN", name, bottom, name).lrn_param
    # All four are written out: Krizhevsky's k is 2, Caffe's default is 1.
    for key, value in vars(spec.lrn).items():
        setattr(param, key, value)
    return name


def _fully_connected(
    net: Message, spec: NetSpecification, bottom: str, init: Initialisation | None = None
) -> str:
    """Add the fully-connected layers and return the classifier's top."""
    top = bottom
    for name, width in _fc_widths(spec):
        layer = _add(net, "InnerProduct", name, top, name)
        layer.inner_product_param.num_output = width
        _learnt(layer, layer.inner_product_param, init)
        top = name
        _after_hidden(net, spec, name, top)
    return top


def _fully_convolutional(net: Message, spec: NetSpecification, bottom: str) -> str:
    """Add the same layers as convolutions, the first one as wide as a crop's last map."""
    top, kernel = bottom, map_side(spec)
    for name, width in _fc_widths(spec):
        top = _convolution(net, f"{name}{DENSE_SUFFIX}", top, width, kernel, 0)
        kernel = 1
        _after_hidden(net, spec, name, top)
    return top


def _fc_widths(spec: NetSpecification) -> list[tuple[str, int]]:
    widths = [*(spec.scaled(width) for width in spec.fc), spec.classes]
    return list(zip(fc_names(spec), widths))


def _after_hidden(net: Message, spec: NetSpecification, name: str, top: str) -> None:
    """What follows every fully-connected layer but the classifier."""
    if name == fc_names(spec)[-1]:
        return
    number = name.removeprefix("fc")
    _add(net, "ReLU", f"relu{number}", top, top)
    if spec.dropout:
        layer = _add(net, "Dropout", f"drop{number}", top, top)
        layer.dropout_param.dropout_ratio = spec.dropout


def _learnt(layer: Message, param: Message, init: Initialisation | None) -> None:
    """Give a layer its rates (the bias learns twice as fast and does not decay) and fillers."""
    if init is None:
        return
    layer.param.add(lr_mult=1, decay_mult=1)
    layer.param.add(lr_mult=2, decay_mult=0)
    if init.method in _GAUSSIAN_STD:
        param.weight_filler.type = "gaussian"
        param.weight_filler.std = _GAUSSIAN_STD[init.method]
    else:
        param.weight_filler.type = init.method
    param.bias_filler.type = "constant"
    param.bias_filler.value = 0


def _accuracy(net: Message, scores: str, top: str, top_k: int) -> None:
    # Caffe cannot save a net as HDF5 when a layer's name has a slash; a blob's may.
    layer = _add(net, "Accuracy", top.replace("/", "_"), scores, top)
    layer.bottom.append("label")
    layer.include.add(phase=proto.TEST)
    layer.accuracy_param.top_k = top_k
