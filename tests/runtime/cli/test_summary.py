from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import heads
from prototxt_gen.spec import builtin_spec
from prototxt_gen.spec_toml import to_toml
from prototxt_gen.text import write
from runtime.cli.main import main

Captured = pytest.CaptureFixture[str]

LENET = """\
name: "LeNet"  # name: "conv1" is the next one's
layer {
  name: "mnist" type: "Data" top: "data" top: "label"
  data_param { source: "mnist_lmdb" batch_size: 64 backend: LMDB }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { name: "conv1" }
  convolution_param { num_output: 20 kernel_size: 5 }
}
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip"
        inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def summary(arguments: str, capsys: Captured) -> str:
    assert main(["summary", *arguments.split()]) == 0
    return capsys.readouterr().out


def failure(arguments: str, capsys: Captured) -> str:
    assert main(["summary", *arguments.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def cells(text: str, layer: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(layer))
    return re.split(r"\s{2,}", line)


def test_the_table_of_net_d(capsys: Captured) -> None:
    text = summary("--net D", capsys)
    assert text.startswith("VGG-D: TRAIN, batch of 1\n")
    assert cells(text, "data") == ["data", "Data", "1x3x224x224", "-", "-", "0.57", "1", "1"]
    assert cells(text, "  label")[1:] == ["label", "1"]
    row = ["conv5_3", "Convolution", "1x512x14x14", "2,359,808", "462.42", "0.38", "196", "16"]
    assert cells(text, "conv5_3") == row
    row = ["relu5_3", "ReLU", "1x512x14x14", "-", "-", "in place", "196", "16"]
    assert cells(text, "relu5_3") == row
    row = ["fc6", "InnerProduct", "1x4096", "102,764,544", "102.76", "0.02", "404", "-"]
    assert cells(text, "fc6") == row
    assert cells(text, "loss")[2] == "scalar"
    assert cells(text, "parameters") == ["parameters", "138,357,544", "527.8 MiB"]
    assert cells(text, "multiply-adds per image")[1:] == ["15,470,264,320", "15.470 G"]
    assert cells(text, "activations per image")[1:] == ["57.6 MiB"]
    assert cells(text, "  history of the solver")[-1] == "527.8"


@pytest.mark.parametrize("arguments", ["--net E --batch 256", "--net A --phase TEST", "--paper"])
def test_everything_fits_into_100_columns(arguments: str, capsys: Captured) -> None:
    assert max(map(len, summary(arguments, capsys).splitlines())) <= 100


def test_long_names_give_way(capsys: Captured) -> None:
    name = "inception_4e/output/and/more/of/it/until/nobody/reads/it"
    Path("n.prototxt").write_text(LENET.replace('"conv1"', f'"{name}"'))
    text = summary("n.prototxt --shape 3,2000,3000 --batch 10", capsys)
    assert max(map(len, text.splitlines())) == 100
    assert re.fullmatch(r"incep\w*\.\.[\w/]*/it", cells(text, "incep")[0])


def test_small_nets_are_printed_in_small_units(capsys: Captured) -> None:
    Path("n.prototxt").write_text(LENET)
    text = summary("n.prototxt --shape 1,28,28", capsys)
    assert cells(text, "mnist")[:3] == ["mnist", "Data", "64x1x28x28"]
    assert re.search(r"^ +k +KiB +pixels +pixels$", text, re.MULTILINE)
    # 24x24 places of 20 channels, 5x5 taps; 64 such maps of 4 bytes.
    assert cells(text, "conv1")[3:6] == ["520", "288.00", "2,880.00"]
    tiny = summary("n.prototxt --shape 1,5,5 --batch 1", capsys)
    assert re.search(r"^ +bytes +pixels +pixels$", tiny, re.MULTILINE)
    assert cells(tiny, "conv1")[4:6] == ["500", "80"]


def test_shared_weights_are_printed(capsys: Captured) -> None:
    shared = 'param { name: "w" } inner_product_param { num_output: 3 bias_term: false } }\n'
    Path("n.prototxt").write_text(
        'input: "x" input_shape { dim: 1 dim: 3 }\n'
        f'layer {{ name: "one" type: "InnerProduct" bottom: "x" top: "y" {shared}'
        f'layer {{ name: "two" type: "InnerProduct" bottom: "y" top: "z" {shared}'
    )
    text = summary("n.prototxt", capsys)
    assert (cells(text, "one")[3], cells(text, "two")[3]) == ("9", "shared")
    assert cells(text, "parameters used again")[1] == "9"


def test_rules_of_layers_are_kept(capsys: Captured) -> None:
    rule = 'bottom: "x" top: "x" include { min_level: 2 stage: "fine" } }'
    Path("n.prototxt").write_text(
        f'input: "x" input_shape {{ dim: 1 dim: 3 }} layer {{ name: "extra" type: "ReLU" {rule}'
    )
    assert "extra" not in summary("n.prototxt", capsys)
    assert "extra" not in summary("n.prototxt --level 2", capsys)
    assert "extra" in summary("n.prototxt --level 2 --stage coarse,fine", capsys)


def test_python_layers_run_where_they_are_allowed(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("twice_for_summary.py").write_text(
        "class Twice:\n"
        "    def __init__(self, *param): pass\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape, 2)\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    python = 'python_param { module: "twice_for_summary" layer: "Twice" } bottom: "x" top: "y" }'
    Path("n.prototxt").write_text(
        f'input: "x" input_shape {{ dim: 1 dim: 3 }}\nlayer {{ name: "code" type: "Python" {python}'
    )
    message = failure("n.prototxt", capsys)
    assert message.startswith("verydeep summary: n.prototxt:2:15: layer 'code' (Python): runs the")
    text = summary("n.prototxt --allow-python-layers", capsys)
    assert cells(text, "code")[2] == "1x3x2"


def test_the_phase_goes_by_the_kind_of_net(capsys: Captured) -> None:
    spec = builtin_spec("A")
    write("deploy.prototxt", heads.deploy(spec))
    write("train_val.prototxt", heads.train_val(spec))
    assert summary("deploy.prototxt", capsys).startswith("VGG-A: TEST, batch of 10\n")
    train = summary("train_val.prototxt", capsys)
    assert train.startswith("VGG-A: TRAIN, batch of 256\n")
    test = summary("train_val.prototxt -phase TEST", capsys)
    assert test.startswith("VGG-A: TEST, batch of 50\n")
    assert "accuracy_top5" in test
    assert ("gradients of the weights" in train, "gradients of the weights" in test) == (
        True,
        False,
    )


def test_a_spec_of_ones_own(capsys: Captured) -> None:
    Path("my.toml").write_text(to_toml(builtin_spec("B")).replace("classes = 1000", "classes = 10"))
    text = summary("--spec my.toml", capsys)
    assert cells(text, "fc8")[2:4] == ["1x10", "40,970"]


def test_json_is_exact(capsys: Captured) -> None:
    found: dict[str, Any] = json.loads(summary("--net D --json --batch 2", capsys))
    assert (found["net"], found["phase"], found["batch"]) == ("VGG-D", "TRAIN", 2)
    assert found["parameters"] == 138_357_544
    assert found["multiply_adds_per_image"] == 15_470_264_320
    assert found["memory_bytes"]["history"] == 4 * 138_357_544
    by_name = {layer["name"]: layer for layer in found["layers"]}
    assert by_name["pool5"]["receptive_field"] == {"size": [212, 212], "stride": [32, 32]}
    assert by_name["fc6"]["receptive_field"] == {"size": [404, 404], "stride": None}
    assert by_name["loss"]["receptive_field"] is None
    assert by_name["data"]["tops"] == {"data": [2, 3, 224, 224], "label": [2]}


def test_a_solver_brings_its_history(capsys: Captured) -> None:
    Path("s.prototxt").write_text('net: "n.prototxt" type: "Adam"')
    sgd, adam = (
        json.loads(summary(f"--net A --json {flag}", capsys))["memory_bytes"]["history"]
        for flag in ("", "--solver s.prototxt")
    )
    assert adam == 2 * sgd


def test_a_budget_is_met_or_advice_given(capsys: Captured) -> None:
    assert re.search(r"\nfits: 1\.\d\d GiB of 2\.00 GiB\n$", summary("--net D --budget 2", capsys))
    too_much = ["summary", "--net", "D", "--batch", "256", "--budget", "12"]
    assert main(too_much) == 1
    out = capsys.readouterr().out
    assert "set batch_size: 64 in the net and iter_size: 4 in the solver" in out.splitlines()[-1]
    assert main([*too_much, "--json"]) == 1
    assert "iter_size: 4" in json.loads(capsys.readouterr().out)["advice"]


def test_the_papers_tables(capsys: Captured) -> None:
    lines = summary("--paper", capsys).splitlines()
    table = [line.split() for line in lines]
    assert ["A", "A-LRN", "B", "C", "D", "E"] in table
    assert [
        "11",
        "weight",
        "11",
        "weight",
        "13",
        "weight",
        *["16", "weight"] * 2,
        "19",
        "weight",
    ] in table
    assert ["LRN*", "conv3-64*", "conv3-64", "conv3-64", "conv3-64"] in table
    # The third layer of stage 3 is under C, D and E, the fourth under E.
    third = next(line for line in lines if "conv1-256*" in line)
    fourth = lines[lines.index(third) + 1]
    assert third.split() == ["conv1-256*", "conv3-256*", "conv3-256"]
    assert fourth.split() == ["conv3-256*"]
    assert fourth.index("conv3-256*") == third.rindex("conv3-256")
    sizes = {words[0]: words[1:] for words in table if len(words) == 5 and words[0] != "net"}
    assert [sizes[name][0] for name in ("A", "B", "C", "D", "E")] == [
        "133",
        "133",
        "134",
        "138",
        "144",
    ]
    assert sizes["A-LRN"][:3] == sizes["A"][:3] == ["133", "132,863,336", "7.609"]
    assert sizes["E"] == ["144", "143,667,240", "19.632", "62.5"]
    assert "B-shallow" in sizes


def test_the_papers_tables_as_json(capsys: Captured) -> None:
    found = json.loads(summary("--paper --json", capsys))
    assert found["table_1"]["E"]["weight_layers"] == 19
    assert found["table_1"]["C"]["stages"][2] == ["conv3-256", "conv3-256", "conv1-256"]
    assert found["table_2"]["D"]["parameters"] == 138_357_544
    assert found["table_2"]["C"]["millions"] == 134


@pytest.mark.parametrize("flag", ["--batch 2", "--phase TEST", "--shape 3,8,8", "--budget 1"])
def test_the_papers_tables_are_of_all_nets(flag: str, capsys: Captured) -> None:
    message = f"--paper: prints the paper's nets as they are; expected no {flag.split()[0]}"
    assert message in failure(f"--paper {flag}", capsys)


def test_a_missing_file(capsys: Captured) -> None:
    message = failure("nothing.prototxt", capsys)
    assert message.startswith("verydeep summary: nothing.prototxt: cannot be read: No such file")


def test_text_that_does_not_parse_is_named_by_place(capsys: Captured) -> None:
    Path("n.prototxt").write_text(LENET.replace("kernel_size", "kernel_sise"))
    message = failure("n.prototxt", capsys)
    assert message.startswith(
        "verydeep summary: n.prototxt:9:38: ConvolutionParameter has no field"
    )


@pytest.mark.parametrize(
    ("change", "place", "complaint"),
    [
        (
            ('"Convolution"', '"Convolutio"'),
            "7:9",
            "layer 'conv1': unknown layer type 'Convolutio'",
        ),
        (
            ('bottom: "conv1"', 'bottom: "conv2"'),
            "11:15",
            "layer 'ip': unknown bottom blob 'conv2'",
        ),
        (("kernel_size: 5", "kernel_size: 50"), "7:9", "layer 'conv1' (Convolution): the output"),
        (('bottom: "label" ', ""), "13:15", "layer 'loss' (SoftmaxWithLoss): expected exactly 2"),
    ],
)
def test_what_the_net_finds_is_named_by_place(
    change: tuple[str, str], place: str, complaint: str, capsys: Captured
) -> None:
    Path("n.prototxt").write_text(LENET.replace(*change))
    message = failure("n.prototxt --shape 1,28,28", capsys)
    assert message.startswith(f"verydeep summary: n.prototxt:{place}: {complaint}")


def test_a_missing_database_can_do_without(capsys: Captured) -> None:
    Path("n.prototxt").write_text(LENET)
    message = failure("n.prototxt", capsys)
    assert message.startswith(
        "verydeep summary: n.prototxt:3:9: layer 'mnist' (Data): mnist_lmdb: no such database"
    )
    assert "or give the shape of the images instead: --shape channels,height,width" in message


def test_images_for_a_net_that_takes_none(capsys: Captured) -> None:
    Path("n.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    )
    message = failure("n.prototxt --shape 3,8,8", capsys)
    assert message.startswith("verydeep summary: n.prototxt: net '': no layer reads images")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--batch 0", "expected a number of at least 1, got '0'"),
        ("--batch many", "expected a number of at least 1, got 'many'"),
        ("--shape 3,224", "expected channels, height and width such as 3,224,224, got '3,224'"),
        ("--shape 3,a,4", "expected channels, height and width such as 3,224,224, got '3,a,4'"),
        ("--budget 0", "expected gibibytes such as 12 or 7.5, got '0'"),
        ("--budget inf", "expected gibibytes such as 12 or 7.5, got 'inf'"),
        ("--net F", "invalid choice: 'F'"),
        ("--paper", "not allowed with argument"),
    ],
)
def test_flags_that_make_no_sense(flags: str, complaint: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["summary", "--net", "A", *flags.split()])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


SEGMENTED = """\
layer { name: "images" type: "Data" top: "data" data_param { source: "a" batch_size: 2 } }
layer { name: "truth" type: "Data" top: "gt" data_param { source: "b" batch_size: 2 } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "gt" top: "loss" }
"""
HDF5 = """\
layer { name: "h" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def tops(arguments: str, capsys: Captured) -> dict[str, list[int]]:
    layers = json.loads(summary(f"{arguments} --json", capsys))["layers"]
    return {name: shape for layer in layers for name, shape in layer["tops"].items()}


@pytest.mark.parametrize("names", [("data", "gt"), ("images", "truth")])
def test_a_shape_for_each_source(names: tuple[str, str], capsys: Captured) -> None:
    Path("n.prototxt").write_text(SEGMENTED)
    shapes = f"--shape {names[0]}=3,6,7 --shape {names[1]}=1,6,7"
    got = tops(f"n.prototxt {shapes}", capsys)
    assert (got["data"], got["gt"], got["score"]) == ([2, 3, 6, 7], [2, 1, 6, 7], [2, 5, 6, 7])
    got = tops(f"n.prototxt {shapes} --batch 9", capsys)
    assert (got["data"], got["gt"]) == ([9, 3, 6, 7], [9, 1, 6, 7])
    got = tops(f"n.prototxt --shape 3,6,7 --shape {names[1]}=1,6,7", capsys)
    assert (got["data"], got["gt"]) == ([2, 3, 6, 7], [2, 1, 6, 7])


@pytest.mark.parametrize(
    ("shapes", "data", "label"),
    [
        ("--shape data=10", [4, 10], [4]),
        ("--shape h=2,3", [4, 2, 3], [4]),
        ("--shape data=10 --shape label=1", [4, 10], [4, 1]),
        ("--shape data=10 --shape label=", [4, 10], [4]),
        ("--shape 3,8,8", [4, 3, 8, 8], [4]),
    ],
)
def test_hdf5_without_its_files(
    shapes: str, data: list[int], label: list[int], capsys: Captured
) -> None:
    Path("n.prototxt").write_text(HDF5)
    got = tops(f"n.prototxt {shapes}", capsys)
    assert (got["data"], got["label"]) == (data, label)


@pytest.mark.parametrize(
    ("kind", "batch"), [("Python", 1), ("MyData", 1), ("DummyData", 1), ("MemoryData", 6)]
)
def test_sources_of_other_types(kind: str, batch: int, capsys: Captured) -> None:
    source = f'layer {{ name: "s" type: "{kind}" top: "data" top: "gt" '
    source += "memory_data_param { batch_size: 6 } }" if kind == "MemoryData" else "}"
    Path("n.prototxt").write_text(source + SEGMENTED.partition("batch_size: 2 } }\nlayer")[2]
        .partition("batch_size: 2 } }\n")[2])  # fmt: skip
    got = tops("n.prototxt --shape data=3,6,7 --shape gt=1,6,7", capsys)
    assert (got["data"], got["score"]) == ([batch, 3, 6, 7], [batch, 5, 6, 7])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--shape dat=3,6,7", "no source has a top 'dat'; expected a blob that comes into the net"),
        ("--shape score=3,6,7", "no source has a top 'score'"),
        ("--shape 3,6,7 --shape 3,6,8", "expected one shape without a name, got 2"),
    ],
)
def test_shapes_of_no_source(flags: str, words: str, capsys: Captured) -> None:
    Path("n.prototxt").write_text(SEGMENTED)
    assert words in failure(f"n.prototxt {flags}", capsys)


@pytest.mark.parametrize("shape", ["gt=1,a", "gt=0,2", "=3,4,5", "gt=-1"])
def test_shapes_that_are_none(shape: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["summary", "n.prototxt", f"--shape={shape}"])
    assert "expected the name of a source and dimensions such as gt=1,224," in (
        capsys.readouterr().err
    )


def test_all_that_is_missing_is_reported_at_once(capsys: Captured) -> None:
    more = (
        'layer { name: "x" type: "Convolutoin" bottom: "data" top: "x" }\n'
        'layer { name: "y" type: "RoiPool" bottom: "x" top: "y" }\n'
        'layer { name: "z" type: "RoiPool" bottom: "y" top: "z" include { phase: TEST } }\n'
    )
    Path("n.prototxt").write_text(SEGMENTED + more + HDF5.splitlines()[0] + HDF5.splitlines()[1])
    message = failure("n.prototxt", capsys)
    for words in (
        "verydeep summary: n.prototxt: 5 parts of the net are missing",
        "n.prototxt:1:15: layer 'images' (Data): a: no such database",
        "n.prototxt:2:15: layer 'truth' (Data): b: no such database",
        "n.prototxt:6:15: layer 'x': unknown layer type 'Convolutoin'; did you mean Convolution?",
        "n.prototxt:7:15: layer 'y': unknown layer type 'RoiPool'",
        "n.prototxt:9:15: layer 'h' (HDF5Data)",
        "list.txt",
        "--shape data=channels,height,width --shape gt=channels,height,width",
    ):
        assert words in message
    assert "'z'" not in message
    message = failure("n.prototxt --shape 3,6,7", capsys)
    assert "2 parts of the net are missing" in message and "no such" not in message


def test_a_solver_given_by_mistake(capsys: Captured) -> None:
    Path("s.prototxt").write_text('net: "n.prototxt"\nbase_lr: 0.1\n')
    message = failure("s.prototxt", capsys)
    assert message.startswith("verydeep summary: s.prototxt: a solver prototxt; expected a net")
    assert "give its net, n.prototxt" in message
    Path("n.prototxt").write_text(LENET)
    assert main(["train", "--solver", "n.prototxt"]) == 2
    assert "n.prototxt: a net prototxt; expected a solver" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("// a comment", "2:1"),
        ("  // base", "2:3"),
        ('name: "a" // the name', "2:11"),
        ("layer { // open", "2:9"),
        ("/* a block */", "2:1"),
    ],
)
def test_comments_of_c_get_a_hint(line: str, place: str, capsys: Captured) -> None:
    Path("n.prototxt").write_text(f"# http://host\n{line}\n")
    message = failure("n.prototxt", capsys)
    assert f"n.prototxt:{place}: a comment with {'/*' if '*' in line else '//'}" in message
    assert "write # instead" in message
