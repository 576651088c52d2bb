"""All that prevents a net from being built: layer types that do not exist, and missing sources."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from prototxt_gen.errors import DataError, UnsupportedError, VerydeepError
from prototxt_gen.locate import layer_place
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.layers.factory import layer_type_list
from runtime.net.building import filter_net, net_state
from runtime.net.shape_net import is_source, shape_net

_MANY = 20


def missing_parts(
    param: Any,
    phase: int,
    backend: Backend,
    context: RunContext,
    level: int = 0,
    stages: Sequence[str] = (),
) -> list[tuple[str, VerydeepError]]:
    """The layers whose type or data is missing, with the error of each."""
    types = layer_type_list()
    problems: list[tuple[str, VerydeepError]] = []
    for layer in filter_net(param, net_state(phase, level, stages)).layer:
        name, kind = str(layer.name), str(layer.type)
        if kind not in types:
            near = difflib.get_close_matches(kind, types, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"layer '{name}': unknown layer type '{kind}'{hint}"
            problems.append((name, UnsupportedError(message)))
        elif is_source(layer):
            single = type(param)(name=param.name)
            single.layer.add().CopyFrom(layer)
            try:
                shape_net(single, phase, backend, context, level, stages).close()
            except (DataError, UnsupportedError) as error:
                problems.append((name, error))
            except VerydeepError:
                continue
    return problems


def joined(
    problems: Sequence[tuple[str, VerydeepError]], text: str | None, where: str, known: str
) -> VerydeepError:
    """One error that lists several, each with its place in the prototxt."""
    lines = []
    for name, error in problems[:_MANY]:
        place = None if text is None else layer_place(text, name)
        lines.append(f"  {where}:{place[0]}:{place[1]}: {error}" if place else f"  {error}")
    if len(problems) > _MANY:
        lines.append(f"  and {len(problems) - _MANY} more")
    unsupported = any(isinstance(error, UnsupportedError) for _, error in problems)
    end = f"\nknown layer types: {known}" if unsupported else ""
    kind = UnsupportedError if unsupported else DataError
    return kind(
        f"{where}: {len(problems)} parts of the net are missing; expected layer types of Caffe, "
        "and data or its shape; correct each of:\n" + "\n".join(lines) + end
    )
