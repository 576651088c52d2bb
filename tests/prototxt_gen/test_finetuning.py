"""[finetune] of a spec: the new classifier, its rates, frozen layers and the solver's weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen import heads
from prototxt_gen.errors import ProtoError
from prototxt_gen.layer_ranges import select_layers
from prototxt_gen.solver import solver_param
from prototxt_gen.spec_toml import parse_spec, to_toml

SPEC = """
net = "A"
classes = 5
crop = 32
[finetune]
weights = "vgg.caffemodel"
"""


def rates(spec: str) -> dict[str, list[float]]:
    """The learning rates of each layer with weights."""
    net = heads.train_val(parse_spec(spec))
    return {layer.name: [p.lr_mult for p in layer.param] for layer in net.layer if layer.param}


def test_the_classifier_is_new_and_learns_faster() -> None:
    found = rates(SPEC)
    assert "fc8" not in found
    assert found["fc8-new"] == [10, 20]
    assert found["fc7"] == found["conv1_1"] == [1, 2]
    spec = parse_spec(SPEC)
    assert [layer.name for layer in heads.deploy(spec).layer][-2:] == ["fc8-new", "prob"]
    assert list(solver_param(spec, "net", "prefix").weights) == ["vgg.caffemodel"]


def test_name_rate_and_frozen_layers() -> None:
    more = 'layer = "fc8_flowers"\nrate = 5\nfreeze = ["conv1..conv2", "fc6"]\n'
    found = rates(SPEC + more)
    assert found["fc8_flowers"] == [5, 10]
    frozen = [name for name, values in found.items() if values == [0, 0]]
    assert frozen == ["conv1_1", "conv2_1", "fc6"]


def test_the_toml_reads_back() -> None:
    for more in ("", 'layer = "x"\nrate = 5.0\nfreeze = ["conv1"]\n'):
        spec = parse_spec(SPEC + more)
        assert parse_spec(to_toml(spec)) == spec
    assert "[finetune]" not in to_toml(parse_spec('net = "A"'))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SPEC.replace('"vgg.caffemodel"', '""'), "finetune.weights: out of range; expected a file"),
        (SPEC + "rate = 0", "finetune.rate: out of range; expected more than 0"),
        (SPEC + 'layer = "fc8"', "finetune.layer: expected a name that no layer"),
        (SPEC + 'layer = "conv1_1"', "finetune.layer: expected a name that no layer"),
        (SPEC + 'layer = "a/b"', "finetune.layer: out of range"),
        (SPEC + "classes = 3", "classes"),
        (SPEC.replace('"A"', '"NiN"'), "finetune: expected a net of stages|net"),
        (
            SPEC.replace('"A"', '"D"') + '[init]\nmethod = "from-net-a"\nweights = "a"',
            "the training already starts from init.weights",
        ),
    ],
)
def test_wrong_values(spec: str, message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        parse_spec(spec)


@pytest.mark.parametrize("word", ["conv9", "fc8", "fc8-new", "conv2..conv1"])
def test_wrong_frozen_layers(word: str) -> None:
    spec = parse_spec(f'{SPEC}freeze = ["{word}"]')
    with pytest.raises(ProtoError, match=r"finetune\.freeze"):
        heads.train_val(spec)


def test_select_layers() -> None:
    names = ["conv1", "conv1_2", "conv10", "conv1/7x7", "fc6"]
    assert select_layers(["conv1"], names, "k") == ("conv1", "conv1_2", "conv1/7x7")
    assert select_layers(["conv10..fc6"], names, "k") == ("conv10", "conv1/7x7", "fc6")
    assert select_layers([], names, "k") == ()


def test_prototxt_writes_the_files(tmp_path: Path) -> None:
    from runtime.cli.main import main

    (tmp_path / "spec.toml").write_text(SPEC)
    assert main(["prototxt", "--spec", str(tmp_path / "spec.toml"), "--out", str(tmp_path)]) == 0
    assert 'weights: "vgg.caffemodel"' in (tmp_path / "solver.prototxt").read_text()
    assert 'name: "fc8-new"' in (tmp_path / "dense.prototxt").read_text().replace("-conv", "")
