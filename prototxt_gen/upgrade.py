"""Upgrades nets and solvers of all forms that Caffe has written to the current form in place."""

from __future__ import annotations

import os
from pathlib import Path

from prototxt_gen import proto
from prototxt_gen.destination import is_folder, utf8_path
from prototxt_gen.downgrade import downgrade_v1
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import Message
from prototxt_gen.upgrade_v0 import needs_v0_upgrade, upgrade_v0_net
from prototxt_gen.upgrade_v1 import (
    DATA_PARAMS,
    TRANSFORM_FIELDS,
    V1_TYPE_NAMES,
    needs_data_upgrade,
    upgrade_data_transformation,
    upgrade_v1_layer,
    upgrade_v1_net,
    v1_type_name,
)

__all__ = [
    "SOLVER_TYPE_NAMES",
    "V1_TYPE_NAMES",
    "downgrade_v1",
    "ignored_transformations",
    "needs_upgrade",
    "set_snapshot_prefix",
    "upgrade_net",
    "upgrade_solver",
    "upgrade_v1_layer",
    "v1_type_name",
]

SOLVER_TYPE_NAMES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
# In the older forms without `shape`, every blob has four dimensions.
_LEGACY_AXES = 4
_BATCH_NORM_BLOBS = 3


def needs_upgrade(net: Message) -> bool:
    """Whether the net has parts of an older form, which `upgrade_net` changes."""
    return bool(len(net.layers) or len(net.input)) or any(map(_old_batch_norm, net.layer))


def upgrade_net(net: Message, where: str) -> list[str]:
    """Upgrade a NetParameter to the current form in place; returns a sentence for each change.

    Weights in the layers are kept. A net of the current form is not changed.

    Raises:
        ProtoError: the net is contradictory, or has a type that never existed in Caffe.
    """
    sentences: list[str] = []
    if needs_v0_upgrade(net):
        sentences += upgrade_v0_net(net, where)
    if needs_data_upgrade(net):
        sentences += upgrade_data_transformation(net)
    if len(net.layers):
        sentences += upgrade_v1_net(net, where)
    if len(net.input):
        sentences += _upgrade_inputs(net, where)
    for layer in filter(_old_batch_norm, net.layer):
        for param in layer.param:
            param.lr_mult = param.decay_mult = 0
        sentences.append(
            f"layer {layer.name!r}: lr_mult and decay_mult of BatchNorm's three statistics set to 0"
        )
    return sentences


def upgrade_solver(solver: Message, where: str) -> list[str]:
    """Upgrade a SolverParameter and the nets in it to the current form in place.

    Returns a sentence for each change.

    Raises:
        ProtoError: the solver's type is given in both forms, or a net is contradictory.
    """
    sentences: list[str] = []
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise ProtoError(
                f"{where}: the solver's type is given twice; expected type alone, got type "
                f"{solver.type!r} and solver_type; remove solver_type"
            )
        name = proto.SolverParameter.SolverType.Name(solver.solver_type)
        solver.type = SOLVER_TYPE_NAMES[name]
        solver.ClearField("solver_type")
        sentences.append(f"solver_type {name} upgraded to type {solver.type!r}")
    for name in ("net_param", "train_net_param"):
        if solver.HasField(name):
            sentences += upgrade_net(getattr(solver, name), f"{where} ({name})")
    for index, net in enumerate(solver.test_net_param):
        sentences += upgrade_net(net, f"{where} (test_net_param {index})")
    return sentences


def set_snapshot_prefix(solver: Message, path: str | os.PathLike[str]) -> list[str]:
    """Set the snapshot_prefix of a solver read from `path` if it is missing or a folder.

    Returns a sentence for each change. Caffe: the default is the path of the solver file without
    its suffix; to a folder the name of the solver file is appended.
    """
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = utf8_path(str(Path(path).with_suffix("")))
    elif solver.snapshot_prefix and is_folder(solver.snapshot_prefix):
        solver.snapshot_prefix = utf8_path(str(Path(solver.snapshot_prefix) / Path(path).stem))
    else:
        return []
    return [f"snapshot_prefix set to {solver.snapshot_prefix!r}"]


def ignored_transformations(net: Message) -> list[str]:
    """A sentence for each field of a current data layer that Caffe ignores.

    Caffe upgrades the scale, mean_file, crop_size and mirror of V1's layers, but silently ignores
    the same fields in a layer of the current form.
    """
    sentences = []
    for layer in net.layer:
        name = DATA_PARAMS.get(layer.type, "")
        if name and layer.HasField(name):
            param = getattr(layer, name)
            fields = [field for field in TRANSFORM_FIELDS if param.HasField(field)]
            if fields:
                sentences.append(
                    f"layer {layer.name!r}: {', '.join(fields)} in {name} has no effect, as in "
                    "Caffe; write it in transform_param"
                )
    return sentences


def _old_batch_norm(layer: Message) -> bool:
    """Whether the solver would change a BatchNorm's statistics.

    Caffe: UpgradeNetBatchNorm, which sets the two rates and keeps names and share_mode.
    """
    three = layer.type == "BatchNorm" and len(layer.param) == _BATCH_NORM_BLOBS
    return three and not all(map(_is_fixed, layer.param))


def _is_fixed(param: Message) -> bool:
    return all(
        param.HasField(name) and getattr(param, name) == 0 for name in ("lr_mult", "decay_mult")
    )


def _upgrade_inputs(net: Message, where: str) -> list[str]:
    names = list(net.input)
    listed = ", ".join(map(repr, names))
    shapes, left = _input_shapes(net, where)
    if shapes:
        layer = proto.LayerParameter(name="input", type="Input", top=names)
        layer.input_param.shape.extend(shapes)
        layers = list(net.layer)
        net.ClearField("layer")
        net.layer.append(layer)
        net.layer.extend(layers)
        sentences = [f"input {listed} made a layer of type Input"]
    else:
        sentences = [f"input {listed} has no shape, left out"]
    if left:
        sentences.append(f"{left} belong to no input, left out")
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    return sentences


def _input_shapes(net: Message, where: str) -> tuple[list[Message], str]:
    """A shape for each of the net's inputs, or none; and a description of surplus shapes."""
    count = len(net.input)
    ignored = ""
    if len(net.input_shape):
        field, values, needed = "input_shape", list(net.input_shape), count
        shapes = values[:needed]
        ignored = (
            f"{len(net.input_dim)} input_dim in addition to input_shape" if net.input_dim else ""
        )
    else:
        field, values, needed = "input_dim", list(net.input_dim), count * _LEGACY_AXES
        starts = range(0, min(len(values), needed), _LEGACY_AXES)
        shapes = [proto.BlobShape(dim=values[start : start + _LEGACY_AXES]) for start in starts]
    if 0 < len(values) < needed:
        raise ProtoError(
            f"{where}: too few {field} for the net's inputs; expected {needed} for {count} input, "
            f"got {len(values)}; give each input its shape"
        )
    surplus = len(values) - needed
    left = [f"{surplus} more {field}" if surplus > 0 else "", ignored]
    return shapes, " and ".join(filter(None, left))
