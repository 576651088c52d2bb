"""Caffe's programs as verbs of the command line. Caffe: tools/*.cpp."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runtime.cli.entry import main as run_verb

_VERBS: dict[str, tuple[str, ...]] = {
    "caffe": (),
    "convert_imageset": ("convert_imageset",),
    "compute_image_mean": ("compute_image_mean",),
    "convert_cifar_data": ("convert_cifar_data",),
    "convert_mnist_data": ("convert_mnist_data",),
    "extract_features": ("extract_features",),
    "upgrade_net_proto_text": ("upgrade",),
    "upgrade_net_proto_binary": ("upgrade",),
    "upgrade_solver_proto_text": ("upgrade",),
}
PROGRAMS = {name + end: words for name, words in _VERBS.items() for end in ("", ".bin")}
"""The words before the arguments of each program; Caffe's makefile builds all as NAME.bin too."""


def main(program: str, argv: Sequence[str] | None = None) -> int:
    """Run one of Caffe's programs; return its exit status."""
    return run_verb([*PROGRAMS[program], *(sys.argv[1:] if argv is None else argv)])
