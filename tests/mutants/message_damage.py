"""Damage to the fields of prototxt: set, removed, repeated and moved; the text still parses."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import text_format

from tests.mutants.case import Mutate
from tests.mutants.text_damage import text_damage

_INTEGERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 1000, -1, -2, -5, 1 << 16, 1 << 24, 1 << 30)
_LIMITS = ((1 << 31) - 1, -(1 << 31), (1 << 32) - 1, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
_FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 10.0, 1e-8, 1e-46, 1e9, 3.4e38, -3.4e38,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
_STRINGS = ("", " ", "x", ".", "..", "a/b", "x" * 300, "é", "\0", "%s", "\n", "L1", "0")
_RANGES = {3: (-(1 << 63), (1 << 63) - 1), 4: (0, (1 << 64) - 1),
           5: (-(1 << 31), (1 << 31) - 1), 13: (0, (1 << 32) - 1)}  # fmt: skip
_MESSAGE, _ENUM, _STRING, _BYTES, _BOOL = 11, 14, 9, 12, 8


def message_damage(cls: Any, names: Sequence[str], words: Sequence[bytes]) -> Mutate:
    """Damage for the text of a message class; `names` are strings that the class uses."""
    as_text = text_damage(words)
    parsed = functools.lru_cache(256)(lambda sample: text_format.Parse(sample, cls()))

    def mutate(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
        if rng.random() < 0.3:
            return as_text(rng, sample, others)
        message = cls()
        message.CopyFrom(parsed(sample))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            _change(rng, message, names)
        return text_format.MessageToString(message, as_utf8=True).encode(errors="replace")

    return mutate


def _change(rng: random.Random, root: Any, names: Sequence[str]) -> None:
    messages = _messages(root)
    message = rng.choice(messages)
    fields = [field for field, _ in message.ListFields()]
    kind = rng.random()
    if kind < 0.25 or not fields:
        _set(rng, message, _unset_field(rng, message), root, names)
    elif kind < 0.32:
        message.ClearField(rng.choice(fields).name)
    elif kind < 0.45:
        _rearrange(rng, message, fields)
    else:
        scalars = [field for field in fields if field.type != _MESSAGE]
        _set(rng, message, rng.choice(scalars or fields), root, names)


def _messages(message: Any) -> list[Any]:
    messages = [message]
    for field, value in message.ListFields():
        if field.type == _MESSAGE:
            for child in value if _is_repeated(value) else [value]:
                messages += _messages(child)
    return messages


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _unset_field(rng: random.Random, message: Any) -> Any:
    """A random field of the message's class, rarely of the parameters of other layer types."""
    fields = message.DESCRIPTOR.fields
    field = rng.choice(fields)
    for _ in range(8):
        if field.type != _MESSAGE or not field.name.endswith("_param"):
            break
        field = rng.choice(fields)
    return field


def _set(rng: random.Random, message: Any, field: Any, root: Any, names: Sequence[str]) -> None:
    value = getattr(message, field.name)
    if field.type == _MESSAGE:
        if _is_repeated(value):
            value.add()
        else:
            value.SetInParent()
        return
    new = _value(rng, field, value, root, names)
    if not _is_repeated(value):
        setattr(message, field.name, new)
    elif len(value) and rng.random() < 0.6:
        value[rng.randrange(len(value))] = new
    else:
        value.extend([new] * rng.choice((1, 1, 1, 2, 40)))


def _value(rng: random.Random, field: Any, old: Any, root: Any, names: Sequence[str]) -> Any:
    if field.type == _ENUM:
        return rng.choice(field.enum_type.values).number
    if field.type == _BOOL:
        return rng.random() < 0.5
    if field.type in (_STRING, _BYTES):
        strings = _strings(root)
        text = rng.choice(rng.choice((strings or names, names or strings, _STRINGS)))
        return text.encode() if field.type == _BYTES else text
    limits = _RANGES.get(field.type)
    if not limits:
        return rng.choice(_FLOATS)
    number = rng.choice(_INTEGERS) if rng.random() < 0.8 else rng.choice(_LIMITS)
    if isinstance(old, int) and rng.random() < 0.3:
        number = old + rng.choice((-1, 1))
    return min(max(number, limits[0]), limits[1])


def _strings(root: Any) -> list[str]:
    """The strings in the message, mostly names of blobs and layers."""
    return [
        text
        for message in _messages(root)
        for field, value in message.ListFields()
        if field.type == _STRING
        for text in (value if _is_repeated(value) else [value])
    ]


def _rearrange(rng: random.Random, message: Any, fields: Sequence[Any]) -> None:
    """Remove, repeat or move one element of a repeated field."""
    lists = [getattr(message, field.name) for field in fields]
    lists = [item for item in lists if _is_repeated(item)]
    if not lists:
        return
    elements = rng.choice(lists)
    place = rng.randrange(len(elements))
    step: Callable[[], object] = rng.choice(
        (
            lambda: elements.pop(place),
            lambda: elements.extend([elements[place]]),
            lambda: elements.insert(0, elements.pop(place)),
        )
    )
    step()
