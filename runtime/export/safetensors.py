"""Write weights as a safetensors file: a JSON header with places, then the numbers.

Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np

from prototxt_gen.errors import SnapshotError
from prototxt_gen.files import atomic_write
from runtime.export.onnx_graph import Array
from runtime.net import Net

_METADATA = "__metadata__"
_ALIGNMENT = 8


def tensors_of(net: Net) -> dict[str, Array]:
    """The weights of a net as LAYER.weight, LAYER.bias, and LAYER.2 and so on.

    Raises:
        SnapshotError: two weights have the same name.
    """
    tensors: dict[str, Array] = {}
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            part = ("weight", "bias")[index] if index < 2 else str(index)
            name = f"{layer.param.name}.{part}"
            if name in tensors or name == _METADATA:
                raise SnapshotError(
                    f"net '{net.name}': two weights named '{name}'; expected one of each name; "
                    "rename a layer"
                )
            tensors[name] = blob.data.host()
    return tensors


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as float32.

    Raises:
        SnapshotError: the file cannot be written.
    """
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    start = 0
    for name, values in tensors.items():
        stop = start + 4 * values.size
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_write(path, "wb", SnapshotError) as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for values in tensors.values():
            stream.write(np.ascontiguousarray(values, "<f4").data)
