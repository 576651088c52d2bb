"""Writes the files of a specification together, so that they are consistent."""

from __future__ import annotations

import os
from pathlib import Path

from prototxt_gen import heads
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.sidecar import sidecar_path, sidecar_text
from prototxt_gen.solver import sidecar_of, solver_param, solver_text
from prototxt_gen.spec import NetSpecification
from prototxt_gen.spec_toml import to_toml
from prototxt_gen.text import to_text

TRAIN_VAL = "train_val.prototxt"
DEPLOY = "deploy.prototxt"
DENSE = "dense.prototxt"
SOLVER = "solver.prototxt"
SPEC = "spec.toml"


def write_all(spec: NetSpecification, out_dir: str | os.PathLike[str]) -> list[Path]:
    """Write a specification's six files into a folder and return their paths.

    The solver's paths of the net and of the snapshots are relative to the current folder and begin
    with `out_dir`, because original Caffe resolves them there. The same spec and the same `out_dir`
    give the same bytes.

    Raises:
        ProtoError: the folder cannot be written.
    """
    texts = file_texts(spec, out_dir)
    for path, text in texts.items():
        atomic_write_text(path, text, ProtoError)
    return list(texts)


def file_texts(spec: NetSpecification, out_dir: str | os.PathLike[str]) -> dict[Path, str]:
    """The texts that `write_all` writes, by path."""
    folder = Path(out_dir)
    solver = folder / SOLVER
    prefix = utf8_path(folder / spec.name)
    return {
        folder / TRAIN_VAL: to_text(heads.train_val(spec)),
        folder / DEPLOY: to_text(heads.deploy(spec)),
        folder / DENSE: to_text(heads.dense(spec)),
        solver: solver_text(
            solver_param(spec, (folder / TRAIN_VAL).as_posix(), prefix), sidecar_path(solver)
        ),
        sidecar_path(solver): sidecar_text(sidecar_of(spec), SOLVER),
        folder / SPEC: to_toml(spec),
    }
