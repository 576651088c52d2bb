"""Public models are recognised by names and shapes of layers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.spec import builtin_spec, with_values
from runtime.backend.cpu.backend import CpuBackend
from runtime.bundle.known_models import KNOWN_MODELS
from runtime.bundle.recognise import Shape, recognise
from runtime.cli.main import main
from runtime.net.shape_net import shape_net
from tests.runtime.bundle.bundles import small_bundle

HEAD = {"VGG_FACE": "fc8", "GoogleNet": "loss3/classifier", "SqueezeNet_v1.0": "conv10"}


def shapes_of(net: str, classes: int = 1000) -> dict[str, Shape]:
    """The weights of one of the paper's nets."""
    spec = with_values(builtin_spec(net), {"classes": classes})
    built = shape_net(heads.deploy(spec), proto.TEST, CpuBackend())
    return {layer.param.name: layer.blobs[0].shape for layer in built.layers if len(layer.blobs)}


@pytest.mark.parametrize(
    ("net", "classes", "name", "exact"),
    [
        ("D", 1000, "VGG_ILSVRC_16_layers", True),
        ("E", 1000, "VGG_ILSVRC_19_layers", True),
        ("D", 2622, "VGG_FACE", True),
        ("D", 365, "vgg16_places365", True),
        ("D", 7, "VGG_ILSVRC_16_layers", False),
        ("E", 7, "VGG_ILSVRC_19_layers", False),
    ],
)
def test_the_papers_nets(net: str, classes: int, name: str, exact: bool) -> None:
    recognised = recognise(shapes_of(net, classes))
    assert recognised is not None
    assert (recognised.model.name, recognised.exact) == (name, exact)
    assert "103.939, 116.779, 123.68" in recognised.describe() or classes in (2622, 365)


@pytest.mark.parametrize("net", ["A", "B", "C"])
def test_other_nets_are_not_recognised(net: str) -> None:
    assert recognise(shapes_of(net)) is None


def test_shapes_of_legacy_files_and_of_dense_nets() -> None:
    legacy = {
        name: (1, 1, *shape) if len(shape) == 2 else shape for name, shape in shapes_of("D").items()
    }
    dense = {}
    for name, shape in shapes_of("D").items():
        if name == "fc6":
            dense["fc6-conv"] = (4096, 512, 7, 7)
        else:
            dense[f"{name}-conv" if name[:2] == "fc" else name] = shape
    for shapes in (legacy, dense):
        recognised = recognise(shapes)
        assert recognised is not None
        assert (recognised.model.name, recognised.exact) == ("VGG_ILSVRC_16_layers", True)


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_every_model_is_recognised_by_its_own_layers(model: object) -> None:
    shapes = dict(model.layers) | {HEAD.get(model.name, "last"): (model.classes, 4096)}
    recognised = recognise(shapes, model.name)
    assert recognised is not None
    assert recognised.model is model
    assert recognised.exact
    other = recognise(dict(model.layers) | {"last": (7, 4096)}, model.name)
    assert other is not None
    assert not other.exact


def test_the_table_is_consistent() -> None:
    assert max(Counter(model.name for model in KNOWN_MODELS).values()) == 1
    for model in KNOWN_MODELS:
        assert len(model.sha1) in (0, 40)
        assert model.source.startswith("http")
        assert len(model.preprocessing.mean_value) == 3
        assert (model.preprocessing.warp is None) != (model.preprocessing.short_side is None)


def test_zoo_lists_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    for model in KNOWN_MODELS:
        assert f"\n{model.name} " in printed
    assert main(["zoo", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(KNOWN_MODELS)


def test_zoo_prints_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "caffenet"]) == 0
    printed = capsys.readouterr().out
    assert "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46" in printed
    assert "warped to 256x256, crop 227x227, mean 104.007, 116.669, 122.679" in printed


def test_zoo_suggests_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "ResNet-5"]) == 2
    assert "did you mean ResNet-50" in capsys.readouterr().err


def test_zoo_identifies_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--identify", str(small_bundle(tmp_path).weights)]) == 1
    assert "no known model has these layers" in capsys.readouterr().out
    assert main(["zoo", "--identify", str(tmp_path / "absent")]) == 2
    (tmp_path / "text").write_text("no weights")
    assert main(["zoo", "--identify", str(tmp_path / "text")]) == 2
