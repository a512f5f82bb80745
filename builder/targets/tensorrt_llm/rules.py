"""What `trtllm-build` 1.2 refuses, fails on, or silently changes, refused before it starts.

A config that passes is built as it stands, so that what trtbuild prints is what the engine is;
only for speculative decoding does TensorRT-LLM then add the draft's length to max_seq_len.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import LimitError
from builder.targets.tensorrt_llm.case import Case, Rule
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.rules_attention import ATTENTION
from builder.targets.tensorrt_llm.rules_draft import DRAFTS
from builder.targets.tensorrt_llm.rules_gpu import GPU
from builder.targets.tensorrt_llm.rules_limits import LIMITS
from builder.targets.tensorrt_llm.rules_lora import LORA
from builder.targets.tensorrt_llm.rules_plugins import PLUGINS

RULES: Mapping[str, Rule] = {
    rule.name: rule for rule in (*GPU, *ATTENTION, *LIMITS, *DRAFTS, *PLUGINS, *LORA)
}
"""Name → rule, in the order in which they are asked."""


def broken(case: Case, rules: Iterable[Rule] = RULES.values()) -> list[tuple[Rule, str]]:
    """Those of `rules` that a case breaks, each with what was found."""
    found = ((rule, rule.found(case)) for rule in rules)
    return [(rule, what) for rule, what in found if what is not None]


def check(
    config: BuildConfig,
    checkpoint: Mapping[str, Any],
    sm: int | None = None,
    rules: Iterable[Rule] = RULES.values(),
) -> None:
    """Raise LimitError for the first of `rules` that is broken.

    `checkpoint` is its config.json. Without `sm`, what depends on the GPU isn't asked.
    """
    for rule, found in broken(Case(config=config, checkpoint=checkpoint, sm=sm), rules):
        raise LimitError(f"{rule.what} ({rule.name})", found=found, do=rule.do)
