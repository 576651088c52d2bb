"""Solvers: types, updates, callbacks, snapshots, shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import ProtoError, SnapshotError
from runtime.pycaffe.session import SESSION
from runtime.solvers.run_lock import lock_run
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import TRAINABLE, solver

TYPES = {
    caffe.SGDSolver: "momentum: 0.9",
    caffe.NesterovSolver: "momentum: 0.9",
    caffe.AdaGradSolver: "",
    caffe.RMSPropSolver: "rms_decay: 0.9",
    caffe.AdaDeltaSolver: "momentum: 0.9",
    caffe.AdamSolver: "momentum: 0.9 momentum2: 0.99",
}


@pytest.mark.parametrize("cls", TYPES)
def test_get_solver_makes_the_type_of_the_prototxt(write: Write, cls: type[caffe.Solver]) -> None:
    name = cls.__name__.removesuffix("Solver")
    path = write(solver(write(TRAINABLE), f'type: "{name}" {TYPES[cls]}'))
    made = caffe.get_solver(path)
    assert type(made) is cls
    assert made.core.rule.type == made.param.type == name
    made.step(2)
    assert made.iter == 2


def test_the_type_of_a_class_replaces_that_of_the_prototxt(write: Write) -> None:
    path = write(solver(write(TRAINABLE), 'type: "SGD"'))
    assert caffe.AdaGradSolver(path).core.rule.type == "AdaGrad"
    with pytest.raises(ProtoError, match="unknown type 'Best'; expected one of AdaDelta"):
        caffe.get_solver(write(solver(write(TRAINABLE), 'type: "Best"')))


def test_apply_update_uses_the_current_gradient(write: Write) -> None:
    made = caffe.SGDSolver(write(solver(write(TRAINABLE), "momentum: 0.5")))
    weight, bias = made.net.params["conv"]
    before = weight.data.copy()
    weight.diff[...] = 2
    bias.data[...], bias.diff[...] = 0, 1
    assert made.lr == 0
    made.apply_update()
    np.testing.assert_allclose(weight.data, before - 0.2, rtol=1e-5)
    np.testing.assert_allclose(bias.data, -0.2, rtol=1e-6)  # its lr_mult is 2
    assert made.lr == pytest.approx(0.1)
    assert made.iter == 1
    made.param.base_lr = 1.0
    weight.diff[...] = 0
    before = weight.data.copy()
    made.apply_update()
    np.testing.assert_allclose(weight.data, before - 0.1, rtol=1e-5)  # half of the history
    assert made.lr == 1


def test_solve_learns_tests_and_calls_back(write: Write) -> None:
    fields = "test_iter: 1 test_interval: 3 test_initialization: false"
    made = caffe.get_solver(write(solver(write(TRAINABLE), fields)))
    order: list[str] = []
    made.add_callback(lambda: order.append("start"), lambda: order.append("gradients"))
    made.net.forward()
    before = float(made.net.blobs["loss"].data)
    assert (made.iter, made.max_iter, len(made.test_nets)) == (0, 6, 1)
    made.solve()
    assert made.iter == 6
    assert order == ["start", "gradients"] * 6
    assert float(made.net.blobs["loss"].data) < before / 2
    assert made.test_nets[0].blobs["loss"].data < before
    mine, theirs = made.net.params["ip"][0], made.test_nets[0].params["ip"][0]
    mine.data[...] = 3
    assert (theirs.data == 3).all()


def test_an_exception_of_a_callback_ends_the_step(write: Write) -> None:
    made = caffe.get_solver(write(solver(write(TRAINABLE))))

    def stop() -> None:
        raise KeyError("enough")

    made.add_callback(lambda: None, stop)
    with pytest.raises(KeyError, match="enough"):
        made.step(1)
    assert made.iter == 0


def test_a_net_shares_the_trained_weights(write: Write) -> None:
    made = caffe.get_solver(write(solver(write(TRAINABLE))))
    watcher = caffe.Net(write(TRAINABLE), caffe.TEST)
    made.share_weights(watcher)
    made.step(1)
    assert np.array_equal(watcher.params["conv"][0].data, made.net.params["conv"][0].data)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_snapshot_and_restore(write: Write, form: str) -> None:
    path = write(solver(write(TRAINABLE), f"momentum: 0.9 snapshot_format: {form}"))
    caffe.set_random_seed(3)
    first = caffe.get_solver(path)
    first.step(2)
    model, state, _ = first.snapshot()
    assert [p.name for p in (model, state)] == [
        f"snap_iter_2.{kind}{'.h5' if form == 'HDF5' else ''}"
        for kind in ("caffemodel", "solverstate")
    ]
    assert model.exists()
    second = caffe.get_solver(path)
    second.restore(str(state))
    assert second.iter == 2
    for solver_ in (first, second):
        solver_.net.blobs["label"].data[...] = 1
        caffe.set_random_seed(8)
        solver_.net.core.context.rng = SESSION.random()
        solver_.step(2)
    for mine, theirs in zip(first.net.params["ip"], second.net.params["ip"]):
        assert np.array_equal(mine.data, theirs.data)
    third = caffe.get_solver(path)
    third.solve(state)
    assert third.iter == 6


def test_the_sidecar_of_the_prototxt_applies(write: Write) -> None:
    path = Path(write(solver(write(TRAINABLE))))
    path.with_suffix(".verydeep.toml").write_text("[data.train]\nshuffle = true\n")
    assert caffe.get_solver(path).net.core.context.data.shuffle


def test_nets_outlive_the_solver(write: Write) -> None:
    made = caffe.get_solver(write(solver(write(TRAINABLE), "test_iter: 1 test_interval: 9")))
    nets = [made.net, *made.test_nets]
    del made
    assert len(nets) == 2
    for net in nets:
        assert float(net.forward()["loss"]) > 0
        assert np.isfinite(net.params["conv"][0].data).all()


def test_a_missing_solver(tmp_path: Path) -> None:
    for make in (caffe.get_solver, caffe.AdamSolver):
        with pytest.raises(RuntimeError, match=r"Could not open file .*none"):
            make(tmp_path / "none")


def test_solve_locks_the_snapshot_prefix(write: Write) -> None:
    path = write(solver(write(TRAINABLE)).replace("snapshot_after_train: false", ""))
    with lock_run("snap"):
        with pytest.raises(SnapshotError, match=r"snap: another run \(process \d+"):
            caffe.get_solver(path).solve()
        assert not list(Path().glob("snap_iter_*"))
        quiet = caffe.get_solver(path)
        quiet.param.snapshot_after_train = False
        quiet.solve()
    made = caffe.get_solver(path)
    locked: list[bool] = []
    made.add_callback(lambda: locked.append(Path("snap.run.lock").exists()), lambda: None)
    made.solve()
    assert locked == [True] * 6
    assert not Path("snap.run.lock").exists()


def test_the_sidecar_of_a_solver_is_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(write(solver(write(TRAINABLE))))
    caplog.set_level("INFO", "verydeep.solver")
    caffe.get_solver(path)
    assert "Sidecar" not in caplog.text
    path.with_suffix(".verydeep.toml").write_text("[data.train]\nshuffle = true\n")
    caffe.get_solver(path)
    assert f"Sidecar {path.with_suffix('.verydeep.toml')}: data.train.shuffle = true" in caplog.text
