"""Batches read ahead: the same for any workers, split and order of requests."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from data_prep import datum
from data_prep.prefetch import BatchReader
from data_prep.read_plan import MOST_PREFETCH, ReadPlan
from data_prep.sampler import make_sampler
from data_prep.transform import ColourShift, Transform
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.sidecar import ColourPca
from tests.data_prep.small_images import Records, photograph, record, transform

PCA = ColourPca((30.0, 20.0, 10.0), ((0.6, 0.8, 0.0), (0.0, 0.0, 1.0), (0.8, -0.6, 0.0)))
AUGMENTED = transform(
    train=True,
    crop_size=12,
    mirror=True,
    mean_values=(104.0, 117.0, 123.0),
    short_side=(12, 20),
    colour=ColourShift(PCA),
)


@pytest.fixture(scope="module")
def source() -> Records:
    return Records([record(photograph(16 + n % 3, 20, seed=n), n) for n in range(23)])


def _reader(source: Records, batch: int = 10, spec: Transform = AUGMENTED, **more: object):
    plan = ReadPlan(source, spec, batch, shuffle=True, seed=5, stream=77, **more)
    return BatchReader(plan)


@pytest.fixture(scope="module")
def straight(source: Records) -> tuple[np.ndarray, np.ndarray]:
    """Six iterations of 10, made by the caller's own thread."""
    with _reader(source, workers=0) as reader:
        batches = [reader.read(iteration, 0, 10) for iteration in range(6)]
    return np.stack([b.data for b in batches]), np.stack([b.labels for b in batches])


def test_records_come_in_the_sampler_s_order(
    source: Records, straight: tuple[np.ndarray, np.ndarray]
) -> None:
    sampler = make_sampler(23, shuffle=True, seed=5)
    assert straight[1].ravel().tolist() == [sampler.record_at(p) for p in range(60)]
    assert straight[0].shape == (6, 10, 3, 12, 12)
    assert np.isfinite(straight[0]).all()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_workers_change_nothing(
    source: Records, straight: tuple[np.ndarray, np.ndarray], workers: int, prefetch: int
) -> None:
    with _reader(source, workers=workers, prefetch=prefetch) as reader:
        for iteration in range(6):
            batch = reader.read(iteration, 0, 10)
            np.testing.assert_array_equal(batch.data, straight[0][iteration])
            np.testing.assert_array_equal(batch.labels, straight[1][iteration])
        assert reader.count == 60
        assert reader.wait_seconds > 0


@pytest.mark.parametrize("pieces", [(10,), (5, 5), (3, 3, 4), (1,) * 10])
def test_a_batch_in_pieces_is_the_batch(
    source: Records, straight: tuple[np.ndarray, np.ndarray], pieces: tuple[int, ...]
) -> None:
    with _reader(source, workers=2) as reader:
        for iteration in range(3):
            first = 0
            for count in pieces:
                data = reader.read(iteration, first, count).data
                np.testing.assert_array_equal(data, straight[0][iteration, first : first + count])
                first += count


def test_replicas_with_windows_see_their_parts(
    source: Records, straight: tuple[np.ndarray, np.ndarray]
) -> None:
    for low, high in ((0, 5), (5, 10), (3, 7)):
        with _reader(source, workers=2, window=(low, high)) as reader:
            for iteration in range(4):
                data = reader.read(iteration, low, high - low).data
                np.testing.assert_array_equal(data, straight[0][iteration, low:high])


def test_passes_of_a_split_batch_draw_what_the_whole_batch_draws(
    source: Records, straight: tuple[np.ndarray, np.ndarray]
) -> None:
    with _reader(source, batch=5, workers=2) as reader:
        for number in range(8):
            data = reader.read(number, 0, 5).data
            start = 5 * (number % 2)
            np.testing.assert_array_equal(data, straight[0][number // 2, start : start + 5])


def test_jumps(source: Records, straight: tuple[np.ndarray, np.ndarray]) -> None:
    with _reader(source, workers=3, prefetch=2) as reader:
        for iteration, first, count in [(4, 0, 10), (0, 0, 10), (1, 2, 3), (1, 0, 10), (3, 0, 10),
                                        (3, 0, 10), (4, 0, 10), (2, 9, 1)]:  # fmt: skip
            batch = reader.read(iteration, first, count)
            expected = slice(first, first + count)
            np.testing.assert_array_equal(batch.data, straight[0][iteration, expected])
            np.testing.assert_array_equal(batch.labels, straight[1][iteration, expected])


@pytest.mark.parametrize("as_bytes", [False, True])
def test_every_record_is_decoded_once(source: Records, as_bytes: bool) -> None:
    """The first as well, whose size and kind are needed before."""
    asked: list[int] = []

    class Watched(Records):
        def get(self, index: int) -> bytes:
            asked.append(index)
            return super().get(index)

    watched = Watched(source.values)
    with BatchReader(ReadPlan(watched, AUGMENTED, 5, workers=0, as_bytes=as_bytes)) as reader:
        batches = [reader.read(number, 0, 5) for number in range(4)]
    assert asked == list(range(20))
    assert {batch.data.dtype for batch in batches} == {np.dtype("u1" if as_bytes else "f4")}
    with BatchReader(ReadPlan(source, AUGMENTED, 5, workers=0)) as reader:
        for number, batch in enumerate(batches):
            data = batch.data
            if batch.offsets is not None:
                data = (data - batch.offsets[:, :, None, None]) * np.float32(batch.scale)
            np.testing.assert_array_equal(data, reader.read(number, 0, 5).data)


@pytest.mark.parametrize("workers", [0, 2])
def test_recycled_arrays_are_used_again(
    source: Records, straight: tuple[np.ndarray, np.ndarray], workers: int
) -> None:
    arrays = set()
    with _reader(source, workers=workers, prefetch=1) as reader:
        for iteration in range(6):
            batch = reader.read(iteration, 0, 10)
            np.testing.assert_array_equal(batch.data, straight[0][iteration])
            arrays.add(batch.data.ctypes.data)
            batch.data.fill(np.nan)
            reader.recycle(batch)
    assert len(arrays) < 6 or not workers


def test_returned_arrays_belong_to_the_caller(
    source: Records, straight: tuple[np.ndarray, np.ndarray]
) -> None:
    with _reader(source, workers=2) as reader:
        kept = [reader.read(iteration, 0, 10).data for iteration in range(6)]
    np.testing.assert_array_equal(np.stack(kept), straight[0])


def test_work_is_done_ahead_of_the_consumer(source: Records) -> None:
    made = threading.Event()

    class Watched(Records):
        def get(self, index: int) -> bytes:
            if index == 7:
                made.set()
            return super().get(index)

    with BatchReader(
        ReadPlan(Watched(source.values), AUGMENTED, 2, workers=1, prefetch=4)
    ) as reader:
        reader.read(0, 0, 2)
        assert made.wait(timeout=30), "record 7 belongs to iteration 3, which was not requested yet"


def test_no_number_of_batches_ahead_takes_all_memory(source: Records) -> None:
    asked: list[int] = []
    enough = threading.Event()

    class Watched(Records):
        def get(self, index: int) -> bytes:
            asked.append(index)
            if len(asked) == MOST_PREFETCH:
                enough.set()
            return super().get(index)

    with BatchReader(
        ReadPlan(Watched(source.values), AUGMENTED, 1, workers=2, prefetch=2**32 - 1)
    ) as reader:
        reader.read(0, 0, 1)
        assert enough.wait(timeout=30)
    assert len(asked) <= MOST_PREFETCH + 8


def test_only_the_window_is_made_ahead(source: Records) -> None:
    asked: list[int] = []

    class Watched(Records):
        def get(self, index: int) -> bytes:
            asked.append(index)
            return super().get(index)

    watched = Watched(source.values)
    plan = ReadPlan(watched, AUGMENTED, 7, workers=1, window=(4, 6))
    with BatchReader(plan) as reader:
        asked.clear()
        for iteration in range(3):
            reader.read(iteration, 4, 2)
    parts = [(7 * iteration + index) % 23 for iteration in range(8) for index in (4, 5)]
    assert asked == parts[: len(asked)]


def _broken(source: Records, *places: int) -> Records:
    values = list(source.values)
    for place in places:
        values[place] = datum.from_encoded(b"\xff\xd8 not a jpeg", 0).SerializeToString()
    return Records(values)


def _sequential(source: Records, batch: int = 5, **more: object):
    return BatchReader(ReadPlan(source, AUGMENTED, batch, **more))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_bad_record_is_named_and_the_reader_continues(source: Records, workers: int) -> None:
    with _sequential(_broken(source, 7, 8), workers=workers) as reader:
        reader.read(0, 0, 5)
        with pytest.raises(DataError, match=r"record 00000007_image7.jpg: the image does not deco"):
            reader.read(1, 0, 5)
        assert reader.read(2, 0, 5).labels.tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("workers", [0, 3])
def test_bad_records_may_be_skipped(
    source: Records, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad = _broken(source, 0, 7, 8, 22)
    with (
        caplog.at_level(logging.WARNING, "verydeep.data"),
        _sequential(bad, workers=workers, on_error="skip") as reader,
    ):
        assert reader.read(0, 0, 5).labels.tolist() == [1, 1, 2, 3, 4]
        assert reader.read(1, 0, 5).labels.tolist() == [5, 6, 9, 9, 9]
        assert reader.read(4, 0, 5).labels.tolist() == [20, 21, 1, 1, 1]
    assert "skipped: record 00000007_image7.jpg: the image does not decode" in caplog.text


def test_bad_records_only() -> None:
    bad = Records([b"\xff\xff"] * 3)
    with pytest.raises(DataError, match=r"image0.jpg: neither it nor the 2 records after it can"):
        _sequential(bad, on_error="skip")
    with pytest.raises(DataError, match=r"00000000_image0.jpg: not a Datum message"):
        _sequential(bad)


def test_images_of_another_size(source: Records) -> None:
    values = [record(photograph(16, 20, n), n, encoded=False) for n in range(4)]
    values[2] = record(photograph(16, 21), 2, encoded=False)
    with BatchReader(ReadPlan(Records(values), Transform(), 4)) as reader:
        assert reader.shape == (3, 16, 20)
        with pytest.raises(ShapeError, match=r"image2.jpg: an image of 16x21; expected 16x20"):
            reader.read(0, 0, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_unforeseen_errors_reach_the_consumer_typed(source: Records, workers: int) -> None:
    class Failing(Records):
        def get(self, index: int) -> bytes:
            if index == 3:
                raise RuntimeError("the disk caught fire")
            return super().get(index)

    with (
        _sequential(Failing(source.values), workers=workers) as reader,
        pytest.raises(DataError, match=r"image 3 of iteration 0: RuntimeError\('the disk caught"),
    ):
        reader.read(0, 0, 5)


def test_asking_for_what_is_not_there(source: Records) -> None:
    with _sequential(source, workers=1) as reader:
        for first, count in ((0, 6), (3, 3), (-1, 2), (0, 0)):
            with pytest.raises(DataError, match=r"data: images .* of a batch of 5; expected a"):
                reader.read(0, first, count)
        for iteration in (-1, 2**63 // 5, 10**30):
            with pytest.raises(DataError, match=r"data: iteration .*; expected a position below"):
                reader.read(iteration, 0, 5)
    with pytest.raises(DataError, match="data: the reader was closed; open a new one"):
        reader.read(0, 0, 5)
    reader.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 0}, "data_param: batch_size 0; expected at least 1"),
        ({"on_error": "hope"}, "on_error: 'hope'; expected 'fatal' or 'skip'"),
        ({"window": (3, 3)}, "data: a window of 3 to 3; expected a part of 0 to 5"),
        ({"window": (0, 6)}, "data: a window of 0 to 6; expected a part of 0 to 5"),
    ],
)
def test_settings_that_cannot_be(source: Records, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ProtoError, match=words):
        _sequential(source, **settings)


def _data_threads() -> int:
    return sum(thread.name.startswith("data-") for thread in threading.enumerate())


def test_no_thread_outlives_its_reader(source: Records) -> None:
    before = _data_threads()
    reader = _sequential(source, workers=3)
    reader.read(0, 0, 5)
    assert _data_threads() == before + 3
    reader.close()
    assert _data_threads() == before
    dropped = _sequential(source, workers=3)
    dropped.read(0, 0, 5)
    del dropped
    assert _data_threads() == before


def test_closing_releases_a_waiting_consumer(source: Records) -> None:
    release = threading.Event()
    asked = threading.Event()

    class Slow(Records):
        def get(self, index: int) -> bytes:
            if index == 2:
                asked.set()
                release.wait(30)
            return super().get(index)

    reader = _sequential(Slow(source.values), workers=1)
    answers: list[str] = []

    def consume() -> None:
        try:
            reader.read(0, 0, 5)
        except DataError as error:
            answers.append(str(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert asked.wait(30)
    closer = threading.Thread(target=reader.close)
    closer.start()
    consumer.join(30)
    release.set()
    closer.join(30)
    assert answers == ["data: the reader was closed; open a new one"]
