"""The permission to run the code of layers of type Python."""

from __future__ import annotations

import os

from prototxt_gen.errors import UnsupportedError

FLAG = "--allow-python-layers"
VARIABLE = "VERYDEEP_ALLOW_PYTHON_LAYERS"

_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


def python_layers_allowed() -> bool:
    """Whether the environment variable allows Python layers.

    Raises:
        UnsupportedError: its value is not a Boolean.
    """
    value = os.environ.get(VARIABLE, "")
    word = value.strip().lower()
    if word not in _ON + _OFF:
        raise UnsupportedError(
            f"{VARIABLE}: not a Boolean; expected 1 or 0, got {value!r}; set it to 1 to run the "
            "code of Python layers"
        )
    return word in _ON
