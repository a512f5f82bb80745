"""A repository's endpoint: Triton under supervision and the proxy before it, together or apart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from builder.errors import LaunchError
from server.app import create_app
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig, TritonTls
from server.edge.application import Application
from server.run import freeze_memory, serve
from server.run import run as run_loop
from server.workers import serve_workers
from triton_repo.control.access import path_of
from triton_repo.launch.security import is_loopback
from triton_repo.launch.triton import Triton
from triton_repo.served import ServedRepository, describe
from trtbuild import launching
from trtbuild.console import say
from trtbuild.launching import TritonOptions, engine_named, launch_config
from trtbuild.served_models import served_models
from trtbuild.server_options import ServerOptions

__all__ = ["ServerOptions", "TritonOptions", "command_line", "run", "run_proxy", "run_triton"]

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
"""Where Triton listens when nobody says, alone in its container."""


def run(
    repository: Path,
    *,
    host: str,
    port: int,
    options: TritonOptions | None = None,
    server: ServerOptions | None = None,
    engine: str | None = None,
) -> None:
    """Serve `repository` until SIGTERM, then drain and stop; SIGINT, or a second signal, hurries.

    All its engines are served, or the one called `engine`; Triton has them all. Raises
    ArtifactError for a folder that isn't a repository or an engine that isn't for this machine,
    LaunchError when Triton doesn't start or is given up, UnusableSettingError when the port is
    taken.
    """
    served = describe(repository)
    server = server or ServerOptions()
    models = _models(served, engine, server)
    config = launch_config(served, "127.0.0.1", options or TritonOptions())
    if "api_keys_file" in server.config:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # they aren't read yet
    say(f"starting Triton on {repository} (log: {config.log_path})")
    with Triton(config, on_event=say) as triton:
        proxy = ServerConfig(
            triton_addresses=(triton.grpc_address,),
            models=models,
            host=host,
            port=port,
            **{"triton_metrics_urls": (_metrics_url(triton),), **server.config},
        )
        run_loop(_proxy(proxy, triton))


def run_triton(repository: Path, *, host: str, options: TritonOptions) -> None:
    """Triton alone, on `host`, until SIGTERM or SIGINT. Raises as `run` does.

    Requests under way may take as long to finish as they may in a proxy that drains.
    """
    config = launch_config(describe(repository), host, options)
    config = replace(config, grace_s=ServerConfig.drain_seconds)
    say(f"starting Triton on {repository} (log: {config.log_path})")
    run_loop(_triton(Triton(config, on_event=say)))


def command_line(repository: Path, host: str, options: TritonOptions) -> str:
    """The command that starts Triton, for a shell. Raises as `run_triton` does for what is wrong
    with the repository; what this machine lacks is not looked at."""
    return launching.command_line(describe(repository), host, options)


def run_proxy(
    repository: Path,
    *,
    tritons: Sequence[str],
    host: str,
    port: int,
    server: ServerOptions,
    engine: str | None,
    tls: TritonTls | None,
) -> None:
    """The proxy alone, before the Tritons whose gRPC endpoints are `tritons` (host:port), alike.

    It starts whether or not they are there, and finds them again when they come back. Raises
    ArtifactError and LaunchError as `run` does, and UnusableSettingError for what it is told.
    """
    config = ServerConfig(
        triton_addresses=tuple(tritons),
        models=_models(describe(repository), engine, server),
        triton_tls=tls,
        host=host,
        port=port,
        **server.config,
    )
    run_loop(_proxy(config))


def _metrics_url(triton: Triton) -> str:
    return f"http://{triton.metrics_address}/metrics"


def _models(
    served: ServedRepository, engine: str | None, server: ServerOptions
) -> tuple[ServedModel, ...]:
    engines = served.engines if engine is None else (engine_named(served, engine),)
    return served_models(served.path, engines, aliases=server.aliases, settings=server.model)


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


async def _proxy(config: ServerConfig, triton: Triton | None = None) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(number: int) -> None:
        if number == signal.SIGINT or stop.is_set():
            hurry.set()
        stop.set()

    # with a file of keys, SIGHUP has them read again
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    watch = asyncio.create_task(_until_given_up(triton, stop))
    serving = serve_workers if config.workers > 1 else _serve_alone
    try:
        await serving(
            config,
            stop=stop,
            hurry=hurry,
            listening=lambda *at: _welcome(config, triton, *at),
        )
    except OSError as error:  # a file or a folder of the options
        raise LaunchError("the proxy can't start", found=str(error)) from error
    finally:
        stop.set()
        await watch


async def _serve_alone(
    config: ServerConfig,
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    listening: Callable[[str, int], None],
) -> None:
    if config.api_keys_file:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: app.reload_keys())
    app: Application = create_app(config, TritonBackend(config))
    freeze_memory()
    await serve(app, config, stop=stop, hurry=hurry, listening=listening)


async def _until_given_up(triton: Triton | None, stop: asyncio.Event) -> None:
    """Until `stop`, or until Triton is beyond repair; raises its LaunchError and sets `stop`."""
    try:
        while not stop.is_set() and not (triton and triton.wait(0)):
            await asyncio.sleep(0.5)
    finally:
        stop.set()


def _announce(triton: Triton) -> None:
    config = triton.config
    tls = " with TLS" if config.tls else ""
    say(f"Triton: gRPC {triton.grpc_address}{tls}, HTTP {triton.http_address}")
    if config.tls and not is_loopback(config.host):
        say("HTTP, which has no TLS in Triton, answers on this machine alone")
    if config.admin_key:
        say(f"its admin endpoints want the key in {path_of(config.log_path)}")


def _welcome(config: ServerConfig, triton: Triton | None, host: str, port: int) -> None:
    names = ", ".join(model.name for model in config.models)
    if triton:
        _announce(triton)
        say(f"{names} is ready at http://{host}:{port}/v1 (stop with Ctrl-C)")
    else:
        tritons = ", ".join(config.triton_addresses)
        say(f"{names} is at http://{host}:{port}/v1, by the Triton at {tritons}")
