"""tritonserver's command line, as a function of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triton_repo import ranks
from triton_repo.binary import PYTHON_BACKENDS, TritonServer

ENGINE_MODEL = "tensorrt_llm"
"""The model that every rank loads."""


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How to run a repository.

    Ports of None are chosen among the free ones and kept over restarts. `models` are loaded
    alone, and others only on request (none given: all, once). A `world_size` above 1 is a
    tritonserver for each rank of the engine, under mpirun. `grace_s` is how long requests
    under way may take on a stop. A server that fails `max_failures` times without being up for
    `stable_s` in between is given up; between the tries `backoff_s` doubles up to `max_backoff_s`.
    """

    repository: Path
    log_path: Path
    host: str = "127.0.0.1"
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    models: tuple[str, ...] = ()
    world_size: int = 1
    start_timeout_s: float = 300.0
    grace_s: float = 10.0
    max_failures: int = 5
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    stable_s: float = 60.0
    python_backends: Mapping[str, str] = field(default_factory=lambda: PYTHON_BACKENDS)
    extra_arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where a server listens."""

    http: int
    grpc: int
    metrics: int


def arguments(
    config: LaunchConfig,
    server: TritonServer,
    ports: Ports,
    *,
    backends: Path | None,
    shm_prefix: str,
    gpu: bool,
) -> list[str]:
    """The command that runs `config` on `server`; `backends` of None are the server's own.

    Raises MissingToolError where several ranks are asked for and there is no mpirun.
    """

    def of_rank(rank: int) -> list[str]:
        leader = rank == 0
        prefix = shm_prefix if config.world_size == 1 else f"{shm_prefix}{rank}_"
        models = config.models if leader else (ENGINE_MODEL,)
        return [
            str(server.path),
            f"--model-repository={config.repository.resolve()}",
            *_addresses(config, ports),
            "--disable-auto-complete-config",
            *_shm_prefixes(config, prefix),
            f"--exit-timeout-secs={max(1, round(config.grace_s))}",
            *([f"--backend-directory={backends}"] if backends else []),
            *([f"--cache-directory={server.caches}"] if server.caches else []),
            *([] if gpu else ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]),
            *(["--model-control-mode=explicit"] if models else []),
            *(f"--load-model={model}" for model in models),
            *config.extra_arguments,
        ]

    if config.world_size == 1:
        return of_rank(0)
    return ranks.command(ranks.find_mpirun(), config.world_size, of_rank)


def _addresses(config: LaunchConfig, ports: Ports) -> list[str]:
    return [
        f"--http-address={config.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={config.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={config.host}",
        f"--metrics-port={ports.metrics}",
        # fewer lose parts of /generate_stream's answers when many arrive at once
        "--http-thread-count=64",
    ]


def _shm_prefixes(config: LaunchConfig, prefix: str) -> list[str]:
    """Shared memory under a name of our own; a backend written in Python has its own setting."""
    names = ("python", *config.python_backends)
    return [f"--backend-config={name},shm-region-prefix-name={prefix}" for name in names]
