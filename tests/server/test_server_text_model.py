from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import BOS, EOS, IM_END, byte_level, ids, sentencepiece_like, write_folder
from text_answers import text_request
from tokenizers.normalizers import Lowercase

from server.backend.base import NO_END_ID, GenerateRequest, Guide
from server.config import ServedModel
from server.errors import ContextLengthError, InvalidRequestError, UnusableTokenizerError
from server.protocol.request import ChatPrompt, TextRequest, TokenPrompt, ToolUse
from server.text_model import Prepared, TextModel

RAW = byte_level()
SIZE = RAW.get_vocab_size()
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("text_model"), RAW)


def model_of(folder: Path, *, offload_chars: int = 1000, **served: Any) -> TextModel:
    values = {"name": "m", "tokenizer_dir": folder, "max_seq_len": 64, **served}
    return TextModel(ServedModel(**values), offload_chars=offload_chars)


async def one(model: TextModel, request: TextRequest, **values: Any) -> Prepared:
    (prepared,) = await model.requests(request, "r", **values)
    return prepared


async def asked(folder: Path, request: TextRequest | None = None, **served: Any) -> GenerateRequest:
    return (await one(model_of(folder, **served), request or text_request("fox"))).request


async def refused(model: TextModel, request: TextRequest) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        await model.requests(request, "r")
    return caught.value


def chat(*messages: dict[str, Any], **values: Any) -> TextRequest:
    prompt = ChatPrompt(messages=messages or [USER], **values)
    return TextRequest(model="m", prompts=[prompt], prompt_param="messages")


async def test_a_model_without_a_chat_template_points_to_completions(tmp_path: Path) -> None:
    error = await refused(model_of(write_folder(tmp_path, RAW, template=None)), chat())
    assert (error.param, error.do) == ("messages", "use /v1/completions")


async def test_a_template_can_be_forced_for_all_requests(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    prepared = await one(model_of(folder, chat_template=str(tmp_path / "own")), chat())
    assert RAW.decode(prepared.request.input_ids) == "mine"
    with pytest.raises(UnusableTokenizerError, match="no chat template 'x'"):
        model_of(folder, chat_template="x")
    model_of(folder, chat_template="x", task="embed")  # which has no use for one


async def test_a_templates_complaint_is_the_clients_to_read(tmp_path: Path) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    error = await refused(model_of(write_folder(tmp_path, RAW, template=template)), chat())
    assert "roles must alternate" in str(error)
    assert error.do is None


async def test_what_a_template_has_no_place_for_is_refused_by_its_name(folder: Path) -> None:
    error = await refused(model_of(folder), chat(variables={"reasoning_effort": "high"}))
    assert error.param == "reasoning_effort"
    error = await refused(model_of(folder), chat(variables={"enable_thinking": True}))
    assert error.param == "chat_template_kwargs.enable_thinking"
    await one(model_of(folder), chat(variables={"enable_thinking": False}))  # which it does not


async def test_tools_are_in_the_prompt(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}{% for t in tools %}<{{ t.function.name }}>{% endfor %}"
    write_folder(tmp_path, RAW, template=template)
    prepared = await one(model_of(tmp_path), chat(tools=[TOOL]))
    assert RAW.decode(prepared.request.input_ids) == "hi<f>"
    assert prepared.tail == "hi<f>"


@pytest.mark.parametrize("offload_chars", [10_000, 0])
async def test_a_prompt_is_the_same_wherever_it_is_encoded(
    folder: Path, offload_chars: int
) -> None:
    model = model_of(folder, offload_chars=offload_chars)
    prepared = await one(model, chat())
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert prepared.request.input_ids == ids(RAW, text), "rendered, with no second BOS"
    assert text.endswith(prepared.tail)
    assert (await one(model, text_request("fox"))).request.input_ids == RAW.encode("fox").ids
    plain = TextRequest(model="m", prompts=[TokenPrompt(ids=[5, 6])], prompt_param="prompt")
    assert (await one(model, plain)).request.input_ids == [5, 6]


async def test_where_nothing_is_said_openais_defaults_hold_and_seeds_differ(folder: Path) -> None:
    first, second = await asked(folder), await asked(folder)
    assert (first.temperature, first.top_p, first.top_k) == (1.0, 1.0, 0)
    assert (first.repetition_penalty, first.presence_penalty, first.frequency_penalty) == (1, 0, 0)
    assert first.seed != second.seed
    assert (await asked(folder, text_request(seed=-1))).seed == 2**64 - 1


async def test_the_models_own_sampling_holds_where_the_request_says_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, RAW)
    own = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.1}
    config = {**own, "do_sample": False, "eos_token_id": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    made = await asked(tmp_path)
    assert {name: getattr(made, name) for name in own} == own
    other = {"temperature": 0.1, "top_p": 0.5, "top_k": 0, "repetition_penalty": 1.0}
    made = await asked(tmp_path, text_request(**other))
    assert {name: getattr(made, name) for name in other} == other
    made = await asked(tmp_path, default_sampling="openai")
    assert (made.temperature, made.top_p, made.top_k, made.repetition_penalty) == (1, 1, 0, 1)


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_p": 0.0}])
async def test_the_smallest_choice_is_greedy(folder: Path, values: dict[str, float]) -> None:
    made = await asked(folder, text_request(**values, top_k=7))
    assert (made.temperature, made.top_p, made.top_k) == (None, 1.0, 1)


async def test_every_end_id_of_the_model_and_of_the_request_is_honoured(folder: Path) -> None:
    eos, im_end = RAW.token_to_id(EOS), RAW.token_to_id(IM_END)
    made = await asked(folder, text_request(stop_token_ids=(9,)))
    assert (made.end_id, made.stop_ids) == (eos, (im_end, 9))
    made = await asked(folder, text_request(ignore_eos=True))
    assert (made.end_id, made.stop_ids) == (NO_END_ID, ())
    made = await asked(folder, text_request(min_tokens=2, stop_token_ids=(9,)))
    assert (made.min_tokens, made.stop_ids) == (2, ()), "the engine would heed them at once"


async def test_the_engine_is_told_of_stop_strings_as_the_model_would_write_them(
    folder: Path,
) -> None:
    stops = ("fox", " dog", IM_END)
    made = await asked(folder, text_request(stop=stops))
    said = {RAW.decode(list(word), skip_special_tokens=True) for word in made.stop_words}
    assert said == {"fox", " fox", " dog"}, "what isn't shown ends no text"
    shown = replace(text_request(stop=stops), skip_special_tokens=False)
    assert (RAW.token_to_id(IM_END),) in (await asked(folder, shown)).stop_words
    for other in ({"min_tokens": 2}, {"beams": True, "n": 2}):
        request = text_request(stop=stops, **other)
        assert not (await asked(folder, request, max_beam_width=2)).stop_words
    assert not (await asked(folder, text_request(stop=stops), kind="llmapi")).stop_words


async def test_a_stop_string_that_a_tokenizer_would_write_otherwise_is_left_to_the_text(
    tmp_path: Path,
) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = Lowercase()
    folder = write_folder(tmp_path, tokenizer)
    assert not (await asked(folder, text_request(stop=("FOX",)))).stop_words
    assert (await asked(folder, text_request(stop=("fox",)))).stop_words


async def test_a_models_own_length_holds_where_the_request_names_none(tmp_path: Path) -> None:
    config = {"max_new_tokens": 5, "max_length": 3}
    (write_folder(tmp_path, RAW) / "generation_config.json").write_text(json.dumps(config))
    assert (await asked(tmp_path)).max_tokens == 5
    assert (await asked(tmp_path, text_request(max_tokens=9))).max_tokens == 9, "it is no limit"
    assert (await asked(tmp_path, text_request(min_tokens=7))).max_tokens == 7
    assert (await asked(tmp_path, default_sampling="openai")).max_tokens > 20


async def test_an_answer_gets_the_room_that_is_left_at_most(folder: Path) -> None:
    prompt = RAW.encode("fox").ids
    assert (await asked(folder)).max_tokens == 64 - len(prompt)
    assert (await asked(folder, text_request("fox", max_tokens=1000))).max_tokens == 64 - len(
        prompt
    )
    assert (await asked(folder, text_request("fox", max_tokens=3))).max_tokens == 3
    nothing = await one(model_of(folder), text_request("fox", max_tokens=0))
    assert (nothing.max_tokens, nothing.request.max_tokens) == (0, 1), "engines write one or more"


async def test_a_prompt_that_leaves_no_room_is_refused_with_the_figures(folder: Path) -> None:
    model = model_of(folder, max_seq_len=8, max_input_len=4)
    long = await refused(model, text_request("x" * 4))
    assert isinstance(long, ContextLengthError)
    assert "at most 4 tokens" in str(long)
    assert "resulted in 5 tokens" in str(long)
    longer = await refused(model, text_request("x" * 7))
    assert "maximum context length is 8 tokens" in str(longer)
    huge = await refused(model, text_request("x" * 1_000_000))
    assert "held 1000000 characters" in str(huge), "not even tokenized"


async def test_of_a_long_prompt_the_last_tokens_are_kept_where_that_is_asked_for(
    folder: Path,
) -> None:
    model = model_of(folder, max_seq_len=8, max_input_len=6)
    request = text_request("abcdefghij" * 100, max_tokens=3)
    kept = await one(model, replace(request, truncate_prompt_tokens=2))
    assert kept.request.input_ids == ids(RAW, "ij")
    fits = await one(model, replace(request, truncate_prompt_tokens=-1))
    assert fits.request.input_ids == ids(RAW, "fghij"), "and the answer's three have their room"
    assert fits.max_tokens == 3


async def test_token_ids_and_biases_must_be_the_models(folder: Path) -> None:
    for token in (-1, SIZE):
        request = TextRequest(
            model="m", prompts=[TokenPrompt(ids=[1, token])], prompt_param="prompt"
        )
        assert (await refused(model_of(folder), request)).param == "prompt"
        error = await refused(model_of(folder), text_request(logit_bias={token: 1.0}))
        assert error.param == "logit_bias"
    request = text_request(logit_bias={SIZE: -100.0, 1: 100.0})
    assert (await asked(folder, request, vocab_size=SIZE + 1)).logit_bias == {SIZE: -100, 1: 100}


async def test_a_bad_word_is_banned_with_and_without_its_space(
    tmp_path: Path, folder: Path
) -> None:
    made = await asked(folder, text_request(bad_words=("fox", " dog")))
    assert set(made.bad_words) == {tuple(ids(RAW, text)) for text in ("fox", " fox", "dog", " dog")}
    raw = sentencepiece_like()
    made = await asked(write_folder(tmp_path, raw), text_request(bad_words=("fox",)))
    assert tuple(raw.encode("fox", add_special_tokens=False).ids) in made.bad_words
    assert raw.token_to_id(BOS) not in {token for word in made.bad_words for token in word}


async def test_an_answer_is_held_to_a_form_only_by_an_engine_that_can(folder: Path) -> None:
    guide = Guide(kind="regex", text="a+")
    formed = replace(text_request("fox"), guide=guide)
    assert (await asked(folder, formed, guided=True)).guide == guide
    error = await refused(model_of(folder), formed)
    assert error.param == "response_format"
    assert "guided" in str(error)
    calling = replace(chat(), tools=ToolUse(tools=[TOOL], choice="required"))
    made = await asked(folder, calling, guided=True)
    assert made.guide
    assert made.guide.kind == "json_schema"
    assert (await refused(model_of(folder), calling)).param == "tool_choice"


async def test_log_probs_need_the_logits_they_are_made_of(folder: Path) -> None:
    made = await asked(folder, text_request(log_probs=0))
    assert (made.log_probs, made.top_log_probs, made.prompt_log_probs) == (True, 0, None)
    made = await asked(folder, text_request(log_probs=2), generation_logits=True)
    assert made.top_log_probs == 2
    made = await asked(folder, text_request(prompt_log_probs=3), context_logits=True)
    assert (made.prompt_log_probs, made.log_probs) == (3, False)
    both = text_request(echo=True, log_probs=1)
    made = await asked(folder, both, context_logits=True, generation_logits=True)
    assert (made.prompt_log_probs, made.top_log_probs) == (1, 1)
    for request, param in (
        (text_request(log_probs=2), "logprobs"),
        (replace(chat(), log_probs=2), "top_logprobs"),
        (text_request(prompt_log_probs=0), "prompt_logprobs"),
        (text_request(echo=True, log_probs=0), "echo"),
    ):
        error = await refused(model_of(folder), request)
        assert error.param == param
        assert "--gather-logits" in str(error)


async def test_beams_are_as_many_as_the_engine_has(folder: Path) -> None:
    beams = text_request(n=2, beams=True, early_stopping=True)
    made = await asked(folder, beams, max_beam_width=2)
    assert made.beams
    assert (made.beams.width, made.beams.early_stopping, made.sequences) == (2, True, 1)
    assert (await refused(model_of(folder), beams)).param == "use_beam_search"
    more = replace(beams, best_of=3)
    assert (await refused(model_of(folder, max_beam_width=2), more)).param == "n"


async def test_an_echo_is_what_the_client_said(folder: Path) -> None:
    model = model_of(folder)
    assert (await one(model, text_request("fox", echo=True))).echo == "fox"
    tokens = TextRequest(
        model="m", prompts=[TokenPrompt(ids=ids(RAW, "dog"))], prompt_param="prompt", echo=True
    )
    assert (await one(model, tokens)).echo == "dog"


async def test_adapter_and_trace_go_with_the_request(folder: Path) -> None:
    model = model_of(folder, triton_model="llama")
    trace = {"traceparent": "00-1"}
    made = (await one(model, text_request(), adapter_id=7, trace=trace)).request
    assert (made.model, made.adapter_id, made.trace) == ("llama", 7, trace)


LONG = "fox " * 400
TOLD = "{{ documents }}{{ tools | tojson }}{% for m in messages %}{{ m }}{% endfor %}"


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [{**USER, "reasoning_content": LONG}]},
        {"variables": {"documents": [{"text": LONG}]}},
        {"tools": [{"type": "function", "function": {"name": "f", "description": LONG}}]},
    ],
)
async def test_what_is_long_is_read_beside_the_event_loop_wherever_it_stands(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    model = model_of(write_folder(tmp_path, RAW, template=TOLD), max_seq_len=10_000)
    threads = watched(model)
    await one(model, TextRequest(model="m", prompt_param="messages", prompts=[
        ChatPrompt(**{"messages": [USER], **values})
    ]))  # fmt: skip
    assert threads
    assert threading.current_thread() not in threads


async def test_bad_words_are_read_once_for_all_prompts_and_many_beside_the_event_loop(
    folder: Path,
) -> None:
    model = model_of(folder)
    threads = watched(model)
    words = tuple(f"{'fox ' * 9}{number}" for number in range(50))
    made = await model.requests(text_request("a", "b", "c", bad_words=words), "r")
    assert len({one.request.bad_words for one in made}) == 1
    assert threads.count(threading.current_thread()) == 3, "the prompts"
    assert len(threads) - 3 == 2 * len(words), "each with and without its space"


def watched(model: TextModel) -> list[threading.Thread]:
    """The threads in which the model's tokenizer encodes from now on."""
    threads, encode = [], model.tokenizer.encode_here

    def encoded(text: str, *, add_special_tokens: bool) -> list[int]:
        threads.append(threading.current_thread())
        return encode(text, add_special_tokens=add_special_tokens)

    model.tokenizer.encode_here = encoded  # type: ignore[method-assign]
    return threads


async def test_an_answer_that_must_be_longer_than_there_is_room_for_is_refused(
    folder: Path,
) -> None:
    error = await refused(model_of(folder), text_request("fox", max_tokens=99, min_tokens=64))
    assert error.param == "min_tokens"
    assert (await one(model_of(folder), text_request("fox", max_tokens=99))).max_tokens < 64


async def test_a_stop_id_must_be_the_models(folder: Path) -> None:
    error = await refused(model_of(folder), text_request("fox", stop_token_ids=(SIZE,)))
    assert error.param == "stop_token_ids"


async def test_what_no_request_could_ask_for_is_not_taken_from_the_models_own_sampling(
    tmp_path: Path,
) -> None:
    wrong = {"repetition_penalty": 0, "top_k": True, "temperature": True, "top_p": 1.5}
    (write_folder(tmp_path, RAW) / "generation_config.json").write_text(json.dumps(wrong))
    made = await asked(tmp_path)
    assert (made.repetition_penalty, made.top_k, made.temperature, made.top_p) == (1, 0, 1, 1)
    assert made.top_k is not True
