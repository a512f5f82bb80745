"""`trtbuild serve`: Triton and the proxy on a repository, until stopped."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import options


@click.command()
@click.argument("repository", type=options.FOLDER)
@options.address
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Triton's log.")
def serve(repository: Path, host: str, port: int, log: Path | None) -> None:
    """Serve REPOSITORY on an OpenAI-compatible endpoint, until stopped."""
    from trtbuild.endpoint import run

    run(repository, host=host, port=port, log=log)
