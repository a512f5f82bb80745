"""`trtbuild up`: the whole pipeline, then the endpoint, until stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import building, console, options, quantize_options, target_options
from trtbuild.target_options import OPENVINO, Chosen

if TYPE_CHECKING:
    from builder.convert import ConvertOptions


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
@target_options.target(target_options.FOR_UP, target_options.SERVED)
@options.name
@options.address
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
) -> None:
    """Take MODEL (a Hugging Face folder or a .gguf file) to a running endpoint.

    Stages that are already there for the same model and options are skipped.
    """
    from builder.convert import ConvertOptions, convert, model_name
    from triton_repo.layout import write_repository
    from trtbuild.endpoint import run

    if recipe is None and kv_cache != "none":
        raise click.UsageError("--kv-cache needs a --recipe.")
    name = name or model_name(model)
    checkpoint, engine, repository = (
        work / name / stage for stage in ("checkpoint", "engine", "repository")
    )
    layout = chosen.among(("tp", "pp", "moe_ep"))
    conversion = ConvertOptions(dtype=dtype, name=name, **layout)
    _refuse_early(chosen, model, conversion, recipe)
    if recipe is None:
        console.stage(
            "convert",
            checkpoint,
            lambda progress: convert(model, checkpoint, options=conversion, progress=progress),
        )
    else:
        text = {"kv_cache": kv_cache, "calib": calib, "samples": samples, **chosen.among(["gpu"])}
        _quantize(model, checkpoint, conversion, recipe=recipe, **text)
    console.stage("build", engine, building.step(chosen, checkpoint, engine, None))
    console.stage(
        "repo", repository, lambda progress: write_repository(engine, repository, progress=progress)
    )
    run(repository, host=host, port=port)


def _refuse_early(
    chosen: Chosen, model: Path, conversion: ConvertOptions, recipe: str | None
) -> None:
    """What the last stage would refuse is refused before the first.

    Of a calibrated checkpoint that is only what doesn't depend on its weights' form.
    """
    from quantize.recipes import RECIPES

    wanted = RECIPES[recipe] if recipe else None
    if chosen.target == OPENVINO:
        from builder.limits import LimitOptions, plan
        from builder.targets.openvino_forms import refuse_quantization

        if wanted:
            refuse_quantization(wanted.quant_algo)
        plan(_planned(model, conversion, None), LimitOptions(**chosen.given))
        return
    from builder.targets.tensorrt_llm.build import require
    from builder.targets.tensorrt_llm.resolve import resolve
    from builder.targets.tensorrt_llm.settings import parse

    options = building.engine_options(chosen)
    _, here = require(options, chosen.given.get("container"))
    parse(options.settings)
    if wanted is None or not wanted.calibrates:
        resolve(_planned(model, conversion, recipe), replace(options, gpu=here.gpu))


def _planned(model: Path, conversion: ConvertOptions, recipe: str | None) -> dict[str, Any]:
    """The config that the checkpoint will have; no weight is read."""
    from builder.convert import checkpoint_dtype
    from builder.plan import plan
    from builder.source import open_source

    source = open_source(model)
    return plan(source, conversion.layout, checkpoint_dtype(source, conversion), recipe).config


def _quantize(model: Path, checkpoint: Path, conversion: ConvertOptions, **chosen: Any) -> None:
    """As `trtbuild quantize` does, but for the evaluation: that is `trtbuild eval`'s here."""
    from quantize.job import quantize
    from quantize.options import QuantizeOptions

    made = quantize(
        model,
        out=checkpoint,
        options=QuantizeOptions(evaluate=False, **chosen),
        conversion=conversion,
        phase=console.progress_bar,
        say=console.say,
    )
    if made.checkpoint is not None:
        console.report(checkpoint, made.checkpoint, as_json=False)
