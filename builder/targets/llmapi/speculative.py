"""The settings of each way of speculative decoding, by its `decoding_type`.

Source: the DecodingBaseConfig classes of TensorRT-LLM's `llmapi/llm_args.py`, those that its
PyTorch backend runs. Medusa, lookahead and ReDrafter were the engine's and have no class any more;
`User_Provided` takes Python objects. `Eagle` is taken for `Eagle3`, whose draft models differ.
"""

from __future__ import annotations

from builder.targets.llmapi.setting import (
    Kind,
    Object,
    Setting,
    flag,
    group,
    real,
    table,
    text,
    value,
    whole,
)


def _type(since: str) -> Setting:
    return text("decoding_type", required=True, since=since)


_COMMON = table(
    _type("1.2"),
    whole("max_draft_len", least=0),
    whole("max_total_draft_tokens"),
    text("speculative_model", since="1.3"),
    whole("max_concurrency", least=1),
    value("draft_len_schedule", Kind.SCHEDULE, since="1.3"),
    text("load_format"),
    whole("acceptance_rate_window_size", least=0, since="1.4"),
    real("acceptance_rate_threshold", least=0, most=1, since="1.4"),
    whole("acceptance_window", least=0, until="1.4"),
    real("acceptance_length_threshold", least=0, until="1.4"),
    flag("use_rejection_sampling", since="1.3", status="prototype"),
    flag("allow_advanced_sampling", since="1.3", status="deprecated"),
    text(
        *("advanced_sampling_mode", "full"),
        *("full", "no_topk", "no_topp", "no_topk_no_topp"),
        since="1.4",
    ),
    flag("enable_penalty", since="1.4", status="prototype"),
)

_SUFFIXES = Object(
    settings=table(whole("threshold", 4, least=1), flag("enable_global_pool")),
)
_SUFFIX_CONFIG = group("sa_config", _SUFFIXES, since="1.3", status="beta")
_TREE = (flag("use_dynamic_tree"), whole("dynamic_tree_max_topK", above=0))

_EAGLE = table(
    value("eagle_choices", Kind.LISTS, status="deprecated"),
    flag("greedy_sampling", True, null=True),
    real("posterior_threshold"),
    *_TREE,
    whole("num_eagle_layers", status="deprecated"),
    whole("max_non_leaves_per_layer"),
    flag("eagle3_one_model", True, null=True, status="deprecated"),
    value("eagle3_layers_to_capture", Kind.WHOLES),
    text("eagle3_model_arch", "llama3", "llama3", "mistral_large3", since="1.3"),
)
_BLOCK_DRAFT = table(
    whole("mask_token_id"),
    value("target_layer_ids", Kind.WHOLES),
    text("attention_backend", "VANILLA", "VANILLA", "TRTLLM", since="1.4"),
)

SPECULATIVE = Object(
    settings=_COMMON,
    key="decoding_type",
    variants={
        "Eagle3": {**_EAGLE, **table(_type("1.3"), _SUFFIX_CONFIG)},
        "Eagle": _EAGLE,
        "MTP": table(
            flag("use_relaxed_acceptance_for_thinking"),
            whole("relaxed_topk", 1, least=1),
            real("relaxed_delta", 0.0, least=0),
            flag("use_mtp_vanilla"),
            flag("mtp_eagle_one_model", True, status="deprecated"),
            *_TREE,
            _SUFFIX_CONFIG,
            whole("begin_thinking_phase_token", 128798, least=0, since="1.3"),
            whole("end_thinking_phase_token", 128799, least=0, since="1.3"),
        ),
        "NGram": table(
            whole("max_matching_ngram_size", 2, least=1),
            flag("is_keep_all", True),
            flag("is_use_oldest", True),
            flag("is_public_pool", True),
        ),
        "SA": table(
            _type("1.3"),
            whole("max_matching_ngram_size", -1, least=-1),
            flag("enable_global_pool"),
            whole("global_pool_size", least=1),
        ),
        "Draft_Target": table(_type("1.3")),
        "PARD": table(_type("1.3"), whole("mask_token_id"), _SUFFIX_CONFIG),
        "DFlash": {**_BLOCK_DRAFT, **table(_type("1.3"))},
        "DSpark": {
            **_BLOCK_DRAFT,
            **table(
                _type("1.4"),
                whole("block_size", least=1),
                whole("markov_rank"),
                text("markov_head_type", None, "vanilla", "gated", "rnn"),
            ),
        },
        "SaveState": table(
            text("output_directory", required=True),
            whole("write_interval", 20),
            text("file_prefix", "data"),
            value("eagle3_layers_to_capture", Kind.WHOLES),
        ),
        "User_Provided": table(
            value("drafter", Kind.PYTHON), value("resource_manager", Kind.PYTHON)
        ),
        "AUTO": {},
    },
)
