"""How many ranks are built at once: as many as there are GPUs, if the host's memory holds them.

Each worker of `trtllm-build` loads its rank's weights and holds TensorRT's copy of them beside its
libraries. A build that the kernel kills is the commonest complaint about large models.
"""

from __future__ import annotations

from builder.errors import LimitError

COPIES_OF_WEIGHTS = 2
WORKER_BYTES = 6 << 30
"""Python, torch, CUDA and TensorRT's kernel library, which alone takes 3.3 GB of a build."""


def worker_bytes(rank_bytes: int) -> int:
    """What building a rank of so many bytes of weights takes of the host's memory: an estimate."""
    return WORKER_BYTES + COPIES_OF_WEIGHTS * rank_bytes


def workers(
    *,
    ranks: int,
    gpus: int | None,
    rank_bytes: int,
    available_bytes: int,
    asked: int | None = None,
) -> tuple[int, str]:
    """How many, and why.

    Where `gpus` isn't known, each rank is taken to have one. `asked` beats the memory, never the
    GPUs: the compiler would lower it by itself. Raises LimitError for less than one. At least one
    is tried, for the memory is an estimate.
    """
    if asked is not None and asked < 1:
        raise LimitError("--workers is too small", found=str(asked), do="at least 1")
    most = ranks if gpus is None else min(ranks, max(gpus, 1))
    if asked is not None:
        fewer = f"asked for {asked}; there are {_some(ranks, gpus)}"
        return min(asked, most), "as asked" if asked <= most else fewer
    need_bytes = worker_bytes(rank_bytes)
    memory = (
        f"a rank takes about {need_bytes / (1 << 30):.0f} GiB of the host's"
        f" {available_bytes / (1 << 30):.0f} GiB free"
    )
    if (fitting := available_bytes // need_bytes) < most:
        return max(1, fitting), memory
    return most, f"{_some(ranks, gpus)}; {memory}"


def _some(ranks: int, gpus: int | None) -> str:
    there = f"{ranks} rank{'s' * (ranks != 1)}"
    if gpus is None:
        return f"{there}; a GPU for each is assumed"
    return f"{there} and {gpus} GPU{'s' * (gpus != 1)}"
