"""A repository's endpoint: Triton under supervision and the proxy before it, together or apart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import LaunchError
from server.app import create_app
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig
from server.run import run as run_loop
from server.run import serve
from triton_repo.launch import LaunchConfig, Triton, default_log
from triton_repo.layout import ServedRepository, describe
from trtbuild.console import say

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
"""Where Triton listens when nobody says, alone in its container."""


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton runs; None is a log beside the repository, and any free port."""

    log: Path | None = None
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    start_timeout_s: float = LaunchConfig.start_timeout_s


def run(repository: Path, *, host: str, port: int, options: TritonOptions | None = None) -> None:
    """Serve `repository` until SIGTERM, then drain and stop; SIGINT, or a second signal, hurries.

    Raises ArtifactError for a folder that isn't a repository or an engine that isn't for this
    machine, LaunchError when Triton doesn't start or is given up, or when the port is taken.
    """
    served = describe(repository)
    config = _launch_config(served, "127.0.0.1", options or TritonOptions())
    say(f"starting Triton on {repository} (log: {config.log_path})")
    with Triton(config, on_event=say) as triton:
        run_loop(_proxy(served, triton.grpc_address, host, port, triton))


def run_triton(repository: Path, *, host: str, options: TritonOptions) -> None:
    """Triton alone, on `host`, until SIGTERM or SIGINT. Raises as `run` does.

    Requests under way may take as long to finish as they may in a proxy that drains.
    """
    config = _launch_config(describe(repository), host, options)
    config = replace(config, grace_s=ServerConfig.drain_seconds)
    say(f"starting Triton on {repository} (log: {config.log_path})")
    run_loop(_triton(Triton(config, on_event=say)))


def run_proxy(repository: Path, *, triton: str, host: str, port: int) -> None:
    """The proxy alone, before the Triton whose gRPC endpoint is `triton` (host:port).

    It starts whether or not that Triton is there, and finds it again when it comes back. Raises
    ArtifactError and LaunchError as `run` does, for the repository and for the port.
    """
    run_loop(_proxy(describe(repository), triton, host, port))


def _launch_config(served: ServedRepository, host: str, options: TritonOptions) -> LaunchConfig:
    """How to launch a repository. Raises for an engine or a machine that it can't run on."""
    from builder.fit import refuse_misfit
    from triton_repo import engine, preflight

    refuse_misfit(served.engine_dir)
    preflight.check_backend(served.target)
    world_size = engine.read(served.engine_dir).world_size
    preflight.check_ranks(world_size, say=say)
    return LaunchConfig(
        repository=served.path,
        log_path=options.log or default_log(served.path),
        host=host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        world_size=world_size,
        start_timeout_s=options.start_timeout_s,
    )


async def _triton(triton: Triton) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = asyncio.create_task(asyncio.to_thread(triton.start))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _announce(triton)
            await _until_given_up(triton, stop)
    finally:
        stopping.cancel()
        await asyncio.to_thread(triton.stop)
        if not starting.done():
            # it says that it was stopped while it started
            with contextlib.suppress(LaunchError):
                await starting


async def _proxy(
    served: ServedRepository, address: str, host: str, port: int, triton: Triton | None = None
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(number: int) -> None:
        if number == signal.SIGINT or stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    model = ServedModel(
        name=served.name, tokenizer_dir=served.tokenizer_dir, max_seq_len=served.max_seq_len
    )
    config = ServerConfig(triton_address=address, model=model, host=host, port=port)
    app = create_app(config, TritonBackend(config))
    watch = asyncio.create_task(_until_given_up(triton, stop))
    try:
        await serve(
            app,
            config,
            stop=stop,
            hurry=hurry,
            listening=lambda *at: _welcome(served, address, triton, *at),
        )
    except OSError as error:
        raise LaunchError(
            f"can't listen on {host}:{port}", found=str(error), do="choose another --port"
        ) from error
    finally:
        stop.set()
        await watch


async def _until_given_up(triton: Triton | None, stop: asyncio.Event) -> None:
    """Until `stop`, or until Triton is beyond repair; raises its LaunchError and sets `stop`."""
    try:
        while not stop.is_set() and not (triton and triton.wait(0)):
            await asyncio.sleep(0.5)
    finally:
        stop.set()


def _announce(triton: Triton) -> None:
    say(f"Triton: gRPC {triton.grpc_address}, HTTP {triton.http_address}")


def _welcome(
    served: ServedRepository, address: str, triton: Triton | None, host: str, port: int
) -> None:
    if triton:
        _announce(triton)
        say(f"{served.name} is ready at http://{host}:{port}/v1 (stop with Ctrl-C)")
    else:
        say(f"{served.name} is at http://{host}:{port}/v1, by the Triton at {address}")
