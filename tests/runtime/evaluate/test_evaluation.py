"""Protocols over a small database: identities of protocols, and the command lines."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.datum import rescale_short_side
from data_prep.lmdb_io import Reader
from data_prep.transform import MeanValues
from prototxt_gen import generate, proto, text
from prototxt_gen.errors import DataError, ProtoError, ShapeError, SnapshotError, UsageError
from prototxt_gen.sidecar import DataOptions
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.evaluate import evaluation, image_source
from runtime.evaluate.cache import PosteriorCache
from runtime.evaluate.central_crop import evaluate_central_crop
from runtime.evaluate.dense import ShapeBatches
from runtime.evaluate.evaluation import Evaluator, Member
from runtime.evaluate.fusion import Posteriors, fuse
from runtime.evaluate.image_source import (
    ImageFiles,
    TestImages,
    class_names,
    fingerprint,
    open_source,
    preprocessing,
)
from runtime.evaluate.multicrop import grid_crops, grid_places
from runtime.evaluate.protocol import EvaluationProtocol, centre_crop, parse_scales
from runtime.evaluate.score_net import ScoreNet, softmax
from runtime.net import Net
from runtime.weights.net_weights import copy_trained_layers, save
from tests.runtime.evaluate.toy_net import CLASSES, CROP, MEAN, write_images, write_net

COUNT = 11


@dataclasses.dataclass(frozen=True)
class Toy:
    source: Path
    model: Path
    weights: Path
    other: Path

    def member(self, kind: str = "dense", scales: tuple[int, ...] = (20,), **more: Any) -> Member:
        return Member(self.model, self.weights, EvaluationProtocol(scales, kind, **more))

    def evaluator(self, **more: Any) -> Evaluator:
        return Evaluator(self.source, create_backend("cpu"), **more)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    source = write_images(root / "val", COUNT)
    model = write_net(root / "net", str(source))
    write_net(root / "other", str(source), seed=9)
    return Toy(source, model, root / "net" / "toy.caffemodel", root / "other" / "toy.caffemodel")


def test_a_grid_of_one_is_the_centre_crop_of_the_test_net(toy: Toy) -> None:
    context = RunContext(data=DataOptions(short_side=20))
    net = Net(text.read_net(toy.model), proto.TEST, create_backend("cpu"), context)
    with net:
        copy_trained_layers(net, toy.weights, strict=True)
        wanted = evaluate_central_crop(net, COUNT, "fc5")
    found = toy.evaluator().posteriors(Member(toy.model, toy.weights, centre_crop((20,))))
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.values, softmax(wanted.scores), atol=1e-6)


def test_dense_at_crop_size_equals_a_single_crop(toy: Toy) -> None:
    """A square image at Q = crop is one crop: dense and multi-crop cannot differ."""
    found = [
        toy.evaluator().posteriors(toy.member(kind, (CROP,))) for kind in ("dense", "multicrop")
    ]
    square = [0, 3, 6, 9]
    np.testing.assert_allclose(found[0].values[square], found[1].values[square], atol=1e-5)
    assert np.abs(found[0].values - found[1].values).max() > 1e-4


def test_dense_by_hand(toy: Toy) -> None:
    evaluator, q = toy.evaluator(), 24
    found = evaluator.posteriors(toy.member(scales=(q,)))
    reader = Reader(toy.source)
    model = text.read_net(toy.model)
    with ScoreNet(model, toy.weights, create_backend("cpu"), dense=True) as net:
        for index in range(COUNT):
            datum = image_source.datums.parse(reader.get(index), "")
            image = rescale_short_side(image_source.datums.image_of(datum, ""), q)
            x = (image.astype(np.float64) - MEAN).astype(np.float32).transpose(2, 0, 1)[None]
            values = [
                softmax(net.score_maps(np.ascontiguousarray(each)).mean(axis=(2, 3)))
                for each in (x, x[..., ::-1])
            ]
            np.testing.assert_allclose(found.values[index], np.mean(values, 0)[0], atol=1e-5)
            assert found.labels[index] == datum.label


def test_scales_and_kinds_are_averaged_with_equal_weight(toy: Toy) -> None:
    evaluator = toy.evaluator()
    single = [
        evaluator.posteriors(toy.member(kind, (q,))).values
        for kind in ("dense", "multicrop")
        for q in (18, 22)
    ]
    both = evaluator.posteriors(toy.member("both", (18, 22)))
    np.testing.assert_allclose(both.values, np.mean(single, axis=0), atol=1e-12)


def test_a_fusion_of_one_is_the_evaluation_and_of_two_their_mean(toy: Toy) -> None:
    evaluator = toy.evaluator()
    one, two = toy.member(scales=(20, 24)), dataclasses.replace(toy.member(), weights=toy.other)
    alone = evaluator.measure([one])
    assert (alone.top1, alone.top5) == (
        evaluator.posteriors(one).error(1),
        evaluator.posteriors(one).error(5),
    )
    mean = (evaluator.posteriors(one).values + evaluator.posteriors(two).values) / 2
    fused = evaluator.measure([one, two])
    labels = evaluator.posteriors(one).labels
    assert fused.top1 == Posteriors(mean, labels).error(1)
    assert len(fused.members) == 2
    assert fused.members[0]["weights_sha256"] != fused.members[1]["weights_sha256"]


def test_posteriors_do_not_depend_on_memory_or_threads(toy: Toy) -> None:
    model = text.read_net(toy.model)
    found = []
    for memory, workers in ((1, 1), (1 << 30, 3)):
        images = TestImages(open_source(toy.source), preprocessing(model), COUNT, workers)
        with ScoreNet(model, toy.weights, create_backend("cpu"), True, memory) as net:
            found.append(evaluation.dense_posteriors(net, images, 20, "before").values)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_memory_of_incomplete_batches_is_limited() -> None:
    batches = ShapeBatches(lambda h, w: 100, limit=1000)
    sizes = []
    for index in range(20):
        image = np.zeros((1, 5, 5 + index % 2), np.float32)
        sizes += [len(indices) for indices, _ in batches.add(index, image)]
        assert batches._bytes <= 1000
    sizes += [len(indices) for indices, _ in batches.rest()]
    assert sum(sizes) == 20
    assert batches._bytes == 0


@pytest.mark.parametrize(("length", "count"), [(20, 5), (21, 5), (23, 4), (16, 3), (19, 2)])
def test_grid_places_are_even_and_mirror_each_other(length: int, count: int) -> None:
    places = grid_places(length, CROP, count)
    assert (places[0], places[-1], len(places)) == (0, length - CROP, count)
    assert max(np.diff(places)) - min(np.diff(places)) <= 2
    pairs = [a + b for a, b in zip(places, reversed(places)) if a != b]
    assert set(pairs) <= {length - CROP}
    assert grid_places(length, CROP, 1) == [(length - CROP) // 2]


def test_fifty_crops_cover_the_image_and_their_flips() -> None:
    image = np.random.default_rng(0).normal(size=(3, 24, 30)).astype(np.float32)
    crops = grid_crops(image, (CROP, CROP), 5, flip=True)
    assert crops.shape == (50, 3, CROP, CROP)
    np.testing.assert_array_equal(crops[0], image[:, :CROP, :CROP])
    np.testing.assert_array_equal(crops[24], image[:, -CROP:, -CROP:])
    np.testing.assert_array_equal(crops[25:], crops[:25, :, :, ::-1])


def test_posteriors_are_cached_by_everything_they_depend_on(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PosteriorCache(tmp_path / "cache")
    first = toy.evaluator(cache=cache).posteriors(toy.member("both", (18, 20)))
    assert len(list(cache.folder.glob("*.npz"))) == 4
    computed = []
    real = evaluation.dense_posteriors
    monkeypatch.setattr(
        evaluation, "dense_posteriors", lambda *a, **k: computed.append(a[2]) or real(*a, **k)
    )
    again = toy.evaluator(cache=cache).posteriors(toy.member("both", (20, 18)))
    np.testing.assert_allclose(again.values, first.values, atol=1e-12)
    toy.evaluator(cache=cache).posteriors(toy.member("dense", (18,)))
    assert computed == []
    toy.evaluator(cache=cache).posteriors(toy.member(average="after"))
    toy.evaluator(cache=cache).posteriors(toy.member(flip=False))
    toy.evaluator(cache=cache, mean_value=(1, 2, 3)).posteriors(toy.member())
    toy.evaluator(cache=cache, count=5).posteriors(toy.member())
    toy.evaluator(cache=cache).posteriors(dataclasses.replace(toy.member(), weights=toy.other))
    other = write_images(tmp_path / "other_images", COUNT, seed=8)
    Evaluator(other, create_backend("cpu"), cache).posteriors(toy.member())
    assert computed == [20] * 6


def test_a_damaged_cache_file_is_named(toy: Toy, tmp_path: Path) -> None:
    cache = PosteriorCache(tmp_path)
    toy.evaluator(cache=cache).posteriors(toy.member())
    file = next(tmp_path.glob("*.npz"))
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match=f"{file.name}: the posteriors cannot be read"):
        toy.evaluator(cache=cache).posteriors(toy.member())
    key = {"a": 1}
    cache.path(key).write_bytes(whole)
    with pytest.raises(DataError, match="it contains posteriors of another evaluation"):
        cache.load(key)


def test_the_command_lines(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--source", str(toy.source), "--cache", str(tmp_path), "--json"]
    files = ["--model", str(toy.model), "--weights", str(toy.weights)]
    assert main(["evaluate", *files, *common, "--scales", "18,20", "--protocol", "both"]) == 0
    found = json.loads(capsys.readouterr().out)
    member = [str(toy.model), str(toy.weights), "18,20", "both"]
    assert main(["fuse", *common, "--member", *member]) == 0
    fused = json.loads(capsys.readouterr().out)
    for each in (found, fused):
        each.pop("seconds")
    assert found == fused
    assert found["images"] == COUNT
    assert found["top1_error"] == toy.evaluator().measure([toy.member("both", (18, 20))]).top1
    assert main(["evaluate", *files, *common[:-1], "--scales", "18", "--images", "3"]) == 0
    shown = capsys.readouterr().out
    for part in ("top-1 error: ", "images: 3 of ", "sha256 ", "Q = 18", "mean 100, 110, 120"):
        assert part in shown, part
    assert "dense, scores averaged over space before the softmax, averaged with the flip" in shown


@pytest.mark.parametrize("protocol", ["dense", "multicrop"])
def test_scores_of_nan_are_reported(
    toy: Toy, tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image whose true class scores NaN is an error, unlike in Caffe's Accuracy."""
    deploy = text.read_net(toy.model.parent / generate.DEPLOY)
    with Net(deploy, proto.TEST, create_backend("cpu")) as net:
        copy_trained_layers(net, toy.weights)
        net.params.learnable[-1].data.mutable_host()[0] = np.nan
        save(net, tmp_path / "nan.caffemodel")
    words = ["evaluate", "--source", str(toy.source), "--no-cache", "--model", str(toy.model)]
    words += ["--weights", str(tmp_path / "nan.caffemodel"), "--scales", "18", "--images", "3"]
    words += ["--protocol", protocol, "--grid", "2"]
    assert main([*words, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["not_finite"] == 3 and json.loads(out)["top1_error"] == 1
    assert "verydeep evaluate: not finite: the scores of 3 of 3 images; expected finite" in err
    assert main(words) == 1
    assert "top-1 error: 100.00 %" in capsys.readouterr().out


def test_a_folder_of_images_is_evaluated_by_its_list(toy: Toy, tmp_path: Path) -> None:
    reader = Reader(toy.source)
    (tmp_path / "val").mkdir()
    lines = []
    for label in range(CLASSES):
        (tmp_path / "train" / f"n{label}").mkdir(parents=True)
        (tmp_path / "train" / f"n{label}" / "a.png").write_bytes(b"")
    for index in range(COUNT):
        datum = image_source.datums.parse(reader.get(index), "")
        (tmp_path / "val" / f"{index:03d}.png").write_bytes(datum.data)
        lines.append(f"{index:03d}.png {datum.label}")
    (tmp_path / "val.txt").write_text("\n".join(lines) + "\n")
    found = Evaluator(tmp_path, create_backend("cpu")).posteriors(toy.member())
    wanted = toy.evaluator().posteriors(toy.member())
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    source = open_source(tmp_path)
    (tmp_path / "val" / "000.png").unlink()
    with pytest.raises(DataError, match=r"val/000\.png: cannot be read: No such file"):
        source.get(0)


def test_names_of_any_bytes_and_special_files(toy: Toy, tmp_path: Path) -> None:
    names = (os.fsdecode(b"caf\xe9.png"), "pipe")
    source = ImageFiles(tmp_path, [(name, 0) for name in names])
    (tmp_path / names[0]).write_bytes(b"image")
    os.mkfifo(tmp_path / "pipe")
    assert len(fingerprint(source, 1)) == 64
    with pytest.raises(DataError, match=r"pipe: cannot be read: .*regular file"):
        source.get(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sparse"}, "protocol: expected one of dense, multicrop, both, got 'sparse'"),
        ({"average": "never"}, "average: expected before or after, got 'never'"),
        ({"scales": ()}, "scales: expected short sides of 1 pixel or more, each once, got []"),
        ({"scales": (20, 20)}, "each once, got [20, 20]"),
        ({"grid": 0}, "grid: expected at least 1 crop per side, got 0"),
    ],
)
def test_an_impossible_protocol_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtoError) as caught:
        EvaluationProtocol(**({"scales": (20,)} | change))
    assert message in str(caught.value)


def test_other_errors(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--scales: expected integers"):
        parse_scales("256;384")
    with pytest.raises(ShapeError, match="fuse: nothing to average"):
        fuse([])
    with pytest.raises(ShapeError, match=r"fuse: posteriors of \(1, 2\) and \(1, 3\)"):
        fuse([Posteriors(np.ones((1, n)), np.zeros(1, np.int64)) for n in (2, 3)])
    with pytest.raises(DataError, match="labels from 0 to 7 for a net of 2 classes"):
        Posteriors(np.ones((2, 2)), np.array([0, 7])).error(1)
    with pytest.raises(DataError, match="11 images; expected a number from 1 to 11, got 12"):
        toy.evaluator(count=12)
    deploy = text.read_net(toy.model.with_name(generate.DEPLOY))
    with pytest.raises(ProtoError, match="no transform_param with the mean to subtract"):
        preprocessing(deploy)
    assert preprocessing(deploy, (1, 2, 3)).steps == (MeanValues((1.0, 2.0, 3.0)),)
    lost = dataclasses.replace(toy.member(), weights=tmp_path / "lost.caffemodel")
    with pytest.raises(SnapshotError, match=r"lost\.caffemodel: the weights cannot be read"):
        toy.evaluator(cache=PosteriorCache(tmp_path)).posteriors(lost)
    with pytest.raises(ShapeError, match="expected at least the net's crop of 16x16"):
        toy.evaluator().posteriors(toy.member("multicrop", (12,)))


def test_errors_of_the_command_line(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--model", str(toy.model), "--weights", str(toy.weights), "--scales", "20"]
    source = ["--source", str(toy.source), "--no-cache"]
    assert main(["evaluate", *files, *source, "--mean-value", "a,b"]) == 2
    assert "--mean-value: expected numbers from 0 to 255" in capsys.readouterr().err
    assert main(["fuse", *source, "--member", str(toy.model)]) == 2
    assert "--member: expected MODEL WEIGHTS SCALES [PROTOCOL], got 1 value" in (
        capsys.readouterr().err
    )


def test_confusion_matrix_and_errors_of_classes(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", str(toy.model), "--weights", str(toy.weights), "--no-cache"]
    words += ["--source", str(toy.source), "--scales", "20", "--images", "9"]
    names = tmp_path / "names.txt"
    names.write_text("".join(f"n0000000{k} name {k}, other\n" for k in range(CLASSES)))
    table, picture = tmp_path / "matrix.csv", tmp_path / "matrix.png"
    files = ["--confusion", str(table), "--confusion", str(picture), "--labels", str(names)]
    assert main([*words, *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with table.open(newline="") as stream:
        head, *rows = list(csv.reader(stream))
    assert head[4] == "n00000000 name 0, other"
    counts = np.array([row[4:] for row in rows], int)
    assert counts.shape == (CLASSES, CLASSES)
    assert counts.sum() == 9
    assert 1 - counts.diagonal().sum() / 9 == pytest.approx(found["top1_error"])
    assert [each["images"] for each in found["classes"]] == counts.sum(axis=1).tolist()
    assert found["classes"][2]["name"] == "n00000002 name 2, other"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*words, *files[:2]]) == 0
    shown = capsys.readouterr().out
    assert "classes with the largest top-1 error:" in shown
    assert f"confusion matrix: {table}" in shown
    # Without names, classes are numbers.
    assert table.read_text().startswith('label,class,images,"top-1 error, %",0,1,2,3,4,5\n')
    assert main(words) == 0
    assert "largest" not in capsys.readouterr().out


def test_a_fusion_has_a_confusion_matrix_too(toy: Toy, tmp_path: Path) -> None:
    table = tmp_path / "matrix.csv"
    words = ["fuse", "--source", str(toy.source), "--no-cache", "--confusion", str(table)]
    assert main([*words, "--member", str(toy.model), str(toy.weights), "20"]) == 0
    assert len(table.read_text().splitlines()) == CLASSES + 1


def test_errors_of_confusion_flags(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", str(toy.model), "--weights", str(toy.weights), "--no-cache"]
    words += ["--source", str(toy.source), "--scales", "20", "--images", "2"]
    assert main([*words, "--confusion", str(tmp_path / "matrix.pdf")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "matrix.pdf: unknown format of a confusion matrix; expected a name that ends in" in err
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    files = ["--confusion", str(tmp_path / "m.csv"), "--labels", str(names)]
    assert main([*words, *files]) == 2
    assert "names.txt: 2 labels for a net of 6 classes; expected" in capsys.readouterr().err
    # The errors are printed before a file that cannot be written is reported.
    names.write_text("")
    assert main([*words, "--confusion", str(names / "m.csv")]) == 2
    assert "top-1 error" in capsys.readouterr().out


def test_a_data_set_names_its_classes(tmp_path: Path, toy: Toy) -> None:
    for label in range(2):
        (tmp_path / "train" / f"n{label}").mkdir(parents=True)
        (tmp_path / "train" / f"n{label}" / "a.png").write_bytes(b"")
    (tmp_path / "val").mkdir()
    (tmp_path / "synset_words.txt").write_text("n0 cat, kitten\nn1 dog\n")
    assert class_names(tmp_path) == ("cat, kitten", "dog")
    assert class_names(toy.source) is None
