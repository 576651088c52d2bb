from __future__ import annotations

import pytest

from prototxt_gen import vgg
from prototxt_gen.errors import ProtoError
from prototxt_gen.vgg import Convolution, Normalisation


@pytest.mark.parametrize(
    ("net", "weight_layers"),
    [("A", 11), ("A-LRN", 11), ("B", 13), ("C", 16), ("D", 16), ("E", 19), ("B-shallow", 8)],
)
def test_depths_are_those_table_1_states(net: str, weight_layers: int) -> None:
    units = [unit for stage in vgg.stages_of(net) for unit in stage]
    convolutions = [unit for unit in units if isinstance(unit, Convolution)]
    assert len(convolutions) + len(vgg.FC_WIDTHS) + 1 == weight_layers


@pytest.mark.parametrize("net", list(vgg.NETS))
def test_widths_double_after_each_pooling_until_512(net: str) -> None:
    widths = [
        {unit.width for unit in stage if isinstance(unit, Convolution)}
        for stage in vgg.stages_of(net)
    ]
    assert widths == [{64}, {128}, {256}, {512}, {512}]


def test_c_is_d_with_1x1_kernels_where_b_has_no_layer() -> None:
    for b, c, d in zip(vgg.stages_of("B"), vgg.stages_of("C"), vgg.stages_of("D")):
        assert c[: len(b)] == b == d[: len(b)]
        assert [unit.kernel for unit in c[len(b) :]] == [1] * (len(c) - len(b))
        assert [unit.kernel for unit in d[len(b) :]] == [3] * (len(d) - len(b))


def test_shallow_net_has_one_5x5_for_each_pair_of_b() -> None:
    for pair, single in zip(vgg.stages_of("B"), vgg.stages_of("B-shallow")):
        assert len(pair) == 2
        assert single == (Convolution(5, pair[0].width),)


def test_only_a_lrn_normalises_and_it_does_so_after_conv1_1() -> None:
    for net in vgg.NETS:
        names = [
            name
            for units in vgg.numbered_units(vgg.stages_of(net))
            for name, unit in units
            if isinstance(unit, Normalisation)
        ]
        assert names == (["1_1"] if net == "A-LRN" else [])


def test_numbers_count_convolutions_within_a_stage() -> None:
    stages = vgg.parse_stages([["conv3-4", "LRN", "conv1-8"], ["conv5-16"]])
    numbers = [[name for name, _ in units] for units in vgg.numbered_units(stages)]
    assert numbers == [["1_1", "1_1", "1_2"], ["2_1"]]
    assert vgg.fc_number(stages) == 3


def test_deeper_nets_start_from_net_a_by_name() -> None:
    assert [net for net in vgg.NETS if vgg.initial_net_for(net)] == ["B", "C", "D", "E"]
    initial = vgg.initial_net_for("D")
    assert initial is not None
    assert (initial.net, len(initial.layers)) == ("A", 4 + 3)
    a = {f"conv{n}": u for units in vgg.numbered_units(vgg.stages_of("A")) for n, u in units}
    d = {f"conv{n}": u for units in vgg.numbered_units(vgg.stages_of("D")) for n, u in units}
    for layer in initial.layers[:4]:
        assert a[layer] == d[layer]


@pytest.mark.parametrize("row", ["conv3-64", "conv1-512", "conv11-96", "LRN"])
def test_a_row_prints_as_it_is_written(row: str) -> None:
    assert str(vgg.parse_unit(row)) == row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "conv3x64",
            "'conv3x64' is not a row of a net; expected 'conv<kernel>-<channels>' or 'LRN'",
        ),
        ("conv03-64", "'conv03-64' is not a row of a net"),
        ("conv4-64", "a kernel of 4 cannot keep the size of its input; expected an odd kernel"),
        ("conv3-2147483648", "a convolution of 2147483648 channels; expected from 1 to 2147483647"),
    ],
)
def test_a_wrong_row_is_refused(row: str, message: str) -> None:
    with pytest.raises(ProtoError, match="stages: ") as caught:
        vgg.parse_unit(row)
    assert message in str(caught.value)


def test_an_unknown_net_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProtoError, match="expected one of A, A-LRN, B, C, D, E, B-shallow, got"):
        vgg.stages_of("F")
