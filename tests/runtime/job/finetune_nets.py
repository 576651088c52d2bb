"""Small nets of many families, as train_val, deploy and dense nets, for fine-tuning."""

from __future__ import annotations

from prototxt_gen import proto, text
from prototxt_gen.proto import Message
from tests.runtime.small_nets import conv, layer

FILLER = 'weight_filler { type: "xavier" }'
DATA = (
    'layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }} '
    "transform_param {{ crop_size: 16 mean_value: 100 }} "
    "data_param {{ source: 'x' batch_size: 2 }} }}\n"
)
TRAIN_DATA = DATA.format(phase="TRAIN") + DATA.format(phase="TEST")
INPUT = "input: 'data' input_dim: 2 input_dim: 3 input_dim: 16 input_dim: 16\n"


def inner(name: str, bottom: str, outputs: int) -> str:
    param = f"inner_product_param {{ num_output: {outputs} {FILLER} }}"
    return layer("InnerProduct", name, bottom, param)


def scored(name: str, scores: str, weight: str = "") -> str:
    """A loss, as in train_val nets."""
    return (
        f'layer {{ name: "{name}" type: "SoftmaxWithLoss" bottom: "{scores}" bottom: "label" '
        f'top: "{name}" {weight} }}\n'
        f'layer {{ name: "{name}-top1" type: "Accuracy" bottom: "{scores}" bottom: "label" '
        f'top: "{name}-top1" include {{ phase: TEST }} }}\n'
    )


VGG = (
    conv("conv1_1", "data", 4, 3, f"pad: 1 {FILLER}")
    + layer("ReLU", "relu1_1", "conv1_1", top="conv1_1")
    + conv("conv2_1", "conv1_1", 6, 3, f"stride: 2 {FILLER}")
    + conv("conv10_1", "conv2_1", 6, 3, f"stride: 2 {FILLER}")
    + inner("fc6", "conv10_1", 12)
    + layer("Dropout", "drop6", "fc6", top="fc6")
    + inner("fc8", "fc6", 10)
)
RESNET = (
    conv("conv1", "data", 4, 3, f"stride: 2 {FILLER}")
    + layer("BatchNorm", "bn_conv1", "conv1", top="conv1")
    + layer("Scale", "scale_conv1", "conv1", "scale_param { bias_term: true }", top="conv1")
    + conv("res2a_branch2a", "conv1", 4, 3, f"pad: 1 {FILLER}")
    + 'layer { name: "res2a" type: "Eltwise" bottom: "conv1" bottom: "res2a_branch2a" '
    'top: "res2a" }\n'
    + layer("Pooling", "pool5", "res2a", "pooling_param { pool: AVE global_pooling: true }")
    + inner("fc1000", "pool5", 10)
)
SQUEEZENET = (
    conv("conv1", "data", 4, 3, f"stride: 2 {FILLER}")
    + conv("conv10", "conv1", 10, 1, FILLER)
    + layer("ReLU", "relu_conv10", "conv10", top="conv10")
    + layer("Pooling", "pool10", "conv10", "pooling_param { pool: AVE global_pooling: true }")
)
GOOGLENET = (
    conv("conv1/7x7_s2", "data", 4, 3, f"stride: 2 {FILLER}")
    + inner("loss1/classifier", "conv1/7x7_s2", 10)
    + scored("loss1/loss", "loss1/classifier", "loss_weight: 0.3")
    + conv("conv2", "conv1/7x7_s2", 4, 3, FILLER)
    + inner("loss3/classifier", "conv2", 10)
    + scored("loss3/loss3", "loss3/classifier", "loss_weight: 1")
)
PROB = 'layer {{ name: "prob" type: "Softmax" bottom: "{}" top: "prob" }}\n'
NETS = {
    "vgg": TRAIN_DATA + VGG + scored("loss", "fc8"),
    "vgg deploy": INPUT + VGG + PROB.format("fc8"),
    "resnet": TRAIN_DATA + RESNET + scored("loss", "fc1000"),
    "resnet deploy": INPUT + RESNET + PROB.format("fc1000"),
    "squeezenet": TRAIN_DATA + SQUEEZENET + scored("loss", "pool10"),
    "squeezenet deploy": INPUT + SQUEEZENET + PROB.format("pool10"),
    "googlenet": TRAIN_DATA + GOOGLENET,
}
HEADS = {
    "vgg": ("fc8",),
    "resnet": ("fc1000",),
    "squeezenet": ("conv10",),
    "googlenet": ("loss1/classifier", "loss3/classifier"),
}


def small(name: str) -> Message:
    """One of NETS, as read from a file."""
    from prototxt_gen.upgrade import upgrade_net

    net = text.parse(f'name: "small"\n{NETS[name]}', proto.NetParameter)
    upgrade_net(net, name)
    return net
