"""`trtbuild up`: the whole pipeline, then the endpoint, until stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import (
    building,
    console,
    options,
    quantize_options,
    server_options,
    target_options,
)
from trtbuild.server_options import ServerOptions
from trtbuild.target_options import LLMAPI, Chosen

if TYPE_CHECKING:
    from builder.convert import ConvertOptions
    from quantize.job import Quantized


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "--work",
    type=options.FOLDER,
    default=Path("work"),
    show_default=True,
    help="Where the artifacts go, in a folder of the model's name.",
)
@quantize_options.recipe(required=False)
@quantize_options.text
@options.dtype
@target_options.target(target_options.FOR_UP)
@options.name
@options.address
@server_options.server_of_all
def up(
    model: Path,
    work: Path,
    recipe: str | None,
    kv_cache: str,
    calib: str | None,
    samples: int,
    dtype: str,
    chosen: Chosen,
    name: str | None,
    host: str,
    port: int,
    server: ServerOptions,
) -> None:
    """Take MODEL (a Hugging Face folder or a .gguf file) to a running endpoint.

    Stages that are already there for the same model and options are skipped.
    """
    from builder.convert import ConvertOptions, model_name
    from triton_repo.layout import write_repository
    from trtbuild.early import refuse_early
    from trtbuild.endpoint import run

    if recipe is None and kv_cache != "none":
        raise click.UsageError("--kv-cache needs a --recipe.")
    name = name or model_name(model)
    folder = work / name
    conversion = ConvertOptions(dtype=dtype, name=name, **chosen.among(("tp", "pp", "moe_ep")))
    text = {"kv_cache": kv_cache, "calib": calib, "samples": samples, **chosen.among(["gpu"])}
    if chosen.target == LLMAPI:
        chosen = _with_dtype(chosen, dtype)
    refuse_early(chosen, model, conversion, recipe)
    if chosen.target == LLMAPI:
        source = _huggingface(model, folder / "model", conversion, recipe, text)
    else:
        source = _checkpoint(model, folder / "checkpoint", conversion, recipe, text)
    engine, repository = folder / "engine", folder / "repository"
    console.stage("build", engine, building.step(chosen, source, engine, name))
    console.stage(
        "repo", repository, lambda progress: write_repository(engine, repository, progress=progress)
    )
    run(repository, host=host, port=port, server=server)


def _with_dtype(chosen: Chosen, dtype: str) -> Chosen:
    """TensorRT-LLM turns the weights into a dtype itself, as it loads them."""
    if dtype == "auto":
        return chosen
    settings = {"dtype": dtype, **chosen.given.get("set", {})}
    return replace(chosen, given={**chosen.given, "set": settings})


def _huggingface(
    model: Path,
    folder: Path,
    conversion: ConvertOptions,
    recipe: str | None,
    text: Mapping[str, Any],
) -> Path:
    """The Hugging Face folder to serve: the model's own, or `folder` with what a recipe made."""
    if recipe is None:
        return model
    made = _quantize(model, conversion, out=None, hf=folder, recipe=recipe, **text)
    if made.huggingface is not None:
        console.report(folder, made.huggingface, as_json=False)
    return folder


def _checkpoint(
    model: Path,
    folder: Path,
    conversion: ConvertOptions,
    recipe: str | None,
    text: Mapping[str, Any],
) -> Path:
    """The checkpoint, converted or quantized into `folder`."""
    from builder.convert import convert

    if recipe is None:
        console.stage(
            "convert",
            folder,
            lambda progress: convert(model, folder, options=conversion, progress=progress),
        )
        return folder
    made = _quantize(model, conversion, out=folder, hf=None, recipe=recipe, **text)
    if made.checkpoint is not None:
        console.report(folder, made.checkpoint, as_json=False)
    return folder


def _quantize(
    model: Path, conversion: ConvertOptions, *, out: Path | None, hf: Path | None, **chosen: Any
) -> Quantized:
    """As `trtbuild quantize` does, but for the evaluation: that is `trtbuild eval`'s here."""
    from quantize.job import quantize
    from quantize.options import QuantizeOptions

    return quantize(
        model,
        out=out,
        hf=hf,
        options=QuantizeOptions(evaluate=False, **chosen),
        conversion=conversion,
        phase=console.progress_bar,
        say=console.say,
    )
