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

    with console.progress_bar("convert") as progress:
        manifest = run(
            model, out, options=ConvertOptions(dtype=dtype, name=name), progress=progress
        )
    console.report(out, manifest, as_json=as_json)
