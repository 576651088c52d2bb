"""Drawings of deep nets without Graphviz."""

from __future__ import annotations

import re
from collections import Counter

import cv2
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.draw import RANKDIRS
from prototxt_gen.proto import Message
from runtime.analysis.edge_channels import blob_channels
from runtime.analysis.net_plot import plot_net
from tests.runtime.analysis.deep_nets import INPUT, chain, conv, inception, layer, residual

NETS = {"chain": chain(40), "residual": residual(16), "inception": inception(9)}


def net(prototxt: str) -> Message:
    return text.parse(prototxt, proto.NetParameter)


def drawing(prototxt: str, rankdir: str = "LR", phase: int | None = None) -> str:
    param = net(prototxt)
    return plot_net(param, ".svg", rankdir, phase, channels=blob_channels(param, phase)).decode()


def words(svg: str) -> list[str]:
    """The lines of text in a drawing; matplotlib writes each as a comment of the SVG."""
    return re.findall(r"<!-- (.*) -->", svg)


@pytest.fixture(scope="module", params=NETS)
def deep(request: pytest.FixtureRequest) -> tuple[Message, str]:
    """A net and its drawing from left to right."""
    return net(NETS[request.param]), drawing(NETS[request.param])


def assert_fits_page(svg: str) -> None:
    """As one row of 40 to 70 boxes it would be 20 to 60 times as long as it is wide."""
    size = re.search(r'<svg [^>]*width="(.*?)pt" height="(.*?)pt"', svg.replace("\n", " "))
    assert size is not None
    width, height = (float(side) / 72 for side in size.groups())
    assert 0.7 < width / height < 3.5
    assert max(width, height) < 40  # inches


def test_a_deep_net_fits_a_page(deep: tuple[Message, str]) -> None:
    assert_fits_page(deep[1])


def test_columns_of_a_deep_net_fit_a_page() -> None:
    assert_fits_page(drawing(NETS["chain"], "TB"))


def test_every_layer_is_named_once(deep: tuple[Message, str]) -> None:
    param, svg = deep
    names = Counter(word.partition(" (")[0] for word in words(svg))
    # The layer "data" of the chain is there in each phase.
    assert all(names[name] == count for name, count in Counter(x.name for x in param.layer).items())


def test_a_value_that_is_read_in_another_row_is_named_at_both_ends() -> None:
    shown = words(drawing(NETS["chain"], phase=proto.TRAIN))
    leaving = {word[:-2] for word in shown if word.endswith(" →")}
    entering = {word[2:] for word in shown if word.startswith("→ ")}
    assert leaving == entering
    assert "label" in leaving and len(leaving) > 2


def test_channels_are_on_the_arrows() -> None:
    shown = words(drawing(inception(1)))
    assert [shown.count(count) for count in ("3", "16", "96", "256")] == [1, 1, 1, 0]
    assert "256" in words(drawing(inception(2)))  # of the first module's output


def test_phases_are_drawn_apart_or_marked() -> None:
    both, train, test = (words(drawing(chain(2), phase=p)) for p in (None, proto.TRAIN, proto.TEST))
    assert both.count("TRAIN only") == 1 and both.count("TEST only") == 2
    assert "accuracy" not in train and "accuracy" in test
    assert not {"TRAIN only", "TEST only"} & {*train, *test}
    assert "Net: TEST phase" in test


def test_in_place_layers_are_in_the_box_of_their_blob() -> None:
    shown = words(drawing(INPUT + conv("conv", "data", 4, 3)))
    assert "conv/relu (ReLU)" in shown
    # A blob that was read before is not what the in-place layer gives.
    read = INPUT + conv("conv", "data", 4, 3, relu=False) + layer("copy", "Split", "conv")
    read += layer("conv/relu", "ReLU", "conv", top="conv")
    assert "conv/relu (ReLU)" not in words(drawing(read))


@pytest.mark.parametrize("rankdir", RANKDIRS)
def test_the_flow_has_the_direction_that_was_asked_for(rankdir: str) -> None:
    """The red convolution comes before the lilac InnerProduct."""
    prototxt = INPUT + conv("conv", "data", 4, 3)
    prototxt += layer("fc", "InnerProduct", "conv", "inner_product_param { num_output: 2 }")
    image = cv2.imdecode(np.frombuffer(plot_net(net(prototxt), ".png", rankdir), np.uint8), 1)
    red, lilac = (image == (80, 80, 255)).all(2), (image == (255, 51, 204)).all(2)
    axis = 1 if rankdir in ("LR", "RL") else 0
    first, second = np.nonzero(red)[axis].mean(), np.nonzero(lilac)[axis].mean()
    assert (first < second) == (rankdir in ("LR", "TB"))


@pytest.mark.parametrize("name", ["$x_1$", "a&<b>", "a_{b}", "x" * 200, ""])
def test_odd_names(name: str) -> None:
    prototxt = f'layer {{ name: "{name}" type: "Input" top: "{name}" }}'
    prototxt += f'layer {{ name: "{name}" type: "Dropout" bottom: "{name}" top: "y" }}'
    assert plot_net(net(prototxt), ".pdf")[:4] == b"%PDF"
