"""Damaged records of databases, and images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np

from data_prep import datum as datums
from data_prep.box_database import box_record, file_size, read_record, stored_size
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.datum import COLOR, GRAY, NATIVE
from data_prep.image_list import ImageList
from data_prep.image_mean import MeanOptions, compute_image_mean
from data_prep.inspect_db import inspect
from data_prep.lmdb_io import Reader
from prototxt_gen import proto, text
from prototxt_gen.errors import VerydeepError
from runtime.net import Net
from runtime.pycaffe.image import load_image
from tests.mutants.case import Case, Format
from tests.mutants.damage import damage
from tests.mutants.file_damage import image_damage
from tests.mutants.proto_damage import proto_damage
from tests.mutants.read_nets import backend


class _Records:
    """Records in memory."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def get(self, index: int) -> bytes:
        return self.values[index]

    def key(self, index: int) -> str:
        return f"{index:08d}_x"


def _photograph(height: int = 12, width: int = 14) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.ascontiguousarray(cv2.GaussianBlur(noise, (0, 0), 2))


def _record_samples() -> tuple[bytes, ...]:
    image = _photograph()
    planes = image.transpose(2, 0, 1)
    messages = (
        datums.from_array(planes, 1),
        datums.from_array(planes[:1].astype(np.float32), 0),
        datums.from_encoded(datums.encode(image, "jpg", 90, "sample"), 3),
        datums.from_encoded(datums.encode(image[:, :, :1], "png", 90, "sample"), 2),
    )
    box = box_record(np.array([1.0, 2.0, 9.0, 8.0]), 1)
    return (*(bytes(message.SerializeToString()) for message in messages), box)


def _each(*calls: Callable[[], object]) -> None:
    """Call all functions, even after errors; raises the first typed error at the end."""
    refused: VerydeepError | None = None
    for call in calls:
        try:
            call()
        except VerydeepError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _read_datum(data: bytes) -> None:
    source = _Records([data])
    _each(
        lambda: inspect(source, decode=True),
        lambda: inspect(source),
        lambda: compute_image_mean(source, MeanOptions(jobs=1)),
        lambda: datums.to_array(datums.parse(data, "record")),
        lambda: datums.image_of(datums.parse(data, "record"), "record", GRAY),
        lambda: stored_size(datums.parse(data, "record"), "record"),
        lambda: read_record(data, "record"),
    )


_DATA_NET = text.parse(
    'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "mutant" '
    "batch_size: 3 backend: LMDB } transform_param { crop_size: 4 mirror: true } }",
    proto.NetParameter,
)


def _read_through_layer(data: bytes) -> None:
    sound = _record_samples()[0]
    folder = Path("mutant")
    shutil.rmtree(folder, ignore_errors=True)
    with (
        lmdb.open(str(folder), map_size=1 << 22, sync=False) as environment,
        environment.begin(write=True) as records,
    ):
        for number, value in enumerate((sound, data, sound)):
            records.put(b"%08d_x" % number, value)
    with Net(_DATA_NET, proto.TRAIN, backend()) as net:
        net.forward()
        net.forward()


def prepare_records() -> list[Case]:
    """Datums: raw, of floats, encoded, and of boxes."""
    samples = _record_samples()
    return [
        *[Case("record", samples, proto_damage, _read_datum)] * 3,
        Case("through a layer", samples[:4], proto_damage, _read_through_layer),
    ]


def _read_image(suffix: str) -> Callable[[bytes], None]:
    name = f"mutant.{suffix}"

    def read(data: bytes) -> None:
        Path(name).write_bytes(data)
        root = Path()
        entries = ((name, 1),)
        _each(
            lambda: datums.decode(data, name, NATIVE),
            lambda: datums.decode(data, name, COLOR),
            lambda: datums.decode(data, name, GRAY),
            lambda: ImageList(root, entries, True, (6, 5)).get(0),
            lambda: ImageList(root, entries, False).get(0),
            lambda: load_image(name),
            lambda: load_image(name, color=False),
            lambda: file_size(Path(name)),
            lambda: _convert(name, suffix),
        )

    return read


def _convert(name: str, suffix: str) -> None:
    """Store the file unchanged in a database; the stored record must be readable."""
    shutil.rmtree("converted", ignore_errors=True)
    options = ConvertOptions(encoded=True, encode_type="" if suffix != "gif" else "png", jobs=1)
    convert(Path(), [(name, 1)], "converted", options)
    with Reader("converted") as reader:
        message = datums.parse(reader.get(0), "record")
        image = datums.image_of(message, "record")
        assert image.size


def _encoded_images() -> dict[str, tuple[bytes, ...]]:
    image = _photograph()
    gray = image[:, :, 0]
    with_alpha = np.dstack([image, gray])
    deep = image.astype(np.uint16) * 257
    encodings = {
        "jpg": (image, gray),
        "png": (image, gray, with_alpha, deep),
        "bmp": (image, gray),
        "tiff": (image, gray, deep),
        "webp": (image, with_alpha),
        "ppm": (image,),
        "pgm": (gray, deep[:, :, 0]),
    }
    images = {}
    for suffix, pictures in encodings.items():
        encoded = [cv2.imencode(f".{suffix}", picture)[1].tobytes() for picture in pictures]
        if suffix == "jpg":
            flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
            encoded.append(cv2.imencode(".jpg", image, flags)[1].tobytes())
        images[suffix] = tuple(encoded)
    if cv2.haveImageWriter(".gif"):
        images["gif"] = (cv2.imencode(".gif", image)[1].tobytes(),)
    return images


def prepare_images() -> list[Case]:
    """A case for each kind of image file."""
    return [
        Case(suffix, samples, image_damage if suffix != "pgm" else damage, _read_image(suffix))
        for suffix, samples in _encoded_images().items()
    ]


FORMATS = (
    Format("lmdb-records", prepare_records),
    # Three bytes per pixel of the largest image, and copies of them.
    Format("images", prepare_images, seconds=20.0, memory=1400 << 20),
)
