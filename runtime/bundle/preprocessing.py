"""How the images of a net are prepared: channel order, size, mean and scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prototxt_gen.errors import SnapshotError
from prototxt_gen.reading import short_repr
from prototxt_gen.toml_tables import is_integer

BGR, RGB, GRAY = "BGR", "RGB", "gray"
ORDERS = (BGR, RGB, GRAY)
_MOST_PIXELS = 65535


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of an image: resize, crop, subtract the mean, multiply by the scale.

    Units: sizes in pixels, the mean in grey levels from 0 to 255.
    """

    crop: tuple[int, int]
    """Height and width of the net's input."""
    short_side: int | None = None
    """The short side to which images are rescaled before the crop; None with `warp`."""
    warp: tuple[int, int] | None = None
    """Height and width to which images are warped before the crop."""
    mean_value: tuple[float, ...] = ()
    """One number, or one for each channel in the order of the channels; empty for no mean."""
    scale: float = 1.0
    """The factor of the pixels after the mean."""
    channel_order: str = BGR

    @property
    def channels(self) -> int:
        """The number of channels of the net's input."""
        return 1 if self.channel_order == GRAY else 3

    def to_json(self) -> dict[str, Any]:
        """The values as in the file of a bundle."""
        return asdict(self)

    def describe(self) -> str:
        """The preparation in words."""
        mean = ", ".join(f"{value:g}" for value in self.mean_value) or "none"
        size = f"short side {self.short_side}"
        if self.warp is not None:
            size = f"warped to {self.warp[0]}x{self.warp[1]}"
        words = f"{self.channel_order}, {size}, crop {self.crop[0]}x{self.crop[1]}, mean {mean}"
        return words if self.scale == 1.0 else f"{words}, scale {self.scale:g}"


def read_preprocessing(values: Any, path: str) -> Preprocessing:
    """The preparation in the JSON of a bundle; `path` is the file in errors.

    Raises:
        SnapshotError: a value is missing, unknown or out of range.
    """
    if not isinstance(values, Mapping):
        raise _error(path, "preprocessing", "an object", values)
    known = Preprocessing.__dataclass_fields__
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise _error(path, f"preprocessing.{unknown[0]}", f"one of {', '.join(known)}", "it")
    order = values.get("channel_order", BGR)
    if order not in ORDERS:
        raise _error(path, "preprocessing.channel_order", f"one of {', '.join(ORDERS)}", order)
    channels = 1 if order == GRAY else 3
    crop = _sides(values.get("crop"), path, "crop")
    warp = values.get("warp")
    short_side = values.get("short_side")
    if short_side is not None and not _is_side(short_side):
        raise _error(path, "preprocessing.short_side", "a number of pixels or null", short_side)
    mean = values.get("mean_value", [])
    if not isinstance(mean, list) or len(mean) not in (0, 1, channels) or not _numbers(mean):
        expected = f"no number, one, or {channels}, from 0 to 255"
        raise _error(path, "preprocessing.mean_value", expected, mean)
    scale = values.get("scale", 1.0)
    if not _is_number(scale) or not 0 < scale < math.inf:
        raise _error(path, "preprocessing.scale", "a number above 0", scale)
    return Preprocessing(
        crop,
        short_side,
        None if warp is None else _sides(warp, path, "warp"),
        tuple(float(value) for value in mean),
        float(scale),
        order,
    )


def _sides(value: Any, path: str, key: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_side, value)):
        raise _error(path, f"preprocessing.{key}", "height and width in pixels", value)
    return value[0], value[1]


def _is_side(value: Any) -> bool:
    return is_integer(value) and 1 <= value <= _MOST_PIXELS


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _numbers(values: list[Any]) -> bool:
    return all(_is_number(value) and 0 <= value <= 255 for value in values)


def _error(path: str, key: str, expected: str, got: object) -> SnapshotError:
    return SnapshotError(
        f"{path}: {key}: expected {expected}, got {short_repr(got)}; write the bundle again"
    )
