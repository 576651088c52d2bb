"""Checks before a run that the device has enough memory."""

from __future__ import annotations

import logging

from prototxt_gen.errors import DeviceError
from runtime.analysis.memory_estimate import budget_advice, in_gib, memory_estimate
from runtime.backend.cuda.driver import OutOfMemoryError
from runtime.solvers.solver import Solver

log = logging.getLogger("verydeep.solver")


def expect_room(solver: Solver) -> None:
    """Compare the estimated memory of a solver's nets with the free memory of its device.

    Devices that share the memory of the host are not checked.

    Raises:
        OutOfMemoryError: the message gives the memory needed and free, and a batch that fits.
    """
    memory = solver.net.backend.device_memory
    if memory is None:
        return
    train = memory_estimate(solver.net, None, solver.param)
    # Test nets share the weights, and all nets share one workspace.
    tests = [memory_estimate(net) for net in solver.test_nets]
    others = sum(estimate.total - estimate.weights - estimate.workspace for estimate in tests)
    spare = max([0, *(estimate.workspace - train.workspace for estimate in tests)])
    needed = train.total + others + spare
    log.info("Memory: about %s of %s", in_gib(needed), in_gib(memory.total_bytes))
    try:
        memory.expect_room(needed, f"net '{solver.net.name}' and its history, by estimate")
    except DeviceError as error:
        advice = budget_advice(solver.net, memory.free_bytes - others - spare, None, solver.param)
        raise OutOfMemoryError(f"{error}; {advice}" if advice else str(error)) from error
