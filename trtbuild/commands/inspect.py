"""`trtbuild inspect`: what an artifact is."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import console, options


@click.command()
@click.argument("folder", type=options.FOLDER)
@options.as_json
def inspect(folder: Path, as_json: bool) -> None:
    """Say what the artifact in FOLDER is, what made it and from what."""
    from builder import manifest

    found = manifest.read(folder)
    console.report(folder, found, as_json=as_json)
    if as_json:
        return
    for title, facts in (
        ("made by", found.made_by),
        ("options", found.options),
        ("about", found.about),
        ("files", {name: f"{entry.size_bytes:,} bytes" for name, entry in found.files.items()}),
    ):
        click.echo(f"{title}:")
        for key, value in facts.items():
            click.echo(f"  {key}: {value}")
