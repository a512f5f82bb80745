"""`trtbuild repo`: an engine into a Triton model repository."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import console, options


@click.command()
@click.argument("engine", type=options.FOLDER)
@options.out
@options.name
@options.as_json
def repo(engine: Path, out: Path, name: str | None, as_json: bool) -> None:
    """Write the Triton model repository of ENGINE."""
    from triton_repo.layout import write_repository

    console.stage(
        "repo",
        out,
        lambda progress: write_repository(engine, out, name=name, progress=progress),
        as_json=as_json,
    )
