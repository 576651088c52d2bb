"""What the first bytes of a JPEG or PNG file say of its size, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# A few hundred forged bytes can claim any size, and the decoder would allocate it. The largest
# photograph of ILSVRC-2012 has 34 million pixels.
MAX_PIXELS = 1 << 27

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Start-of-frame markers; C4, C8 and CC in their midst mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}


@dataclass(frozen=True)
class ImageHeader:
    """Format ("jpeg" or "png") and size of an encoded image."""

    format: str
    height: int
    width: int
    channels: int


def read_header(data: bytes) -> ImageHeader | None:
    """Read the header of a JPEG or PNG file; None for other formats and for broken headers."""
    if data[:2] == b"\xff\xd8":
        return _read_jpeg(data)
    if data[:8] == _PNG_SIGNATURE:
        return _read_png(data)
    return None


def _read_png(data: bytes) -> ImageHeader | None:
    if len(data) < 26 or data[12:16] != b"IHDR":
        return None
    width, height, _depth, kind = struct.unpack_from(">IIBB", data, 16)
    return ImageHeader("png", height, width, _PNG_CHANNELS.get(kind, 3))


def _read_jpeg(data: bytes) -> ImageHeader | None:
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_BARE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAMES:
            if position + 10 > len(data):
                return None
            _precision, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            return ImageHeader("jpeg", height, width, channels)
        if marker == 0xDA or length < 2:  # pixels before any frame
            return None
        position += 2 + length
    return None
