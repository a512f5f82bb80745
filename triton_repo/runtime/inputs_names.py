"""Every input of the `tensorrt_llm` model, in one table each: what the CPU engine does with it."""

from __future__ import annotations

SAMPLING = {
    "temperature": "temperature",
    "runtime_top_k": "top_k",
    "runtime_top_p": "top_p",
    "runtime_top_p_min": "top_p_min",
    "runtime_top_p_decay": "top_p_decay",
    "runtime_top_p_reset_ids": "top_p_reset_id",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_tokens": "min_tokens",
    "seed": "seed",
}
"""Triton input → SamplingParams field."""

BEAMS = {
    "beam_width": "width",
    "len_penalty": "length_penalty",
    "early_stopping": "early_stopping",
    "beam_search_diversity_rate": "diversity_rate",
}
"""Triton input → BeamParams field."""

_RANGES = "retention_token_range_"
RETENTION = (
    f"{_RANGES}starts",
    f"{_RANGES}ends",
    f"{_RANGES}priorities",
    f"{_RANGES}durations_ms",
    "retention_decode_priority",
    "retention_decode_duration_ms",
)

READ = {
    "input_ids",
    "input_lengths",
    "request_output_len",
    "end_id",
    "stop_words_list",
    "bad_words_list",
    "embedding_bias",
    "num_return_sequences",
    "draft_input_ids",
    "draft_logits",
    "draft_acceptance_threshold",
    "lora_task_id",
    "lora_weights",
    "lora_config",
    "guided_decoding_guide_type",
    "guided_decoding_guide",
    "return_log_probs",
    "return_context_logits",
    "return_generation_logits",
    "return_perf_metrics",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "exclude_input_in_output",
    "streaming",
    "stop",
    *SAMPLING,
    *BEAMS,
    *RETENTION,
}
"""Inputs that have their effect."""

WITHOUT_EFFECT = {
    "pad_id": "answers are not padded",
    "decoder_input_ids": "a decoder-only model has its prompt in input_ids, on a GPU too",
    "decoder_input_lengths": "a decoder-only model has its prompt in input_ids, on a GPU too",
}
"""Inputs that change nothing, and why."""

REFUSED = {
    "encoder_input_features": "the engine has no encoder",
    "encoder_output_lengths": "the engine has no encoder",
    "cross_attention_mask": "the engine has no cross attention",
    "skip_cross_attn_blocks": "the engine has no cross attention",
    "prompt_embedding_table": "the engine reads token ids, not embeddings",
    "prompt_table_extra_ids": "the engine reads token ids, not embeddings",
    "prompt_vocab_size": "the engine reads token ids, not embeddings",
    "mrope_rotary_cos_sin": "the engine computes positions itself",
    "mrope_position_deltas": "the engine computes positions itself",
    "context_phase_params": "prompt and answer are computed in one place",
    "lookahead_window_size": "the engine decodes without lookahead",
    "lookahead_ngram_size": "the engine decodes without lookahead",
    "lookahead_verification_set_size": "the engine decodes without lookahead",
}
"""Inputs that the CPU engine can't honour, and why. Zeros and empty tensors ask for nothing."""
