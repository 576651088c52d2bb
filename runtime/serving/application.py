"""The web application: predictions of posted images, a page, health and metrics."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from prototxt_gen.errors import DataError, ShapeError, UnsupportedError, VerydeepError
from prototxt_gen.reading import parse_integer
from runtime.serving.classifier import ImageClassifier, Limits, TooLargeError
from runtime.serving.metrics import Metrics
from runtime.serving.page import PAGE, PAGE_HEADERS

_MOST_CLASSES = 5
_RETRY_SECONDS = 1
_DECODERS = 4
"""How many images are decoded at the same time."""


class RequestError(VerydeepError):
    """A request that is refused, with the status of HTTP."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def import_fastapi() -> Any:
    """Import the package fastapi.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import fastapi
        import uvicorn  # noqa: F401  the other part of the extra
    except ImportError as cause:
        raise UnsupportedError(
            "serving: the packages fastapi and uvicorn are missing; expected the extra [serve]; "
            "install it with `pip install 'verydeep[serve]'`"
        ) from cause
    return fastapi


def application(classifier: ImageClassifier, name: str) -> Any:
    """The application of a classifier; `name` is that of the model in answers.

    Raises:
        UnsupportedError: fastapi or uvicorn is not installed.
    """
    fastapi = import_fastapi()
    service = _Service(classifier, name, fastapi.responses)
    app = fastapi.FastAPI(title="verydeep", docs_url=None, redoc_url=None)
    app.add_route("/", service.page, methods=["GET"])
    app.add_route("/health", service.health, methods=["GET"])
    app.add_route("/metrics", service.metrics_text, methods=["GET"])
    app.add_route("/predict", service.predict, methods=["POST"])
    return app


class _Service:
    """The handlers of the requests."""

    def __init__(self, classifier: ImageClassifier, name: str, responses: Any) -> None:
        self.classifier, self.name, self.responses = classifier, name, responses
        self.metrics = Metrics()
        self.waiting = 0
        self.decoders = asyncio.Semaphore(_DECODERS)

    async def page(self, request: Any) -> Any:
        return self.responses.HTMLResponse(PAGE, headers=PAGE_HEADERS)

    async def health(self, request: Any) -> Any:
        limits = self.classifier.limits
        return self.responses.JSONResponse(
            {
                "status": "ok",
                "model": self.name,
                "classes": len(self.classifier.labels),
                "most_bytes": limits.most_bytes,
                "most_pixels": limits.most_pixels,
            }
        )

    async def metrics_text(self, request: Any) -> Any:
        text = self.metrics.text(self.waiting, self.classifier.batcher.sizes)
        return self.responses.PlainTextResponse(text)

    async def predict(self, request: Any) -> Any:
        """Answer with the best classes of the image in the body, or with an error."""
        start = time.perf_counter()
        code, headers = 200, {}
        try:
            content = await self._predictions(request)
        except VerydeepError as error:
            code, content = _code_of(error), {"error": str(error)}
            # The rest of a body that was not read cannot be skipped.
            headers = {"Connection": "close"} if code in (408, 413, 415, 503) else {}
            if code == 503:
                headers["Retry-After"] = str(_RETRY_SECONDS)
        self.metrics.add(code, time.perf_counter() - start)
        return self.responses.JSONResponse(content, code, headers)

    async def _predictions(self, request: Any) -> dict[str, Any]:
        count = _count_of(request.query_params.get("top", str(_MOST_CLASSES)))
        if self.waiting >= self.classifier.limits.most_waiting:
            raise RequestError(
                f"{self.waiting} requests are waiting; expected fewer; try again later", 503
            )
        self.waiting += 1
        try:
            data = await _body(request, self.classifier.limits)
            async with self.decoders:
                future = await asyncio.to_thread(self.classifier.submit, data)
            row = await asyncio.wrap_future(future)
        finally:
            self.waiting -= 1
        predictions = self.classifier.best(row, count)
        if not all(math.isfinite(prediction["probability"]) for prediction in predictions):
            raise RequestError(
                "the net's probabilities are not finite; expected numbers; check the weights", 500
            )
        return {"model": self.name, "predictions": predictions}


def _code_of(error: VerydeepError) -> int:
    """The status of HTTP for an error."""
    if isinstance(error, RequestError):
        return error.code
    if isinstance(error, TooLargeError):
        return 413
    return 400 if isinstance(error, DataError | ShapeError) else 500


def _count_of(text: str) -> int:
    count = parse_integer(text) if len(text) < 10 else None
    if count is None or count < 1:
        raise RequestError(f"top: expected a whole number above 0, got {text!r}; correct it", 400)
    return count


async def _body(request: Any, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        RequestError: it has another form, or does not arrive in time.
        TooLargeError: it is larger than the limit; the rest is not read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in _RAW_TYPES:
        raise RequestError(
            f"content type {kind!r}; expected image/* or application/octet-stream, with the bytes "
            "of the file as the body (curl --data-binary @image.jpg)",
            415,
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("a compressed body; expected the bytes of the image file", 415)
    length = parse_integer(request.headers.get("content-length", "0")[:20])
    try:
        return await asyncio.wait_for(_read(request, length or 0, limits), limits.body_seconds)
    except asyncio.TimeoutError as cause:
        raise RequestError(
            f"the body did not arrive in {limits.body_seconds:g} s; expected all of it; send it "
            "again",
            408,
        ) from cause


# curl --data-binary sends the last one by default.
_RAW_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")


async def _read(request: Any, length: int, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = length
    if length <= limits.most_bytes:
        size = 0
        while True:
            message = await request.receive()
            if message["type"] != "http.request":
                raise RequestError("the connection was closed; expected the whole body", 400)
            part = message.get("body", b"")
            size += len(part)
            if size > limits.most_bytes:
                break
            parts.append(part)
            if not message.get("more_body", False):
                break
    if size > limits.most_bytes:
        raise TooLargeError(
            f"the body has {size} bytes or more; expected at most {limits.most_bytes}; send a "
            "smaller file"
        )
    return b"".join(parts)
