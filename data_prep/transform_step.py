"""The interface of a step of a transform: what it reads, what it changes, what it declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from data_prep.boxes import Placement
from data_prep.datum import Floats, Image
from data_prep.philox import Words
from prototxt_gen import proto
from prototxt_gen.sidecar import DataOptions

Size = tuple[int, int] | None
"""Height and width; None if they differ from image to image."""


@dataclass(frozen=True)
class Settings:
    """The settings of a layer that concern its transform.

    `param` is its TransformationParameter, `options` are those of the sidecar. Relative paths in
    the options begin at `root`. `name` is for errors.
    """

    param: proto.Message
    train: bool
    name: str = "transform_param"
    options: DataOptions = field(default_factory=DataOptions)
    root: Path = field(default_factory=Path)


@dataclass
class Sample:
    """An image on its way to the batch, and the arithmetic that is left for its final write.

    The value written is ((pixel - offset) - mean) * scale, mirrored or not. `name` is for errors.

    Shapes: pixels (H, W, C), uint8 or float32; offsets (C,); mean (C, H, W), read unmirrored.
    """

    pixels: Image
    name: str
    mirror: bool = False
    offsets: Floats | None = None
    mean: Floats | None = None
    scale: float = 1.0


class Step:
    """One step of a transform. Subclasses are frozen dataclasses of its parameters."""

    words: ClassVar[slice] = slice(0, 0)
    """The random words of an image that the step uses. No two steps share a word."""
    keeps_bytes: ClassVar[bool] = True
    """Whether pixels remain bytes, so that a device can apply the offsets and the scale."""

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        """Create the step from a layer's settings; None if they do not ask for it.

        Raises:
            ProtoError: a parameter is out of range.
            DataError: a file that the settings name cannot be read.
        """
        raise NotImplementedError

    def apply(self, sample: Sample, words: Words) -> None:
        """Change the sample.

        Shapes: words has the length of `self.words`.

        Raises:
            ShapeError, DataError, ProtoError: the step is not possible for this image.
        """
        raise NotImplementedError

    def size(self, before: Size) -> Size:
        """The size of the image after the step. Units: pixels."""
        return before

    def place(self, placement: Placement, words: Words) -> Placement:
        """The placement of the image after the step. A step that moves pixels overrides it."""
        return placement
