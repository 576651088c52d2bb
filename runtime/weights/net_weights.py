"""Copy weights between nets and files. Caffe: Net::CopyTrainedLayersFrom, ToProto, ToHDF5."""

from __future__ import annotations

import difflib
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
from runtime.weights.caffemodel import CURRENT, V1, BlobData, write_caffemodel
from runtime.weights.dense_weights import dense_target, is_matrix_of
from runtime.weights.file_blob import FileBlob, FileLayer
from runtime.weights.weights_file import is_hdf5, open_weights

log = logging.getLogger("verydeep.net")
_CONVERSIONS = logging.getLogger("verydeep.weights")

CAFFEMODEL, HDF5, NPZ = "caffemodel", "h5", "npz"
_SUFFIXES = {".h5": HDF5, ".hdf5": HDF5, ".npz": NPZ}

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CopyReport:
    """Layers by result, each with the shapes of its weight blobs.

    `missing` layers are in the net only and keep their weights; `unused` are in the file only.
    """

    path: str
    loaded: Mapping[str, Shapes]
    missing: Mapping[str, Shapes]
    unused: Mapping[str, Shapes]
    parameters: int = 0
    """Numbers copied."""
    converted: Mapping[str, str] = field(default_factory=dict)
    """The convolution of the net for each InnerProduct layer of the file that was converted."""

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing unused."""
        return not self.missing and not self.unused

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.path}: {len(self.loaded)} layers loaded ({_count_text(self.parameters)} "
            f"parameters), {len(self.missing)} missing, {len(self.unused)} unused"
        )

    def conversion(self) -> str:
        """The converted layers in one line; empty if there are none."""
        pairs = (
            name if name == target else f"{name} as {target}"
            for name, target in self.converted.items()
        )
        text = f"{self.path}: InnerProduct weights converted to convolutions: {', '.join(pairs)}"
        return text if self.converted else ""

    def table(self) -> str:
        """The summary and a line for each layer, missing and unused layers last."""
        rows = [("loaded", name, _shape_text(shapes), "") for name, shapes in self.loaded.items()]
        for name, shapes in self.missing.items():
            rows.append(("missing", name, _shape_text(shapes), self._hint(name, shapes)))
        for name, shapes in self.unused.items():
            rows.append(("unused", name, _shape_text(shapes), "not in the net"))
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = [self.summary()]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths)]
            lines.append("  ".join(["", *cells, row[3]]).rstrip())
        return "\n".join(lines)

    def _hint(self, name: str, shapes: Shapes) -> str:
        equal = [unused for unused, others in self.unused.items() if others == shapes]
        near = difflib.get_close_matches(name, equal, n=1, cutoff=0.4)
        if near:
            return f"keeps its weights; the file's '{near[0]}' has the same shapes"
        return "keeps its weights"


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
    the file if the two differ, and `ignore` names layers of the file to skip.

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
                f"use the net that the weights were trained with\n{report.table()}"
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
    """Write the weights of a net.

    `fmt` is CAFFEMODEL, V1, HDF5 or NPZ; by default HDF5 for .h5 and .hdf5, NPZ for .npz, and
    CAFFEMODEL for other names. With `write_diff` gradients are written as well, except to .npz.

    Raises:
        SnapshotError: the disk is full or read-only, the file would exceed 2 GB, the name of a
            layer does not fit the format (see check_names), or `fmt` is unknown.
        UnsupportedError: V1 lacks the type of a layer.
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


def check_names(net: Net, fmt: str, label: str) -> None:
    """Check that a format can hold the names of the layers; .caffemodel can hold all names.

    Raises:
        SnapshotError: the name of a layer cannot be written, or is not unique.
    """
    if fmt == HDF5:
        owners = {id(blob) for blob in net.params.learnable}
        hdf5.check_layer_names(
            (
                (layer.param.name, [i for i, b in enumerate(layer.blobs) if id(b) in owners])
                for layer in net.layers
            ),
            label,
        )
    elif fmt == NPZ:
        npz.check_layer_names([layer.param.name for layer in net.layers if layer.blobs], label)


def net_param(net: Net) -> Message:
    """The NetParameter that Caffe writes with the weights, with implicit splits, without blobs."""
    param = proto.NetParameter(name=net.name)
    for layer in net.layers:
        copy = param.layer.add()
        copy.CopyFrom(layer.param)
        copy.ClearField("blobs")
        copy.ClearField("top")
        copy.top.extend(top for top in layer.param.top if not top.startswith("(automatic)"))
        if layer.is_loss and not copy.loss_weight:
            copy.loss_weight.extend(layer.loss_weights)
    return param


def _count_text(count: int) -> str:
    """A rounded number of parameters, such as 138.4 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _shape_text(shapes: Sequence[Sequence[int]]) -> str:
    """Shapes of blobs in a table: `64x3x3x3, 64`."""
    return ", ".join("x".join(map(str, shape)) or "1" for shape in shapes)


def _missing(
    net: Net, loaded: Mapping[str, Shapes], layers: Collection[str] | None
) -> dict[str, Shapes]:
    """Layers that own weights and are not in `loaded`."""
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
    missing = [
        index
        for index, blob in enumerate(target.blobs)
        if index not in source.blobs and (not source.leaves_out_shared or id(blob) in owners)
    ]
    if missing or any(index >= len(target.blobs) for index in source.blobs):
        raise ShapeError(
            f"{path}: Incompatible number of blobs for layer {source.name}; expected "
            f"{len(target.blobs)}, as {target.label} has, got {len(source.blobs)}; rename the "
            "layer to train it from scratch, or correct its bias_term"
        )
    steps = []
    for index, blob in sorted(source.blobs.items()):
        weight = target.blobs[index]
        converts = not blob.fits(weight.shape)
        if converts and not (index == 0 and is_matrix_of(blob, weight.shape, target, source)):
            raise _mismatch(blob, weight, index, source, path)
        steps.append(_Step(blob, weight, converts))
    return steps


def _mismatch(blob: FileBlob, weight: Blob, index: int, source: FileLayer, path: str) -> ShapeError:
    if is_hdf5(path):
        text = (
            f"{path}: layer '{source.name}', blob {index}: Cannot load blob from hdf5; shape "
            f"mismatch. Source shape is {_shape_string(blob.shape)} target shape is "
            f"{_shape_string(weight.shape)}; rename the layer to learn its parameters from scratch."
        )
    else:
        text = (
            f"{path}: Cannot copy param {index} weights from layer '{source.name}'; shape "
            f"mismatch.  Source param shape is {_shape_string(blob.shape)}; target param shape is "
            f"{_shape_string(weight.shape)}. To learn this layer's parameters from scratch rather "
            "than copying from a saved net, rename the layer."
        )
    return ShapeError(text)


def _shape_string(shape: Sequence[int]) -> str:
    """Caffe: Blob::shape_string."""
    return f"{' '.join(map(str, shape))} ({math.prod(shape)})".lstrip()


def _log(report: CopyReport, requested: Mapping[str, str]) -> None:
    if not report.loaded:
        log.warning(
            "%s: no layer of this file has the name of a layer of the net; no weight is changed",
            report.path,
        )
    log.info("%s", report.summary() if report.complete else report.table())
    if report.converted:
        level = logging.INFO if requested.keys() >= report.converted.keys() else logging.WARNING
        _CONVERSIONS.log(level, "%s", report.conversion())


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
