"""`trtbuild serve`: Triton and the proxy on a repository, or one of them, until stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from trtbuild import options, server_options, triton_options
from trtbuild.server_options import ServerOptions

if TYPE_CHECKING:
    from trtbuild.launching import TritonOptions

_CLIENT_TLS = ("triton_ca", "triton_cert", "triton_key")
_WRONG = {
    None: ("tritons", *_CLIENT_TLS, *triton_options.TLS),
    "triton": ("tritons", "port", "engine", *_CLIENT_TLS, *server_options.NAMES),
    "proxy": ("dry_run", *triton_options.NAMES),
}
"""--only → the parameters that have no meaning beside it."""
_WITHOUT = dict.fromkeys(triton_options.TLS, "without --only triton")


@click.command()
@click.argument("repository", type=options.FOLDER)
@options.address
@click.option(
    "--only",
    type=click.Choice(["triton", "proxy"]),
    help="Triton or the proxy alone, as for containers of their own; --host is where that one"
    " listens.",
)
@click.option("--engine", metavar="NAME", help="The engine that is served, of several; else all.")
@click.option(
    "--triton",
    "tritons",
    multiple=True,
    metavar="HOST:PORT",
    help="Triton's gRPC endpoint, for --only proxy; of several Tritons alike, several.",
)
@click.option(
    "--triton-ca", type=options.FILE, help="Whose certificate (PEM) that Triton must show."
)
@click.option(
    "--triton-cert",
    type=options.FILE,
    help="Certificate (PEM) of the proxy, where Triton asks for one.",
)
@click.option("--triton-key", type=options.FILE, help="Key (PEM) of --triton-cert.")
@server_options.server
@triton_options.triton
@click.option("--dry-run", is_flag=True, help="Print the command that starts Triton; run nothing.")
@click.pass_context
def serve(
    context: click.Context,
    repository: Path,
    host: str,
    port: int,
    only: str | None,
    engine: str | None,
    tritons: tuple[str, ...],
    triton_ca: Path | None,
    triton_cert: Path | None,
    triton_key: Path | None,
    dry_run: bool,
    chosen: TritonOptions,
    server: ServerOptions,
) -> None:
    """Serve REPOSITORY on an OpenAI-compatible endpoint, until stopped."""
    from server.config import TritonTls
    from trtbuild import endpoint

    refuse_meaningless(context, only)
    if only is None and chosen.tls:
        # from the environment or a file: the proxy would call that Triton in plain text
        raise click.UsageError("--tls-cert has no meaning without --only triton.")
    if only == "proxy":
        if not tritons or not all(":" in triton for triton in tritons):
            raise click.UsageError("--only proxy needs --triton HOST:PORT.")
        if (triton_cert is None) != (triton_key is None):
            raise click.UsageError("--triton-cert and --triton-key go together.")
        wanted = triton_ca or triton_cert
        tls = TritonTls(ca=triton_ca, certificate=triton_cert, key=triton_key) if wanted else None
        endpoint.run_proxy(
            repository,
            tritons=tritons,
            host=host,
            port=port,
            server=server,
            engine=engine,
            tls=tls,
        )
        return
    if only == "triton":
        chosen = replace(
            chosen,
            http_port=chosen.http_port or endpoint.HTTP_PORT,
            grpc_port=chosen.grpc_port or endpoint.GRPC_PORT,
            metrics_port=chosen.metrics_port or endpoint.METRICS_PORT,
        )
    if dry_run:
        click.echo(endpoint.command_line(repository, host if only else "127.0.0.1", chosen))
    elif only == "triton":
        endpoint.run_triton(repository, host=host, options=chosen)
    else:
        endpoint.run(repository, host=host, port=port, options=chosen, server=server, engine=engine)


def refuse_meaningless(context: click.Context, only: str | None) -> None:
    """Raise UsageError for an option on the command line that does nothing beside `only`."""
    flags = {param.name: max(param.opts, key=len) for param in context.command.params}
    for name in _WRONG[only]:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            beside = f"with --only {only}" if only else _WITHOUT.get(name, "without --only proxy")
            raise click.UsageError(f"{flags[name]} has no meaning {beside}.")
