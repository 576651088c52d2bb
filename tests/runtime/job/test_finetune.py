"""Fine-tuning in miniature: every file it promises, found again by a second start."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import runtime
from prototxt_gen import proto, text
from prototxt_gen.errors import (
    DataError,
    ProtoError,
    ShapeError,
    SnapshotError,
    UnsupportedError,
    UsageError,
    VerydeepError,
)
from runtime.backend.registry import create_backend
from runtime.bundle.bundle import Bundle
from runtime.bundle.preprocessing import Preprocessing
from runtime.cli.main import main
from runtime.job.finetune import FinetuneOptions, run_finetune
from runtime.net import Net
from runtime.solvers.run_lock import lock_run
from runtime.weights.net_weights import copy_trained_layers, save
from tests.data_prep.class_folders import write_folders
from tests.runtime.job.finetune_nets import small

CLASSES = ("cat", "dog", "pig")
BACKEND = create_backend("cpu")


def write_weights(folder: Path, name: str = "vgg deploy", file: str = "w.caffemodel") -> Path:
    """The weights of a small net, from its fillers."""
    path = folder / file
    with Net(small(name), proto.TEST, BACKEND) as net:
        save(net, path)
    return path


def weights_of(net: Net) -> dict[str, np.ndarray]:
    """The first weights of each layer."""
    learnt = [layer for layer in net.layers if layer.blobs]
    return {layer.param.name: layer.blobs[0].data.host().copy() for layer in learnt}


def options_of(folder: Path, **values: object) -> FinetuneOptions:
    """A fine-tuning of 3 iterations of a small net on three classes."""
    if not (folder / "set").exists():
        write_folders(folder / "set", 6, CLASSES)
    weights = values.pop("weights", None) or write_weights(folder)
    options = FinetuneOptions(
        weights, str(folder / "set"), folder / "out", max_iter=3, batch_size=4, short_side=18
    )
    return dataclasses.replace(options, **values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    run_finetune(options_of(folder, freeze=("conv1..conv2",)), BACKEND)
    return folder


def test_every_file_is_there(finished: Path) -> None:
    result = json.loads((finished / "out" / "result.json").read_text())
    assert (result["classes"], result["iterations"], result["held_out_images"]) == (3, 3, 3)
    assert 0 <= result["top1_error"] <= 1
    for key in ("caffemodel", "caffemodel_h5", "deploy", "solverstate", "log", "learning_curve"):
        assert Path(result[key]).stat().st_size > 0, key
    for key in ("predictions", "confusion", "class_errors", "labels", "bundle"):
        assert Path(result[key]).exists(), key


def test_the_bundle_has_everything(finished: Path) -> None:
    result = json.loads((finished / "out" / "result.json").read_text())
    bundle = Bundle.load(result["bundle"])
    assert bundle.labels == CLASSES
    assert bundle.preprocessing.crop == (16, 16)
    assert bundle.preprocessing.short_side == 18
    assert bundle.metrics["top1_error"] == result["top1_error"]
    assert bundle.provenance["freeze"] == ["conv1..conv2"]
    with runtime.load(result["bundle"]) as model:
        assert model.predict(np.zeros((2, 3, 16, 16)))["prob"].shape == (2, 3)


def test_the_bundle_classifies(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((finished / "out" / "result.json").read_text())
    image = str(finished / "set" / "cat" / "0.jpg")
    assert main(["classify", image, "--model", result["bundle"], "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {each["label"] for each in found["predictions"]} == set(CLASSES)


def test_frozen_weights_do_not_change_and_others_do(finished: Path) -> None:
    result = json.loads((finished / "out" / "result.json").read_text())
    start = finished / "w.caffemodel"
    with runtime.load(result["bundle"]) as model:
        new = weights_of(model)
    with Net(small("vgg deploy"), proto.TEST, BACKEND) as net:
        copy_trained_layers(net, start)
        old = weights_of(net)
    assert np.array_equal(old["conv1_1"], new["conv1_1"])
    assert np.array_equal(old["conv2_1"], new["conv2_1"])
    assert not np.array_equal(old["conv10_1"], new["conv10_1"])
    assert not np.array_equal(old["fc6"], new["fc6"])
    assert new["fc8-new"].shape == (3, 12)


def test_a_second_start_does_not_train_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((finished / "out" / "result.json").read_text())
    stamp = Path(before["caffemodel"]).stat().st_mtime_ns
    run_finetune(options_of(finished, freeze=("conv1..conv2",)), BACKEND)
    after = json.loads((finished / "out" / "result.json").read_text())
    assert Path(after["caffemodel"]).stat().st_mtime_ns == stamp
    assert after["top1_error"] == before["top1_error"]


def test_another_run_in_the_same_folder_is_refused(finished: Path) -> None:
    with pytest.raises(DataError, match=r"out: has a run with another freeze; expected \['conv1"):
        run_finetune(options_of(finished), BACKEND)


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    with (
        lock_run(tmp_path / "out" / "job"),
        pytest.raises(SnapshotError, match="another folder"),
    ):
        run_finetune(options_of(tmp_path), BACKEND)


def test_a_bundle_is_fine_tuned_again(finished: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "out" / "result.json").read_text())
    write_folders(tmp_path / "set", 4, ("red", "green"))
    options = options_of(tmp_path, weights=Path(result["bundle"]), short_side=None)
    path = run_finetune(options, BACKEND)
    bundle = Bundle.load(json.loads(path.read_text())["bundle"])
    assert bundle.labels == ("green", "red")
    assert bundle.preprocessing == Bundle.load(result["bundle"]).preprocessing


@pytest.mark.parametrize("name", ["resnet deploy", "squeezenet deploy", "googlenet"])
def test_other_nets(name: str, tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    text.write(model, small(name))
    weights = tmp_path / "w.caffemodel"
    plain = small(name)
    if name == "googlenet":
        del plain.layer[:2]
        source = proto.NetParameter()
        source.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(
            dim=(2, 3, 16, 16)
        )
        for layer in plain.layer:
            if "oss" not in layer.type and layer.type != "Accuracy":
                source.layer.add().CopyFrom(layer)
        plain = source
    with Net(plain, proto.TEST, BACKEND) as net:
        save(net, weights)
    path = run_finetune(options_of(tmp_path, weights=weights, model=model), BACKEND)
    assert json.loads(path.read_text())["iterations"] == 3


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"freeze": ("conv7",)}, ProtoError, "--freeze conv7: no layer"),
        ({"short_side": 8}, UsageError, "--short-side: expected at least the net's input of 16"),
        ({"data": "absent"}, DataError, "absent: no such data set"),
        ({"weights": Path("absent")}, SnapshotError, "absent"),
        ({"layer_name": "fc6"}, ProtoError, "cannot be called 'fc6'"),
    ],
)
def test_wrong_options(
    values: dict[str, object], error: type[VerydeepError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run_finetune(options_of(tmp_path, **values), BACKEND)
    assert not (tmp_path / "out" / "net").exists()


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    text.write(model, small("vgg deploy"))
    weights = write_weights(tmp_path, "resnet deploy", "r.caffemodel")
    with pytest.raises(
        SnapshotError,
        match=r"r.caffemodel: no weights for 4 of the net's 4 layers \(conv1_1, conv2",
    ):
        run_finetune(options_of(tmp_path, weights=weights, model=model), BACKEND)


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    net = small("vgg deploy")
    next(layer for layer in net.layer if layer.name == "fc6").inner_product_param.num_output = 13
    model = tmp_path / "net.prototxt"
    text.write(model, net)
    with pytest.raises(ShapeError, match=r"layer 'fc6', blob 0: expected .*13, 54.*got .*12, 54"):
        run_finetune(options_of(tmp_path, model=model), BACKEND)
    assert not (tmp_path / "out" / "net").exists()


def test_weights_without_a_net(tmp_path: Path) -> None:
    weights = write_weights(tmp_path, file="w.npz")
    with pytest.raises(UsageError, match=r"has weights without a net; .* by --model"):
        run_finetune(options_of(tmp_path, weights=weights), BACKEND)


def test_a_bundle_of_rgb_images_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    text.write(model, small("vgg deploy"))
    prepared = Preprocessing((16, 16), short_side=18, channel_order="RGB")
    bundle = Bundle(model, write_weights(tmp_path), prepared).write(tmp_path / "b.verydeep")
    with pytest.raises(UnsupportedError, match="images in RGB; expected BGR"):
        run_finetune(options_of(tmp_path, weights=bundle), BACKEND)


def test_broken_images_are_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path / "set" / "train", 4, CLASSES)
    write_folders(tmp_path / "set" / "val", 2, CLASSES)
    (tmp_path / "set" / "train" / "cat" / "1.jpg").write_bytes(b"no image")
    (tmp_path / "set" / "val" / "dog" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    result = json.loads(run_finetune(options_of(tmp_path), BACKEND).read_text())
    assert result["held_out_images"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "0"), "--epochs: expected a number above 0"),
        (("--batch-size", "0"), "--batch-size: expected at least 1"),
        (("--mean-value", "1,2"), "--mean-value: expected one or three numbers"),
        (("--mean-value", "1,2,300"), "--mean-value: expected one or three numbers"),
        (("--val-fraction", "1"), "--val-fraction"),
        (("--data", "nothing"), "nothing: no such data set"),
    ],
)
def test_wrong_flags(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "set", 2, CLASSES)
    base = ["finetune", "--weights", str(write_weights(tmp_path)), "--data", str(tmp_path / "set")]
    assert main([*base, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
