"""Builds the nets of a solver and loads their initial weights."""

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
from runtime.solvers.update_rule import UpdateRule, create_rule
from runtime.weights.net_file import replaced_layers
from runtime.weights.net_weights import copy_trained_layers


def build_rule(param: Any, backend: Backend, options: SolverOptions) -> UpdateRule:
    """Create the update rule of a SolverParameter.

    It stores the update in the diffs only if a log, a snapshot or a user can read them.

    Raises:
        ProtoError: an unknown solver type or an invalid setting.
    """
    rule = create_rule(param, backend)
    reads_diffs = param.debug_info or param.snapshot_diff
    rule.leaves_update = bool(reads_diffs or not options.share_activations)
    return rule


def build_nets(
    param: Any, backend: Backend, options: SolverOptions, seed: int
) -> tuple[Net, list[Net]]:
    """Build the train net and the test nets, which share its weights.

    All fillers draw from one random stream, in Caffe's order. Weights that are replaced at once, by
    files or by those of the train net, are only drawn if other weights are drawn after them.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError: the solver, a net or its
            weights are invalid or do not fit together.
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
    tests: list[Net] = []
    try:
        _load_weights(net, param, options)
        for index, source in enumerate(test_net_sources(param, options.root)):
            caffe_log(
                "solver.cpp:190", "Creating test net (#%d) specified by %s", index, source.source
            )
            shared = _once(net.layer_names) & _once(layer.name for layer in source.param.layer)
            tests.append(builder.build(source, options.sidecar.test, PassWindow(), shared))
            keep_scores(tests[-1])
            if share_trained_layers(tests[-1], net):
                # The files may have weights of layers that only the test net has.
                _load_weights(tests[-1], param, options)
    except BaseException:
        for built in (net, *tests):
            built.close()
        raise
    return net, tests


@dataclass(frozen=True)
class _Builder:
    """The settings that the nets of one solver share."""

    backend: Backend
    options: SolverOptions
    seed: int
    rng: CaffeRandom
    sharing: Sharing | None
    files: Sequence[Path]
    """Files of weights that are copied into every net."""

    def build(
        self, source: NetSource, data: DataOptions, window: PassWindow, replaced: Collection[str]
    ) -> Net:
        """Build one net; weights of the layers in `replaced` are replaced by other means."""
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
            raw_python_errors=options.raw_python_errors,
            confine_lists=options.confine_lists,
            force=options.force,
            caffe_dropout=options.caffe_dropout,
            replaced=replaced_layers(source.param, self.files, only).union(replaced),
        )
        param = without_fillers(source.param) if options.empty_weights else source.param
        with contextlib.nullcontext() if source.path is None else located(source.path):
            return Net(param, state.phase, self.backend, context, state.level, list(state.stage))


def _once(names: Iterable[str]) -> frozenset[str]:
    """The names that occur once; of two layers with one name, only one gets shared weights."""
    return frozenset(name for name, count in Counter(names).items() if count == 1)


def _overwritten(source: NetSource, options: SolverOptions) -> frozenset[str]:
    """The layers whose weights a snapshot replaces later; errors in it are reported then."""
    if options.overwritten_by is None:
        return frozenset()
    try:
        return replaced_layers(source.param, [options.overwritten_by])
    except SnapshotError:
        return frozenset()


def weight_files(param: Any) -> list[str]:
    """The files in a solver's `weights`; an entry may have several, separated by commas."""
    names = (name.strip() for entry in param.weights for name in entry.split(","))
    return [name for name in names if name]


def _load_weights(net: Net, param: Any, options: SolverOptions) -> None:
    layers = options.sidecar.weights_layers or None
    for name in weight_files(param):
        caffe_log("solver.cpp:72", "Finetuning from %s", name)
        copy_trained_layers(net, options.root / name, layers=layers)
