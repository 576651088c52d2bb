"""pycaffe's interface: `import runtime.pycaffe as caffe`. See docs/reference/pycaffe.md."""

from __future__ import annotations

from runtime.pycaffe import _caffe, coord_map, draw, io, net_spec, proto, pycaffe
from runtime.pycaffe._caffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    Layer,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Solver,
    Timer,
    __version__,
    get_solver,
    has_nccl,
    init_log,
    layer_type_list,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from runtime.pycaffe.alias import install_as_caffe
from runtime.pycaffe.classifier import Classifier
from runtime.pycaffe.detector import Detector
from runtime.pycaffe.imagenet_mean import write_caffe_root
from runtime.pycaffe.net_spec import NetSpec, layers, params, to_proto
from runtime.pycaffe.proto import caffe_pb2
from runtime.pycaffe.settings import set_dropout_stream

TRAIN, TEST = 0, 1

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "__version__",
    "_caffe",
    "caffe_pb2",
    "coord_map",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "install_as_caffe",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "pycaffe",
    "set_device",
    "set_dropout_stream",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
    "write_caffe_root",
]
