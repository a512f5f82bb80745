"""Rules of lengths and limits: `check_max_num_tokens`, `_init_max_seq_len` and int32."""

from __future__ import annotations

from builder.limits import INT32_MAX
from builder.targets.tensorrt_llm.case import Case, Rule

_LEAST = {
    **dict.fromkeys(("max_batch_size", "max_input_len", "max_seq_len", "max_beam_width"), 1),
    **dict.fromkeys(("max_num_tokens", "opt_num_tokens", "max_encoder_input_len"), 1),
    **dict.fromkeys(("max_draft_len", "max_prompt_embedding_table_size"), 0),
}


def _out_of_range(case: Case) -> str | None:
    for name, least in _LEAST.items():
        value = getattr(case.config, name)
        if value is not None and not least <= value <= INT32_MAX:
            return f"{name} {value}"
    return None


def _no_seq_len(case: Case) -> str | None:
    return "no max_seq_len" if case.config.max_seq_len is None else None


def _untrained(case: Case) -> str | None:
    wanted, trained = case.config.max_seq_len or 0, case.positions
    if trained is None or wanted <= trained:
        return None
    return f"max_seq_len {wanted}, and the model was made for {trained}"


def _long_input(case: Case) -> str | None:
    config = case.config
    if config.max_input_len <= (config.max_seq_len or config.max_input_len):
        return None
    return f"max_input_len {config.max_input_len} and max_seq_len {config.max_seq_len}"


def _too_many_tokens(case: Case) -> str | None:
    config = case.config
    most = config.max_batch_size * (config.max_seq_len or INT32_MAX)
    if config.max_num_tokens <= most:
        return None
    return f"max_num_tokens {config.max_num_tokens}, and a full batch has {most}"


def _less_than_a_block(case: Case) -> str | None:
    tokens, block = case.config.max_num_tokens, case.plugins.tokens_per_block
    if not case.plugins.context_fmha or tokens >= block:
        return None
    return f"max_num_tokens {tokens} and tokens_per_block {block}"


def _less_than_a_prompt(case: Case) -> str | None:
    tokens, prompt = case.config.max_num_tokens, case.config.max_input_len
    chunks = case.plugins.context_fmha and case.plugins.use_paged_context_fmha
    if chunks or tokens >= prompt:
        return None
    return f"max_num_tokens {tokens}, max_input_len {prompt}, use_paged_context_fmha off"


def _opt_tokens(case: Case) -> str | None:
    best = case.config.opt_num_tokens
    if best is None or best <= case.config.max_num_tokens:
        return None
    return f"opt_num_tokens {best} and max_num_tokens {case.config.max_num_tokens}"


def _opt_and_profiles(case: Case) -> str | None:
    if case.config.opt_num_tokens is None or not case.plugins.multiple_profiles:
        return None
    return f"opt_num_tokens {case.config.opt_num_tokens} and multiple_profiles"


def _block(case: Case) -> str | None:
    size = case.plugins.tokens_per_block
    return None if size > 0 and size & (size - 1) == 0 else f"tokens_per_block {size}"


RANGE = (
    Rule(
        name="range",
        what="the limit is out of range",
        found=_out_of_range,
        do=f"give a positive number, at most {INT32_MAX}",
        source="int32 tensors and fields",
    ),
)
"""Asked before anything is reckoned with the numbers."""

LIMITS = (
    *RANGE,
    Rule(
        name="max-seq-len-stated",
        what="max_seq_len must be stated",
        found=_no_seq_len,
        do="give --max-seq-len: TensorRT-LLM would take the longest that the model has",
        source="builder.py, _init_max_seq_len",
    ),
    Rule(
        name="max-seq-len-trained",
        what="max_seq_len is beyond what the model was made for",
        found=_untrained,
        do="lower --max-seq-len",
        source="builder.py, _init_max_seq_len",
    ),
    Rule(
        name="input-within-seq-len",
        what="max_input_len must not be longer than max_seq_len",
        found=_long_input,
        do="lower max_input_len or raise --max-seq-len",
        source="builder.py, _init_max_seq_len",
    ),
    Rule(
        name="num-tokens-of-batch",
        what="max_num_tokens must not be more than max_batch_size sequences of max_seq_len have",
        found=_too_many_tokens,
        do="lower --max-num-tokens",
        source="_common.py, check_max_num_tokens",
    ),
    Rule(
        name="num-tokens-of-block",
        what="max_num_tokens must be at least a block of the KV cache",
        found=_less_than_a_block,
        do="raise --max-num-tokens",
        source="_common.py, check_max_num_tokens",
    ),
    Rule(
        name="num-tokens-of-prompt",
        what="without chunks of prompts, max_num_tokens must hold the longest prompt",
        found=_less_than_a_prompt,
        do="raise --max-num-tokens or lower max_input_len",
        source="_common.py, check_max_num_tokens",
    ),
    Rule(
        name="opt-num-tokens",
        what="opt_num_tokens must not be more than max_num_tokens",
        found=_opt_tokens,
        do="lower opt_num_tokens",
        source="_common.py, check_max_num_tokens",
    ),
    Rule(
        name="opt-num-tokens-or-profiles",
        what="opt_num_tokens and multiple_profiles exclude each other",
        found=_opt_and_profiles,
        do="leave one of them out",
        source="commands/build.py, main",
    ),
    Rule(
        name="tokens-per-block",
        what="tokens_per_block must be a power of two",
        found=_block,
        do="leave it at 32",
        source="kvCacheUtils.h",
    ),
)
