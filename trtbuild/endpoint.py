"""A repository's endpoint: Triton under supervision and the proxy before it, together or apart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import replace
from pathlib import Path

from builder.errors import LaunchError
from server.app import create_app
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig, TritonTls
from server.run import run as run_loop
from server.run import serve
from triton_repo.control.access import path_of
from triton_repo.launch import Triton
from triton_repo.security import is_loopback
from triton_repo.served import ServedEngine, describe
from trtbuild import launching
from trtbuild.console import say
from trtbuild.launching import TritonOptions, engine_named, launch_config

__all__ = ["TritonOptions", "command_line", "run", "run_proxy", "run_triton"]

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
"""Where Triton listens when nobody says, alone in its container."""


def run(
    repository: Path,
    *,
    host: str,
    port: int,
    options: TritonOptions | None = None,
    engine: str | None = None,
) -> None:
    """Serve `repository` until SIGTERM, then drain and stop; SIGINT, or a second signal, hurries.

    Of several engines the endpoint serves the one called `engine`, by default the first; Triton
    has them all. Raises ArtifactError for a folder that isn't a repository or an engine that
    isn't for this machine, LaunchError when Triton doesn't start or is given up, or when the port
    is taken.
    """
    served = describe(repository)
    chosen = engine_named(served, engine)
    config = launch_config(served, "127.0.0.1", options or TritonOptions())
    say(f"starting Triton on {repository} (log: {config.log_path})")
    with Triton(config, on_event=say) as triton:
        run_loop(_proxy(chosen, triton.grpc_address, host, port, triton=triton))


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
    triton: str,
    host: str,
    port: int,
    engine: str | None = None,
    tls: TritonTls | None = None,
) -> None:
    """The proxy alone, before the Triton whose gRPC endpoint is `triton` (host:port).

    It starts whether or not that Triton is there, and finds it again when it comes back. Raises
    ArtifactError and LaunchError as `run` does, for the repository and for the port.
    """
    chosen = engine_named(describe(repository), engine)
    run_loop(_proxy(chosen, triton, host, port, tls=tls))


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
    engine: ServedEngine,
    address: str,
    host: str,
    port: int,
    *,
    triton: Triton | None = None,
    tls: TritonTls | None = None,
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(number: int) -> None:
        if number == signal.SIGINT or stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    model = ServedModel(
        name=engine.name,
        tokenizer_dir=engine.tokenizer_dir,
        max_seq_len=engine.max_seq_len,
        triton_model=engine.models["tensorrt_llm"],
    )
    config = ServerConfig(triton_address=address, model=model, triton_tls=tls, host=host, port=port)
    app = create_app(config, TritonBackend(config))
    watch = asyncio.create_task(_until_given_up(triton, stop))
    try:
        await serve(
            app,
            config,
            stop=stop,
            hurry=hurry,
            listening=lambda *at: _welcome(engine.name, address, triton, *at),
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
    config = triton.config
    tls = " with TLS" if config.tls else ""
    say(f"Triton: gRPC {triton.grpc_address}{tls}, HTTP {triton.http_address}")
    if config.tls and not is_loopback(config.host):
        say("HTTP, which has no TLS in Triton, answers on this machine alone")
    if config.admin_key:
        say(f"its admin endpoints want the key in {path_of(config.log_path)}")


def _welcome(name: str, address: str, triton: Triton | None, host: str, port: int) -> None:
    if triton:
        _announce(triton)
        say(f"{name} is ready at http://{host}:{port}/v1 (stop with Ctrl-C)")
    else:
        say(f"{name} is at http://{host}:{port}/v1, by the Triton at {address}")
