"""Filter a NetParameter by phase, level and stage, and insert implicit splits.

Caffe: Net::FilterNet (net.cpp) and insert_splits.cpp.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import copy_of

log = logging.getLogger("verydeep.net")

TopIndex = tuple[int, int]
PHASE_NAMES = ("TRAIN", "TEST")


def net_state(phase: int, level: int = 0, stages: Sequence[str] = ()) -> Any:
    """The NetState that include and exclude rules are compared with."""
    state = proto.NetState()
    state.phase, state.level = phase, level
    state.stage.extend(stages)
    return state


def state_meets_rule(state: Any, rule: Any) -> str:
    """An empty string if the state meets the rule, else the reason why not, in Caffe's words."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return (
            f"The NetState phase ({PHASE_NAMES[state.phase]}) differed from the phase "
            f"({PHASE_NAMES[rule.phase]}) specified by a rule"
        )
    if rule.HasField("min_level") and state.level < rule.min_level:
        return f"The NetState level ({state.level}) is below the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return f"The NetState level ({state.level}) is above the max_level ({rule.max_level})"
    stages = set(state.stage)
    for stage in rule.stage:
        if stage not in stages:
            return f"The NetState did not contain stage '{stage}' specified by a rule"
    for stage in rule.not_stage:
        if stage in stages:
            return f"The NetState contained a not_stage '{stage}' specified by a rule"
    return ""


def filter_net(param: Any, state: Any) -> Any:
    """A copy of a net with the layers that include and exclude rules select.

    Raises:
        ProtoError: a layer has both include and exclude rules.
    """
    kept = copy_of(param)
    del kept.layer[:]
    kept.state.CopyFrom(state)
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise ProtoError(
                f"layer '{layer.name}': has include and exclude rules; expected rules of one kind; "
                "remove the others"
            )
        if layer.include:
            reasons = [state_meets_rule(state, rule) for rule in layer.include]
            keep = "" in reasons
        else:
            reasons = [state_meets_rule(state, rule) for rule in layer.exclude]
            keep = "" not in reasons
        if keep:
            kept.layer.add().CopyFrom(layer)
        else:
            for reason in filter(None, reasons):
                log.info("%s in layer %s", reason, layer.name)
    return kept


def split_layer_name(layer: str, blob: str, index: int) -> str:
    return f"{blob}_{layer}_{index}_split"


def split_blob_name(layer: str, blob: str, index: int, split: int) -> str:
    return f"{split_layer_name(layer, blob, index)}_{split}"


class _Usage:
    """The source top of each bottom, the number of readers of each top, and loss weights."""

    def __init__(self, param: Any) -> None:
        self.source: dict[TopIndex, TopIndex] = {}
        self.readers: Counter[TopIndex] = Counter()
        self.loss_weight: dict[TopIndex, float] = {}
        latest: dict[str, TopIndex] = {}
        for i, layer in enumerate(param.layer):
            for j, blob in enumerate(layer.bottom):
                if blob not in latest:
                    raise ProtoError(_unknown_bottom(layer, j, blob, latest))
                self.source[i, j] = latest[blob]
                self.readers[latest[blob]] += 1
            for j, blob in enumerate(layer.top):
                latest[blob] = (i, j)
            for j, weight in enumerate(list(layer.loss_weight)[: len(layer.top)]):
                if weight:
                    # A top with a loss weight that is also read needs a copy for the loss.
                    self.loss_weight[i, j] = weight
                    self.readers[i, j] += 1


def _unknown_bottom(layer: Any, index: int, blob: str, tops: dict[str, TopIndex]) -> str:
    near = difflib.get_close_matches(blob, tops, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "add a layer with this top before it"
    names = ", ".join(tops) or "none"
    return (
        f"layer '{layer.name}': unknown bottom blob '{blob}' (bottom index {index}); expected a "
        f"top of an earlier layer ({names}); {hint}"
    )


def insert_splits(param: Any) -> Any:
    """Insert a Split, named as in Caffe, after each top that several layers read.

    Raises:
        ProtoError: a bottom is not a top of an earlier layer.
    """
    usage = _Usage(param)
    split = copy_of(param)
    del split.layer[:]
    next_copy: Counter[TopIndex] = Counter()
    for i, layer in enumerate(param.layer):
        out = split.layer.add()
        out.CopyFrom(layer)
        for j, blob in enumerate(layer.bottom):
            source = usage.source[i, j]
            if usage.readers[source] > 1:
                name = param.layer[source[0]].name
                out.bottom[j] = split_blob_name(name, blob, source[1], next_copy[source])
                next_copy[source] += 1
        for j, blob in enumerate(layer.top):
            if usage.readers[i, j] > 1:
                weight = usage.loss_weight.get((i, j), 0.0)
                _add_split(split, layer.name, blob, j, usage.readers[i, j], weight)
                if weight:
                    out.ClearField("loss_weight")
                    next_copy[i, j] += 1
    return split


def _add_split(param: Any, layer: str, blob: str, index: int, copies: int, weight: float) -> None:
    out = param.layer.add()
    out.name, out.type = split_layer_name(layer, blob, index), "Split"
    out.bottom.append(blob)
    for k in range(copies):
        out.top.append(split_blob_name(layer, blob, index, k))
        if weight:
            out.loss_weight.append(weight if k == 0 else 0.0)
