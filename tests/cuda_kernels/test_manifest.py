from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from cuda_kernels import kernel_sources
from cuda_kernels.manifest import parse_manifest, read_manifest
from prototxt_gen.errors import DeviceError, KernelBuildError

TEXT = """\
// demo.cu -- extern "C" __global__ void not_a_kernel(int a) {
// requires: sm_80
#include "common.cuh"
constexpr int TILE = 16;
constexpr int BLOCK = TILE * (TILE / 2) + 1 - 1;
constexpr float NOT_ONE = 1.5f;
constexpr int NOT_UNDERSTOOD = sizeof(float);
/* extern "C" __global__ void nor_this(float x) { */
template <int N> __device__ void helper(float* y) {}

extern "C" __global__ void plain(
    const float* __restrict__ x,   // (n) in
    uint8_t *mask, unsigned int n, float a, const int64_t *index, long long big) {
}
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
bounded(double *y) {
}
extern "C" __global__ void __launch_bounds__(256) nothing() {
}
"""


def parse(text: str = TEXT) -> object:
    return parse_manifest(text, Path("demo.cu"))


def test_prototypes_are_read_with_types_bounds_and_constants() -> None:
    manifest = parse_manifest(TEXT, Path("demo.cu"))
    assert list(manifest.kernels) == ["plain", "bounded", "nothing"]
    plain = manifest.kernels["plain"]
    assert [(p.name, p.ctype, p.dtype) for p in plain.parameters] == [
        ("x", "float*", np.dtype("float32")),
        ("mask", "uint8_t*", np.dtype("uint8")),
        ("n", "unsigned int", None),
        ("a", "float", None),
        ("index", "int64_t*", np.dtype("int64")),
        ("big", "long long", None),
    ]
    assert [k.max_threads for k in manifest.kernels.values()] == [1024, 128, 256]
    assert manifest.kernels["nothing"].parameters == ()
    assert manifest.constants == {"TILE": 16, "BLOCK": 128}


@pytest.mark.parametrize(
    ("line", "arch", "fitting"),
    [
        ("// requires: sm_80", 80, [80, 86, 90]),
        ("// requires: sm_90a", 90, [90]),
        ("// nothing is required", 75, [75, 80, 86, 90]),
    ],
)
def test_the_architecture_that_is_required(line: str, arch: int, fitting: list[int]) -> None:
    manifest = parse_manifest(TEXT.replace("// requires: sm_80", line), Path("demo.cu"))
    assert manifest.minimum_arch == arch
    assert [sm for sm in (75, 80, 86, 90) if manifest.fits(sm)] == fitting


def test_arguments_are_laid_out_with_natural_alignment() -> None:
    plain = parse_manifest(TEXT, Path("demo.cu")).kernels["plain"]
    packed = plain.pack([1, 2, 3, 0.5, 4, -5])
    # Two pointers, an unsigned, a float, a pointer at the next multiple of 8, a long long.
    assert packed == struct.pack("=QQIfQq", 1, 2, 3, 0.5, 4, -5)
    bounded = parse_manifest('extern "C" __global__ void k(int a, double b, float c) {', Path("k"))
    assert bounded.kernels["k"].pack([1, 2.0, 3.0]) == struct.pack("=i4xdf", 1, 2.0, 3.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [1, 2, 3, 0.5, 4],
            "kernel 'plain': expected 6 arguments (x, mask, n, a, index, big), got 5; correct",
        ),
        (
            [1, 2, -3, 0.5, 4, 5],
            "kernel 'plain', argument 2 'n': expected a value that fits unsigned int, got -3; ",
        ),
        (
            [1, 2, 3, "half", 4, 5],
            "kernel 'plain', argument 3 'a': expected a value that fits float, got 'half'; ",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(values: list[object], words: str) -> None:
    plain = parse_manifest(TEXT, Path("demo.cu")).kernels["plain"]
    with pytest.raises(DeviceError) as caught:
        plain.pack(values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'extern "C" __global__ void k(float4* x) {',
            "demo.cu:1: kernel 'k': parameter `float4* x` cannot be parsed; expected a scalar of",
        ),
        (
            '\nextern "C" __global__ void k(float x, Shape s) {',
            "demo.cu:2: kernel 'k': parameter `Shape s` cannot be parsed",
        ),
        (
            'extern "C" __global__ void k(float) {',
            "kernel 'k': parameter `float` cannot be parsed",
        ),
        (
            'extern "C" __global__ void k(uint8_t x) {',
            "kernel 'k': parameter `uint8_t x` cannot be parsed",
        ),
        (
            'extern "C" __global__ void NAME(k)(float x) {',
            "demo.cu:1: a kernel's prototype cannot be parsed; expected `name(type parameter,",
        ),
        (
            'extern "C" __global__ void __launch_bounds__(UNKNOWN * 2) k(float x) {',
            "demo.cu:1: __launch_bounds__(UNKNOWN * 2) cannot be parsed; expected integers and",
        ),
        (
            'constexpr int Z = 0;\nextern "C" __global__ void __launch_bounds__(4 / Z) k(int x) {',
            "demo.cu:2: __launch_bounds__(4 / Z) cannot be parsed",
        ),
        (
            'extern "C" __global__ void k(int x) {\n}\nextern "C" __global__ void k(int x) {',
            "demo.cu:3: kernel 'k' is defined a second time; expected each name once; rename one",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(KernelBuildError) as caught:
        parse_manifest(text, Path("demo.cu"))
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        KernelBuildError, match=r"none\.cu: the kernel file cannot be read: No such"
    ):
        read_manifest(tmp_path / "none.cu")


@pytest.mark.parametrize("path", kernel_sources(), ids=lambda path: path.stem)
def test_every_kernel_file_is_understood(path: Path) -> None:
    manifest = read_manifest(path)
    assert manifest.kernels
    assert path.read_text().count('extern "C" __global__ void') == len(manifest.kernels)
