from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError, UnsupportedError
from runtime.weights import caffemodel
from runtime.weights.caffemodel import (
    CURRENT,
    V0,
    V1,
    BlobData,
    blob_data,
    read_caffemodel,
    read_net,
    write_caffemodel,
)
from runtime.weights.wire_format import bytes_field, varint_field
from tests.runtime.weights.mutants import cut, flipped, survive

GOLDEN = Path(__file__).parents[2] / "golden" / "caffemodel"


def message(name: str) -> Any:
    return proto.NetParameter.FromString((GOLDEN / name).read_bytes())


def write(path: Path, net: Any) -> Path:
    path.write_bytes(net if isinstance(net, bytes) else net.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("conv.caffemodel", CURRENT),
        ("legacy.caffemodel", CURRENT),
        ("lenet_iter_25.caffemodel", CURRENT),
        ("legacy_v1.caffemodel", V1),
    ],
)
def test_original_files_read_as_protobuf_reads_them(name: str, form: str) -> None:
    layers, expected = read_caffemodel(GOLDEN / name), message(name)
    entries = expected.layers if form == V1 else expected.layer
    assert [layer.name for layer in layers] == [entry.name for entry in entries]
    assert {layer.form for layer in layers} == {form}
    assert "Convolution" in {layer.type for layer in layers}
    for layer, entry in zip(layers, entries):
        for mine, theirs in zip(layer.blobs, entry.blobs, strict=True):
            old = (theirs.num, theirs.channels, theirs.height, theirs.width)
            assert mine.shape == (old if form == V1 else tuple(theirs.shape.dim))
            assert mine.legacy == (form == V1)
            np.testing.assert_array_equal(
                mine.array().ravel(), np.array(theirs.data, np.float32), strict=True
            )
            copied = np.empty(mine.shape, np.float64)
            mine.copy_to(copied)
            np.testing.assert_array_equal(copied, mine.array())


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("conv.caffemodel", CURRENT),
        ("legacy.caffemodel", CURRENT),
        ("lenet_iter_25.caffemodel", CURRENT),
        ("legacy_v1.caffemodel", V1),
    ],
)
def test_what_is_read_and_written_is_the_same_file(tmp_path: Path, name: str, form: str) -> None:
    net, blobs = read_net(GOLDEN / name)
    assert not any(layer.blobs for layer in net.layer)
    data = [
        [blob_data(blob, layer.type, index) for index, blob in enumerate(of_layer)]
        for layer, of_layer in zip(net.layer, blobs)
    ]
    write_caffemodel(tmp_path / name, net, data, form)
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_v1_weights_get_the_shapes_of_today(tmp_path: Path) -> None:
    net, blobs = read_net(GOLDEN / "legacy_v1.caffemodel")
    data = [
        [blob_data(blob, layer.type, index) for index, blob in enumerate(of_layer)]
        for layer, of_layer in zip(net.layer, blobs)
    ]
    write_caffemodel(tmp_path / "out", net, data)
    current = {layer.name: layer for layer in message("legacy.caffemodel").layer if layer.blobs}
    written = proto.NetParameter.FromString((tmp_path / "out").read_bytes())
    assert not written.layers
    for layer in written.layer:
        if layer.blobs:
            assert list(layer.blobs) == list(current[layer.name].blobs)


def test_a_v0_file(tmp_path: Path) -> None:
    net = proto.NetParameter(name="old", input=["data"], input_dim=[1, 3, 8, 8])
    pad = net.layers.add(bottom=["data"], top=["padded"])
    pad.layer.name, pad.layer.type, pad.layer.pad = "pad1", "padding", 2
    conv = net.layers.add(bottom=["padded"], top=["conv1"])
    conv.layer.name, conv.layer.type = "conv1", "conv"
    conv.layer.num_output, conv.layer.kernelsize = 2, 1
    conv.layer.blobs.add(num=2, channels=3, height=1, width=1, data=range(6))
    conv.layer.blobs.add(num=1, channels=1, height=1, width=2, data=[7, 8])
    path = write(tmp_path / "v0.caffemodel", net)
    layers = read_caffemodel(path)
    assert [(layer.name, layer.type, layer.form) for layer in layers] == [
        ("pad1", "padding", V0),
        ("conv1", "Convolution", V0),
    ]
    assert layers[1].blobs[0].array().ravel().tolist() == [0, 1, 2, 3, 4, 5]
    upgraded, blobs = read_net(path)
    assert [layer.type for layer in upgraded.layer] == ["Input", "Convolution"]
    assert list(upgraded.layer[1].convolution_param.pad) == [2]
    assert [len(of_layer) for of_layer in blobs] == [0, 2]
    assert blobs[1][1].array().ravel().tolist() == [7, 8]


def test_nvidia_s_numbers_do_not_become_bvlc_s_fields(tmp_path: Path) -> None:
    layer = proto.LayerParameter(name="ip", type="InnerProduct").SerializeToString()
    types = b"".join(varint_field(number, 2) for number in range(145, 149))
    path = write(tmp_path / "net", bytes_field(100, layer + types))
    assert read_caffemodel(path)[0].nvidia
    net, _ = read_net(path)
    assert net.layer[0].SerializeToString() == layer


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            proto.NetParameter(name="x").SerializeToString(),
            "no layer; expected the weights of a ne",
        ),
        (
            proto.SolverState(iter=25).SerializeToString(),
            "expected a net's field 1, of wire type 2, got wire type 0, as in a .solverstate or",
        ),
        (
            bytes_field(100, b"\x0a\x01a") + bytes_field(2, b"\x22\x01a"),
            "mixes 'layer' and 'layers'",
        ),
        (bytes_field(100, b"\x38\x01"), "expected a blob, got wire type 0"),
    ],
)
def test_messages_that_are_no_weights(tmp_path: Path, data: bytes, text: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        read_caffemodel(write(tmp_path / "net", data))
    assert text in str(caught.value)


def test_parameters_that_do_not_parse(tmp_path: Path) -> None:
    path = write(tmp_path / "net", bytes_field(100, bytes_field(106, b"\x08")))
    assert len(read_caffemodel(path)) == 1
    with pytest.raises(
        SnapshotError, match=r"net: the layers' parameters cannot be read: .*; the "
    ):
        read_net(path)


def test_a_type_of_another_build_s_own_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "net", bytes_field(2, bytes_field(4, b"x") + varint_field(5, 77)))
    (layer,) = read_caffemodel(path)
    assert (layer.name, layer.type) == ("x", "V1 type 77")


def test_gradients_doubles_and_old_dimensions_are_written(tmp_path: Path) -> None:
    net = proto.NetParameter(name="n")
    net.layer.add(name="ip", type="InnerProduct", top=["ip"], phase=proto.TEST)
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "net"
    write_caffemodel(path, net, [[BlobData(data, data / 4), BlobData(np.float64(data[0]))]])
    layer = proto.NetParameter.FromString(path.read_bytes()).layer[0]
    assert list(layer.blobs[0].diff) == (data / 4).ravel().tolist()
    assert list(layer.blobs[1].double_data) == [0, 1, 2]
    assert not layer.blobs[1].data
    np.testing.assert_array_equal(read_caffemodel(path)[0].blobs[0].diff_array(), data / 4)
    write_caffemodel(path, net, [[BlobData(data)]], V1)
    old = proto.NetParameter.FromString(path.read_bytes()).layers[0]
    blob = old.blobs[0]
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 1, 2, 3)
    assert (old.name, old.type, blob.HasField("shape")) == ("ip", 14, False)


def test_what_v1_cannot_store_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "net", b"old")
    net = proto.NetParameter()
    net.layer.add(name="bn", type="BatchNorm")
    with pytest.raises(UnsupportedError, match="layer 'bn' has a type that V1 lacks"):
        write_caffemodel(path, net, [[]], V1)
    net.layer[0].type = "Convolution"
    with pytest.raises(SnapshotError, match=r"a blob of shape \(1, 1, 1, 1, 1\) has no form with"):
        write_caffemodel(path, net, [[BlobData(np.zeros((1,) * 5))]], V1)
    assert path.read_bytes() == b"old"


def test_protobuf_s_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffemodel, "MAX_BYTES", 100)
    net = proto.NetParameter()
    net.layer.add(name="ip")
    with pytest.raises(
        SnapshotError,
        match=r"too large; expected at most 2 GB, protobuf's limit, got more; save as \.caffemod",
    ):
        write_caffemodel(tmp_path / "net", net, [[BlobData(np.zeros(100, np.float32))]])
    assert list(tmp_path.iterdir()) == []


def _read_whole(path: Path) -> None:
    for layer in read_caffemodel(path):
        for blob in layer.blobs:
            blob.array()
    read_net(path)


@pytest.mark.parametrize("name", ["conv.caffemodel", "legacy_v1.caffemodel"])
def test_a_file_cut_anywhere(tmp_path: Path, name: str) -> None:
    data = (GOLDEN / name).read_bytes()[:1200]
    refused = survive(cut(data), _read_whole, tmp_path / "net")
    # At a layer's end a shorter file is a whole one of a smaller net.
    ends = 8
    assert len(data) - ends <= refused < len(data)


@pytest.mark.parametrize("name", ["conv.caffemodel", "legacy_v1.caffemodel"])
def test_a_file_with_bits_turned_over(tmp_path: Path, name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    refused = survive(flipped(data, 100), _read_whole, tmp_path / "net")
    assert 10 < refused < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv.caffemodel", "legacy.caffemodel", "legacy_v1.caffemodel"])
def test_many_files_with_bits_turned_over(tmp_path: Path, name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    refused = survive(flipped(data, 1500, seed=1), _read_whole, tmp_path / "net")
    assert 150 < refused < 1500
    assert survive(cut(data), _read_whole, tmp_path / "net") > len(data) - 20


_LOAD = """
import resource, sys
from pathlib import Path
import numpy as np
from runtime.weights.caffemodel import read_caffemodel
held = []

def peak():
    # ru_maxrss counts the memory of the process that started this one as well.
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for layer in read_caffemodel(sys.argv[1]):
    for blob in layer.blobs:
        held.append(np.empty(blob.shape, np.float32))
        blob.copy_to(held[-1])
print(sum(array.size for array in held), peak())
"""


@pytest.mark.slow
def test_a_file_of_vgg_d_s_size(tmp_path: Path) -> None:
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    shapes = [(k, c, 3, 3) for k, c in zip(widths, [3, *widths])]
    shapes += [(4096, 25088), (4096, 4096), (1000, 4096)]
    net = proto.NetParameter(name="VGG_ILSVRC_16_layers")
    for number in range(len(shapes)):
        net.layer.add(name=f"layer{number}", type="Convolution")
    data = ([BlobData(np.ones(s, np.float32)), BlobData(np.ones(s[0], np.float32))] for s in shapes)
    path = tmp_path / "d.caffemodel"
    begin = time.perf_counter()
    write_caffemodel(path, net, data)
    written = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True
    )
    count, peak = map(int, result.stdout.split())
    print(f"write {written - begin:.1f} s, read {time.perf_counter() - written:.1f} s, {peak} KiB")
    assert count == 138_357_544
    assert peak * 1024 <= 2 * path.stat().st_size
