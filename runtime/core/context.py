"""The state that a net shares with its layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.read_plan import ReadPlan
from prototxt_gen import proto
from prototxt_gen.sidecar import DataOptions
from runtime.core.python_layers import python_layers_allowed
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing


@dataclass(frozen=True)
class PassWindow:
    """The passes of an iteration that this net computes: low .. high-1 of `passes`.

    Data layers read ahead only the data of these passes.
    """

    passes: int = 1
    low: int = 0
    high: int = 1


@dataclass
class RunContext:
    """Random generator, pass number and options of one net.

    `pass_number` counts the forward passes of the run, shards and iter_size included: pass p of a
    net with batch n reads samples p*n .. p*n+n-1. Every random draw and every data position is a
    function of the sample number, so resuming a run or splitting it differently changes neither.
    """

    seed: int = 0
    rng: CaffeRandom = field(default_factory=lambda: CaffeRandom(0))
    pass_number: int = 0
    data: DataOptions = field(default_factory=DataOptions)
    window: PassWindow = field(default_factory=PassWindow)
    fill_weights: bool = True
    """False builds shapes only: fillers are not run and sources are not opened."""
    replaced: Collection[str] = ()
    """Layers whose weights are replaced as soon as the net is built, so that their fillers do not
    run; the random stream continues as if they had run."""
    allow_python_layers: bool = field(default_factory=python_layers_allowed)
    """Whether layers of type Python run; see runtime/core/python_layers.py."""
    raw_python_errors: bool = False
    """Whether an exception of a Python layer is raised unchanged, not as a PythonLayerError."""
    confine_lists: bool = False
    """Refuse files outside of their root folder in lists of images and of HDF5 files, with symbolic
    links resolved: for lists and prototxts from untrusted sources."""
    force: bool = False
    """Whether layers may replace files that this program did not write."""
    caffe_dropout: bool = False
    """Draw dropout masks from `rng`, as original Caffe does, to get its masks; they depend on how a
    batch is split and on earlier draws."""
    images: ReadPlan | None = None
    """The read plan of the last Data layer of images; a Data layer of boxes after it applies the
    same crops and mirrors to its boxes."""
    sharing: Sharing | None = None
    """If given, activations that are not needed together share memory, and after a pass only
    inputs and outputs have their values; by default each blob has its own memory, as in Caffe."""
    root: Path = field(default_factory=Path)
    """The folder that relative paths in a prototxt refer to; in Caffe, the working folder."""

    def never_backward(self, phase: int) -> bool:
        """Whether no backward pass can follow: activations share memory, and the net only tests."""
        return self.sharing is not None and phase == proto.TEST

    def path(self, name: str) -> Path:
        """Resolve a path given in a prototxt."""
        return self.root / name
