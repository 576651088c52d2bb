"""`verydeep draw`."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cli.main import main

NET = """
layer { name: "in" type: "Input" top: "x" include { phase: TEST } }
layer { name: "data" type: "DummyData" top: "x" include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { lr_mult: 3 } }
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return "net.prototxt"


def test_caffes_flags(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", net, "all.dot"]) == 0
    assert capsys.readouterr().out == "all.dot\n"
    drawn = Path("all.dot").read_text()
    assert "in\\n(Input)" in drawn
    assert "data\\n(DummyData)" in drawn
    assert "lr mult" not in drawn
    flags = ["--phase", "TEST", "-rankdir", "TB", "-display_lrm"]
    assert main(["draw", net, "test.dot", *flags]) == 0
    drawn = Path("test.dot").read_text()
    assert "rankdir=TB" in drawn
    assert "ip (InnerProduct) lr mult: 3" in drawn
    assert "DummyData" not in drawn
    assert main(["draw", net, "a.png"]) == 0
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_format(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", net, "a.doc"]) == 2
    assert "verydeep draw: draw_net: not a format for drawings; expected one of" in (
        capsys.readouterr().err
    )


def test_channels_and_phases_are_shown(net: str) -> None:
    """Also of layers without a `num_output`, such as a concatenation."""
    Path(net).write_text(
        'layer { name: "in" type: "Input" top: "x" include { phase: TEST }'
        "  input_param { shape { dim: 1 dim: 3 } } }"
        'layer { name: "data" type: "DummyData" top: "x" include { phase: TRAIN }'
        "  dummy_data_param { shape { dim: 8 dim: 3 } } }"
        'layer { name: "c" type: "Concat" bottom: "x" bottom: "x" top: "z" }'
    )
    assert main(["draw", net, "all.dot"]) == 0
    drawn = Path("all.dot").read_text()
    assert "in\\n(Input)\\nTEST only" in drawn
    assert "data\\n(DummyData)\\nTRAIN only" in drawn
    assert '-> "blob z" [label="6"];' in drawn
    assert main(["draw", net, "train.dot", "--phase=TRAIN"]) == 0
    drawn = Path("train.dot").read_text()
    assert "(Input)" not in drawn and "only" not in drawn
