"""The loader of the compiled kernels: what it finds, its errors, threads and forks."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError, ShapeError
from prototxt_gen.geometry import ConvGeometry, PoolGeometry
from runtime.backend.cpu import native_library
from runtime.backend.cpu.native_digest import source_digest
from runtime.backend.cpu.native_library import NativeLibrary, elements, load
from runtime.backend.cpu.native_signatures import (
    ALONE,
    COUNTS,
    KERNELS,
    SUMS,
    ConvShape,
    EltwiseInputs,
    PoolShape,
)
from runtime.backend.cpu.native_vectors import NativeVectors
from tests.runtime.backend.native_kernels import built_sets, needs_kernels, normal, opened

SOURCES = Path(native_library.__file__).with_name("native")
FLOAT = np.dtype(np.float32)

_PROTOTYPE = re.compile(r"VD_EXPORT(_COUNT|_DOUBLE|_ALONE)?\((\w+)\)\s*\(([^)]*)\)")
_SCALARS = {
    "std::int64_t": ctypes.c_int64,
    "std::uint64_t": ctypes.c_uint64,
    "std::uint32_t": ctypes.c_uint32,
    "float": ctypes.c_float,
    "const ConvShape*": ctypes.POINTER(ConvShape),
    "const PoolShape*": ctypes.POINTER(PoolShape),
    "const EltwiseInputs*": ctypes.POINTER(EltwiseInputs),
}


def prototypes() -> dict[str, tuple[str, tuple[object, ...]]]:
    """What the sources export: name -> (kind of result, ctypes of the arguments)."""
    found = {}
    for path in sorted(SOURCES.glob("*.cpp")):
        for kind, name, arguments in _PROTOTYPE.findall(path.read_text()):
            types = [" ".join(a.split()[:-1]) for a in arguments.split(",")]
            lead = 0 if kind in ("_COUNT", "_ALONE") else 1
            assert types[:lead] == ["Team*"][:lead], name
            found[name] = (
                kind,
                tuple(
                    _SCALARS.get(t, ctypes.c_void_p if t.endswith("*") else t) for t in types[lead:]
                ),
            )
    return found


def test_the_signatures_are_those_of_the_sources() -> None:
    tables = {"": KERNELS, "_DOUBLE": SUMS, "_COUNT": COUNTS, "_ALONE": ALONE}
    ours = {name: (kind, types) for kind, table in tables.items() for name, types in table.items()}
    assert ours == prototypes()


@pytest.mark.parametrize("struct", [ConvShape, PoolShape])
def test_the_structs_are_those_of_the_header(struct: type[ctypes.Structure]) -> None:
    header = (SOURCES / "shapes.h").read_text()
    body = header.split(f"struct {struct.__name__} {{")[1].split("};")[0]
    names = re.findall(r"\w+", body.replace("std::int64_t", ""))
    assert names == [field[0] for field in struct._fields_]


def test_shapes_carry_the_geometry() -> None:
    conv = ConvGeometry(2, 6, 13, 17, 9, (3, 5), (2, 1), (2, 3), (2, 1), 3)
    shape = ConvShape.of(conv)
    assert (shape.r, shape.s, shape.pad_h, shape.stride_w, shape.dilation_h) == (3, 5, 2, 3, 2)
    assert (shape.p, shape.q, shape.group) == (conv.p, conv.q, 3)
    pool = PoolShape.of(PoolGeometry(2, 3, 7, 9, (2, 3), (2, 1), (1, 2)))
    assert (pool.planes, pool.kernel_w, pool.stride_h, pool.pad_w) == (6, 3, 2, 2)


def test_without_a_library_load_gives_none_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "MODULE", "runtime.backend.cpu._absent")
    assert native_library.find_library() is None
    assert load(2) is None
    assert str(native_library.why_not()) == (
        "the CPU kernels are not built; NumPy is used, which is several times slower; "
        "install a C++ compiler and run `python setup.py build_ext --inplace`"
    )


@needs_kernels
def test_a_library_for_another_processor_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "INSTRUCTION_SETS", ())
    assert load(2) is None
    assert "has no code for this processor; NumPy is used" in str(native_library.why_not())


def test_a_file_that_is_no_library_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native_library, "find_library", lambda: broken)
    with pytest.raises(
        DeviceError, match=r"broken\.so: the CPU kernels cannot be loaded: .*; rebuild"
    ):
        load(1)


@needs_kernels
def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old library after an update would be called with arguments it does not expect."""
    monkeypatch.setattr(native_library, "source_digest", lambda folder: "0123456789abcdef")
    with pytest.raises(
        DeviceError,
        match=r"built from other sources; expected digest 0123456789abcdef, got [0-9a-f]{16}; "
        r"rebuild with `python setup.py build_ext --inplace --force`",
    ):
        load(1)


def test_the_digest_differs_between_sources(tmp_path: Path) -> None:
    assert source_digest(tmp_path) == ""
    (tmp_path / "a.cpp").write_text("int a;")
    first = source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("not a source")
    assert source_digest(tmp_path) == first
    (tmp_path / "a.cpp").write_text("int b;")
    assert source_digest(tmp_path) != first


@needs_kernels
def test_the_best_set_is_taken_and_any_other_on_request() -> None:
    assert native_library.why_not() is None
    sets = built_sets()
    for wanted in (None, *sets):
        library = load(2, wanted)
        assert library is not None
        assert library.isa == (wanted or sets[0])
    with pytest.raises(
        DeviceError, match=r"cpu kernels: instruction set is 'mmx'; expected one of .*, which this"
    ):
        load(2, "mmx")


def test_elements_refuses_what_a_kernel_could_not_read() -> None:
    array = np.zeros((4, 6), np.float32)
    assert elements("x", array, 24, FLOAT) == array.ctypes.data
    for bad in (array[:, ::2], array.astype(np.float64), array[:3]):
        with pytest.raises(ShapeError, match="x: expected a contiguous float32 array of 24 elem"):
            elements("x", bad, 24, FLOAT)


@needs_kernels
def test_a_workspace_grows_and_is_used_again() -> None:
    library = opened(built_sets()[0], 2)
    with library.workspace(1000) as small:
        pass
    with library.workspace(10) as again:
        assert again == small
    size = library.workspace_bytes + (4 << 20)
    with library.workspace(size) as large:
        assert large % (2 << 20) == 0
    assert library.workspace_bytes == size
    with library.workspace(1000) as again:
        assert again == large


@needs_kernels
def test_calls_at_the_same_time_have_workspaces_of_their_own() -> None:
    library = opened(built_sets()[0], 2)
    with library.workspace(4096) as first, library.workspace(4096) as second:
        assert abs(first - second) >= 4096
    assert library.workspace_bytes >= 2 * 4096


def sums(library: NativeLibrary, count: int = 1 << 20) -> float:
    return NativeVectors(library).sumsq(np.ones(count, np.float32))


@needs_kernels
def test_many_threads_and_many_libraries_work_side_by_side() -> None:
    """Replicas are threads with a library each; a team may have more threads than cores."""
    results: list[float] = []

    def replica() -> None:
        library = load(5)
        assert library is not None
        results.extend(sums(library, 300_000 + i) - i for i in range(50))

    replicas = [threading.Thread(target=replica) for _ in range(4)]
    for thread in replicas:
        thread.start()
    for thread in replicas:
        thread.join(timeout=60)
    assert results == [300_000.0] * 200


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("rest", [0.0, 0.05])
def test_a_forked_child_has_threads_of_its_own(rest: float) -> None:
    """Whether the parent's threads are awake or sleep on a lock that the child inherits."""
    library = opened(built_sets()[0], 3)
    assert sums(library) == 1 << 20  # the parent's threads have started
    time.sleep(rest)
    child = os.fork()
    if child == 0:
        first = sums(library)
        time.sleep(rest)
        os._exit(0 if first == sums(library) == 1 << 20 else 1)
    status = None
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
    assert sums(library) == 1 << 20


@needs_kernels
def test_a_library_that_goes_takes_its_threads_along() -> None:
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("threads are counted through /proc")
    before = len(list(tasks.iterdir()))
    library = load(4)
    assert library is not None
    sums(library)
    assert len(list(tasks.iterdir())) == before + 3
    del library
    assert len(list(tasks.iterdir())) == before


@needs_kernels
def test_denormals_are_left_alone() -> None:
    """A library built with -ffast-math would flush them for the whole process."""
    library = opened(built_sets()[0], 1)
    tiny = normal(64) * np.float32(1e-40)
    moved = np.zeros_like(tiny)
    NativeVectors(library).axpy(1.0, tiny, moved)
    np.testing.assert_array_equal(moved, tiny)
    assert np.count_nonzero(tiny) == 64
