"""The kernels of a .cu file with their parameters, its constants and its minimum architecture.

Launch code packs arguments by the prototypes parsed here, so a prototype and its launch agree. The
parser accepts the following, at file scope and without macros:

    // requires: sm_80       the oldest architecture it compiles for; sm_90a: only that one
    constexpr int TILE = 16;                               integers, also from earlier constants
    extern "C" __global__ void __launch_bounds__(TILE * 8) a kernel
    fill(float* y, int n, float value) {

A parameter is a pointer to a type of `POINTEES` (with or without const and __restrict__) or a
scalar of `SCALARS`. A template is instantiated by a kernel that calls it.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prototxt_gen.errors import DeviceError, KernelBuildError

# C's name of a type -> numpy's. A bfloat16 number is passed as its 16 bits.
POINTEES: dict[str, str] = {
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "int32_t": "int32",
    "int64_t": "int64",
    "long long": "int64",
    "unsigned": "uint32",
    "unsigned int": "uint32",
    "uint32_t": "uint32",
    "uint64_t": "uint64",
    "unsigned long long": "uint64",
    "uint16_t": "uint16",
    "unsigned short": "uint16",
    "uint8_t": "uint8",
    "unsigned char": "uint8",
}
# C's name of a scalar -> its code in a struct format.
SCALARS: dict[str, str] = {
    "float": "f",
    "double": "d",
    "int": "i",
    "int32_t": "i",
    "int64_t": "q",
    "long long": "q",
    "unsigned": "I",
    "unsigned int": "I",
    "uint32_t": "I",
    "uint64_t": "Q",
    "unsigned long long": "Q",
}
DEFAULT_ARCH = 75

_REQUIRES = re.compile(r"^//\s*requires:\s*sm_(\d+)(a?)\s*$", re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANT = re.compile(r"^constexpr\s+(?:int|unsigned|size_t)\s+(\w+)\s*=\s*([^;]+);", re.MULTILINE)
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+')
_BOUNDS = re.compile(r"__launch_bounds__\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*")
_PROTOTYPE = re.compile(r"(\w+)\s*\(([^(){}]*)\)\s*\{")
_QUALIFIERS = re.compile(r"\b(?:const|__restrict__)\b")

_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_DIVISIONS = (ast.FloorDiv, ast.Mod)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel; `dtype` is what a pointer points to, None for a scalar."""

    name: str
    ctype: str
    code: str
    dtype: np.dtype[np.generic] | None


@dataclass(frozen=True)
class Signature:
    """A kernel's name, its parameters in order, and the most threads of its blocks."""

    name: str
    parameters: tuple[Parameter, ...]
    max_threads: int

    @functools.cached_property
    def format(self) -> str:
        """The parameters as a struct format with native alignment, as CUDA requires."""
        return "".join(parameter.code for parameter in self.parameters)

    @functools.cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct("@" + self.format)

    def pack(self, values: Sequence[object]) -> bytes:
        """Pack addresses and scalars in the layout that the kernel reads.

        Raises:
            DeviceError: the number of values, or one of them, does not fit the prototype.
        """
        try:
            return self._struct.pack(*values)
        except struct.error as cause:
            raise self._misfit(values) from cause

    def _misfit(self, values: Sequence[object]) -> DeviceError:
        if len(values) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            return DeviceError(
                f"kernel '{self.name}': expected {len(self.parameters)} arguments ({names}), "
                f"got {len(values)}; correct the launch"
            )
        for number, (parameter, value) in enumerate(zip(self.parameters, values, strict=True)):
            try:
                struct.pack("@" + parameter.code, value)
            except struct.error:
                return DeviceError(
                    f"kernel '{self.name}', argument {number} '{parameter.name}': expected a value "
                    f"that fits {parameter.ctype}, got {value!r}; correct the launch"
                )
        return DeviceError(f"kernel '{self.name}': the arguments {values!r} cannot be packed")


@dataclass(frozen=True)
class Manifest:
    """The contents of one .cu file."""

    path: Path
    kernels: dict[str, Signature]
    constants: dict[str, int]
    minimum_arch: int
    """80 for sm_80."""
    only_arch: bool = False
    """Whether it uses instructions that all other architectures lack, including newer ones."""

    def fits(self, arch: int) -> bool:
        """Whether the file compiles for an architecture."""
        return arch == self.minimum_arch if self.only_arch else arch >= self.minimum_arch


def read_manifest(path: Path) -> Manifest:
    """Read and parse a .cu file.

    Raises:
        KernelBuildError: the file is missing, or a prototype is not in the form described above.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise KernelBuildError(
            f"{path}: the kernel file cannot be read: {cause.strerror}; expected a file of "
            "cuda_kernels; check the name"
        ) from cause
    return parse_manifest(text, path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Parse the text of a .cu file.

    Raises:
        KernelBuildError: a prototype is not in the form described above, or a name is repeated.
    """
    required = _REQUIRES.search(text)
    code = _COMMENT.sub(lambda match: "\n" * match[0].count("\n") or " ", text)
    constants: dict[str, int] = {}
    for match in _CONSTANT.finditer(code):
        value = _evaluate(match[2], constants)
        if value is not None:
            constants[match[1]] = value
    kernels: dict[str, Signature] = {}
    for match in _KERNEL.finditer(code):
        location = f"{path.name}:{code.count(chr(10), 0, match.start()) + 1}"
        signature = _kernel(code, match.end(), constants, location)
        if signature.name in kernels:
            raise KernelBuildError(
                f"{location}: kernel '{signature.name}' is defined a second time; expected each "
                "name once; rename one"
            )
        kernels[signature.name] = signature
    if required is None:
        return Manifest(path, kernels, constants, DEFAULT_ARCH)
    return Manifest(path, kernels, constants, int(required[1]), bool(required[2]))


def _kernel(code: str, start: int, constants: dict[str, int], location: str) -> Signature:
    max_threads = 1024
    bounds = _BOUNDS.match(code, start)
    if bounds:
        value = _evaluate(bounds[1].split(",")[0], constants)
        if value is None:
            raise KernelBuildError(
                f"{location}: __launch_bounds__({bounds[1].strip()}) cannot be parsed; expected "
                "integers and constexpr int of this file, joined by + - * / %; rewrite it"
            )
        max_threads, start = value, bounds.end()
    prototype = _PROTOTYPE.match(code, start)
    if not prototype:
        raise KernelBuildError(
            f"{location}: a kernel's prototype cannot be parsed; expected "
            f"`name(type parameter, ...) {{`, got `{code[start : start + 40].strip()}`; write it "
            "out, without macros"
        )
    inside = prototype[2].strip()
    items = inside.split(",") if inside else []
    name = prototype[1]
    parameters = tuple(_parameter(item, f"{location}: kernel '{name}'") for item in items)
    return Signature(name, parameters, max_threads)


def _parameter(text: str, location: str) -> Parameter:
    words = " ".join(_QUALIFIERS.sub(" ", text).replace("*", " * ").split())
    ctype, _, name = words.rpartition(" ")
    pointer = ctype.endswith("*")
    base = ctype.removesuffix("*").strip()
    if pointer and base in POINTEES and name.isidentifier():
        return Parameter(name, base + "*", "P", np.dtype(POINTEES[base]))
    if not pointer and base in SCALARS and name.isidentifier():
        return Parameter(name, base, SCALARS[base], None)
    raise KernelBuildError(
        f"{location}: parameter `{text.strip()}` cannot be parsed; expected a scalar of "
        f"{', '.join(SCALARS)}, or a pointer to one of {', '.join(POINTEES)}; use one of them"
    )


def _evaluate(expression: str, constants: dict[str, int]) -> int | None:
    """The value of an integer expression, or None for any other text."""
    try:
        # For nonnegative integers C's division equals Python's floor division.
        tree = ast.parse(expression.strip().replace("/", "//"), mode="eval").body
    except SyntaxError:
        return None
    return _value(tree, constants)


def _value(node: ast.expr, constants: dict[str, int]) -> int | None:
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _value(node.left, constants), _value(node.right, constants)
        if left is not None and right is not None and (right or type(node.op) not in _DIVISIONS):
            return _ARITHMETIC[type(node.op)](left, right)
    return None
