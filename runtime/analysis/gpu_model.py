"""Predict a training step on a GPU from units that limit its kernels: arithmetic, caches, memory.

A product is limited by the rate of its units or by the bytes that its tiles read from the L2 cache,
and by the memory of its operands. All other layers are limited by memory. Each launch that is not
part of a CUDA graph adds time; a training step is replayed, so its launches add little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from prototxt_gen.sidecar import FP32
from runtime.backend.cuda.conv import IMPLICIT, WINOGRAD, choose_algorithm
from runtime.net import Net

_TILE = 128
"""Rows and columns of the tiles of the products on tensor cores."""
_EPILOGUE, _STAGE = 5500, 410
"""Instructions of a tile after its main loop, and of one stage of the loop."""
_STAGE_DEPTH = {"tf32": 16, "bf16": 32}
_BYTES = {"tf32": 4, "bf16": 2}
_WEIGHT_SHARE = {"tf32": 0.68, "bf16": 0.92}
"""The rate of the products of weight gradients, relative to those of the other passes."""
_FLOAT = 4


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a GPU, and the shares of them that the kernels reach.

    Units: 10^12 operations per second, 10^12 bytes per second for l2_tbs, 10^9 for memory_gbs,
    10^9 bytes for memory_gb, seconds for launch_gaps.
    """

    title: str
    fp32: float
    tf32: float
    bf16: float
    l2_tbs: float
    memory_gbs: float
    memory_gb: float
    tensor_share: float
    """mma.sync reaches this share of the peak, which on Hopper only wgmma reaches."""
    fp32_share: float = 0.6
    loop_share: float = 0.85
    memory_share: float = 0.75
    launch_gaps: float = 0.0008

    def rate(self, precision: str) -> float:
        """The sustained rate of large products. Units: operations per second."""
        if precision == FP32:
            return self.fp32 * self.fp32_share * 1e12
        bytes_read = 2 * _TILE * _BYTES[precision]
        from_cache = 2 * _TILE * _TILE / bytes_read * self.l2_tbs * 1e12
        units: float = getattr(self, precision) * self.tensor_share * 1e12
        return min(units, from_cache) * self.loop_share

    @property
    def bandwidth(self) -> float:
        """The sustained rate of the memory. Units: bytes per second."""
        return self.memory_gbs * self.memory_share * 1e9


GPUS = {
    "h200": Gpu("H200 SXM", 67.0, 495.0, 990.0, 6.5, 4800.0, 141.0, 0.62),
    "h100": Gpu("H100 SXM", 67.0, 495.0, 990.0, 6.5, 3350.0, 80.0, 0.62),
    "a100": Gpu("A100 SXM 80 GB", 19.5, 156.0, 312.0, 4.5, 2039.0, 80.0, 0.9, fp32_share=0.8),
    "4090": Gpu("RTX 4090", 82.6, 82.6, 165.2, 5.0, 1008.0, 24.0, 0.9),
}


@dataclass(frozen=True)
class Prediction:
    """The seconds of a training step by pass and kind of layer."""

    gpu: str
    precision: str
    batch: int
    forward: float
    backward_data: float
    backward_weight: float
    dense: float
    """Inner products, which are in fp32 in every precision."""
    other: float
    """All other layers."""
    update: float
    launches: float

    @property
    def step(self) -> float:
        parts = (self.forward, self.backward_data, self.backward_weight, self.dense)
        return sum(parts) + self.other + self.update + self.launches

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"step": self.step, "images_per_second": self.batch / self.step}


def predict_step(net: Net, batch: int, name: str, precision: str = FP32) -> Prediction:
    """Predict a training step of a net with a batch, which may not be its own, on one of GPUS."""
    gpu = GPUS[name]
    passes = [_convolution(geom, batch, gpu, precision) for geom in _geometries(net)]
    forward, data, weight = (sum(times) for times in zip(*passes)) if passes else (0.0, 0.0, 0.0)
    parameters = sum(blob.count() for blob in net.params.learnable)
    return Prediction(
        gpu=gpu.title,
        precision=precision,
        batch=batch,
        forward=forward,
        backward_data=data,
        backward_weight=weight,
        dense=sum(_dense(net, index, batch, gpu) for index in range(len(net.layers))),
        other=_other(net, batch, gpu),
        update=5 * _FLOAT * parameters / gpu.bandwidth,
        launches=gpu.launch_gaps,
    )


def prediction_lines(prediction: Prediction) -> list[str]:
    """The prediction as text, with its assumptions."""
    gpu = next(gpu for gpu in GPUS.values() if gpu.title == prediction.gpu)
    rows = (
        ("convolutions, forward", prediction.forward),
        ("convolutions, gradient of the input", prediction.backward_data),
        ("convolutions, gradient of the weights", prediction.backward_weight),
        ("inner products", prediction.dense),
        ("other layers", prediction.other),
        ("update", prediction.update),
        ("launches", prediction.launches),
        ("total", prediction.step),
    )
    rate = prediction.batch / prediction.step
    return [
        f"predicted step of {prediction.batch} images on one {prediction.gpu} in "
        f"{prediction.precision}",
        *(f"  {name:<38} {1e3 * seconds:8.2f} ms" for name, seconds in rows),
        f"  {'images per second':<38} {rate:8.1f}",
        "assumptions of the prediction, none of which has been measured",
        f"  products in {prediction.precision} run at "
        f"{gpu.rate(prediction.precision) / 1e12:.0f} TFLOP/s at most, inner products at "
        f"{gpu.rate(FP32) / 1e12:.0f}",
        f"  memory moves {gpu.bandwidth / 1e9:.0f} GB/s of {gpu.memory_gbs:.0f}; the L2 cache "
        f"gives {gpu.l2_tbs:g} TB/s",
        f"  a tile's end takes {_EPILOGUE} instructions, a stage of its main loop {_STAGE}",
        f"  gaps between launches take {1e3 * gpu.launch_gaps:g} ms, as the step is replayed",
    ]


def _geometries(net: Net) -> Iterator[ConvGeometry]:
    for layer in net.layers:
        geom = getattr(layer, "geom", None)
        if isinstance(geom, ConvGeometry):
            yield geom


def _convolution(geom: ConvGeometry, batch: int, gpu: Gpu, precision: str) -> Sequence[float]:
    """The seconds of forward, gradient of the input and gradient of the weights."""
    geom = replace(geom, n=batch)
    algorithm = choose_algorithm(geom, precision)
    x, y = batch * geom.c * geom.h * geom.w, batch * geom.k * geom.p * geom.q
    flop = 2.0 * y * geom.c // geom.group * geom.kernel[0] * geom.kernel[1]
    moved = _FLOAT * (x + y) / gpu.bandwidth
    if algorithm in WINOGRAD.values():
        tile = next(size for size, name in WINOGRAD.items() if name == algorithm)
        return _winograd(geom, batch, tile, gpu)
    if algorithm == IMPLICIT or precision == FP32:
        seconds = max(flop / gpu.rate(FP32), moved)
        return seconds, seconds, seconds
    return _tensor(geom, flop, x, y, gpu, precision)


def _winograd(geom: ConvGeometry, batch: int, tile: int, gpu: Gpu) -> Sequence[float]:
    size = (tile + 2) ** 2
    tiles = batch * ceil_div(geom.p, tile) * ceil_div(geom.q, tile)
    flop = 2.0 * size * tiles * geom.c * geom.k
    x, y = batch * geom.c * geom.h * geom.w, batch * geom.k * geom.p * geom.q
    product = max(flop / gpu.rate(FP32), _FLOAT * size * tiles * (geom.c + geom.k) / gpu.bandwidth)
    inputs = _FLOAT * (x + size * geom.c * tiles) / gpu.bandwidth
    outputs = _FLOAT * (y + size * geom.k * tiles) / gpu.bandwidth
    return (inputs + product + outputs,) * 3


def _tensor(
    geom: ConvGeometry, flop: float, x: int, y: int, gpu: Gpu, precision: str
) -> Sequence[float]:
    width = _BYTES[precision]
    margin = (geom.h + 2) * (geom.w + 2) / (geom.h * geom.w)
    packs = [(_FLOAT + width * margin) * count / gpu.bandwidth for count in (x, y)]
    rate = gpu.rate(precision)
    taps = geom.kernel[0] * geom.kernel[1]

    def product(channels: int, read: int, written: int) -> float:
        loop = 2 * _STAGE * ceil_div(taps * channels, _STAGE_DEPTH[precision])
        moved = (width * read + _FLOAT * written) / gpu.bandwidth
        return max(flop / (rate * loop / (loop + _EPILOGUE)), moved)

    weight = flop * margin / (rate * _WEIGHT_SHARE[precision])
    return (
        packs[0] + product(geom.c, x, y),
        packs[1] + product(geom.k, y, x),
        sum(packs) + max(weight, width * (x + y) / gpu.bandwidth),
    )


def _dense(net: Net, index: int, batch: int, gpu: Gpu) -> float:
    """The seconds of the three passes of an inner product; 0 for other layers."""
    layer = net.layers[index]
    if not layer.fully_connected:
        return 0.0
    images = net.bottoms[index][0].shape[0]
    multiply_adds = layer.multiply_adds(len(net.bottoms[index])) // max(1, images) * batch
    weights = _FLOAT * sum(blob.count() for blob in layer.blobs) / gpu.bandwidth
    return 3 * max(2.0 * multiply_adds / gpu.rate(FP32), weights)


def _other(net: Net, batch: int, gpu: Gpu) -> float:
    """The seconds of all layers without weights: forward 8 bytes an element, backward 12."""
    elements = 0.0
    for layer, bottoms, tops in zip(net.layers, net.bottoms, net.tops):
        computes = bottoms and not layer.inserted_by_net and not layer.fully_connected
        if computes and not isinstance(getattr(layer, "geom", None), ConvGeometry):
            images = bottoms[0].shape[0] if bottoms[0].num_axes else 1
            count = max(sum(blob.count() for blob in blobs) for blobs in (bottoms, tops))
            elements += count / max(1, images) * batch
    return 20 * elements / gpu.bandwidth
