"""The random RGB colour shift of Krizhevsky et al. (2012), which the paper's training uses.

The sum of a_i * l_i * p_i is added to every pixel of an image. p_i and l_i are the eigenvectors and
eigenvalues of the covariance of the training set's RGB values; a_i are gaussians with standard
deviation 0.1, drawn once for each image.

The papers do not define the unit of l. For pixels of 0 to 255, photographs have an l1 of about
14,000, so the shift would exceed the range many times; for pixels of 0 to 1 it is about 6 levels of
255, which is the usual interpretation. So an eigenvalue v of pixels of 0 to 255 is a shift of
v / 255 levels for a draw of 1.
"""

from __future__ import annotations

import json
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
    """Decompose the covariance of pixels, greatest component first.

    The sign of a component is arbitrary; here its element of the greatest magnitude is positive.

    Shapes: covariance (3, 3).
    Units: of BGR pixel values of 0 to 255.
    """
    values, vectors = np.linalg.eigh(covariance)
    rows = vectors.T[::-1]
    greatest = rows[np.arange(3), np.abs(rows).argmax(axis=1)]
    rows = rows * np.sign(greatest)[:, None]
    levels = np.maximum(values[::-1], 0.0) / 255.0
    return ColourPca(tuple(levels.tolist()), tuple(tuple(row) for row in rows.tolist()))


def write_pca(path: str | Path, pca: ColourPca, **more: Any) -> None:
    """Write components as JSON, with `more` as further members.

    Raises:
        DataError: the file cannot be written.
    """
    content = {
        "what": "colour components: BGR rows, eigenvalues in levels of 0 to 255 per unit of draw",
        "eigenvalues": pca.eigenvalues,
        "eigenvectors": pca.eigenvectors,
        **more,
    }
    atomic_write_text(path, json.dumps(content, indent=2) + "\n", DataError)


def read_pca(path: str | Path) -> ColourPca:
    """Read a file of `write_pca`.

    Raises:
        DataError: the file is missing or has other content.
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


def shift_of(
    pca: ColourPca, std: float, gaussians: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """The shift of images; `std` is the standard deviation of the draws a_i.

    Shapes: gaussians (..., 3), standard normal; result (..., 3).
    Units: levels of 0 to 255, in the order BGR.
    """
    magnitude = std * gaussians * np.array(pca.eigenvalues)
    shift: npt.NDArray[np.float64] = magnitude @ np.array(pca.eigenvectors)
    return shift.astype(np.float32)
