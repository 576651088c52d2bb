"""Weights between nets and files, by layer name. Caffe: Net::CopyTrainedLayersFrom, ToProto."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from runtime.weights.dense_weights import dense_target, is_matrix_of
from runtime.weights.weights_file import FileBlob, FileLayer, is_hdf5, open_weights

log = logging.getLogger("verydeep.net")
_CONVERSIONS = logging.getLogger("verydeep.weights")

CAFFEMODEL, HDF5, NPZ = "caffemodel", "h5", "npz"
_SUFFIXES = {".h5": HDF5, ".hdf5": HDF5, ".npz": NPZ}


@dataclass(frozen=True)
class _Step:
    """One blob to be copied."""

    source: FileBlob
    target: Blob
    converts: bool = False
    """Whether a fully connected layer's matrix becomes filters."""

    def run(self) -> None:
        self.source.copy_to(self.target.data.mutable_host())
        if self.source.has_diff:
            self.source.copy_diff_to(self.target.diff.mutable_host())


@dataclass
class _Plan:
    """The blobs of a file that are copied into a net."""

    net: Net
    path: str
    names: Mapping[str, str]
    file_names: Collection[str]
    steps: list[_Step] = field(default_factory=list)
    loaded: dict[str, Shapes] = field(default_factory=dict)
    unused: dict[str, Shapes] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)

    def add(self, layer: FileLayer) -> None:
        """Plan the copy of a layer of the file."""
        target = self.net.layer_by_name(self.names.get(layer.name, layer.name))
        target = target or dense_target(self.net, layer, self.file_names)
        if target is None:
            if layer.blobs:
                self.unused[layer.name] = tuple(blob.shape for blob in layer.blobs.values())
            return
        steps = _match(layer, target, self.net, self.path)
        self.steps += steps
        if steps:
            self.loaded[target.param.name] = tuple(step.target.shape for step in steps)
        if any(step.converts for step in steps):
            self.converted[layer.name] = str(target.param.name)

    def report(self, layers: Collection[str] | None) -> CopyReport:
        """The result of the copy of these layers, or of all."""
        chosen = None if layers is None else {self.converted.get(name, name) for name in layers}
        return CopyReport(
            self.path,
            self.loaded,
            _missing(self.net, self.loaded, chosen),
            self.unused,
            sum(step.target.count() for step in self.steps),
            self.converted,
        )


def copy_trained_layers(
    net: Net,
    path: str | os.PathLike[str],
    strict: bool = False,
    layers: Collection[str] | None = None,
    names: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
) -> CopyReport:
    """Copy weights into the layers of the same names; the other layers keep their weights.

    The content of the file decides its form (see weights_file.py). InnerProduct weights are
    converted for a convolution of the same name, or of that name with the suffix "-conv", if the
    shapes allow it exactly (see dense_weights.py). Everything is checked before the first number is
    copied.

    With `strict`, layers with weights that are only in the net or only in the file are refused.
    `layers` limits the copy to these layers of the file, `names` gives the net's name of a layer of
    the file where the two differ, and `ignore` names layers of the file to skip.

    Raises:
        SnapshotError: the file is missing or damaged, or does not pass `strict`.
        ShapeError: blobs of a layer in both differ in number or shape.
    """
    with open_weights(path) as entries:
        file_names = {layer.name for layer in entries if layer.blobs}
        plan = _Plan(net, str(path), names or {}, file_names)
        for layer in entries:
            if layer.name not in ignore and (layers is None or layer.name in layers):
                plan.add(layer)
        report = plan.report(layers)
        if strict and not report.complete:
            raise SnapshotError(
                f"{path}: does not fit the net exactly; expected every layer with weights in both; "
                f"rename layers or load without strict\n{report.table()}"
            )
        for step in plan.steps:
            step.source.check()
        for step in plan.steps:
            step.run()
    _log(report, requested=names or {})
    return report


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


def _match(source: FileLayer, target: Layer, net: Net, path: str) -> list[_Step]:
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
        converts = not blob.fits(goal.shape)
        if converts and not (index == 0 and is_matrix_of(blob, goal.shape, target, source)):
            raise _mismatch(blob, goal, index, source, path)
        steps.append(_Step(blob, goal, converts))
    return steps


def _mismatch(blob: FileBlob, goal: Blob, index: int, source: FileLayer, path: str) -> ShapeError:
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
    return ShapeError(text)


def _shape_string(shape: Sequence[int]) -> str:
    """Caffe: Blob::shape_string."""
    return f"{' '.join(map(str, shape))} ({math.prod(shape)})".lstrip()


def _log(report: CopyReport, requested: Mapping[str, str]) -> None:
    if not report.loaded:
        log.warning(
            "%s: no layer of this file has a name of the net's; every weight keeps its value",
            report.path,
        )
    log.info("%s", report.summary() if report.complete else report.table())
    if report.converted:
        asked = requested.keys() >= report.converted.keys()
        _CONVERSIONS.log(logging.INFO if asked else logging.WARNING, "%s", report.conversion())


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
