"""The contestant of OpenCV 4: cv2.dnn runs the deploy prototxt with Winograd convolutions."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from serve import Work, arguments, serve


def prepare(folder: Path, net_name: str, batch: int) -> Work:
    """A forward pass of a net written as <net>.prototxt and <net>.caffemodel."""
    net = cv2.dnn.readNetFromCaffe(
        str(folder / f"{net_name}.prototxt"), str(folder / f"{net_name}.caffemodel")
    )
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableWinograd(True)
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)

    def forward() -> None:
        net.setInput(images)
        net.forward()

    return forward


def main() -> None:
    args = arguments()
    cv2.setNumThreads(args.threads)
    work = prepare(Path(os.environ["VERYDEEP_BENCH_NETS"]), args.net, args.batch)
    serve(work, {"name": "cv2.dnn", "version": cv2.__version__})


if __name__ == "__main__":
    main()
