"""The exact text of log lines, and the JSON lines of the same events."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from prototxt_gen.errors import VerydeepError
from runtime.solvers.display import JsonLog, LossSmoother
from tests.runtime.solvers.toy import CLASSIFIER, make_solver, prefix


def _run(
    caplog: pytest.LogCaptureFixture, fields: str, net: str = CLASSIFIER, hooks: tuple = ()
) -> list[str]:
    caplog.set_level(logging.INFO, "verydeep")
    solver = make_solver(fields, net, 8, hooks=hooks)
    caplog.clear()
    solver.solve()
    return [
        f"{record.caffe_at}] {record.getMessage()}"
        for record in caplog.records
        if hasattr(record, "caffe_at")
    ]


NUMBER = r"-?[0-9.]+(e[+-][0-9]+)?"
EXPECTED = [
    r"solver\.cpp:289\] Solving classifier",
    r"solver\.cpp:290\] Learning Rate Policy: multistep",
    r"solver\.cpp:347\] Iteration 0, Testing net \(#0\)",
    rf"solver\.cpp:414\]     Test net output #0: accuracy = {NUMBER}",
    rf"solver\.cpp:414\]     Test net output #1: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)",
    rf"solver\.cpp:239\] Iteration 0 \(0 iter/s, {NUMBER}s/2 iters\), loss = {NUMBER}",
    rf"solver\.cpp:258\]     Train net output #0: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)",
    r"sgd_solver\.cpp:112\] Iteration 0, lr = 0\.1",
    rf"solver\.cpp:239\] Iteration 2 \({NUMBER} iter/s, {NUMBER}s/2 iters\), loss = {NUMBER}",
    rf"solver\.cpp:258\]     Train net output #0: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)",
    r"sgd_solver\.cpp:50\] MultiStep Status: Iteration 2, step = 1",
    r"sgd_solver\.cpp:112\] Iteration 2, lr = 0\.01",
    r"solver\.cpp:464\] Snapshotting to binary proto file .*/toy_iter_4\.caffemodel",
    r"sgd_solver\.cpp:284\] Snapshotting solver state to binary proto file .*toy_iter_4.solverst.*",
    rf"solver\.cpp:327\] Iteration 4, loss = {NUMBER}",
    r"solver\.cpp:347\] Iteration 4, Testing net \(#0\)",
    rf"solver\.cpp:414\]     Test net output #0: accuracy = {NUMBER}",
    rf"solver\.cpp:414\]     Test net output #1: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)",
    r"solver\.cpp:332\] Optimization Done\.",
]


def test_the_lines_of_a_run(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    lines = _run(
        caplog,
        "lr_policy: 'multistep' gamma: 0.1 stepvalue: 2 display: 2 max_iter: 4 test_iter: 2 "
        f"test_interval: 4 {prefix(tmp_path)}",
    )
    assert len(lines) == len(EXPECTED)
    for line, pattern in zip(lines, EXPECTED):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_test_loss_and_clipping_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    lines = _run(
        caplog,
        "max_iter: 1 display: 0 test_iter: 1 test_interval: 1 test_compute_loss: true "
        "clip_gradients: 0.01",
    )
    assert any(re.fullmatch(rf"solver\.cpp:401\] Test loss: {NUMBER}", line) for line in lines)
    clip = "Gradient clipping: scaling down gradients (L2 norm "
    assert any(clip in line and "> 0.01) by scale factor 0." in line for line in lines)


def test_debug_info(caplog: pytest.LogCaptureFixture) -> None:
    lines = _run(caplog, "max_iter: 2 display: 2 debug_info: true")
    text = "\n".join(lines)
    for pattern in (
        rf"    \[Forward\] Layer ip1, top blob ip1 data: {NUMBER}",
        rf"    \[Forward\] Layer ip1, param blob 0 data: {NUMBER}",
        rf"    \[Backward\] Layer loss, bottom blob ip2 diff: {NUMBER}",
        rf"    \[Backward\] Layer ip1, param blob 1 diff: {NUMBER}",
        rf"    \[Backward\] All net params \(data, diff\): L1 norm = \({NUMBER}, {NUMBER}\); "
        rf"L2 norm = \({NUMBER}, {NUMBER}\)",
        rf"    \[Update\] Layer ip1, param 0 data: {NUMBER}; diff: {NUMBER}",
    ):
        assert re.search(pattern, text), pattern
    # Only for displayed iterations.
    assert text.count("[Backward] All net params") == 1


def test_smoothing_is_a_running_mean() -> None:
    smoother = LossSmoother(3)
    assert [smoother.add(x) for x in (3.0, 1.0, 2.0, 4.0, 0.0)] == pytest.approx(
        [3.0, 2.0, 2.0, 7 / 3, 2.0]
    )


def test_the_loss_shown_is_smoothed_and_the_output_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = _run(caplog, "max_iter: 3 display: 1 base_lr: 0")
    smooth = _run(caplog, "max_iter: 3 display: 1 base_lr: 0 average_loss: 2")
    losses = [float(m[1]) for m in re.finditer(r"iters\), loss = (\S+)", "\n".join(plain))]
    shown = [float(m[1]) for m in re.finditer(r"iters\), loss = (\S+)", "\n".join(smooth))]
    assert shown[2] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-5)
    outputs = [line for line in plain if "Train net output" in line]
    assert outputs == [line for line in smooth if "Train net output" in line]


def test_json_lines(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.jsonl"
    _run(
        caplog,
        f"max_iter: 4 display: 2 test_iter: 2 test_interval: 4 iter_size: 3 {prefix(tmp_path)}",
        hooks=(JsonLog(path),),
    )
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["event"], r["iteration"]) for r in records] == [
        ("start", 0),
        ("test", 0),
        ("train", 0),
        ("train", 2),
        ("snapshot", 4),
        ("test", 4),
        ("end", 4),
    ]
    assert records[0]["batch"] == 24 and records[0]["max_iter"] == 4 and records[0]["seed"] == 5
    assert set(records[1]["outputs"]) == {"accuracy", "loss"}
    train = records[3]
    assert train["lr"] == pytest.approx(0.1) and train["images_per_second"] > 0
    assert train["data_wait_seconds"] == 0 and train["seconds"] > 0
    assert records[-1]["reason"] == "done"


def test_a_json_log_that_cannot_be_written(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VerydeepError, match="the JSON log cannot be written"):
        _run(caplog, "max_iter: 1", hooks=(JsonLog(tmp_path / "file" / "log"),))
