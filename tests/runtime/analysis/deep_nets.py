"""Deep nets as prototxts: a chain, a residual net and one of inception modules."""

from __future__ import annotations

import itertools

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3\n'
INPUT += "  dim: 224 dim: 224 } } }\n"


def data(source: str = "missing") -> str:
    """A data layer for each phase, whose database does not exist."""
    return "".join(
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}'
        f'  data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}\n'
        for phase in ("TRAIN", "TEST")
    )


def layer(name: str, kind: str, bottoms: str, fields: str = "", top: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {read} top: "{top or name}" {fields} }}\n'


def conv(name: str, bottom: str, outputs: int, kernel: int, relu: bool = True) -> str:
    fields = f"num_output: {outputs} kernel_size: {kernel} pad: {kernel // 2}"
    text = layer(name, "Convolution", bottom, f"convolution_param {{ {fields} }}")
    return text + (layer(f"{name}/relu", "ReLU", name, top=name) if relu else "")


def pool(name: str, bottom: str, kernel: int = 3, stride: int = 1) -> str:
    fields = f"kernel_size: {kernel} stride: {stride} pad: {(kernel - stride) // 2}"
    return layer(name, "Pooling", bottom, f"pooling_param {{ {fields} }}")


def head(bottom: str) -> str:
    """A classifier with a loss and, in the TEST phase, an accuracy."""
    text = layer("fc", "InnerProduct", bottom, "inner_product_param { num_output: 10 }")
    text += layer("accuracy", "Accuracy", "fc label", "include { phase: TEST }")
    return text + layer("loss", "SoftmaxWithLoss", "fc label")


def chain(depth: int) -> str:
    """Convolutions with ReLU, one after the other."""
    names = ["data", *(f"conv{i + 1}" for i in range(depth))]
    layers = [conv(name, bottom, 8, 3) for bottom, name in itertools.pairwise(names)]
    return data() + "".join(layers) + head(names[-1])


def residual(blocks: int) -> str:
    """Bottleneck blocks with BatchNorm, Scale and a shortcut."""
    text, bottom = INPUT + conv("conv1", "data", 64, 7), "conv1"
    for block in range(blocks):
        name = f"res{block}"
        inner = bottom
        for part, (outputs, kernel) in enumerate(((16, 1), (16, 3), (64, 1))):
            top = f"{name}_{part}"
            text += conv(top, inner, outputs, kernel, relu=False)
            text += layer(f"{top}/bn", "BatchNorm", top, top=top)
            text += layer(f"{top}/scale", "Scale", top, top=top)
            inner = top
        text += layer(name, "Eltwise", f"{bottom} {inner}")
        text += layer(f"{name}/relu", "ReLU", name, top=name)
        bottom = name
    return text


def inception(modules: int) -> str:
    """Modules of four branches that are concatenated."""
    text, bottom = INPUT + conv("conv1", "data", 64, 7), "conv1"
    for module in range(modules):
        name = f"inception_{module}"
        text += conv(f"{name}/1x1", bottom, 64, 1)
        text += conv(f"{name}/3x3_reduce", bottom, 96, 1)
        text += conv(f"{name}/3x3", f"{name}/3x3_reduce", 128, 3)
        text += conv(f"{name}/5x5_reduce", bottom, 16, 1)
        text += conv(f"{name}/5x5", f"{name}/5x5_reduce", 32, 5)
        text += pool(f"{name}/pool", bottom) + conv(f"{name}/proj", f"{name}/pool", 32, 1)
        branches = " ".join(f"{name}/{branch}" for branch in ("1x1", "3x3", "5x5", "proj"))
        text += layer(f"{name}/output", "Concat", branches)
        bottom = f"{name}/output"
    return text
