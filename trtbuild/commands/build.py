"""`trtbuild build`: a checkpoint into an engine."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import console, options


@click.command()
@click.argument("checkpoint", type=options.FOLDER)
@options.out
@options.limits
@options.name
@options.as_json
def build(
    checkpoint: Path, out: Path, target: str, name: str | None, as_json: bool, **limits: float
) -> None:
    """Build an engine from CHECKPOINT."""
    from builder.limits import LimitOptions
    from builder.targets.openvino import build as run

    with console.progress_bar("build"):
        manifest = run(checkpoint, out, options=LimitOptions(**limits), name=name)  # type: ignore[arg-type]
    console.report(out, manifest, as_json=as_json)
