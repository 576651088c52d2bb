"""The first directory of a TIFF file: its size, and its orientation, which is never applied."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from data_prep.image_formats import MAX_PIXELS, TIFF, ImageHeader

_WIDTH, _HEIGHT = 256, 257
_COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 259, 262, 274
_SAMPLES, _ROWS_PER_STRIP = 277, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323

_NUMBER_TYPES = {1: "B", 3: "H", 4: "I"}
_SHORT = 3
_UPRIGHT = 1
# None, CCITT (three kinds), LZW, JPEG, deflate (two numbers), PackBits. Others hold a second size,
# or need libraries that not every OpenCV is built with.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
# Gray (two kinds), RGB, palette, CMYK, YCbCr.
_PHOTOMETRICS = frozenset({0, 1, 2, 3, 5, 6})
_MOST_SAMPLES = 4
_UNLIMITED = (1 << 32) - 1


@dataclass(frozen=True)
class _Directory:
    data: bytes
    order: str
    entries: dict[int, int]
    """Position of the entry of each tag."""

    def number(self, tag: int, default: int | None = None) -> int:
        """The value of a field of one number."""
        if tag not in self.entries:
            if default is None:
                raise ValueError(f"a TIFF directory without field {tag}")
            return default
        position = self.entries[tag]
        kind, count = struct.unpack_from(self.order + "HI", self.data, position + 2)
        if kind not in _NUMBER_TYPES or count != 1:
            raise ValueError(f"a TIFF directory with {count} values of type {kind} in field {tag}")
        (value,) = struct.unpack_from(self.order + _NUMBER_TYPES[kind], self.data, position + 8)
        return int(value)


def _first_directory(data: bytes) -> _Directory:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries: dict[int, int] = {}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(order + "H", data, position)
        if tag in entries:
            raise ValueError(f"a TIFF directory with two fields {tag}")
        entries[tag] = position
    return _Directory(data, order, entries)


def read_tiff(data: bytes) -> ImageHeader:
    """Read the size of the first image, and check what the decoder allocates besides it.

    Raises:
        ValueError, struct.error: see image_formats.
    """
    directory = _first_directory(data)
    width, height = directory.number(_WIDTH), directory.number(_HEIGHT)
    compression, photometric = directory.number(_COMPRESSION, 1), directory.number(_PHOTOMETRIC)
    if compression not in _COMPRESSIONS or photometric not in _PHOTOMETRICS:
        raise ValueError(f"a TIFF file of compression {compression}, photometric {photometric}")
    if not 1 <= directory.number(_SAMPLES, 1) <= _MOST_SAMPLES:
        raise ValueError(f"a TIFF file of more than {_MOST_SAMPLES} channels")
    if 0 < height * width <= MAX_PIXELS:
        _check_pieces(directory, height, width)
    return ImageHeader(TIFF, height, width)


def _check_pieces(directory: _Directory, height: int, width: int) -> None:
    rows, columns = _piece(directory, height, width)
    if min(rows, columns) < 1 or rows * columns > MAX_PIXELS:
        raise ValueError(f"a TIFF file in tiles or strips of {rows}x{columns}")
    # The directory holds an offset of two bytes or more for each piece.
    if -(-height // rows) * -(-width // columns) * 2 > len(directory.data):
        raise ValueError(f"{TIFF} header of {height}x{width}, truncated or corrupt")


def _piece(directory: _Directory, height: int, width: int) -> tuple[int, int]:
    if {_TILE_WIDTH, _TILE_HEIGHT} & directory.entries.keys():
        return directory.number(_TILE_HEIGHT), directory.number(_TILE_WIDTH)
    rows = directory.number(_ROWS_PER_STRIP, _UNLIMITED)
    return (height if rows == _UNLIMITED else rows), width


def without_orientation(data: bytes) -> bytes:
    """Mark the first image as upright: the decoder would turn it by its Orientation field."""
    directory = _first_directory(data)
    position = directory.entries.get(_ORIENTATION)
    if position is None:
        return data
    entry = struct.pack(directory.order + "HHIHH", _ORIENTATION, _SHORT, 1, _UPRIGHT, 0)
    return data[:position] + entry + data[position + len(entry) :]
