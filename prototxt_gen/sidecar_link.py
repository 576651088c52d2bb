"""The link between a solver prototxt and its sidecar, and the check that the two agree.

A generated solver names its sidecar in a comment, which original Caffe ignores, so that a copy of
the solver under another name or in another folder keeps it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prototxt_gen.destination import exists, is_file, utf8_path
from prototxt_gen.errors import ProtoError
from prototxt_gen.locate import field_line
from prototxt_gen.reading import read_text

_COMMENT = re.compile(r"^[ \t]*#[ \t]*verydeep sidecar:[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE)
_FALLBACK = "multistep"


def sidecar_comment(path: Path) -> str:
    """The line of a solver that names its sidecar, by a path from the current folder."""
    return f"# verydeep sidecar: {json.dumps(utf8_path(path), ensure_ascii=False)}\n"


def find_sidecar(solver: Path, own: Path) -> Path | None:
    """The sidecar of a solver: `own`, which has its name, or the file that its comment names.

    A relative path in the comment starts at the current folder, as the solver's `net` does; a file
    of that name in the folder of the solver goes first.

    Raises:
        ProtoError: the comment names a file that is missing, or another one than `own`.
    """
    has_own = os.path.lexists(own)
    named, line = _named_by(solver)
    if named is None:
        return own if has_own else None
    local = solver.parent / Path(named).name
    if has_own:
        if local != own and is_file(local) and local.read_bytes() != own.read_bytes():
            raise ProtoError(
                f"{solver}:{line}: names the sidecar {local}, and {own} has the name of this "
                "solver; expected one sidecar; remove the comment or one of the files"
            )
        return own
    for path in (local, Path(named)):
        if exists(path):
            return path
    raise ProtoError(
        f"{solver}:{line}: the sidecar {named} is missing, which a comment of this solver names; "
        f"expected it there or at {local}; copy it with the solver, or remove the comment to train "
        "as original Caffe does"
    )


def _named_by(solver: Path) -> tuple[str | None, int]:
    """The path in a solver's comment, and the number of its line."""
    # A pipe can be read once only.
    if not is_file(solver):
        return None, 0
    try:
        text = read_text(solver, errors="replace")
    except OSError:
        return None, 0
    match = _COMMENT.search(text)
    if match is None:
        return None, 0
    path = match[1]
    if path.startswith('"'):
        try:
            path = str(json.loads(path))
        except ValueError:
            path = path.strip('"')
    return (path if Path(path).name else None), text.count("\n", 0, match.start()) + 1


def check_agreement(solver: Path, param: Any, sidecar: Path, schedule: Mapping[str, Any]) -> None:
    """Refuse a solver that sets the learning rate in another way than the sidecar's [schedule].

    The schedule replaces the policy of the solver, which is for original Caffe: multistep with the
    factor as its gamma. `schedule` has the values of [schedule].

    Raises:
        ProtoError: names both files and lines.
    """
    pairs = (
        ("lr_policy", str(param.lr_policy), "", _FALLBACK),
        ("gamma", float(param.gamma), "factor", schedule["factor"]),
    )
    for name, got, key, expected in pairs:
        if not param.HasField(name) or got == expected or _is_near(got, expected):
            continue
        line = _line(solver, lambda text, name=name: field_line(text, name))
        other = _line(sidecar, lambda text, key=key: toml_line(text, "schedule", key))
        shown = f"schedule.{key} = {expected}" if key else "[schedule]"
        raise ProtoError(
            f"{solver}{line}: {name} is {json.dumps(got)}, and {sidecar}{other} has {shown}, which "
            f"replaces it; expected {name}: {json.dumps(expected)}, or no [schedule]; change one "
            "of the two"
        )


def _is_near(got: object, expected: object) -> bool:
    """Whether numbers are the same in the single precision of a prototxt."""
    if not isinstance(got, float) or not isinstance(expected, (int, float)):
        return False
    return abs(got - expected) <= 1e-6 * abs(expected)


def toml_line(text: str, table: str, key: str) -> int | None:
    """The line of a key in a table of a TOML text, or of the table if the key is not written."""
    current, table_line = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = header[1]
            table_line = number if current == table and table_line is None else table_line
        elif key and current == table and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return table_line


def _line(path: Path, find: Any) -> str:
    try:
        number = find(read_text(path, errors="replace"))
    except OSError:
        return ""
    return "" if number is None else f":{number}"
