"""Files that describe a folder: notes of training runs, ILSVRC's meta.mat."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from data_prep.ilsvrc_truth import Synset, read_ground_truth
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import read_setting
from tests.mutants.case import Case, Format
from tests.mutants.damage import damage
from tests.mutants.json_damage import json_damage

_SYNSETS = (Synset("n01440764", "tench"), Synset("n01443537", "goldfish"))


def _read_run(data: bytes) -> None:
    Path("runs/a/run.json").write_bytes(data)
    folder = RunFolder(Path())
    folder.finished("a")
    folder.begin("a", {"spec": "x"})


def _read_setting(data: bytes) -> None:
    Path("setting.json").write_bytes(data)
    read_setting(Path())


def prepare_notes() -> list[Case]:
    """The notes of a finished run, and of the data of all runs."""
    folder = Path("runs/a")
    folder.mkdir(parents=True)
    (folder / "w").touch()
    (folder / "m").touch()
    note = {
        "finished": True, "made_of": {"spec": "x"}, "weights": "w", "model": "m", "iterations": 5,
        "weights_sha256": "0" * 64,
    }  # fmt: skip
    return [
        Case("run.json", (json.dumps(note, indent=2).encode(),), json_damage, _read_run),
        Case("setting.json", (b'{"data": "demo"}',), json_damage, _read_setting),
    ]


def _read_mat(data: bytes) -> None:
    Path("meta.mat").write_bytes(data)
    read_ground_truth(Path("truth.txt"), Path(), _SYNSETS)


def prepare_mat() -> list[Case]:
    """The table of synsets of ILSVRC's development kit, plain and compressed."""
    Path("truth.txt").write_text("1\n2\n")
    rows = np.zeros((2, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for row, synset in enumerate(_SYNSETS):
        rows[row, 0] = (float(row + 1), synset.wnid)
    files = []
    for compress in (False, True):
        stream = io.BytesIO()
        savemat(stream, {"synsets": rows}, do_compression=compress)
        # The head contains the time at which the file was written.
        files.append(b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:])
    return [Case("meta.mat", tuple(files), damage, _read_mat)]


FORMATS = (Format("run-json", prepare_notes), Format("mat", prepare_mat))
