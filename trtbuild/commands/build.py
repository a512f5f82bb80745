"""`trtbuild build`: a checkpoint into an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtbuild import console, options


@click.command()
@click.argument("checkpoint", type=options.FOLDER)
@options.out
@options.limits
@options.name
@options.as_json
def build(
    checkpoint: Path, out: Path, target: str, name: str | None, as_json: bool, **limits: Any
) -> None:
    """Build an engine from CHECKPOINT."""
    from builder.limits import LimitOptions
    from builder.targets.openvino import build as run

    chosen = LimitOptions(**limits)
    console.stage(
        "build", out, lambda _: run(checkpoint, out, options=chosen, name=name), as_json=as_json
    )
