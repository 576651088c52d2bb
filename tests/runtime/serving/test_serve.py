"""The server: answers, limits, and requests that it must survive."""

from __future__ import annotations

import importlib.util
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from runtime.cli.main import main
from runtime.serving.page import PAGE
from tests.runtime.bundle.bundles import LABELS, small_bundle
from tests.runtime.inference.test_images import picture, png
from tests.runtime.inference.test_model import DENSE, write
from tests.runtime.serving.server import Client, served

HAS_SERVE = all(importlib.util.find_spec(name) is not None for name in ("fastapi", "uvicorn"))
needs_serve = pytest.mark.skipif(not HAS_SERVE, reason="fastapi is not installed: extra [serve]")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return small_bundle(folder).write(folder / "b.verydeep")


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[Client]:
    with served("--model", str(bundle), "--most-bytes", "200000", "--most-pixels", "9000") as made:
        yield made


def chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def png_header(height: int, width: int, *chunks: bytes) -> bytes:
    """A PNG file that claims a size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@needs_serve
def test_an_answer_has_the_classes_of_the_model(client: Client, bundle: Path) -> None:
    with runtime.load(bundle) as model:
        want = model.predict([picture(3)])["prob"][0]
    status, answer = client.predict(png(picture(3)), "/predict?top=3")
    assert status == 200
    assert answer["model"] == "small"
    order = np.argsort(-want)[:3]
    got = answer["predictions"]
    assert [item["class"] for item in got] == order.tolist()
    assert [item["label"] for item in got] == [LABELS[index] for index in order]
    np.testing.assert_allclose([item["probability"] for item in got], want[order], rtol=1e-5)
    assert len(client.predict(png(picture(3)))[1]["predictions"]) == 5
    assert client.predict(png(picture(3)), "/predict?top=999")[0] == 200


@needs_serve
def test_health_page_and_metrics(client: Client) -> None:
    status, text = client.request("GET", "/health")
    assert status == 200
    assert '"classes":5' in text
    assert client.request("GET", "/") == (200, PAGE)
    assert client.predict(b"")[0] == 400
    status, text = client.request("GET", "/metrics")
    assert 'verydeep_requests_total{status="400"}' in text
    assert client.request("GET", "/absent")[0] == 404
    assert client.request("GET", "/predict")[0] == 405


BAD = {
    "no bytes": (b"", {}, 400, "has no content"),
    "gif": (b"GIF89a" + bytes(20), {}, 400, "does not decode"),
    "text": (b"hello", {}, 400, "does not decode"),
    "cut": (png(picture(1))[:300], {}, 400, "does not decode"),
    "a gigapixel": (png_header(30000, 30000), {}, 400, "30000x30000"),
    "pixels": (png_header(100, 100, chunk(b"IDAT", zlib.compress(bytes(30100)))), {}, 413, "9000"),
    "bytes": (bytes(200001), {}, 413, "expected at most 200000"),
    "json": (b"{}", {"Content_Type": "application/json"}, 415, "content type"),
    "form": (b"x", {"Content_Type": "multipart/form-data; boundary=x"}, 415, "content type"),
    "gzip": (png(picture(1)), {"Content_Encoding": "gzip"}, 415, "a compressed body"),
    # 100 MB of zeros in a hundred thousand bytes.
    "zip bomb": (png_header(90, 90, chunk(b"IDAT", zlib.compress(bytes(100 << 20)))), {}, 0, ""),
    "text bomb": (
        png_header(20, 20, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20)))),
        {},
        400,
        "does not decode",
    ),
}


@needs_serve
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_an_answer_and_the_server_stays(client: Client, name: str) -> None:
    body, headers, code, message = BAD[name]
    status, answer = client.predict(body, **headers)
    if code:
        assert status == code
        assert message in answer["error"]
    assert client.predict(png(picture(3)))[0] == 200


@needs_serve
@pytest.mark.parametrize("top", ["0", "-1", "x", "1e3", "9" * 5000, ""])
def test_a_wrong_number_of_classes(client: Client, top: str) -> None:
    status, answer = client.predict(png(picture(3)), f"/predict?top={top}")
    assert (status, "top: expected a whole number" in answer["error"]) == (400, True)


def sent(client: Client, head: str, parts: int, size: int) -> bytes:
    """Send a head and then parts until the server closes; returns the beginning of its answer."""
    with socket.create_connection((client.host, client.port), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        part = b"%x\r\n%b\r\n" % (size, bytes(size)) if "chunked" in head else bytes(size)
        try:
            for _ in range(parts):
                connection.sendall(part)
        except OSError:
            pass  # The server has closed the connection.
        try:
            return connection.recv(100)
        except OSError:
            return b""


@needs_serve
def test_a_gigabyte_is_refused_before_it_is_read(client: Client) -> None:
    head = f"POST /predict HTTP/1.1\nHost: x\nContent-Length: {1 << 30}\n\n"
    assert b" 413 " in sent(client, head, 0, 0)
    head = "POST /predict HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
    # The server may close before the client has read the answer.
    assert sent(client, head, 1024, 1 << 20)[9:12] in (b"413", b"")
    for wrong in ("-1", "x", "9" * 30):
        head = f"POST /predict HTTP/1.1\nHost: x\nContent-Length: {wrong}\n\n"
        assert b" 200 " not in sent(client, head, 0, 0)
    # A client that goes away in the middle of its body.
    with socket.create_connection((client.host, client.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab")
    assert client.predict(png(picture(3)))[0] == 200


@needs_serve
def test_concurrent_requests_get_their_own_answers(client: Client, bundle: Path) -> None:
    pictures = [picture(seed) for seed in range(10)]
    with runtime.load(bundle) as model:
        want = model.predict(pictures)["prob"]

    def ask(number: int) -> bool:
        status, answer = client.predict(png(pictures[number % 10]))
        best = answer["predictions"][0]
        row = want[number % 10]
        return (
            status == 200
            and best["class"] == row.argmax()
            and bool(np.isclose(best["probability"], row.max(), rtol=1e-4))
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


@needs_serve
def test_a_full_queue_is_answered_with_503(bundle: Path) -> None:
    with served("--model", str(bundle), "--most-waiting", "1") as small:
        with socket.create_connection((small.host, small.port)) as connection:
            # One request whose body does not arrive fills the queue.
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            status = 200
            while status == 200:
                status, answer = small.predict(png(picture(3)))
        assert status == 503
        assert "requests are waiting" in answer["error"]
        while status == 503:
            status, _ = small.predict(png(picture(3)))
        assert status == 200


@needs_serve
def test_prototxt_and_weights_with_flags(tmp_path: Path) -> None:
    model, weights = write(tmp_path, DENSE)
    (tmp_path / "labels.txt").write_text("".join(f"class {number}\n" for number in range(8)))
    words = ("--model", str(model), "--weights", str(weights), "--mean-value", "100")
    with served(*words, "--labels", str(tmp_path / "labels.txt")) as plain:
        status, answer = plain.predict(bytes(cv2.imencode(".jpg", picture(2))[1]))
        assert status == 200
        assert answer["predictions"][0]["label"].startswith("class ")
        assert plain.process.poll() is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "b.verydeep", "--port", "70000"], "--port: expected 0 to 65535"),
        (["--model", "b.verydeep", "--port", "0", "--host", "256.1.1.1"], "cannot listen"),
        (["--model", "b.verydeep", "--batch", "0"], "--batch: expected at least 1"),
        (["--model", "b.verydeep", "--wait-ms", "nan"], "--wait-ms: expected 0 to 60000"),
        (["--model", "b.verydeep", "--labels", "two.txt"], "5 classes and 2 labels"),
        (["--model", "b.verydeep", "--channel-order", "gray"], "expected one input of images"),
        (["--model", "absent.verydeep"], "--weights: missing"),
    ],
)
@needs_serve
def test_what_cannot_be_served(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small_bundle(tmp_path).write("b.verydeep")
    Path("two.txt").write_text("a\nb\n")
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(HAS_SERVE, reason="fastapi is installed")
def test_without_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "b.verydeep"]) == 2
    assert "pip install 'verydeep[serve]'" in capsys.readouterr().err
