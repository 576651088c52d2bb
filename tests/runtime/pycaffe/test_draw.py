"""Drawings through pycaffe, with Graphviz and without."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen import draw as graphviz
from prototxt_gen import proto, text
from prototxt_gen.errors import UnsupportedError, VerydeepError
from runtime.analysis.net_plot import plot_net
from tests.runtime.pycaffe.small_nets import DEPLOY, TRAINABLE

NET = text.parse(TRAINABLE, proto.NetParameter)
V1 = text.parse('layers { name: "r" type: RELU bottom: "x" top: "y" }', proto.NetParameter)


@pytest.fixture
def no_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphviz, "has_graphviz", lambda: False)


@pytest.mark.usefixtures("no_graphviz")
def test_an_image_without_graphviz(tmp_path: Path) -> None:
    image = cv2.imdecode(np.frombuffer(caffe.draw.draw_net(NET, "LR"), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] > 2 * image.shape[0] > 100
    red, lilac = (image == (80, 80, 255)).all(2), (image == (255, 51, 204)).all(2)
    assert np.nonzero(red)[1].mean() < np.nonzero(lilac)[1].mean()  # conv before ip
    tall = caffe.draw.draw_net(NET, "TB")
    image = cv2.imdecode(np.frombuffer(tall, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] > image.shape[1]
    caffe.draw.draw_net_to_file(NET, tmp_path / "a.svg", phase=caffe.TEST, display_lrm=True)
    shown = (tmp_path / "a.svg").read_text()
    assert all(
        f"<!-- {words} -->" in shown for words in ("score", "(Convolution)", "lr mult: 1, 2")
    )
    with pytest.raises(UnsupportedError, match="needs Graphviz"):
        caffe.draw.draw_net_to_file(NET, tmp_path / "a.gif")


@pytest.mark.parametrize("rankdir", graphviz.RANKDIRS)
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plots_are_the_same_bytes_each_time(rankdir: str, suffix: str) -> None:
    first = plot_net(text.parse(DEPLOY, proto.NetParameter), suffix, rankdir)
    again = plot_net(text.parse(DEPLOY, proto.NetParameter), suffix, rankdir)
    if suffix == ".svg":  # its identifiers are random
        first, again = (re.sub(rb"[pm#][0-9a-f]{10}", b"", part) for part in (first, again))
    assert first == again


def test_plots_of_odd_nets() -> None:
    assert plot_net(proto.NetParameter(), ".png")[:4] == b"\x89PNG"
    with pytest.raises(UnsupportedError, match=r"'.dot' without Graphviz; expected one of .png"):
        plot_net(NET, ".dot")


def test_text_needs_no_graphviz() -> None:
    written = caffe.draw.draw_net(NET, "TB", "dot", display_lrm=True).decode()
    assert 'layer1 [label="conv (Convolution) kernel size: 3 stride: 1 pad: 1 lr mult: 1, 2"' in (
        written
    )
    assert "lr mult" not in caffe.draw.draw_net(NET, "TB", "dot").decode()
    assert '"r\\n(ReLU)"' in caffe.draw.draw_net(V1, "LR", "dot").decode()
    assert len(V1.layers) == 1  # the caller's net is left as it is


@pytest.mark.usefixtures("no_graphviz")
def test_unknown_directions_and_formats() -> None:
    for rankdir, ext, words in (("UP", "png", "rankdir"), ("LR", "doc", "not a format")):
        with pytest.raises(VerydeepError, match=words):
            caffe.draw.draw_net(NET, rankdir, ext)
