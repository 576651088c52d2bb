"""Table 1 of the paper as data, in the notation of the paper, and the names of its layers.

A row is written as in the paper: "conv3-64" is a convolution with a 3x3 kernel and 64 channels,
"LRN" a local response normalisation. Every stage ends with a 2x2 max-pooling of stride 2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prototxt_gen.errors import ProtoError

Rows = tuple[tuple[str, ...], ...]

NETS: dict[str, Rows] = {
    "A": (
        ("conv3-64",),
        ("conv3-128",),
        ("conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512"),
    ),
    "A-LRN": (
        ("conv3-64", "LRN"),
        ("conv3-128",),
        ("conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512"),
    ),
    "B": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512"),
    ),
    "C": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv1-256"),
        ("conv3-512", "conv3-512", "conv1-512"),
        ("conv3-512", "conv3-512", "conv1-512"),
    ),
    "D": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512"),
    ),
    "E": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512", "conv3-512"),
    ),
    # Section 4.1: net B with each pair of 3x3 layers replaced by one 5x5 layer.
    "B-shallow": (
        ("conv5-64",),
        ("conv5-128",),
        ("conv5-256",),
        ("conv5-512",),
        ("conv5-512",),
    ),
}
FC_WIDTHS = (4096, 4096)
CLASSES = 1000
CROP = 224
MEAN_PIXEL = (103.939, 116.779, 123.68)
"""The mean of the ILSVRC-2012 training set in B, G, R that the released models subtract."""

_CONVOLUTION = re.compile(r"conv([1-9][0-9]{0,9})-([1-9][0-9]{0,9})")
_NORMALISATION = "LRN"


@dataclass(frozen=True)
class Convolution:
    """A stride-1 convolution with an odd square kernel, padded so that the size is kept."""

    kernel: int
    width: int

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ProtoError(
                f"stages: a kernel of {self.kernel} cannot keep the size of its input; expected an "
                f"odd kernel size, got conv{self.kernel}-{self.width}; use 1, 3, 5, 7 or more"
            )
        if not 1 <= self.width < 2**31:
            raise ProtoError(
                f"stages: a convolution of {self.width} channels; expected from 1 to {2**31 - 1}, "
                f"got conv{self.kernel}-{self.width}; change the number after the dash"
            )

    def __str__(self) -> str:
        return f"conv{self.kernel}-{self.width}"


@dataclass(frozen=True)
class Normalisation:
    """A local response normalisation across channels."""

    def __str__(self) -> str:
        return _NORMALISATION


Unit = Convolution | Normalisation
Stages = tuple[tuple[Unit, ...], ...]


@dataclass(frozen=True)
class InitialNet:
    """The net and the layers from which a deeper net is initialised (paper: section 3.1)."""

    net: str
    layers: tuple[str, ...]


INITIAL_NET = InitialNet("A", ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"))


def initial_net_for(name: str) -> InitialNet | None:
    """The initial net of a net of Table 1 in the paper, or None if it is drawn at random.

    The net of section 4.1 has 5x5 kernels, which net A's layers do not fit.
    """
    return INITIAL_NET if name in ("B", "C", "D", "E") else None


def stages_of(name: str) -> Stages:
    """The stages of a net of the paper.

    Raises:
        ProtoError: the paper has no net of that name.
    """
    if name not in NETS:
        raise ProtoError(
            f"net: the paper has no net {name!r}; expected one of {', '.join(NETS)}, "
            f"got {name!r}; for other nets write a spec"
        )
    return parse_stages(NETS[name])


def parse_stages(rows: Iterable[Iterable[str]]) -> Stages:
    """Parse stages from rows in the paper's notation; see `parse_unit`."""
    return tuple(tuple(parse_unit(row) for row in stage) for stage in rows)


def parse_unit(row: str) -> Unit:
    """Parse a row of Table 1.

    Raises:
        ProtoError: the row is not in the paper's notation.
    """
    if row == _NORMALISATION:
        return Normalisation()
    match = _CONVOLUTION.fullmatch(row)
    if match is None:
        raise ProtoError(
            f"stages: {row!r} is not a row of a net; expected 'conv<kernel>-<channels>' or 'LRN', "
            f"got {row!r}; write for example 'conv3-64'"
        )
    return Convolution(int(match[1]), int(match[2]))


def numbered_units(stages: Stages) -> Iterator[list[tuple[str, Unit]]]:
    """The units of each stage with the numbers at the end of their layers' names, from 1.

    The third convolution of stage 4 has "4_3": its layers are conv4_3 and relu4_3. A
    normalisation has the number of the convolution before it.
    """
    for stage, units in enumerate(stages, start=1):
        numbers = itertools.accumulate(int(isinstance(unit, Convolution)) for unit in units)
        yield [(f"{stage}_{number}", unit) for number, unit in zip(numbers, units)]


def fc_number(stages: Stages) -> int:
    """The number of the first fully-connected layer: 6 after five stages, as in fc6."""
    return len(stages) + 1
