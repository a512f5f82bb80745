"""How a repository's Triton is launched: the user's choice, held against repository and machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import LaunchError
from triton_repo.launch import placement, preflight, security
from triton_repo.launch.command import LaunchConfig
from triton_repo.launch.placement import Placement
from triton_repo.launch.probe import EMBEDDING, REQUESTS, Probe
from triton_repo.launch.security import ServerTls
from triton_repo.launch.triton import default_log
from triton_repo.served import ServedEngine, ServedRepository
from trtbuild.console import say

NO_KEY = "CHOOSE-A-KEY"
"""Where a command that is only shown would have one."""


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton runs; None is a log beside the repository, any free port, and no probe.

    `restrict_admin` of None asks for a key where others than this machine reach the server.
    """

    log: Path | None = None
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    start_timeout_s: float = LaunchConfig.start_timeout_s
    log_verbose: int = LaunchConfig.log_verbose
    log_format: str = LaunchConfig.log_format
    tls: ServerTls | None = None
    restrict_admin: bool | None = None
    share_gpus: bool = False
    probe_interval_s: float | None = None
    probe_timeout_s: float = Probe.timeout_s


def launch_config(served: ServedRepository, host: str, options: TritonOptions) -> LaunchConfig:
    """The launch of a repository on `host`. Raises for what this machine can't run."""
    engines = placement.read(served.path)
    config = _config(served, engines, host, options)
    _refuse(served, engines, config, options)
    return config


def command_line(served: ServedRepository, host: str, options: TritonOptions) -> str:
    """The command that starts Triton, for a shell; without a backend folder of our making.

    Raises MissingToolError where Triton, or an mpirun that it needs, isn't here.
    """
    from triton_repo.launch import binary, command, process

    config = _config(served, placement.read(served.path), host, options)
    server = binary.find()
    if config.admin_key:
        config = replace(config, admin_key=NO_KEY)
        say(f"put a key of your own in the place of {NO_KEY}")
    if served.target == "openvino":
        say("on a CPU it lacks --backend-directory: trtbuild serve makes that folder of backends")
    ports = command.Ports(
        http=config.http_port or 8000,
        grpc=config.grpc_port or 8001,
        metrics=config.metrics_port or 8002,
    )
    words = command.arguments(
        config,
        server,
        ports,
        backends=None,
        shm_prefix="trtbuild_",
        gpu=process.has_gpu(),
    )
    environment = {**server.environment, **process.models_environment(config, ports)}
    return f"cd {shlex.quote(str(served.path))} && {_shell(environment, words)}"


def _shell(environment: Mapping[str, str], words: Sequence[str]) -> str:
    values = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*values, *("':'" if word == ":" else shlex.quote(word) for word in words)])


def _config(
    served: ServedRepository, engines: Sequence[Placement], host: str, options: TritonOptions
) -> LaunchConfig:
    form = placement.form_of(engines)
    restrict = options.restrict_admin
    if restrict is None:
        restrict = not security.is_loopback(host)
    return LaunchConfig(
        repository=served.path,
        log_path=options.log or default_log(served.path),
        host=host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        # ranks other than the first can't load anew
        model_control=form.ranks == 1 and not form.orchestrator,
        admin_key=security.new_key() if restrict else None,
        tls=options.tls,
        log_verbose=options.log_verbose,
        log_format=options.log_format,
        world_size=form.ranks,
        orchestrator=form.orchestrator,
        engine_models=form.engine_models,
        gpus=_gpus() if form.orchestrator else 0,
        start_timeout_s=options.start_timeout_s,
        probe=_probe(served, options),
    )


def _refuse(
    served: ServedRepository,
    engines: Sequence[Placement],
    config: LaunchConfig,
    options: TritonOptions,
) -> None:
    from builder.fit import refuse_misfit

    for engine in served.engines:
        refuse_misfit(engine.engine_dir)
    preflight.check_backend(served.target)
    if served.target == "tensorrt-llm":
        placement.check(engines, _gpus(), share=options.share_gpus, say=say)
    ranks = sum(engine.world_size * engine.instances for engine in engines)
    preflight.check_ranks(ranks if config.under_mpirun else 1, say=say)
    preflight.check_shared_memory(placement.python_instances(served.path, served.target), say=say)
    if options.tls:
        options.tls.require_files()
        if not options.tls.models_are_let_in():
            say(
                "ensemble and tensorrt_llm_bls will fail: they show --tls-cert, which"
                " --tls-client-ca hasn't signed"
            )
    preflight.check_ports(
        {
            "--http-port": (config.http_host, config.http_port),
            "--grpc-port": (config.host, config.grpc_port),
            "--metrics-port": (config.host, config.metrics_port),
        }
    )


def _probe(served: ServedRepository, options: TritonOptions) -> Probe | None:
    if options.probe_interval_s is None:
        return None
    return Probe(
        requests=probe_requests(served),
        interval_s=options.probe_interval_s,
        timeout_s=options.probe_timeout_s,
    )


def probe_requests(served: ServedRepository) -> dict[str, Mapping[str, object]]:
    """The model of each engine → what to ask it for a token, or for an embedding."""
    return {
        engine.model: EMBEDDING if engine.embedding else REQUESTS[engine.target]
        for engine in served.engines
    }


def _gpus() -> int:
    from builder.machine import gpus

    return len(gpus())


def engine_named(served: ServedRepository, name: str | None) -> ServedEngine:
    """The engine called `name`, by default the first. Raises LaunchError for another."""
    names = [engine.name for engine in served.engines]
    if name is None:
        return served.engines[0]
    if name not in names:
        raise LaunchError(
            f"{served.path} serves no {name}", found=", ".join(names), do="choose one of these"
        )
    return served.engines[names.index(name)]
