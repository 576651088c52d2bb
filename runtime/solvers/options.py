"""SolverOptions: the settings of a solver that a solver prototxt has no field for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prototxt_gen.sidecar import Sidecar
from runtime.core.context import PassWindow
from runtime.core.python_layers import python_layers_allowed
from runtime.core.rng import CaffeRandom


@dataclass(frozen=True)
class SolverOptions:
    """Settings of a solver; the defaults behave as original Caffe."""

    sidecar: Sidecar = field(default_factory=Sidecar)
    seed: int | None = None
    """The seed if the prototxt has no random_seed; None for a random one, which is logged."""
    root: Path = field(default_factory=Path)
    """The folder of relative paths of nets and data; Caffe uses the working folder."""
    keep: int | None = None
    """Complete snapshots to keep; None for all."""
    force: bool = True
    """Whether snapshots and HDF5Output layers replace files of other programs, as in Caffe."""
    log_json: Path | None = None
    """The JSON log that lists the snapshots of this run; None for <snapshot_prefix>.log.jsonl."""
    stop_on_snapshot_error: bool = False
    """Whether a snapshot that cannot be written ends the run; the last one always does."""
    allow_python_layers: bool = field(default_factory=python_layers_allowed)
    raw_python_errors: bool = False
    confine_lists: bool = False
    """See RunContext."""
    rng: CaffeRandom | None = None
    """The random stream of the fillers; None for a new one with the seed."""
    caffe_dropout: bool = False
    """See RunContext."""
    shards: int = 1
    """Equal parts of the train net's batch; the net is built for one of them."""
    window: PassWindow = field(default_factory=PassWindow)
    """The passes of an iteration that the train net computes."""
    overwritten_by: Path | None = None
    """A snapshot's weights, which are copied into the train net after it is built."""
    empty_weights: bool = False
    """Whether the fillers are skipped, for a net that gets the weights of another one."""
    share_activations: bool = False
    """Whether activations share memory (see RunContext.sharing), so that the values of blobs and
    diffs are undefined between iterations."""
