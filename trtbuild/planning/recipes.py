"""The recipes as a plan sees them: which GPU runs one, and what a checkpoint then says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder import families
from builder.errors import LimitError
from builder.gpus import Gpu
from builder.mapping import Layout
from builder.memory.weights import tensors_of_rank
from builder.quantized_shapes import MIXED, SCALED, is_linear
from builder.targets.tensorrt_llm.rules_gpu import GROUPS
from quantize.gpus import misfit, why_not
from quantize.recipes import RECIPES, KvCache, Recipe
from trtbuild.planning.subject import Subject

Config = Mapping[str, Any]

LOSSES: Mapping[str | None, int] = {
    None: 0,
    "FP8": 0,
    "W8A16": 0,
    "W8A8_SQ_PER_CHANNEL": 1,
    "NVFP4": 1,
    "W4A16_AWQ": 1,
    "W4A8_AWQ": 1,
    MIXED: 1,
    "W4A16": 2,
}
"""`quant_algo` → what it costs in quality: 0 close to nothing, 1 measure it, 2 a good deal."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to keep the weights: a recipe, no recipe, or what the model already is."""

    name: str
    recipe: Recipe | None
    kv_cache: KvCache
    own: Config | None = None

    @property
    def losses(self) -> int:
        """A value of LOSSES."""
        algo = (self.own or {}).get("quant_algo")
        return LOSSES.get(self.recipe.quant_algo if self.recipe else algo, 1)

    @property
    def work(self) -> int:
        """What it takes to make: 0 nothing, 1 a recipe that doesn't calibrate, 2 one that does."""
        return 0 if self.recipe is None else 1 + self.recipe.calibrates

    def why_not(self, gpu: Gpu) -> str | None:
        """Why no engine of it runs on the GPU; None if one does."""
        if self.kv_cache != "none" and not (self.recipe and self.recipe.calibrates):
            return f"an {self.kv_cache.upper()} cache comes with a calibrated recipe"
        if self.recipe is None:
            return misfit(self.own or {}, gpu.sm)
        return why_not(self.recipe, gpu.sm, kv_cache=self.kv_cache)

    def fp8_cache(self, gpu: Gpu) -> bool:
        """Whether it could have an FP8 cache on the GPU."""
        if self.recipe is None or not self.recipe.calibrates:
            return False
        return why_not(self.recipe, gpu.sm, kv_cache="fp8") is None

    def checkpoint(self, subject: Subject, layout: Layout) -> dict[str, Any] | str:
        """The checkpoint's config in this layout, or why it can't be divided so."""
        if self.recipe is None:
            return subject.checkpoint(layout, self.own or {"quant_algo": None})
        plain = subject.checkpoint(layout, {"quant_algo": None})
        if self.recipe.candidates and layout.pp > 1:
            return "its linears may differ between pipeline ranks, which a checkpoint can't say"
        size = _group_size(self.recipe, plain)
        if size is None:
            return f"no group of {self.recipe.name} divides the inputs of every linear"
        return {**plain, "quantization": _block(self.recipe, size, self.kv_cache, plain)}


def choices(subject: Subject, names: tuple[str, ...], kv_cache: KvCache) -> list[Choice]:
    """The chosen recipes, by default all, the unquantized model first; or what the model is."""
    if (own := subject.quantization) is not None:
        name = own.get("quant_algo") or subject.dtype
        return [Choice(name=f"{name} (its own)", recipe=None, kv_cache="none", own=own)]
    wanted = names or ("none", *RECIPES)
    return [
        Choice(name=subject.dtype if name == "none" else name, recipe=recipe, kv_cache=kv_cache)
        for name in wanted
        for recipe in [RECIPES.get(name)]
    ]


def check_names(names: tuple[str, ...]) -> None:
    """Raise LimitError for a recipe that there isn't."""
    known = ("none", *RECIPES)
    if unknown := [name for name in names if name not in known]:
        raise LimitError(
            "no such recipe", found=f"--recipe {unknown[0]}", do=f"known are {', '.join(known)}"
        )


def _group_size(recipe: Recipe, config: Config) -> int | None:
    """The largest group that divides the inputs of all linears of a rank; 0 without groups."""
    sizes = recipe.group_sizes or (SCALED.get(recipe.quant_algo, 0),)
    allowed = GROUPS.get(recipe.quant_algo, sizes)
    tensors = [tensor for tensor, _ in tensors_of_rank(config)]
    inputs = [each.shape[-1] for each in tensors if is_linear(each.name, each.shape)]
    fits = [s for s in sizes if s in allowed and (not s or not any(n % s for n in inputs))]
    return max(fits) if fits else None


def _block(recipe: Recipe, size: int, kv_cache: KvCache, config: Config) -> dict[str, Any]:
    """A checkpoint's `quantization`; of a search, every second layer in each of its candidates."""
    block: dict[str, Any] = {"quant_algo": recipe.quant_algo}
    if kv_cache != "none":
        block["kv_cache_quant_algo"] = kv_cache.upper()
    if recipe.candidates:
        forms = [_form(RECIPES[name], size) for name in recipe.candidates]
        modules = _modules(config)
        return block | {"quantized_layers": {name: forms[n % len(forms)] for name, n in modules}}
    return block | _form(recipe, size)


def _form(recipe: Recipe, size: int) -> dict[str, Any]:
    form: dict[str, Any] = {"quant_algo": recipe.quant_algo}
    if recipe.group_sizes:
        form |= {"group_size": size, "has_zero_point": False, "pre_quant_scale": True}
    return form


def _modules(config: Config) -> Iterator[tuple[str, int]]:
    """The linears by name, with their layers."""
    for tensor in families.of(config["architecture"]).expected(config):
        if is_linear(tensor.name, next(iter(tensor.sources.values()))):
            layer = int(tensor.name.split(".")[2])
            yield tensor.name.removesuffix(".weight"), layer
