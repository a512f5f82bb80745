"""A repository's endpoint: Triton under supervision, the proxy before it, until stopped."""

from __future__ import annotations

import asyncio
import signal
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


def run(repository: Path, *, host: str, port: int, log: Path | None = None) -> None:
    """Serve `repository` until SIGTERM, then drain and stop; SIGINT, or a second signal, hurries.

    Raises ArtifactError for a folder that isn't a repository, LaunchError when Triton doesn't
    start or is given up, or when the port is taken.
    """
    served = describe(repository)
    log = log or default_log(repository)
    say(f"starting Triton on {repository} (log: {log})")
    with Triton(LaunchConfig(repository=served.path, log_path=log), on_event=say) as triton:
        run_loop(_proxy(served, triton, host, port))


async def _proxy(served: ServedRepository, triton: Triton, host: str, port: int) -> None:
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
    config = ServerConfig(triton_address=triton.grpc_address, model=model, host=host, port=port)
    app = create_app(config, TritonBackend(config))
    watch = asyncio.create_task(_until_given_up(triton, stop))
    try:
        await serve(
            app,
            config,
            stop=stop,
            hurry=hurry,
            listening=lambda *at: _welcome(served, triton, *at),
        )
    except OSError as error:
        raise LaunchError(
            f"can't listen on {host}:{port}", found=str(error), do="choose another --port"
        ) from error
    finally:
        stop.set()
        await watch


async def _until_given_up(triton: Triton, stop: asyncio.Event) -> None:
    """End the proxy when Triton is beyond repair; raises its LaunchError."""
    try:
        while not stop.is_set() and not triton.wait(0):
            await asyncio.sleep(0.5)
    finally:
        stop.set()


def _welcome(served: ServedRepository, triton: Triton, host: str, port: int) -> None:
    say(f"Triton: gRPC {triton.grpc_address}, HTTP {triton.http_address}")
    say(f"{served.name} is ready at http://{host}:{port}/v1 (stop with Ctrl-C)")
