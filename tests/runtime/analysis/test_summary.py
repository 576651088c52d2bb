from __future__ import annotations

import tracemalloc

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.spec import builtin_spec
from runtime.analysis.summary import LayerRow, Summary, summarize
from runtime.backend.registry import create_backend
from runtime.net.shape_net import shape_net
from tests.runtime.small_nets import conv, input_layer, layer, product, shapes_of

# By net: (map side, input channels, output channels, kernel) of each convolution, by hand from
# Table 1. The rest is the same for all: five poolings, then 25088-4096-4096-1000.
SIDES = (224, 112, 56, 28, 14)
WIDTHS = (64, 128, 256, 512, 512)
KERNELS = {
    "A": ("3", "3", "33", "33", "33"),
    "A-LRN": ("3", "3", "33", "33", "33"),
    "B": ("33", "33", "33", "33", "33"),
    "C": ("33", "33", "331", "331", "331"),
    "D": ("33", "33", "333", "333", "333"),
    "E": ("33", "33", "3333", "3333", "3333"),
    "B-shallow": ("5", "5", "5", "5", "5"),
}
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}
GIGA_MULTIPLY_ADDS = {"A": 7.609, "B": 11.308, "C": 11.771, "D": 15.470, "E": 19.632}
MIB_ACTIVATIONS = {"A": 34.2, "B": 52.6, "C": 57.6, "D": 57.6, "E": 62.5}


def summary_of(name: str, head: str = "train_val", phase: int = proto.TRAIN) -> Summary:
    param = getattr(heads, head)(builtin_spec(name))
    return summarize(shape_net(param, phase, create_backend("cpu"), batch=1))


def row(summary: Summary, name: str) -> LayerRow:
    return next(row for row in summary.rows if row.name == name)


def convolutions(name: str) -> list[tuple[int, int, int, int]]:
    found, channels = [], 3
    for side, width, kernels in zip(SIDES, WIDTHS, KERNELS[name]):
        for kernel in map(int, kernels):
            found.append((side, channels, width, kernel))
            channels = width
    return found


def products() -> list[tuple[int, int]]:
    return [(512 * 7 * 7, 4096), (4096, 4096), (4096, 1000)]


@pytest.mark.parametrize("name", KERNELS)
def test_sizes_are_those_counted_by_hand(name: str) -> None:
    summary = summary_of(name)
    convs = convolutions(name)
    weights = sum(k * k * c * w + w for _, c, w, k in convs) + sum(i * o + o for i, o in products())
    macs = sum(s * s * k * k * c * w for s, c, w, k in convs) + sum(i * o for i, o in products())
    maps = sum(s * s * w for s, _, w, _ in convs) + sum(o for _, o in products())
    maps += sum(w * (s // 2) ** 2 for s, w in zip(SIDES, WIDTHS))
    maps += 64 * 224 * 224 if name == "A-LRN" else 0
    assert summary.parameters == weights
    assert summary.multiply_adds == macs
    # The loss is one number more.
    assert summary.activations_per_image == 4 * (maps + 1)
    assert summary.memory.inputs == 4 * (3 * 224 * 224 + 1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_papers(name: str) -> None:
    assert summary_of(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", GIGA_MULTIPLY_ADDS)
def test_work_and_memory_are_those_known_of_the_nets(name: str) -> None:
    summary = summary_of(name)
    assert round(summary.multiply_adds / 1e9, 3) == GIGA_MULTIPLY_ADDS[name]
    assert round(summary.activations_per_image / 2**20, 1) == MIB_ACTIVATIONS[name]


@pytest.mark.parametrize("head", ["deploy", "dense"])
def test_other_forms_of_a_net_have_its_size(head: str) -> None:
    train, other = summary_of("D"), summary_of("D", head, proto.TEST)
    assert other.parameters == train.parameters
    assert other.multiply_adds == train.multiply_adds


def test_a_row_describes_a_layer() -> None:
    summary = summary_of("D")
    found = row(summary, "conv3_1")
    assert found.tops == (("conv3_1", (1, 256, 56, 56)),)
    assert (found.type, found.parameters) == ("Convolution", 128 * 256 * 9 + 256)
    assert found.multiply_adds == 56 * 56 * 128 * 256 * 9
    assert (found.memory, found.in_place) == (4 * 256 * 56 * 56, False)
    assert found.as_dict()["receptive_field"] == {"size": [24, 24], "stride": [4, 4]}
    assert (row(summary, "relu3_1").memory, row(summary, "relu3_1").in_place) == (0, True)
    assert row(summary, "data").tops == (("data", (1, 3, 224, 224)), ("label", (1,)))


def test_rows_add_up() -> None:
    summary = summary_of("A-LRN")
    assert sum(r.memory for r in summary.rows) == summary.memory.inputs + summary.memory.activations
    assert 4 * summary.parameters == summary.memory.weights


def test_a_summary_takes_no_memory_of_the_net() -> None:
    summary_of("A")
    tracemalloc.start()
    try:
        summary_of("D")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_multiply_adds_are_of_one_image() -> None:
    layers = conv("c", "data", 6, 3, "group: 2 stride: 2") + product("p", "c", 7)
    one, five = (summarize(shapes_of(input_layer(n, 4, 9, 11) + layers)) for n in (1, 5))
    # 4x5 places, 6 channels out, 4/2 in, 3x3 taps; then 6*4*5 inputs to 7 outputs.
    assert one.multiply_adds == five.multiply_adds == 4 * 5 * 6 * 2 * 9 + 6 * 4 * 5 * 7


def test_a_convolution_of_two_blobs_does_twice_the_work() -> None:
    layers = input_layer(1, 2, 5, 5) + input_layer(1, 2, 5, 5, name="more")
    both = conv("c", "data", 4, 3).replace('bottom: "data"', 'bottom: "data" bottom: "more"')
    summary = summarize(shapes_of(layers + both.replace('top: "c"', 'top: "c" top: "d"')))
    assert summary.multiply_adds == 2 * 3 * 3 * 2 * 4 * 9
    assert row(summary, "c").tops == (("c", (1, 4, 3, 3)), ("d", (1, 4, 3, 3)))


def test_a_deconvolution_does_the_work_of_the_convolution_turned_round() -> None:
    up = layer(
        "Deconvolution",
        "up",
        "data",
        "convolution_param { num_output: 3 kernel_size: 4 stride: 2 }",
    )
    summary = summarize(shapes_of(input_layer(1, 5, 6, 6) + up))
    assert row(summary, "up").tops == (("up", (1, 3, 14, 14)),)
    # Every number that comes in is spread over 3 channels of 4x4.
    assert summary.multiply_adds == 5 * 6 * 6 * 3 * 4 * 4
    assert summary.parameters == 5 * 3 * 4 * 4 + 3


def test_shared_weights_count_where_they_are_owned() -> None:
    named = 'param { name: "w" } param { name: "b" }'
    layers = product("first", "data", 8, named) + product("second", "first", 8, named)
    summary = summarize(shapes_of(input_layer(2, 8) + layers))
    assert summary.parameters == 8 * 8 + 8
    second = row(summary, "second")
    assert (second.parameters, second.shared_parameters) == (0, 8 * 8 + 8)
    assert summary.memory.weights == 4 * (8 * 8 + 8)


def test_splits_and_views_take_no_memory() -> None:
    layers = (
        layer("Flatten", "flat", "data")
        + product("left", "flat", 3)
        + product("right", "flat", 3)
        + layer("Eltwise", "sum", "left right")
    )
    summary = summarize(shapes_of(input_layer(2, 5, 4, 4) + layers))
    assert [r.name for r in summary.rows] == ["data", "flat", "left", "right", "sum"]
    assert row(summary, "flat").memory == 0
    assert summary.memory.activations == 4 * 3 * (2 * 3)
