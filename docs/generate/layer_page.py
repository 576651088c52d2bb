"""The page of layer types, from the registry, the layers' source and caffe.proto."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from prototxt_gen import proto
from prototxt_gen.dialects import BVLC_TYPES, dialects_of_type, titles
from runtime.core.layer import Layer
from runtime.layers.factory import layer_class, layer_type_list

_GROUPS = ("vectors", "products", "conv", "neurons", "pointwise", "pool", "lrn", "softmax")
"""The groups of ops that compute; a layer that calls `memory` only computes nothing."""
_NOT_OPS = {"conv.plan"}
_HOST_READS = {"host", "mutable_host", "overwritten_host"}
_FIELD = re.compile(r"\s*(optional|repeated|required) (\w+) (\w+) = \d+\s*(\[.*?\])?;\s*(//.*)?")


@dataclass(frozen=True)
class Work:
    """What a layer's source calls: ops that compute, arrays on the host, parameter messages."""

    ops: frozenset[str]
    on_host: bool
    params: frozenset[str]


def page() -> str:
    """The Markdown of the page."""
    types = layer_type_list()
    lines = [*_INTRODUCTION, "", "| Type | CPU | GPU |", "|---|---|---|"]
    for name in types:
        cpu, gpu = places(work_of(layer_class(name, name)))
        lines.append(f"| [{name}](#{name.lower()}) | {cpu} | {gpu} |")
    for name in types:
        lines += ["", *_section(name, layer_class(name, name))]
    lines += ["", *_shared_messages()]
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    "# Layer types",
    "",
    "`type` in a prototxt is one of the names below. Types that BVLC Caffe lacks have the names of",
    "the builds that have them in their sections. Other types are refused with an error.",
    "",
    "**CPU**: *compiled* means ops of the C++ extension, which are computed in NumPy where no",
    "compiler was available at installation; *NumPy* means that the layer computes in NumPy.",
    "",
    "**GPU**: *kernel* means CUDA kernels; *host* means that the layer computes in NumPy on the",
    "host, and its blobs are copied from and to the device. *Kernel, host* means that some modes",
    "or steps of the layer use the host; the layer's section lists the ops that are kernels.",
    "*Memory* means that the layer copies or shares memory and computes nothing. A `Python` layer",
    "runs its own code on the host.",
)


def places(work: Work) -> tuple[str, str]:
    """Where a layer computes on a CPU and on a GPU."""
    if not work.ops:
        return ("NumPy", "host") if work.on_host else ("memory", "memory")
    native = work.ops & _native_ops()
    cpu = "compiled" if native and not work.on_host else "compiled, NumPy" if native else "NumPy"
    return cpu, "kernel, host" if work.on_host else "kernel"


@functools.cache
def _native_ops() -> frozenset[str]:
    """The ops of the CPU backend's compiled groups, as `GROUP.OP`."""
    ops = set()
    for group in _GROUPS:
        module = importlib.import_module(f"runtime.backend.cpu.native_{group}")
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                ops |= {f"{group}.{name}" for name in vars(cls) if not name.startswith("_")}
    return frozenset(ops)


def work_of(cls: type[Layer]) -> Work:
    """Read the source of a layer, its base classes and the helper modules they import."""
    trees = [ast.parse(inspect.getsource(module)) for module in _modules(cls)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    calls = [n.func for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    attribute_nodes = [node for node in nodes if isinstance(node, ast.Attribute)]
    ops = frozenset(_op(node) for node in attribute_nodes) - {""} - _NOT_OPS
    attributes = {node.attr for node in attribute_nodes}
    on_host = any(f.attr in _HOST_READS and not _is_scalar_read(f, nodes) for f in calls)
    fields = {field.name for field in proto.LayerParameter.DESCRIPTOR.fields}
    params = frozenset(a for a in attributes & fields if a.endswith("_param"))
    return Work(ops, on_host, params)


def _op(attribute: ast.Attribute) -> str:
    """`GROUP.OP` for `backend.GROUP.OP` or `GROUP.OP` with a local name, else nothing."""
    group = attribute.value
    if isinstance(group, ast.Name):
        return f"{group.id}.{attribute.attr}" if group.id in _GROUPS else ""
    if not isinstance(group, ast.Attribute) or group.attr not in _GROUPS:
        return ""
    owner = group.value
    owner_name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return f"{group.attr}.{attribute.attr}" if owner_name == "backend" else ""


def _is_scalar_read(function: ast.Attribute, nodes: list[ast.AST]) -> bool:
    """Whether the array is read for a single number, a loss weight: `.host().ravel()[0]`."""
    for node in nodes:
        is_scalar = isinstance(node, ast.Subscript) and _is_integer(node.slice)
        if is_scalar and any(child is function for child in ast.walk(node.value)):
            return True
    return False


def _is_integer(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _modules(cls: type[Layer]) -> Iterator[ModuleType]:
    queue = [b.__module__ for b in cls.__mro__ if b is not Layer and issubclass(b, Layer)]
    layers = {layer_class(name, name).__module__ for name in layer_type_list()}
    seen = set()
    while queue:
        name = queue.pop()
        # Labels are checked on the host, also if a device computes with them.
        if name in seen or name == "runtime.layers.labels":
            continue
        seen.add(name)
        module = importlib.import_module(name)
        yield module
        queue += [name for name in _helpers(module) if name not in layers]


def _helpers(module: ModuleType) -> list[str]:
    """The modules of runtime.layers that a module imports from."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    names = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return [name for name in names if name.startswith("runtime.layers")]


def _section(name: str, cls: type[Layer]) -> list[str]:
    work = work_of(cls)
    cpu, gpu = places(work)
    lines = [f"## {name}", "", inspect.cleandoc(cls.__doc__ or ""), ""]
    lines.append(f"Bottoms: {cls.num_bottom}. Tops: {cls.num_top}. CPU: {cpu}. GPU: {gpu}.")
    if name not in BVLC_TYPES:
        lines += ["", f"Not in BVLC Caffe; from {titles(dialects_of_type(name))}."]
    if work.ops:
        ops = ", ".join(f"`{op}`" for op in sorted(work.ops))
        lines += ["", f"Backend ops: {ops}."]
    for field in sorted(work.params - {"transform_param", "loss_param"}):
        message = proto.LayerParameter.DESCRIPTOR.fields_by_name[field].message_type.name
        lines += ["", f"`{field}`:", "", *_fields(message)]
    for field in sorted(work.params & {"transform_param", "loss_param"}):
        lines += ["", f"[`{field}`](#{field}) applies."]
    return lines


def _shared_messages() -> list[str]:
    lines = []
    for field in ("transform_param", "loss_param"):
        message = proto.LayerParameter.DESCRIPTOR.fields_by_name[field].message_type.name
        lines += [f"## {field}", "", *_fields(message), ""]
    return lines


def _fields(message: str) -> list[str]:
    """A table of a message's fields, with the comments of caffe.proto."""
    text = re.search(rf"^message {message} {{\n(.*?)^}}", proto.schema_text(), re.M | re.S)
    if text is None:
        raise ValueError(f"caffe.proto: no message {message}")
    lines = ["| Field | Type | Default | |", "|---|---|---|---|"]
    for match in filter(None, map(_FIELD.match, text[1].splitlines())):
        label, kind, name, options, comment = match.groups()
        default = re.search(r"default = ([^\]]+)", options or "")
        kind = f"{kind}, repeated" if label == "repeated" else kind
        note = (comment or "").removeprefix("//").strip()
        lines.append(f"| `{name}` | {kind} | {default[1] if default else ''} | {note} |")
    return lines
