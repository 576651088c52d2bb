"""Images into a database: what is stored, under which key, and what stops it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep import datum
from data_prep.convert_imageset import ConvertOptions, convert, read_list
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen.errors import DataError
from tests.data_prep.image_samples import accepted
from tests.data_prep.small_images import jpeg, photograph

SIZES = [(40, 60), (60, 40), (50, 50), (33, 90), (48, 48)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (height, width) in enumerate(SIZES):
        (folder / f"{number}.JPEG").write_bytes(jpeg(photograph(height, width, number)))
    return folder


ENTRIES = [(f"{number}.JPEG", 10 + number) for number in range(5)]


def _records(path: Path) -> dict[str, tuple[np.ndarray, int, bytes]]:
    with Reader(path) as reader:
        parsed = {key.decode(): datum.parse(value, "r") for key, value in reader}
    return {key: (datum.to_array(d), d.label, d.data) for key, d in parsed.items()}


def _decoded(path: Path) -> np.ndarray:
    return cv2.imread(str(path)).transpose(2, 0, 1)


def test_raw_records_and_their_keys(root: Path, tmp_path: Path) -> None:
    result = convert(root, ENTRIES, tmp_path / "db")
    assert (result.records, result.resumed_at, result.skipped) == (5, 0, [])
    records = _records(tmp_path / "db")
    assert list(records) == [f"{number:08d}_{number}.JPEG" for number in range(5)]
    for number, (image, label, _) in enumerate(records.values()):
        np.testing.assert_array_equal(image, _decoded(root / f"{number}.JPEG"))
        assert label == 10 + number


def test_jpeg_bytes_stay_as_they_are(root: Path, tmp_path: Path) -> None:
    convert(root, ENTRIES, tmp_path / "db", ConvertOptions(encoded=True))
    for number, (_, _, data) in enumerate(_records(tmp_path / "db").values()):
        assert data == (root / f"{number}.JPEG").read_bytes()


def test_files_that_caffe_would_misread_are_encoded_again(root: Path, tmp_path: Path) -> None:
    (root / "gray.JPEG").write_bytes(jpeg(photograph(20, 20)[:, :, 0]))
    (root / "png.JPEG").write_bytes(datum.encode(photograph(20, 20), "png", 95, "x"))
    entries = [("gray.JPEG", 0), ("png.JPEG", 1)]
    convert(root, entries, tmp_path / "db", ConvertOptions(encoded=True))
    for image, _, data in _records(tmp_path / "db").values():
        assert image.shape == (3, 20, 20)
        assert data[:2] == b"\xff\xd8"
    convert(root, entries, tmp_path / "gray", ConvertOptions(encoded=True, gray=True))
    stored = _records(tmp_path / "gray")
    assert all(image.shape == (1, 20, 20) for image, _, _ in stored.values())
    assert stored["00000000_gray.JPEG"][2] == (root / "gray.JPEG").read_bytes()


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("encode_type", ["", *sorted(datum.ENCODINGS)])
def test_records_that_original_caffe_and_the_readers_decode(
    tmp_path: Path, encode_type: str, gray: bool
) -> None:
    """Caffe decodes unchanged: 16 bits end its training, transparency is a fourth channel."""
    samples = accepted()
    for name, (content, _) in samples.items():
        (tmp_path / name).write_bytes(content)
    options = ConvertOptions(encoded=True, encode_type=encode_type, gray=gray, on_error="skip")
    entries = [(name, 0) for name in samples]
    if gray and encode_type == "webp":
        with pytest.raises(DataError, match=r"none of .* images could be used, .* as 'webp'"):
            convert(tmp_path, entries, tmp_path / "db", options)
        return
    result = convert(tmp_path, entries, tmp_path / "db", options)
    skipped = [name for name in samples if any(f"/{name}:" in text for text in result.skipped)]
    no_gray = {"color.webp", "alpha.webp"} if gray and not encode_type else set()
    assert set(skipped) == no_gray
    for _, (image, _, data) in _records(tmp_path / "db").items():
        as_caffe = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert as_caffe.dtype == np.uint8
        as_caffe = as_caffe if as_caffe.ndim == 3 else as_caffe[:, :, None]
        np.testing.assert_array_equal(image, as_caffe.transpose(2, 0, 1))
        assert image.shape[0] == (1 if gray else 3)


def test_files_named_otherwise_keep_their_format(root: Path, tmp_path: Path) -> None:
    plain = datum.encode(photograph(20, 20), "png", 95, "x")
    for name in ("none", "a.img", "b.gif", "c.tar.PNG"):
        (root / name).write_bytes(plain)
    entries = [(name, 0) for name in ("none", "a.img", "b.gif", "c.tar.PNG")]
    convert(root, entries, tmp_path / "db", ConvertOptions(encoded=True))
    assert [data for _, _, data in _records(tmp_path / "db").values()] == [plain] * 4


def test_images_that_become_too_large(root: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(root / "thin.png"), np.zeros((1, 60000), np.uint8))
    for options in ({"short_side": 3000}, {"resize_height": 20000, "resize_width": 20000}):
        database = tmp_path / "_".join(options)
        with pytest.raises(DataError, match=r"thin.png: a size of .*; expected at least 1x1 and"):
            convert(root, [("thin.png", 0)], database, ConvertOptions(**options))


def test_encode_type_implies_encoded(root: Path, tmp_path: Path) -> None:
    convert(root, ENTRIES, tmp_path / "db", ConvertOptions(encode_type="png"))
    for number, (image, _, data) in enumerate(_records(tmp_path / "db").values()):
        assert data[:4] == b"\x89PNG"
        np.testing.assert_array_equal(image, _decoded(root / f"{number}.JPEG"))


def test_quality_is_jpeg_s(root: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (30, 95):
        options = ConvertOptions(encoded=True, short_side=20, quality=quality)
        convert(root, ENTRIES, tmp_path / str(quality), options)
        sizes.append(sum(len(r[2]) for r in _records(tmp_path / str(quality)).values()))
    assert sizes[0] < 0.7 * sizes[1]


def test_resizing(root: Path, tmp_path: Path) -> None:
    def shapes(**options: int | bool) -> list[tuple[int, int]]:
        name = "_".join(f"{key}{value}" for key, value in options.items())
        convert(root, ENTRIES, tmp_path / name, ConvertOptions(**options))
        return [image.shape[1:] for image, _, _ in _records(tmp_path / name).values()]

    assert shapes(resize_height=20, resize_width=30) == [(20, 30)] * 5
    expected = [(48, 72), (72, 48), (48, 48), (48, 131), (48, 48)]
    assert shapes(short_side=48) == expected
    smaller = [(40, 60), (60, 40), (48, 48), (33, 90), (48, 48)]
    assert shapes(short_side=48, shrink_only=True) == smaller
    shapes(short_side=48, encoded=True)
    same = _records(tmp_path / "short_side48_encodedTrue")["00000004_4.JPEG"][2]
    assert same == (root / "4.JPEG").read_bytes()


def test_threads_change_nothing(root: Path, tmp_path: Path) -> None:
    entries = ENTRIES * 40
    for jobs in (1, 5):
        options = ConvertOptions(encoded=True, short_side=30, jobs=jobs, shuffle=True, seed=3)
        convert(root, entries, tmp_path / str(jobs), options)
    with Reader(tmp_path / "1") as one, Reader(tmp_path / "5") as five:
        assert len(one) == 200
        assert list(one) == list(five)


def test_shuffling_keeps_every_image(root: Path, tmp_path: Path) -> None:
    entries = [(f"{number % 5}.JPEG", number) for number in range(50)]
    convert(root, entries, tmp_path / "db", ConvertOptions(shuffle=True, seed=1))
    records = _records(tmp_path / "db")
    labels = [label for _, label, _ in records.values()]
    assert sorted(labels) == list(range(50))
    assert labels != sorted(labels)
    assert [int(key[:8]) for key in records] == list(range(50))
    assert all(int(key[9]) == label % 5 for key, (_, label, _) in records.items())


def test_progress_is_reported(root: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    convert(root, ENTRIES, tmp_path / "db", progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_a_corrupt_image_is_fatal_or_skipped(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (root / "2.JPEG").read_bytes()
    (root / "2.JPEG").write_bytes(whole[: len(whole) // 2])
    entries = [*ENTRIES, ("absent.JPEG", 0)]
    words = r"2.JPEG: the image does not decode .*continue with --resume, and with --on_error skip"
    with pytest.raises(DataError, match=words):
        convert(root, entries, tmp_path / "fatal")
    with caplog.at_level(logging.WARNING, "verydeep.data"):
        result = convert(root, entries, tmp_path / "db", ConvertOptions(on_error="skip"))
    assert result.records == 4
    assert "2.JPEG: the image does not decode" in result.skipped[0]
    assert "absent.JPEG: cannot be read: No such file" in result.skipped[1]
    assert "skipped: " in caplog.text
    assert [key[:8] for key in _records(tmp_path / "db")] == [
        "00000000", "00000001", "00000003", "00000004",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"none of 1 images could be used, first: .*absent.JPEG"):
        convert(root, entries[-1:], tmp_path / "none", ConvertOptions(on_error="skip"))


def test_an_interrupted_conversion_is_continued(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = ENTRIES * 30
    options = ConvertOptions(shuffle=True, seed=9, encoded=True)
    convert(root, entries, tmp_path / "straight", options)
    monkeypatch.setattr(Writer.__init__, "__defaults__", (False, 1 << 20, 20))

    def interrupt(done: int, total: int) -> None:
        if done == 71:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(root, entries, tmp_path / "db", options, interrupt)
    resumed = ConvertOptions(shuffle=True, seed=9, encoded=True, resume=True)
    result = convert(root, entries, tmp_path / "db", resumed)
    assert (result.resumed_at, result.records) == (60, 150)
    with Reader(tmp_path / "straight") as one, Reader(tmp_path / "db") as other:
        assert list(one) == list(other)
    again = convert(root, entries, tmp_path / "db", resumed)
    assert (again.resumed_at, again.records) == (150, 150)


def test_going_on_needs_the_same_list(root: Path, tmp_path: Path) -> None:
    convert(root, ENTRIES, tmp_path / "db")
    resume = ConvertOptions(resume=True)
    words = r"its last record is '00000004_4.JPEG', which this list does not have at that place"
    for entries in (ENTRIES[:4], [*ENTRIES[:4], ("other.JPEG", 0)]):
        with pytest.raises(DataError, match=words):
            convert(root, entries, tmp_path / "db", resume)
    with pytest.raises(DataError, match="exists already; expected a new folder"):
        convert(root, ENTRIES, tmp_path / "db")


def test_names_that_are_not_utf_8_keep_their_bytes(root: Path, tmp_path: Path) -> None:
    name = b"caf\xe9.JPEG".decode(errors="surrogateescape")
    (root / name).write_bytes((root / "0.JPEG").read_bytes())
    convert(root, [(name, 1)], tmp_path / "db")
    with Reader(tmp_path / "db") as reader:
        assert reader.key_bytes(0) == b"00000000_caf\xe9.JPEG"
        assert reader.key(0) == "00000000_caf\ufffd.JPEG"
    result = convert(root, [(name, 1), ENTRIES[0]], tmp_path / "db", ConvertOptions(resume=True))
    assert (result.resumed_at, result.records) == (1, 2)


def test_check_size(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"an image of \(60, 40, 3\) .*; expected \(40, 60, 3\) as "
    ):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(check_size=True))
    options = ConvertOptions(check_size=True, resize_height=9, resize_width=9)
    assert convert(root, ENTRIES, tmp_path / "same", options).records == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize_height": 5}, "expected both, or neither"),
        ({"short_side": -1}, "expected both, or neither"),
        ({"resize_height": 5, "resize_width": 5, "short_side": 5}, "expected one of the two ways"),
        ({"on_error": "x"}, "on_error 'x'; expected 'fatal' or 'skip'"),
        ({"quality": 0}, "quality 0; expected 1 to 100"),
        ({"encode_type": "gif"}, "encode_type 'gif'; expected one of bmp, dib, jpe, jpeg, jpg"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ConvertOptions(**options)


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a b/c d.jpg 3\n\nx.jpg -1\r\n")
    assert read_list(path) == [("a b/c d.jpg", 3), ("x.jpg", -1)]
    for text in ("x.jpg\n", "x.jpg one\n", "x.jpg 1.5\n", "x.jpg 2147483648\n", " 3\n"):
        path.write_text("ok.jpg 0\n" + text)
        with pytest.raises(
            DataError, match=r"list.txt:2: .*; expected a file name, a space and an"
        ):
            read_list(path)
    path.write_text("")
    with pytest.raises(DataError, match=r"list.txt: the list is empty; expected"):
        read_list(path)
    with pytest.raises(DataError, match=r"absent.txt: cannot be read: No such file"):
        read_list(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="no images to convert; expected a list of at least one"):
        convert(tmp_path, [], tmp_path / "db")


def test_names_keep_their_bytes_in_keys(root: Path, tmp_path: Path) -> None:
    """A list that was read, and one that a resumed run reads again."""
    names = [b"caf\xe9 1.JPEG", "\u00fcn\u00ef.JPEG".encode(), b"tab\t.JPEG"]
    for number, name in enumerate(names):
        (root / f"{number}.JPEG").rename(root / os.fsdecode(name))
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + b" 0\r\n".join([*names, b""]))
    entries = read_list(tmp_path / "list.txt")
    convert(root, entries[:2], tmp_path / "db")
    result = convert(root, entries, tmp_path / "db", ConvertOptions(resume=True))
    assert (result.records, result.resumed_at) == (3, 2)
    with Reader(tmp_path / "db") as reader:
        assert [reader.key_bytes(i) for i in range(len(reader))] == [
            b"%08d_%s" % item for item in enumerate(names)
        ]


def test_special_files_in_a_list(root: Path, tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(root / "pipe.JPEG")
    for number, name in enumerate(["pipe.JPEG", "/dev/zero", "../images"]):
        with pytest.raises(DataError, match=f"{name}: cannot be read: .*regular file"):
            convert(root, [(name, 0)], tmp_path / f"db{number}")
    skip = ConvertOptions(on_error="skip")
    result = convert(root, [("pipe.JPEG", 0), *ENTRIES], tmp_path / "db", skip)
    assert (result.records, len(result.skipped)) == (5, 1)


def test_lists_may_be_confined(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.JPEG"
    outside.write_bytes((root / "0.JPEG").read_bytes())
    (root / "link.JPEG").symlink_to(outside)
    confined = ConvertOptions(confine=True, on_error="skip")
    for number, name in enumerate([str(outside), "../outside.JPEG", "link.JPEG"]):
        assert convert(root, [(name, 0)], tmp_path / f"db{number}").records == 1
        with pytest.raises(
            DataError, match=r"it lies outside of its root folder; .*--confine-list"
        ):
            convert(root, [*ENTRIES, (name, 0)], tmp_path / "none", confined)
        assert not (tmp_path / "none").exists()
    assert convert(root, ENTRIES, tmp_path / "db", confined).records == 5


@pytest.mark.parametrize("label", ["9" * 100_000, "\u0665", "1_0", "2147483648", "-2147483649", ""])
def test_labels_that_are_no_integers_of_32_bits(label: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg 1\nb.jpg {label}\n")
    with pytest.raises(DataError, match=r"list\.txt:2: ") as caught:
        read_list(tmp_path / "list.txt")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["a\0b.jpg", "n" * 300])
def test_names_that_no_file_can_have(name: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: "):
        convert(root, [(name, 0)], tmp_path / "db")


FIRST = {"short_side": 30, "encoded": True, "shuffle": True, "seed": 3}


def interrupt_after(count: int, root: Path, database: Path, options: dict[str, Any]) -> None:
    """Convert until `count` images are done."""

    def interrupt(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer.__init__, "__defaults__", (False, 1 << 20, 2))
        with pytest.raises(KeyboardInterrupt):
            convert(root, ENTRIES, database, ConvertOptions(**options), interrupt)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"short_side": 31}, "--short_side was 30, now 31"),
        ({"short_side": 0, "resize_height": 8, "resize_width": 9}, "--resize_height was 0, now 8"),
        ({"gray": True}, "--gray was False, now True"),
        ({"encoded": False}, "--encoded was True, now False"),
        ({"encode_type": "png"}, "--encode_type was not set, now png"),
        ({"quality": 90}, "--quality was 95, now 90"),
        ({"shrink_only": True}, "--shrink_only was False, now True"),
        ({"check_size": True}, "--check_size was False, now True"),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_going_on_needs_the_same_options(
    root: Path, tmp_path: Path, change: dict[str, Any], words: str, count: int
) -> None:
    interrupt_after(count, root, tmp_path / "db", FIRST)
    with pytest.raises(DataError, match=f"db: was begun with other options: .*{words}.*--resume"):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(**{**FIRST, **change}, resume=True))
    convert(root, ENTRIES, tmp_path / "straight", ConvertOptions(**FIRST))
    result = convert(
        root,
        ENTRIES,
        tmp_path / "db",
        ConvertOptions(**FIRST, resume=True, jobs=3, on_error="skip"),
    )
    assert result.records == 5
    with Reader(tmp_path / "straight") as one, Reader(tmp_path / "db") as other:
        assert list(one) == list(other)


def test_going_on_needs_the_same_list_and_root(root: Path, tmp_path: Path) -> None:
    interrupt_after(4, root, tmp_path / "db", {})
    (tmp_path / "link").symlink_to(root)
    other = [*ENTRIES[:4], ("4.JPEG", 99)]
    for folder, entries, words in (
        (root, other, r"list was [0-9a-f]{12}\.\.\. .*, now [0-9a-f]{12}\.\.\. "),
        (root, ENTRIES[:4], "the number of images was 5, now 4"),
        (root, [(n, 1) for n, _ in ENTRIES], "list was"),
        (tmp_path, [(f"images/{n}", label) for n, label in ENTRIES], "that place"),
    ):
        with pytest.raises(DataError, match=words):
            convert(folder, entries, tmp_path / "db", ConvertOptions(resume=True))
    (tmp_path / "copy").mkdir()
    for name, _ in ENTRIES:
        (tmp_path / "copy" / name).write_bytes((root / name).read_bytes())
    with pytest.raises(DataError, match=r"the root folder was .*images, now .*copy"):
        convert(tmp_path / "copy", ENTRIES, tmp_path / "db", ConvertOptions(resume=True))
    longer = [*ENTRIES, ("0.JPEG", 0)]
    result = convert(tmp_path / "link", longer, tmp_path / "db", ConvertOptions(resume=True))
    assert (result.records, result.resumed_at) == (6, 4)


def test_a_complete_database_does_not_need_its_root(root: Path, tmp_path: Path) -> None:
    convert(root, ENTRIES, tmp_path / "db")
    result = convert(tmp_path, ENTRIES, tmp_path / "db", ConvertOptions(resume=True))
    assert result.resumed_at == 5
    with pytest.raises(DataError, match="--gray was False, now True"):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(gray=True, resume=True))


def test_a_shuffled_list_cannot_grow(root: Path, tmp_path: Path) -> None:
    interrupt_after(1, root, tmp_path / "db", {"shuffle": True})
    resume = ConvertOptions(shuffle=True, resume=True)
    with pytest.raises(DataError, match="the number of images was 5, now 6"):
        convert(root, [*ENTRIES, ("0.JPEG", 0)], tmp_path / "db", resume)
    with pytest.raises(DataError, match="--seed was 0, now 1"):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(shuffle=True, seed=1, resume=True))
    with pytest.raises(DataError, match="--shuffle was True, now False"):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(resume=True))


def test_sizes_are_checked_across_an_interruption(root: Path, tmp_path: Path) -> None:
    options = {"check_size": True}
    (root / "1.JPEG").write_bytes((root / "0.JPEG").read_bytes())
    interrupt_after(2, root, tmp_path / "db", options)
    with pytest.raises(DataError, match=r"an image of \(50, 50, 3\) .*; expected \(40, 60, 3\)"):
        convert(root, ENTRIES, tmp_path / "db", ConvertOptions(**options, resume=True))


def test_a_database_without_a_record_is_continued_with_a_warning(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert(root, ENTRIES[:2], tmp_path / "db")
    (tmp_path / "db" / "verydeep.json").unlink()
    assert convert(root, ENTRIES, tmp_path / "db", ConvertOptions(resume=True)).records == 5
    assert "has no record of the options that it was begun with" in caplog.text


def test_an_interrupted_database_is_not_read(root: Path, tmp_path: Path) -> None:
    for count in (1, 4):
        interrupt_after(count, root, tmp_path / f"db{count}", {})
        with pytest.raises(DataError, match=r"incomplete: .*convert_imageset --resume, or delete"):
            Reader(tmp_path / f"db{count}")
    with Reader(tmp_path / "db4", incomplete=True) as reader:
        assert len(reader) == 4
    (tmp_path / "db4" / "verydeep.json").unlink()
    with Reader(tmp_path / "db4") as reader:
        assert len(reader) == 4


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"complete": false}', "\xff"])
def test_other_files_of_the_name_mean_nothing(root: Path, tmp_path: Path, content: str) -> None:
    convert(root, ENTRIES, tmp_path / "db")
    (tmp_path / "db" / "verydeep.json").write_text(content)
    with Reader(tmp_path / "db") as reader:
        assert len(reader) == 5
