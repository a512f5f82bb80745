"""`trtbuild serve`: Triton and the proxy on a repository, or one of them, until stopped."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from trtbuild import options

_PORT = click.IntRange(1, 65535)
_TRITONS = ("http_port", "grpc_port", "metrics_port", "log", "start_timeout")
_WRONG = {None: ("triton",), "triton": ("triton", "port"), "proxy": _TRITONS}
"""--only → the parameters that have no meaning beside it."""


@click.command()
@click.argument("repository", type=options.FOLDER)
@options.address
@click.option(
    "--only",
    type=click.Choice(["triton", "proxy"]),
    help="One of the two, as for containers of their own; --host is where that one listens.",
)
@click.option("--triton", metavar="HOST:PORT", help="Triton's gRPC endpoint, for --only proxy.")
@click.option("--http-port", type=_PORT, help="Triton's: any free, with --only triton 8000.")
@click.option("--grpc-port", type=_PORT, help="Triton's: any free, with --only triton 8001.")
@click.option("--metrics-port", type=_PORT, help="Triton's: any free, with --only triton 8002.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Triton's log.")
@click.option(
    "--start-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300,
    show_default=True,
    help="Seconds that Triton may take to load its models.",
)
@click.pass_context
def serve(
    context: click.Context,
    repository: Path,
    host: str,
    port: int,
    only: str | None,
    triton: str | None,
    start_timeout: float,
    log: Path | None,
    http_port: int | None,
    grpc_port: int | None,
    metrics_port: int | None,
) -> None:
    """Serve REPOSITORY on an OpenAI-compatible endpoint, until stopped."""
    from trtbuild import endpoint

    refuse_meaningless(context, only)
    if only == "proxy":
        if triton is None or ":" not in triton:
            raise click.UsageError("--only proxy needs --triton HOST:PORT.")
        endpoint.run_proxy(repository, triton=triton, host=host, port=port)
        return
    alone = only == "triton"
    chosen = endpoint.TritonOptions(
        log=log,
        http_port=http_port or (endpoint.HTTP_PORT if alone else None),
        grpc_port=grpc_port or (endpoint.GRPC_PORT if alone else None),
        metrics_port=metrics_port or (endpoint.METRICS_PORT if alone else None),
        start_timeout_s=start_timeout,
    )
    if alone:
        endpoint.run_triton(repository, host=host, options=chosen)
    else:
        endpoint.run(repository, host=host, port=port, options=chosen)


def refuse_meaningless(context: click.Context, only: str | None) -> None:
    """Raise UsageError for an option on the command line that does nothing beside `only`."""
    for name in _WRONG[only]:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            beside = f"with --only {only}" if only else "without --only proxy"
            raise click.UsageError(f"--{name.replace('_', '-')} has no meaning {beside}.")
