"""Builds the nets of a solver and loads the weights it starts from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen.errors import SnapshotError
from prototxt_gen.locate import located
from prototxt_gen.sidecar import DataOptions
from runtime.backend.base import Backend
from runtime.core.context import PassWindow, RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.logs.glog import caffe_log
from runtime.net import Net
from runtime.net.batch_cut import cut_batch
from runtime.net.fillers import without_fillers
from runtime.net.finite import keep_scores
from runtime.solvers.nets import (
    NetSource,
    share_trained_layers,
    test_net_sources,
    train_net_source,
)
from runtime.solvers.options import SolverOptions
from runtime.solvers.testing import TestNets
from runtime.solvers.update_rule import UpdateRule, create_rule
from runtime.weights.net_file import replaced_layers
from runtime.weights.net_weights import copy_trained_layers


def build_rule(param: Any, backend: Backend, options: SolverOptions) -> UpdateRule:
    """Make the update rule; it leaves what it took off the weights where somebody looks.

    Raises:
        ProtoError: a solver type or a setting that does not exist.
    """
    rule = create_rule(param, backend)
    shown = param.debug_info or param.snapshot_diff
    rule.leaves_update = bool(shown or not options.share_activations)
    return rule


def build_nets(
    param: Any, backend: Backend, options: SolverOptions, seed: int
) -> tuple[Net, TestNets]:
    """Make the train net and the test nets, which share its weights.

    All draw their first weights from one stream, in Caffe's order. Weights that are replaced at
    once, by files or by the train net's, are drawn only if something else draws after them.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError: what does not fit.
    """
    builder = _Builder(
        backend,
        options,
        seed,
        options.rng if options.rng is not None else CaffeRandom(seed),
        Sharing() if options.share_activations else None,
        [options.root / name for name in weight_files(param)],
    )
    source = train_net_source(param, options.root)
    if options.shards > 1:
        cut = cut_batch(source.param, source.state, options.shards)
        source = dataclasses.replace(source, param=cut)
    caffe_log("solver.cpp:102", "Creating training net %s", source.source)
    overwritten = _overwritten(source, options)
    net = builder.build(source, options.sidecar.train, options.window, overwritten)
    tests = TestNets([], net, param.test_iter)
    try:
        _load_weights(net, param, options)
        for index, source in enumerate(test_net_sources(param, options.root)):
            caffe_log(
                "solver.cpp:190", "Creating test net (#%d) specified by %s", index, source.source
            )
            shared = _once(net.layer_names) & _once(layer.name for layer in source.param.layer)
            tests.nets.append(builder.build(source, options.sidecar.test, PassWindow(), shared))
            keep_scores(tests.nets[-1])
            if share_trained_layers(tests.nets[-1], net):
                # Layers that only the test net has may have weights in the files as well.
                _load_weights(tests.nets[-1], param, options)
    except BaseException:
        for made in (net, *tests.nets):
            made.close()
        raise
    return net, tests


@dataclass(frozen=True)
class _Builder:
    """Builds the nets of one solver from what they share."""

    backend: Backend
    options: SolverOptions
    seed: int
    rng: CaffeRandom
    sharing: Sharing | None
    files: Sequence[Path]
    """Of weights, which are copied into every net."""

    def build(
        self, source: NetSource, data: DataOptions, window: PassWindow, replaced: Collection[str]
    ) -> Net:
        """Build one net. `replaced`: layers whose weights are replaced, but not by `files`."""
        options, state = self.options, source.state
        only = options.sidecar.weights_layers or None
        context = RunContext(
            seed=self.seed,
            rng=self.rng,
            data=data,
            window=window,
            sharing=self.sharing,
            root=options.root,
            allow_python_layers=options.allow_python_layers,
            confine_lists=options.confine_lists,
            force=options.force,
            caffe_dropout=options.caffe_dropout,
            replaced=replaced_layers(source.param, self.files, only).union(replaced),
        )
        param = without_fillers(source.param) if options.empty_weights else source.param
        place = contextlib.nullcontext() if source.path is None else located(source.path)
        with place:
            return Net(param, state.phase, self.backend, context, state.level, list(state.stage))


def _once(names: Iterable[str]) -> frozenset[str]:
    """The names that occur once: of two layers of one name, one keeps its weights."""
    return frozenset(name for name, count in Counter(names).items() if count == 1)


def _overwritten(source: NetSource, options: SolverOptions) -> frozenset[str]:
    """The layers that a snapshot fills after the nets are made; its faults are reported then."""
    if options.overwritten_by is None:
        return frozenset()
    try:
        return replaced_layers(source.param, [options.overwritten_by])
    except SnapshotError:
        return frozenset()


def weight_files(param: Any) -> list[str]:
    """The files that a solver's `weights` name; an entry may list several by comma."""
    names = (name.strip() for entry in param.weights for name in entry.split(","))
    return [name for name in names if name]


def _load_weights(net: Net, param: Any, options: SolverOptions) -> None:
    layers = options.sidecar.weights_layers or None
    for name in weight_files(param):
        caffe_log("solver.cpp:72", "Finetuning from %s", name)
        copy_trained_layers(net, options.root / name, layers=layers)
