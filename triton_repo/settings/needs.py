"""What settings need of an engine: one line each, read from its `config.json`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_repo.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something an engine must have: `what` it is, what was `found` where it isn't there, and what
    to `do` then."""

    what: str
    has: Callable[[Engine], bool]
    found: Callable[[Engine], str]
    do: str


def _build(flag: str) -> str:
    return f"build the engine with trtbuild build {flag}, or leave it off"


PAGED_CONTEXT = Need(
    what="an engine with paged context attention",
    has=lambda engine: engine.paged_context,
    found=lambda engine: "plugin_config.use_paged_context_fmha false",
    do="build the engine with it, or leave it off",
)
REUSE = Need(
    what="an engine with paged context attention that doesn't gather context logits",
    has=lambda engine: engine.reuses_blocks,
    found=lambda engine: (
        "build_config.gather_context_logits true"
        if engine.paged_context
        else PAGED_CONTEXT.found(engine)
    ),
    do="build the engine so, or leave it off",
)
IN_FLIGHT = Need(
    what="an engine with packed inputs and a paged KV cache",
    has=lambda engine: engine.packed_inputs and engine.paged_kv_cache,
    found=lambda engine: "remove_input_padding or paged_kv_cache false",
    do="build the engine with them",
)
SINKS = Need(
    what="an engine with attention sinks",
    has=lambda engine: engine.attention_sinks,
    found=lambda engine: "plugin_config.streamingllm false",
    do="leave it out: TensorRT-LLM 1.2 builds none",
)
BEAMS = Need(
    what="an engine for beam search",
    has=lambda engine: engine.max_beam_width > 1,
    found=lambda engine: f"build_config.max_beam_width {engine.max_beam_width}",
    do=_build("--max-beam-width"),
)
LORA = Need(
    what="an engine for LoRA adapters",
    has=lambda engine: engine.lora,
    found=lambda engine: "no lora_target_modules in build_config.lora_config",
    do=_build("--lora"),
)
STREAMED_WEIGHTS = Need(
    what="an engine whose weights may be streamed",
    has=lambda engine: engine.weight_streaming,
    found=lambda engine: "build_config.weight_streaming false",
    do=_build("--weight-streaming"),
)


def drafting(mode: str, flag: str) -> Need:
    """An engine that drafts in the way of `mode`, a name of SPECULATIVE_MODES."""
    return Need(
        what=f"an engine built for {flag}",
        has=lambda engine: engine.speculative_mode == mode,
        found=lambda engine: f"build_config.speculative_decoding_mode {engine.speculative_mode}",
        do=_build(f"--speculative {flag}"),
    )


DECODING = {
    "beam_search": BEAMS,
    "medusa": drafting("medusa", "medusa"),
    "redrafter": drafting("explicit_draft_tokens", "explicit_draft_tokens"),
    "lookahead": drafting("lookahead_decoding", "lookahead_decoding"),
    "eagle": drafting("eagle", "eagle"),
}
"""Decoding mode → what it needs."""
