"""Every entry that reads image files accepts the same ones and finds the same pixels in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep import datum
from data_prep.boxes import Box
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.datum import COLOR, GRAY, NATIVE
from data_prep.image_mean import compute_image_mean
from data_prep.inspect_db import inspect
from data_prep.lmdb_io import Reader, Writer
from data_prep.transform import Transform
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.evaluate.image_source import ImageFiles, TestImages
from runtime.logs.glog import close_logging
from runtime.net import Net
from runtime.paper.features.images import BoxImages
from runtime.pycaffe import caffe_pb2, io
from tests.data_prep.image_samples import (
    GRAY_FILES,
    HEIGHT,
    PIXELS,
    WIDTH,
    accepted,
    oriented,
    refused,
)

Entry = Callable[[list[Path], Path], list[np.ndarray]]
"""Reads files with the help of a new folder. Shapes: (H, W, 1 or 3) each, BGR."""


def through_net(layer: str, folder: Path) -> np.ndarray:
    param = text.parse(layer, proto.NetParameter, "net")
    with Net(param, proto.TEST, create_backend("cpu"), RunContext(root=folder)) as net:
        net.forward()
        return net.blobs["data"].data.host().transpose(0, 2, 3, 1).copy()


def data_layer(database: Path, count: int, transform: str) -> np.ndarray:
    return through_net(
        'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: '
        f'"{database}" batch_size: {count} backend: LMDB }} transform_param {{ {transform} }} }}',
        database.parent,
    )


def image_data_layer(paths: list[Path], folder: Path, is_color: str = "true") -> np.ndarray:
    (folder / "list.txt").write_text("".join(f"{path} 0\n" for path in paths))
    return through_net(
        'layer { name: "d" type: "ImageData" top: "data" top: "label" image_data_param { '
        f'source: "list.txt" batch_size: {len(paths)} is_color: {is_color} }} }}',
        folder,
    )


def stored(paths: list[Path], folder: Path) -> Path:
    """A database with the bytes of files as its records."""
    folder.mkdir(exist_ok=True)
    with Writer(folder / "db") as writer:
        for number, path in enumerate(paths):
            record = datum.from_encoded(path.read_bytes(), 0).SerializeToString()
            writer.put(b"%08d" % number, record)
    return folder / "db"


def records(database: Path) -> list[np.ndarray]:
    with Reader(database) as reader:
        return [datum.image_of(datum.parse(value, "record"), "record") for _, value in reader]


def data(paths: list[Path], folder: Path) -> list[np.ndarray]:
    """Gray files and others apart: without force_color a batch has the channels of its first."""
    found = {}
    for channels in (1, 3):
        group = [path for path in paths if (path.name in GRAY_FILES) == (channels == 1)]
        if group:
            images = data_layer(stored(group, folder / str(channels)), len(group), "")
            assert images.shape[3] == channels
            found.update(zip(group, images, strict=True))
    return [found[path] for path in paths]


def data_forced(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return list(data_layer(stored(paths, folder), len(paths), "force_color: true"))


def image_data(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return list(image_data_layer(paths, folder))


def converted_with(paths: list[Path], folder: Path, **options: bool | str) -> list[np.ndarray]:
    entries = [(path.name, 0) for path in paths]
    convert(paths[0].parent, entries, folder / "db", ConvertOptions(**options))
    return records(folder / "db")


def converted(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return converted_with(paths, folder)


def converted_encoded(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return converted_with(paths, folder, encoded=True)


def converted_to_png(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return converted_with(paths, folder, encode_type="png")


def loaded(paths: list[Path], folder: Path) -> list[np.ndarray]:
    return [np.round(io.load_image(path) * 255)[:, :, ::-1] for path in paths]


def mean(paths: list[Path], folder: Path) -> list[np.ndarray]:
    sources = [ImageFiles(path.parent, [(path.name, 0)]) for path in paths]
    return [compute_image_mean(source).mean.transpose(1, 2, 0) for source in sources]


def evaluated(paths: list[Path], folder: Path) -> list[np.ndarray]:
    source = ImageFiles(paths[0].parent, [(path.name, 0) for path in paths])
    images = TestImages(source, Transform(mode=COLOR), len(paths))
    return [image.transpose(1, 2, 0) for _, image, _ in images.stream(min(HEIGHT, WIDTH))]


def region(paths: list[Path], folder: Path) -> list[np.ndarray]:
    files = ImageFiles(paths[0].parent, [(path.name, 0) for path in paths])
    boxes = BoxImages(files, [(1, Box("n", 1, 1, WIDTH, HEIGHT)) for _ in paths])
    return [
        datum.image_of(datum.parse(boxes.get(index), "box"), "box") for index in range(len(paths))
    ]


ENTRIES: tuple[Entry, ...] = (
    data,
    data_forced,
    image_data,
    converted,
    converted_encoded,
    converted_to_png,
    loaded,
    mean,
    evaluated,
    region,
)
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)


def write(files: dict[str, bytes], folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / name for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_bytes(content)
    return paths


def contents(files: dict[str, tuple[bytes, np.ndarray]]) -> dict[str, bytes]:
    return {name: content for name, (content, _) in files.items()}


# Encoded again in their own format, JPEG, which changes them a little.
CHANGED = {"cmyk.jpg", "gray.jpg", "png_named.JPEG"}


@every_entry
def test_the_same_pixels(tmp_path: Path, entry: Entry) -> None:
    samples = accepted()
    found = entry(write(contents(samples), tmp_path / "files"), tmp_path)
    for (name, (content, expected)), image in zip(samples.items(), found, strict=True):
        changed = entry is converted_encoded and name in CHANGED
        # Pillow decodes JPEG with an inverse transform of its own, and rounds CMYK otherwise.
        tolerance = 20 if changed else 3 if name.lower().endswith(("jpg", "jpeg")) else 0
        image = np.broadcast_to(image, expected.shape)
        np.testing.assert_allclose(image, expected, atol=tolerance, err_msg=name)
        if not changed:
            same = datum.decode(content, name, COLOR)
            np.testing.assert_array_equal(image, same, err_msg=name)


@every_entry
def test_the_same_files_are_refused(tmp_path: Path, entry: Entry) -> None:
    for path in write(refused(), tmp_path / "files"):
        folder = tmp_path / f"of_{path.name}"
        folder.mkdir()
        with pytest.raises(DataError, match=r"the image does not decode \(.*; expected a whole"):
            entry([path], folder)


@every_entry
def test_pixels_stay_as_stored(tmp_path: Path, entry: Entry) -> None:
    """For every orientation tag: 1 to 8, and values without a meaning."""
    plain = datum.decode(oriented(1)["turned.jpg"], "jpeg", COLOR)
    files = {
        f"{orientation}{name}": content
        for orientation in (*range(1, 9), 0, 9)
        for name, content in oriented(orientation).items()
    }
    found = entry(write(files, tmp_path / "files"), tmp_path)
    for name, image in zip(files, found, strict=True):
        expected = plain if name.endswith("jpg") else PIXELS
        np.testing.assert_array_equal(image, expected, err_msg=name)


def test_an_encoded_datum_in_pycaffe() -> None:
    for name, (content, _) in accepted().items():
        found = io.datum_to_array(caffe_pb2.Datum(data=content, encoded=True))
        expected = datum.decode(content, name).transpose(2, 0, 1)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    for content in refused().values():
        with pytest.raises(ValueError, match="the image does not decode"):
            io.datum_to_array(caffe_pb2.Datum(data=content, encoded=True))


def test_the_mode_changes_the_channels_alone() -> None:
    for name, (content, _) in accepted().items():
        native, color, gray = (datum.decode(content, name, m) for m in (NATIVE, COLOR, GRAY))
        assert color.shape == (HEIGHT, WIDTH, 3)
        assert gray.shape == (HEIGHT, WIDTH, 1)
        if native.shape[2] == 3:
            np.testing.assert_array_equal(native, color, err_msg=name)
        else:
            np.testing.assert_array_equal(native, gray, err_msg=name)
            np.testing.assert_array_equal(np.broadcast_to(native, color.shape), color, err_msg=name)


def test_reading_in_gray(tmp_path: Path) -> None:
    """Entries that turn colour into gray agree as well."""
    files = {**contents(accepted()), **oriented(6)}
    paths = write(files, tmp_path / "files")
    expected = [datum.decode(content, name, GRAY) for name, content in files.items()]
    count = len(paths)
    for found in (
        image_data_layer(paths, tmp_path, is_color="false"),
        data_layer(stored(paths, tmp_path / "stored"), count, "force_gray: true"),
        converted_with(paths, tmp_path / "raw", gray=True),
        converted_with(paths, tmp_path / "png", gray=True, encode_type="png"),
    ):
        for name, image, wanted in zip(files, found, expected, strict=True):
            np.testing.assert_array_equal(image, wanted, err_msg=name)


def test_a_quick_look_agrees_with_decoding(tmp_path: Path) -> None:
    files = {**contents(accepted()), **oriented(8)}
    with Reader(stored(write(files, tmp_path / "files"), tmp_path)) as reader:
        quick, thorough = inspect(reader).as_dict(), inspect(reader, decode=True).as_dict()
    assert quick == thorough
    assert quick["problems"] == []
    assert set(quick["encodings"]) == {"jpeg", "png", "bmp", "pnm", "tiff", "webp"}


DEPLOY = """name: "tiny"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: [1, %d, 8, 8] } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_classify_reads_as_the_other_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    channels: int,
) -> None:  # fmt: skip
    from runtime.weights.net_weights import save

    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(DEPLOY % channels)
    with Net(text.read_net("deploy.prototxt"), proto.TEST, create_backend("cpu")) as net:
        save(net, "w.caffemodel")
    names = []
    for name, content in {**contents(accepted()), **oriented(5)}.items():
        if name.startswith(("color.", "palette", "gray.", "one_bit")):
            continue
        pixels = datum.decode(content, name, COLOR if channels == 3 else GRAY)
        names += [f"file_{name}", f"pixels_{name}.png"]
        Path(names[-2]).write_bytes(content)
        Path(names[-1]).write_bytes(datum.encode(pixels, "png", 95, name))
    command = ["--model", "deploy.prototxt", "--weights", "w.caffemodel", "--mean-value", "90"]
    assert main(["classify", *names, *command, "--json", "--top", "4"]) == 0
    found = [each["predictions"] for each in json.loads(capsys.readouterr().out)]
    assert found[::2] == found[1::2]
    for name in ("empty.jpg", "half.jpg", "still.gif", "float.tif"):
        Path(name).write_bytes(refused()[name])
        assert main(["classify", name, *command]) == 2
        error = capsys.readouterr().err
        assert "the image does not decode" in error
        assert "force_" not in error
        assert "skip" not in error
    close_logging()
