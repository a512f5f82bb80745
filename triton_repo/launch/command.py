"""tritonserver's command line, as a function of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triton_repo.launch import ranks, security
from triton_repo.launch.binary import PYTHON_BACKENDS, TritonServer
from triton_repo.launch.probe import Probe
from triton_repo.launch.security import ServerTls

ENGINE_MODEL = "tensorrt_llm"


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How to run a repository.

    Ports of None are chosen among the free ones and kept over restarts. `models` are loaded
    alone, and others only on request (none given: all); `model_control` allows such requests, with
    the `admin_key` where there is one. A `world_size` above 1 is a tritonserver for each rank,
    under mpirun, of which all but the first load the `engine_models` alone; with `orchestrator`
    the first only gives the orders, and alone it has the backend start its workers (for which
    `gpus` is how many this machine has). `grace_s` is how long requests under way may take on a
    stop. A server that fails `max_failures` times without being up for `stable_s` in between is
    given up; between the tries `backoff_s` doubles up to `max_backoff_s`. One that gives `probe`
    no token counts as failed.
    """

    repository: Path
    log_path: Path
    host: str = "127.0.0.1"
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    models: tuple[str, ...] = ()
    model_control: bool = False
    admin_key: str | None = None
    tls: ServerTls | None = None
    log_verbose: int = 0
    log_format: str = "default"
    world_size: int = 1
    orchestrator: bool = False
    engine_models: tuple[str, ...] = (ENGINE_MODEL,)
    gpus: int = 0
    start_timeout_s: float = 300.0
    grace_s: float = 10.0
    max_failures: int = 5
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    stable_s: float = 60.0
    probe: Probe | None = None
    python_backends: Mapping[str, str] = field(default_factory=lambda: PYTHON_BACKENDS)
    extra_arguments: tuple[str, ...] = ()

    @property
    def under_mpirun(self) -> bool:
        """Whether mpirun starts it: several ranks do need it, and spawned workers."""
        return self.world_size > 1 or self.orchestrator

    @property
    def http_host(self) -> str:
        """Where HTTP listens: not beyond this machine where gRPC has TLS, which HTTP has not."""
        if self.tls is None or security.is_loopback(self.host):
            return self.host
        return "::1" if ":" in self.host else "127.0.0.1"


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

    Raises MissingToolError where mpirun is needed and there is none.
    """

    def of_rank(rank: int) -> list[str]:
        prefix = f"{shm_prefix}{rank}_" if config.world_size > 1 else shm_prefix
        return [
            str(server.path),
            f"--model-repository={config.repository.resolve()}",
            *_addresses(config, ports),
            *security.arguments(config.admin_key, config.tls),
            *_log(config),
            "--disable-auto-complete-config",
            *_shm_prefixes(config, prefix),
            f"--exit-timeout-secs={max(1, round(config.grace_s))}",
            *([f"--backend-directory={backends}"] if backends else []),
            *([f"--cache-directory={server.caches}"] if server.caches else []),
            *_memory_pools(config, gpu),
            *_models(config, rank),
            *config.extra_arguments,
        ]

    if not config.under_mpirun:
        return of_rank(0)
    return ranks.command(ranks.find_mpirun(), config.world_size, of_rank)


def environment(config: LaunchConfig) -> dict[str, str]:
    """What TensorRT-LLM's backend is to find in its environment."""
    if not config.orchestrator:
        return {}
    spawns = config.world_size == 1
    return {
        "TRTLLM_ORCHESTRATOR": "1",
        "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1" if spawns else "0",
    }


def _addresses(config: LaunchConfig, ports: Ports) -> list[str]:
    return [
        f"--http-address={config.http_host}",
        f"--http-port={ports.http}",
        f"--grpc-address={config.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={config.host}",
        f"--metrics-port={ports.metrics}",
        # fewer lose parts of /generate_stream's answers when many arrive at once
        "--http-thread-count=64",
    ]


def _log(config: LaunchConfig) -> list[str]:
    verbose = [f"--log-verbose={config.log_verbose}"] if config.log_verbose else []
    other = [f"--log-format={config.log_format}"] if config.log_format != "default" else []
    return verbose + other


def _memory_pools(config: LaunchConfig, gpu: bool) -> list[str]:
    """Without GPUs no pools; workers that the backend starts must not share the server's."""
    if not gpu:
        return ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
    if config.orchestrator and config.world_size == 1:
        pools = [f"--cuda-memory-pool-byte-size={device}:0" for device in range(config.gpus)]
        return ["--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools]
    return []


def _models(config: LaunchConfig, rank: int) -> list[str]:
    if rank:
        models = config.engine_models
    else:
        models = config.models or (("*",) if config.model_control else ())
    explicit = ["--model-control-mode=explicit"] if models else []
    return explicit + [f"--load-model={model}" for model in models]


def _shm_prefixes(config: LaunchConfig, prefix: str) -> list[str]:
    """Shared memory under a name of our own; a backend written in Python has its own setting."""
    names = ("python", *config.python_backends)
    return [f"--backend-config={name},shm-region-prefix-name={prefix}" for name in names]
