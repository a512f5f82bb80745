"""What a user may choose of a quantization, and what of it decides the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from builder import digest
from builder.errors import LimitError
from quantize.recipes import KV_CACHES, RECIPES, KvCache, Recipe, check_alpha, check_group_size

_CPUINFO = Path("/proc/cpuinfo")

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")

EVALUATED_SAMPLES = 16
EVALUATED_LENGTH = 512
"""Held-out tokens that the models are compared on: 16 sequences of 512."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """What a user may choose.

    `alpha`, `group_size` and `bits_per_weight` are the recipe's where None. `calib` and
    `eval_text` are files, data sets' names, or None for the built-in text. `max_ppl_increase` is
    how much the perplexity may rise, 0.02 for 2 %. `state` is a folder for what is found, from
    which a run that was killed goes on. `gpu` is the one that the engine is for.
    """

    recipe: str
    kv_cache: KvCache = "none"
    alpha: float | None = None
    group_size: int | None = None
    bits_per_weight: float | None = None
    calib: str | None = None
    samples: int = 64
    max_length: int = 512
    batch_size: int = 8
    seed: int = 0
    chat_template: bool = True
    evaluate: bool = True
    eval_text: str | None = None
    max_ppl_increase: float | None = None
    gpu: str | None = None
    state: Path | None = None
    device: Device = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("recipe", tuple(RECIPES)),
            ("kv_cache", tuple(KV_CACHES)),
            ("device", DEVICES),
        ):
            if (found := getattr(self, name)) not in known:
                raise LimitError(f"{name} must be one of {', '.join(known)}", found=repr(found))
        for name, least in (("samples", 1), ("max_length", 2), ("batch_size", 1)):
            if (count := getattr(self, name)) < least:
                raise LimitError(f"{name} must be at least {least}", found=str(count))
        if self.bits_per_weight is not None and not self.chosen.candidates:
            raise LimitError(
                f"{self.recipe} has a fixed size",
                found=f"--bits {self.bits_per_weight}",
                do="leave --bits out, or choose --recipe auto",
            )
        check_group_size(self.chosen, self.group_size)
        if self.alpha is not None:
            check_alpha(self.chosen, self.alpha)
        if self.kv_cache != "none" and not self.chosen.calibrates:
            raise LimitError(
                f"{self.recipe} isn't calibrated, and a quantized KV cache must be",
                found=f"--kv-cache {self.kv_cache}",
                do="leave --kv-cache out, or choose int8_sq or int4_awq",
            )
        if self.max_ppl_increase is not None and not self.evaluate:
            raise LimitError(
                "a limit on the perplexity needs the evaluation",
                found="--no-eval with --max-ppl-increase",
                do="leave one of them out",
            )

    @property
    def chosen(self) -> Recipe:
        """The recipe."""
        return RECIPES[self.recipe]

    def calibrated_with(self, group_size: int) -> dict[str, Any]:
        """All that decides a calibration's numbers; `group_size` is what was decided, or 0."""
        fixed: dict[str, Any] = {"recipe": self.recipe}
        if not self.chosen.calibrates:
            return fixed
        return fixed | {
            "kv_cache": self.kv_cache,
            "alpha": self.alpha,
            "group_size": group_size,
            "bits_per_weight": self.bits_per_weight,
            "calib": _identity(self.calib, "calibration"),
            "samples": self.samples,
            "max_length": self.max_length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "chat_template": self.chat_template,
            "device": self.device,
            # without it a CPU calibrates in float32
            "cpu_bfloat16": self.device != "cuda" and has_bfloat16(),
            # a few of AWQ's searches end otherwise where a quantized cache isn't seen by them
            "layer_by_layer": self.state is not None,
        }

    def evaluated_with(self) -> dict[str, Any]:
        """All that decides the report's numbers, besides the calibration."""
        if not self.evaluate:
            return {"evaluate": False}
        return {
            "text": _identity(self.eval_text, "held_out"),
            "chat_template": self.chat_template,
            "samples": EVALUATED_SAMPLES,
            "max_length": EVALUATED_LENGTH,
        }


def has_bfloat16() -> bool:
    """Whether torch's products of bfloat16 matrices have instructions of the CPU's."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_CPUINFO.read_text().split())


def _identity(source: str | None, part: str) -> str:
    """What tells one text from another: a digest of a file, the name of a data set."""
    path = Path(str(files("quantize") / "texts" / f"{part}.jsonl")) if source is None else None
    path = path or Path(str(source))
    return digest.of(path) if path.is_file() else str(source)
