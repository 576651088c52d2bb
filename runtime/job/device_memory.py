"""Whether a device has the memory that a run will take, said before the run begins."""

from __future__ import annotations

import logging

from prototxt_gen.errors import DeviceError
from runtime.analysis.memory_estimate import budget_advice, in_gib, memory_estimate
from runtime.backend.cuda.driver import OutOfMemoryError
from runtime.solvers.solver import Solver

log = logging.getLogger("verydeep.solver")


def expect_room(solver: Solver) -> None:
    """Compare the estimate of a solver's nets with what its device has free, if it has its own.

    Raises:
        OutOfMemoryError: says what is needed, what is free, and which batch would fit.
    """
    memory = solver.net.backend.device_memory
    if memory is None:
        return
    train = memory_estimate(solver.net, None, solver.param)
    # Test nets share the weights, and every net the one workspace.
    tests = [memory_estimate(net) for net in solver.test_nets]
    others = sum(each.total - each.weights - each.workspace for each in tests)
    spare = max([0, *(each.workspace - train.workspace for each in tests)])
    needed = train.total + others + spare
    log.info("Memory: about %s of %s", in_gib(needed), in_gib(memory.total_bytes))
    try:
        memory.expect_room(needed, f"net '{solver.net.name}' and its history, by estimate")
    except DeviceError as error:
        advice = budget_advice(solver.net, memory.free_bytes - others - spare, None, solver.param)
        raise OutOfMemoryError(f"{error}; {advice}" if advice else str(error)) from error
