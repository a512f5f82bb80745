"""`trtbuild convert`: a model into a TensorRT-LLM checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtbuild import console, options


@click.command()
@click.argument("model", type=options.MODEL)
@options.out
@options.dtype
@options.layout
@options.name
@options.as_json
def convert(model: Path, out: Path, as_json: bool, **chosen: Any) -> None:
    """Convert MODEL (a Hugging Face folder or a .gguf file) to a TensorRT-LLM checkpoint."""
    from builder.convert import ConvertOptions
    from builder.convert import convert as run

    conversion = ConvertOptions(**chosen)
    console.stage(
        "convert",
        out,
        lambda progress: run(model, out, options=conversion, progress=progress),
        as_json=as_json,
    )
