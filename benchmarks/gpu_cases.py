"""The cases that are measured on a GPU, as data: layers, nets, modes and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prototxt_gen.geometry import ConvGeometry

# Inputs, outputs and side of the map: every 3x3 convolution of the paper's nets (Table 1).
VGG_LAYERS = (
    (3, 64, 224),
    (64, 64, 224),
    (64, 128, 112),
    (128, 128, 112),
    (128, 256, 56),
    (256, 256, 56),
    (256, 512, 28),
    (512, 512, 28),
    (512, 512, 14),
)
PASSES = ("forward", "backward data", "backward weight")
STEPS = ("training", "inference")
# The most informative first.
PRECISIONS = ("bf16", "tf32", "fp32")


@dataclass(frozen=True)
class Mode:
    """A mode in which PyTorch computes."""

    precision: str
    channels_last: bool

    @property
    def name(self) -> str:
        return f"torch {self.precision} {'channels_last' if self.channels_last else 'NCHW'}"


MODES = tuple(Mode(precision, last) for precision in PRECISIONS for last in (False, True))


@dataclass(frozen=True)
class Size:
    """The amount of work: on a GPU, or in a dry run whose times are meaningless."""

    layers: Sequence[tuple[int, int, int]]
    nets: Sequence[str]
    """See vgg_nets.specification; `D/8` is net D, narrow and on small images."""
    launched: Sequence[str]
    """The nets of which replayed steps are compared with steps launched one by one."""
    batch: int
    elements: int
    """The size of the vectors whose bandwidth is measured."""
    rounds: int
    seconds: float
    """The least time of a contestant's work in one round, which makes timer errors negligible."""


FULL = Size(VGG_LAYERS, ("D", "A", "E"), ("D/8", "A"), 64, 1 << 27, 5, 0.02)
TINY = Size(((3, 8, 6), (16, 16, 6)), ("A/8",), ("A/8",), 1, 1 << 12, 1, 0.0)
SIZES = {"full": FULL, "tiny": TINY}


def geometry(layer: tuple[int, int, int], batch: int) -> ConvGeometry:
    """A 3x3 convolution that keeps the size of the map."""
    c, k, side = layer
    return ConvGeometry(batch, c, side, side, k, (3, 3), (1, 1), (1, 1))


def gflop(layer: tuple[int, int, int], batch: int) -> float:
    """Operations of the direct algorithm, the same in each of the three passes. Units: 10^9."""
    c, k, side = layer
    return 2e-9 * batch * k * c * 9 * side * side


# Bytes read and written per element of the input, by op: the gradient of a 2x2 pooling reads a
# quarter of the elements and their positions, and writes all elements.
BANDWIDTH = {
    "relu forward": 8,
    "relu backward": 12,
    "max pool forward": 6,
    "max pool backward": 6,
    "bias forward": 8,
    "dropout forward": 9,
    "sgd update": 20,
    "axpy": 12,
}
