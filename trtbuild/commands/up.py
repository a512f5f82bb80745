"""`trtbuild up`: the whole pipeline, then the endpoint, until stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtbuild import console, options


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "--work",
    type=options.FOLDER,
    default=Path("work"),
    show_default=True,
    help="Where the artifacts go, in a folder of the model's name.",
)
@options.dtype
@options.limits
@options.name
@options.address
def up(
    model: Path,
    work: Path,
    dtype: str,
    target: str,
    name: str | None,
    host: str,
    port: int,
    **limits: Any,
) -> None:
    """Take MODEL (a Hugging Face folder or a .gguf file) to a running endpoint.

    Stages that are already there for the same model and options are skipped.
    """
    from builder.convert import ConvertOptions, convert, model_name
    from builder.limits import LimitOptions
    from builder.targets.openvino import build
    from triton_repo.layout import write_repository
    from trtbuild.endpoint import run

    name = name or model_name(model)
    checkpoint, engine, repository = (
        work / name / stage for stage in ("checkpoint", "engine", "repository")
    )
    conversion, built_for = ConvertOptions(dtype=dtype, name=name), LimitOptions(**limits)
    console.stage(
        "convert",
        checkpoint,
        lambda progress: convert(model, checkpoint, options=conversion, progress=progress),
    )
    console.stage("build", engine, lambda _: build(checkpoint, engine, options=built_for))
    console.stage(
        "repo", repository, lambda progress: write_repository(engine, repository, progress=progress)
    )
    run(repository, host=host, port=port)
