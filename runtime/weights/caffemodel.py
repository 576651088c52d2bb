"""Weights in .caffemodel files of every form. Caffe: upgrade_proto.cpp, net.cpp.

The forms are the current one (`layer`), V1 (`layers` with numbered types) and V0
(`layers { layer { } }`). NVIDIA's Caffe writes the current form with additional fields.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError

from prototxt_gen import proto
from prototxt_gen.downgrade import downgrade_v1
from prototxt_gen.errors import ProtoError, SnapshotError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import Message, copy_of
from prototxt_gen.upgrade import V1_TYPE_NAMES, upgrade_net, v1_type_name
from prototxt_gen.upgrade_v0 import V0_TYPES
from runtime.layers.factory import class_of
from runtime.weights.file_blob import Array
from runtime.weights.weight_blob import WeightBlob, blob_pieces, read_blob
from runtime.weights.wire_format import (
    BYTES,
    VARINT,
    Field,
    Piece,
    WireReader,
    bytes_field,
    map_file,
    message_pieces,
    varint_field,
)

Path = str | os.PathLike[str]

CURRENT, V1, V0 = "current", "V1", "V0"
MAX_BYTES = 2**31 - 1
"""The limit of protobuf, and so of every other reader of these files."""

_LAYERS_V1, _LAYER = 2, 100
_NET_WIRES = {1: BYTES, 2: BYTES, 3: BYTES, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}
# NVIDIA's forward_type, backward_type, forward_math and backward_math. BVLC uses these numbers for
# messages: parameter_param, recurrent_param, swish_param and clip_param.
_NVIDIA_TYPES = range(145, 149)


class _Places(NamedTuple):
    """The numbers of the fields that are read in one form of layer message."""

    name: int
    type: int
    blobs: int
    inner_product: int
    """inner_product_param; 0 in V0, which has none."""


_PLACES = {CURRENT: _Places(1, 2, 7, 117), V1: _Places(4, 5, 6, 17), V0: _Places(1, 2, 50, 0)}
_TRANSPOSE = 6
_V0_LAYER = 1


@dataclass(frozen=True)
class LayerWeights:
    """One layer of a file. Its numbers are read by `blobs[i].array()` and `copy_to`."""

    name: str
    type: str
    form: str
    """CURRENT, V1 or V0."""
    blobs: tuple[WeightBlob, ...]
    nvidia: bool = False
    """Whether it has fields that only NVIDIA's Caffe writes."""
    transposed: bool = False
    """An InnerProduct layer with `transpose: true`."""


class BlobData(NamedTuple):
    """The arrays of one BlobProto. Shapes: diff like data."""

    data: Array
    diff: Array | None = None
    legacy: bool = False


def read_caffemodel(path: Path) -> list[LayerWeights]:
    """The layers of a file in their order, including those without weights.

    Raises:
        SnapshotError: the file is missing, truncated, damaged, or no NetParameter.
    """
    return read_layers(map_file(path))


def read_layers(reader: WireReader) -> list[LayerWeights]:
    """Like `read_caffemodel`, for a file or bytes that are already open."""
    layers = [_read_entry(reader, field) for field in _entries(reader)]
    if not layers:
        raise SnapshotError(
            f"{reader.label}: no layer; expected the weights of a net, got a message without "
            "layers; give the .caffemodel of a snapshot"
        )
    if len({layer.form == CURRENT for layer in layers}) > 1:
        raise SnapshotError(
            f"{reader.label}: mixes 'layer' and 'layers'; expected one form, got both; "
            "write it again with the program that made it"
        )
    return layers


def read_net(path: Path) -> tuple[Message, list[list[WeightBlob]]]:
    """The net of a file in the current form, without blobs, and the weights of its layers.

    Raises:
        SnapshotError: the file is damaged, or its net cannot be upgraded to the current form.
    """
    reader = map_file(path)
    read_layers(reader)
    # The upgrade may remove, add or rename layers, so it runs on small numbered blobs.
    tickets: list[Field] = []
    skeleton = b"".join(_skeleton(reader, 0, reader.size, "", tickets))
    try:
        net = proto.NetParameter.FromString(skeleton)
        upgrade_net(net, str(path))
    except (DecodeError, UnicodeError, ProtoError) as cause:
        raise SnapshotError(
            f"{path}: the layers' parameters cannot be read: {cause}; the file may be damaged, or "
            "written by a Caffe with other layers"
        ) from cause
    blobs = []
    for layer in net.layer:
        places = [tickets[ticket.num] for ticket in layer.blobs]
        blobs.append(_read_blobs(reader, places, layer.name))
        layer.ClearField("blobs")
    return net, blobs


def write_caffemodel(
    path: Path, net: Message, blobs: Iterable[Sequence[BlobData]], form: str = CURRENT
) -> None:
    """Write a net with its weights, byte for byte as Caffe does.

    `net` has the current form, without blobs; `blobs` has a sequence for each layer and is iterated
    during the writing. The file is replaced after everything is written.

    Raises:
        SnapshotError: the file would exceed 2 GB, V1 cannot store a shape, or the disk is full.
        UnsupportedError: V1 lacks the type of a layer.
    """
    total = 0
    with atomic_write(path, "wb", SnapshotError) as stream:
        for piece in net_pieces(net, blobs, form):
            total += len(piece)
            if total > MAX_BYTES:
                raise SnapshotError(
                    f"{path}: too large; expected at most 2 GB, protobuf's limit, got more; "
                    "save as .caffemodel.h5 (snapshot_format: HDF5)"
                )
            stream.write(piece)


def net_pieces(
    net: Message, blobs: Iterable[Sequence[BlobData]], form: str = CURRENT
) -> Iterator[Piece]:
    """The bytes of a NetParameter with weights; arguments as in `write_caffemodel`.

    Raises:
        SnapshotError, UnsupportedError: see `write_caffemodel`.
    """
    old = downgrade_v1(_without_phases(net)) if form == V1 else None
    number = _LAYER if old is None else _LAYERS_V1
    head, tail = _around(_without_layers(net if old is None else old), number)
    messages = iter(net.layer if old is None else old.layers)
    yield head
    for layer, arrays in zip(net.layer, blobs, strict=True):
        # In V1, inputs are fields of the net.
        if old is None or layer.type != "Input":
            yield from _layer_pieces(number, next(messages), arrays, form)
    yield tail


def current_shape(blob: WeightBlob, layer_type: str, index: int) -> tuple[int, ...] | None:
    """The shape in the current form; None if a blob of four dimensions does not determine it."""
    if not blob.legacy:
        return blob.shape
    weight_axes = class_of(layer_type).weight_axes
    if weight_axes is not None:
        axes = weight_axes if index == 0 else 1
        if all(dim == 1 for dim in blob.shape[: 4 - axes]):
            return blob.shape[4 - axes :]
    return None


def blob_data(blob: WeightBlob, layer_type: str, index: int) -> BlobData:
    """The arrays of a blob, in the current form of its shape if that is known.

    Raises:
        SnapshotError: the numbers do not fit the shape.
    """
    shape = current_shape(blob, layer_type, index)
    data, diff = blob.array(), blob.diff_array()
    if shape is None:
        return BlobData(data, diff, legacy=True)
    return BlobData(data.reshape(shape), None if diff is None else diff.reshape(shape))


def _entries(reader: WireReader) -> Iterator[Field]:
    for field in reader.fields(0, reader.size):
        wire = _NET_WIRES.get(field.number)
        if wire is not None and field.wire != wire:
            raise reader.error(
                field.tag,
                f"a net's field {field.number}, of wire type {wire}",
                f"wire type {field.wire}, as in a .solverstate or .binaryproto",
            )
        if field.number in (_LAYERS_V1, _LAYER):
            yield field


def _read_entry(reader: WireReader, entry: Field) -> LayerWeights:
    entry, form = _form_of(reader, entry)
    places = _PLACES[form]
    name, kind, blobs, nvidia, transposed = "", "", [], False, False
    for field in reader.fields(entry.start, entry.stop):
        if field.number == places.name and field.wire == BYTES:
            name = reader.text(field)
        elif field.number == places.type:
            kind = _type_name(reader, field, form)
        elif field.number == places.blobs:
            if field.wire != BYTES:
                raise reader.error(field.tag, "a blob", f"wire type {field.wire}")
            blobs.append(field)
        elif field.number == places.inner_product and field.wire == BYTES:
            transposed = _is_transposed(reader, field)
        elif form == CURRENT and field.number in _NVIDIA_TYPES and field.wire == VARINT:
            nvidia = True
    weights = tuple(_read_blobs(reader, blobs, name))
    nvidia = nvidia or any(blob.nvidia for blob in weights)
    return LayerWeights(name, kind, form, weights, nvidia, transposed)


def _form_of(reader: WireReader, entry: Field) -> tuple[Field, str]:
    """The field of the layer, which is within its entry for V0, and its form."""
    if entry.number == _LAYER:
        return entry, CURRENT
    form = V1
    for field in reader.fields(entry.start, entry.stop):
        if field.number == _V0_LAYER and field.wire == BYTES:
            entry, form = field, V0
    return entry, form


def _is_transposed(reader: WireReader, param: Field) -> bool:
    fields = reader.fields(param.start, param.stop)
    return any(f.number == _TRANSPOSE and f.wire == VARINT and f.value for f in fields)


def _read_blobs(reader: WireReader, fields: Sequence[Field], layer: str) -> list[WeightBlob]:
    return [
        read_blob(reader, field.start, field.stop, f"{reader.label}: layer '{layer}', blob {index}")
        for index, field in enumerate(fields)
    ]


def _type_name(reader: WireReader, field: Field, form: str) -> str:
    if form == V1:
        try:
            return v1_type_name(field.value)
        except ProtoError:
            # Weights are copied by name, so the type may be unknown.
            return f"V1 type {field.value}"
    name = reader.text(field) if field.wire == BYTES else ""
    return V1_TYPE_NAMES[V0_TYPES[name]] if form == V0 and name in V0_TYPES else name


def _skeleton(
    reader: WireReader, start: int, stop: int, form: str, tickets: list[Field]
) -> Iterator[bytes]:
    """The bytes of a message with each blob replaced by a BlobProto whose num indexes `tickets`.

    `form` is the form of the layer that the bytes belong to, or "" for the net.
    """
    inner = {"": {_LAYER: CURRENT, _LAYERS_V1: V1}, V1: {_V0_LAYER: V0}}.get(form, {})
    for field in reader.fields(start, stop):
        if form and field.number == _PLACES[form].blobs:
            yield bytes_field(field.number, varint_field(1, len(tickets)))
            tickets.append(field)
        elif field.number in inner and field.wire == BYTES:
            layer = _skeleton(reader, field.start, field.stop, inner[field.number], tickets)
            yield bytes_field(field.number, b"".join(layer))
        elif form == CURRENT and field.number in _NVIDIA_TYPES and field.wire == VARINT:
            # BVLC's Caffe has other fields of these numbers.
            continue
        else:
            yield reader.raw(field.tag, field.stop)


def _without_phases(net: Message) -> Message:
    """The net without phases, which V1 cannot store and readers of weights do not need."""
    result = copy_of(net)
    for layer in result.layer:
        layer.ClearField("phase")
    return result


def _without_layers(net: Message) -> bytes:
    rest = copy_of(net)
    rest.ClearField("layer")
    rest.ClearField("layers")
    return bytes(rest.SerializeToString(deterministic=True))


def _around(message: bytes, number: int) -> tuple[bytes, bytes]:
    """The parts of a message before and after the position of field `number`."""
    reader = WireReader(message, "message")
    after = (field.tag for field in reader.fields(0, reader.size) if field.number > number)
    position = next(after, reader.size)
    return message[:position], message[position:]


def _layer_pieces(number: int, layer: Message, blobs: Sequence[BlobData], form: str) -> list[Piece]:
    place = _PLACES[form].blobs
    head, tail = _around(layer.SerializeToString(deterministic=True), place)
    pieces: list[Piece] = [head]
    for blob in blobs:
        pieces += blob_pieces(place, blob.data, blob.diff, blob.legacy or form == V1)
    return message_pieces(number, [*pieces, tail])
