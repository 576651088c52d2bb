"""The performance model, against what can be worked out by hand."""

from __future__ import annotations

import json

import pytest

from prototxt_gen.errors import ProtoError
from runtime.analysis.time_estimate import LayerCost, Machine, plan_step
from runtime.cli.main import main

LAYERS = [LayerCost(900, 10), LayerCost(100, 990)]
MACHINE = Machine(tflops=6e-9, memory_gbs=4e-6, link_gbs=4e-6)
"""6,000 operations and 1,000 numbers a second: 1 multiply-add of training takes 1 ms."""


def test_by_hand() -> None:
    found = plan_step(LAYERS, 8, 2, 4, MACHINE)
    assert found.compute == pytest.approx(4.0)
    # One more shard of its own, and half of the gradient from the other device: 1.5 x 3 touches.
    assert found.adds == pytest.approx(4.5)
    assert found.bytes_sent == 4000 and found.exchange == pytest.approx(1.0)
    assert found.update == pytest.approx(2.5)
    assert found.alone == pytest.approx(8.0 + 5.0)
    # Backward of 2 images: 0.133 s for the last layer, then its 495 numbers while the first
    # layer's 1.2 s go by; the first layer's 5 numbers find no cover.
    assert found.hidden == pytest.approx(0.495)
    assert found.speedup_without_overlap == pytest.approx(13.0 / 12.0)
    assert found.speedup == pytest.approx(13.0 / (12.0 - 0.495))


def test_one_device_sends_nothing() -> None:
    found = plan_step(LAYERS, 8, 1, 1, MACHINE)
    assert (found.bytes_sent, found.exchange, found.adds, found.hidden) == (0, 0, 0, 0)
    assert found.speedup == pytest.approx(1.0)


def test_what_does_not_divide() -> None:
    with pytest.raises(ProtoError, match="plan: a batch of 8 in 3 shards on 1 devices; expected"):
        plan_step(LAYERS, 8, 1, 3, MACHINE)


def test_the_papers_net(capsys: pytest.CaptureFixture[str]) -> None:
    """Net D has 138 million parameters: 0.75 of twice 553 MB leave each of four GPUs."""
    assert main(["plan", "--net", "D", "--gpus", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes_sent"] == 2 * 4 * 138_357_544 * 3 // 4
    assert 3.9 < found["speedup"] < 4, "the paper measured 3.75"
    assert found["speedup_without_overlap"] < found["speedup"]
    assert main(["plan", "--net", "D", "--gpus", "4", "--link", "ethernet-10g"]) == 0
    assert "speed-up" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--gpus", "0"], ["--tflops", "0"], ["--link-gbs", "-1"]])
def test_bad_numbers(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--net", "A", *flags]) == 2
    assert "plan: expected numbers above 0 for --gpus, --batch" in capsys.readouterr().err


def test_the_assumptions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--net", "A", "--tflops", "7", "--memory-gbs", "300", "--link-gbs", "5"]
    assert main(["plan", *flags]) == 0
    shown = capsys.readouterr().out
    assert shown.partition("assumptions\n")[2].count("\n") == 6
    for words in (
        "each GPU computes 7 TFLOP/s on this net (--tflops)",
        "each GPU reads and writes 300 GB/s of memory (--memory-gbs)",
        "each GPU sends and receives 5 GB/s at the same time (--link-gbs)",
        "6 operations for each multiply-add of the forward pass",
        "4 bytes per value",
    ):
        assert words in shown
    assert main(["plan", "--net", "A", "--link", "pcie"]) == 0
    assert "receives 11 GB/s at the same time (--link pcie)" in capsys.readouterr().out
    assert main(["plan", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["assumptions"]
    assert (found["tflops"], found["memory_gbs"], found["link_gbs"]) == (7, 300, 5)
    assert found["link"] is None and found["flop_per_multiply_add"] == 6
