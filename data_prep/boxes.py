"""Bounding boxes of ILSVRC and PASCAL VOC: one XML file an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotation_xml import parse_xml
from prototxt_gen.errors import DataError
from prototxt_gen.reading import read_bytes

_MOST_BYTES = 1 << 22


@dataclass(frozen=True)
class Box:
    """An object's box.

    Units: pixels of the stored image (orientation tags ignored), as written in the file; `name` is
    the wnid in ILSVRC.
    """

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float


def read_boxes(path: str | Path) -> list[Box]:
    """Read the boxes of an image in the order of the file; an image may have none.

    Raises:
        DataError: the file is missing, is not such XML, or holds an impossible box.
    """
    try:
        root = parse_xml(read_bytes(path, _MOST_BYTES, regular=True))
    except OSError as cause:
        raise DataError(
            f"{path}: the boxes cannot be read: {cause.strerror}; "
            "unpack the bounding-box archives beside the images"
        ) from cause
    except ValueError as cause:
        raise DataError(
            f"{path}: not XML ({cause}); expected an annotation as ILSVRC's; unpack it again"
        ) from cause
    return [_read_box(item, path) for item in root.iter("object")]


def _read_box(item: Element, path: str | Path) -> Box:
    name = item.findtext("name")
    corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(corner or "missing") for corner in corners)
    except ValueError:
        raise DataError(
            f"{path}: an object with the corners {corners}; expected a bndbox of four numbers: "
            "xmin, ymin, xmax, ymax"
        ) from None
    if not name or not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise DataError(
            f"{path}: an object named {name!r} with corners {corners}; "
            "expected a name and finite numbers"
        )
    if xmax < xmin or ymax < ymin:
        raise DataError(
            f"{path}: a box from ({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g}); "
            "expected xmin <= xmax and ymin <= ymax"
        )
    return Box(name.strip(), xmin, ymin, xmax, ymax)
