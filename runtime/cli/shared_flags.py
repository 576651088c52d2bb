"""Flags that many verbs have: those of glog, and the permission to run Python layers.

Both are settings of the whole process that have environment variables too, so a flag sets the
variable for the duration of the verb.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from runtime.cli.devices import NET_FLAGS
from runtime.cli.environment import python_layer_imports, variables
from runtime.cli.usage import flag_group, log_flags_line
from runtime.core.python_layers import FLAG, VARIABLE
from runtime.logs.glog_settings import LOG_FLAGS, PREFIX

NET_VERBS = (
    *("classify", "draw", "evaluate", "export", "extract_features", "features", "finetune", "fuse"),
    *("localise", "paper", "plan", "recipe", "run", "summary", "test", "time", "train"),
)
"""The verbs that read nets."""

CAFFE_VERBS = ("train", "test", "time", "device_query")
"""The verbs of the program `caffe`."""

_CAFFE_FLAGS = (
    *("gpu", "solver", "model", "phase", "level", "stage", "snapshot", "weights", "iterations"),
    *("sigint_effect", "sighup_effect"),
)
"""The flags of the program `caffe`, which accepts each of them with each of its verbs."""

_GLOG_SWITCHES = ("colorlogtostderr", "log_prefix", "stop_logging_if_full_disk")
_GLOG_VALUES = (
    *("v", "vmodule", "logbuflevel", "logbufsecs", "max_log_size", "log_link"),
    *("logfile_mode", "log_backtrace_at"),
)


def flags_without_effect(verb: str) -> dict[str, bool]:
    """The flags of Caffe's programs that a verb accepts and ignores; whether they are switches."""
    flags = dict.fromkeys(_GLOG_SWITCHES, True) | dict.fromkeys(_GLOG_VALUES, False)
    return flags | (dict.fromkeys(_CAFFE_FLAGS, False) if verb in CAFFE_VERBS else {})


_PYTHON_LAYERS = "allow_python_layers"


def add_shared_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the shared flags that a verb has to its parser."""
    if verb in NET_VERBS:
        flag_group(parser, NET_FLAGS).add_argument(
            FLAG,
            action="store_true",
            default=argparse.SUPPRESS,
            help=f"run the Python code that layers of type Python name (or set {VARIABLE}=1)",
        )
    group = parser.add_argument_group("logging", log_flags_line())
    for name, setting in LOG_FLAGS.items():
        options: dict[str, object] = {"metavar": setting.metavar, "type": setting.read}
        if setting.metavar is None:
            options = {"action": argparse.BooleanOptionalAction}
        group.add_argument(
            f"--{name}",
            dest=PREFIX + name,
            default=argparse.SUPPRESS,
            help=setting.help,
            **options,  # type: ignore[arg-type]
        )


@contextlib.contextmanager
def shared_settings(args: argparse.Namespace) -> Iterator[None]:
    """Apply the shared flags in the block.

    Raises:
        UnsupportedError: the variable that allows Python layers is not a Boolean.
    """
    values = {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in vars(args).items()
        if name.startswith(PREFIX)
    }
    if getattr(args, _PYTHON_LAYERS, False):
        values[VARIABLE] = "1"
    with variables(values), python_layer_imports():
        yield
