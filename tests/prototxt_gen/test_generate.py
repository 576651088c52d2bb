from __future__ import annotations

import os
from pathlib import Path

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.generate import write_all
from prototxt_gen.sidecar import read_sidecar
from prototxt_gen.solver import sidecar_of
from prototxt_gen.spec import builtin_spec
from prototxt_gen.spec_toml import load_spec
from prototxt_gen.text import read

FILES = (
    "train_val.prototxt",
    "deploy.prototxt",
    "dense.prototxt",
    "solver.prototxt",
    "solver.verydeep.toml",
    "spec.toml",
)


def test_six_files_that_fit_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = builtin_spec("D")
    paths = write_all(spec, "nets/D")
    assert [path.as_posix() for path in paths] == [f"nets/D/{name}" for name in FILES]
    train_val, deploy, dense, solver, _, spec_file = paths
    assert read(train_val, proto.NetParameter) == heads.train_val(spec)
    assert read(deploy, proto.NetParameter) == heads.deploy(spec)
    assert read(dense, proto.NetParameter) == heads.dense(spec)
    param = read(solver, proto.SolverParameter)
    assert Path(param.net).samefile(train_val)
    assert param.snapshot_prefix == "nets/D/VGG-D"
    assert read_sidecar(solver) == sidecar_of(spec)
    assert load_spec(spec_file) == spec


def test_same_spec_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = {path: path.read_bytes() for path in write_all(builtin_spec("C"), "out")}
    again = {path: path.read_bytes() for path in write_all(load_spec("out/spec.toml"), "out")}
    assert first == again
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(FILES)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ProtoError, match="cannot be written: Permission denied"):
        write_all(builtin_spec("A"), tmp_path / "out")


def test_a_file_in_the_folders_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ProtoError, match=r"train_val\.prototxt: cannot be written: .*exists"):
        write_all(builtin_spec("A"), tmp_path / "out")
