"""`trtbuild convert`: a model into a TensorRT-LLM checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import console, options


@click.command()
@click.argument("model", type=options.MODEL)
@options.out
@options.dtype
@options.name
@options.as_json
def convert(model: Path, out: Path, dtype: str, name: str | None, as_json: bool) -> None:
    """Convert MODEL (a Hugging Face folder or a .gguf file) to a TensorRT-LLM checkpoint."""
    from builder.convert import ConvertOptions
    from builder.convert import convert as run

    chosen = ConvertOptions(dtype=dtype, name=name)
    console.stage(
        "convert",
        out,
        lambda progress: run(model, out, options=chosen, progress=progress),
        as_json=as_json,
    )
