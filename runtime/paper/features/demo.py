"""Appendix B in miniature: nets learn the digits 0 to 4, SVMs classify 5 to 9 by their features.

runs/A-digits-0-4/      a net, its log and weights; B likewise
data/                   the embedded data set, and databases of the digits 0 to 4
features/               cached features of the digits 5 to 9 at single scales
A.h5, B.h5              their aggregated features
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.data_set import DataSet, Entry
from data_prep.open_data_set import open_data_set
from prototxt_gen.spec import NetSpecification, with_values
from runtime.backend.base import Backend
from runtime.evaluate.flips import default_flip
from runtime.evaluate.image_source import ImageFiles
from runtime.job.plan import base_spec, fit_to_data
from runtime.job.prepare import DEMO, DEMO_IMAGES, Prepared, prepare
from runtime.paper.driver import spec_sha256, train_run
from runtime.paper.features.classification import Outcome, solve
from runtime.paper.features.extraction import DescriptorCache, Extractor, Features, ImageSet
from runtime.paper.features.feature_file import write_features
from runtime.paper.features.measures import RECALL
from runtime.paper.features.protocol import AVERAGE, FeatureProtocol
from runtime.paper.features.svm import GRID
from runtime.paper.features.tasks import Split, Task, classed
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting

log = logging.getLogger("verydeep.features")

LEARNT = 5
"""The nets are trained on the digits below this one."""
NETS = ("A", "B")
"""Two depths, stacked as the paper stacks D and E."""
VALUES: dict[str, Any] = {"solver.max_iter": 700, "solver.snapshot": 350}
"""Longer training made the features worse: they then separate only the trained classes."""
SCALES = (64, 72, 80, 88, 96, 104, 112)
"""From the side of the crop to the stored side; the paper uses five scales on VOC."""


@dataclass(frozen=True)
class DemoOptions:
    """The folder of all files; the other options shorten the demo for a trial."""

    out: Path
    jobs: int | None = None
    max_iter: int | None = None
    grid: Sequence[float] = GRID
    images: tuple[int, int] = DEMO_IMAGES
    scales: tuple[int, ...] = SCALES
    nets: tuple[str, ...] = NETS


def run_demo(options: DemoOptions, backend: Backend) -> Outcome:
    """Train, extract features and classify; finished runs and cached features are reused.

    Raises:
        VerydeepError: a step failed; finished work is kept.
    """
    folder = RunFolder(options.out)
    side = Setting(DEMO).stored_side
    data = prepare(DEMO, folder.data, side, options.jobs, options.images, LEARNT)
    runs = [_train(folder, net, data, backend, options.max_iter) for net in options.nets]
    opened = open_data_set(data.root)
    learnt, tested = (
        [entry for entry in entries if entry[1] >= LEARNT]
        for entries in (opened.train_list(), opened.val_list())
    )
    images = ImageSet(ImageFiles(data.root, learnt + tested), str(data.root))
    extractor = Extractor(images, backend, DescriptorCache(options.out / "features"))
    features: list[Features] = []
    for net, run in zip(options.nets, runs):
        protocol = FeatureProtocol(options.scales, AVERAGE, default_flip(run.model))
        log.info("Features of %s: %s", run.name, protocol.describe())
        features.append(extractor.extract(run.model, run.weights, protocol))
        write_features(options.out / f"{net}.h5", features[-1])
    return solve(_task(opened, learnt, tested), features, options.grid)


def demo_spec(net: str) -> NetSpecification:
    """Return a net of the demo and its training, without the values that depend on the data."""
    name = f"VGG-{net}-digits-0-{LEARNT - 1}"
    return with_values(base_spec(net, demo=True), {"name": name} | VALUES)


def _train(
    folder: RunFolder, net: str, data: Prepared, backend: Backend, max_iter: int | None
) -> FinishedRun:
    spec = fit_to_data(demo_spec(net), data, not backend.shares_host_memory, max_iter)
    name = f"{net}-digits-0-{LEARNT - 1}"
    return train_run(folder, name, spec, backend, {"spec": spec_sha256(spec)}, "random weights")


def _task(opened: DataSet, learnt: Sequence[Entry], tested: Sequence[Entry]) -> Task:
    names = [synset.words for synset in opened.synsets[LEARNT:]]
    split = Split(
        *(
            classed({n: [f for f, k in part if k == LEARNT + i] for i, n in enumerate(names)})
            for part in (learnt, tested)
        )
    )
    words = (
        f"nets trained on the digits 0 to {LEARNT - 1} alone; the SVM on {len(split.train)} "
        f"training images of {LEARNT} to 9, tested on {len(split.test)} held-out ones"
    )
    return Task("demo", tuple(names), (split,), RECALL, words, str(opened.root))
