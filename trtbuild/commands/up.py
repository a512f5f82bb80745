"""`trtbuild up`: the whole pipeline, then the endpoint, until stopped."""

from __future__ import annotations

from pathlib import Path

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
    **limits: float,
) -> None:
    """Take MODEL (a Hugging Face folder or a .gguf file) to a running endpoint.

    Stages that are already there for the same model and options are skipped.
    """
    from builder.convert import ConvertOptions, model_name
    from builder.convert import convert as run_convert
    from builder.limits import LimitOptions
    from builder.targets.openvino import build as run_build
    from triton_repo.layout import write_repository
    from trtbuild.endpoint import run

    name = name or model_name(model)
    checkpoint, engine, repository = (
        work / name / stage for stage in ("checkpoint", "engine", "repository")
    )
    with console.progress_bar("convert") as progress:
        manifest = run_convert(
            model, checkpoint, options=ConvertOptions(dtype=dtype, name=name), progress=progress
        )
    console.report(checkpoint, manifest, as_json=False)
    with console.progress_bar("build"):
        manifest = run_build(checkpoint, engine, options=LimitOptions(**limits))  # type: ignore[arg-type]
    console.report(engine, manifest, as_json=False)
    with console.progress_bar("repo") as progress:
        manifest = write_repository(engine, repository, progress=progress)
    console.report(repository, manifest, as_json=False)
    run(repository, host=host, port=port)
