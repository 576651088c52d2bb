"""Damage to binary protobuf messages: fields of the tree, and wrong lengths."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.weights.wire_format import encode_varint
from tests.mutants.damage import BOUNDARIES, damage

_FIXED = {1: 8, 5: 4}
_MOST_DEPTH = 8
_LARGEST_NUMBER = 1000


@dataclass
class Node:
    """One field; `value` is a number, bytes, or the fields of a message."""

    number: int
    wire: int
    value: int | bytes | list[Node]
    lie: int = 0
    """The error of the length that is written."""


def proto_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A sample with changed fields, or damaged as bytes."""
    if rng.random() < 0.35:
        return damage(rng, sample, others)
    tree = _copy(_parsed(sample) or [])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(rng, tree, others)
    return _encoded(tree)


@functools.lru_cache(64)
def _parsed(data: bytes, depth: int = 0) -> list[Node] | None:
    """The fields of a message; None if the bytes are not a message."""
    nodes, position = [], 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if position < 0 or not 0 < number <= _LARGEST_NUMBER:
            return None
        value: int | bytes | list[Node] | None
        if wire == 0:
            value, position = _varint(data, position)
        elif wire == 2:
            size, position = _varint(data, position)
            value = data[position : position + size]
            position = position + size if position >= 0 else -1
        elif wire in _FIXED:
            value = data[position : position + _FIXED[wire]]
            position += _FIXED[wire]
        else:
            return None
        if not 0 <= position <= len(data):
            return None
        if wire == 2 and isinstance(value, bytes) and len(value) > 1 and depth < _MOST_DEPTH:
            value = _parsed(value, depth + 1) or value
        nodes.append(Node(number, wire, value))
    return nodes


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while 0 <= position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    return 0, -1


def _copy(nodes: list[Node]) -> list[Node]:
    return [
        Node(n.number, n.wire, _copy(n.value) if isinstance(n.value, list) else n.value)
        for n in nodes
    ]


def _encoded(nodes: list[Node]) -> bytes:
    parts = []
    for node in nodes:
        parts.append(encode_varint(node.number << 3 | node.wire))
        value = _encoded(node.value) if isinstance(node.value, list) else node.value
        if isinstance(value, int):
            parts.append(encode_varint(value))
        else:
            if node.wire == 2:
                parts.append(encode_varint(max(0, len(value) + node.lie)))
            parts.append(value)
    return b"".join(parts)


def _all_lists(nodes: list[Node]) -> list[list[Node]]:
    lists = [nodes]
    for node in nodes:
        if isinstance(node.value, list):
            lists += _all_lists(node.value)
    return lists


def _change(rng: random.Random, tree: list[Node], others: Sequence[bytes]) -> None:
    fields = rng.choice([nodes for nodes in _all_lists(tree) if nodes] or [tree])
    if not fields:
        return
    place = rng.randrange(len(fields))
    node, kind = fields[place], rng.randrange(10)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields[place:place] = _copy([node]) * rng.choice((1, 1, 3, 100))
    elif kind == 2:
        node.number = rng.choice((1, 2, 3, 4, 5, 7, 8, 9, 50, 100, node.number + 1, 999))
    elif kind == 3:
        node.wire = rng.choice((0, 1, 2, 3, 4, 5, 7))
    elif kind == 4:
        node.lie = rng.choice((-1, 1, 4, 1 << 20, 1 << 31, 1 << 35, 1 << 62))
    elif kind == 5:
        other = _parsed(rng.choice(others))
        donors = rng.choice(_all_lists(other)) if other else fields
        fields[place:place] = _copy(donors[:3])
    elif kind == 6:
        for _ in range(rng.choice((1, 5, 200))):
            node.value, node.wire = [Node(node.number, node.wire, node.value)], 2
    else:
        _change_value(rng, node, others)


def _change_value(rng: random.Random, node: Node, others: Sequence[bytes]) -> None:
    if isinstance(node.value, int):
        change = rng.choice(BOUNDARIES) if rng.random() < 0.8 else node.value + rng.choice((-1, 1))
        node.value = change & (1 << 64) - 1
    elif isinstance(node.value, list):
        node.value = rng.choice((b"", b"\0", b"\xff" * 4, _encoded(node.value)[:-1]))
    else:
        odd = (b"", b"\0", b"\xff\xfe", b"a/b", b"..", b"x" * 300, node.value[:-1], node.value * 2)
        node.value = rng.choice((*odd, damage(rng, node.value, others)))
