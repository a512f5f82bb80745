"""tritonserver under mpirun: TensorRT-LLM's leader mode and its orchestrator mode.

In both, rank 0 loads every model and listens. The others load the engines' models alone,
explicitly, and stay inside that load until rank 0 ends: they never reach the point of listening,
whatever ports they are given. A leader is a rank of the engine itself; an orchestrator is not, and
one that is alone has the backend start a trtllmExecutorWorker for each rank. Source: upstream's
`triton_backend/scripts/launch_triton_server.py` for the command,
`inflight_batcher_llm/src/model_instance_state.cc` for what the ranks do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from builder.errors import MissingToolError
from triton_repo.launch import processes

_RANK = b"OMPI_COMM_WORLD_RANK="
"""What Open MPI, alone or as part of HPC-X, sets in the environment of a rank."""
_WORKER = "trtllmExecutorW"
"""trtllmExecutorWorker as the kernel keeps its name."""


def find_mpirun() -> Path:
    """The mpirun on the PATH. Raises MissingToolError where there is none."""
    found = shutil.which("mpirun")
    if found is None:
        raise MissingToolError(
            "an engine of several ranks is started by mpirun",
            found="none on the PATH",
            do="work in a Triton container, which has one, or install Open MPI",
        )
    return Path(found)


def command(mpirun: Path, world_size: int, server: Callable[[int], Sequence[str]]) -> list[str]:
    """mpirun with the command `server` of each rank."""
    words = [str(mpirun)]
    if os.geteuid() == 0:
        words.append("--allow-run-as-root")
    # by default Open MPI binds a rank, all its threads and its Python stubs to one core or socket
    words += ["--bind-to", "none"]
    for rank in range(world_size):
        words += [*([":"] if rank else []), "-n", "1", *server(rank)]
    return words


def environment(folder: Path) -> dict[str, str]:
    """What mpirun is to find in its environment: it keeps its own files in `folder`."""
    return {"OMPI_MCA_orte_tmpdir_base": str(folder)}


def running(ancestor: int) -> dict[int, int]:
    """Rank → process id of the ranks on this machine that descend from process `ancestor`."""
    # a rank's stubs have its environment too, and may outlive it
    found = {_rank(server.pid): server.pid for server in processes.servers(ancestor)}
    return {rank: pid for rank, pid in found.items() if rank is not None}


def workers(ancestor: int) -> set[int]:
    """The process ids of an orchestrator's workers that descend from process `ancestor`."""
    found = processes.descendants(ancestor)
    return {process.pid for process in found if process.name == _WORKER and not process.dead}


def _rank(pid: int) -> int | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(v[len(_RANK) :]) for v in environment if v.startswith(_RANK)), None)
