from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.sidecar import read_sidecar
from prototxt_gen.spec import builtin_spec
from prototxt_gen.spec_toml import load_spec, parse_spec
from prototxt_gen.text import read
from runtime.cli import prototxt
from runtime.cli.main import main


def run(arguments: str) -> int:
    parser = argparse.ArgumentParser("prototxt")
    prototxt.add_arguments(parser)
    return prototxt.run(parser.parse_args(arguments.split()))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_files_are_written_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--net D --out nets/D") == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 6
    assert all(Path(path).stat().st_size for path in written)
    assert load_spec("nets/D/spec.toml") == builtin_spec("D")
    assert run("--net D --out nets/D --json") == 0
    assert json.loads(capsys.readouterr().out) == {"files": written}


def test_a_printed_spec_is_one_to_start_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--net C --print-spec") == 0
    text = capsys.readouterr().out
    assert parse_spec(text) == builtin_spec("C")
    Path("my.toml").write_text(text.replace("classes = 1000", "classes = 12"))
    assert run("--spec my.toml --out mine --batch 32") == 0
    spec = load_spec("mine/spec.toml")
    assert (spec.classes, spec.data.train.batch_size) == (12, 32)
    assert spec.stages == builtin_spec("C").stages


def test_flags_replace_values() -> None:
    flags = (
        "--net A --out a --name tiny --width 1/8 --crop 64 --classes 10 --batch 64 --iter-size 2 "
        "--train-source t --val-source v --val-batch 25 --mean-value 1,2,3 --scale 64-96 "
        "--init xavier --max-iter 900 --base-lr 0.02 --dropout 0.25 "
        "--lr-policy multistep --weight-decay 0.001 "
        "--test-iter 8 --test-interval 30 --display 5 --snapshot 0 --seed 9 --solver-mode CPU "
        "--colour-shift 0 --shards 4"
    )
    assert run(flags) == 0
    net = read("a/train_val.prototxt", proto.NetParameter)
    train, test = net.layer[0], net.layer[1]
    assert (train.data_param.source, train.data_param.batch_size) == ("t", 32)
    assert (test.data_param.source, test.data_param.batch_size) == ("v", 25)
    assert list(train.transform_param.mean_value) == [1, 2, 3]
    widths = [layer.convolution_param.num_output for layer in net.layer if "conv" in layer.name]
    assert widths == [8, 16, 32, 32, 64, 64, 64, 64]
    fc = [layer.inner_product_param.num_output for layer in net.layer if "fc" in layer.name]
    assert fc == [512, 512, 10]
    solver = read("a/solver.prototxt", proto.SolverParameter)
    assert (solver.snapshot_prefix, solver.max_iter, solver.iter_size) == ("a/tiny", 900, 2)
    assert (list(solver.test_iter), solver.test_interval, solver.random_seed) == ([8], 30, 9)
    sidecar = read_sidecar("a/solver.prototxt")
    assert (sidecar.train.short_side, sidecar.test.short_side) == ((64, 96), 80)
    assert (sidecar.train.colour_shift, sidecar.schedule, sidecar.shards) == (0, None, 4)


def test_the_scale_goes_with_the_crop_unless_it_is_given() -> None:
    assert run("--net A --out a --crop 112") == 0
    assert load_spec("a/spec.toml").data.train.options.short_side == 128
    assert run("--net A --out a --crop 112 --scale stored") == 0
    data = load_spec("a/spec.toml").data
    assert (data.train.options.short_side, data.test.options.short_side) == (None, None)
    assert run("--net A --out a --crop 112 --scale 120 --val-scale 140") == 0
    assert load_spec("a/spec.toml").data.test.options.short_side == 140


def test_one_initialisation_replaces_another() -> None:
    assert run("--net D --out d --init from-net-a --init-weights a.caffemodel") == 0
    assert list(read("d/solver.prototxt", proto.SolverParameter).weights) == ["a.caffemodel"]
    assert run("--spec d/spec.toml --out e --init gaussian") == 0
    assert not read("e/solver.prototxt", proto.SolverParameter).weights
    with pytest.raises(ProtoError, match=r"init\.weights: from-net-a requires weights"):
        run("--net D --out d --init from-net-a")


def test_one_mean_replaces_another() -> None:
    assert run("--net A --out a --mean-file m.binaryproto") == 0
    assert load_spec("a/spec.toml").data.mean_file == "m.binaryproto"
    assert run("--spec a/spec.toml --out b --mean-value 120") == 0
    assert load_spec("b/spec.toml").data.mean_value == (120.0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out x", "one of the arguments --net --spec is required"),
        ("--net A", "one of the arguments --out --print-spec is required"),
        ("--net F --out x", "argument --net: invalid choice: 'F'"),
        ("--net A --spec s --out x", "argument --spec: not allowed with argument --net"),
        ("--net A --out x --scale big", "argument --scale: expected a short side such as 256"),
        ("--net A --out x --mean-value a,b", "argument --mean-value: expected numbers in B,G,R"),
        ("--net A --out x --width half", "argument --width: expected a number such as 1/8"),
        ("--net A --out x --init he", "argument --init: invalid choice: 'he'"),
    ],
)
def test_wrong_flags_end_with_status_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_value_out_of_range_is_the_users_error_and_nothing_is_written() -> None:
    with pytest.raises(ProtoError, match=r"solver\.iter_size: the batch does not divide into 7"):
        run("--net A --out x --iter-size 7")
    with pytest.raises(ProtoError, match=r"no\.toml: cannot be read"):
        run("--spec no.toml --out x")
    assert not Path("x").exists()


def test_the_generated_solver_trains_on_the_cpu_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prototxt", "--net", "D", "--out", "nets/D"]) == 0
    assert main(["prototxt", "--net", "D", "--solver-mode", "GPU", "--out", "nets/G"]) == 0
    assert "solver_mode: CPU\n" in Path("nets/D/solver.prototxt").read_text()
    assert "solver_mode: GPU\n" in Path("nets/G/solver.prototxt").read_text()
