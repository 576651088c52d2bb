"""Nets written in Python: `n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=8)`.

`L` is `layers`, `P` is `params`. Tops that are assigned to a NetSpec have the name of the
attribute; all others are named by type and a number. Caffe: net_spec.py, with the same interface.
"""

from __future__ import annotations

import difflib
import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.number_limits import check_layer
from prototxt_gen.proto import Message
from prototxt_gen.reading import short_repr

_MOST_TOPS = 1 << 16
_Layers: TypeAlias = "dict[Function, Message]"
_Names: TypeAlias = "dict[Top | Function, str]"


def to_proto(*tops: Top | Function) -> Message:
    """A NetParameter of the layers that the tops depend on, named by type and number.

    Raises:
        ProtoError: a layer has an unknown parameter, or a value that does not fit.
    """
    made: _Layers = {}
    names: _Names = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(made, names, autonames)
    return proto.NetParameter(layer=list(made.values()))


class Top:
    """One output of a layer: top `n` of `fn`."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> Message:
        """A NetParameter of the layers that this top depends on; see the function `to_proto`."""
        return to_proto(self)

    def _to_proto(self, made: _Layers, names: _Names, autonames: Counter[str]) -> None:
        self.fn._to_proto(made, names, autonames)


class Function:
    """A layer under construction: its type, inputs, parameters and tops."""

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]) -> None:
        for index, item in enumerate(inputs):
            if not isinstance(item, Top):
                # The same message as in pycaffe, which callers may match.
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(item)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop = _count_of_tops(type_name, self.params.pop("ntop", 1))
        self.in_place = bool(self.params.pop("in_place", False))
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    @property
    def fn(self) -> Function:
        """The layer itself, so that a layer without tops can be used in place of a top."""
        return self

    def _to_proto(self, made: _Layers, names: _Names, autonames: Counter[str]) -> None:
        # An explicit stack, since a net may be deeper than Python's recursion limit.
        stack = [self]
        while stack:
            current = stack[-1]
            if current in made:
                stack.pop()
                continue
            missing = next((top.fn for top in current.inputs if top.fn not in made), None)
            if missing is None:
                made[current] = current._layer(made, names, autonames)
            else:
                stack.append(missing)

    def _layer(self, made: _Layers, names: _Names, autonames: Counter[str]) -> Message:
        layer = proto.LayerParameter(type=self.type_name)
        layer.bottom.extend(made[top.fn].top[top.n] for top in self.inputs)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend(_name_of(top, self.type_name, names, autonames) for top in self.tops)
        named = self.tops[0] if self.tops and self not in names else self
        layer.name = _name_of(named, self.type_name, names, autonames)
        field = _param_fields().get(self.type_name)
        own = getattr(layer, field) if field else layer
        for key, value in self.params.items():
            general = key.endswith("param") or (_has(layer, key) and not _has(own, key))
            label = f"layer {layer.name!r} ({self.type_name}), {key}"
            assign_proto(layer if general else own, key, value, label)
        check_layer(layer)
        return layer


class NetSpec:
    """A net under construction: assigning a top to an attribute or an item names it.

    Layers without tops (`ntop=0`) are assigned in the same way.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "tops" or name not in self.tops:
            raise AttributeError(f"the NetSpec has no top {name!r}")
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        if name not in self.tops:
            raise AttributeError(f"the NetSpec has no top {name!r}")
        del self.tops[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def to_proto(self) -> Message:
        """A NetParameter of the assigned layers, with the assigned names, in that order.

        Raises:
            ProtoError: a value is not a layer, or see the function `to_proto`.
        """
        for name, top in self.tops.items():
            if not isinstance(top, (Top, Function)):
                raise ProtoError(
                    f"NetSpec.{name}: not a layer; expected a top, got {type(top)}; if a layer "
                    "has several tops, assign each: n.data, n.label = L.Data(ntop=2)"
                )
        made: _Layers = {}
        names: _Names = {top: name for name, top in self.tops.items()}
        autonames: Counter[str] = Counter()
        for top in self.tops.values():
            top._to_proto(made, names, autonames)
        return proto.NetParameter(layer=list(made.values()))


class Layers:
    """`L.Convolution(bottom, kernel_size=3)`: a function for any layer type, even unknown ones.

    It takes tops and returns a top, a tuple of tops (`ntop=2`), or the layer itself (`ntop=0`).
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer_fn(*inputs: Top, **params: Any) -> Top | Function | tuple[Top, ...]:
            fn = Function(name, inputs, params)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer_fn


class Constants:
    """The enum values of one parameter message: `P.Pooling.MAX`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, value: str) -> Any:
        message = f"{self._name}Parameter"
        enums = getattr(proto, message, None)
        if enums is None or not hasattr(enums, value):
            raise AttributeError(
                f"P.{self._name}.{value}: no such constant; expected an enum value of a parameter "
                f"message, got {value!r} of {message}; see the schema for its values"
            )
        return getattr(enums, value)


class Parameters:
    """`P.Pooling`, `P.Data` ...: the constants of each parameter message."""

    def __getattr__(self, name: str) -> Constants:
        if name.startswith("__"):
            raise AttributeError(name)
        return Constants(name)


layers = Layers()
params = Parameters()


def assign_proto(message: Message, name: str, value: Any, where: str) -> None:
    """Set a field to a Python value: dicts are messages, lists are repeated fields.

    Raises:
        ProtoError: the message has no such field, or the value does not fit it.
    """
    if not _has(message, name):
        names = [field.name for field in message.DESCRIPTOR.fields]
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise ProtoError(
            f"{where}: unknown parameter; expected a field of {message.DESCRIPTOR.name}"
            f"{' such as ' + ' or '.join(nearest) if nearest else ''}, got {name!r}; correct it, "
            "or give it within its message: convolution_param=dict(...)"
        )
    field = message.DESCRIPTOR.fields_by_name[name]
    many = proto.is_repeated(field)
    if hasattr(value, "tolist"):
        # NumPy arrays and scalars.
        value = value.tolist()
    items = value if many and isinstance(value, (list, tuple)) else [value]
    try:
        for item in items:
            _assign_one(message, field, many, item, where)
    except (TypeError, ValueError, AttributeError, OverflowError) as cause:
        raise ProtoError(
            f"{where}: the value does not fit {name}; expected {_kind(field)}, got "
            f"{short_repr(value)}; correct it"
        ) from cause


def _assign_one(message: Message, field: Any, many: bool, item: Any, where: str) -> None:
    if field.message_type is not None:
        target = getattr(message, field.name)
        target = target.add() if many else target
        if hasattr(item, "SerializeToString"):
            target.MergeFromString(item.SerializeToString())
        else:
            for key, value in item.items():
                assign_proto(target, key, value, f"{where}.{key}")
        return
    if field.enum_type is not None and isinstance(item, str):
        if item not in field.enum_type.values_by_name:
            raise ValueError(item)
        item = field.enum_type.values_by_name[item].number
    if many:
        getattr(message, field.name).append(item)
    else:
        setattr(message, field.name, item)


def _kind(field: Any) -> str:
    if field.message_type is not None:
        return f"a dict of the fields of {field.message_type.name}"
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    return str(proto.type_name(field))


def _count_of_tops(type_name: str, ntop: Any) -> int:
    try:
        count = operator.index(ntop)
    except TypeError:
        count = -1
    if not 0 <= count <= _MOST_TOPS:
        raise ProtoError(
            f"{type_name}, ntop: out of range; expected a number of tops from 0 to {_MOST_TOPS}, "
            f"got {short_repr(ntop)}; correct it"
        )
    return count


def _has(message: Message, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name


def _name_of(item: Top | Function, type_name: str, names: _Names, autonames: Counter[str]) -> str:
    if item not in names:
        autonames[type_name] += 1
        names[item] = f"{type_name}{autonames[type_name]}"
    return names[item]


@functools.cache
def _param_fields() -> dict[str, str]:
    """The field of LayerParameter with the parameters of a type, by the type."""
    fields: Iterable[Any] = proto.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name
        for field in fields
        if field.name.endswith("_param")
    }
