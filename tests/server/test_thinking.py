"""Promise: an answer that is held to a form is thought about first, for as long as it may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from live_proxy import MODEL, config, live_proxy
from small_tokenizers import CHATML, EOS, byte_level, ids, write_folder
from tokenizers import AddedToken
from waiting import eventually

from server.backend.base import GenerateRequest, Perf
from server.backend.memory import MemoryBackend, Script
from server.errors import NotReadyError

RAW = byte_level()
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
RAW.add_tokens([AddedToken(text, special=False) for text in ("<think>", "</think>")])
RAW.add_tokens([AddedToken(text, special=True) for text in HARMONY])
END = RAW.token_to_id(EOS)
USER: Any = [{"role": "user", "content": "hi"}]
FORM: Any = {"type": "json_object"}
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n"
HYBRID = CHATML.replace(
    HEADER, HEADER + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
OPENING = CHATML.replace(HEADER, f"{HEADER}<think>\n") + "{# </think> #}"
CHANNELS = CHATML.replace(HEADER, "{% if add_generation_prompt %}<|start|>assistant")
TEMPLATES = {
    "plain": CHATML,
    "hybrid": HYBRID + "{# <think> #}",
    "opening": OPENING,
    "harmony": CHANNELS + "{# <|channel|>analysis #}",
}
LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object"}},
}
Say = Callable[[GenerateRequest], str]


def text_of(request: GenerateRequest) -> str:
    text: str = RAW.decode(request.input_ids, skip_special_tokens=False)
    return text.rpartition("assistant")[2] if "assistant" in text else text


def script(text: str, **values: Any) -> Script:
    return Script(messages=[[token] for token in (*ids(RAW, text), END)], **values)


def phases(thoughts: str, answer: str, **values: Any) -> MemoryBackend:
    """An engine that thinks where nothing holds it, and answers where it is held or has thought."""

    def said(request: GenerateRequest) -> Script:
        second = request.guide is not None or len(backend.requests) > 0
        return script(answer if second else thoughts, **values)

    backend = MemoryBackend(said)
    return backend


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    made = tmp_path_factory.mktemp("thinking")
    return {
        name: write_folder(made / name, RAW, template=template)
        for name, template in TEMPLATES.items()
    }


async def asked(
    folder: Path,
    backend: MemoryBackend,
    *,
    model: Mapping[str, Any] | None = None,
    **values: Any,
) -> Any:
    """What the client of OpenAI gets; a stream's chunks in a list."""
    settings = config(folder, max_seq_len=1000, model={"guided": True, **(model or {})})
    async with live_proxy(settings, backend) as proxy:
        values = {"model": MODEL, "messages": USER, **values}
        answer = await proxy.openai.chat.completions.create(**values)
        return [chunk async for chunk in answer] if values.get("stream") else answer


def reasoning(message: Any) -> str:
    return message.model_extra.get("reasoning") or ""


@pytest.mark.parametrize("kind", ["hybrid", "opening", "harmony"])
async def test_thoughts_come_first_and_then_the_form(
    folders: Mapping[str, Path], kind: str
) -> None:
    thoughts = {
        "hybrid": "<think>\nquick fox</think>",
        "opening": "quick fox</think>",
        "harmony": "quick fox<|end|>",
    }[kind]
    backend = phases(thoughts, '{"a": 1}', perf=Perf(cached_tokens=3))
    answer = await asked(folders[kind], backend, response_format=FORM, max_tokens=60, logprobs=True)
    message = answer.choices[0].message
    assert (reasoning(message), message.content) == ("quick fox", '{"a": 1}')
    assert answer.choices[0].finish_reason == "stop"
    first, second = backend.requests
    assert (first.guide, second.guide is not None) == (None, True)
    then = {"harmony": "<|start|>assistant<|channel|>final<|message|>"}.get(kind, "\n\n")
    written = ids(RAW, thoughts) + ids(RAW, then)
    assert second.input_ids == [*first.input_ids, *written], "it goes on from all there is"
    assert second.max_tokens == 60 - len(written)
    usage = answer.usage
    assert usage.completion_tokens == len(written) + len(ids(RAW, '{"a": 1}')) + 1
    assert usage.completion_tokens_details.reasoning_tokens >= len(ids(RAW, "quick fox"))
    assert usage.prompt_tokens_details.cached_tokens == 3
    said = "".join(token.token for token in answer.choices[0].logprobs.content)
    assert said == f'{thoughts}{then}{{"a": 1}}', "as where nothing is held"


async def test_streams_tell_thoughts_before_content(folders: Mapping[str, Path]) -> None:
    backend = phases("<think>\nquick fox</think>", '{"a": 1}')
    chunks = await asked(folders["hybrid"], backend, response_format=FORM, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    kinds = ["r" if reasoning(d) else "c" for d in deltas if reasoning(d) or d.content]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"r", "c"}
    assert "".join(map(reasoning, deltas)) == "quick fox"
    assert "".join(d.content or "" for d in deltas) == '{"a": 1}'


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("required", '[{"name": "look", "parameters": {"at": 1}}]'),
        ({"type": "function", "function": {"name": "look"}}, '{"at": 1}'),
    ],
)
@pytest.mark.parametrize("kind", ["hybrid", "harmony"])
async def test_calls_that_are_demanded_are_thought_about(
    folders: Mapping[str, Path], kind: str, choice: Any, said: str
) -> None:
    thoughts = "quick fox<|end|>" if kind == "harmony" else "<think>quick fox</think>"
    answer = await asked(folders[kind], phases(thoughts, said), tools=[LOOK], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"at": 1}
    assert reasoning(answer.choices[0].message) == "quick fox"


async def test_what_a_client_does_not_want_thought_or_told_is_not(
    folders: Mapping[str, Path],
) -> None:
    silent: Sequence[Any] = [
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"thinking_token_budget": 0},
    ]
    effort = {"reasoning_effort": "none"}
    for kind, extras in (("hybrid", [*silent, effort]), ("opening", silent)):
        for extra in extras:
            backend = phases("<think>in vain", "{}")
            answer = await asked(folders[kind], backend, response_format=FORM, extra_body=extra)
            (request,) = backend.requests
            assert text_of(request).endswith("<think>\n\n</think>\n\n")
            assert (answer.choices[0].message.content, request.guide is None) == ("{}", False)
    backend = phases("<think>fox</think>", "{}")
    extra = {"include_reasoning": False}
    answer = await asked(folders["hybrid"], backend, response_format=FORM, extra_body=extra)
    assert (reasoning(answer.choices[0].message), len(backend.requests)) == ("", 2)


async def test_a_model_that_does_not_think_answers_in_the_form_from_the_first_token(
    folders: Mapping[str, Path],
) -> None:
    backend = phases("Sure! Here it is", '{"a": 1}')
    answer = await asked(folders["hybrid"], backend, response_format=FORM)
    assert answer.choices[0].message.content == '{"a": 1}'
    assert answer.usage.completion_tokens == len(ids(RAW, '{"a": 1}')) + 1
    assert backend.requests[0].input_ids == backend.requests[1].input_ids


@pytest.mark.parametrize("thoughts", ["quick fox", ""])
async def test_thoughts_that_end_the_answer_are_ended_for_the_form(
    folders: Mapping[str, Path], thoughts: str
) -> None:
    backend = phases(thoughts, "{}")
    answer = await asked(folders["opening"], backend, response_format=FORM)
    message = answer.choices[0].message
    assert (reasoning(message), message.content) == (thoughts, "{}")
    assert text_of(backend.requests[1]).endswith(f"<think>\n{thoughts}</think>\n\n")


async def test_thoughts_that_take_all_there_is_leave_no_answer(
    folders: Mapping[str, Path],
) -> None:
    for most in (1, 2, 3):
        backend = phases("the lazy dog jumps</think>", "{}")
        answer = await asked(folders["opening"], backend, response_format=FORM, max_tokens=most)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == most
        assert (len(backend.requests), answer.choices[0].message.content or "") == (1, "")


@pytest.mark.parametrize("form", [None, FORM])
@pytest.mark.parametrize("kind", ["hybrid", "opening"])
async def test_a_budget_ends_the_thoughts(
    folders: Mapping[str, Path], kind: str, form: Any
) -> None:
    start = "<think>" if kind == "hybrid" else ""
    thoughts = "the lazy dog jumps over the fox"
    for budget in (1, 3):
        backend = phases(f"{start}{thoughts}</think>never", "{}", burst=2)
        extra = {"thinking_token_budget": budget}
        more = {"response_format": form} if form else {}
        answer = await asked(folders[kind], backend, extra_body=extra, **more)
        kept = RAW.decode(ids(RAW, thoughts)[:budget])
        message = answer.choices[0].message
        assert (reasoning(message), message.content) == (kept, "{}")
        assert text_of(backend.requests[1]).endswith(f"{kept}</think>\n\n")


async def test_within_a_budget_a_free_answer_is_one_request(folders: Mapping[str, Path]) -> None:
    backend = phases("<think>fox</think>\n\nYes.", "{}")
    answer = await asked(
        folders["hybrid"], backend, extra_body={"thinking_token_budget": 50}, stop=["never"]
    )
    message = answer.choices[0].message
    assert (reasoning(message), message.content) == ("fox", "Yes.")
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("plain-vocabulary", {"thinking_token_budget": 5}),
        ("hybrid", {"thinking_token_budget": -2}),
        ("hybrid", {"thinking_token_budget": 2**31}),
        ("hybrid", {"thinking_token_budget": 5, "use_beam_search": True}),
    ],
)
async def test_a_budget_that_means_nothing_is_refused_by_name(
    folders: Mapping[str, Path], kind: str, values: Any
) -> None:
    model = {"max_beam_width": 4, **({"reasoning_parser": "none"} if "plain" in kind else {})}
    folder = folders.get(kind, folders["plain"])
    with pytest.raises(openai.BadRequestError) as caught:
        await asked(folder, phases("", "{}"), model=model, extra_body=values)
    assert caught.value.param == "thinking_token_budget"


async def test_each_of_several_answers_thinks_by_itself(folders: Mapping[str, Path]) -> None:
    def said(request: GenerateRequest) -> Script:
        own = "fox" if request.seed % 2 else "lazy dog"
        return script("{}" if request.guide else f"<think>{own}</think>")

    backend = MemoryBackend(said)
    for _ in range(2):
        answer = await asked(folders["hybrid"], backend, response_format=FORM, n=2, seed=4)
        told = [(reasoning(one.message), one.message.content) for one in answer.choices]
        assert told == [("lazy dog", "{}"), ("fox", "{}")]
    assert {request.sequences for request in backend.requests} == {1}
    assert sorted(request.seed for request in backend.requests) == [4] * 4 + [5] * 4


async def test_stop_strings_cut_thoughts_as_they_do_without_a_form(
    folders: Mapping[str, Path],
) -> None:
    backend = phases("<think>quick fox</think>", "{}")
    answer = await asked(folders["hybrid"], backend, response_format=FORM, stop=["fox"])
    assert (reasoning(answer.choices[0].message), len(backend.requests)) == ("quick ", 1)


async def test_an_error_behind_the_thoughts_is_told(folders: Mapping[str, Path]) -> None:
    def said(request: GenerateRequest) -> Script:
        if request.guide:
            return Script(failure=NotReadyError("gone"))
        return script("<think>fox</think>")

    with pytest.raises(openai.APIStatusError) as caught:
        await asked(folders["hybrid"], MemoryBackend(said), response_format=FORM)
    assert caught.value.status_code == 503


@pytest.mark.parametrize("phase", [1, 2])
async def test_a_client_that_leaves_stops_whatever_runs(
    folders: Mapping[str, Path], phase: int
) -> None:
    def said(request: GenerateRequest) -> Script:
        hangs = bool(request.guide) == (phase == 2)
        text = '{"a' if request.guide else "<think>fox" + ("" if hangs else "</think>")
        return Script(messages=[[token] for token in ids(RAW, text)], hang=hangs)

    backend = MemoryBackend(said)
    settings = config(folders["hybrid"], max_seq_len=1000, model={"guided": True})
    async with live_proxy(settings, backend) as proxy:
        stream = await proxy.openai.chat.completions.create(
            model=MODEL, messages=USER, response_format=FORM, stream=True
        )
        async for chunk in stream:
            delta = chunk.choices[0].delta
            if delta.content if phase == 2 else reasoning(delta):
                break
        await stream.close()
        await eventually(lambda: not backend.running)
    assert len(backend.requests) == phase
    assert len(backend.cancelled) == 1


async def test_what_was_written_for_the_model_is_certain(folders: Mapping[str, Path]) -> None:
    backend = phases("<think>fox</think>", "{}", top=[(5, -0.5), (6, -1.5)])
    answer = await asked(
        folders["hybrid"],
        backend,
        model={"generation_logits": True},
        response_format=FORM,
        logprobs=True,
        top_logprobs=2,
    )
    told = answer.choices[0].logprobs.content
    written = [token for token in told if token.logprob == 0]
    assert [token.token for token in written] == [RAW.decode([token]) for token in ids(RAW, "\n\n")]
    assert all([top.token for top in token.top_logprobs] == [token.token] for token in written)
    assert all(len(token.top_logprobs) == 2 for token in told if token not in written)


@pytest.mark.parametrize("kind", ["hybrid", "opening", "harmony"])
async def test_a_prompt_behind_which_no_thought_fits_is_refused_before_it_is_thought_about(
    folders: Mapping[str, Path], kind: str
) -> None:
    async def inputs(**model: Any) -> list[int]:
        end = "<|end|>" if kind == "harmony" else "</think>"
        backend = phases("quick fox jumps over the lazy dog" + end, "{}")
        await asked(folders[kind], backend, model=model, response_format=FORM, max_tokens=60)
        return [len(request.input_ids) for request in backend.requests]

    prompt, _ = await inputs()
    refusals: list[tuple[Any, Any, int]] = []
    lengths = range(prompt, prompt + 40, 3)
    for most in lengths:
        try:
            longest = max(await inputs(max_input_len=most))
        except openai.BadRequestError as error:
            refusals.append((error.code, error.param, most))
        else:
            assert longest <= most
    assert {refusal[:2] for refusal in refusals} == {("context_length_exceeded", "messages")}
    assert [most for *_, most in refusals] == [*lengths[: len(refusals)]]


async def test_responses_tell_the_log_probs_of_each_part_of_a_character(
    folders: Mapping[str, Path],
) -> None:
    backend = MemoryBackend(script("<think>fox</think>\n\n\U0001f600 ok \U0001f600!"))
    settings = config(folders["hybrid"], max_seq_len=1000)
    async with live_proxy(settings, backend) as proxy:
        response: Any = await proxy.openai.responses.create(
            model=MODEL, input="hi", include=["message.output_text.logprobs"]
        )
    said = response.output[-1].content[0]
    assert said.text == "\U0001f600 ok \U0001f600!"
    assert bytes(byte for token in said.logprobs for byte in token.bytes).decode() == said.text


async def test_responses_tell_thoughts_as_an_item_before_the_form(
    folders: Mapping[str, Path],
) -> None:
    backend = phases("<think>quick fox</think>", "{}")
    settings = config(folders["hybrid"], max_seq_len=1000, model={"guided": True})
    async with live_proxy(settings, backend) as proxy:
        stream: Any = await proxy.openai.responses.create(
            model=MODEL,
            input="hi",
            text={"format": {"type": "json_object"}},
            stream=True,
            extra_body={"thinking_token_budget": 1},
        )
        final = [event async for event in stream][-1].response
    thought, message = final.output
    assert (thought.type, message.content[0].text) == ("reasoning", "{}")
    assert thought.content[0].text == RAW.decode(ids(RAW, "quick fox")[:1])
