"""The model of a step on a GPU: orders that must hold, bounds by hand, and the verb."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.sidecar import PRECISIONS
from prototxt_gen.spec import builtin_spec
from runtime.analysis import gpu_model
from runtime.analysis.gpu_model import GPUS, predict_step, prediction_lines
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.net.shape_net import shape_net


@pytest.fixture(scope="module")
def net_d() -> Any:
    param = heads.deploy(builtin_spec("D"))
    with shape_net(param, proto.TEST, create_backend("cpu"), batch=1) as net:
        yield net


def test_the_step_is_the_sum_of_its_parts(net_d: Any) -> None:
    for precision in PRECISIONS:
        found = predict_step(net_d, 64, "h200", precision)
        parts = found.as_dict()
        named = ("forward", "backward_data", "backward_weight", "dense", "other", "update")
        assert found.step == pytest.approx(sum(parts[name] for name in (*named, "launches")))
        assert parts["images_per_second"] == pytest.approx(64 / found.step)


def test_a_lower_precision_and_a_faster_gpu_take_less_time(net_d: Any) -> None:
    for name in GPUS:
        fp32, tf32, bf16 = (predict_step(net_d, 64, name, p).step for p in PRECISIONS)
        assert bf16 < tf32 and bf16 < fp32
    h200, h100, a100 = (predict_step(net_d, 64, n, "bf16").step for n in ("h200", "h100", "a100"))
    assert h200 < h100 < a100


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_rate_is_above_its_peak(net_d: Any, precision: str) -> None:
    for name, gpu in GPUS.items():
        assert gpu.rate(precision) < getattr(gpu, precision) * 1e12
        found = predict_step(net_d, 64, name, precision)
        flop = 2.0 * 64 * sum(geom.macs for geom in gpu_model._geometries(net_d))
        saved = 4.0 if precision == "fp32" else 1.0  # Winograd's F(4x4)
        assert found.forward * getattr(gpu, precision) * 1e12 * saved > flop


def test_the_prediction_of_the_paper_s_net_d_is_in_the_expected_range(net_d: Any) -> None:
    """Ranges of an independent reading of the kernels, in ms for a batch of 64 on an H200."""
    for precision, least, most in (("fp32", 59, 81), ("tf32", 51, 78), ("bf16", 30, 44)):
        step = 1e3 * predict_step(net_d, 64, "h200", precision).step
        assert least <= step <= most, (precision, step)


def test_a_batch_of_twice_the_images_takes_about_twice_as_long(net_d: Any) -> None:
    one, two = (predict_step(net_d, batch, "a100", "tf32") for batch in (64, 128))
    assert two.forward == pytest.approx(2 * one.forward, rel=0.01)
    assert two.update == one.update


def test_a_small_convolution_is_bound_by_memory() -> None:
    gpu, geom = GPUS["h200"], ConvGeometry(8, 16, 32, 32, 16, (1, 1))
    forward, *_ = gpu_model._convolution(geom, 8, gpu, "fp32")
    assert forward == pytest.approx(4 * 2 * 8 * 16 * 1024 / gpu.bandwidth)


def test_the_verb_prints_the_prediction_and_its_assumptions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["plan", "--net", "A", "--gpus", "2", "--batch", "128", "--shards", "2"]
    assert main([*flags, "--gpu", "a100", "--precision", "bf16"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("predicted step of 64 images on one A100 SXM 80 GB in bf16\n")
    assert "assumptions of the prediction, none of which has been measured" in text
    assert "TFLOP/s on this net (predicted for --gpu a100)" in text
    assert main([*flags, "--gpu", "a100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prediction"]["precision"] == "fp32"
    assert found["compute"] == pytest.approx(
        found["prediction"]["step"] - found["prediction"]["update"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpu", "h100", "--tflops", "3"], "--tflops: the speed is given twice; expected --gpu"),
        (["--gpu", "h100", "--memory-gbs", "3"], "--memory-gbs: the speed is given twice"),
        (["--precision", "bf16"], "--precision bf16: applies to a predicted step; expected --gpu"),
    ],
)
def test_speeds_are_given_once(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--net", "A", *flags]) == 2
    assert message in capsys.readouterr().err


def test_every_gpu_has_lines(net_d: Any) -> None:
    for name in GPUS:
        lines = prediction_lines(predict_step(net_d, 32, name))
        assert all(len(line) <= 100 for line in lines)
