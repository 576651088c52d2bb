"""Every backend declares all members of the protocol and implements every op of every group."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.backend import base
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from tests.conformance.device import VARIANTS, default_backends

ROOT = Path(__file__).resolve().parents[3]
GROUPS = {
    name: kind
    for name, kind in typing.get_type_hints(Backend).items()
    if isinstance(kind, type) and kind.__name__.endswith("Ops")
}


@pytest.fixture(params=[*default_backends(), "cpu-bf16", "numpy-bf16"])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    name, options = VARIANTS.get(request.param, (request.param, {}))
    made: Any = create_backend(name, **options)
    yield made
    if not made.shares_host_memory:
        made.driver.close()


def ops_of(group: type) -> set[str]:
    members = inspect.getmembers(group, inspect.isfunction)
    return {name for name, _ in members if not name.startswith("_")}


def test_there_is_a_group_for_each_protocol_of_ops() -> None:
    protocols = {name for name in vars(base) if name.endswith("Ops")}
    assert {group.__name__ for group in GROUPS.values()} == protocols
    assert all(len(ops_of(group)) >= 2 for group in GROUPS.values())


def test_every_member_is_declared(backend: Any) -> None:
    members = {*typing.get_type_hints(Backend), "launches"}
    assert [name for name in sorted(members) if not hasattr(backend, name)] == []


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_op_is_implemented_with_the_parameters_of_its_contract(
    backend: Any, group: str
) -> None:
    protocol, ops = GROUPS[group], getattr(backend, group)
    assert protocol in type(ops).__mro__
    for name in sorted(ops_of(protocol)):
        contract, method = getattr(protocol, name), getattr(type(ops), name)
        assert method is not contract, f"{type(ops).__name__}.{name} is not implemented"
        expected = list(inspect.signature(contract).parameters)
        assert list(inspect.signature(method).parameters) == expected, f"{group}.{name}"


def test_a_backend_has_no_ops_of_its_own(backend: Any) -> None:
    """Ops are called through their groups only: no method forwards to a group."""
    ops = {name for group in GROUPS.values() for name in ops_of(group)}
    assert sorted(ops & set(dir(type(backend)))) == []


def test_no_code_asks_whether_a_backend_has_a_member() -> None:
    asking = re.compile(r"(getattr|hasattr)\((\w+\.)*_?backend\b")
    assert asking.search('getattr(solver.net.backend, "memory", None)')
    files = sorted((ROOT / "runtime").rglob("*.py"))
    assert [str(path) for path in files if asking.search(path.read_text("utf-8"))] == []
