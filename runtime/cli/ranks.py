"""Run a verb that trains in every process of an mpirun."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prototxt_gen.errors import VerydeepError
from runtime.backend.base import Backend
from runtime.cli.devices import parse_gpus
from runtime.parallel.collective import PATIENCE
from runtime.parallel.mpi import World, find_world
from runtime.parallel.mpi_group import follow


def replica_counts(gpus: str | None, world: World | None) -> tuple[int, int]:
    """The replicas on this machine, one for each GPU of --gpu, and those of all machines."""
    if world is None:
        local = max(1, len(parse_gpus(gpus)))
        return local, local
    return world.local_size, world.size


def run_ranks(
    verb: str,
    lead: Callable[[World | None], int],
    open_backend: Callable[[Any, World], Backend],
    patience: float = PATIENCE,
) -> int:
    """Run the verb in rank 0, or in the only process; the other ranks follow its commands.

    Raises:
        VerydeepError: raised by `lead`.
    """
    world = find_world()
    if world is None:
        return lead(None)
    world.patience = patience
    if world.rank > 0:
        return follow(world, lambda param: open_backend(param, world))
    try:
        return lead(world)
    except VerydeepError as error:
        if world.lost:
            # MPI_Finalize waits for every rank.
            print(f"verydeep {verb}: {error}", file=sys.stderr, flush=True)
            world.comm.Abort(2)
        raise
    finally:
        # Otherwise the other ranks wait for commands for ever.
        world.stop()
