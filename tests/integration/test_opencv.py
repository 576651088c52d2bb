"""An independent judge: OpenCV 4's Caffe importer on every net of the paper."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from prototxt_gen import heads, proto, text
from prototxt_gen.spec import builtin_spec, with_values
from prototxt_gen.vgg import NETS
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from runtime.weights.net_weights import save

READS_CAFFE = hasattr(cv2.dnn, "readNetFromCaffe")


@pytest.mark.skipif(not READS_CAFFE, reason="this OpenCV does not read Caffe nets; 4.x does")
@pytest.mark.parametrize("name", list(NETS))
def test_opencv_computes_what_this_runtime_does(name: str, tmp_path: Path) -> None:
    # OpenCV uses 1 for LRN's k and ignores the prototxt's value.
    values = {"width": Fraction(1, 8), "classes": 17, "lrn.k": 1.0}
    spec = with_values(builtin_spec(name, 64), values)
    deploy = tmp_path / "deploy.prototxt"
    text.write(deploy, heads.deploy(spec))
    images = np.random.default_rng(1).uniform(-120, 120, (10, 3, 64, 64)).astype(np.float32)
    context = RunContext(rng=CaffeRandom(3))
    with Net(text.read_net(deploy), proto.TEST, create_backend("cpu"), context) as net:
        for blob in net.params.learnable:
            fan_in = max(1, blob.count(1))
            blob.data.mutable_host()[...] = context.rng.gaussian(
                blob.count(), 0.0, (2 / fan_in) ** 0.5 if blob.num_axes > 1 else 0.1
            ).reshape(blob.shape)
        save(net, tmp_path / "w.caffemodel")
        net.blobs["data"].data.mutable_host()[...] = images
        net.forward()
        ours = net.blobs["prob"].data.host().copy()
        scores = net.blobs["fc8"].data.host().copy()
    judge = cv2.dnn.readNetFromCaffe(str(deploy), str(tmp_path / "w.caffemodel"))
    judge.setInput(images)
    theirs, their_scores = (np.asarray(judge.forward(blob)) for blob in ("prob", "fc8"))
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), atol=1e-4)
    scale = float(np.abs(scores).max())
    np.testing.assert_allclose(scores, their_scores.reshape(scores.shape), atol=1e-4 * scale)
