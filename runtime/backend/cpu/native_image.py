"""Cropping decoded images by the compiled kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.backend.base import HostArray
from runtime.backend.cpu.native_library import NativeLibrary, load

_BYTE, _FLOAT = np.dtype(np.uint8), np.dtype(np.float32)


def image_kernel() -> NativeImage | None:
    """The compiled writer of crops; None if the compiled kernels cannot be used."""
    library = load(1)
    return None if library is None else NativeImage(library)


class NativeImage:
    """Writes the values of data_prep.datum.write_crop; any number of threads may call it."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library  # keeps the kernel loaded
        self._write = library.function("image_transform")

    def __call__(
        self,
        crop: npt.NDArray[np.generic],
        mirror: bool,
        offsets: HostArray | None,
        mean: HostArray | None,
        scale: float,
        out: HostArray,
    ) -> None:
        """See data_prep.datum.write_crop. Shapes: crop (H,W,C); offsets (C,); mean, out (C,H,W)."""
        height, width, channels = crop.shape
        if crop.dtype not in (_BYTE, _FLOAT):
            crop = crop.astype(np.float32)
        size = crop.itemsize
        if crop.strides[1:] != (channels * size, size) or crop.strides[0] % size:
            crop = np.ascontiguousarray(crop)
        if mean is not None and (mean.dtype != _FLOAT or mean.strides[2] != _FLOAT.itemsize):
            mean = np.ascontiguousarray(mean, np.float32)
        if offsets is not None:
            offsets = np.ascontiguousarray(offsets, np.float32)
        straight = out.dtype == _FLOAT and out.flags.c_contiguous
        target = out if straight else np.empty(out.shape, np.float32)
        self._write(
            crop.dtype == _FLOAT,
            channels,
            height,
            width,
            crop.strides[0] // size,
            mirror,
            None if offsets is None else offsets.ctypes.data,
            None if mean is None else mean.ctypes.data,
            0 if mean is None else mean.strides[0] // 4,
            0 if mean is None else mean.strides[1] // 4,
            scale,
            crop.ctypes.data,
            target.ctypes.data,
        )
        if not straight:
            out[...] = target
