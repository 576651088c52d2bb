"""Measure a server under load: percentiles of the time per request, and those of a plain loop.

    python benchmarks/serving.py --requests 10000 --clients 8

A small net classifies 100 pictures of random pixels. Every answer is compared with that of a plain
loop of `predict` over the same pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

import runtime
from runtime.bundle.bundle import Bundle
from runtime.bundle.preprocessing import Preprocessing
from runtime.inference.model import Model
from runtime.weights.net_weights import save

_PICTURES = 100
_SIDE = 64
_FILLER = 'weight_filler { type: "msra" }'
_NET = f"""
name: "load test"
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: [8, 3, {_SIDE}, {_SIDE}] }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 {_FILLER} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param {{ kernel_size: 4 stride: 4 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param {{ num_output: 32 kernel_size: 3 pad: 1 {_FILLER} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "pool2" top: "fc"
  inner_product_param {{ num_output: 10 {_FILLER} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "fc" top: "prob" }}
"""


@dataclass
class Counts:
    """The results of all clients."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        bundle = _bundle(Path(name))
        pictures = _pictures()
        with runtime.load(bundle) as model:
            expected = model.predict(pictures)["prob"]
            loop = _plain_loop(model, pictures, args.requests)
        counts, wall = _load(bundle, pictures, expected, args.requests, args.clients)
    times = 1000 * np.sort(counts.seconds)
    result = {
        "requests": args.requests,
        "clients": args.clients,
        "errors": counts.errors,
        "wrong answers": counts.wrong,
        "p50 ms": round(float(np.percentile(times, 50)), 2),
        "p95 ms": round(float(np.percentile(times, 95)), 2),
        "images/s": round(args.requests / wall, 1),
        "images/s of a plain loop": round(loop, 1),
    }
    print(json.dumps(result, indent=2))
    return int(counts.errors + counts.wrong > 0)


def _bundle(folder: Path) -> Path:
    model, weights = folder / "deploy.prototxt", folder / "w.caffemodel"
    model.write_text(_NET)
    with runtime.load(model) as net:
        save(net, weights)
    preparation = Preprocessing((_SIDE, _SIDE), short_side=72, mean_value=(104.0, 117.0, 123.0))
    return Bundle(model, weights, preparation).write(folder / "load.verydeep")


def _pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_PICTURES, 8, 10, 3), np.uint8)
    enlarged = [cv2.resize(image, (160, 128), interpolation=cv2.INTER_CUBIC) for image in images]
    return [bytes(cv2.imencode(".jpg", image)[1]) for image in enlarged]


def _plain_loop(model: Model, pictures: Sequence[bytes], requests: int) -> float:
    """Images per second of `predict`, one image per call."""
    count = min(requests, 1000)
    start = time.perf_counter()
    for number in range(count):
        model.predict([pictures[number % len(pictures)]])
    return count / (time.perf_counter() - start)


def _load(
    bundle: Path, pictures: Sequence[bytes], expected: np.ndarray, requests: int, clients: int
) -> tuple[Counts, float]:
    command = [sys.executable, "-m", "runtime", "serve", "--model", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = urlsplit(server.stdout.readline().split()[-1])
            counts = Counts()
            threads = [
                threading.Thread(
                    target=_client,
                    args=(
                        address.netloc,
                        pictures,
                        expected,
                        range(first, requests, clients),
                        counts,
                    ),
                )
                for first in range(clients)
            ]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return counts, time.perf_counter() - start
        finally:
            server.terminate()


def _client(
    place: str, pictures: Sequence[bytes], expected: np.ndarray, numbers: range, counts: Counts
) -> None:
    with contextlib.closing(http.client.HTTPConnection(place, timeout=60)) as connection:
        for number in numbers:
            which = number % len(pictures)
            start = time.perf_counter()
            try:
                connection.request("POST", "/predict?top=10", pictures[which])
                answer = connection.getresponse()
                content = json.loads(answer.read())
                failed = answer.status != 200
            except (OSError, http.client.HTTPException, ValueError):
                failed = True
                connection.close()
            seconds = time.perf_counter() - start
            wrong = not failed and not _matches(content["predictions"], expected[which])
            with counts.lock:
                counts.seconds.append(seconds)
                counts.errors += failed
                counts.wrong += wrong


def _matches(predictions: Sequence[dict[str, float]], row: np.ndarray) -> bool:
    got = np.zeros_like(row)
    for prediction in predictions:
        got[int(prediction["class"])] = prediction["probability"]
    return bool(np.allclose(got, row, rtol=1e-4, atol=1e-6))


if __name__ == "__main__":
    sys.exit(main())
