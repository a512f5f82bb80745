"""ModelOpt on a torch model: calibrate it, search a mix of formats, export Hugging Face's form.

The only file that imports ModelOpt (0.47, pinned: what is wrapped and read here isn't its public
interface). What it found is taken off the model by `quantize.extraction`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from builder.calibration import Calibration
from builder.errors import LimitError, MissingToolError, ModelError
from builder.progress import Progress, silent
from quantize.calibration import Tokens
from quantize.extraction import extract
from quantize.quiet import quiet
from quantize.recipes import (
    KV_CACHES,
    RECIPES,
    KvCache,
    Recipe,
    modelopt_config,
    modelopt_search,
)

VERSION = "0.47."
SCORED_BATCHES = 16
"""How many batches a search takes the gradients of, at most: they tell linears apart early."""

_PASSES: Mapping[str, Sequence[int]] = {
    "max": (1,),
    "smoothquant": (1,),
    "awq_lite": (1, 12),
}
"""A method's passes over the text, by what each costs: awq_lite computes every linear plain and
with eleven scales in its second."""

_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ModelOpt raises for a model that it can't do."""

_CACHE = "*[kv]_bmm_quantizer"

Smoothings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is asked of a recipe. None is the recipe's default; `group_size` is decided already."""

    recipe: Recipe
    alpha: float | None = None
    group_size: int | None = None
    bits_per_weight: float | None = None
    kv_cache: KvCache = "none"
    seed: int = 0


def require() -> None:
    """Raise MissingToolError unless ModelOpt is here, in the version that this is written for."""
    try:
        found = metadata.version("nvidia-modelopt")
    except metadata.PackageNotFoundError:
        found = "none"
    if not found.startswith(VERSION):
        raise MissingToolError(
            f"calibrating needs nvidia-modelopt {VERSION}*",
            found=found,
            do="pip install 'trtbuild[quantize]'",
        )


def runs_on(device: str, recipe: Recipe) -> bool:
    """Whether ModelOpt computes a quantized model there: it rounds to FP4 on CUDA only."""
    return device == "cuda" or all(quantizer.bits != (2, 1) for quantizer in recipe.weight)


def calibrate(
    model: Any,
    choices: Choices,
    batches: Sequence[Tokens],
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Quantize a transformers model in place, from what it computes of `batches`.

    A batch is int64[B, T], without padding. `state` is a folder where ModelOpt
    keeps what is done, layer by layer, to go on from after a kill; the search of `auto` keeps it
    after each format. `progress` counts passes over batches, by their cost. The same input gives
    the same numbers. Raises LimitError for a target that can't be reached or memory that runs out,
    ModelError for a model that ModelOpt can't do or whose activations aren't numbers.
    """
    require()
    with (
        quiet(),
        _reproducible(choices.seed),
        _failures_told(choices.recipe),
        _recorded(model, state) as smoothings,
    ):
        if choices.recipe.candidates:
            _search(model, choices, batches, state, progress)
        else:
            _quantize(model, choices, batches, state, progress)
        _require_calibrated(model)
        found = extract(model, smoothings)
    _require_finite(found)
    if choices.kv_cache != "none" and len(found.kv_amax) != model.config.num_hidden_layers:
        raise ModelError(
            "ModelOpt can't calibrate the KV cache of this model",
            found=f"{len(found.kv_amax)} of {model.config.num_hidden_layers} layers",
            do="leave --kv-cache out",
        )
    return found


def join(model: Any, groups: Iterable[Sequence[str]]) -> None:
    """Let the linears of each group share their numbers, as ModelOpt's export has it.

    A calibrated model then computes what its checkpoint does.
    """
    with quiet(), _failures_told(None):
        from modelopt.torch.export.quant_utils import preprocess_linear_fusion

        modules = dict(model.named_modules())
        for names in groups:
            preprocess_linear_fusion([modules[name] for name in names])


def export(model: Any, folder: Path, dtype: str) -> None:
    """Write the Hugging Face form of a calibrated model, which is of no more use then.

    `dtype` is that of what stays unquantized. Raises ModelError for what ModelOpt can't write.
    """
    import torch

    with quiet(), _failures_told(None):
        from modelopt.torch.export import export_hf_checkpoint

        export_hf_checkpoint(model, dtype=getattr(torch, dtype), export_dir=folder)
    for name in ("config.json", "hf_quant_config.json"):
        _sort_lists(folder / name)


def empty_cache() -> None:
    """Give back the GPU memory that torch keeps for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quantize(
    model: Any,
    choices: Choices,
    batches: Sequence[Tokens],
    state: Path | None,
    progress: Progress,
) -> None:
    import modelopt.torch.quantization as mtq

    recipe = choices.recipe
    config = modelopt_config(
        recipe,
        alpha=choices.alpha,
        group_size=choices.group_size or None,
        kv_cache=choices.kv_cache,
    )
    costs = _PASSES[recipe.algorithm["method"]]
    if state is not None:
        algorithm = config["algorithm"]
        algorithm = {"method": algorithm} if isinstance(algorithm, str) else dict(algorithm)
        kept = {"enable": True, "checkpoint_dir": str(state / "layers")}
        config["algorithm"] = {**algorithm, "layerwise": kept}
        costs = (1,) * model.config.num_hidden_layers
    mtq.quantize(model, config, _Loop(batches, costs, progress))


class _Loop:
    """Shows a model all batches, as often as ModelOpt asks for it."""

    def __init__(self, batches: Sequence[Tokens], costs: Sequence[int], progress: Progress) -> None:
        self._batches, self._costs, self._progress = batches, list(costs), progress
        self._done, self._total = 0, sum(costs) * len(batches)

    def __call__(self, model: Any) -> None:
        """One pass."""
        cost = self._costs.pop(0) if self._costs else 0
        for batch in self._batches:
            _forward(model, batch)
            self._done += cost
            self._progress(self._done, self._total)


def _search(
    model: Any,
    choices: Choices,
    batches: Sequence[Tokens],
    state: Path | None,
    progress: Progress,
) -> None:
    import modelopt.torch.quantization as mtq

    candidates = [RECIPES[name] for name in choices.recipe.candidates]
    passes = sum(len(_PASSES[each.algorithm["method"]]) for each in candidates)
    scored = min(SCORED_BATCHES, len(batches))
    cached = KV_CACHES[choices.kv_cache] is not None
    total = passes * len(batches) + scored + (len(batches) if cached else 0)
    done = 0

    def step(model: Any, batch: Tokens) -> Any:
        nonlocal done
        answer = _forward(model, batch)
        done += 1
        progress(min(done, total), total)
        return answer

    mtq.auto_quantize(
        model,
        data_loader=batches,
        forward_step=step,
        loss_func=_loss,
        # of AWQ, ModelOpt takes a quarter; what isn't there it doesn't miss
        num_calib_steps=4 * len(batches),
        num_score_steps=scored,
        checkpoint=None if state is None else str(state / "search.pt"),
        **modelopt_search(
            choices.recipe,
            bits_per_weight=choices.bits_per_weight,
            group_size=choices.group_size or None,
        ),
    )
    if cached:
        _calibrate_cache(model, choices.kv_cache, lambda model: [step(model, b) for b in batches])


def _calibrate_cache(model: Any, kv_cache: KvCache, loop: Callable[[Any], object]) -> None:
    """Calibrate the keys and values alone, after a search, which leaves them out."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.conversion import set_quantizer_by_cfg_context

    cache = cache_entry(kv_cache)
    mtq.set_quantizer_by_cfg(model, [cache])
    alone = [{"quantizer_name": "*", "enable": False}, {**cache, "enable": True}]
    with set_quantizer_by_cfg_context(model, alone):
        mtq.calibrate(model, algorithm="max", forward_loop=loop)


def cache_entry(kv_cache: KvCache) -> dict[str, Any]:
    """ModelOpt's setting of the keys' and values' quantizers."""
    cache = KV_CACHES[kv_cache]
    off = {"quantizer_name": _CACHE, "enable": False}
    return off if cache is None else {"quantizer_name": _CACHE, "cfg": cache.attributes()}


def _forward(model: Any, batch: Tokens) -> Any:
    import torch

    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        device = torch.device("cuda", 0)
    return model(input_ids=torch.from_numpy(batch).to(device), use_cache=False)


def _loss(answer: Any, batch: Tokens) -> Any:
    """The mean of -ln p(next token)."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = answer.logits[:, :-1].float().flatten(0, 1)
    return cross_entropy(logits, torch.from_numpy(batch[:, 1:]).flatten().to(logits.device))


@contextmanager
def _recorded(model: Any, state: Path | None) -> Iterator[Smoothings]:
    """The float32 factors that ModelOpt multiplies weights with meanwhile, by module.

    It keeps their inverse only, rounded to the weights' dtype. With `state` they are kept there
    too: of layers that were done before a kill, ModelOpt doesn't multiply again.
    """
    import torch
    from modelopt.torch.quantization import model_calib

    names = {id(module): name for name, module in model.named_modules()}
    smoothings: Smoothings = {}
    folder = state / "smoothings" if state else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder.glob("[!.]*.npy")
        smoothings |= {file.stem: torch.from_numpy(np.load(file)) for file in kept}
    apply = model_calib._apply_weight_pre_quant_scale

    def recording(linear: Any, factors: Any) -> None:
        if model_calib._ENABLE_FOLDING_PQS_TO_WEIGHTS:
            name = names[id(linear)]
            smoothings[name] = factors.detach().float().cpu()
            if folder:
                partial = folder / f".{name}.partial.npy"
                np.save(partial, smoothings[name].numpy())
                partial.replace(folder / f"{name}.npy")
        apply(linear, factors)

    model_calib._apply_weight_pre_quant_scale = recording
    try:
        yield smoothings
    finally:
        model_calib._apply_weight_pre_quant_scale = apply


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _failures_told(recipe: Recipe | None) -> Iterator[None]:
    """Turn what ModelOpt raises into an error of ours."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LimitError(
            "the GPU's memory ran out while calibrating",
            found=_first_line(error),
            do="choose a smaller --batch-size or --max-length",
        ) from error
    except _FAILURES as error:
        least = re.search(r"minimum achievable effective bits is ([\d.]+\d)", str(error))
        if least:
            raise LimitError(
                "the mix of formats can't be that small",
                found=f"at least {float(least[1]):.2f} bits per weight",
                do=f"choose --bits {float(least[1]) + 0.01:.2f} or more",
            ) from error
        what = "export this model" if recipe is None else f"calibrate this model for {recipe.name}"
        raise ModelError(f"ModelOpt can't {what}", found=_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _require_calibrated(model: Any) -> None:
    """Raise ModelError for a linear whose inputs no calibration text has reached."""
    for name, module in model.named_modules():
        inputs = getattr(module, "input_quantizer", None)
        if inputs is None or not inputs.is_enabled or not hasattr(module, "weight_quantizer"):
            continue
        if inputs.amax is None:
            raise ModelError(
                "a linear layer has seen no calibration text",
                found=name,
                do="calibrate with more --samples: an expert may be chosen rarely",
            )


def _require_finite(found: Calibration) -> None:
    for name, linear in found.linears.items():
        known = (linear.weight_amax, linear.input_amax, linear.pre_quant_scale, linear.smoothing)
        if not all(np.isfinite(array).all() for array in known if array is not None):
            raise ModelError(
                "the model computes numbers that are NaN or infinite",
                found=f"at {name}",
                do="check its weights, or choose --dtype bfloat16 or float32",
            )


def _sort_lists(path: Path) -> None:
    """ModelOpt names what it leaves out in any order: sorted, a model always gives the same."""
    if not path.is_file():
        return
    fields = json.loads(path.read_bytes())
    for block in (fields.get("quantization"), fields.get("quantization_config")):
        for key in ("exclude_modules", "ignore"):
            if block and isinstance(block.get(key), list):
                block[key] = sorted(block[key])
    path.write_text(json.dumps(fields, indent=4) + "\n")
