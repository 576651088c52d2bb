"""Answer HTTP requests with the classes of images."""

from __future__ import annotations

import argparse
import logging
import socket
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DeviceError, UsageError
from runtime.cli.devices import DEVICES
from runtime.cli.preparation_flags import (
    add_net_arguments,
    add_preparation_arguments,
    bundle_of,
    labels_of,
    preparation_of,
)
from runtime.inference.model import Model, load
from runtime.logs.glog import setup_logging
from runtime.serving.application import application, import_fastapi
from runtime.serving.classifier import ImageClassifier, Limits

NAME = "serve"
SUMMARY = "classify images over HTTP, with a page on which a picture can be dropped"
EXAMPLE = "verydeep serve --model flowers.verydeep --port 8000"

_DEFAULTS = Limits()
_LARGEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_net_arguments(parser)
    add_preparation_arguments(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=_DEFAULTS.batch,
        metavar="N",
        help="most images of one pass (default: %(default)s)",
    )
    parser.add_argument(
        "--wait-ms",
        type=float,
        default=1000 * _DEFAULTS.wait,
        metavar="MS",
        help="how long a batch waits for further requests (default: %(default)s)",
    )
    parser.add_argument(
        "--most-waiting",
        type=int,
        default=_DEFAULTS.most_waiting,
        metavar="N",
        help="requests in work; further ones get the status 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--most-bytes",
        type=int,
        default=_DEFAULTS.most_bytes,
        metavar="N",
        help="largest body of a request (default: %(default)s)",
    )
    parser.add_argument(
        "--most-pixels",
        type=int,
        default=_DEFAULTS.most_pixels,
        metavar="N",
        help="most pixels of an image (default: %(default)s)",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    import_fastapi()
    setup_logging(logging.WARNING)
    limits = _limits(args)
    bundle = bundle_of(args)
    model = load(args.model, args.weights, device=args.device, threads=args.threads)
    classifier: ImageClassifier | None = None
    try:
        classifier = _classifier(model, args, limits)
        name = (bundle.name if bundle is not None else "") or model.name or Path(args.model).stem
        with _listening(args.host, args.port) as listener:
            _serve(application(classifier, name), listener, limits)
    finally:
        if classifier is not None:
            classifier.batcher.close()
        model.close()
    return 0


def _classifier(model: Model, args: argparse.Namespace, limits: Limits) -> ImageClassifier:
    shape = model.blobs[model.inputs[0]].shape if model.inputs else ()
    preparation = preparation_of(args, model.bundle, shape)
    return ImageClassifier(model, preparation, labels_of(args, model.bundle), limits)


def _limits(args: argparse.Namespace) -> Limits:
    for flag in ("batch", "most_waiting", "most_bytes", "most_pixels"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise UsageError(
                f"--{name}: expected at least 1, got {getattr(args, flag)}; correct it"
            )
    if not 0 <= args.wait_ms <= 60_000:
        raise UsageError(f"--wait-ms: expected 0 to 60000, got {args.wait_ms:g}; correct it")
    return Limits(
        most_bytes=args.most_bytes,
        most_pixels=args.most_pixels,
        most_waiting=args.most_waiting,
        batch=args.batch,
        wait=args.wait_ms / 1000,
    )


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LARGEST_PORT:
        raise UsageError(f"--port: expected 0 to {_LARGEST_PORT}, got {port}; correct it")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as cause:
        raise DeviceError(
            f"--host {host} --port {port}: cannot listen ({cause}); expected a free port of this "
            "machine; choose another one"
        ) from cause


def _serve(app: Any, listener: socket.socket, limits: Limits) -> None:
    """Answer requests until a signal arrives; those in work are finished."""
    import uvicorn

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving at http://{shown}:{port}", flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(limits.body_seconds),
    )
    uvicorn.Server(config).run(sockets=[listener])
