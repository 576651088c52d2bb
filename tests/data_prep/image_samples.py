"""One small image in many kinds of files, and files that every reader refuses.

Pillow writes them, so that they do not come from the library that reads them.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.data_prep.small_images import photograph

HEIGHT, WIDTH = 16, 24
PIXELS = photograph(HEIGHT, WIDTH)
"""(H, W, 3), BGR."""
PICTURE = Image.fromarray(np.ascontiguousarray(PIXELS[:, :, ::-1]))
GRAY_FILES = {
    *("gray16.png", "gray.png", "one_bit.png", "clear_gray.png", "gray.bmp", "one_bit.bmp"),
    *("gray.pgm", "one_bit.pbm", "gray.tif", "one_bit.tif", "gray.jpg"),
}
"""Names in `accepted` of files that decode to one channel unless a mode is forced."""
_NO_PALETTE_CHANGE: dict[str, Any] = {"dither": Image.Dither.NONE}


def written(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a file of Pillow's format `form`."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def bgr(picture: Image.Image) -> np.ndarray:
    """The colour pixels (H, W, 3) of a picture, without its transparency."""
    return np.asarray(picture.convert("RGB"))[:, :, ::-1]


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(header: bytes, rows: bytes, *extra: bytes) -> bytes:
    """A PNG file of an IHDR, other chunks, and the rows with their filter bytes."""
    chunks = (png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def sixteen_bits(color: bool) -> bytes:
    """A PNG of 16 bits a channel; the upper eight are those of the image, the lower ones 200."""
    pixels = PIXELS[:, :, ::-1] if color else PIXELS[:, :, :1]
    wide = (pixels.astype(np.uint16) << 8) + 200
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    return png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2 if color else 0, 0, 0, 0), rows)


def tiff(order: str, *changes: tuple[int, str, int]) -> bytes:
    """A gray TIFF of one strip; changes are (tag, type of struct, value), and may repeat a tag."""
    rows = np.arange(HEIGHT * WIDTH, dtype=np.uint8).tobytes()
    fields = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: len(rows)}
    entries = [(tag, "I" if tag in (273, 279) else "H", value) for tag, value in fields.items()]
    changed = {tag for tag, _, _ in changes}
    entries = sorted([entry for entry in entries if entry[0] not in changed] + list(changes))
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        number = {"B": 1, "H": 3, "I": 4, "Q": 16}[kind]
        directory += struct.pack(order + "HHI", tag, number, 1)
        directory += struct.pack(order + kind, value)[:4].ljust(4, b"\0")
    start = struct.pack(order + "I", 8 + len(rows))
    magic = b"II\x2a\0" if order == "<" else b"MM\0\x2a"
    return magic + start + rows + directory + bytes(4)


def with_exif(data: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an orientation tag, and bytes after it."""
    tags = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tags + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def oriented(orientation: int) -> dict[str, bytes]:
    """The image with an orientation tag, in each format that has one."""
    tag = Image.Exif()
    tag[0x0112] = orientation
    return {
        "turned.jpg": with_exif(written(PICTURE, "JPEG", quality=95), orientation),
        "turned.png": written(PICTURE, "PNG", exif=tag),
        "turned.tif": written(PICTURE, "TIFF", tiffinfo={0x0112: orientation}),
        "turned.webp": written(PICTURE, "WEBP", lossless=True, exif=tag),
    }


def accepted() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files by name, with the pixels (H, W, 3) that every reader finds in them.

    The pixels of JPEG are those of Pillow's decoder, within a few levels.
    """
    gray, one_bit = PICTURE.convert("L"), PICTURE.convert("1", **_NO_PALETTE_CHANGE)
    palette = PICTURE.quantize(32, **_NO_PALETTE_CHANGE)
    alpha = gray.point(lambda value: 255 - value)
    clear = PICTURE.copy()
    clear.putalpha(alpha)
    gray_alpha = Image.merge("LA", (gray, alpha))
    upper = {"color": PIXELS, "gray": np.repeat(PIXELS[:, :, :1], 3, axis=2)}
    files: dict[str, tuple[bytes, np.ndarray]] = {
        "color16.png": (sixteen_bits(True), upper["color"]),
        "gray16.png": (sixteen_bits(False), upper["gray"]),
    }
    for name, picture, form, options in (
        ("color.png", PICTURE, "PNG", {}),
        ("gray.png", gray, "PNG", {}),
        ("one_bit.png", one_bit, "PNG", {}),
        ("palette.png", palette, "PNG", {}),
        ("clear_palette.png", palette, "PNG", {"transparency": bytes(range(0, 256, 8))}),
        ("clear_colour.png", PICTURE, "PNG", {"transparency": PICTURE.getpixel((3, 3))}),
        ("clear_gray.png", gray, "PNG", {"transparency": 90}),
        ("gray_alpha.png", gray_alpha, "PNG", {}),
        ("alpha.png", clear, "PNG", {}),
        ("color.bmp", PICTURE, "BMP", {}),
        ("gray.bmp", gray, "BMP", {}),
        ("palette.bmp", palette, "BMP", {}),
        ("one_bit.bmp", one_bit, "BMP", {}),
        ("color.ppm", PICTURE, "PPM", {}),
        ("gray.pgm", gray, "PPM", {}),
        ("one_bit.pbm", one_bit, "PPM", {}),
        ("color.tif", PICTURE, "TIFF", {}),
        ("gray.tif", gray, "TIFF", {"compression": "tiff_lzw"}),
        ("palette.tif", palette, "TIFF", {}),
        ("one_bit.tif", one_bit, "TIFF", {"compression": "group4"}),
        ("pages.tif", PICTURE, "TIFF", {"save_all": True, "append_images": [gray]}),
        ("color.webp", PICTURE, "WEBP", {"lossless": True}),
        ("alpha.webp", clear, "WEBP", {"lossless": True, "exact": True}),
        ("no_suffix", PICTURE, "PNG", {}),
    ):
        files[name] = (written(picture, form, **options), bgr(picture))
    for name, picture, options in (
        ("color.jpg", PICTURE, {}),
        ("progressive.jpg", PICTURE, {"progressive": True}),
        ("gray.jpg", gray, {}),
        ("cmyk.jpg", PICTURE.convert("CMYK"), {}),
        ("png_named.JPEG", PICTURE, {}),
    ):
        data = written(picture, "PNG" if "png" in name else "JPEG", quality=95, **options)
        files[name] = (data, bgr(Image.open(io.BytesIO(data))))
    return files


def refused() -> dict[str, bytes]:
    """Files by name that no reader accepts."""
    color, other = PICTURE, PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    frames: dict[str, Any] = {"save_all": True, "append_images": [other]}
    jpeg = written(PICTURE.resize((240, 160)), "JPEG", quality=95)
    plain_png = written(color, "PNG")
    return {
        "empty.jpg": b"",
        "text.jpg": b"not an image",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "endless.jpg": jpeg[:-2],
        "half_with_thumbnail.jpg": with_exif(jpeg, 1, written(color, "JPEG"))[:-300],
        "half.png": plain_png[: len(plain_png) // 2],
        "half.bmp": written(color, "BMP")[:300],
        "half.ppm": written(color, "PPM")[:300],
        "half.tif": written(color, "TIFF")[:300],
        "half.webp": written(color, "WEBP", lossless=True)[:200],
        "float.tif": written(color.convert("F"), "TIFF"),
        "still.gif": written(color, "GIF"),
        "moving.gif": written(color, "GIF", **frames),
        "moving.png": written(color, "PNG", **frames),
        "moving.webp": written(color, "WEBP", **frames),
    }
