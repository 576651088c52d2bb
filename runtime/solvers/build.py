"""Builds the nets of a solver and loads the weights it starts from."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from prototxt_gen.locate import located
from prototxt_gen.sidecar import DataOptions
from runtime.backend.base import Backend
from runtime.core.context import PassWindow, RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.logs.glog import caffe_log
from runtime.net import Net
from runtime.net.batch_cut import cut_batch
from runtime.net.fillers import draws_when_made, draws_when_run, without_fillers
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

    All draw their first weights from one stream, in Caffe's order; a test net leaves out those that
    it will share, where nobody draws after it.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError: what does not fit.
    """
    sharing = Sharing() if options.share_activations else None
    rng = options.rng if options.rng is not None else CaffeRandom(seed)

    def build(source: NetSource, data: DataOptions, window: PassWindow) -> Net:
        context = RunContext(
            seed=seed,
            rng=rng,
            data=data,
            window=window,
            sharing=sharing,
            root=options.root,
            allow_python_layers=options.allow_python_layers,
            confine_lists=options.confine_lists,
            force=options.force,
            caffe_dropout=options.caffe_dropout,
        )
        state = source.state
        place = contextlib.nullcontext() if source.path is None else located(source.path)
        with place:
            return Net(source.param, state.phase, backend, context, state.level, list(state.stage))

    source = train_net_source(param, options.root)
    if options.shards > 1:
        cut = cut_batch(source.param, source.state, options.shards)
        source = dataclasses.replace(source, param=cut)
    train = source
    if options.empty_weights:
        source = dataclasses.replace(source, param=without_fillers(source.param))
    caffe_log("solver.cpp:102", "Creating training net %s", source.source)
    net = build(source, options.sidecar.train, options.window)
    tests = TestNets([], net, param.test_iter)
    try:
        _load_weights(net, param, options)
        sources = test_net_sources(param, options.root)
        bare = _bare_layers(net, train, sources, options)
        for index, source in enumerate(sources):
            source = dataclasses.replace(source, param=without_fillers(source.param, bare))
            caffe_log(
                "solver.cpp:190", "Creating test net (#%d) specified by %s", index, source.source
            )
            tests.nets.append(build(source, options.sidecar.test, PassWindow()))
            keep_scores(tests.nets[-1])
            if share_trained_layers(tests.nets[-1], net):
                # Layers that only the test net has may have weights in the files as well.
                _load_weights(tests.nets[-1], param, options)
    except BaseException:
        for made in (net, *tests.nets):
            made.close()
        raise
    return net, tests


def _bare_layers(
    net: Net, train: NetSource, tests: list[NetSource], options: SolverOptions
) -> list[str] | None:
    """The layers whose first weights test nets need not draw; None for all.

    Where somebody draws afterwards, the stream must be where Caffe's would be.
    """
    if options.empty_weights:
        return None
    own, layers = set(net.layer_names), [layer for test in tests for layer in test.param.layer]
    later = options.caffe_dropout or any(map(draws_when_run, [*train.param.layer, *layers]))
    if later or any(draws_when_made(layer) for layer in layers if layer.name not in own):
        return []
    return net.layer_names


def _load_weights(net: Net, param: Any, options: SolverOptions) -> None:
    layers = options.sidecar.weights_layers or None
    for names in param.weights:
        for name in filter(None, (part.strip() for part in names.split(","))):
            caffe_log("solver.cpp:72", "Finetuning from %s", name)
            copy_trained_layers(net, options.root / name, layers=layers)
