"""`--precision`: what convolutions round to, where it is accepted, and where it is stored."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import DeviceError, ProtoError
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.registry import create_backend
from runtime.cli import devices
from runtime.cli.main import main
from runtime.logs.glog import close_logging

# Sixteen channels are the fewest that tensor cores take.
NET = """
name: "rounded"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 16 dim: 6 dim: 6 } shape { dim: 2 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" snapshot_prefix: "snap"
random_seed: 1"""
TRAIN = ["train", "--solver", "solver.prototxt"]
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(f"{SOLVER} max_iter: 2")
    (tmp_path / "solver.verydeep.toml").write_text("[parallel]\nshards = 1\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_logging()


def weights() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model = proto.NetParameter.FromString(Path("snap_iter_2.caffemodel").read_bytes())
    layer = next(layer for layer in model.layer if layer.name == "conv")
    return np.array(layer.blobs[0].data, np.float32)


def noted() -> str:
    return str(json.loads(Path("snap_iter_2.state.json").read_text())["precision"])


def test_the_flag_the_sidecar_and_the_default(folder: Path, capsys: Out) -> None:
    found = {}
    for words in ("", "--precision tf32", "--precision bf16"):
        assert main([*TRAIN, "--device", "emu", *words.split()]) == 0
        found[noted()] = weights()
        assert f"Convolutions compute in {noted()}" in capsys.readouterr().err
    assert list(found) == ["fp32", "tf32", "bf16"]
    # Each is another result, and the more bits are dropped, the farther it is from fp32's.
    gap = {name: float(np.abs(found["fp32"] - found[name]).max()) for name in found}
    assert 0 < gap["tf32"] < gap["bf16"] < 0.05
    (folder / "solver.verydeep.toml").write_text(
        '[parallel]\nshards = 1\n[compute]\nprecision = "bf16"\n'
    )
    assert main([*TRAIN, "--device", "emu"]) == 0
    assert noted() == "bf16"
    assert weights().tobytes() == found["bf16"].tobytes()
    assert main([*TRAIN, "--device", "emu", "--precision", "fp32"]) == 0
    assert weights().tobytes() == found["fp32"].tobytes()


def test_a_resumed_run_with_another_precision_is_logged(folder: Path, capsys: Out) -> None:
    assert main([*TRAIN, "--device", "emu", "--precision", "tf32"]) == 0
    (folder / "solver.prototxt").write_text(f"{SOLVER} max_iter: 3")
    capsys.readouterr()
    assert main([*TRAIN, "--snapshot", "auto"]) == 0
    said = capsys.readouterr().err
    assert "run computed in tf32 and this one computes in fp32; use --precision tf32" in said


def test_a_snapshot_without_a_word_of_it_was_in_fp32(capsys: Out) -> None:
    assert main(TRAIN) == 0
    path = Path("snap_iter_2.state.json")
    state = json.loads(path.read_text())
    del state["precision"]
    path.write_text(json.dumps(state))
    capsys.readouterr()
    assert main([*TRAIN, "--snapshot", "auto"]) == 0
    assert "--precision" not in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--precision", "tf32"], ["--device", "cpu"]])
def test_a_cpu_refuses_tf32(flags: list[str], folder: Path, capsys: Out) -> None:
    (folder / "solver.verydeep.toml").write_text('[compute]\nprecision = "tf32"\n')
    assert main([*TRAIN, *flags]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "verydeep train: backend 'cpu': precision tf32; expected fp32 or bf16, since a CPU has no "
        "tensor cores; use --precision fp32 or bf16, or select a GPU with --gpu"
    )


def test_a_cpu_computes_in_bf16(folder: Path, capsys: Out) -> None:
    assert main([*TRAIN, "--device", "cpu"]) == 0
    plain = weights()
    capsys.readouterr()
    assert main([*TRAIN, "--device", "cpu", "--precision", "bf16"]) == 0
    assert "Convolutions compute in bf16" in capsys.readouterr().err
    assert noted() == "bf16"
    rounded = weights()
    assert 0 < np.abs(plain - rounded).max() < 0.05
    # The weights themselves are in fp32.
    assert (rounded.view(np.uint32) & 0xFFFF).any()
    (folder / "solver.verydeep.toml").write_text('[compute]\nprecision = "bf16"\n')
    assert main([*TRAIN, "--device", "cpu", "--threads", "1", "--launch-by-launch"]) == 0
    assert noted() == "bf16"
    assert weights().tobytes() == rounded.tobytes()


def test_a_device_without_tensor_cores(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    monkeypatch.setattr("runtime.backend.cuda.driver_emulator.ARCH", (7, 5))
    assert main(["time", "--model", "net.prototxt", "--device", "emu", "--precision", "tf32"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "verydeep time: backend 'emu': precision tf32 on emulator (g++), which is sm_75; expected "
        "sm_80 or newer; use precision fp32"
    )


@pytest.mark.parametrize("verb", ["time", "test"])
@pytest.mark.parametrize(
    ("device", "precision", "algorithm"), [("emu", "tf32", "tensor_tf32"), ("cpu", "bf16", "bf16")]
)
def test_the_verbs_that_compute_take_it(
    verb: str, device: str, precision: str, algorithm: str, capsys: Out
) -> None:
    assert main(TRAIN) == 0
    capsys.readouterr()
    words = ["--model", "net.prototxt", "--weights", "snap_iter_2.caffemodel", "--iterations", "1"]
    assert main([verb, *words, "--device", device, "--precision", precision]) == 0
    out, err = capsys.readouterr()
    assert f"Convolutions compute in {precision}" in err
    assert verb == "test" or algorithm in out


def test_a_backend_has_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("fp32", "bf16"):
        assert create_backend("cpu", precision=precision).precision == precision
    backend = create_backend("emu", precision="bf16")
    assert backend.precision == "bf16"
    assert isinstance(backend.driver, EmulatorDriver)  # type: ignore[attr-defined]  # CUDA's own
    with pytest.raises(DeviceError, match="backend 'cpu': precision tf32; expected fp32 or bf16"):
        create_backend("cpu", precision="tf32")
    with pytest.raises(DeviceError, match="precision bf16; expected fp32 with dtype float64"):
        create_backend("cpu", precision="bf16", dtype="float64")


def test_an_unreadable_sidecar_is_an_error(folder: Path) -> None:
    (folder / "solver.verydeep.toml").write_text("[compute]\nprecision = 'fp8'\n")
    flags = argparse.Namespace(precision=None, solver="solver.prototxt")
    with pytest.raises(ProtoError, match=r"compute\.precision: out of range; expected one of fp32"):
        devices.precision_of(flags)
    flags.precision = "fp32"
    assert devices.precision_of(flags) == "fp32"
    assert devices.precision_of(argparse.Namespace()) == "fp32"
