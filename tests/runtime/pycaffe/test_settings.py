"""Mode, device, ranks, log, timer and the name caffe."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time

import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import DeviceError
from runtime.logs.glog import close_logging
from runtime.pycaffe.session import SESSION
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY


def test_the_mode_applies_to_nets_made_later(
    write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(name: str, device: int) -> None:
        asked.append((name, device))
        raise DeviceError("no such device")

    path = write(DEPLOY)
    net = caffe.Net(path, caffe.TEST)
    assert SESSION.backend() is net.core.backend
    monkeypatch.setattr("runtime.pycaffe.session.create_backend", refuse)
    caffe.set_mode_gpu()
    assert "set_mode_gpu: existing nets keep their device" in caplog.text
    caffe.set_device(2)
    with pytest.raises(DeviceError, match="no such device"):
        caffe.Net(path, caffe.TEST)
    assert asked == [("gpu", 2)]
    net.forward()
    caffe.set_mode_cpu()
    assert caffe.Net(path, caffe.TEST).core.backend is net.core.backend
    with pytest.raises(RuntimeError, match="set_device: expected a device number of at least 0"):
        caffe.set_device(-1)


def test_no_warning_if_the_mode_is_set_first(caplog: pytest.LogCaptureFixture) -> None:
    caffe.set_mode_gpu()
    caffe.set_mode_cpu()
    assert not caplog.text


def test_counts_and_ranks() -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), SESSION.multiprocess) == (1, 0, False)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank(), SESSION.multiprocess) == (4, 3, True)


def test_layer_types() -> None:
    known = caffe.layer_type_list()
    assert known == sorted(known)
    assert {"Data", "Convolution", "InnerProduct", "Python", "SoftmaxWithLoss"} <= set(known)


def test_version_and_phases() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert re.fullmatch(r"1\.0\.\d+", caffe.__version__)
    assert all(hasattr(caffe, name) for name in caffe.__all__)


def test_log_lines_are_caffes(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        caffe.init_log()
        caffe.log("hello")
        assert re.search(r"^I\d{4} .*_caffe.cpp:84\] hello$", capsys.readouterr().err, re.M)
        caffe.init_log(2, True)
        caffe.log("hello")
        logging.getLogger("verydeep.net").error("ouch")
        shown = capsys.readouterr().err
        assert "hello" not in shown
        assert "ouch" in shown
    finally:
        close_logging()
    with pytest.raises(RuntimeError, match="init_log: expected a level of 0 to 3, got 4"):
        caffe.init_log(4)


def test_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    timer.stop()
    assert timer.ms == 250


ALIAS = """
import runtime.pycaffe as ours
{before}
ours.install_as_caffe()
ours.install_as_caffe()
import caffe, caffe.io, caffe.draw
from caffe import layers as L
from caffe.coord_map import crop
from caffe.proto import caffe_pb2
assert caffe is ours and caffe.io is ours.io and caffe_pb2 is ours.caffe_pb2
print("the same")
"""


@pytest.mark.parametrize(
    ("before", "out", "err"),
    [
        ("", "the same", ""),
        (
            "import sys, types; sys.modules['caffe'] = types.ModuleType('caffe')",
            "",
            "CallError: install_as_caffe: another caffe is imported already",
        ),
    ],
)
def test_the_name_caffe(before: str, out: str, err: str) -> None:
    script = ALIAS.format(before=before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == out
    assert err in done.stderr
