"""Weights, solver states and features: .caffemodel, .solverstate, state.json, HDF5, npz."""

from __future__ import annotations

import contextlib
import functools
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_prep.mean_file import read_mean
from prototxt_gen import proto, text
from prototxt_gen.binaryproto import array_to_blob, read_binaryproto
from prototxt_gen.errors import VerydeepError
from prototxt_gen.sidecar import PlateauOptions, Sidecar
from runtime.evaluate.cache import PosteriorCache
from runtime.evaluate.fusion import Posteriors
from runtime.net import Net
from runtime.paper.features.extraction import Features
from runtime.paper.features.feature_file import read_features, write_features
from runtime.solvers.options import SolverOptions
from runtime.weights.caffemodel import blob_data, read_caffemodel, read_net, write_caffemodel
from runtime.weights.net_weights import copy_trained_layers, save
from runtime.weights.npz import write_npz_weights
from runtime.weights.solverstate import read_solverstate
from runtime.weights.weights_file import open_weights
from tests.mutants.case import Case, Format
from tests.mutants.file_damage import hdf5_damage, members, npz_damage, zipped
from tests.mutants.json_damage import json_damage
from tests.mutants.proto_damage import proto_damage
from tests.mutants.read_nets import CHAIN, V0, backend, leave_data
from tests.mutants.read_solvers import toy_solver

GOLDEN = Path(__file__).parents[1] / "golden" / "caffemodel"
_SNAPSHOT = "s_iter_1"


@functools.cache
def _net() -> Net:
    """The net that weights are copied into; each process builds one."""
    return Net(text.parse(CHAIN, proto.NetParameter), proto.TEST, backend())


def _load(path: str) -> None:
    """Read every blob, and copy those that fit into a net."""
    with open_weights(path) as layers:
        for layer in layers:
            for blob in layer.blobs.values():
                with contextlib.suppress(VerydeepError):
                    blob.array()
    copy_trained_layers(_net(), path)


def _put(name: str, data: bytes) -> str:
    """Write a new file, because the previous one may still be mapped."""
    path = Path(name)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return name


def _read_caffemodel(data: bytes) -> None:
    path = _put("w.caffemodel", data)
    _load(path)
    layers = read_caffemodel(path)
    net, blobs = read_net(path)
    arrays = [
        [blob_data(blob, layer.type, index) for index, blob in enumerate(of_layer)]
        for layer, of_layer in zip(net.layer, blobs, strict=True)
    ]
    write_caffemodel(
        "out.caffemodel", net, arrays, layers[0].form if layers[0].form != "V0" else "V1"
    )


def _v0_weights() -> bytes:
    param = text.parse(V0, proto.NetParameter)
    param.layers[1].layer.blobs.add(num=4, channels=3, height=3, width=3, data=range(108))
    param.layers[1].layer.blobs.add(num=1, channels=1, height=1, width=4, data=range(4))
    return bytes(param.SerializeToString())


def _double_weights() -> bytes:
    param = proto.NetParameter(name="doubles")
    layer = param.layer.add(name="ip", type="InnerProduct")
    blob = layer.blobs.add(double_data=[0.5] * 320, double_diff=[1] * 320)
    blob.shape.dim.extend((5, 64))
    layer.blobs.add(num=1, channels=1, height=1, width=5, data=[1] * 5, diff=[2] * 5)
    return bytes(param.SerializeToString())


def prepare_caffemodels() -> list[Case]:
    """The small golden files, and all older forms."""
    save(_net(), "chain.caffemodel", write_diff=True)
    samples = (
        Path("chain.caffemodel").read_bytes(),
        (GOLDEN / "conv.caffemodel").read_bytes(),
        (GOLDEN / "legacy_v1.caffemodel").read_bytes(),
        _v0_weights(),
        _double_weights(),
    )
    return [Case("caffemodel", samples, proto_damage, _read_caffemodel)]


def _leave_snapshot(hdf5: bool = False) -> tuple[bytes, bytes, bytes]:
    """Write a snapshot of the toy solver, and return its three files."""
    solver = toy_solver(SolverOptions(seed=1, sidecar=Sidecar(schedule=PlateauOptions("accuracy"))))
    solver.param.snapshot = 0
    if hdf5:
        solver.param.snapshot_format = solver.param.HDF5
    solver.step(1)
    files = solver.snapshot()
    solver.close()
    model, state, ours = (Path(file).read_bytes() for file in files)
    return model, state, ours


def _resume(name: str, sidecar: Sidecar) -> None:
    solver = toy_solver(SolverOptions(seed=1, sidecar=sidecar))
    solver.param.snapshot = 0
    try:
        solver.restore(name)
        if solver.iter < 1 << 20:
            solver.step(2)
            solver.snapshot()
    finally:
        solver.close()
        for path in Path().glob("s_iter_*"):
            if not path.name.startswith(_SNAPSHOT + "."):
                path.unlink()


def _read_solverstate(data: bytes) -> None:
    # Without state.json in the same folder, the state is that of original Caffe.
    path = _put("mutant.solverstate", data)
    for array in read_solverstate(path).history:
        np.array(array)
    _resume(path, Sidecar())


def prepare_solverstates() -> list[Case]:
    """The state of the toy solver and the golden one, cut to its first blobs."""
    _, state, _ = _leave_snapshot()
    golden = proto.SolverState.FromString((GOLDEN / "lenet_iter_25.solverstate").read_bytes())
    del golden.history[2:]
    golden.ClearField("learned_net")
    return [
        Case(
            "solverstate",
            (state, state, bytes(golden.SerializeToString())),
            proto_damage,
            _read_solverstate,
        )
    ]


def _read_state(data: bytes) -> None:
    _put(f"{_SNAPSHOT}.state.json", data)
    _resume(f"{_SNAPSHOT}.solverstate", Sidecar(schedule=PlateauOptions("accuracy", patience=1)))


def prepare_states() -> list[Case]:
    """The state.json of a run with a schedule."""
    _, _, ours = _leave_snapshot()
    return [Case("state.json", (ours,), json_damage, _read_state)]


def _hdf5(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in arrays.items():
            file[name.replace("__", "/")] = value
    return stream.getvalue()


def _read_hdf5_weights(data: bytes) -> None:
    _load(_put("w.h5", data))


def prepare_hdf5_weights() -> list[Case]:
    """Weights of two nets, and a file with compressed chunks."""
    save(_net(), "chain.caffemodel.h5")
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver="latest") as file:
        options: dict[str, Any] = {"chunks": (2, 32), "compression": "gzip", "shuffle": True}
        file.create_dataset("data/ip/0", data=np.ones((5, 64), np.float32), **options)
        file.create_dataset("data/ip/1", data=np.ones(5, np.float64), fletcher32=True)
    samples = (
        Path("chain.caffemodel.h5").read_bytes(),
        (GOLDEN / "conv.caffemodel.h5").read_bytes(),
        stream.getvalue(),
    )
    return [Case("weights", samples, hdf5_damage, _read_hdf5_weights)]


def _read_hdf5_data(shuffle: str) -> Any:
    net = text.parse(
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" '
        f'hdf5_data_param {{ source: "h5.txt" batch_size: 3 shuffle: {shuffle} }} }}',
        proto.NetParameter,
    )

    def read(data: bytes) -> None:
        _put("data.h5", data)
        with Net(net, proto.TRAIN, backend()) as built:
            if sum(blob.count() for blob in built.blobs.values()) < 1 << 22:
                for _ in range(3):
                    built.forward()

    return read


def prepare_hdf5_data() -> list[Case]:
    """Files for an HDF5Data layer: plain, compressed, of integers."""
    leave_data()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        options: dict[str, Any] = {"chunks": True, "maxshape": (None, 3), "compression": "gzip"}
        file.create_dataset("data", data=np.ones((6, 3), np.float32), **options)
        file.create_dataset("label", data=np.arange(6, dtype=np.int64))
    samples = (
        _hdf5(data=np.ones((4, 2), np.float32), label=np.arange(4.0)),
        _hdf5(data=np.ones((7, 1, 2, 2), np.float64), label=np.zeros((7, 1), np.uint8)),
        stream.getvalue(),
    )
    return [
        Case("in order", samples, hdf5_damage, _read_hdf5_data("false")),
        Case("shuffled", samples, hdf5_damage, _read_hdf5_data("true")),
    ]


def _read_hdf5_state(data: bytes) -> None:
    path = _put("mutant.solverstate.h5", data)
    read_solverstate(path)
    _resume(path, Sidecar())


def prepare_hdf5_states() -> list[Case]:
    """The state of the toy solver in HDF5."""
    _leave_snapshot(hdf5=True)
    with h5py.File(f"{_SNAPSHOT}.solverstate.h5") as file:
        history = {f"history__{name}": blob[()] for name, blob in file["history"].items()}
        numbers = {name: file[name][()] for name in ("iter", "current_step")}
    # The file contains the time at which it was written.
    name = np.bytes_(f"{_SNAPSHOT}.caffemodel.h5")
    state = _hdf5(**numbers, **history, learned_net=name)
    return [Case("solverstate.h5", (state,), hdf5_damage, _read_hdf5_state)]


def _features() -> Features:
    attributes = {
        "net": "n", "weights_sha256": "0" * 64, "scales": [256, 384], "aggregate": "stack",
        "flip": True, "layer": "fc7", "regions": "images",
    }  # fmt: skip
    return Features(("a.jpg", "b.jpg", "é"), np.ones((3, 4), np.float32), np.arange(3), attributes)


def _read_features(suffix: str) -> Any:
    def read(data: bytes) -> None:
        features = read_features(Path(_put(f"f{suffix}", data)))
        write_features(Path(f"out{suffix}"), features)

    return read


def prepare_hdf5_features() -> list[Case]:
    """Features as `verydeep features extract` writes them."""
    write_features(Path("features.h5"), _features())
    samples = (Path("features.h5").read_bytes(),)
    return [Case("features", samples, hdf5_damage, _read_features(".h5"))]


def _read_npz_weights(data: bytes) -> None:
    _load(_put("w.npz", data))


_KEY = {"net": "n", "scale": 256}


def _read_posteriors(data: bytes) -> None:
    cache = PosteriorCache(Path("cache"))
    _put(str(cache.path(_KEY)), data)
    entry = cache.load(_KEY)
    if entry is not None:
        entry.error(1)


def prepare_npz() -> list[Case]:
    """Weights, features and posteriors."""
    arrays = [
        (layer.param.name, [blob.data.host() for blob in layer.blobs])
        for layer in _net().layers
        if layer.blobs
    ]
    write_npz_weights("w.npz", arrays)
    write_features(Path("features.npz"), _features())
    cache = PosteriorCache(Path("cache"))
    stored = cache.store(_KEY, Posteriors(np.full((3, 4), 0.25), np.arange(3)))
    # The times in the archives would differ from run to run.
    weights, features, posteriors = (
        zipped(members(path.read_bytes()), 0)
        for path in (Path("w.npz"), Path("features.npz"), stored)
    )
    return [
        Case("weights", (weights,), npz_damage, _read_npz_weights),
        Case("features", (features,), npz_damage, _read_features(".npz")),
        Case("posteriors", (posteriors,), npz_damage, _read_posteriors),
    ]


def _read_mean(data: bytes) -> None:
    path = _put("m.binaryproto", data)
    read_binaryproto(path)
    read_mean(path)


def prepare_means() -> list[Case]:
    """Mean images in the old and the current form."""
    mean = np.linspace(0, 255, 3 * 4 * 5).reshape(3, 4, 5)
    messages = (array_to_blob(mean, legacy=True), array_to_blob(mean, diff=mean))
    samples = tuple(bytes(message.SerializeToString()) for message in messages)
    return [Case("binaryproto", samples, proto_damage, _read_mean)]


FORMATS = (
    Format("caffemodel", prepare_caffemodels),
    Format("solverstate", prepare_solverstates),
    Format("state-json", prepare_states),
    Format("hdf5-weights", prepare_hdf5_weights),
    Format("hdf5-data", prepare_hdf5_data),
    Format("hdf5-solverstate", prepare_hdf5_states),
    Format("hdf5-features", prepare_hdf5_features),
    Format("npz", prepare_npz),
    Format("mean", prepare_means),
)
