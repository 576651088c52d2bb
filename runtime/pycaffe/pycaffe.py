"""The names of pycaffe's module of nets and solvers. Caffe: pycaffe.py."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from runtime.pycaffe import _caffe, io
from runtime.pycaffe._caffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Timer,
)

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Net",
    "OrderedDict",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "_caffe",
    "io",
    "np",
]
