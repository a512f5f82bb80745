"""What an engine needs of this machine beside GPUs, looked at before Triton starts and fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builder.errors import LaunchError, MissingToolError
from builder.machine.findings import in_words, wanted_shm_bytes
from builder.machine.resources import host
from builder.machine.software import tensorrt_llm
from builder.versions import LAST_WITH_ENGINES, image
from triton_repo.launch import binary, ports, ranks

_LEAST_SHM_BYTES = 1 << 30
"""NVIDIA's guides start containers with 1 to 2 GiB; Docker's own 64 MiB end NCCL at once."""

_INSTANCE_SHM_BYTES = 1 << 20
"""What an instance of a Python model begins with; it grows by as much when requests need it."""
_ROOMY = 4
"""Times that, so that long prompts and a few requests at once find room."""


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
    if target == "llmapi" and server.stubs is not None:
        _require_llmapi()


def _require_llmapi() -> None:
    """Refuse a Python without TensorRT-LLM where it is Triton's too.

    Another's is Triton's own to look at: the model says so when it is loaded.
    """
    found = tensorrt_llm()
    if found is None or not found.has_llmapi:
        raise MissingToolError(
            "the LLM API, which runs the model, is TensorRT-LLM's, and that isn't here",
            found="no package tensorrt_llm",
            do=f"serve it in a Triton container: {image(LAST_WITH_ENGINES)}, or one with a newer"
            " TensorRT-LLM",
        )


def check_ranks(world_size: int, *, say: Callable[[str], None]) -> None:
    """Refuse a machine on which the ranks can't start or talk; one rank needs nothing.

    What may be a trouble and needn't is told to `say`. Raises LaunchError, MissingToolError.
    """
    if world_size <= 1:
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


def check_shared_memory(instances: int, *, say: Callable[[str], None]) -> None:
    """Refuse a /dev/shm that `instances` of Python models can't begin with.

    Raises LaunchError; one that may become full is told to `say`.
    """
    free_bytes = host().shm_free_bytes
    wanted_bytes = instances * _INSTANCE_SHM_BYTES
    do = "start the container with --shm-size=2g or --ipc=host, or empty /dev/shm"
    if free_bytes < wanted_bytes:
        raise LaunchError(
            f"{instances} Python models need {in_words(wanted_bytes)} of shared memory to start",
            found=f"{in_words(free_bytes)} free in /dev/shm",
            do=do,
        )
    if free_bytes < wanted_bytes * _ROOMY:
        say(f"/dev/shm has {in_words(free_bytes)} left: requests will fail while it is full; {do}")


def check_ports(wanted: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuse ports that are taken: option → host and port, None where any port will do.

    Raises LaunchError, also for a port asked for twice.
    """
    options: dict[int, str] = {}
    for option, (address, port) in wanted.items():
        if port is None:
            continue
        if port in options:
            raise LaunchError(f"{option} and {options[port]} are the same", found=str(port))
        options[port] = option
        if trouble := ports.trouble(address, port):
            raise LaunchError(
                f"Triton can't listen on {address}:{port}",
                found=trouble,
                do=f"choose another {option}, or stop who has it",
            )
