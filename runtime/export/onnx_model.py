"""Converts a net with its weights to an ONNX model, and compares their results."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError, UnsupportedError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import copy_of
from runtime.core.layer import Layer
from runtime.export.comparison import TOLERANCE, random_input, relative_difference
from runtime.export.onnx_graph import OPSETS, Array, Graph, Step, import_onnx
from runtime.export.onnx_half import to_half
from runtime.export.onnx_images import add_images, prepared
from runtime.export.onnx_options import OnnxOptions, reshaped, shapes_to_compare, shapes_to_trace
from runtime.export.onnx_sizes import Shape, Shapes, Trace, free_axes, merge
from runtime.layers.factory import class_of, layer_type_list
from runtime.net import Net

HALF_TOLERANCE = 2e-2
"""The tolerance of float16, which has 11 bits."""
_MAX_BYTES = 2**31 - 1

_DEFAULTS = OnnxOptions()


def export_onnx(
    net: Net, path: str | os.PathLike[str], options: OnnxOptions = _DEFAULTS
) -> float | None:
    """Write a net in the phase TEST as an ONNX model.

    Before it is written, each blob of the model is compared with the net's on random input, at
    several sizes of the inputs if the model takes any. Returns the largest difference, relative to
    the blob's largest value; None if onnxruntime is not installed, and nothing was compared.

    Raises:
        UnsupportedError: onnx is not installed, or a layer has no ONNX form here.
        SnapshotError: the results of the model differ, or it cannot be written.
    """
    model, values = to_onnx(net, options)
    tolerance = HALF_TOLERANCE if options.half else TOLERANCE
    largest: float | None = None
    for shapes in shapes_to_compare(net, options):
        differences = compare(net, model, values, shapes, options)
        for name, difference in (differences or {}).items():
            if not difference <= tolerance:
                raise SnapshotError(
                    f"{path}: the ONNX model computes another blob '{name}'; expected a "
                    f"difference of at most {tolerance:g}, got {difference:.2g}; nothing was "
                    "written; export the weights alone with --to npz"
                )
        if differences is not None:
            largest = max(largest or 0.0, *differences.values(), 0.0)
    with atomic_write(path, "wb", SnapshotError) as stream:
        stream.write(model.SerializeToString())
    return largest


def to_onnx(net: Net, options: OnnxOptions = _DEFAULTS) -> tuple[Any, dict[str, str]]:
    """The ModelProto of a net in the phase TEST, and the names of its values by blob.

    Raises:
        UnsupportedError: onnx is not installed, a layer has no ONNX form here, or the weights
            exceed 2 GB.
    """
    onnx = import_onnx()
    _check(net, options)
    first, values = _trace(net, options)
    graph, traces = first.graph, [first]
    if options.any_batch or options.any_size:
        for shapes in shapes_to_trace(net, options):
            with reshaped(net, shapes, options):
                traces.append(_trace(net, options)[0])
        graph = merge(traces, net.name)
    values = _name_outputs(graph, net, values)
    if options.half:
        graph = to_half(graph, net.inputs, net.outputs, net.name)
    inputs = _inputs(net, traces)
    if options.images is not None:
        value = add_images(graph, net, options.images)
        sizes = ["height", "width", options.images.channels]
        batch = inputs[0].type.tensor_type.shape.dim[0]
        shape = [batch.dim_param or batch.dim_value, *sizes]
        inputs = [onnx.helper.make_tensor_value_info(value, onnx.TensorProto.UINT8, shape)]
    names = _size_names(net, traces)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            net.name or "net",
            inputs,
            [
                _info(name, free_axes([trace.shapes for trace in traces], names, name))
                for name in net.outputs
            ],
            [
                onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
                for name, value in graph.constants.items()
            ],
        ),
        producer_name="verydeep",
        opset_imports=[onnx.helper.make_opsetid("", options.opset)],
        ir_version=onnx.helper.find_min_ir_version_for(
            [onnx.helper.make_opsetid("", options.opset)]
        ),
    )
    onnx.helper.set_model_props(model, dict(options.metadata))
    onnx.checker.check_model(model)
    return model, values


def compare(
    net: Net,
    model: Any,
    values: dict[str, str],
    shapes: Shapes | None = None,
    options: OnnxOptions = _DEFAULTS,
) -> dict[str, float] | None:
    """Run a model and the net it was converted from on the same random input.

    `shapes` are those of the inputs, by default the net's. Returns each blob's largest difference
    relative to its largest value, in the order of the net; inf if shapes, or the positions of
    infinities and NaN, differ. None without onnxruntime.

    Raises:
        SnapshotError: the model does not run.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    with reshaped(net, shapes or {}, options):
        feeds = inputs = {name: random_input(net, name) for name in net.inputs}
        if options.images is not None:
            feeds = {str(model.graph.input[0].name): _random_images(net, options)}
            (images,) = feeds.values()
            inputs = {net.inputs[0]: prepared(images, net, options.images, options.any_size)}
        for name, array in inputs.items():
            net.blobs[name].data.mutable_host()[...] = array
        net.forward()
        # A soft-max hides differences of small scores, so all blobs are compared, not only outputs.
        compared = net.outputs if options.half else net.blobs
        blobs = {values[name]: name for name in compared if values[name] not in inputs}
        probe = copy_of(model)
        del probe.graph.output[:]
        probe.graph.output.extend(_info(value, None) for value in blobs)
        results = _run(probe.SerializeToString(), list(blobs), feeds) if blobs else []
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


def _random_images(net: Net, options: OnnxOptions) -> Array:
    """Images for the net's input, larger than it where the model crops them."""
    count, depth, height, width = net.blobs[net.inputs[0]].shape
    margin = (0, 0) if options.any_size else (3, 6)
    shape = (count, height + margin[0], width + margin[1], depth)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _trace(net: Net, options: OnnxOptions) -> tuple[Trace, dict[str, str]]:
    """The graph of the net at its current shapes, and the names of its values by blob."""
    graph = Graph(opset=options.opset, any_size=options.any_size)
    # Reserved, so that no weight or intermediate value has the name of a blob.
    values = {name: graph.fresh(name) for name in net.blobs}
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        inputs = [values[name] for name in layer.param.bottom]
        outputs = layer.to_onnx(Step(graph, layer, inputs, bottom, top))
        values.update(zip(layer.param.top, outputs))
    shapes = [
        {name: net.blobs[name].shape for name in names} for names in (net.inputs, net.outputs)
    ]
    return Trace(graph, *shapes), values


def _size_names(net: Net, traces: Sequence[Trace]) -> dict[Shape, str]:
    """The names of free sizes, by their values in the traces."""
    if not net.inputs:
        return {}
    columns = list(zip(*(trace.inputs[net.inputs[0]] for trace in traces)))
    names = ["batch", "channels", "height", "width"] if len(columns) == 4 else ["batch"]
    return dict(reversed(list(zip(columns, names))))


def _inputs(net: Net, traces: Sequence[Trace]) -> list[Any]:
    names = _size_names(net, traces)
    shapes = [trace.inputs for trace in traces]
    return [_info(name, free_axes(shapes, names, name)) for name in net.inputs]


def _info(value: str, shape: list[int | str] | None) -> Any:
    """Declare a value of floats; None for an unknown shape."""
    onnx = import_onnx()
    return onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape)


def _check(net: Net, options: OnnxOptions) -> None:
    """Check that the net can be exported.

    Raises:
        UnsupportedError: it cannot.
    """
    newest = min(OPSETS[-1], import_onnx().defs.onnx_opset_version())
    if not OPSETS[0] <= options.opset <= newest:
        raise UnsupportedError(
            f"--opset {options.opset}: cannot be written; expected {OPSETS[0]} to {newest}, which "
            "the installed onnx supports; choose one of them"
        )
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
