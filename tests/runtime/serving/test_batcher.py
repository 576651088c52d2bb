"""Batches of requests, and the text of metrics."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError, ShapeError
from runtime.serving.batcher import Batcher
from runtime.serving.metrics import Metrics


def test_every_request_gets_its_own_row() -> None:
    sizes = []

    def predict(arrays: np.ndarray) -> np.ndarray:
        sizes.append(len(arrays))
        return 2 * arrays

    batcher = Batcher(predict, 4, 0.01)
    with ThreadPoolExecutor(8) as pool:
        inputs = [np.full((1, 2, 2), number, np.float32) for number in range(50)]
        futures = [*pool.map(batcher.submit, inputs)]
    for array, future in zip(inputs, futures):
        np.testing.assert_array_equal(future.result(10), 2 * array)
    batcher.close()
    assert sum(sizes) == 50
    assert max(sizes) <= 4
    assert [sizes.count(size) for size in range(5)] == batcher.sizes


def test_waiting_requests_share_a_batch() -> None:
    going, started, sizes = threading.Event(), threading.Event(), []

    def predict(arrays: np.ndarray) -> np.ndarray:
        sizes.append(len(arrays))
        started.set()
        going.wait(10)
        return arrays

    batcher = Batcher(predict, 8, 0.0)
    futures = [batcher.submit(np.zeros(1, np.float32))]
    started.wait(10)
    futures += [batcher.submit(np.zeros(1, np.float32)) for _ in range(5)]
    futures[-1].cancel()
    going.set()
    for future in futures[:-1]:
        future.result(10)
    batcher.close()
    assert sizes == [1, 4]


def test_an_error_reaches_its_batch_alone() -> None:
    def predict(arrays: np.ndarray) -> np.ndarray:
        if arrays[0, 0] < 0:
            raise ShapeError("x: wrong")
        return arrays

    batcher = Batcher(predict, 1, 0.0)
    futures = [batcher.submit(np.array([value], np.float32)) for value in (1, -1, 2)]
    with pytest.raises(ShapeError, match="x: wrong"):
        futures[1].result(10)
    assert [future.result(10)[0] for future in (futures[0], futures[2])] == [1, 2]
    batcher.close()
    batcher.close()
    with pytest.raises(DeviceError, match="the net is closed"):
        batcher.submit(np.zeros(1, np.float32))


def test_the_text_of_metrics() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.004), (200, 0.3), (413, 99.0)):
        metrics.add(status, seconds)
    lines = metrics.text(3, [0, 5, 0, 2]).splitlines()
    assert 'verydeep_requests_total{status="200"} 2' in lines
    assert 'verydeep_request_seconds_bucket{le="0.005"} 1' in lines
    assert 'verydeep_request_seconds_bucket{le="0.5"} 2' in lines
    assert 'verydeep_request_seconds_bucket{le="+Inf"} 3' in lines
    assert "verydeep_request_seconds_count 3" in lines
    assert "verydeep_requests_waiting 3" in lines
    assert [line for line in lines if line.startswith("verydeep_batches_total")] == [
        'verydeep_batches_total{size="1"} 5',
        'verydeep_batches_total{size="3"} 2',
    ]
