"""What an engine needs of this machine beside GPUs, looked at before Triton starts and fails."""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import LaunchError, MissingToolError
from builder.machine.findings import in_words, wanted_shm_bytes
from builder.machine.resources import host
from triton_repo import binary, ranks

_LEAST_SHM_BYTES = 1 << 30
"""NVIDIA's guides start containers with 1 to 2 GiB; Docker's own 64 MiB end NCCL at once."""


def check_backend(target: str) -> None:
    """Refuse a Triton that can't run engines of `target`.

    Raises MissingToolError; so it does where there is no Triton.
    """
    server = binary.find()
    if target == "tensorrt-llm" and not server.has_tensorrt_llm:
        raise MissingToolError(
            "this Triton lacks NVIDIA's TensorRT-LLM backend, which the engine needs",
            found=str(server.path),
            do="serve it in a Triton container that has it (trtbuild check says which)",
        )
    if target == "openvino" and server.has_tensorrt_llm:
        raise MissingToolError(
            "this Triton's backend is NVIDIA's, which runs no openvino engine",
            found=str(server.path),
            do="use the Triton of pip install 'trtbuild[cpu]', with no tritonserver on the PATH",
        )


def check_ranks(world_size: int, *, say: Callable[[str], None]) -> None:
    """Refuse a machine on which the ranks can't start or talk; one rank needs nothing.

    What may be a trouble and needn't is told to `say`. Raises LaunchError, MissingToolError.
    """
    if world_size == 1:
        return
    ranks.find_mpirun()
    here = host()
    if here.shm_bytes < _LEAST_SHM_BYTES:
        wanted_gib = wanted_shm_bytes(world_size) >> 30
        raise LaunchError(
            f"/dev/shm is too small for {world_size} ranks",
            found=in_words(here.shm_bytes),
            do=f"start the container with --shm-size={wanted_gib}g or --ipc=host",
        )
    if here.memlock_bytes is not None:
        say(
            f"locked memory is limited to {in_words(here.memlock_bytes)}, of which NCCL may need"
            " more: start the container with --ulimit memlock=-1"
        )
