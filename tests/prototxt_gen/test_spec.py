from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import vgg
from prototxt_gen.errors import ProtoError
from prototxt_gen.sidecar import ColourPca, DataOptions, PlateauOptions
from prototxt_gen.spec import (
    ILSVRC_PCA,
    INITIALISATIONS,
    LrnValues,
    NetSpecification,
    builtin_spec,
    paper_test_scale,
    with_values,
)
from prototxt_gen.spec_toml import load_spec, parse_spec, to_toml

GUIDE = Path(__file__).parents[2] / "docs" / "reference" / "spec.md"
OWN = 'name = "own"\nstages = [["conv3-8"], ["conv3-16"]]\n'


@pytest.mark.parametrize("net", list(vgg.NETS))
def test_a_built_in_spec_trains_as_in_section_3_1(net: str) -> None:
    spec = builtin_spec(net)
    assert (spec.fc, spec.classes, spec.crop, spec.dropout) == ((4096, 4096), 1000, 224, 0.5)
    solver, train = spec.solver, spec.data.train
    assert (train.batch_size, solver.momentum, solver.weight_decay) == (256, 0.9, 5e-4)
    assert (solver.base_lr, solver.max_iter, solver.lr_policy) == (0.01, 370_000, "plateau")
    assert (spec.schedule.factor, spec.schedule.max_drops) == (0.1, 3)
    assert (train.mirror, train.options.short_side, train.options.colour_shift) == (True, 256, 0.1)
    assert spec.data.mean_value == (103.939, 116.779, 123.68)
    # 74 epochs of the 1.28 million training images.
    assert solver.max_iter / solver.test_interval == 74


def test_deep_nets_do_not_start_from_noise_that_dies_out() -> None:
    methods = {net: builtin_spec(net).init.method for net in vgg.NETS}
    deep = {"B", "C", "D", "E"}
    assert methods == {net: "xavier" if net in deep else "gaussian" for net in vgg.NETS}


def test_colour_components_are_unit_vectors_at_right_angles() -> None:
    rows = ILSVRC_PCA.eigenvectors
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert sum(x * y for x, y in zip(a, b)) == pytest.approx(float(i == j), abs=1e-3)


@pytest.mark.parametrize("net", list(vgg.NETS))
def test_toml_reads_back_as_the_same_spec_and_is_the_same_bytes_again(net: str) -> None:
    text = to_toml(builtin_spec(net))
    assert parse_spec(text) == builtin_spec(net)
    assert to_toml(parse_spec(text)) == text


def test_every_value_survives_the_round_trip() -> None:
    values: dict[str, Any] = {
        "name": "x.y-z_1",
        "fc": (7,),
        "classes": 3,
        "crop": 64,
        "width": Fraction(3, 7),
        "dropout": 0.25,
        "lrn": LrnValues(3, 0.5, 0.25, 1.5),
        "init.method": "from-net-a",
        "init.first_std": 0.25,
        "solver.power": 0.75,
        "init.weights": 'a "quoted"\\path\x7f.caffemodel',
        "data.mean_value": (),
        "data.mean_file": "mean.binaryproto",
        "data.train.source": "tr\u00e4in",
        "data.train.mirror": False,
        "data.train.options": DataOptions((70, 90), 0.2, "pca.json", False, 5, 2, 7, "skip"),
        "data.test.options": DataOptions(None, workers=1),
        "solver.stepvalue": (5, 9),
        "solver.lr_policy": "multistep",
        "solver.base_lr": 1e-05,
        "schedule": PlateauOptions("loss", "min", 0.5, 2, 0.001, 4, True),
        "shards": 8,
        "precision": "tf32",
    }
    # Net A's layers need three names behind the stages.
    values["fc"] = (7, 9)
    spec = with_values(builtin_spec("A-LRN"), values)
    assert parse_spec(to_toml(spec)) == spec


def test_a_spec_takes_from_the_paper_what_it_leaves_out() -> None:
    assert parse_spec('net = "E"') == builtin_spec("E")
    own = parse_spec(OWN)
    assert own.init.method == "xavier"
    assert own.data == builtin_spec("A").data


def test_scales_follow_the_crop_and_the_test_scale_the_training_scale() -> None:
    options = parse_spec(f"{OWN}crop = 56").data.train.options
    assert options.short_side == 64
    text = OWN + "[data.train]\nshort_side = [256, 512]"
    assert parse_spec(text).data.test.options.short_side == 384
    assert paper_test_scale(384) == 384
    stored = parse_spec(OWN + '[data.train]\nshort_side = "stored"').data
    assert (stored.train.options.short_side, stored.test.options.short_side) == (None, None)


@pytest.mark.parametrize("form", ["0.125", '"1/8"', '"0.125"'])
def test_width_multiplies_and_rounds(form: str) -> None:
    spec = parse_spec(f"{OWN}width = {form}")
    assert [spec.scaled(width) for width in (64, 512, 20, 1)] == [8, 64, 2, 1]


def test_components_may_be_in_the_spec_itself() -> None:
    rows = "[[1, 0, 0], [0, 1, 0], [0, 0, 1]]"
    spec = parse_spec(f"{OWN}[data.train]\npca.eigenvalues = [3, 2, 1]\npca.eigenvectors = {rows}")
    assert spec.data.train.options.pca == ColourPca((3, 2, 1), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def test_a_mean_file_replaces_the_mean_pixel() -> None:
    data = parse_spec(f'{OWN}[data]\nmean_file = "m.binaryproto"').data
    assert (data.mean_file, data.mean_value) == ("m.binaryproto", ())


def test_each_initialisation_is_accepted() -> None:
    for method in INITIALISATIONS:
        weights = 'weights = "A.caffemodel"' if method == "from-net-a" else ""
        spec = parse_spec(f'net = "D"\n[init]\nmethod = "{method}"\n{weights}')
        assert spec.init.method == method


def test_values_that_depend_on_each_other_are_replaced_together() -> None:
    spec = with_values(
        builtin_spec("D"),
        {"crop": 384, "data.train.options.short_side": 448, "data.test.options.short_side": 448},
    )
    assert (spec.crop, spec.data.train.options.short_side) == (384, 448)
    with pytest.raises(ProtoError, match=r"data\.train\.short_side: the crop does not fit"):
        with_values(builtin_spec("D"), {"crop": 384})


ERRORS = [
    ("crpo = 3", "crpo: unknown key; expected one of ", "did you mean 'crop'?"),
    ("[data.train]\nsorce = 'x'", "data.train.sorce: unknown key", "did you mean 'source'?"),
    ("[zzz]", "zzz: unknown key", "got 'zzz'; remove it"),
    ("crop = '224'", "crop: of the wrong kind; expected an integer, got '224'; correct the value"),
    ("crop = true", "crop: of the wrong kind; expected an integer, got true"),
    ("crop = 3", "crop: 3 pixels are too few for 2 poolings", "expected at least 4, got 3"),
    ("crop = 0", "crop: out of range; expected at least 1, got 0"),
    ("classes = 1", "classes: out of range; expected at least 2, got 1; change the value"),
    ("classes = 3000000000", "classes: out of range; expected at most 2147483647"),
    ("fc = [16, 0]", "fc: out of range; expected at least 1, got 0"),
    ("fc = [16, 'x']", "fc: of the wrong kind; expected a list of integers, got [16, 'x']"),
    ("dropout = 1.0", "dropout: out of range; expected from 0 to below 1, got 1.0"),
    ("dropout = nan", "dropout: of the wrong kind; expected a finite number, got nan"),
    ("width = '1/0'", 'width: of the wrong kind; expected a number such as 0.125 or "1/8"'),
    ("width = 0", "width: out of range; expected more than 0, at most 64, got '0'"),
    ("lrn = 5", "lrn: of the wrong kind; expected a table, got 5"),
    ("lrn.local_size = 4", "lrn.local_size: out of range; expected an odd number, got 4"),
    ("lrn.k = 0", "lrn.k: out of range; expected more than 0, got 0.0"),
    ("init.method = 'he'", "init.method: out of range; expected one of gaussian, from-net-a"),
    (
        "init.method = 'from-net-a'",
        "init.weights: from-net-a requires weights, other methods take none; expected a .caffemodel"
        " of net A for method 'from-net-a', got nothing; give both or neither",
    ),
    (
        "init.weights = 'w'",
        "init.weights: from-net-a requires weights",
        "expected none for method 'xavier', got 'w'",
    ),
    (
        "init = {method = 'from-net-a', weights = 'w'}",
        "init.method: net A's layers do not fit this net",
        "got no conv3_1, no conv3_2, no fc6, no fc7, no fc8; choose gaussian or xavier",
    ),
    ("data.mean_value = [1, 2]", "data.mean_value: out of range; expected one or three numbers"),
    ("data.mean_value = [300]", "data.mean_value: out of range"),
    (
        "data = {mean_value = [1], mean_file = 'm'}",
        "data.mean_file: two means; expected mean_file or mean_value, got 'm' and [1.0]",
    ),
    ("data.train.source = ''", "data.train.source: out of range; expected the path of an LMDB"),
    ("data.train.batch_size = 0", "data.train.batch_size: out of range; expected at least 1"),
    ("data.train.mirror = 1", "data.train.mirror: of the wrong kind; expected true or false"),
    ("data.train.short_side = 223", "data.train.short_side: the crop does not fit into the image"),
    ("data.test.short_side = [100, 400]", "data.test.short_side: the crop does not fit"),
    ("data.test.batch_size = -1", "data.test.batch_size: out of range; expected at least 1"),
    (
        "solver.base_lr = 0",
        "solver.base_lr: out of range; expected more than 0, got 0.0",
    ),
    ("solver.base_lr = 1e39", "solver.base_lr: out of range"),
    ("solver.momentum = 1", "solver.momentum: out of range; expected from 0 to below 1"),
    ("solver.weight_decay = -1", "solver.weight_decay: out of range; expected at least 0"),
    ("solver.lr_policy = 'step'", "solver.lr_policy: out of range; expected one of plateau"),
    ("solver.solver_mode = 'gpu'", "solver.solver_mode: out of range; expected one of CPU, GPU"),
    ("solver.max_iter = 0", "solver.max_iter: out of range; expected at least 1, got 0"),
    ("solver.stepvalue = [5, 5]", "solver.stepvalue: out of range; expected iterations from 1 to "),
    ("solver.stepvalue = [5, 2147483648]", "solver.stepvalue: out of range; expected iterations"),
    ("lrn.local_size = 4294967297", "lrn.local_size: out of range; expected at most 2147483647"),
    (
        "solver.iter_size = 3",
        "solver.iter_size: the batch does not divide into 3 passes; expected a divisor of "
        "data.train.batch_size = 256, got 3; change either",
    ),
    ("schedule.factor = 1", "schedule.factor: out of range; expected a number between 0 and 1"),
    ("parallel.shards = 0", "parallel.shards: out of range; expected at least 1, got 0"),
    ("compute.precision = 'fp8'", "compute.precision: out of range; expected one of fp32, tf32"),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case[0].replace("\n", " "))
def test_a_wrong_value_is_refused_by_file_and_key(case: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(OWN + case[0])
    with pytest.raises(ProtoError) as caught:
        load_spec(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {case[1]}")
    assert all(part in message for part in case[2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'name = "x"',
            "stages: expected either net or stages, got neither; write net = one of A, A-LRN",
        ),
        ('net = "D"\nstages = [["conv3-8"]]', "stages: expected either net or stages, got both"),
        ('name = "x"\nstages = []', "stages: out of range; expected at least one stage, got 0"),
        ('name = "x"\nstages = [["LRN"]]', "stages: stage 1 does not start with a convolution"),
        ('name = "x"\nstages = [[3]]', "stages: of the wrong kind; expected a list of stages"),
        ('name = "x"\nstages = [["conv2-8"]]', "stages: a kernel of 2 cannot keep the size"),
        ('stages = [["conv3-8"]]', "name: missing; expected a name"),
        ('net = "D"\nname = "../x"', "name: out of range; expected letters, digits"),
        ('net = "F"', "net: the paper has no net 'F'"),
        ('name = "x"\nstage = [["conv3-8"]]', "stage: unknown key"),
        ("crop =", "this is not TOML: "),
    ],
)
def test_a_net_is_either_the_papers_or_its_own(text: str, message: str) -> None:
    with pytest.raises(ProtoError) as caught:
        parse_spec(text, "my.toml")
    assert str(caught.value).startswith(f"my.toml: {message}")


def test_a_shallow_net_with_large_kernels_cannot_start_from_net_a() -> None:
    with pytest.raises(ProtoError, match="got conv1_1 of 5x5, conv2_1 of 5x5, conv3_1 of 5x5, no"):
        with_values(builtin_spec("B-shallow"), {"init.method": "from-net-a", "init.weights": "a"})


def test_a_missing_or_binary_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ProtoError, match=r"none\.toml: cannot be read: No such file or directory"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProtoError, match=r"b\.toml: cannot be read: .*expected a TOML file"):
        load_spec(tmp_path / "b.toml")


def test_the_guides_examples_are_specs() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    example, stages = blocks
    spec = parse_spec(example)
    assert (spec.name, spec.classes, spec.train_batch) == ("pets", 37, 64)
    assert parse_spec('name = "VGG-A-LRN"\n' + stages).stages == vgg.stages_of("A-LRN")


def test_the_guide_names_every_key() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    keys = re.findall(r"^(?:pca\.)?([a-z_]+) =", to_toml(builtin_spec("A")), re.M)
    assert len(keys) > 40
    assert [key for key in keys if f"`{key}`" not in guide] == []


def test_specs_are_values() -> None:
    assert builtin_spec("D") == builtin_spec("D")
    assert isinstance(hash(builtin_spec("D")), int)
    with pytest.raises(AttributeError):
        setattr(builtin_spec("D"), "crop", 3)  # noqa: B010 (mypy reports that it cannot be set)
    assert isinstance(builtin_spec("D"), NetSpecification)


DEEP = {
    "an array": "x = " + "[" * 100_000,
    "an inline table": "x = " + "{a = " * 100_000,
    "a dotted key": "crop." + "a." * 900 + "a = 1",
    "a long dotted key": "a." * 300_000 + "b = 1",
    "a long header": "[" + "a." * 300_000 + "b]",
    "digits": "crop = " + "9" * 100_000,
    "hexadecimal digits": "crop = 0x" + "f" * 100_000,
    "an integer over 64 bits": "crop = 0x" + "f" * 900,
    "a number over 64 bits": "dropout = " + "9" * 400,
    "a list of such": "fc = [1, " + "9" * 30 + "]",
    "an exponent": "width = 1e999999999",
    "an exponent as text": "width = '1e999999999'",
    "a negative exponent": "width = '1e-999999999'",
    "a long fraction": f"width = '1/{'7' * 5000}'",
    "a small width": "width = 1e-300",
    "a wide layer": "width = 64\nfc = [2147483647]",
    "a long name": f"name2 = '{'x' * 300_000}'",
    "a long value": f"crop = '{'x' * 300_000}'",
    "a long key": f"{'k' * 300_000} = 1",
    "a control character": "name2 = '\x1b[2J'",
}


@pytest.mark.parametrize("what", DEEP)
def test_what_has_no_end_is_refused_at_once(what: str) -> None:
    with pytest.raises(ProtoError, match=r"^my\.toml: ") as caught:
        parse_spec(OWN + DEEP[what], "my.toml")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (f"[['conv{'9' * 900}-8']]", "stages: "),
        (f"[['conv3-{'9' * 900}']]", "stages: "),
        ("[['conv3-4294967296']]", "stages: a convolution of 4294967296 channels"),
        ("[" + "['conv3-1']," * 20_000 + "]", "stages: out of range; expected at most 31 stages"),
    ],
    ids=lambda value: value[:24],
)
def test_stages_without_end(stages: str, words: str) -> None:
    with pytest.raises(ProtoError, match=words) as caught:
        parse_spec(f"name = 'x'\nstages = {stages}", "my.toml")
    assert len(str(caught.value)) < 1000


def test_a_spec_of_any_size_or_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text("# " + "x" * (2 << 20))
    with pytest.raises(ProtoError, match="cannot be read: larger than the 1048576 bytes"):
        load_spec(tmp_path / "big.toml")
    for name in ("a\0b.toml", "n" * 300):
        with pytest.raises(ProtoError, match="cannot be read: "):
            load_spec(tmp_path / name)
