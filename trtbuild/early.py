"""What the last stages of `up` would refuse, refused before the first."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild import building
from trtbuild.target_options import LLMAPI, OPENVINO, Chosen

if TYPE_CHECKING:
    from builder.convert import ConvertOptions


def refuse_early(
    chosen: Chosen, model: Path, conversion: ConvertOptions, recipe: str | None
) -> None:
    """Raise what building or serving the model would.

    Of one that a recipe calibrates that is only what doesn't depend on its weights' form.
    """
    if chosen.target == OPENVINO:
        _openvino(chosen, model, conversion, recipe)
    elif chosen.target == LLMAPI:
        _llmapi(chosen, model, recipe)
    else:
        _tensorrt_llm(chosen, model, conversion, recipe)


def _openvino(chosen: Chosen, model: Path, conversion: ConvertOptions, recipe: str | None) -> None:
    from builder.limits import LimitOptions, plan
    from builder.targets.openvino_encoder_engine import refuse_options
    from builder.targets.openvino_forms import refuse_quantization
    from builder.targets.openvino_options import EngineOptions, check, lora_config
    from quantize.recipes import RECIPES

    if recipe:
        refuse_quantization(RECIPES[recipe].quant_algo)
    config = _planned(model, conversion, None)
    limits = plan(config, LimitOptions(**chosen.among(f.name for f in fields(LimitOptions))))
    engine = EngineOptions(**chosen.among(f.name for f in fields(EngineOptions)))
    refuse_options(config, engine)
    check(engine, limits)
    lora_config(config, engine)


def _llmapi(chosen: Chosen, model: Path, recipe: str | None) -> None:
    from builder.targets.llmapi import resolve
    from builder.targets.llmapi.resolved import asked
    from triton_repo.launch import preflight

    options = building.llmapi_options(chosen)
    if recipe is None:
        resolve(model, options)
    else:
        asked(options.settings)
    preflight.check_backend(chosen.target)


def _tensorrt_llm(
    chosen: Chosen, model: Path, conversion: ConvertOptions, recipe: str | None
) -> None:
    from builder.targets.tensorrt_llm.build import require
    from builder.targets.tensorrt_llm.resolve import resolve
    from builder.targets.tensorrt_llm.settings import parse
    from quantize.recipes import RECIPES

    options = building.engine_options(chosen)
    _, here = require(options, chosen.given.get("container"))
    parse(options.settings)
    if recipe is None or not RECIPES[recipe].calibrates:
        resolve(_planned(model, conversion, recipe), replace(options, gpu=here.gpu))


def _planned(model: Path, conversion: ConvertOptions, recipe: str | None) -> dict[str, Any]:
    """The config that the checkpoint will have; no weight is read."""
    from builder.convert import checkpoint_dtype
    from builder.plan import plan
    from builder.source import open_source

    source = open_source(model)
    return plan(source, conversion.layout, checkpoint_dtype(source, conversion), recipe).config
