"""`trtbuild check`: whether an artifact is whole."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trtbuild import console, options


@click.command()
@click.argument("folder", type=options.FOLDER)
@options.as_json
def check(folder: Path, as_json: bool) -> None:
    """Read the artifact in FOLDER back, every byte, and name the first thing that is wrong."""
    from builder import artifact, checkpoint_check, manifest
    from triton_repo import layout

    found = manifest.read(folder) if (folder / manifest.NAME).is_file() else None
    with console.progress_bar("check") as progress:
        if found is None or found.kind == "checkpoint":
            checkpoint_check.check(folder, progress)
        elif found.kind == "repository":
            layout.check(folder)
        else:
            artifact.verify(folder, found)
    kind = found.kind if found else "checkpoint"
    if as_json:
        click.echo(json.dumps({"path": str(folder), "kind": kind, "whole": True}))
    else:
        click.echo(f"{kind}: {folder} is whole")
