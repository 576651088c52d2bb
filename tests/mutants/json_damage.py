"""Damage to JSON: values of another type or size anywhere in the tree."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from tests.mutants.text_damage import text_damage

_DEEP: list[Any] = []
for _ in range(50):
    _DEEP = [_DEEP]
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1e308, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400,
    float("nan"), float("inf"), "", "0", "1", "nan", "x" * 300, "\0", "\ud800", "../x", "a/b",
    [], {}, [0], [[]], [None], ["a"], {"a": 1}, [1, [2, "x"]], _DEEP,
)  # fmt: skip
_AS_TEXT = text_damage((b"null", b"true", b"[]", b"{}", b'"0"', b"NaN", b"-Infinity"))


def json_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A sample with changed values, or damaged as text."""
    if rng.random() < 0.4:
        return _AS_TEXT(rng, sample, others)
    root = [json.loads(sample)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng, root)
    return json.dumps(root[0] if root else None, indent=rng.choice((None, 1))).encode()


def _change(rng: random.Random, root: Any) -> None:
    places = list(_places(root))
    if not places:
        return
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, dict):
        parent[rng.choice((f"{key}x", "", "format", "name", key.upper()))] = parent.pop(key)
    elif kind < 0.35:
        other, place = rng.choice(places)
        parent[key] = copy.deepcopy(other[place])
    elif kind < 0.45 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[key] = copy.deepcopy(rng.choice(_VALUES))


def _places(node: Any) -> Any:
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in list(keys):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])
