"""ReLU and dropout, element by element; Philox in plain integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_WORD = 0xFFFFFFFF


def relu_forward(x: Array, slope: float = 0.0) -> Array:
    y = np.array(x, np.float64)
    for at in np.ndindex(*y.shape):
        if y[at] <= 0:
            y[at] *= slope
    return y


def relu_backward(x: Array, dy: Array, slope: float = 0.0) -> Array:
    dx = np.array(dy, np.float64)
    for at in np.ndindex(*dx.shape):
        if not x[at] > 0:
            dx[at] *= slope
    return dx


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10, from the paper that introduced it (Salmon et al. 2011, section 2)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def dropout_mask(
    shape: tuple[int, ...], ratio: float, seed: int, stream: int, first_sample: int
) -> npt.NDArray[np.uint8]:
    """1 where the uniform number of element j of sample n is at least the ratio."""
    per_sample = int(np.prod(shape[1:]))
    mask = np.zeros((shape[0], per_sample), np.uint8)
    key = (seed & _WORD, seed >> 32 & _WORD)
    for n in range(shape[0]):
        sample = first_sample + n
        for j in range(per_sample):
            block = philox((j // 4, sample & _WORD, sample >> 32 & _WORD, stream & _WORD), key)
            mask[n, j] = (block[j % 4] >> 8) / 2.0**24 >= ratio
    return mask.reshape(shape)
