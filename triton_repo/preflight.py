"""What several ranks need of a machine beside GPUs, looked at before they start and hang."""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import LaunchError
from builder.machine.resources import host

_GIB = 1 << 30
_LEAST_SHM_BYTES = _GIB
"""NVIDIA's guides start containers with 1 to 2 GiB; Docker's own 64 MiB end NCCL at once."""


def wanted_shm_gib(world_size: int) -> int:
    """Shared memory to give a container: 2 GiB for the Python models, 1 GiB for each rank."""
    return 2 + world_size


def check(world_size: int, *, say: Callable[[str], None]) -> None:
    """Refuse a machine on which the ranks can't talk to each other; one rank needs nothing.

    What may be a trouble and needn't is told to `say`. Raises LaunchError.
    """
    if world_size == 1:
        return
    here = host()
    if here.shm_bytes < _LEAST_SHM_BYTES:
        raise LaunchError(
            f"/dev/shm is too small for {world_size} ranks",
            found=f"{here.shm_bytes / _GIB:.2g} GiB",
            do=f"start the container with --shm-size={wanted_shm_gib(world_size)}g or --ipc=host",
        )
    if here.memlock_bytes is not None:
        say(
            f"locked memory is limited to {here.memlock_bytes / _GIB:.2g} GiB, of which NCCL may"
            " need more: start the container with --ulimit memlock=-1"
        )
