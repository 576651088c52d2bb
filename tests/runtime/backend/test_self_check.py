"""The check of kernels before their first use, with faults planted in their sources."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuda_kernels import SOURCE_DIR, kernel_sources
from prototxt_gen.errors import DeviceError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.cuda import self_check
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.cuda.known_answers import IMPLICIT, KNOWN, LADDERS, SOURCES, next_rung
from runtime.backend.registry import create_backend
from runtime.cli.device_query import check_lines

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

Fault = tuple[str, str, str]
"""A source file, a text of it, and the faulty text."""


class FaultyDriver(EmulatorDriver):
    """An emulator whose kernels have faults."""

    def __init__(self, folder: Path, faults: tuple[Fault, ...]) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self._replaced: dict[str, Path] = {}
        for source, right, wrong in faults:
            text = (SOURCE_DIR / f"{source}.cu").read_text()
            assert right in text
            path = folder / f"{source}.cu"
            path.write_text(text.replace(right, wrong))
            self._replaced[source] = path

    def load(self, source: str | Path) -> Mapping[str, Any]:
        self.loaded.append(str(source))
        return super().load(self._replaced.get(str(source), source))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the results; built kernels stay in the shared cache."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(self_check, "cache_folder", lambda: folder)
    return folder


def opened(folder: Path, *faults: Fault, **options: Any) -> CudaBackend:
    return CudaBackend(
        FaultyDriver(folder, faults),
        reference=lambda: create_backend("cpu", native=False, threads=1),
        **options,
    )


SQUARE = ConvGeometry(2, 40, 8, 8, 40, (3, 3), (1, 1))


def test_all_families_pass(tmp_path: Path, cache: Path) -> None:
    backend = opened(tmp_path)
    check = backend.self_check
    assert check is not None
    assert set(check.run()) == set(KNOWN)
    assert not any(check.run().values())
    (store,) = cache.iterdir()
    assert set(json.loads(store.read_text())) == set(KNOWN)


def test_every_source_belongs_to_a_family() -> None:
    ladders = {rung for ladder in LADDERS for rung in ladder}
    assert ladders <= set(KNOWN)
    by_ladder = {"winograd", "conv_tensor", "conv_tensor_weight", "conv_pack"}
    assert {path.stem for path in kernel_sources()} == set(SOURCES) | by_ladder
    assert set(SOURCES.values()) <= set(KNOWN)
    for rung in set(KNOWN) - ladders - set(SOURCES.values()):
        pytest.fail(f"{rung} is checked by nothing")


def max_pool(backend: CudaBackend) -> None:
    geom = PoolGeometry(1, 1, 4, 4, (2, 2), (2, 2))
    x = backend.memory.empty(16, np.dtype(np.float32))
    y, mask = backend.memory.empty(4, np.dtype("f4")), backend.memory.empty(4, np.dtype("i4"))
    values = np.arange(16, dtype=np.float32)
    backend.memory.upload(values, x)
    backend.pool.max_forward(geom, x, y, mask)
    got = np.empty(4, np.float32)
    backend.memory.download(y, got)
    assert got.tolist() == [5, 7, 13, 15]


def lrn(backend: CudaBackend) -> None:
    geom = LRNGeometry(1, 3, 1, 1, 5, 1.0)
    x, scale, y = (backend.memory.empty(3, np.dtype(np.float32)) for _ in range(3))
    backend.memory.fill(x, 1.0)
    backend.lrn.forward(geom, x, scale, y)
    got = np.empty(3, np.float32)
    backend.memory.download(scale, got)
    np.testing.assert_allclose(got, geom.k + 3 / 5)


def planned(name: str, precision: str = "fp32") -> Callable[[CudaBackend], None]:
    def act(backend: CudaBackend) -> None:
        assert backend.precision == precision
        assert backend.conv.plan(SQUARE).algorithm == name

    return act


FAULTS: dict[str, tuple[Fault, str, Callable[[CudaBackend], None]]] = {
    "max_pool_2x2": (
        ("max_pool", "best[i] = -FLT_MAX;", "best[i] = 100.0f;"),
        "fp32",
        max_pool,
    ),
    "lrn_5": (("lrn", "shift_in(window, square(c + WINDOW / 2))", "window[0]"), "fp32", lrn),
    "winograd_4x4": (
        ("winograd", "transform_products<4>(products, bias,", "transform_products<4>(products, 0,"),
        "fp32",
        planned("winograd_2x2"),
    ),
    "tensor_bf16": (
        ("conv_tensor", "conv_tensor_tile<Bf16, 64, 128>", "conv_tensor_tile<Tf32, 64, 128>"),
        "bf16",
        planned(IMPLICIT, "bf16"),
    ),
    "tensor_tf32": (
        ("conv_tensor_weight", "weight_tensor_tile<Tf32, 64", "weight_tensor_tile<Bf16, 64"),
        "tf32",
        planned(IMPLICIT, "tf32"),
    ),
}


@pytest.mark.parametrize("rung", FAULTS)
def test_a_faulty_kernel_is_replaced(
    rung: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "verydeep")
    fault, precision, act = FAULTS[rung]
    backend = opened(tmp_path, fault, precision=precision)
    act(backend)
    act(backend)
    (message,) = [text for text in caplog.messages if f"self-check of {rung}" in text]
    assert message.startswith(f"emu 0 (emulator (g++)): the self-check of {rung} failed (")
    assert message.endswith(f"); {next_rung(rung)} is used instead")
    assert backend.self_check is not None
    lines = check_lines(0, backend.self_check.run())
    assert any(line.startswith(f"Self-check of GPU 0: {rung} failed (") for line in lines)
    assert lines[-1].endswith("kernel families passed")


@pytest.mark.parametrize(
    ("fault", "family"),
    [
        (("vectors", "value[i] *= alpha;", "value[i] += alpha;"), "vectors"),
        (("gemm", "total[i] += part[i];", "total[i] = part[i];"), "gemm"),
        (("sgd_update", "weight[i] -= past[i];", "weight[i] += past[i];"), "sgd_update"),
        (("solver_updates", "ahead * velocity", "velocity"), "solver_updates"),
        (("strided", "from += index", "from -= index"), "strided"),
        (("sums", "total += term", "total = term"), "sums"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_family_without_another_kernel_is_refused(
    fault: Fault, family: str, tmp_path: Path, cache: Path
) -> None:
    backend = opened(tmp_path, fault)
    kernels: Any = backend.kernels
    with pytest.raises(DeviceError) as caught:
        kernels.elementwise(fault[0], "any", 1, ())
    text = str(caught.value)
    assert text.startswith(f"emu 0 (emulator (g++)): the self-check of {family} failed (")
    assert "there is no other kernel for this op; use the backend 'cpu'" in text


def test_a_result_is_computed_once_for_a_device_and_its_kernels(
    tmp_path: Path, cache: Path
) -> None:
    fault = FAULTS["max_pool_2x2"][0]
    max_pool(opened(tmp_path, fault))
    again = opened(tmp_path, fault)
    max_pool(again)
    driver: Any = again.driver
    assert driver.loaded == ["max_pool"]
    (store,) = cache.iterdir()
    store.write_text("damaged")
    max_pool(opened(tmp_path))
    assert set(json.loads(store.read_text())) == {"max_pool_2x2", "max_pool"}


def test_another_driver_is_checked_again(tmp_path: Path, cache: Path) -> None:
    info = EmulatorDriver().info
    newer = dataclasses.replace(info, driver_version="13.9")
    assert len({self_check.store_of(each, 0) for each in (info, newer)}) == 2
    assert self_check.store_of(info, 0) != self_check.store_of(info, 1)


def test_memory_of_the_check_is_freed(tmp_path: Path, cache: Path) -> None:
    backend = opened(tmp_path)
    free = backend.driver.free_memory()
    assert backend.self_check is not None
    backend.self_check.run()
    assert backend.driver.free_memory() == free


def test_only_a_gpu_is_checked_unless_asked(cache: Path) -> None:
    plain: Any = create_backend("emu")
    checked: Any = create_backend("emu", self_check=True)
    assert plain.self_check is None and checked.self_check is not None
