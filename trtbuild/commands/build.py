"""`trtbuild build`: a checkpoint into an engine."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import building, console, options, target_options
from trtbuild.target_options import Chosen


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT", type=options.FOLDER)
@options.out
@target_options.target(target_options.FOR_BUILD)
@options.name
@options.as_json
def build(checkpoint: Path, out: Path, chosen: Chosen, name: str | None, as_json: bool) -> None:
    """Build an engine from CHECKPOINT (for the target llmapi, a Hugging Face folder)."""
    if chosen.given.get("dry_run"):
        building.show_dry_run(chosen, checkpoint, out, name, as_json=as_json)
        return
    step = building.step(chosen, checkpoint, out, name)
    console.stage("build", out, step, as_json=as_json)
