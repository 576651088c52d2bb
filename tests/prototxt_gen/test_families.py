"""Nets without stages: generated, read back and run."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.families import families
from prototxt_gen.generate import write_all
from prototxt_gen.spec import NetSpecification, builtin_spec, net_names, with_values
from prototxt_gen.spec_toml import parse_spec, to_toml
from prototxt_gen.text import read_net
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.job.plan import base_spec
from runtime.net import Net


@pytest.fixture(params=families())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_names() -> None:
    assert "NIN" in families() and "D" not in families()
    assert net_names()[0] == "A" and "NIN" in net_names()


def test_a_spec_of_a_family_reads_back(family: str) -> None:
    spec = builtin_spec(family)
    assert spec.name == spec.family == family
    assert f'net = "{family}"' in to_toml(spec)
    assert parse_spec(to_toml(spec)) == spec
    assert parse_spec(f'net = "{family}"') == spec


def test_the_nets_agree_and_take_any_size(family: str, tmp_path: Path) -> None:
    """train_val, deploy and dense have the same learnt layers; dense averages over the map."""
    spec = with_values(builtin_spec(family, 67), {"width": Fraction(1, 32), "classes": 6})
    write_all(spec, tmp_path)
    nets = [read_net(tmp_path / f"{name}.prototxt") for name in ("train_val", "deploy", "dense")]
    learnt = [[x.name for x in net.layer if x.param] for net in nets]
    assert learnt[0] and not learnt[1]  # only the net that is trained has learning rates
    weighted = [
        [x.name for x in net.layer if x.type in ("Convolution", "InnerProduct")] for net in nets
    ]
    assert weighted[0] == weighted[1] == weighted[2] == learnt[0]
    backend = create_backend("cpu")
    for side in (67, 99):
        with Net(nets[2], proto.TEST, backend, RunContext(rng=CaffeRandom(1))) as net:
            net.blobs["data"].reshape((2, 3, side, side))
            net.blobs["data"].data.mutable_host()[...] = 1
            net.forward()
            prob = net.blobs["prob"].data.host().reshape(2, -1)
            assert prob.shape == (2, 6)
            np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-5)


def test_the_main_job_names_it(family: str) -> None:
    assert base_spec(family, demo=True).name == f"{family}-demo"
    assert base_spec("A", demo=True).name == "VGG-A-demo"


def test_nin_is_the_net_of_the_model_zoo() -> None:
    net = heads.deploy(builtin_spec("NIN"))
    convolutions = [x for x in net.layer if x.type == "Convolution"]
    shapes = [
        (x.name, x.convolution_param.num_output, *x.convolution_param.kernel_size)
        for x in convolutions
    ]
    assert shapes[:3] == [("conv1", 96, 11), ("cccp1", 96, 1), ("cccp2", 96, 1)]
    assert shapes[-2:] == [("cccp7", 1024, 1), ("cccp8", 1000, 1)]
    assert list(convolutions[0].convolution_param.stride) == [4]


def test_a_family_has_no_stages_and_no_fully_connected_layers() -> None:
    with pytest.raises(ProtoError, match=r"stages: .*none for NIN"):
        NetSpecification("x", builtin_spec("A").stages, family="NIN")
    with pytest.raises(ProtoError, match=r"family: .*one of NIN.*'GIN'"):
        NetSpecification("x", (), family="GIN")
    with pytest.raises(ProtoError, match=r"NIN: it has no layers fc6 to fc8"):
        heads.fc_names(builtin_spec("NIN"))
    with pytest.raises(ProtoError, match=r"init.method: net A's layers do not fit"):
        with_values(builtin_spec("NIN"), {"init.method": "from-net-a", "init.weights": "a"})
