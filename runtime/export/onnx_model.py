"""Converts a net with its weights to an ONNX model, and compares their results."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy.typing as npt

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError, UnsupportedError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import copy_of
from runtime.core.layer import Layer
from runtime.export.comparison import TOLERANCE, random_input, relative_difference
from runtime.export.onnx_graph import IR_VERSION, OPSET, Graph, Step, import_onnx
from runtime.layers.factory import class_of, layer_type_list
from runtime.net import Net

_MAX_BYTES = 2**31 - 1

Array = npt.NDArray[Any]


def export_onnx(net: Net, path: str | os.PathLike[str]) -> float | None:
    """Write a net in the phase TEST as an ONNX model, for the current shapes of its inputs.

    Before it is written, each blob of the model is compared with the net's on random input. Returns
    the largest difference, relative to the blob's largest value; None if onnxruntime is not
    installed, and nothing was compared.

    Raises:
        UnsupportedError: onnx is not installed, or a layer has no ONNX form here.
        SnapshotError: the results of the model differ, or it cannot be written.
    """
    model, values = to_onnx(net)
    differences = compare(net, model, values)
    for name, difference in (differences or {}).items():
        if not difference <= TOLERANCE:
            raise SnapshotError(
                f"{path}: the ONNX model computes another blob '{name}'; expected a difference of "
                f"at most {TOLERANCE:g}, got {difference:.2g}; nothing was written; export the "
                "weights alone with --to npz"
            )
    with atomic_write(path, "wb", SnapshotError) as stream:
        stream.write(model.SerializeToString())
    return None if differences is None else max(differences.values(), default=0.0)


def to_onnx(net: Net) -> tuple[Any, dict[str, str]]:
    """The ModelProto of a net in the phase TEST, and the names of its values by blob.

    Raises:
        UnsupportedError: onnx is not installed, a layer has no ONNX form here, or the weights
            exceed 2 GB.
    """
    onnx = import_onnx()
    _check(net)
    graph = Graph()
    # Reserved, so that no weight or intermediate value has the name of a blob.
    values = {name: graph.fresh(name) for name in net.blobs}
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        inputs = [values[name] for name in layer.param.bottom]
        outputs = layer.to_onnx(Step(graph, layer, inputs, bottom, top))
        values.update(zip(layer.param.top, outputs))
    values = _name_outputs(graph, net, values)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            net.name or "net",
            [_info(net, name, name) for name in net.inputs],
            [_info(net, name, name) for name in net.outputs],
            graph.constants,
        ),
        producer_name="verydeep",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model, values


def compare(net: Net, model: Any, values: dict[str, str]) -> dict[str, float] | None:
    """Run a model and the net it was converted from on the same random input.

    Returns each blob's largest difference relative to its largest value, in the order of the net;
    inf if shapes, or the positions of infinities and NaN, differ. None without onnxruntime.

    Raises:
        SnapshotError: the model does not run.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    inputs = {name: random_input(net, name) for name in net.inputs}
    for name, array in inputs.items():
        net.blobs[name].data.mutable_host()[...] = array
    net.forward()
    # A soft-max hides differences of small scores, so all blobs are compared, not only outputs.
    blobs = {values[name]: name for name in net.blobs if values[name] not in inputs}
    probe = copy_of(model)
    del probe.graph.output[:]
    probe.graph.output.extend(_info(net, name, value) for value, name in blobs.items())
    results = _run(probe.SerializeToString(), list(blobs), inputs) if blobs else []
    return {
        name: relative_difference(got, net.blobs[name].data.host())
        for name, got in zip(blobs.values(), results)
    }


def _run(model: bytes, outputs: list[str], inputs: dict[str, Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        results: list[Array] = session.run(outputs, inputs)
    except Exception as cause:
        # onnxruntime has separate exception classes without a common base.
        raise SnapshotError(
            f"the ONNX model does not run: {cause}; nothing was written; export the weights alone "
            "with --to npz"
        ) from cause
    return results


def _info(net: Net, name: str, value: str) -> Any:
    """Declare a value with the shape of a blob."""
    onnx = import_onnx()
    shape = net.blobs[name].shape
    return onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape)


def _check(net: Net) -> None:
    """Check that the net can be exported.

    Raises:
        UnsupportedError: it cannot.
    """
    if net.phase != proto.TEST:
        raise UnsupportedError(
            f"net '{net.name}': cannot be exported; expected the phase TEST, got TRAIN; "
            "build it for TEST"
        )
    unknown = sorted({layer.type for layer in net.layers if not _has_form(type(layer))})
    if unknown:
        supported = [kind for kind in layer_type_list() if _has_form(class_of(kind))]
        raise UnsupportedError(
            f"net '{net.name}': no ONNX form here for layers of type {', '.join(unknown)}; "
            f"expected types among {', '.join(supported)}; export a deploy prototxt, which has "
            "Input layers and no losses"
        )
    size = sum(blob.count() * 4 for layer in net.layers for blob in layer.blobs)
    if size > _MAX_BYTES:
        raise UnsupportedError(
            f"net '{net.name}': too large for one ONNX file; expected at most 2 GB of weights, "
            f"got {size} bytes; export with --to h5"
        )


def _has_form(cls: type[Layer]) -> bool:
    return cls.to_onnx is not Layer.to_onnx


def _name_outputs(graph: Graph, net: Net, values: dict[str, str]) -> dict[str, str]:
    """Name the values of the net's outputs as their blobs, and return the new names."""
    helper = import_onnx().helper
    made = {name for node in graph.nodes for name in node.output}
    renamed: dict[str, str] = {}
    for name in net.outputs:
        value = values[name]
        if value in made and value not in renamed and name not in net.inputs:
            renamed[value] = name
        elif value != name:
            # A value that already has the name of another output.
            graph.nodes.append(helper.make_node("Identity", [renamed.get(value, value)], [name]))
    for node in graph.nodes:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    names = {blob: renamed.get(value, value) for blob, value in values.items()}
    return {**names, **{name: name for name in net.outputs}}
