from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen.errors import ProtoError
from prototxt_gen.sidecar import (
    ColourPca,
    DataOptions,
    PlateauOptions,
    Sidecar,
    data_options,
    plateau_options,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from prototxt_gen.toml_tables import Table

PCA = ColourPca((3.0, 2.0, 1.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
FULL = Sidecar(
    train=DataOptions((256, 512), 0.1, PCA, True, 7, 4, 3),
    test=DataOptions(384, pca="pca.json", prefetch=1),
    schedule=PlateauOptions("accuracy/top5", "max", 0.2, 3, 0.01, 2, True),
    shards=8,
    weights_layers=("conv1_1", "fc6"),
    precision="bf16",
)


def test_it_is_next_to_the_solver() -> None:
    assert sidecar_path("a/b/solver.prototxt") == Path("a/b/solver.verydeep.toml")
    assert sidecar_path("a.b/my.solver.prototxt") == Path("a.b/my.solver.verydeep.toml")


def test_without_one_training_is_plain_caffes(tmp_path: Path) -> None:
    sidecar = read_sidecar(tmp_path / "solver.prototxt")
    assert sidecar == Sidecar()
    assert sidecar.train == DataOptions(short_side=None, colour_shift=0, shuffle=False, seed=None)
    assert (sidecar.schedule, sidecar.shards, sidecar.weights_layers) == (None, None, ())
    assert sidecar.precision == "fp32"


@pytest.mark.parametrize("sidecar", [FULL, Sidecar()])
def test_it_reads_back_equal_and_writes_the_same_bytes(tmp_path: Path, sidecar: Sidecar) -> None:
    solver = tmp_path / "solver.prototxt"
    path = write_sidecar(solver, sidecar)
    first = path.read_bytes()
    assert read_sidecar(solver) == sidecar
    write_sidecar(solver, read_sidecar(solver))
    assert path.read_bytes() == first


def test_a_part_that_is_left_out_has_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "solver.verydeep.toml"
    path.write_text("[schedule]\n[data.train]\nshort_side = 72\n")
    sidecar = read_sidecar(tmp_path / "solver.prototxt")
    assert sidecar == Sidecar(DataOptions(72), DataOptions(), PlateauOptions())


def test_a_reader_may_bring_its_own_defaults() -> None:
    assert data_options(Table({}, "spec"), FULL.train) == FULL.train
    assert FULL.schedule is not None
    assert plateau_options(Table({}, "spec"), FULL.schedule) == FULL.schedule


def test_stored_means_no_rescale(tmp_path: Path) -> None:
    (tmp_path / "solver.verydeep.toml").write_text('[data.test]\nshort_side = "stored"\n')
    assert read_sidecar(tmp_path / "solver.prototxt").test.short_side is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[dta]",
            "dta: unknown key; expected one of data, parallel, weights, compute, schedule, got",
        ),
        ("[data.train]\nworker = 2", "data.train.worker: unknown key"),
        ("[data.val]", "data.val: unknown key; expected one of train, test"),
        (
            "[parallel]\nshard = 2",
            "parallel.shard: unknown key; expected one of shards, got 'shard'; "
            "did you mean 'shards'?",
        ),
        (
            "[data.train]\nshort_side = 1.5",
            "data.train.short_side: of the wrong kind; expected S, "
            '[Smin, Smax] or "stored", got 1.5',
        ),
        ("[data.train]\nshort_side = [1, 2, 3]", "data.train.short_side: of the wrong kind"),
        (
            "[data.train]\nshort_side = [512, 256]",
            "data.train.short_side: out of range; expected S "
            "of 1 or more, or [Smin, Smax], got (512, 256)",
        ),
        (
            "[data.train]\ncolour_shift = -0.1",
            "data.train.colour_shift: out of range; expected at least 0, got -0.1",
        ),
        (
            "[data.train]\ncolour_shift = 0.1",
            "data.train.pca: missing; expected the colour "
            "components, which a colour_shift of 0.1 needs, got none; give the file that "
            "compute_image_mean writes, or set colour_shift = 0",
        ),
        ("[data.train]\npca = 3", "data.train.pca: of the wrong kind; expected a string in quotes"),
        (
            "[data.test]\nshort_side = [1, 65536]",
            "data.test.short_side: out of range; expected at most 65535 pixels, got (1, 65536)",
        ),
        (
            "[schedule]\nfactor = nan",
            "schedule.factor: of the wrong kind; expected a finite number",
        ),
        ("[schedule]\nmin_delta = inf", "schedule.min_delta: of the wrong kind; expected a finite"),
        (
            f"[schedule]\nmin_delta = 0x{'f' * 300}",
            "schedule.min_delta: of the wrong kind; expected a finite number, got an integer of "
            "1200 bits",
        ),
        (f"[schedule]\nmin_delta = 1{'0' * 308}", "schedule.min_delta: out of range; expected at"),
        ("[data.train]\ncolour_shift = -inf", "data.train.colour_shift: of the wrong kind"),
        (
            f"[data.train.pca]\neigenvalues = [1, 2, 1{'0' * 400}]",
            "data.train.pca.eigenvalues: of the wrong kind; expected a list of numbers",
        ),
        (
            "[data.train.pca]\neigenvalues = [1, 2, 3]\n"
            "eigenvectors = [[1, 0, nan], [1, 0, 0], [1, 0, 0]]",
            "data.train.pca.eigenvectors: of the wrong kind; expected three lists of three numbers",
        ),
        (
            "[data.train.pca]\neigenvalues = [1, 2, 1e39]\n"
            "eigenvectors = [[1, 0, 0], [1, 0, 0], [1, 0, 0]]",
            "data.train.pca.eigenvalues: out of range; expected finite numbers, got 1e+39",
        ),
        (
            f"[parallel]\nshards = 0x{'f' * 5000}",
            "this is not TOML: more than 1000 digits in a row",
        ),
        (f"[parallel]\nshards = 0x{'f' * 99}", "parallel.shards: of the wrong kind"),
        (f"[data.train]\nshort_side = 0x{'f' * 99}", "data.train.short_side: of the wrong kind"),
        (
            "[data.train.pca]\neigenvalues = [1, 2, 3]",
            "data.train.pca: wrong sizes; expected 3 "
            "eigenvalues and 3 eigenvectors of 3 numbers, got 3 and []; take them from",
        ),
        (
            "[data.train.pca]\neigenvectors = [1, 2, 3]",
            "data.train.pca.eigenvectors: of the wrong "
            "kind; expected three lists of three numbers, got [1, 2, 3]",
        ),
        (
            "[data.train]\nshuffle = 'yes'",
            "data.train.shuffle: of the wrong kind; expected true or false, got 'yes'",
        ),
        ("[data.test]\nworkers = 0", "data.test.workers: out of range; expected at least 1, got 0"),
        ("[data.test]\nprefetch = 0", "data.test.prefetch: out of range; expected at least 1"),
        ("[data.test]\nseed = -1", "data.test.seed: out of range; expected at least 0, got -1"),
        (
            "[schedule]\nmetric = ''",
            "schedule.metric: out of range; expected the name of an output",
        ),
        (
            "[schedule]\nmode = 'up'",
            "schedule.mode: out of range; expected 'max' or 'min', got 'up'",
        ),
        ("[schedule]\nfactor = 1.0", "schedule.factor: out of range; expected a number between 0 "),
        ("[schedule]\npatience = 0", "schedule.patience: out of range; expected at least 1, got 0"),
        ("[schedule]\nmin_delta = -1", "schedule.min_delta: out of range; expected at least 0"),
        ("[schedule]\nmax_drops = -1", "schedule.max_drops: out of range; expected at least 0"),
        ("[parallel]\nshards = 0", "parallel.shards: out of range; expected at least 1, got 0"),
        (
            "[compute]\nprecision = 'fp16'",
            "compute.precision: out of range; expected one of fp32, tf32, bf16, got 'fp16'",
        ),
        (
            "[weights]\nlayers = 'fc6'",
            "weights.layers: of the wrong kind; expected a list of strings",
        ),
        ("weights = 3", "weights: of the wrong kind; expected a table, got 3"),
        ("a = ", "this is not TOML: "),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "solver.verydeep.toml"
    path.write_text(text)
    with pytest.raises(ProtoError) as caught:
        read_sidecar(tmp_path / "solver.prototxt")
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_file_begins_with_its_description(tmp_path: Path) -> None:
    text = write_sidecar(tmp_path / "my_solver.prototxt", Sidecar()).read_text()
    assert text.startswith(
        "# What original Caffe has no field for; verydeep reads it with my_solver"
    )


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"[data.train]\nseed = {HUGE}", "data.train.seed"),
        (f"[data.train]\ncolour_shift = {HUGE}", "data.train.colour_shift"),
        (f"[data.train]\nshort_side = [1, {HUGE}]", "data.train.short_side"),
        ("[data.train]\nshort_side = 65536", "data.train.short_side"),
        ("[data.train]\nworkers = 1025", "data.train.workers"),
        ("[data.test]\nprefetch = 2147483647", "data.test.prefetch"),
        (f"[data.train]\npca.eigenvalues = [1, 2, {HUGE}]", "data.train.pca.eigenvalues"),
        (
            "[data.train]\npca.eigenvalues = [1, 2, 3]\n"
            f"pca.eigenvectors = [[1, 0, 0], [0, {HUGE}, 0], [0, 0, 1]]",
            "data.train.pca.eigenvectors",
        ),
        (f"[schedule]\nfactor = {HUGE}", "schedule.factor"),
        (f"[parallel]\nshards = 0x{'f' * 40}", "parallel.shards"),
        (f"shards = [{{a = [[[[[[[[{HUGE}]]]]]]]]}}]", "shards"),
    ],
    ids=lambda value: value[:30],
)
def test_numbers_without_end(text: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.verydeep.toml"
    path.write_text(text)
    with pytest.raises(ProtoError, match=f"{key}: ") as caught:
        read_sidecar(tmp_path / "solver.prototxt")
    assert len(str(caught.value)) < 1000


def test_names_that_no_sidecar_can_have() -> None:
    for name in ("x" * 250 + ".prototxt", "a\0b"):
        assert read_sidecar(name) == Sidecar()
    for name in (".", "..", ""):
        with pytest.raises(ProtoError, match="names a folder; expected a solver prototxt"):
            read_sidecar(name)
