"""A folder with the files that the documentation's commands use, at a small size."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights import net_weights
from runtime.weights.caffemodel import V1

CLASSES = 4


def _image(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(noise, (96, 72), interpolation=cv2.INTER_CUBIC))


def _images(folder: Path) -> None:
    for split, count in (("train", 24), ("val", 8)):
        names = [f"{split}/{i % CLASSES}/{i}.jpg" for i in range(count)]
        for i, name in enumerate(names):
            _image(folder / "images" / name, i)
        lines = [f"{name} {i % CLASSES}\n" for i, name in enumerate(names)]
        (folder / f"{split}.txt").write_text("".join(lines))
    _image(folder / "cat.jpg", 99)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Net D at 1/64 of its width with its weights, images with their lists, and databases."""
    folder = tmp_path_factory.mktemp("docs")
    _images(folder)
    words = (f"n{label:08d} class {label}\n" for label in range(1000))
    (folder / "synset_words.txt").write_text("".join(words))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        main(["prototxt", "--net", "D", "--width", "1/64", "--out", "nets/D"])
        for split in ("train", "val"):
            main(["convert_imageset", "images/", f"{split}.txt", f"pets_{split}_lmdb"])
    shutil.copy(folder / "nets/D/deploy.prototxt", folder / "deploy.prototxt")
    param = text.read_net(folder / "deploy.prototxt")
    with Net(param, proto.TEST, create_backend("cpu"), RunContext(seed=1)) as net:
        net_weights.save(net, folder / "VGG_ILSVRC_16_layers.caffemodel", fmt=V1)
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder
