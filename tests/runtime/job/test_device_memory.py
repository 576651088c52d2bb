"""A run that its device has no memory for is refused before it begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from runtime.backend.base import Backend
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver import OutOfMemoryError
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.job.training import TrainJob, TrainResult, train

# A batch of 8 rows of 4096 numbers is 128 KiB, the weights are 16 KiB.
NET = """
name: "wide"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 8 dim: 4096 } shape { dim: 8 } } }
layer { name: "twice" type: "Power" bottom: "data" top: "twice" power_param { scale: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "twice" top: "ip"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "{}" base_lr: 0 lr_policy: "fixed" max_iter: 1 random_seed: 1'


def trained(folder: Path, backend: Backend) -> TrainResult:
    (folder / "net.prototxt").write_text(NET)
    solver = folder / "solver.prototxt"
    solver.write_text(SOLVER.format(folder / "net.prototxt") + f' snapshot_prefix: "{folder}/s"')
    (folder / "solver.verydeep.toml").write_text("[parallel]\nshards = 1\n")
    return train(TrainJob(solver), lambda param: backend)


def test_too_little_memory_is_an_error_before_the_first_pass(tmp_path: Path) -> None:
    backend = CudaBackend(EmulatorDriver(memory=200 << 10))
    with pytest.raises(OutOfMemoryError) as caught:
        trained(tmp_path, backend)
    words = str(caught.value)
    # Data, what is twice it, and three times the weights.
    assert "out of memory; asked for 311668 bytes" in words
    assert "for net 'wide' and its history, by estimate, free are 204288 bytes of" in words
    assert "use a smaller batch_size, more GPUs" in words
    assert "set batch_size: 4 in the net and iter_size: 2 in the solver" in words
    assert backend.device_memory.peak_bytes <= 1536  # a label, a loss, and their weight


def test_enough_memory_is_estimated_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    assert trained(tmp_path, CudaBackend(EmulatorDriver(memory=1 << 24))).iterations == 1
    assert "Memory: about 0.00 GiB of 0.02 GiB" in caplog.text


def test_a_host_is_not_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    assert trained(tmp_path, CpuBackend()).iterations == 1
    assert "Memory:" not in caplog.text
