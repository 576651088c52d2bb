"""Evaluation of a TEST net: one central crop per image. Paper: the baseline of section 4.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.progress import Progress
from prototxt_gen.errors import ProtoError
from runtime.evaluate.metrics import topk_error
from runtime.net import Net


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of every image, in the order of the database. Shapes: scores (N,C), labels (N,)."""

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def error(self, k: int) -> float:
        """Return the top-k error as a fraction; k is limited to the number of classes."""
        return topk_error(self.scores, self.labels, min(k, self.scores.shape[1]))


def evaluate_central_crop(
    net: Net, images: int, scores: str, labels: str = "label", progress: Progress | None = None
) -> Evaluation:
    """Run a TEST net once over its first `images` records.

    `scores` and `labels` are names of blobs. The last batch may wrap around; repeated records are
    left out.

    Raises:
        ProtoError: the net has no blob with that name.
    """
    blobs = [_blob(net, name) for name in (scores, labels)]
    batch = blobs[1].shape[0]
    parts: list[tuple[Any, Any]] = []
    net.context.pass_number = 0
    for start in range(0, images, batch):
        net.forward()
        rows = min(batch, images - start)
        values, truth = (blob.data.host()[:rows].copy() for blob in blobs)
        parts.append((values.reshape(rows, -1), truth.reshape(rows)))
        if progress is not None:
            progress(start + rows, images)
    return Evaluation(
        np.concatenate([values for values, _ in parts]),
        np.concatenate([truth for _, truth in parts]).astype(np.int64),
    )


def _blob(net: Net, name: str) -> Any:
    if name not in net.blobs:
        raise ProtoError(
            f"net '{net.name}': no blob '{name}'; expected one of {', '.join(net.blobs)}"
        )
    return net.blobs[name]
