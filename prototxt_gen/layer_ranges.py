"""Selects layers by names, beginnings of names, and ranges such as `conv1..conv3`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prototxt_gen.errors import ProtoError

_RANGE = ".."
_SHOWN = 12


def select_layers(words: Sequence[str], names: Sequence[str], key: str) -> tuple[str, ...]:
    """The layers that any of the words selects, in the order of `names`.

    A word selects the layers whose names continue it with something else than a digit, so `conv1`
    selects conv1, conv1_2 and conv1/7x7, but not conv10. A range selects all layers from the first
    one of its first word to the last one of its second word. `key` is the setting in errors.

    Raises:
        ProtoError: a word selects no layer, or a range ends before it starts.
    """
    chosen = {name for word in words for name in _selected(word, names, key)}
    return tuple(name for name in names if name in chosen)


def _selected(word: str, names: Sequence[str], key: str) -> list[str]:
    first, _, last = word.partition(_RANGE)
    starts = [place for place, name in enumerate(names) if _begins(name, first)]
    ends = [place for place, name in enumerate(names) if _begins(name, last or first)]
    for part, places in ((first, starts), (last or first, ends)):
        if not places:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise ProtoError(
                f"{key} {word}: no layer with weights is called '{part}' or begins so; expected "
                f"one of {shown}; correct the name"
            )
    if not last:
        return [names[place] for place in starts]
    if starts[0] > ends[-1]:
        raise ProtoError(
            f"{key} {word}: '{last}' comes before '{first}'; expected a range in the order of the "
            "net; exchange the names"
        )
    return list(names[starts[0] : ends[-1] + 1])


def _begins(name: str, word: str) -> bool:
    return bool(word) and re.match(rf"{re.escape(word)}(?![0-9])", name) is not None
