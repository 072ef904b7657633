"""Where the runs of a command are made: the two options that say so, and what they choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretune.training.workers import Backend

WORKERS = "Processes or, with --ray, actors; default: one for each core, as memory allows."
RAY = "Run on this Ray cluster; `auto`: a running one, or one of its own."


def on(ray: str | None) -> Backend:
    """The Ray cluster at this address; None: processes of this machine.

    Raises:
        UsageError: Ray is not installed.
    """
    from foretune.training.workers import processes

    if ray is None:
        return processes
    from foretune.training.ray_cluster import on_ray

    return on_ray(ray)
