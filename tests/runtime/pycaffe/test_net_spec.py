"""NetSpec through pycaffe: Net builds the net that it writes."""

from __future__ import annotations

import pytest

import runtime.pycaffe as caffe
from runtime.pycaffe import layers as L  # noqa: N812 -- the name in every script
from runtime.pycaffe import params as P  # noqa: N812 -- the name in every script
from runtime.pycaffe.proto import caffe_pb2
from tests.runtime.pycaffe.conftest import Write


def test_a_net_written_in_python_is_built(write: Write) -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 1, 12, 12]}, {"dim": [2]}], ntop=2)
    n.conv = L.Convolution(n.data, kernel_size=5, num_output=4, weight_filler={"type": "xavier"})
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu = L.ReLU(n.pool, in_place=True)
    n.ip = L.InnerProduct(n.relu, num_output=3)
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    written = n.to_proto()
    assert isinstance(written, caffe_pb2.NetParameter)
    assert written.layer[2].pooling_param.pool == caffe_pb2.PoolingParameter.MAX == P.Pooling.MAX
    net = caffe.Net(write(str(written)), caffe.TRAIN)
    assert net._layer_names == ["data", "conv", "pool", "relu", "ip", "loss"]
    assert net.blobs["pool"].shape == (2, 4, 4, 4)
    assert float(net.forward()["loss"]) == pytest.approx(1.0986, abs=1e-4)


def test_layers_without_tops(write: Write) -> None:
    n = caffe.net_spec.NetSpec()
    n.data, n.other = L.DummyData(shape={"dim": 3}, ntop=2)
    n.silence = L.Silence(n.data, ntop=0)
    n.silence_too = L.Silence(n.other, ntop=0)
    assert caffe.Net(write(str(n.to_proto())), caffe.TEST).forward() == {}


def test_unnamed_layers(write: Write) -> None:
    data = L.Input(shape={"dim": [1, 2]})
    net = caffe.Net(write(str(caffe.to_proto(L.ReLU(L.ReLU(data))))), caffe.TEST)
    assert net._layer_names == ["Input1", "ReLU1", "ReLU2"]
    with pytest.raises(TypeError, match=r"^ReLU input 0 is not a Top \(type is <class 'str'>\)$"):
        L.ReLU("data")


def test_messages_have_caffes_names() -> None:
    assert caffe_pb2.Phase.Name(caffe_pb2.TEST) == "TEST"
    assert caffe_pb2.Phase.Value("TRAIN") == caffe.TRAIN == caffe_pb2.TRAIN
    assert caffe_pb2.DESCRIPTOR.package == "caffe"
    assert {"NetParameter", "Phase", "TEST"} <= set(dir(caffe_pb2))
    assert caffe.proto.caffe_pb2.Datum(label=3).label == 3
    for name in ("Nothing", "__path__"):
        with pytest.raises(AttributeError, match=name):
            getattr(caffe_pb2, name)
