"""Images and arrays for nets. Caffe: io.py."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from runtime.pycaffe.image import load_image, oversample, resize_image
from runtime.pycaffe.messages import (
    array_to_blobproto,
    array_to_datum,
    arraylist_to_blobprotovector_str,
    blobproto_to_array,
    blobprotovector_str_to_arraylist,
    datum_to_array,
)
from runtime.pycaffe.proto import caffe_pb2
from runtime.pycaffe.transformer import Transformer

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "caffe_pb2",
    "datum_to_array",
    "load_image",
    "np",
    "oversample",
    "resize_image",
]

_LIBRARY_NAMES = {"resize": "skimage.transform", "zoom": "scipy.ndimage"}
"""Functions that pycaffe's module imports from libraries, and scripts use from there."""


def __getattr__(name: str) -> Any:
    # Imported when they are first used: scikit-image takes long to import.
    if name == "skimage":
        for module in ("skimage.io", "skimage.transform", "skimage.color"):
            importlib.import_module(module)
        return importlib.import_module("skimage")
    if name in _LIBRARY_NAMES:
        return getattr(importlib.import_module(_LIBRARY_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
