"""The tables of parameters, walked against OpenAI's and vLLM's lists and against the structs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import openai.types.chat.completion_create_params as openai_chat_params
import openai.types.completion_create_params as openai_completion_params
import pytest
from openai.types import EmbeddingCreateParams

from server.errors import InvalidRequestError
from server.protocol.openai_chat import ChatRequest
from server.protocol.openai_chat import parse as parse_chat
from server.protocol.openai_completions import CompletionRequest
from server.protocol.openai_completions import parse as parse_completion
from server.protocol.openai_embeddings import EMBEDDINGS, EmbeddingBody
from server.protocol.openai_embeddings import parse as parse_embeddings
from server.protocol.parameters import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    TEMPLATE_VARIABLES,
    TOKENIZE,
    Fate,
    Honoured,
    Metadata,
    Refused,
)
from server.protocol.tokenize import (
    DetokenizeBody,
    TokenizeBody,
    parse_detokenize,
    parse_tokenize,
)

# OpenAI's specification 2.3.0.
OPENAI_CHAT = """
audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction
presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort
response_format safety_identifier seed service_tier stop store stream stream_options temperature
tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
OPENAI_COMPLETIONS = """
model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty
seed stop stream stream_options suffix temperature top_p user
"""
# vLLM's extensions in November 2026, and the names of earlier releases that clients still send.
VLLM_BOTH = """
top_k min_p repetition_penalty length_penalty use_beam_search stop_token_ids
include_stop_str_in_output ignore_eos min_tokens skip_special_tokens
spaces_between_special_tokens truncate_prompt_tokens prompt_logprobs bad_words allowed_token_ids
echo add_special_tokens response_format structured_outputs priority request_id session_id
return_tokens_as_token_ids return_token_ids cache_salt kv_transfer_params ec_transfer_params
thinking_token_budget repetition_detection watermarking logprob_token_ids vllm_xargs
routed_experts_prompt_start truncation_side return_token_offsets return_mm_kwargs stream_interval
guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
guided_whitespace_pattern
"""
VLLM_CHAT = """
add_generation_prompt continue_final_message documents chat_template chat_template_kwargs
mm_processor_kwargs media_io_kwargs include_reasoning reasoning_effort return_prompt_text
"""
VLLM_EMBEDDINGS = """
truncate_prompt_tokens padding truncation_side request_id priority mm_processor_kwargs cache_salt
add_special_tokens embed_dtype endianness use_activation messages
"""

MESSAGES = [{"role": "user", "content": "hi"}]
DIALECTS: dict[str, tuple[Mapping[str, Fate], type, Callable[[bytes], Any], dict[str, Any]]] = {
    "chat": (CHAT, ChatRequest, parse_chat, {"model": "m", "messages": MESSAGES}),
    "completions": (COMPLETIONS, CompletionRequest, parse_completion, {"prompt": "hi"}),
    "embeddings": (EMBEDDINGS, EmbeddingBody, parse_embeddings, {"input": "hi"}),
    "tokenize": (TOKENIZE, TokenizeBody, parse_tokenize, {"prompt": "hi"}),
    "detokenize": (DETOKENIZE, DetokenizeBody, parse_detokenize, {"tokens": [1]}),
}
REFUSED = [
    (dialect, name)
    for dialect, (table, *_) in DIALECTS.items()
    for name, fate in table.items()
    if isinstance(fate, Refused)
]


def test_every_parameter_of_openai_and_of_vllm_has_a_fate() -> None:
    assert set((OPENAI_CHAT + VLLM_BOTH + VLLM_CHAT).split()) <= CHAT.keys()
    assert set((OPENAI_COMPLETIONS + VLLM_BOTH).split()) <= COMPLETIONS.keys()
    assert set(VLLM_EMBEDDINGS.split()) <= EMBEDDINGS.keys()


def test_every_parameter_of_the_installed_openai_client_has_a_fate() -> None:
    chat = openai_chat_params.CompletionCreateParamsNonStreaming.__annotations__
    chat |= openai_chat_params.CompletionCreateParamsBase.__annotations__
    completions = openai_completion_params.CompletionCreateParamsBase.__annotations__
    assert chat.keys() <= CHAT.keys()
    assert completions.keys() <= COMPLETIONS.keys()
    assert EmbeddingCreateParams.__annotations__.keys() <= EMBEDDINGS.keys()


@pytest.mark.parametrize("name", ["service_tier", "reasoning_effort"])
def test_every_value_that_the_installed_openai_client_knows_is_taken(name: str) -> None:
    known = get_type_hints(openai_chat_params.CompletionCreateParamsBase)[name]
    for value in values_of(known):
        parse_chat(json.dumps({"messages": MESSAGES, name: value}).encode())


def values_of(kind: Any) -> set[Any]:
    """The values of a type that is literals."""
    if get_origin(kind) is Literal:
        return set(get_args(kind))
    return {value for inner in get_args(kind) for value in values_of(inner)}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_table_and_the_struct_agree_on_what_is_honoured(dialect: str) -> None:
    table, struct, *_ = DIALECTS[dialect]
    honoured = {name for name, fate in table.items() if isinstance(fate, Honoured)}
    assert honoured == {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(("dialect", "name"), REFUSED)
def test_what_cant_be_honoured_is_refused_by_name_unless_it_asks_for_nothing(
    dialect: str, name: str
) -> None:
    table, _, parse, minimal = DIALECTS[dialect]
    fate = table[name]
    assert isinstance(fate, Refused)
    for neutral in (None, *fate.neutral):
        parse(json.dumps({**minimal, name: neutral}).encode())
    with pytest.raises(InvalidRequestError, match=fate.reason[:20]) as caught:
        parse(json.dumps({**minimal, name: {"x": [1]}}).encode())
    assert caught.value.param == name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_metadata_is_accepted_whatever_it_is_and_changes_nothing(dialect: str) -> None:
    table, _, parse, minimal = DIALECTS[dialect]
    metadata = [name for name, fate in table.items() if isinstance(fate, Metadata)]
    plain = parse(json.dumps(minimal).encode())
    for value in ("anything", {"a": 1}):
        assert parse(json.dumps({**minimal, **dict.fromkeys(metadata, value)}).encode()) == plain


@pytest.mark.parametrize("dialect", DIALECTS)
def test_null_is_the_default_everywhere(dialect: str) -> None:
    table, _, parse, minimal = DIALECTS[dialect]
    nulls = {name: None for name in table if name not in minimal}
    assert parse(json.dumps({**minimal, **nulls}).encode()) == parse(json.dumps(minimal).encode())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_parameter_that_nobody_knows_is_refused_by_name(dialect: str) -> None:
    *_, parse, minimal = DIALECTS[dialect]
    with pytest.raises(InvalidRequestError) as caught:
        parse(json.dumps({**minimal, "no_such": 1}).encode())
    assert caught.value.param == "no_such"


def test_what_depends_on_the_template_is_marked() -> None:
    assert {"documents", "reasoning_effort"} == TEMPLATE_VARIABLES


@pytest.mark.parametrize("dialect", ["chat", "completions"])
def test_not_to_be_given_what_nobody_gets_asks_for_nothing(dialect: str) -> None:
    *_, parse, minimal = DIALECTS[dialect]
    for wanted in (False, True):  # a router sends the first, and the second is vLLM's default
        plain = parse(json.dumps(minimal).encode())
        assert parse(json.dumps({**minimal, "return_mm_kwargs": wanted}).encode()) == plain


@pytest.mark.parametrize("bias", [{"5": "x"}, {"x": 1}, {"5": [1]}, []])
def test_a_value_in_a_mapping_is_complained_of_by_the_mappings_name(bias: Any) -> None:
    body = {"messages": MESSAGES, "logit_bias": bias}
    with pytest.raises(InvalidRequestError, match=r"'logit_bias'$") as caught:
        parse_chat(json.dumps(body).encode())
    assert caught.value.param == "logit_bias"
