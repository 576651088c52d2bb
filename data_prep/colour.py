"""The random RGB colour shift of Krizhevsky et al. (2012), which the paper's training uses.

To every pixel of an image the same sum of a_i * l_i * p_i is added; p_i and l_i are eigenvectors
and eigenvalues of the covariance of the training set's RGB values, a_i gaussian with standard
deviation 0.1, drawn once per image.

The words leave the unit of l open. For pixels of 0 to 255, photographs have l1 of about 14,000, and
the shift would be many times the range; for pixels of 0 to 1 it is some 6 levels of 255, which
is the common reading. So an eigenvalue v of pixels of 0 to 255 counts as v / 255 levels a draw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError, ProtoError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json
from prototxt_gen.sidecar import ColourPca

PAPER_STD = 0.1
_MOST_BYTES = 1 << 20


def pca_of(covariance: npt.NDArray[np.float64]) -> ColourPca:
    """Decompose the covariance (3, 3) of BGR pixel values of 0 to 255, greatest component first.

    The sign of a component is arbitrary; here its greatest part is positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    rows = vectors.T[::-1]
    greatest = rows[np.arange(3), np.abs(rows).argmax(axis=1)]
    rows = rows * np.sign(greatest)[:, None]
    levels = np.maximum(values[::-1], 0.0) / 255.0
    return ColourPca(tuple(levels.tolist()), tuple(tuple(row) for row in rows.tolist()))


def write_pca(path: str | Path, pca: ColourPca, **more: Any) -> None:
    """Write components as JSON; `more` is kept beside them."""
    content = {
        "what": "colour components: BGR rows, eigenvalues in levels of 0 to 255 per unit of draw",
        "eigenvalues": pca.eigenvalues,
        "eigenvectors": pca.eigenvectors,
        **more,
    }
    atomic_write_text(path, json.dumps(content, indent=2) + "\n", DataError)


def read_pca(path: str | Path) -> ColourPca:
    """Read what `write_pca` wrote.

    Raises:
        DataError: the file is missing or holds something else.
    """
    advice = "make it with `verydeep compute_image_mean DB --pca FILE`"
    try:
        content = read_json(path, _MOST_BYTES, regular=True)
        values = tuple(float(value) for value in content["eigenvalues"])
        rows = tuple(tuple(float(part) for part in row) for row in content["eigenvectors"])
        if not np.isfinite(values).all() or not np.isfinite(sum(rows, ())).all():
            raise ValueError("not finite")
        return ColourPca(values, rows)
    except OSError as cause:
        raise DataError(
            f"{path}: the colour components cannot be read: {cause.strerror}; {advice}"
        ) from cause
    except (ValueError, KeyError, TypeError, ArithmeticError, ProtoError) as cause:
        raise DataError(
            f"{path}: not a file of colour components ({cause}); expected JSON with 3 eigenvalues "
            f"and 3x3 eigenvectors; {advice}"
        ) from cause


@dataclass(frozen=True)
class ColourShift:
    """The shift as an augmentation: components, and the standard deviation of the draws."""

    pca: ColourPca
    std: float = PAPER_STD

    def bgr(self, gaussians: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """The shift of an image.

        Shapes: gaussians (..., 3), standard normal; result (..., 3).
        Units: levels of 0 to 255, order BGR.
        """
        magnitude = self.std * gaussians * np.array(self.pca.eigenvalues)
        shift: npt.NDArray[np.float64] = magnitude @ np.array(self.pca.eigenvectors)
        return shift.astype(np.float32)
