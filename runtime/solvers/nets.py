"""The nets that a SolverParameter trains and tests, and their states.

Caffe: Solver::InitTrainNet, Solver::InitTestNets.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.proto import copy_of
from prototxt_gen.upgrade import upgrade_net
from runtime.net import Net

log = logging.getLogger("verydeep.solver")

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True)
class NetSource:
    """A net to build: its NetParameter, its NetState and its origin."""

    param: Any
    state: Any
    source: str
    path: Path | None = None
    """The net's own file, for the positions in errors; None for a net in the solver."""


def train_net_source(param: Any, root: Path) -> NetSource:
    """The train net of a SolverParameter.

    Raises:
        ProtoError: none or several of the four fields with a train net are set.
    """
    given = [key for key in _TRAIN_FIELDS if param.HasField(key)]
    names = ", ".join(_TRAIN_FIELDS)
    if not given:
        raise ProtoError(
            f"solver: SolverParameter must specify a train net using one of these fields: {names}; "
            "expected one, got none; add net"
        )
    if len(given) > 1:
        raise ProtoError(
            "solver: SolverParameter must not contain more than one of these fields specifying a "
            f"train_net: {names}; expected one, got {', '.join(given)}; remove the others"
        )
    key = given[0]
    name, path = getattr(param, key), None
    if key.endswith("_param"):
        net, source = _embedded(name, key), f"specified in {key}."
    else:
        path = root / name
        net, source = text.read_net(path), f"from {key} file: {name}"
    return NetSource(net, _state(proto.TRAIN, net, param.train_state), source, path)


def test_net_sources(param: Any, root: Path) -> list[NetSource]:
    """The test nets: test_net_param, then test_net, then the train net for further test_iter.

    Raises:
        ProtoError: the number of test_iter or test_state is wrong, or test_interval is missing.
    """
    _check_test_fields(param)
    further = len(param.test_iter) - len(param.test_net_param) - len(param.test_net)
    nets: list[tuple[Any, str, Path | None]] = [
        (_embedded(net, "test_net_param"), "test_net_param", None) for net in param.test_net_param
    ]
    files = [("test_net", path) for path in param.test_net]
    if param.HasField("net_param"):
        shared = _embedded(param.net_param, "net_param")
        nets += [(shared, "net_param", None)] * further
    else:
        files += [("net", param.net)] * further
    nets += [
        (text.read_net(root / path), f"{key} file: {path}", root / path) for key, path in files
    ]
    states = list(param.test_state) or [proto.NetState() for _ in nets]
    return [
        NetSource(net, _state(proto.TEST, net, state), source, path)
        for (net, source, path), state in zip(nets, states)
    ]


def _check_test_fields(param: Any) -> None:
    """Check the numbers of test_iter and test_state, and test_interval."""
    named = len(param.test_net_param) + len(param.test_net)
    generic = param.HasField("net") or param.HasField("net_param")
    count = len(param.test_iter)
    if count < named or (count != named and not generic):
        raise ProtoError(
            "solver: test_iter must be specified for each test network.; expected "
            f"{'at least ' if generic else ''}{named}, got {count}; give one test_iter a test net"
        )
    if param.test_state and len(param.test_state) != count:
        raise ProtoError(
            "solver: test_state must be unspecified or specified once per test net.; expected "
            f"0 or {count}, got {len(param.test_state)}; correct test_state"
        )
    if count and param.test_interval <= 0:
        raise ProtoError(
            "solver: test_interval must be positive where there is a test net; expected at least "
            f"1, got {param.test_interval}; set test_interval, or remove test_iter"
        )


def share_trained_layers(target: Net, source: Net) -> list[str]:
    """Share the source's weights with layers of the same name.

    Returns the names of the layers with weights of their own. Caffe: Net::ShareTrainedLayersWith.

    Raises:
        ShapeError: the blobs of two layers with one name differ in number or shape.
    """
    shared = set()
    for layer in source.layers:
        other = target.layer_by_name(layer.param.name)
        if other is None:
            continue
        shared.add(str(layer.param.name))
        if len(layer.blobs) != len(other.blobs):
            raise ShapeError(
                f"{other.label}: Incompatible number of blobs; expected {len(layer.blobs)} as in "
                f"the train net, got {len(other.blobs)}; make the layers alike, or rename one"
            )
        for mine, theirs in zip(other.blobs, layer.blobs):
            if mine.shape != theirs.shape:
                raise ShapeError(
                    f"{other.label}: Cannot share weights with the train net; shape mismatch; "
                    f"expected {theirs.shape}, got {mine.shape}; make the layers alike, or rename "
                    "one"
                )
            mine.share_data(theirs)
    return [
        str(layer.param.name)
        for layer in target.layers
        if layer.blobs and layer.param.name not in shared
    ]


def _embedded(net: Any, key: str) -> Any:
    copy = copy_of(net)
    for sentence in upgrade_net(copy, key):
        log.info("%s: %s", key, sentence)
    return copy


def _state(phase: int, net: Any, solver_state: Any) -> Any:
    """Merge the default state of a phase, the net's own state, and the solver's for this net."""
    state = proto.NetState()
    state.phase = phase
    state.MergeFrom(net.state)
    state.MergeFrom(solver_state)
    return state
