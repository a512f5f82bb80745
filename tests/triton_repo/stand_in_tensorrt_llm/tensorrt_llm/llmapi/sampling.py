from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True, kw_only=True)
class GuidedDecodingParams:
    json: Any = None
    regex: Any = None
    grammar: Any = None
    json_object: bool = False
    structural_tag: Any = None

    def text(self):
        guides = [getattr(self, each.name) for each in fields(self) if getattr(self, each.name)]
        if len(guides) != 1:
            raise ValueError(f"Only one guide can be used for a request, but got {len(guides)}.")
        return "{}" if guides[0] is True else guides[0]


TYPES = {
    "end_id": int, "pad_id": int, "max_tokens": int, "bad": list, "bad_token_ids": list,
    "stop": list, "stop_token_ids": list, "include_stop_str_in_output": bool, "n": int,
    "best_of": int, "use_beam_search": bool, "top_k": int, "top_p": float, "top_p_min": float,
    "top_p_reset_ids": int, "top_p_decay": float, "seed": int, "temperature": float,
    "min_tokens": int, "beam_search_diversity_rate": float, "repetition_penalty": float,
    "presence_penalty": float, "frequency_penalty": float, "length_penalty": float,
    "early_stopping": int, "no_repeat_ngram_size": int, "min_p": float, "logprobs": int,
    "return_context_logits": bool, "return_generation_logits": bool,
    "exclude_input_from_output": bool, "return_perf_metrics": bool, "ignore_eos": bool,
    "detokenize": bool, "add_special_tokens": bool, "skip_special_tokens": bool,
    "spaces_between_special_tokens": bool,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    end_id: Any = None
    pad_id: Any = None
    max_tokens: Any = 32
    bad: Any = None
    bad_token_ids: Any = None
    stop: Any = None
    stop_token_ids: Any = None
    include_stop_str_in_output: Any = False
    embedding_bias: Any = None
    logits_processor: Any = None
    n: Any = 1
    best_of: Any = None
    use_beam_search: Any = False
    top_k: Any = None
    top_p: Any = None
    top_p_min: Any = None
    top_p_reset_ids: Any = None
    top_p_decay: Any = None
    seed: Any = None
    temperature: Any = None
    min_tokens: Any = None
    beam_search_diversity_rate: Any = None
    repetition_penalty: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    length_penalty: Any = None
    early_stopping: Any = None
    no_repeat_ngram_size: Any = None
    min_p: Any = None
    logprobs: Any = None
    prompt_logprobs: Any = None
    return_context_logits: Any = False
    return_generation_logits: Any = False
    exclude_input_from_output: Any = True
    return_perf_metrics: Any = False
    lookahead_config: Any = None
    guided_decoding: Any = None
    ignore_eos: Any = False
    detokenize: Any = True
    add_special_tokens: Any = True
    truncate_prompt_tokens: Any = None
    skip_special_tokens: Any = True
    spaces_between_special_tokens: Any = True
    stop_words: Any = field(default=None, init=False)

    def __post_init__(self):
        self.best_of = self.best_of or self.n
        for name, kind in TYPES.items():
            value = getattr(self, name)
            if value is not None and type(value) is not kind:
                raise TypeError(f"{name} must be {kind.__name__}, got {value!r}")
        for each in self.stop_token_ids or ():
            if type(each) is not int:
                raise TypeError(f"stop_token_ids must be ints, got {each!r}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")
        if self.best_of < self.n:
            raise ValueError(f"best_of ({self.best_of}) cannot be less than n ({self.n})")
        if self.best_of > 1 and self.greedy and not self.use_beam_search:
            raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")

    @property
    def greedy(self):
        unset = self.temperature is None and self.top_p is None and self.top_k is None
        return unset or self.top_k == 1 or self.top_p == 0 or self.temperature == 0

    def setup(self, tokenizer, eos):
        if self.end_id is None:
            self.end_id = eos
            self.stop_words = [tokenizer.encode(text).ids for text in self.stop or ()]
        elif self.stop is not None:
            # upstream: stop strings are encoded only while the end is found
            raise RuntimeError(f"stop ({self.stop}) is not processed by tokenizer")
