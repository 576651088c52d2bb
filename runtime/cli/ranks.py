"""What every process of an mpirun does with a verb that trains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prototxt_gen.errors import VerydeepError
from runtime.backend.base import Backend
from runtime.parallel.collective import PATIENCE
from runtime.parallel.mpi import World, find_world
from runtime.parallel.mpi_group import follow


def run_ranks(
    verb: str,
    lead: Callable[[World | None], int],
    open_backend: Callable[[Any, World], Backend],
    patience: float = PATIENCE,
) -> int:
    """Rank 0, or a process that stands alone, does the verb's work; the others do what it says.

    Raises:
        VerydeepError: what `lead` raised.
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
            # The usual way out waits for every rank.
            print(f"verydeep {verb}: {error}", file=sys.stderr, flush=True)
            world.comm.Abort(2)
        raise
    finally:
        # Without this the other ranks would wait for orders for ever.
        world.stop()
