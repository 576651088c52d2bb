from __future__ import annotations

import json
from pathlib import Path

import pytest

from prototxt_gen import proto, text
from runtime.cli.main import main
from runtime.weights.caffemodel import V1, read_caffemodel
from runtime.weights.net_weights import copy_trained_layers
from runtime.weights.wire_format import bytes_field, varint_field
from tests.runtime.small_net import build, same_weights, weights

GOLDEN = Path(__file__).parents[2] / "golden" / "caffemodel"
SOLVER = 'net: "n.prototxt"\nbase_lr: 0.1\nsolver_type: NESTEROV\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def upgrade(*words: object) -> int:
    return main(["upgrade", *map(str, words)])


def test_a_net_of_the_old_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade(GOLDEN / "legacy.prototxt", "new.prototxt") == 0
    out, err = capsys.readouterr()
    assert out == "new.prototxt\n"
    assert "legacy.prototxt: 9 layers of the V1 form (layers { }) upgraded" in err
    net = text.read("new.prototxt", proto.NetParameter)
    assert not net.layers
    assert [layer.type for layer in net.layer][:3] == ["Input", "Convolution", "ReLU"]
    assert upgrade("new.prototxt", "new.prototxt", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "kind": "net",
        "done": ["is of the current form already"],
        "output": "new.prototxt",
    }


def test_a_net_back_to_v1() -> None:
    assert upgrade(GOLDEN / "legacy.prototxt", "old.prototxt", "--to", "v1") == 0
    net = text.read("old.prototxt", proto.NetParameter)
    assert (len(net.layers), list(net.input)) == (9, ["data"])


def test_a_solver(capsys: pytest.CaptureFixture[str]) -> None:
    Path("solver.prototxt").write_text(SOLVER)
    assert upgrade("solver.prototxt", "new.prototxt") == 0
    assert "solver_type NESTEROV upgraded to type 'Nesterov'" in capsys.readouterr().err
    solver = text.read("new.prototxt", proto.SolverParameter)
    assert (solver.type, solver.HasField("solver_type")) == ("Nesterov", False)


def test_weights_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    path = GOLDEN / "legacy_v1.caffemodel"
    assert upgrade(path, "new.caffemodel") == 0
    assert f"{path}: 9 layers of the V1 form written in current" in capsys.readouterr().err
    prototxt = (GOLDEN / "legacy.prototxt").read_text()
    with build(prototxt) as net, build(prototxt) as other:
        copy_trained_layers(net, path)
        copy_trained_layers(other, "new.caffemodel", strict=True)
        assert same_weights(other, weights(net))
    assert upgrade("new.caffemodel", "new.caffemodel", "--to", "v1") == 0
    assert Path("new.caffemodel").read_bytes() == path.read_bytes()
    assert {layer.form for layer in read_caffemodel("new.caffemodel")} == {V1}


def test_nvidia_s_weights(capsys: pytest.CaptureFixture[str]) -> None:
    layer = proto.LayerParameter(name="ip", type="InnerProduct").SerializeToString()
    shape = proto.BlobProto(shape={"dim": [2]}).SerializeToString()
    half = b"\x00\x3c\x00\xc0"
    blob = shape + varint_field(10, 2) + bytes_field(12, half)
    Path("nv.caffemodel").write_bytes(bytes_field(100, layer + bytes_field(7, blob)))
    assert upgrade("nv.caffemodel", "new.caffemodel") == 0
    assert "NVIDIA's fields, raw data among them, written as BVLC's" in capsys.readouterr().err
    net = proto.NetParameter.FromString(Path("new.caffemodel").read_bytes())
    assert list(net.layer[0].blobs[0].data) == [1, -2]


def test_what_cannot_be_upgraded(capsys: pytest.CaptureFixture[str]) -> None:
    Path("solver.prototxt").write_text(SOLVER)
    Path("bad_net.prototxt").write_text("layer {\n  nome: 1\n}\n")
    Path("bad_solver.prototxt").write_text('net: "n"\nbase_lr: 0.1\nmomentun: 2\n')
    Path("cut.caffemodel").write_bytes((GOLDEN / "legacy_v1.caffemodel").read_bytes()[:900])
    for words, error in (
        (["none", "out"], "none: cannot be read: No such file or directory; expected a file"),
        (["solver.prototxt", "out", "--to", "v1"], "a solver has no V1 form; expected a net or"),
        (["bad_net.prototxt", "out"], "bad_net.prototxt:2:3: "),
        (["bad_solver.prototxt", "out"], "bad_solver.prototxt:3:1: "),
        (["cut.caffemodel", "out"], "the file ends too early; expected at least"),
        ([GOLDEN / "conv.caffemodel.h5", "out"], "weights in HDF5 have one form only; expected"),
    ):
        assert upgrade(*words) == 2
        assert error in capsys.readouterr().err
    assert not Path("out").exists()


def test_what_a_dialect_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    pool = "pooling_param { kernel_size: 2 ceil_mode: false }"
    Path("n.prototxt").write_text(f'layer {{ name: "p" type: "Pooling" {pool} }}\n')
    Path("solver.prototxt").write_text(SOLVER)
    assert upgrade("n.prototxt", "--check", "bvlc") == 1
    assert capsys.readouterr().out == (
        "n.prototxt: layer 'p' (Pooling): PoolingParameter has no field 'ceil_mode'; it belongs to "
        "SENet\n"
    )
    assert upgrade("n.prototxt", "--check", "senet", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dialect": "senet", "refused": []}
    for path in (GOLDEN / "legacy.prototxt", "solver.prototxt"):
        assert upgrade(path, "--check", "bvlc") == 0
    assert capsys.readouterr().out == ""


def test_a_check_takes_a_prototxt_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("n.prototxt").write_text("")
    for words, error in (
        (["n.prototxt"], "OUT is missing; expected IN OUT, got IN alone"),
        (["n.prototxt", "out", "--check", "bvlc"], "--check writes nothing; expected IN alone"),
        (["n.prototxt", "--check", "bvlc", "--to", "v1"], "--check writes nothing; expected IN"),
        ([GOLDEN / "conv.caffemodel.h5", "--check", "bvlc"], "weights are the same in all"),
        ([GOLDEN / "legacy_v1.caffemodel", "--check", "ssd"], "weights are the same in all"),
    ):
        assert upgrade(*words) == 2
        assert error in capsys.readouterr().err
