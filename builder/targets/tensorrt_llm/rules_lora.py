"""Rules of LoRA adapters."""

from __future__ import annotations

from builder.limits import INT32_MAX
from builder.lora import misread_modules
from builder.targets.tensorrt_llm.case import Case, Rule
from builder.targets.tensorrt_llm.flags import LORA_MODULES


def _lora_off(case: Case) -> str | None:
    lora = case.config.lora_config
    asked = lora.lora_dir or lora.lora_target_modules or case.plugins.dora_plugin
    return "lora_plugin disable" if asked and case.plugins.lora_plugin is None else None


def _lora_where(case: Case) -> str | None:
    lora = case.config.lora_config
    if case.plugins.lora_plugin is None or lora.lora_dir or lora.lora_target_modules:
        return None
    return "neither lora_dir nor lora_target_modules"


def _lora_names(case: Case) -> str | None:
    lora = case.config.lora_config
    if unknown := [each for each in lora.lora_target_modules if each not in LORA_MODULES]:
        return f"{unknown[0]}, which is none of {', '.join(LORA_MODULES)}"
    nemo = lora.lora_ckpt_source == "nemo"
    other = [each for each in lora.lora_target_modules if nemo and each != "attn_qkv"]
    return f"{other[0]} of a NeMo adapter, which has only attn_qkv" if other else None


def _lora_rank(case: Case) -> str | None:
    rank = case.config.lora_config.max_lora_rank
    wrong = case.plugins.lora_plugin and not 1 <= rank <= INT32_MAX
    return f"max_lora_rank {rank}" if wrong else None


def _lora_square(case: Case) -> str | None:
    if case.plugins.lora_plugin is None:
        return None
    wrong = set(case.config.lora_config.lora_target_modules) & set(misread_modules(case.checkpoint))
    return f"{wrong.pop()} among lora_target_modules" if wrong else None


LORA = (
    Rule(
        name="lora-plugin",
        what="adapters need lora_plugin",
        found=_lora_off,
        do="set lora_plugin=auto, or leave the adapters out",
        source="commands/build.py, build_model",
    ),
    Rule(
        name="lora-modules",
        what="lora_plugin needs to know where adapters go",
        found=_lora_where,
        do="give --lora or lora_target_modules",
        source="lora_manager.py, load_hf_lora",
    ),
    Rule(
        name="lora-module-names",
        what="there is no such module for an adapter",
        found=_lora_names,
        do="name modules as TensorRT-LLM does",
        source="lora_manager.py, LORA_MODULE_IDS",
    ),
    Rule(
        name="lora-square",
        what="adapters would be misread where attention's heads aren't as wide as the hidden state",
        found=_lora_square,
        do="leave o_proj (attn_dense) out of the adapters, or merge them into the model",
        source="cpp/tensorrt_llm/runtime/loraModule.cpp, createLoraModules",
    ),
    Rule(
        name="lora-rank",
        what="max_lora_rank is out of range",
        found=_lora_rank,
        do="give the largest rank of your adapters",
        source="lora_helper.py, LoraConfig",
    ),
)
