"""The transformation of an image: original Caffe's results, closed forms, and the paper's part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep import datum, philox
from data_prep.colour import shift_of
from data_prep.datum import rescale_short_side
from data_prep.lmdb_io import Reader
from data_prep.mean_file import read_mean
from data_prep.transform import (
    STEPS,
    ColourShift,
    Crop,
    MeanImage,
    MeanValues,
    Mirror,
    Rescale,
    Scale,
    Transform,
)
from data_prep.transform_step import Settings
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.sidecar import ColourPca, DataOptions
from tests.data_prep.small_images import photograph, transform

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "data_layer"
NO_WORDS = np.zeros(8, np.uint32)
PCA = ColourPca((30.0, 20.0, 10.0), ((0.6, 0.8, 0.0), (0.0, 0.0, 1.0), (0.8, -0.6, 0.0)))


def _word(value: int, of: int) -> int:
    """The least word that draws `value` out of range(of)."""
    return -(-(value << 32) // of)


def _words(scale: int = 0, row: int = 0, column: int = 0, mirror: bool = False) -> np.ndarray:
    drawn = [scale, row, column, _word(int(mirror), 2), 5, 6, 7, 8]
    return np.array(drawn, dtype=np.uint32)


def _apply(spec: Transform, image: np.ndarray, words: np.ndarray = NO_WORDS) -> np.ndarray:
    out = np.full(spec.output_shape(*image.shape), np.nan, np.float32)
    spec.apply(image, words, out, "r")
    return out


def _case(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Transform, Reader, np.ndarray]:
    folder = GOLDEN / name
    monkeypatch.chdir(folder)
    layer = text.read_net(folder / "net.prototxt").layer[0]
    spec = Transform.read(Settings(layer.transform_param, train=name == "mirror_train"))
    return spec, Reader(folder / "db"), np.load(folder / "data.npy")


@pytest.mark.parametrize(("name", "first"), [("center", 4), ("nocrop", 0), ("meanfile", 0)])
def test_original_caffe_in_tests(name: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, reader, expected = _case(name, monkeypatch)
    with reader:
        for place, image in enumerate(expected):
            message = datum.parse(reader.get((first + place) % len(reader)), "r")
            np.testing.assert_array_equal(_apply(spec, datum.image_of(message, "r")), image)
            assert message.label == np.load(GOLDEN / name / "label.npy")[place]


def test_original_caffe_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, reader, expected = _case("mirror_train", monkeypatch)
    with reader:
        for number, row, column, mirror in json.loads(Path("offsets.json").read_text()):
            message = datum.parse(reader.get(number), "r")
            words = _words(0, _word(row, 4), _word(column, 6), bool(mirror))
            out = _apply(spec, datum.image_of(message, "r"), words)
            np.testing.assert_array_equal(out, expected[number])


def test_value_is_pixel_less_mean_times_scale() -> None:
    image = photograph(3, 4)
    spec = transform(mean_values=(10.0, 20.0, 30.0), scale=0.25)
    expected = (image.astype(np.float32) - np.float32([10, 20, 30])) * np.float32(0.25)
    np.testing.assert_array_equal(_apply(spec, image), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("mirror", [False, True])
def test_memory_layout_does_not_matter(dtype: type, mirror: bool) -> None:
    image = photograph(9, 11).astype(dtype)
    planar = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    spec = transform(train=True, crop_size=5, mirror=True, mean_values=(100.0,))
    words = _words(0, 1 << 31, 1 << 30, mirror)
    np.testing.assert_array_equal(_apply(spec, image, words), _apply(spec, planar, words))


def test_mirroring_flips_the_columns_and_keeps_the_mean_in_place() -> None:
    image = photograph(6, 8)
    mean = np.random.default_rng(1).uniform(0, 255, (3, 6, 8)).astype(np.float32)
    spec = transform(train=True, crop_size=5, mirror=True, mean_image=mean)
    straight = _apply(spec, image, _words(0, _word(1, 2), _word(2, 4)))
    flipped = _apply(spec, image, _words(0, _word(1, 2), _word(2, 4), mirror=True))
    expected = image.transpose(2, 0, 1).astype(np.float32) - mean
    np.testing.assert_array_equal(straight, expected[:, 1:6, 2:7])
    np.testing.assert_array_equal(flipped, straight[:, :, ::-1])
    without = spec.without(Mirror)
    np.testing.assert_array_equal(
        _apply(without, image, _words(mirror=True))[0, 0, 0], expected[0, 0, 0]
    )


def test_every_crop_is_drawn_equally_often() -> None:
    image = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    spec = transform(train=True, crop_size=2, mirror=True)
    drawn = spec.draw(3, 9, 0, np.arange(4800))
    corners = np.array([_apply(spec, image, words)[0, 0] for words in drawn]).astype(int)
    # A crop at (r, c) begins with 5 r + c and continues upwards, or downwards when mirrored.
    cells = np.zeros((3, 4, 2))
    for first, second in corners:
        row, column = divmod(min(first, second), 5)
        cells[row, column, int(second < first)] += 1
    assert np.abs(cells - 200).max() < 5 * np.sqrt(200)


def test_scale_is_drawn_from_the_whole_range_and_fixed_in_tests() -> None:
    spec = transform(train=True, crop_size=4, short_side=(10, 12))
    rescale = spec.find(Rescale)
    assert rescale is not None
    drawn = [rescale.short_side(words) for words in spec.draw(0, 0, 0, np.arange(3000))]
    counts = np.bincount(drawn, minlength=13)[10:]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert Rescale(10, 12, random=False).short_side(NO_WORDS) == 11


def test_the_crop_is_taken_from_the_rescaled_image() -> None:
    image = photograph(40, 60)
    spec = transform(train=True, crop_size=16, short_side=(20, 20))
    scaled = rescale_short_side(image, 20).transpose(2, 0, 1)
    out = _apply(spec, image, _words(0, _word(4, 5), _word(14, 15)))
    np.testing.assert_array_equal(out, scaled[:, 4:20, 14:30])
    centre = _apply(transform(crop_size=16, short_side=(20, 20)), image)
    np.testing.assert_array_equal(centre, scaled[:, 2:18, 7:23])


def test_the_colour_shift_is_one_number_a_channel() -> None:
    image = photograph(6, 6)
    plain = transform(train=True, mean_values=(104.0, 117.0, 123.0), scale=0.5)
    shifted = Transform((*plain.steps, ColourShift(PCA, 0.1)))
    words = shifted.draw(1, 2, 0, np.arange(1))[0]
    difference = _apply(shifted, image, words) - _apply(plain, image, words)
    expected = 0.5 * shift_of(PCA, 0.1, philox.to_normal(words[4:8])[:3])
    np.testing.assert_allclose(
        difference, np.broadcast_to(expected[:, None, None], (3, 6, 6)), atol=1e-4
    )
    assert np.abs(expected).max() > 0.01


def test_the_colour_shift_goes_with_a_mean_image_too() -> None:
    image = photograph(6, 6)
    plain = transform(mean_image=np.full((3, 6, 6), 90, np.float32))
    shifted = Transform((*plain.steps, ColourShift(PCA, 0.1)))
    words = shifted.draw(1, 2, 0, np.arange(1))[0]
    difference = (_apply(shifted, image, words) - _apply(plain, image, words))[:, 0, 0]
    expected = shift_of(PCA, 0.1, philox.to_normal(words[4:8])[:3])
    np.testing.assert_allclose(difference, expected, atol=1e-4)


def _param(words: str) -> proto.Message:
    return text.parse(words, proto.TransformationParameter, "test")


def _read(words: str, train: bool = False, name: str = "test") -> Transform:
    return Transform.read(Settings(_param(words), train, name))


def test_settings_are_read() -> None:
    spec = _read(
        "scale: 0.5 mirror: true crop_size: 7 mean_value: 1 mean_value: 2 force_gray: true", True
    )
    assert spec.steps == (Crop(7), Mirror(), MeanValues((1.0, 2.0)), Scale(0.5))
    assert (spec.mode, spec.scale, spec.word_count) == (datum.GRAY, 0.5, 4)
    plain = _read("")
    assert (plain.steps, plain.mode, plain.scale, plain.word_count) == ((), datum.NATIVE, 1.0, 0)
    assert _read("crop_size: 7").steps == (Crop(7, random=False),)
    path = GOLDEN / "meanfile" / "mean.binaryproto"
    mean = _read(f'mean_file: "{path}"').find(MeanImage)
    assert mean is not None
    np.testing.assert_array_equal(mean.mean, read_mean(path))


def test_the_options_of_the_sidecar_are_read() -> None:
    options = DataOptions((8, 11), 0.1, PCA)
    param = _param("crop_size: 7 mean_value: 3")
    train = Transform.read(Settings(param, True, options=options))
    expected = (Rescale(8, 11), Crop(7), MeanValues((3.0,)), ColourShift(PCA, 0.1))
    assert train.steps == expected
    test = Transform.read(Settings(param, False, options=options))
    assert test.steps == (Rescale(8, 11, False), Crop(7, False), MeanValues((3.0,)))
    fixed = Transform.read(Settings(param, True, options=DataOptions(9)))
    assert fixed.find(Rescale) == Rescale(9, 9)


def test_the_words_of_the_steps_are_fixed() -> None:
    """A change would change the images of every run with the same seed."""
    used = {step.__name__: list(range(*step.words.indices(99))) for step in STEPS}
    frozen = {"Rescale": [0], "Crop": [1, 2], "Mirror": [3], "ColourShift": [4, 5, 6, 7]}
    frozen |= {"MeanImage": [], "MeanValues": [], "Scale": []}
    assert {name: used[name] for name in frozen} == frozen
    every = [word for words in used.values() for word in words]
    assert len(every) == len(set(every)), "two steps share a word"


def test_fewer_words_are_the_first_of_more() -> None:
    few, many = transform(True, mirror=True), transform(True, colour=ColourShift(PCA))
    drawn = few.draw(7, 8, 9, np.arange(5))
    assert drawn.shape == (5, 4)
    np.testing.assert_array_equal(drawn, many.draw(7, 8, 9, np.arange(5))[:, :4])
    assert transform(mean_values=(1.0,)).draw(7, 8, 9, np.arange(5)).shape == (5, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            'mean_file: "m" mean_value: 1',
            "data: Cannot specify mean_file and mean_value at the same time; remove one",
        ),
        (
            "force_color: true force_gray: true",
            "data: cannot set both force_color and force_gray; remove one",
        ),
    ],
)
def test_settings_that_contradict(words: str, message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        _read(words, name="data")


@pytest.mark.parametrize(
    ("short_side", "message"),
    [
        ((223, 256), "short side: 223 is smaller than crop_size 224; expected at least the crop"),
        ((0, 0), "short side: a range of 0 to 0; expected 0 < Smin <= Smax"),
        ((512, 256), "short side: a range of 512 to 256; expected 0 < Smin <= Smax"),
    ],
)
def test_short_sides_that_cannot_be(short_side: tuple[int, int], message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        transform(crop_size=224, short_side=short_side)


def test_a_mean_image_and_mean_values() -> None:
    with pytest.raises(ProtoError, match="Cannot specify mean_file and mean_value at the same"):
        transform(mean_image=np.zeros((1, 2, 2), np.float32), mean_values=(1.0,))


def _into(spec: Transform, image: np.ndarray, shape: tuple[int, int, int]) -> None:
    spec.apply(image, NO_WORDS, np.empty(shape, np.float32), "record 3")


def test_images_that_do_not_fit() -> None:
    image = photograph(20, 30)
    with pytest.raises(
        ShapeError, match="record 3: an image of 20x30; expected at least crop_size"
    ):
        _into(transform(crop_size=24), image, (3, 24, 24))
    with pytest.raises(
        ShapeError, match="record 3: an image of 20x30; expected 20x20 as in the fi"
    ):
        _into(transform(), image, (3, 20, 20))
    with pytest.raises(
        DataError, match=r"record 3: an image of 1 channels; expected 3 as .*force_c"
    ):
        _into(transform(crop_size=4), image[:, :, :1], (3, 4, 4))
    spec = transform(crop_size=4, mean_image=np.zeros((3, 20, 20), np.float32))
    with pytest.raises(
        ShapeError, match="record 3: an image of 3x20x30; expected the size of the m"
    ):
        _into(spec, image, (3, 4, 4))
    with pytest.raises(
        ProtoError, match="Specify either 1 mean_value or as many as channels: 3; g"
    ):
        _into(transform(crop_size=4, mean_values=(1.0, 2.0)), image, (3, 4, 4))
    with pytest.raises(DataError, match="record 3: a colour shift on 1 channels; expected 3"):
        _into(transform(colour=ColourShift(PCA)), image[:, :, :1], (1, 20, 30))
    with pytest.raises(
        ProtoError, match="rescaled by their short side but not cropped, so they di"
    ):
        transform(short_side=(8, 8)).output_shape(20, 30, 3)
