"""The mean image of ILSVRC-2012, as pycaffe's folder has it, and a folder tree like Caffe's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write
from runtime.pycaffe.files import PathLike

MEAN_PIXEL = (104.00698793, 116.66876762, 122.67891434)
"""The mean pixel of the training images of ILSVRC-2012, BGR."""
SIZE = 256
MEAN_FILE = Path(__file__).parent / "imagenet" / "ilsvrc_2012_mean.npy"
"""The file with `mean_image()`, at the path where scripts expect it in pycaffe's folder."""

_PACKAGE = '''"""Caffe's Python package, which verydeep provides."""

from runtime.pycaffe import install_as_caffe

install_as_caffe()
'''

_MESSAGES = '''"""Caffe's messages, for scripts with this folder in sys.path."""

import sys

from runtime.pycaffe.proto import caffe_pb2

sys.modules[__name__] = caffe_pb2
'''


def mean_image() -> npt.NDArray[np.float64]:
    """The mean pixel at every place. Caffe's file has the mean of each place, with the same mean.

    Shapes: (3,256,256) BGR.

    Units: 0 to 255.
    """
    return np.broadcast_to(np.reshape(MEAN_PIXEL, (3, 1, 1)), (3, SIZE, SIZE)).copy()


def mean_file_bytes() -> bytes:
    """The content of MEAN_FILE."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, mean_image(), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def write_caffe_root(folder: PathLike) -> Path:
    """Write a tree for scripts that expect Caffe's: FOLDER/python/caffe, with the mean image.

    After `sys.path.insert(0, caffe_root + "python")` with this folder as `caffe_root`, scripts
    import this package as `caffe` and read caffe_root + "python/caffe/imagenet/...". Returns
    FOLDER/python, which may also be in PYTHONPATH.

    Raises:
        ProtoError: the folder cannot be written, or python/caffe has another package.
    """
    python = Path(folder) / "python"
    package = python / "caffe" / "__init__.py"
    if package.exists() and package.read_bytes() != _PACKAGE.encode():
        raise ProtoError(
            f"{package}: another package caffe is there; expected none; choose another folder"
        )
    for path, data in (
        (package, _PACKAGE.encode()),
        (python / "caffe" / "proto" / "caffe_pb2.py", _MESSAGES.encode()),
        (python / "caffe" / "imagenet" / MEAN_FILE.name, mean_file_bytes()),
    ):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise ProtoError(
                f"{path.parent}: cannot be made: {cause.strerror}; expected a folder that can be "
                "written; choose another folder"
            ) from cause
        with atomic_write(path, "wb", ProtoError) as stream:
            stream.write(data)
    return python
