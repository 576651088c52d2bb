"""This project's contestant: nets of the paper, forward, forward and backward, or an iteration."""

from __future__ import annotations

from serve import Work, arguments, serve
from vgg_nets import fed, fill, specification

from prototxt_gen import heads, proto
from prototxt_gen.spec import NetSpecification
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.logs.glog import setup_logging
from runtime.net import Net
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver


def _context() -> RunContext:
    return RunContext(fill_weights=False, sharing=Sharing())


def inference(spec: NetSpecification, batch: int, backend: CpuBackend) -> Work:
    """A forward pass of the deploy net."""
    param = fed(heads.deploy(spec), batch, spec.crop)
    net = Net(param, proto.TEST, backend, _context())
    fill(net, spec.classes)
    return net.forward


def step(spec: NetSpecification, batch: int, backend: CpuBackend) -> Work:
    """Forward and backward of the training net, the gradients zeroed before."""
    param = fed(heads.train_val(spec), batch, spec.crop)
    net = Net(param, proto.TRAIN, backend, _context())
    fill(net, spec.classes)

    def work() -> None:
        for blob in net.params.learnable:
            blob.data.mutable_dev()  # as after an update: transformed filters cannot be used again
        net.clear_param_diffs()
        net.forward()
        net.backward()

    return work


def iteration(spec: NetSpecification, batch: int, backend: CpuBackend) -> Work:
    """A training iteration, including its update."""
    param = proto.SolverParameter(base_lr=1e-3, lr_policy="fixed", momentum=0.9, random_seed=1)
    param.weight_decay, param.max_iter = 5e-4, 1 << 30
    param.net_param.CopyFrom(fed(heads.train_val(spec), batch, spec.crop))
    solver = Solver(param, backend, SolverOptions(share_activations=True))
    fill(solver.net, spec.classes)
    return lambda: solver.step(1)


def main() -> None:
    args = arguments()
    setup_logging(terse=True)
    backend = CpuBackend(threads=args.threads)
    works = {"forward": inference, "step": step, "iteration": iteration}
    work = works[args.work](specification(args.net), args.batch, backend)
    serve(work, {"name": "verydeep"})


if __name__ == "__main__":
    main()
