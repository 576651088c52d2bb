"""What a solver prototxt has no field for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prototxt_gen.sidecar import Sidecar
from runtime.core.context import PassWindow
from runtime.core.rng import CaffeRandom


@dataclass(frozen=True)
class SolverOptions:
    """How a solver runs here; the defaults are original Caffe's ways."""

    sidecar: Sidecar = field(default_factory=Sidecar)
    seed: int | None = None
    """Where the prototxt has no random_seed: the seed to use; None draws one, and logs it."""
    root: Path = field(default_factory=Path)
    """Where relative paths of nets and data start; Caffe's rule is the working folder."""
    keep: int | None = None
    """Whole snapshots to keep; None for all."""
    force: bool = True
    """Whether snapshots and HDF5Output layers replace files that this program did not write, as
    original Caffe's replace any."""
    log_json: Path | None = None
    """The JSON log that names the snapshots of this run; None for <snapshot_prefix>.log.jsonl."""
    stop_on_snapshot_error: bool = False
    """Whether a snapshot that cannot be written ends the run; the last one always does."""
    allow_python_layers: bool = False
    confine_lists: bool = False
    """See RunContext."""
    rng: CaffeRandom | None = None
    """The stream that first weights are drawn from; None starts one with the seed."""
    caffe_dropout: bool = False
    """See RunContext."""
    shards: int = 1
    """Equal parts that the train net's batch is cut into: the net is built for one of them."""
    window: PassWindow = field(default_factory=PassWindow)
    """The train net's part of an iteration's passes."""
    overwritten_by: Path | None = None
    """A file of weights that is copied into the train net after it is made: a snapshot's."""
    empty_weights: bool = False
    """Leave first weights zero: for a net that is about to be given another's."""
    share_activations: bool = False
    """Whether the nets' activations share memory (see RunContext.sharing): nobody looks into the
    nets between iterations."""
