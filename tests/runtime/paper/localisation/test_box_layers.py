"""Localisation nets: boxes that are read and their loss, on one device or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.box_database import read_record, stored_size, write_boxes
from data_prep.boxes import to_centres
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.datum import parse
from data_prep.ilsvrc import open_ilsvrc
from data_prep.lmdb_io import Reader
from prototxt_gen import generate, proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.localisation import (
    PER_CLASS,
    SINGLE_CLASS,
    LocalisationSpec,
    sidecar,
    train_val,
    write_all,
)
from prototxt_gen.spec import with_values
from runtime.backend.registry import create_backend
from runtime.core.context import PassWindow, RunContext
from runtime.job.training import TrainJob, train
from runtime.net import Net
from runtime.paper.localisation.training import write_mask
from runtime.weights import net_weights
from runtime.weights.weights_file import open_weights
from tests.runtime.evaluate.toy_net import CLASSES, CROP, toy_spec
from tests.runtime.paper.localisation.toy_boxes import weights_of, write_tree

BACKEND = create_backend("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the toy data set's held-out images, and their boxes."""
    path = tmp_path_factory.mktemp("toy")
    opened = open_ilsvrc(write_tree(path / "set"))
    images = path / "val_lmdb"
    convert(opened.root, opened.val_list(), images, ConvertOptions(encoded=True))
    write_boxes(images, opened, path / "boxes")
    write_mask(path / "mask.caffemodel", CLASSES, BACKEND)
    return path


def toy_net(toy: Path, regression: str = PER_CLASS, **context: Any) -> Net:
    images, boxes = str(toy / "val_lmdb"), str(toy / "boxes")
    net = with_values(toy_spec(images), {"data.train.options.shuffle": True})
    spec = LocalisationSpec(net, regression, train_boxes=boxes, test_boxes=boxes)
    made = RunContext(seed=3, data=sidecar(spec).train, **context)
    found = Net(train_val(spec), proto.TRAIN, BACKEND, made)
    if regression == PER_CLASS:
        net_weights.copy_trained_layers(found, toy / "mask.caffemodel")
    return found


def host(net: Net, blob: str) -> np.ndarray:
    return net.blobs[blob].data.host().copy()


def test_the_loss_depends_on_the_true_classs_box_only(toy: Path) -> None:
    with toy_net(toy) as net:
        net.forward()
        net.clear_param_diffs()
        net.backward()
        boxes, labels = host(net, "box")[:, :, 0, 0], host(net, "label").astype(int)
        predicted = host(net, "fc5-pcr").reshape(-1, CLASSES, 4)
        own = predicted[np.arange(len(labels)), labels]
        wanted = ((own - boxes) ** 2).sum() / (2 * len(labels))
        assert float(np.ravel(host(net, "loss"))[0]) == pytest.approx(float(wanted), rel=1e-5)
        gradient = net.blobs["fc5-pcr"].diff.host().reshape(-1, CLASSES, 4)
        others = np.ones((len(labels), CLASSES), bool)
        others[np.arange(len(labels)), labels] = False
        assert not gradient[others].any()
        np.testing.assert_allclose(
            gradient[~others], (own - boxes) / len(labels), rtol=1e-4, atol=1e-7
        )


def test_a_single_box_is_compared_as_it_is(toy: Path) -> None:
    with toy_net(toy, SINGLE_CLASS) as net:
        net.forward()
        wanted = ((host(net, "fc5-scr") - host(net, "box")[:, :, 0, 0]) ** 2).sum() / 8
        assert float(np.ravel(host(net, "loss"))[0]) == pytest.approx(float(wanted), rel=1e-5)


def test_boxes_are_counted_in_crops_and_follow_the_images(toy: Path) -> None:
    """With the sidecar; without it they are what is stored, as in original Caffe."""
    with toy_net(toy, SINGLE_CLASS) as net, Reader(toy / "boxes") as reader:
        net.forward()
        assert net.context.images is not None
        records, words = net.context.images.samples(0, 0, 4)
        for row in range(4):
            record = records[row]
            box, _ = read_record(reader.get(record), "test")
            size = stored_size(parse(net.context.images.source.get(record), "test"), "test")
            placement = net.context.images.transform.placement(*size, words[row])
            moved = placement.to_crop(box)
            np.testing.assert_allclose(
                host(net, "box")[row, :, 0, 0], to_centres(moved) / CROP, rtol=1e-5
            )
    plain = LocalisationSpec(
        with_values(toy_spec(str(toy / "val_lmdb")), {"data.train.options.short_side": None}),
        SINGLE_CLASS,
        train_boxes=str(toy / "boxes"),
    )
    with Net(train_val(plain), proto.TRAIN, BACKEND, RunContext()) as net:
        net.forward()
        with Reader(toy / "boxes") as reader:
            stored, _ = read_record(reader.get(0), "test")
        np.testing.assert_allclose(
            host(net, "box")[0, :, 0, 0], to_centres(stored) / CROP, rtol=1e-5
        )


def test_shards_read_the_boxes_of_one_device(toy: Path) -> None:
    """Pass 1 of 2 is images 4 to 7 of the iteration, whichever net reads it."""
    window = PassWindow(2, 0, 2)
    with toy_net(toy, window=window) as whole:
        both = []
        for number in (0, 1):
            whole.context.pass_number = number
            whole.forward()
            both.append((host(whole, "data"), host(whole, "box"), host(whole, "label")))
    for number in (0, 1):
        with toy_net(toy, window=PassWindow(2, number, number + 1)) as part:
            part.context.pass_number = number
            part.forward()
            for name, wanted in zip(("data", "box", "label"), both[number]):
                np.testing.assert_array_equal(host(part, name), wanted)
    assert np.abs(both[0][1] - both[1][1]).max() > 0.01


def test_two_replicas_train_the_boxes_that_one_device_trains(toy: Path, tmp_path: Path) -> None:
    values = {
        "shards": 2,
        "solver.max_iter": 3,
        "solver.snapshot": 3,
        "solver.lr_policy": "fixed",
        "solver.base_lr": 1e-3,
        "solver.test_iter": 1,
        "solver.solver_mode": "CPU",
        "data.train.options.shuffle": True,
    }
    net = with_values(toy_spec(str(toy / "val_lmdb")), values)
    boxes = str(toy / "boxes")
    spec = LocalisationSpec(net, train_boxes=boxes, test_boxes=boxes, clip_gradients=1.0)
    found = []
    for replicas in (1, 2):
        folder = tmp_path / str(replicas)
        write_all(spec, folder, (str(toy / "mask.caffemodel"),))
        job = TrainJob(str(folder / generate.SOLVER), replicas=replicas)
        opened = train(job, lambda param: BACKEND, (), lambda param, rank: create_backend("cpu"))
        found.append(weights_of(opened.model))
    assert set(found[0]) == set(found[1])
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_shapes_are_known_without_data(toy: Path) -> None:
    with toy_net(toy, fill_weights=False) as net:
        assert net.blobs["box"].shape == (4, 4, 1, 1)
        assert net.blobs["fc5-pcr"].shape == (4, 4 * CLASSES)


def test_a_layer_of_boxes_needs_images_before_it(toy: Path) -> None:
    spec = LocalisationSpec(toy_spec(str(toy / "val_lmdb")), train_boxes=str(toy / "boxes"))
    param = train_val(spec)
    boxes = next(layer for layer in param.layer if layer.name == "box")
    alone = proto.NetParameter(layer=[boxes])
    with pytest.raises(ProtoError, match="boxes without images"):
        Net(alone, proto.TRAIN, BACKEND, RunContext(data=sidecar(spec).train))


def test_the_masks_rows_are_each_classes_four_numbers(tmp_path: Path) -> None:
    with open_weights(write_mask(tmp_path / "mask.caffemodel", 3, BACKEND)) as layers:
        (layer,) = [each for each in layers if each.blobs]
        assert layer.name == "mask"
        assert layer.blobs[0].array().tolist() == [
            [1] * 4 + [0] * 8,
            [0] * 4 + [1] * 4 + [0] * 4,
            [0] * 8 + [1] * 4,
        ]
