"""`trtbuild convert`: a model into a TensorRT-LLM checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import console, options

if TYPE_CHECKING:
    from builder.safetensors_writer import PendingTensor


@click.command()
@click.argument("model", type=options.MODEL)
@click.option("-o", "--out", type=options.FOLDER, help="Folder to write.")
@click.option("--plan", is_flag=True, help="Print what would be written; read no tensor.")
@options.dtype
@options.recipe
@options.layout
@options.name
@options.as_json
def convert(model: Path, out: Path | None, plan: bool, as_json: bool, **chosen: Any) -> None:
    """Convert MODEL (a Hugging Face folder or a .gguf file) to a TensorRT-LLM checkpoint."""
    from builder.convert import ConvertOptions, planned
    from builder.convert import convert as run

    conversion = ConvertOptions(**chosen)
    if plan:
        _print_plan(planned(model, conversion), as_json=as_json)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out' (or --plan).")
    folder = out
    console.stage(
        "convert",
        folder,
        lambda progress: run(model, folder, options=conversion, progress=progress),
        as_json=as_json,
    )


def _print_plan(ranks: list[list[PendingTensor]], *, as_json: bool) -> None:
    from builder.checkpoint import rank_file
    from builder.safetensors_writer import header_size

    files = [
        {
            "file": rank_file(rank),
            "size_bytes": header_size(tensors) + sum(tensor.nbytes for tensor in tensors),
            "tensors": {t.name: {"dtype": t.dtype, "shape": list(t.shape)} for t in tensors},
        }
        for rank, tensors in enumerate(ranks)
    ]
    if as_json:
        click.echo(json.dumps(files, indent=2))
        return
    for file, tensors in zip(files, ranks, strict=True):
        click.echo(f"{file['file']}: {file['size_bytes']:,} bytes")
        for tensor in tensors:
            click.echo(f"  {tensor.name} {tensor.dtype} {list(tensor.shape)}")
