"""The C functions of the kernels: their structs and arguments, for ctypes.

A function of an instruction set is exported as `<set>_<name>`. Functions that compute take the team
of threads as first argument, which the tables omit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from prototxt_gen.geometry import ConvGeometry, PoolGeometry

I64 = ctypes.c_int64
U64 = ctypes.c_uint64
U32 = ctypes.c_uint32
F32 = ctypes.c_float
POINTER = ctypes.c_void_p


class ConvShape(ctypes.Structure):
    """shapes.h: ConvShape."""

    _fields_ = [
        (name, I64)
        for name in (
            *("n", "c", "h", "w", "k", "r", "s", "p", "q"),
            *("pad_h", "pad_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "group"),
        )
    ]

    @classmethod
    def of(cls, g: ConvGeometry) -> ConvShape:
        spatial = (*g.pad, *g.stride, *g.dilation)
        return cls(g.n, g.c, g.h, g.w, g.k, *g.kernel, g.p, g.q, *spatial, g.group)


class PoolShape(ctypes.Structure):
    """shapes.h: PoolShape."""

    _fields_ = [
        (name, I64)
        for name in (
            *("planes", "h", "w", "p", "q"),
            *("kernel_h", "kernel_w", "pad_h", "pad_w", "stride_h", "stride_w"),
        )
    ]

    @classmethod
    def of(cls, g: PoolGeometry) -> PoolShape:
        return cls(g.n * g.c, g.h, g.w, g.p, g.q, *g.kernel, *g.pad, *g.stride)


class EltwiseInputs(ctypes.Structure):
    """shapes.h: EltwiseInputs."""

    MOST = 8
    _fields_ = [("count", I64), ("inputs", POINTER * MOST), ("coefficients", F32 * MOST)]

    @classmethod
    def of(cls, inputs: Sequence[int], coefficients: Sequence[float]) -> EltwiseInputs:
        made = cls(len(inputs))
        for index, (pointer, coefficient) in enumerate(zip(inputs, coefficients, strict=True)):
            made.inputs[index] = pointer
            made.coefficients[index] = coefficient
        return made


CONV = ctypes.POINTER(ConvShape)
POOL = ctypes.POINTER(PoolShape)
ELTWISE = ctypes.POINTER(EltwiseInputs)

# Functions that compute; the first argument is the team.
KERNELS: dict[str, tuple[Any, ...]] = {
    "winograd_filter": (I64, POINTER, I64, I64, I64, POINTER),
    "winograd": (I64, CONV, I64, POINTER, POINTER, POINTER, I64, POINTER, POINTER),
    "winograd_weight": (I64, CONV, POINTER, POINTER, POINTER, POINTER),
    "conv_forward": (CONV, POINTER, POINTER, POINTER, I64, POINTER, POINTER),
    "conv_backward_data": (CONV, POINTER, POINTER, POINTER, POINTER),
    "conv_backward_weight": (CONV, POINTER, POINTER, POINTER, POINTER),
    "conv_rows_forward": (CONV, POINTER, POINTER, POINTER, I64, POINTER, POINTER),
    "conv_rows_weight": (CONV, POINTER, POINTER, POINTER, POINTER),
    "depthwise_forward": (CONV, POINTER, POINTER, POINTER, I64, POINTER, POINTER),
    "depthwise_backward_data": (CONV, POINTER, POINTER, POINTER, POINTER),
    "depthwise_backward_weight": (CONV, POINTER, POINTER, POINTER, POINTER),
    "gemm": (I64, I64, I64, I64, I64, F32, POINTER, POINTER, F32, POINTER, POINTER),
    "gemm_bf16": (*(I64,) * 6, F32, POINTER, POINTER, F32, POINTER, POINTER),
    "conv_bf16_forward": (I64, CONV, POINTER, POINTER, POINTER, I64, POINTER, POINTER),
    "conv_bf16_backward_data": (I64, CONV, POINTER, POINTER, POINTER, POINTER),
    "conv_bf16_backward_weight": (I64, CONV, POINTER, POINTER, POINTER, POINTER),
    "round_bf16": (I64, POINTER),
    "fill": (I64, F32, POINTER),
    "copy": (I64, POINTER, POINTER),
    "copy_2d": (I64, I64, POINTER, I64, POINTER, I64),
    "axpy": (I64, F32, POINTER, POINTER),
    "scal": (I64, F32, POINTER),
    "sub": (I64, POINTER, POINTER, POINTER),
    "bias_forward": (I64, I64, I64, POINTER, POINTER),
    "bias_backward": (I64, I64, I64, POINTER, POINTER),
    "sgd_update": (I64, F32, F32, F32, POINTER, POINTER, POINTER),
    "relu_forward": (I64, F32, POINTER, POINTER),
    "relu_backward": (I64, F32, POINTER, POINTER, POINTER),
    "dropout_forward": (I64, I64, U64, U64, U32, U32, F32, POINTER, POINTER, POINTER),
    "dropout_backward": (I64, F32, POINTER, POINTER, POINTER),
    "function_forward": (I64, I64, *(F32,) * 3, POINTER, POINTER),
    "function_backward": (I64, I64, *(F32,) * 3, *(POINTER,) * 4),
    "swish_backward": (I64, F32, *(POINTER,) * 4),
    "affine": (*(I64,) * 3, *(POINTER,) * 4, I64, POINTER),
    "product_sums": (*(I64,) * 3, POINTER, POINTER, I64, POINTER),
    "eltwise_sum": (I64, ELTWISE, I64, POINTER),
    "eltwise_product": (I64, ELTWISE, POINTER),
    "eltwise_max": (I64, ELTWISE, POINTER, POINTER),
    "eltwise_max_backward": (I64, I64, POINTER, POINTER, POINTER),
    "prelu": (*(I64,) * 3, *(POINTER,) * 4),
    "max_pool_forward": (POOL, POINTER, POINTER, POINTER),
    "max_pool_backward": (POOL, POINTER, POINTER, POINTER),
    "ave_pool_forward": (POOL, POINTER, POINTER),
    "ave_pool_backward": (POOL, POINTER, POINTER),
    "softmax_forward": (I64, I64, I64, POINTER, POINTER),
    "softmax_backward": (I64, I64, I64, POINTER, POINTER, POINTER),
    "softmax_loss_backward": (I64, I64, I64, F32, POINTER, POINTER, POINTER),
    "lrn_forward": (*(I64,) * 4, *(F32,) * 3, *(POINTER,) * 4),
    "lrn_backward": (*(I64,) * 4, *(F32,) * 2, *(POINTER,) * 6),
}
# Kernels whose arguments differ from pass to pass, or are temporary. All others can be part of a
# program: the library has a function <set>_call_<name> for each; see native/program.h.
NOT_REPEATABLE = frozenset({"dropout_forward", "softmax_loss_backward"})
# Functions that compute and return a double; the first argument is the team.
SUMS: dict[str, tuple[Any, ...]] = {
    "asum": (I64, POINTER, POINTER),
    "sumsq": (I64, POINTER, POINTER),
    "dot": (I64, POINTER, POINTER, POINTER),
}
# Functions that compute in the calling thread, without a team; thread-safe.
ALONE: dict[str, tuple[Any, ...]] = {
    "image_transform": (*(I64,) * 6, POINTER, POINTER, I64, I64, F32, POINTER, POINTER),
}
# Functions that return an integer.
COUNTS: dict[str, tuple[Any, ...]] = {
    "winograd_filter_floats": (I64, I64, I64),
    "winograd_bytes": (I64, CONV, I64, I64),
    "winograd_weight_bytes": (I64, CONV, I64),
    "conv_bytes": (CONV, I64, I64),
    "conv_weight_bytes": (CONV, I64),
    "conv_rows_bytes": (CONV, I64, I64),
    "depthwise_bytes": (CONV, I64, I64),
    "gemm_bytes": (I64, I64, I64, I64),
    "gemm_bf16_bytes": (I64, I64, F32, F32, I64, I64),
    "conv_bf16_bytes": (CONV, I64, I64, I64),
    "sum_bytes": (I64,),
    "lrn_bytes": (I64, I64),
    "run_program": (POINTER, POINTER, POINTER, I64, I64, I64, I64, POINTER),
}
