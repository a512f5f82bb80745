"""ModelOpt on a torch model: calibrate it, search a mix of formats, export Hugging Face's form.

The only folder that imports ModelOpt (0.47, pinned: what is wrapped and read here isn't its public
interface). What it found is taken off the model by `quantize.extraction`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from builder.calibration import Calibration
from builder.errors import MissingToolError, ModelError
from builder.progress import Progress, silent
from quantize.calibration import Tokens
from quantize.extraction import extract
from quantize.modelopt import passes
from quantize.modelopt.choices import Choices
from quantize.modelopt.failures import failures_told, require_calibrated, require_finite
from quantize.modelopt.search import search
from quantize.modelopt.smoothings import recorded
from quantize.quiet import quiet
from quantize.recipes import Recipe, modelopt_config

__all__ = [
    "Choices",
    "calibrate",
    "empty_cache",
    "export",
    "join",
    "require",
    "runs_on",
]

VERSION = "0.47."


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
        failures_told(choices.recipe),
        recorded(model, state) as smoothings,
    ):
        if choices.recipe.candidates:
            search(model, choices, batches, state, progress)
        else:
            _quantize(model, choices, batches, state, progress)
        require_calibrated(model)
        found = extract(model, smoothings)
    require_finite(found)
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
    with quiet(), failures_told(None):
        from modelopt.torch.export.quant_utils import preprocess_linear_fusion

        modules = dict(model.named_modules())
        for names in groups:
            preprocess_linear_fusion([modules[name] for name in names])


def export(model: Any, folder: Path, dtype: str) -> None:
    """Write the Hugging Face form of a calibrated model, which is of no more use then.

    `dtype` is that of what stays unquantized. Raises ModelError for what ModelOpt can't write.
    """
    import torch

    with quiet(), failures_told(None):
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
    costs = passes.PASSES[recipe.algorithm["method"]]
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
            passes.forward(model, batch)
            self._done += cost
            self._progress(self._done, self._total)


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
