"""Weights between nets and files, by layer name. Caffe: Net::CopyTrainedLayersFrom, ToProto."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError, SnapshotError
from prototxt_gen.proto import Message
from runtime.core.blob import Blob
from runtime.core.layer import Layer
from runtime.net import Net
from runtime.weights import hdf5, npz
from runtime.weights.caffemodel import CURRENT, V1, BlobData, net_pieces, write_caffemodel
from runtime.weights.copy_report import CopyReport, Shapes
from runtime.weights.weights_file import FileBlob, FileLayer, is_hdf5, open_weights

log = logging.getLogger("verydeep.net")

CAFFEMODEL, HDF5, NPZ = "caffemodel", "h5", "npz"
_SUFFIXES = {".h5": HDF5, ".hdf5": HDF5, ".npz": NPZ}


@dataclass(frozen=True)
class _Step:
    """One blob to be copied."""

    source: FileBlob
    target: Blob

    def run(self) -> None:
        self.source.copy_to(self.target.data.mutable_host())
        if self.source.has_diff:
            self.source.copy_diff_to(self.target.diff.mutable_host())


def copy_trained_layers(
    net: Net,
    path: str | os.PathLike[str],
    strict: bool = False,
    layers: Collection[str] | None = None,
) -> CopyReport:
    """Copy weights into the layers of the same names; the others keep what they have.

    The file is of any form (see weights_file.py), told by its content. With `layers`, only those
    are copied. Everything is checked before the first number is copied.

    Raises:
        SnapshotError: a file that is missing or damaged; with `strict`, a layer that is in the net
            only or in the file only.
        ShapeError: a layer of both whose blobs differ in number or shape.
    """
    return _copy(net, path, strict, layers, {}, surgery=False)


def fc_to_conv(
    net: Net,
    path: str | os.PathLike[str],
    names: Mapping[str, str] | None = None,
    strict: bool = False,
    ignore: Collection[str] = (),
) -> CopyReport:
    """Copy weights, those of InnerProduct layers also into convolutions with as many weights.

    A convolution with the kernel as large as the fully connected layer's input, applied to that
    input, computes the same; to a larger one, a map of results (paper: 3.2). Caffe's users call it
    net surgery. `names` gives the net's name for a layer of the file where the two differ, such as
    {"fc6": "fc6-conv"}. Layers of the file that `ignore` names are as if they were not there.
    """
    return _copy(net, path, strict, None, names or {}, surgery=True, ignore=ignore)


def save(
    net: Net, path: str | os.PathLike[str], write_diff: bool = False, fmt: str | None = None
) -> None:
    """Write a net's weights: as .caffemodel unless the name ends in .h5 or .npz, or `fmt` says so.

    `fmt` is CAFFEMODEL, V1, HDF5 or NPZ. `write_diff` keeps the gradients too, but not in .npz.

    Raises:
        SnapshotError: the disk is full or read-only, the file would be over 2 GB, or a layer's name
            does not fit the format (see check_names).
        UnsupportedError: V1 was asked for and lacks a layer type.
    """
    form = fmt or _SUFFIXES.get(Path(path).suffix, CAFFEMODEL)
    if form == HDF5:
        check_names(net, HDF5, str(path))
        hdf5.write_hdf5_weights(path, _hdf5_layers(net, write_diff))
    elif form == NPZ:
        check_names(net, NPZ, str(path))
        arrays = ((layer.param.name, _arrays(layer)) for layer in net.layers if layer.blobs)
        npz.write_npz_weights(path, arrays)
    elif form in (CAFFEMODEL, V1):
        blobs = _blob_data(net, write_diff)
        write_caffemodel(path, net_param(net), blobs, V1 if form == V1 else CURRENT)
    else:
        raise SnapshotError(
            f"{path}: unknown format of weights; expected one of {CAFFEMODEL}, {V1}, {HDF5}, "
            f"{NPZ}, got {form!r}; choose one of them"
        )


def check_names(net: Net, fmt: str, where: str) -> None:
    """Refuse names of layers that `save` in this format could not write, or not read again.

    Raises:
        SnapshotError: names the layer. Files of .caffemodel hold any names.
    """
    if fmt == HDF5:
        owners = {id(blob) for blob in net.params.learnable}
        hdf5.check_layer_names(
            (
                (layer.param.name, [i for i, b in enumerate(layer.blobs) if id(b) in owners])
                for layer in net.layers
            ),
            where,
        )
    elif fmt == NPZ:
        npz.check_layer_names([layer.param.name for layer in net.layers if layer.blobs], where)


def net_param(net: Net) -> Message:
    """The NetParameter that Caffe writes beside the weights: a name, and every layer."""
    param = proto.NetParameter(name=net.name)
    for layer in net.layers:
        written = param.layer.add()
        written.CopyFrom(layer.param)
        written.ClearField("blobs")
        named = [top for top in layer.param.top if not top.startswith("(automatic)")]
        written.ClearField("top")
        written.top.extend(named)
        if layer.is_loss and not written.loss_weight:
            written.loss_weight.extend(layer.loss_weights)
    return param


def net_to_proto(net: Net, write_diff: bool = False) -> Message:
    """The NetParameter with its weights, in memory. Caffe: Net::ToProto."""
    pieces = net_pieces(net_param(net), _blob_data(net, write_diff))
    return proto.NetParameter.FromString(b"".join(bytes(piece) for piece in pieces))


def _copy(
    net: Net,
    path: str | os.PathLike[str],
    strict: bool,
    layers: Collection[str] | None,
    names: Mapping[str, str],
    surgery: bool,
    ignore: Collection[str] = (),
) -> CopyReport:
    with open_weights(path) as found:
        source = [
            layer
            for layer in found
            if (layers is None or layer.name in layers) and layer.name not in ignore
        ]
        steps: list[_Step] = []
        loaded: dict[str, Shapes] = {}
        unused: dict[str, Shapes] = {}
        for layer in source:
            target = net.layer_by_name(names.get(layer.name, layer.name))
            shapes = tuple(blob.shape for blob in layer.blobs.values())
            if target is None:
                if shapes:
                    unused[layer.name] = shapes
                continue
            matched = _match(layer, target, net, str(path), surgery)
            steps += matched
            if matched:
                loaded[target.param.name] = tuple(step.target.shape for step in matched)
        report = CopyReport(
            str(path),
            loaded,
            _missing(net, loaded, layers),
            unused,
            sum(step.target.count() for step in steps),
        )
        if strict and not report.complete:
            raise SnapshotError(
                f"{path}: does not fit the net exactly; expected every layer with weights in both; "
                f"rename layers or load without strict\n{report.table()}"
            )
        for step in steps:
            step.source.check()
        for step in steps:
            step.run()
    _log(report)
    return report


def _missing(
    net: Net, loaded: Mapping[str, Shapes], layers: Collection[str] | None
) -> dict[str, Shapes]:
    """Layers that own weights and got none."""
    owners = {id(blob) for blob in net.params.learnable}
    return {
        layer.param.name: tuple(blob.shape for blob in layer.blobs)
        for layer in net.layers
        if layer.param.name not in loaded
        and (layers is None or layer.param.name in layers)
        and any(id(blob) in owners for blob in layer.blobs)
    }


def _match(source: FileLayer, target: Layer, net: Net, path: str, surgery: bool) -> list[_Step]:
    owners = {id(blob) for blob in net.params.learnable}
    lacking = [
        index
        for index, blob in enumerate(target.blobs)
        if index not in source.blobs and (not source.leaves_out_shared or id(blob) in owners)
    ]
    if lacking or any(index >= len(target.blobs) for index in source.blobs):
        raise ShapeError(
            f"{path}: Incompatible number of blobs for layer {source.name}; expected "
            f"{len(target.blobs)}, as {target.label} has, got {len(source.blobs)}; rename the "
            "layer to train it from scratch, or correct its bias_term"
        )
    steps = []
    for index, blob in sorted(source.blobs.items()):
        goal = target.blobs[index]
        if not blob.fits(goal.shape) and not (surgery and _is_carved(blob, goal, target)):
            raise _mismatch(blob, goal, index, source, target, path)
        steps.append(_Step(blob, goal))
    return steps


def _is_carved(blob: FileBlob, goal: Blob, target: Layer) -> bool:
    """Whether a fully connected layer's matrix is this convolution's filters, row by row."""
    matrix = (goal.shape[0], math.prod(goal.shape[1:]))
    # The older forms store a matrix as 1 x 1 x out x in.
    return target.filters_are_rows and blob.shape in (matrix, (1, 1, *matrix))


def _mismatch(
    blob: FileBlob, goal: Blob, index: int, source: FileLayer, target: Layer, path: str
) -> ShapeError:
    if is_hdf5(path):
        text = (
            f"{path}: layer '{source.name}', blob {index}: Cannot load blob from hdf5; shape "
            f"mismatch. Source shape is {_shape_string(blob.shape)} target shape is "
            f"{_shape_string(goal.shape)}; rename the layer to learn its parameters from scratch."
        )
    else:
        text = (
            f"{path}: Cannot copy param {index} weights from layer '{source.name}'; shape "
            f"mismatch.  Source param shape is {_shape_string(blob.shape)}; target param shape is "
            f"{_shape_string(goal.shape)}. To learn this layer's parameters from scratch rather "
            "than copying from a saved net, rename the layer."
        )
    if _is_carved(blob, goal, target):
        text += (
            " The counts agree: a fully connected layer becomes a convolution by net surgery, "
            "which is done on request only (runtime.weights.net_weights.fc_to_conv)."
        )
    return ShapeError(text)


def _shape_string(shape: Sequence[int]) -> str:
    """Caffe: Blob::shape_string."""
    return f"{' '.join(map(str, shape))} ({math.prod(shape)})".lstrip()


def _log(report: CopyReport) -> None:
    if not report.loaded:
        log.warning(
            "%s: no layer of this file has a name of the net's; every weight keeps what it had",
            report.path,
        )
    log.info("%s", report.summary() if report.complete else report.table())


def _arrays(layer: Layer) -> list[Any]:
    return [blob.data.host() for blob in layer.blobs]


def _blob_data(net: Net, write_diff: bool) -> Iterator[list[BlobData]]:
    for layer in net.layers:
        yield [
            BlobData(blob.data.host(), blob.diff.host() if write_diff else None)
            for blob in layer.blobs
        ]


def _hdf5_layers(net: Net, write_diff: bool) -> Iterator[tuple[str, list[Any], list[Any] | None]]:
    owners = {id(blob) for blob in net.params.learnable}
    for layer in net.layers:
        data = [blob.data.host() if id(blob) in owners else None for blob in layer.blobs]
        diffs = [blob.diff.host() for blob in layer.blobs] if write_diff else None
        yield layer.param.name, data, diffs
