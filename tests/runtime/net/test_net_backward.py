"""Which layers run backward, and what counts as an output. Caffe: Net::Init."""

from __future__ import annotations

from prototxt_gen import proto, text
from prototxt_gen.upgrade import upgrade_net
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 4 } } }'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 } } }'
SUM = 'layer { name: "sum" type: "Reduction" bottom: "top" top: "sum" loss_weight: 1 }'


def ip(name: str, bottom: str, top: str, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more} '
        'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    )


def build(*layers: str) -> Net:
    param = text.parse("\n".join(layers), proto.NetParameter, "net")
    context = RunContext(rng=CaffeRandom(1))
    return Net(param, proto.TRAIN, create_backend("cpu"), context)


def needed(net: Net) -> dict[str, bool]:
    return dict(zip(net.layer_names, net.layer_need_backward))


def test_propagate_down_does_not_make_data_need_a_gradient() -> None:
    """A layer runs backward for weights, or for blobs that need it, in every call."""
    sigmoid = 'layer { name: "s" type: "Sigmoid" bottom: "data" top: "top" propagate_down: true }'
    with build(DATA, sigmoid, SUM) as net:
        assert needed(net) == {"data": False, "s": False, "sum": False}
    with build(DATA, ip("ip", "data", "top", "propagate_down: true"), SUM) as net:
        assert needed(net) == {"data": False, "ip": True, "sum": True}
        net.blobs["data"].data.mutable_host()[...] = 1
        net.forward()
        net.backward()
        assert net.blobs["data"].diff.host().any()


def test_propagate_down_false_ends_the_way_back() -> None:
    layers = (ip("one", "data", "middle"), ip("two", "middle", "top", "propagate_down: false"))
    with build(DATA, *layers, SUM) as net:
        assert needed(net) == {"data": False, "one": False, "two": True, "sum": True}


def test_batch_norm_runs_backward_though_nothing_in_it_learns() -> None:
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" }'
    with build(DATA, norm, ip("ip", "bn", "top"), SUM) as net:
        assert needed(net)["bn"]
        assert net.bottom_need_backward == [[], [False], [True], [True]]
        assert net.params.lr_mult == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_batch_norms_share_their_statistics_by_name() -> None:
    """Siamese nets do so, with three params of the older form."""
    names = " ".join(f'param {{ name: "{name}" lr_mult: 0 }}' for name in ("mean", "var", "count"))
    norm = 'layer {{ name: "{0}" type: "BatchNorm" bottom: "data" top: "{0}" {1} }}'
    param = text.parse(DATA + norm.format("a", names) + norm.format("b", names), proto.NetParameter)
    upgrade_net(param, "net")
    with Net(param, proto.TRAIN, create_backend("cpu")) as net:
        assert net.params.names == ["a[0]", "a[1]", "a[2]"]
        assert not any(net.layer_need_backward)
        net.blobs["data"].data.mutable_host()[...] = 1
        net.forward()
        for index in (0, 2):
            assert abs(float(net.layers[-1].blobs[index].data.host()[0]) - 1.999) < 1e-6


def test_a_top_that_the_net_names_itself_is_no_output() -> None:
    loss = 'layer { name: "%s" type: "SoftmaxWithLoss" bottom: "top" bottom: "label" }'
    with build(DATA, LABEL, ip("ip", "data", "top"), loss % "one", loss % "two") as net:
        assert [name for name in net.blobs if "auto" in name] == [
            "(automatic)",
            "(automatic) two_0",
        ]
        assert net.outputs == []
        assert net.forward() > 0
