"""Drawings: the text is checked, and a stand-in for Graphviz where an image is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import draw, proto
from prototxt_gen.draw import draw_net_to_file, layer_lines, net_to_dot
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.text import parse

NET = parse(
    """name: "a \\"net\\""
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
      data_param { batch_size: 8 } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 20 kernel_size: 5 pad: 2 } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "acc" type: "Accuracy" bottom: "conv" bottom: "label" exclude { phase: TRAIN } }
    """,
    proto.NetParameter,
)


def layer(text: str) -> Any:
    return parse(text, proto.LayerParameter)


def test_whole_drawing() -> None:
    blob = 'shape=octagon, style=filled, fillcolor="#E0E0E0"'
    assert net_to_dot(NET, phase=proto.TRAIN) == (
        'digraph "a \\"net\\"" {\n'
        "  rankdir=LR;\n"
        f'  "blob data" [label="data", {blob}];\n'
        f'  "blob label" [label="label", {blob}];\n'
        f'  "blob conv" [label="conv", {blob}];\n'
        '  layer0 [label="data\\n(Data)", shape=box, style=filled, fillcolor="#6495ED"];\n'
        '  layer0 -> "blob data" [label="Batch 8"];\n'
        '  layer0 -> "blob label" [label="Batch 8"];\n'
        '  layer1 [label="conv\\n(Convolution)\\nkernel size: 5\\nstride: 1\\npad: 2", '
        'shape=box, style=filled, fillcolor="#FF5050"];\n'
        '  "blob data" -> layer1;\n'
        '  layer1 -> "blob conv" [label="20"];\n'
        '  layer2 [label="relu\\n(ReLU)", shape=box, style=filled, fillcolor="#90EE90"];\n'
        '  "blob conv" -> layer2 [dir=both];\n'
        "}\n"
    )


def test_phases() -> None:
    def names(phase: int | None) -> list[str]:
        text = net_to_dot(NET, phase=phase)
        return [name for name in ("data", "conv", "relu", "acc") if f'label="{name}\\n' in text]

    assert names(None) == ["data", "conv", "relu", "acc"]
    assert names(proto.TRAIN) == ["data", "conv", "relu"]
    assert names(proto.TEST) == ["conv", "relu", "acc"]
    net = parse('layer { name: "s" include { stage: "x" } }', proto.NetParameter)
    assert "layer0" in net_to_dot(net, phase=proto.TEST)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('name: "r" type: "ReLU"', "r (ReLU)"),
        (
            'name: "c" type: "Deconvolution" convolution_param { kernel_size: [3, 5] stride: 2 }',
            "c (Deconvolution) kernel size: 3x5 stride: 2 pad: 0",
        ),
        (
            'name: "c" type: "Convolution" convolution_param { kernel_h: 1 kernel_w: 7 pad_w: 3 }',
            "c (Convolution) kernel size: 1x7 stride: 1 pad: 0x3",
        ),
        ('name: "c" type: "Convolution"', "c (Convolution) kernel size: 1 stride: 1 pad: 0"),
        (
            'name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }',
            "p (AVE Pooling) kernel size: 3 stride: 2 pad: 1",
        ),
        (
            'name: "p" type: "Pooling" pooling_param { global_pooling: true }',
            "p (MAX Pooling) kernel size: global stride: 1 pad: 0",
        ),
    ],
)
def test_labels(text: str, label: str) -> None:
    assert " ".join(layer_lines(layer(text))) == label
    net = parse(f"layer {{ {text} }}", proto.NetParameter)
    assert f'layer0 [label="{label}"' in net_to_dot(net, "TB")
    name, _, rest = label.partition(" ")
    assert f'layer0 [label="{name}\\n{rest.partition(" ")[0]}' in net_to_dot(net, "LR")


def test_layers_of_one_phase_are_marked_where_all_are_drawn() -> None:
    """TRAIN and TEST differ in one drawing, and drawn apart with `phase`."""
    text = net_to_dot(NET)
    marked = 'shape=box, style="filled,dashed"'
    assert f'layer0 [label="data\\n(Data)\\nTRAIN only", {marked}' in text
    assert f'layer3 [label="acc\\n(Accuracy)\\nTEST only", {marked}' in text
    assert text.count("only") == text.count("dashed") == 2
    for phase in (proto.TRAIN, proto.TEST):
        assert "only" not in net_to_dot(NET, phase=phase)


@pytest.mark.parametrize(
    ("rules", "mark"),
    [
        ("include { phase: TRAIN }", "TRAIN only"),
        ("exclude { phase: TRAIN }", "TEST only"),
        ("include { phase: TRAIN } include { phase: TEST }", ""),
        ('include { stage: "x" }', ""),
        ("exclude { phase: TRAIN } exclude { phase: TEST }", ""),
        ("", ""),
    ],
)
def test_phase_marks(rules: str, mark: str) -> None:
    assert draw.phase_mark(layer(f'name: "x" {rules}')) == mark


def test_channels_on_edges() -> None:
    net = parse(
        """layer { name: "a" type: "Input" top: "x" }
        layer { name: "b" type: "Pooling" bottom: "x" top: "y" include { phase: TRAIN } }
        layer { name: "c" type: "InnerProduct" bottom: "x" top: "z"
          inner_product_param { num_output: 7 } }""",
        proto.NetParameter,
    )
    known = {proto.TRAIN: {("a", "x"): 3, ("b", "y"): 3}, proto.TEST: {("a", "x"): 4}}
    text = net_to_dot(net, channels=known)
    assert 'layer0 -> "blob x" [label="3, 4"];' in text
    assert 'layer1 -> "blob y" [label="3"];' in text
    assert 'layer2 -> "blob z" [label="7"];' in text


def test_edges_have_the_number_of_outputs() -> None:
    net = parse(
        'layer { type: "InnerProduct" top: "a" inner_product_param { num_output: 7 } }',
        proto.NetParameter,
    )
    assert 'layer0 -> "blob a" [label="7"];' in net_to_dot(net, "BT")


def test_text_needs_no_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "net.DOT"
    draw_net_to_file(NET, path, rankdir="TB")
    assert path.read_text(encoding="utf-8") == net_to_dot(NET, "TB")


def test_image_without_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "net.png"
    with pytest.raises(UnsupportedError) as caught:
        draw_net_to_file(NET, path)
    assert str(caught.value) == (
        f"{path}: a drawing as .png needs Graphviz; expected its program 'dot' on PATH, got none; "
        "install graphviz, or write a .dot file"
    )
    assert not path.exists()


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_an_image_is_drawn_by_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, 'echo "$1"; cat')
    path = tmp_path / "net.svg"
    draw_net_to_file(NET, path)
    assert path.read_text(encoding="utf-8") == "-Tsvg\n" + net_to_dot(NET)


def test_graphviz_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "cat > /dev/null; echo no fonts >&2; exit 1")
    path = tmp_path / "net.pdf"
    with pytest.raises(UnsupportedError, match=r"Graphviz failed; .* got no fonts; write"):
        draw_net_to_file(NET, path)
    assert not path.exists()

    def hang(*args: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("dot", options["timeout"])

    monkeypatch.setattr(draw.subprocess, "run", hang)
    with pytest.raises(UnsupportedError, match="timed out after 60 seconds"):
        draw_net_to_file(NET, path)


def test_unknown_endings_and_directions(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"not a format for drawings; expected .*'\.bmpx'"):
        draw_net_to_file(NET, tmp_path / "net.bmpx")
    with pytest.raises(ProtoError, match="rankdir: unknown direction; expected one of LR TB BT RL"):
        net_to_dot(NET, "UP")
