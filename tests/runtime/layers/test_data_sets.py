"""Data and ImageData read folders of classes, and the verbs that read images do so too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_prep.lmdb_io import Reader
from data_prep.open_data_set import open_data_set
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError
from runtime.backend.cpu.backend import CpuBackend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.paper.features.images import open_images
from tests.data_prep.class_folders import write_folders
from tests.data_prep.small_trees import COLOURS

CLASSES = sorted(COLOURS)


def batches(kind: str, source: Path, phase: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of `count` batches of 4."""
    field = "data_param" if kind == "Data" else "image_data_param"
    param = text.parse(
        f'layer {{ name: "data" type: "{kind}" top: "data" top: "label" '
        f'transform_param {{ crop_size: 16 }} {field} {{ source: "{source}" batch_size: 4 }} }}',
        proto.NetParameter,
    )
    result = []
    with Net(param, phase, CpuBackend(), RunContext()) as net:
        for _ in range(count):
            net.forward()
            result.append(
                (net.blobs["data"].data.host().copy(), net.blobs["label"].data.host().copy())
            )
    return result


def colours_agree(data: np.ndarray, labels: np.ndarray) -> bool:
    brightest = data.mean(axis=(2, 3)).argmax(axis=1)
    expected = [int(np.argmax(COLOURS[CLASSES[int(label)]])) for label in labels]
    return brightest.tolist() == expected


@pytest.mark.parametrize("phase", [proto.TRAIN, proto.TEST])
def test_data_reads_a_folder(tmp_path: Path, phase: int) -> None:
    data = open_data_set(write_folders(tmp_path / "set", 10))
    size = len(data.train_list() if phase == proto.TRAIN else data.val_list())
    assert size == (24 if phase == proto.TRAIN else 6)
    labels: list[int] = []
    for images, batch in batches("Data", tmp_path / "set", phase, size // 2):
        assert colours_agree(images, batch)
        labels += batch.astype(int).tolist()
    counts = np.bincount(labels[:size])
    assert counts.tolist() == [size // 3] * 3
    if phase == proto.TRAIN:
        assert labels[:size] != sorted(labels[:size])
        assert labels[:size] != labels[size:]


def test_image_data_reads_a_folder(tmp_path: Path) -> None:
    write_folders(tmp_path / "set", 4)
    read = batches("ImageData", tmp_path / "set", proto.TEST, 3)
    assert [batch.tolist() for _, batch in read] == [[0] * 4, [1] * 4, [2] * 4]
    assert all(colours_agree(images, batch) for images, batch in read)


def test_image_data_refuses_a_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"set: no folders of classes; expected <class>"):
        batches("ImageData", tmp_path / "set", proto.TEST, 1)


@pytest.mark.parametrize(("split", "count"), [("train", 12), ("val", 3), ("all", 15)])
def test_convert_imageset_converts_a_folder(
    tmp_path: Path, split: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_folders(tmp_path / "set", 5), tmp_path / "out"
    labels = tmp_path / "labels.txt"
    words = ["convert_imageset", str(folder), str(out), "--split", split, "--labels", str(labels)]
    assert main(words) == 0
    assert f"{count} records" in capsys.readouterr().out
    assert labels.read_text().split() == CLASSES
    with Reader(out) as reader:
        assert len(reader) == count


def test_convert_imageset_refuses_split_with_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("a.jpg 0\n")
    words = ["convert_imageset", str(tmp_path), str(tmp_path / "list"), str(tmp_path / "out")]
    assert main([*words, "--split", "val"]) == 2
    assert "they apply to a data set" in capsys.readouterr().err
    assert main(["convert_imageset", str(tmp_path), "o", "--val-fraction", "2"]) == 2
    assert "--val-fraction: expected a number between 0 and 1" in capsys.readouterr().err


def test_features_of_a_folder_are_those_of_all_images(tmp_path: Path) -> None:
    images = open_images(write_folders(tmp_path / "set", 5))
    assert len(images.names()) == 15
    assert "cat/0.jpg" in images.names()
