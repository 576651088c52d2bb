"""runtime.load, Model.predict and Model.summary."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from prototxt_gen.errors import (
    DeviceError,
    ProtoError,
    ShapeError,
    SnapshotError,
    UnsupportedError,
)
from runtime.weights.net_weights import save
from tests.runtime.process.concurrent_nets import FILLER, run_threads
from tests.runtime.small_nets import conv, input_layer, layer

CLASSES = (
    input_layer(4, 3, 12, 12)
    + conv("conv1", "data", 8, 3, f"pad: 1 {FILLER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("InnerProduct", "fc", "conv1", f"inner_product_param {{ num_output: 5 {FILLER} }}")
    + layer("Softmax", "prob", "fc")
)
DENSE = (
    input_layer(2, 3, 12, 12)
    + conv("conv1", "data", 8, 3, f"pad: 1 {FILLER}")
    + layer("Pooling", "pool", "conv1", "pooling_param { kernel_size: 2 stride: 2 }")
)


def write(folder: Path, layers: str, name: str = "deploy.prototxt") -> tuple[Path, Path]:
    """The prototxt, and a file with weights for it."""
    model, weights = folder / name, folder / f"{name}.caffemodel"
    model.write_text(f'name: "small"\n{layers}')
    with runtime.load(model) as net:
        save(net, weights)
    return model, weights


def images(count: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, side, side), np.float32)


def test_a_model_shows_its_layers_and_shapes(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        lines = repr(net).splitlines()
        assert lines[0] == "Net 'small' (TEST): 5 layers, 4 blobs, 5,989 parameters"
        assert "conv1 4x8x12x12" in lines[3]
        assert "<td>conv1 4x8x12x12</td>" in net._repr_html_()


def judged(model: Path, weights: Path, values: np.ndarray) -> np.ndarray:
    net = cv2.dnn.readNetFromCaffe(str(model), str(weights))
    net.setInput(values)
    return net.forward()


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_any_number_of_images(tmp_path: Path, count: int) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        result = net.predict(images(count))
        assert set(result) == {"prob"}
        assert result["prob"].dtype == np.float32
        expected = judged(model, weights, images(count))
        np.testing.assert_allclose(result["prob"], expected, rtol=1e-4, atol=1e-6)
        assert net.blobs["data"].shape == (4, 3, 12, 12)
        assert np.array_equal(net.predict({"data": images(count)})["prob"], result["prob"])


def test_another_image_size_for_a_net_without_fully_connected_layers(tmp_path: Path) -> None:
    model, weights = write(tmp_path, DENSE)
    with runtime.load(model, weights) as net:
        result = net.predict(images(3, side=20), outputs=["pool", "conv1"])
        assert result["conv1"].shape == (3, 8, 20, 20)
        expected = judged(model, weights, images(3, side=20))
        np.testing.assert_allclose(result["pool"], expected, rtol=1e-4, atol=1e-5)
        assert net.predict(images(1))["pool"].shape == (1, 8, 6, 6)


def test_results_are_the_callers_own_and_lists_are_arrays(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        first = net.predict(images(2).tolist())["prob"]
        kept = first.copy()
        net.predict(images(3))
        assert np.array_equal(first, kept)


def test_threads_share_a_model(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights, threads=2) as net:
        alone = [net.predict(images(n))["prob"].tobytes() for n in range(1, 6)]

        def predict(count: int) -> int:
            expected = alone[count - 1]
            return sum(net.predict(images(count))["prob"].tobytes() != expected for _ in range(10))

        assert run_threads([lambda n=n: predict(n) for n in range(1, 6)]) == [0] * 5


def test_summary(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        text = net.summary()
    assert "small: TEST, batch of 4" in text
    assert "conv1" in text
    assert "Convolution" in text


def test_bf16_on_the_cpu(tmp_path: Path) -> None:
    """Predictions are float32 near those of fp32, and do not depend on the batch or the threads."""
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        plain = net.predict(images(5))["prob"]
    with runtime.load(model, weights, precision="bf16") as net:
        rounded = net.predict(images(5))["prob"]
        assert net.predict(images(5)[3:4])["prob"].tobytes() == rounded[3:4].tobytes()
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - plain).max() < 0.01
    with runtime.load(model, weights, precision="bf16", threads=1) as net:
        assert net.predict(images(5))["prob"].tobytes() == rounded.tobytes()


def test_other_devices(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as cpu, runtime.load(model, weights, device="emu") as emu:
        expected = cpu.predict(images(5))["prob"]
        np.testing.assert_allclose(emu.predict(images(5))["prob"], expected, rtol=1e-4)
    for device in ("tpu", "gpu:x", "cpu ", ""):
        with pytest.raises(DeviceError, match=r"unknown; expected 'cpu', 'gpu', 'gpu:N' or 'emu'"):
            runtime.load(model, weights, device=device)
    with pytest.raises(DeviceError, match="precision"):
        runtime.load(model, weights, precision="fp8")
    with pytest.raises(DeviceError, match="threads is 0"):
        runtime.load(model, weights, threads=0)


def test_layers_without_weights(tmp_path: Path) -> None:
    _model, weights = write(tmp_path, CLASSES)
    other = tmp_path / "other.prototxt"
    other.write_text(CLASSES.replace('"fc"', '"fc8"'))
    with pytest.raises(SnapshotError, match=r"no weights for 1 of the net's layers \(fc8\)"):
        runtime.load(other, weights)
    with runtime.load(other, weights, allow_missing=True) as net:
        assert net.predict(images(1))["prob"].shape == (1, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 12, 12), np.float32), r"expected \(N, 3, 12, 12\); add the axis of samples"),
        (np.zeros((1, 12, 12, 3), np.float32), "reorder the axes to samples, channels"),
        (np.zeros((0, 3, 12, 12), np.float32), "arrays of {'data': 0} samples"),
        ([[1.0], [2.0, 3.0]], "not an array of numbers"),
        ("cat.jpg", "not an array of numbers"),
        (np.zeros((1, 3, 20, 20), np.float32), "layer 'fc'"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, values: object, message: str) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        with pytest.raises(ShapeError, match=message):
            net.predict(values)
        assert net.predict(images(1))["prob"].shape == (1, 5)


def test_names_that_are_not_the_nets(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with runtime.load(model, weights) as net:
        with pytest.raises(ProtoError, match="expected an array for each of data, got image; give"):
            net.predict({"image": images(1)})
        with pytest.raises(ProtoError, match="no blob 'fc9'; expected some of data, conv1"):
            net.predict(images(1), outputs=["fc9"])


def test_files_that_do_not_load(tmp_path: Path) -> None:
    model, _weights = write(tmp_path, CLASSES)
    (tmp_path / "bad.prototxt").write_text(CLASSES.replace('"Softmax"', '"Softmaxx"'))
    with pytest.raises(UnsupportedError, match=r"bad.prototxt:\d+:\d+: .*Softmaxx"):
        runtime.load(tmp_path / "bad.prototxt")
    with pytest.raises(SnapshotError, match=r"none\.caffemodel"):
        runtime.load(model, tmp_path / "none.caffemodel")
    (tmp_path / "data.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }'
    )
    with (
        runtime.load(tmp_path / "data.prototxt") as net,
        pytest.raises(ProtoError, match="the net has no Input layer; expected a net that takes"),
    ):
        net.predict(images(1))


def test_the_package_exports_little_and_imports_it_late() -> None:
    assert runtime.Net.__name__ == "Net"
    assert runtime.Solver.__name__ == "Solver"
    assert runtime.__version__
    with pytest.raises(AttributeError, match="module 'runtime' has no attribute 'tensor'"):
        _ = runtime.tensor
