"""Score a model on its TEST data. Caffe: tools/caffe.cpp, test."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UsageError
from prototxt_gen.sidecar import SUFFIX, DataOptions, read_sidecar
from runtime.cli.devices import (
    add_device_arguments,
    add_force_argument,
    add_list_arguments,
    add_missing_argument,
    add_state_arguments,
    open_backend,
    stages,
    weight_files,
)
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.logs.glog import caffe_log, number, setup_logging
from runtime.net import Net
from runtime.net.finite import keep_scores, not_finite, sentence
from runtime.solvers.display import finite_json
from runtime.solvers.hooks import Score
from runtime.solvers.testing import check_outcomes, read_scores, score_text
from runtime.weights.net_file import open_net

NAME = "test"
SUMMARY = "score a model's weights on the data of its TEST phase"
EXAMPLE = "verydeep test --model nets/D/train_val.prototxt --weights D.caffemodel --iterations 50"

log = logging.getLogger("verydeep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the train_val prototxt")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILES",
        help="weights: one file, or several with commas",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=50,
        metavar="N",
        help="number of batches (default: %(default)s)",
    )
    parser.add_argument(
        "--solver",
        metavar="FILE",
        help="the solver whose sidecar sets how images are rescaled (default: the only sidecar in "
        "the folder of the model)",
    )
    add_missing_argument(parser)
    add_device_arguments(parser)
    add_state_arguments(parser)
    add_list_arguments(parser)
    add_force_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the means as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging()
    if args.iterations < 1:
        raise UsageError(f"--iterations: expected at least 1, got {args.iterations}; correct it")
    weights = weight_files(args.weights)
    backend = open_backend(args)
    context = RunContext(
        data=test_data_options(args.model, args.solver),
        sharing=Sharing(),
        confine_lists=args.confine_lists,
        force=args.force,
    )
    with open_net(
        args.model,
        proto.TEST,
        backend,
        context,
        args.level,
        stages(args),
        weights,
        args.allow_missing,
    ) as net:
        warn_of_inputs(net)
        loss, scores, wrong = score(net, args.iterations)
    if args.json:
        outputs = {each.name: each.value for each in scores}
        result = {"iterations": args.iterations, "loss": loss, "outputs": outputs}
        print(json.dumps(finite_json({**result, "not_finite": list(wrong)})))
    else:
        print(f"Loss: {number(loss)}")
        for each in scores:
            print(score_text(each))
    if wrong:
        print(f"verydeep test: {sentence(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def warn_of_inputs(net: Net) -> None:
    """Log a warning for a net whose inputs a program fills; a verb leaves them at zero."""
    if net.inputs:
        log.warning(
            "net '%s': nothing fills its inputs (%s), so they are all 0; expected data layers; "
            "give the train_val prototxt for results on data",
            net.name,
            ", ".join(net.inputs),
        )


def test_data_options(model: str, solver: str | None) -> DataOptions:
    """The data options of phase TEST, which a prototxt has no fields for.

    Raises:
        ProtoError: several sidecars are in the folder of the model.
    """
    if solver is None:
        sidecars = sorted(Path(model).parent.glob(f"*{SUFFIX}"))
        if len(sidecars) > 1:
            raise ProtoError(
                f"{model}: several sidecars are in its folder "
                f"({', '.join(p.name for p in sidecars)}); expected one; name the solver with "
                "--solver"
            )
        if not sidecars:
            return DataOptions()
        solver = str(sidecars[0]).removesuffix(SUFFIX) + ".prototxt"
        caffe_log(
            "caffe.cpp:275", "Images are read with the data options of the sidecar of %s", solver
        )
    return read_sidecar(solver).test


def score(net: Net, iterations: int) -> tuple[float, list[Score], tuple[str, ...]]:
    """The mean loss and outputs of a net over batches, and the blobs with NaN or infinity."""
    caffe_log("caffe.cpp:281", "Running for %d iterations.", iterations)
    keep_scores(net)
    loss = 0.0
    total: list[float] = []
    wrong: dict[str, None] = {}
    for batch in range(iterations):
        loss += net.forward()
        wrong |= dict.fromkeys(not_finite(net))
        scores = read_scores(net)
        check_outcomes(net, [len(total or scores), len(scores)])
        for each in scores:
            caffe_log("caffe.cpp:304", "Batch %d, %s = %s", batch, each.name, number(each.value))
        total = [a + each.value for a, each in zip(total or [0.0] * len(scores), scores)]
    means = [
        Score(each.name, value / iterations, each.loss_weight)
        for each, value in zip(read_scores(net), total)
    ]
    caffe_log("caffe.cpp:309", "Loss: %s", number(loss / iterations))
    for each in means:
        caffe_log("caffe.cpp:321", "%s", score_text(each))
    return loss / iterations, means, tuple(wrong)
